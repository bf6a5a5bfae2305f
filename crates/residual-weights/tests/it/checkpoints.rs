//! Finds the weights in checkpoints as people save them.

use crate::torch::{Layout, Py, View, call, dict, save, tensor, text, zip};
use burn::tensor::Device;
use residual_model::{Network, NetworkConfig};
use residual_weights::{Checkpoint, LoadOptions, Loaded, NameMap, WeightsError, load, tensors};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use zip::CompressionMethod;

const STORED: Layout = Layout::Zip(CompressionMethod::Stored);

fn config() -> NetworkConfig {
    NetworkConfig::new("resnet8".parse().unwrap(), [3, 16, 16], 10).with_width(4).with_shortcut("B".parse().unwrap())
}

fn network(seed: u64) -> Network {
    config().with_seed(seed).init(&Device::flex())
}

/// The state dictionary of the network with this seed, with a prefix before each name.
fn state(seed: u64, prefix: &str) -> Py {
    renamed(seed, |name| format!("{prefix}{name}"))
}

fn renamed(seed: u64, name: impl Fn(&str) -> String) -> Py {
    let tensors = tensors(&network(seed));
    let pairs = tensors.iter().map(|(n, (shape, values))| (text(&name(n)), tensor(shape, values)));
    Py::Updated(Box::new(call("collections", "OrderedDict", vec![])), pairs.collect())
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn save(&self, value: &Py) -> PathBuf {
        save(self.path(), "net.pth", value, STORED)
    }
}

fn read(path: &Path, options: &LoadOptions) -> Result<(Network, Loaded), WeightsError> {
    let mut ours = network(99);
    let loaded = Checkpoint::read(path).and_then(|checkpoint| load(&mut ours, &checkpoint, options))?;
    Ok((ours, loaded))
}

/// Fails unless the file gives the weights of the network with this seed. Returns what was left aside.
#[track_caller]
fn holds(path: &Path, seed: u64) -> Option<String> {
    let (ours, loaded) = read(path, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.tensors, 47);
    assert!(tensors(&ours) == tensors(&network(seed)));
    loaded.left_aside
}

#[track_caller]
fn refused(path: &Path) -> String {
    let Err(error) = read(path, &LoadOptions::default()) else { panic!("the file was accepted") };
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn scalar(value: f32) -> Py {
    tensor(&[], &[value])
}

/// The state of SGD with momentum.
fn optimizer() -> Py {
    let buffer = |i| (Py::Int(i), dict([("momentum_buffer", tensor(&[2], &[0.0, 0.0]))]));
    dict([
        ("state", Py::Dict(vec![buffer(0), buffer(1)])),
        ("param_groups", Py::List(vec![dict([("lr", Py::Float(0.1))])])),
    ])
}

#[test]
fn weights_are_found_beside_the_state_of_a_training() {
    let folder = Folder::new();
    let path = folder.save(&dict([
        ("epoch", Py::Int(90)),
        ("state_dict", state(1, "module.")),
        ("best_acc1", scalar(69.7)),
        ("optimizer", optimizer()),
    ]));
    let said = holds(&path, 1).unwrap();
    assert_eq!(said, "read state_dict.module (47 tensors); left aside optimizer (2 tensors), best_acc1");
    let path = folder.save(&dict([("model_state_dict", state(2, "")), ("loss", scalar(0.4))]));
    assert_eq!(holds(&path, 2).unwrap(), "read model_state_dict (47 tensors); left aside loss");
    assert_eq!(holds(&folder.save(&state(3, "")), 3), None);
}

#[test]
fn any_prefix_is_removed() {
    let folder = Folder::new();
    for prefix in ["model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "student.net.module.", "x."] {
        assert_eq!(holds(&folder.save(&dict([("state_dict", state(1, prefix))])), 1), None, "{prefix}");
        assert_eq!(holds(&folder.save(&state(1, prefix)), 1), None, "{prefix}");
    }
    let nested = dict([("a", Py::Dict(vec![(Py::Int(0), Py::List(vec![Py::None, state(1, "")]))]))]);
    assert_eq!(holds(&folder.save(&nested), 1), None);
    // Lightning stores the weights of a loss beside those of the network.
    let Py::Updated(ordered, mut pairs) = state(1, "net.") else { panic!() };
    pairs.push((text("loss.weight"), tensor(&[2], &[1.0, 2.0])));
    let said = holds(&folder.save(&dict([("state_dict", Py::Updated(ordered, pairs))])), 1);
    assert_eq!(said.unwrap(), "read state_dict.net (47 tensors); left aside state_dict.loss");
}

#[test]
fn trained_weights_come_before_their_average() {
    let folder = Folder::new();
    for (trained, average) in
        [("model", "ema"), ("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "averaged_model")]
    {
        let path = folder.save(&dict([(average, state(2, "module.")), (trained, state(1, ""))]));
        let said = holds(&path, 1).unwrap();
        assert_eq!(said, format!("read {trained} (47 tensors); left aside {average} (47 tensors)"));
        let options = LoadOptions { key: Some(average.into()), ..LoadOptions::default() };
        let (ours, _) = read(&path, &options).unwrap();
        assert!(tensors(&ours) == tensors(&network(2)));
    }
    // In one dictionary with the weights.
    let Py::Updated(ordered, mut pairs) = state(1, "") else { panic!() };
    let Py::Updated(_, average) = state(2, "ema.") else { panic!() };
    pairs.extend(average);
    let said = holds(&folder.save(&Py::Updated(ordered, pairs)), 1).unwrap();
    assert_eq!(said, "read 47 tensors; left aside ema (47 tensors)");
    // An average alone, with the counter of torch.optim.swa_utils.AveragedModel.
    let Py::Updated(ordered, mut pairs) = state(3, "module.") else { panic!() };
    pairs.insert(0, (text("n_averaged"), scalar(5.0)));
    assert_eq!(holds(&folder.save(&Py::Updated(ordered, pairs)), 3), None);
}

#[test]
fn equal_dictionaries_need_a_key() {
    let folder = Folder::new();
    let path = folder.save(&dict([("student", state(1, "")), ("teacher", state(2, ""))]));
    assert!(refused(&path).ends_with("holds the weights of several such networks, under student and teacher"));
    let with_key = |key: &str| read(&path, &LoadOptions { key: Some(key.into()), ..LoadOptions::default() });
    assert!(tensors(&with_key("teacher").unwrap().0) == tensors(&network(2)));
    let error = with_key("techer").err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("no tensors under `techer`; it has: student, teacher"));
    // A deeper network has all names of the network, and more.
    let deeper = NetworkConfig::new("resnet14".parse().unwrap(), [3, 16, 16], 10).with_width(4);
    let deeper = deeper.with_shortcut("B".parse().unwrap()).init(&Device::flex());
    let deeper = tensors(&deeper).iter().map(|(name, (shape, v))| (text(name), tensor(shape, v))).collect();
    assert!(holds(&folder.save(&dict([("a", Py::Dict(deeper)), ("b", state(4, ""))])), 4).is_some());
    // The shapes tell a network from another of the same architecture.
    let other = config().with_classes(7).init(&Device::flex());
    let other = tensors(&other).iter().map(|(name, (shape, v))| (text(name), tensor(shape, v))).collect();
    assert!(holds(&folder.save(&dict([("a", Py::Dict(other)), ("b", state(4, ""))])), 4).is_some());
}

#[test]
fn a_wrong_network_is_refused_whatever_is_beside_it() {
    let folder = Folder::new();
    let Py::Updated(ordered, mut pairs) = state(1, "module.") else { panic!() };
    pairs.push((text("module.layer4.0.conv1.weight"), tensor(&[1], &[1.0])));
    let path = folder.save(&dict([("state_dict", Py::Updated(ordered, pairs)), ("optimizer", optimizer())]));
    let expected = "does not fit the network: unknown: layer4.0.conv1.weight; read state_dict.module (48 tensors); left \
                    aside optimizer (2 tensors)";
    assert!(refused(&path).ends_with(expected));
    // timm's resnet18d has a stem of three convolutions, whose names others give to the first norm.
    let Py::Updated(ordered, mut pairs) = state(1, "") else { panic!() };
    pairs.extend(["weight", "bias"].map(|name| (text(&format!("conv1.1.{name}")), tensor(&[4], &[1.0; 4]))));
    let path = folder.save(&Py::Updated(ordered, pairs));
    assert!(refused(&path).ends_with("does not fit the network: unknown: conv1.1.bias, conv1.1.weight"));
}

#[test]
fn whole_modules_and_torch_script_are_read() {
    let folder = Folder::new();
    assert_eq!(holds(&folder.save(&module(1, true)), 1), None);
    assert_eq!(holds(&folder.save(&dict([("net", module(2, true)), ("epoch", Py::Int(3))])), 2), None);
    // TorchScript has the tensors and modules as plain attributes.
    assert_eq!(holds(&folder.save(&module(3, false)), 3), None);
}

/// The tree of modules that PyTorch pickles for a network.
fn module(seed: u64, is_eager: bool) -> Py {
    #[derive(Default)]
    struct Tree {
        tensors: Vec<(Py, Py)>,
        children: BTreeMap<String, Tree>,
    }
    fn build(tree: Tree, is_eager: bool) -> Py {
        let children = tree.children.into_iter().map(|(name, child)| (text(&name), build(child, is_eager)));
        let class = Box::new(Py::Global("__torch__.models", "Block"));
        let training = (text("training"), Py::Int(0));
        let state = if is_eager {
            let parts = [("_parameters", tree.tensors), ("_buffers", vec![]), ("_modules", children.collect())];
            let parts = parts.map(|(name, pairs)| (text(name), Py::Dict(pairs)));
            // A tensor that is no parameter is not part of the state dictionary.
            let other = (text("cache"), tensor(&[1], &[1.0]));
            [vec![training, other], parts.into()].concat()
        } else {
            [vec![training], tree.tensors, children.collect()].concat()
        };
        Py::Built(class, Box::new(Py::Dict(state)))
    }
    let mut root = Tree::default();
    for (name, (shape, values)) in tensors(&network(seed)) {
        let (way, leaf) = name.rsplit_once('.').unwrap();
        let owner = way.split('.').fold(&mut root, |tree, part| tree.children.entry(part.into()).or_default());
        let data = tensor(&shape, &values);
        let parameter = call("torch._utils", "_rebuild_parameter", vec![data, Py::None, Py::None]);
        owner.tensors.push((text(leaf), parameter));
    }
    build(root, is_eager)
}

#[test]
fn metadata_of_any_kind_never_blocks_the_weights() {
    let folder = Folder::new();
    let ordered = || Box::new(call("collections", "OrderedDict", vec![]));
    let kinds = [
        Py::None,
        Py::Dict(vec![(Py::None, Py::Int(1)), (Py::Tuple(vec![Py::Int(32), Py::Int(32)]), text("size"))]),
        Py::Built(Box::new(Py::Global("argparse", "Namespace")), Box::new(dict([("lr", Py::Float(0.1))]))),
        Py::Updated(
            Box::new(call("collections", "defaultdict", vec![Py::Global("builtins", "list")])),
            vec![(text("loss"), Py::List(vec![Py::Float(0.5)]))],
        ),
        Py::Extended(Box::new(call("collections", "deque", vec![Py::List(vec![]), Py::Int(20)])), vec![Py::Float(0.5)]),
        call("collections", "Counter", vec![Py::Dict(vec![(Py::Int(30), Py::Int(1))])]),
        call("builtins", "set", vec![Py::List(vec![text("a")])]),
        Py::Updated(
            Box::new(Py::Built(Box::new(Py::Global("easydict", "EasyDict")), Box::new(dict([])))),
            vec![(text("net"), text("a"))],
        ),
        call("pathlib", "PosixPath", vec![text("/tmp/a")]),
        call("datetime", "datetime", vec![text("\u{7}\u{e8}")]),
        call("my_code", "Mode", vec![Py::Int(2)]),
        call("torch", "Size", vec![Py::Tuple(vec![Py::Int(3)])]),
        call("torch", "device", vec![text("cuda"), Py::Int(0)]),
        Py::Global("torch", "float16"),
        call(
            "numpy.core.multiarray",
            "scalar",
            vec![call("numpy", "dtype", vec![text("f8")]), text("\0\0\0\0\0\0\0\0")],
        ),
        Py::Updated(ordered(), vec![(text("x"), Py::Tuple(vec![]))]),
    ];
    for (i, kind) in kinds.iter().enumerate() {
        let all =
            dict([("config", kind.clone()), ("state_dict", state(1, "")), ("more", Py::List(vec![kind.clone()]))]);
        for layout in [STORED, Layout::Zip(CompressionMethod::Deflated), Layout::Legacy] {
            let path = save(folder.path(), &format!("{i}.pth"), &all, layout);
            assert_eq!(holds(&path, 1), None, "{i}");
        }
    }
}

#[test]
fn tensors_without_values_are_left_aside_or_named() {
    let folder = Folder::new();
    let sparse = || call("torch._utils", "_rebuild_sparse_tensor", vec![Py::None, Py::Tuple(vec![scalar(1.0)])]);
    let path = folder.save(&dict([("graph", sparse()), ("state_dict", state(1, ""))]));
    assert_eq!(holds(&path, 1).unwrap(), "read state_dict (47 tensors); left aside graph");
    let Py::Updated(_, mut pairs) = state(1, "") else { panic!() };
    pairs[0].1 = sparse();
    assert!(refused(&folder.save(&Py::Dict(pairs))).contains("`bn1.bias`: it is sparse; expected a dense tensor"));
}

#[test]
fn views_are_read_by_their_strides() {
    let folder = Folder::new();
    let Py::Updated(_, pairs) = state(1, "") else { panic!() };
    let moved = pairs.iter().map(|(name, value)| {
        let Py::Tensor(View { values, shape, strides, .. }) = value else { panic!() };
        let view = match shape[..] {
            // Transposed, and in the middle of a larger storage.
            [rows, columns] => {
                let transposed = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]);
                let values = [9.0; 3].into_iter().chain(transposed).chain([9.0; 2]).collect();
                View { values, offset: 3, shape: shape.clone(), strides: vec![1, rows] }
            }
            // Channels last.
            [_, c, h, w] => {
                let mut last = vec![0.0; values.len()];
                for (i, x) in values.iter().enumerate() {
                    let (x_, y, k, o) = (i % w, i / w % h, i / (w * h) % c, i / (w * h * c));
                    last[((o * h + y) * w + x_) * c + k] = *x;
                }
                View { values: last, offset: 0, shape: shape.clone(), strides: vec![h * w * c, 1, w * c, c] }
            }
            // Every second value.
            _ => {
                let values = values.iter().flat_map(|x| [*x, 9.0]).collect();
                View { values, offset: 0, shape: shape.clone(), strides: vec![2 * strides[0]] }
            }
        };
        (name.clone(), Py::Tensor(view))
    });
    let moved = Py::Dict(moved.collect());
    for layout in [STORED, Layout::Zip(CompressionMethod::Deflated), Layout::Legacy] {
        assert_eq!(holds(&save(folder.path(), "views.pth", &moved, layout), 1), None);
    }
}

#[test]
fn views_beyond_their_storage_are_refused() {
    let folder = Folder::new();
    let Py::Updated(_, pairs) = state(1, "") else { panic!() };
    let Py::Tensor(whole) = &pairs[0].1 else { panic!() };
    let huge = View { strides: vec![i32::MAX as usize], ..whole.clone() };
    for view in [View { offset: 1, ..whole.clone() }, View { offset: i32::MAX, ..whole.clone() }, huge] {
        let mut pairs = pairs.clone();
        pairs[0].1 = Py::Tensor(view);
        for layout in [STORED, Layout::Legacy] {
            let path = save(folder.path(), "view.pth", &Py::Dict(pairs.clone()), layout);
            assert!(refused(&path).contains("`bn1.bias`: it is larger than its storage"));
        }
    }
}

#[test]
fn pickles_that_grow_without_end_are_refused_quickly() {
    let folder = Folder::new();
    let path = folder.path().join("bomb.pth");
    let try_pickle = |pickle: Vec<u8>| {
        let storage = ("archive/data/0".to_string(), vec![0; 4]);
        zip(&path, &[("archive/data.pkl".to_string(), pickle), storage], CompressionMethod::Deflated);
        refused(&path)
    };
    // Each of 60 lists holds the one before twice.
    let doubled = |start: &[u8]| {
        let twice = (0..60u8)
            .map(|i| [b"]q".as_slice(), &[i], b"(h", &[i.wrapping_sub(1)], b"h", &[i.wrapping_sub(1)], b"e"].concat());
        [b"\x80\x02".to_vec(), start.to_vec(), twice.skip(1).flatten().collect(), b".".to_vec()].concat()
    };
    assert!(try_pickle(doubled(b"]q\0")).contains("contains no tensors"));
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";
    let one = [b"]q\0ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], b"K\0))\x89NtRa"].concat();
    assert!(try_pickle(doubled(&one)).contains("nested in too many ways"));
    assert!(
        try_pickle([vec![b']'; 100_000], vec![b'a'; 99_999], b".".to_vec()].concat()).contains("contains no tensors")
    );
    assert!(try_pickle(vec![b'2'; 1 << 25]).contains("pickle"));
    assert!(try_pickle(vec![b'N'; 1 << 25]).contains("too many values"));
}

/// Writes tensors of the network with this seed as a safetensors file.
fn write_safetensors(path: &Path, seed: u64, name: impl Fn(&str) -> Option<String>) {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&network(seed))
        .into_iter()
        .filter_map(|(n, (shape, values))| {
            Some((name(&n)?, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn shards_are_read_through_their_index() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name);
    let in_first = |name: &str| name < "layer2.0.conv2.weight";
    let index = |end: &str| {
        let names = tensors(&network(1)).into_keys();
        let part = |name: &str| if in_first(name) { 1 } else { 2 };
        let map: BTreeMap<String, String> =
            names.map(|name| (name.clone(), format!("model-0000{}-of-00002.{end}", part(&name)))).collect();
        let index = path(&format!("model.{end}.index.json"));
        fs::write(&index, serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string())
            .unwrap();
        index
    };
    let first = path("model-00001-of-00002.safetensors");
    write_safetensors(&first, 1, |name| in_first(name).then(|| name.into()));
    write_safetensors(&path("model-00002-of-00002.safetensors"), 1, |name| (!in_first(name)).then(|| name.into()));
    assert_eq!(holds(&index("safetensors"), 1), None);
    let text = refused(&first);
    assert!(text.contains("missing: layer2.0.conv2.weight, "), "{text}");
    assert!(text.ends_with("; it is one of 2 shards; give model.safetensors.index.json"), "{text}");

    let Py::Updated(_, pairs) = state(1, "") else { panic!() };
    let is_first = |(name, _): &(Py, Py)| matches!(name, Py::Text(name) if in_first(name));
    let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().partition(is_first);
    save(folder.path(), "model-00001-of-00002.bin", &Py::Dict(a), STORED);
    save(folder.path(), "model-00002-of-00002.bin", &Py::Dict(b), STORED);
    assert_eq!(holds(&index("bin"), 1), None);
    fs::remove_file(path("model-00002-of-00002.bin")).unwrap();
    assert!(refused(&path("model.bin.index.json")).contains("cannot read"));

    let bad = path("bad.index.json");
    for (file, expected) in [
        ("../secret.safetensors", "expected a file in the same folder"),
        ("/etc/passwd", "expected a file in the same folder"),
        ("..", "expected a file in the same folder"),
        ("bad.index.json", "is not"),
        ("model-00001-of-00002.safetensors", "holds the tensor `fc.weigth`, but it does not"),
    ] {
        fs::write(&bad, serde_json::json!({ "weight_map": { "fc.weigth": file } }).to_string()).unwrap();
        let text = refused(&bad);
        assert!(text.contains(expected), "{text}");
    }
    fs::write(&bad, "{ \"architectures\": [\"ResNet\"] }").unwrap();
    assert!(refused(&bad).contains("is JSON, but not an index of weights in several files"));
}

#[test]
fn common_names_need_no_map() {
    let folder = Folder::new();
    let path = folder.path().join("named.safetensors");
    let schemes: [fn(&str) -> String; 4] = [hugging_face, mmpretrain, resnext_densenet, cifar100];
    for name in schemes {
        write_safetensors(&path, 1, |n| Some(name(n)));
        assert_eq!(holds(&path, 1), None, "{}", name("layer2.0.downsample.0.weight"));
        assert_ne!(name("conv1.weight"), "conv1.weight");
    }
}

/// A block's stage, number and the rest of a tensor's name.
fn block(name: &str) -> Option<(usize, &str, &str)> {
    let (stage, rest) = name.strip_prefix("layer")?.split_once('.')?;
    let (block, rest) = rest.split_once('.')?;
    Some((stage.parse().unwrap(), block, rest))
}

fn hugging_face(name: &str) -> String {
    let part = |rest: &str| {
        let rest =
            rest.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization");
        let rest = rest.replace("conv1", "layer.0.convolution").replace("bn1", "layer.0.normalization");
        rest.replace("conv2", "layer.1.convolution").replace("bn2", "layer.1.normalization")
    };
    match block(name) {
        Some((stage, block, rest)) => format!("resnet.encoder.stages.{}.layers.{block}.{}", stage - 1, part(rest)),
        None => name
            .replace("conv1", "resnet.embedder.embedder.convolution")
            .replace("bn1", "resnet.embedder.embedder.normalization")
            .replace("fc", "classifier.1"),
    }
}

fn mmpretrain(name: &str) -> String {
    if name.starts_with("fc.") { format!("head.{name}") } else { format!("backbone.{name}") }
}

fn resnext_densenet(name: &str) -> String {
    let part = |rest: &str| {
        let rest = rest.replace("conv1", "conv_a").replace("bn1", "bn_a");
        rest.replace("conv2", "conv_b").replace("bn2", "bn_b")
    };
    match block(name) {
        Some((stage, block, rest)) => format!("stage_{stage}.{block}.{}", part(rest)),
        None => name.replace("conv1", "conv_1_3x3").replace("bn1", "bn_1").replace("fc", "classifier"),
    }
}

fn cifar100(name: &str) -> String {
    let part = |rest: &str| {
        let rest = rest.replace("downsample", "shortcut");
        let rest = rest.replace("conv1", "residual_function.0").replace("bn1", "residual_function.1");
        rest.replace("conv2", "residual_function.3").replace("bn2", "residual_function.4")
    };
    match block(name) {
        Some((stage, block, rest)) => format!("conv{}_x.{block}.{}", stage + 1, part(rest)),
        None => name.replace("conv1", "conv1.0").replace("bn1", "conv1.1"),
    }
}

#[test]
fn a_name_map_is_applied_below_any_dictionary() {
    let folder = Folder::new();
    let path = folder.save(&dict([("meta", Py::None), ("state_dict", renamed(1, |name| format!("odd/{name}")))]));
    assert!(refused(&path).contains("unknown: odd/bn1.bias"));
    let names = NameMap::parse(r#"{ "^odd/": "" }"#, Path::new("map.json")).unwrap();
    let (ours, _) = read(&path, &LoadOptions { names, ..LoadOptions::default() }).unwrap();
    assert!(tensors(&ours) == tensors(&network(1)));
}

#[test]
fn files_of_other_kinds_are_named() {
    let folder = Folder::new();
    let path = folder.path().join("net.pth");
    for (bytes, expected) in [
        (&b"<!DOCTYPE html><html>"[..], "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0", "is an HDF5 file"),
        (b"\x08\x07\x12\x07pytorch\x1a\x05", "is an ONNX model"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "is compressed by gzip"),
        (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}", "is a pickle that torch.save did not write"),
    ] {
        fs::write(&path, bytes).unwrap();
        let text = refused(&path);
        assert!(text.contains(expected), "{text}");
    }
    zip(&path, &[("arr_0.npy".into(), b"\x93NUMPY".to_vec())], CompressionMethod::Stored);
    assert!(refused(&path).contains("holds NumPy arrays"));
    zip(
        &path,
        &[("archive/data.pkl".into(), b"}.".to_vec()), ("archive/constants.pkl".into(), vec![])],
        CompressionMethod::Stored,
    );
    assert!(refused(&path).contains("is a frozen TorchScript program"));
    zip(
        &path,
        &[("a/data.pkl".into(), b"}.".to_vec()), ("a/byteorder".into(), b"big".to_vec())],
        CompressionMethod::Stored,
    );
    assert!(refused(&path).contains("is in big-endian byte order"));
}
