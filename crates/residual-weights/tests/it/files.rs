//! Reads files in every format and naming scheme, and refuses damaged files.

use burn::tensor::{Device, Tensor};
use residual_model::{Network, NetworkConfig};
use residual_weights::{Checkpoint, Format, LoadOptions, NameMap, WeightsError, load, save, tensors};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

/// The network of the test files: `resnet8` with width 4.
fn config() -> NetworkConfig {
    NetworkConfig::new("resnet8".parse().unwrap(), [3, 16, 16], 10).with_width(4)
}

fn network(seed: u64) -> Network {
    config().with_seed(seed).init(&Device::flex())
}

fn loaded(name: &str) -> Network {
    let mut network = network(1);
    load(&mut network, &Checkpoint::read(&file(name)).unwrap(), &LoadOptions::default()).unwrap();
    network
}

fn refused(path: &Path) -> String {
    let mut ours = network(1);
    let error = Checkpoint::read(path).and_then(|checkpoint| load(&mut ours, &checkpoint, &LoadOptions::default()));
    assert_eq!(tensors(&ours), tensors(&network(1)), "the network was changed");
    let text = error.expect_err("the file was accepted").to_string();
    assert!(!text.contains('\n') && text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
    text
}

#[test]
fn every_format_and_naming_scheme_loads_the_same_network() {
    let expected = tensors(&loaded("tiny.safetensors"));
    assert_ne!(expected, tensors(&network(1)));
    for name in ["tiny.pth", "tiny-legacy.pth", "tiny-module-nested.th"] {
        assert_eq!(Checkpoint::read(&file(name)).unwrap().format(), Format::PyTorch);
        assert!(tensors(&loaded(name)) == expected, "{name}");
    }
}

#[test]
fn saved_networks_give_the_same_logits_when_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let images = Tensor::<4>::ones([2, 3, 16, 16], &Device::flex());
    for name in ["resnet8", "plain8", "preact_resnet20", "dense-resnet6", "resnet18", "resnext50_32x4d"] {
        let config = NetworkConfig::new(name.parse().unwrap(), [3, 16, 16], 10);
        let ours = config.init(&Device::flex());
        for extension in ["safetensors", "bpk"] {
            let path = folder.path().join(format!("net.{extension}"));
            save(&ours, &path).unwrap();
            let mut theirs = config.clone().with_seed(9).init(&Device::flex());
            load(&mut theirs, &Checkpoint::read(&path).unwrap(), &LoadOptions::default()).unwrap();
            theirs.forward(images.clone()).into_data().assert_eq(&ours.forward(images.clone()).into_data(), true);
        }
    }
    assert!(matches!(save(&network(0), &folder.path().join("net.pth")), Err(WeightsError::Extension { .. })));
}

/// Compares with the names and shapes that torchvision's `load_state_dict(strict=True)` requires.
#[test]
fn saved_files_have_torchvisions_names_and_shapes() {
    type Shapes = BTreeMap<String, Vec<usize>>;
    let text = fs::read_to_string(file("torchvision.json")).unwrap();
    let expected: BTreeMap<String, Shapes> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    for (name, expected) in expected {
        save(&NetworkConfig::new(name.parse().unwrap(), [3, 224, 224], 1000).init(&Device::flex()), &path).unwrap();
        let checkpoint = Checkpoint::read(&path).unwrap();
        let saved: Shapes = checkpoint.entries().map(|(name, entry)| (name.into(), entry.shape().to_vec())).collect();
        assert_eq!(saved, expected, "{name}");
    }
}

#[test]
fn mismatched_tensors_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let write = |name: &str, classes: usize, width: usize| {
        let config = NetworkConfig::new(name.parse().unwrap(), [3, 16, 16], classes).with_width(width);
        save(&config.init(&Device::flex()), &path).unwrap();
    };
    write("resnet14", 10, 4);
    let text = refused(&path);
    assert!(
        text.contains("unknown: layer1.1.bn1.bias, ") && text.contains(" and ") && text.contains(" more"),
        "{text}"
    );
    write("resnet8", 10, 5);
    assert!(refused(&path).contains("wrong shape: bn1.bias is [5], not [4]"));
    write("resnet8", 7, 4);
    let text = refused(&path);
    assert!(text.contains("fc.weight is [7, 16], not [10, 16]") && text.contains("only the head differs"), "{text}");
    let mut ours = network(1);
    let options = LoadOptions { ignore_head: true, ..LoadOptions::default() };
    load(&mut ours, &Checkpoint::read(&path).unwrap(), &options).unwrap();
    assert_eq!(tensors(&ours)["fc.weight"], tensors(&network(1))["fc.weight"]);
    assert_ne!(tensors(&ours)["conv1.weight"], tensors(&network(1))["conv1.weight"]);
}

#[test]
fn a_missing_tensor_is_named() {
    let ours = loaded("tiny.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.safetensors");
    save(&ours, &path).unwrap();
    let map = folder.path().join("map.json");
    fs::write(&map, r#"{ "^layer1\\.0\\.conv1\\.": "elsewhere." }"#).unwrap();
    let options = LoadOptions { names: NameMap::read(&map).unwrap(), ..LoadOptions::default() };
    let error = load(&mut network(1), &Checkpoint::read(&path).unwrap(), &options).unwrap_err().to_string();
    assert!(error.contains("missing: layer1.0.conv1.weight; unknown: elsewhere.weight"), "{error}");
}

#[test]
fn a_name_map_renames_by_regular_expressions() {
    let folder = tempfile::tempdir().unwrap();
    let (odd, map) = (folder.path().join("odd.safetensors"), folder.path().join("map.json"));
    let ours = loaded("tiny.safetensors");
    let values: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&ours)
        .into_iter()
        .map(|(name, (shape, values))| {
            (format!("backbone/{name}"), shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views = values.iter().map(|(name, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    fs::write(&odd, safetensors::serialize(views, None).unwrap()).unwrap();
    assert!(refused(&odd).contains("unknown: backbone/bn1.bias"));
    // The patterns give the right names only in the order of the file, not in alphabetical order.
    fs::write(&map, r#"{ "^backbone/": "a.", "^a\\.": "" }"#).unwrap();
    let options = LoadOptions { names: NameMap::read(&map).unwrap(), ..LoadOptions::default() };
    let mut theirs = network(1);
    load(&mut theirs, &Checkpoint::read(&odd).unwrap(), &options).unwrap();
    assert_eq!(tensors(&theirs), tensors(&ours));

    for (text, expected) in [("[1]", "is not a JSON object"), (r#"{"(": ""}"#, "`(` is not a valid regular expression")]
    {
        fs::write(&map, text).unwrap();
        assert!(NameMap::read(&map).unwrap_err().to_string().contains(expected));
    }
}

/// timm's `resnetv2` counts stages from 0, calls norms `norm`, and its head is a 1x1 convolution.
#[test]
fn timm_resnetv2_names_are_converted() {
    let config = NetworkConfig::new("preact_resnet18".parse().unwrap(), [3, 32, 32], 10).with_width(4);
    let ours = config.init(&Device::flex());
    let timm = |name: &str| {
        let name = match name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) {
            Some((stage, rest)) => {
                let stage = stage.parse::<usize>().unwrap() - 1;
                let (block, rest) = rest.split_once('.').unwrap();
                let rest = rest.replace("downsample.0", "downsample.conv").replace("bn", "norm");
                format!("stages.{stage}.blocks.{block}.{rest}")
            }
            None => name.replace("conv1.", "stem.conv.").replace("bn.", "norm.").replace("fc.", "head.fc."),
        };
        assert!(!name.contains("bn"));
        name
    };
    let files: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&ours)
        .into_iter()
        .map(|(name, (mut shape, values))| {
            if name == "fc.weight" {
                shape.extend([1, 1]);
            }
            (timm(&name), shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views = files.iter().map(|(name, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("timm.safetensors");
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let mut theirs = config.with_seed(9).init(&Device::flex());
    load(&mut theirs, &Checkpoint::read(&path).unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!(tensors(&theirs), tensors(&ours));
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken");
    let check = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        refused(&path)
    };
    assert!(check(b"").contains("is empty"));
    assert!(check(b"hello, this is no checkpoint at all").contains("is not a PyTorch, safetensors or burnpack file"));
    assert!(check(&[0; 64]).contains("is not"));
    // Safetensors headers that claim to be larger than memory.
    let huge = [&u64::MAX.to_le_bytes()[..], b"{\"a\":1}"].concat();
    assert!(check(&huge).contains("is not a valid safetensors file"));
    let huge = [&(1u64 << 40).to_le_bytes()[..], b"{\"a\":1}"].concat();
    assert!(check(&huge).contains("is not a valid safetensors file"));
    // Truncated files of each format.
    let bpk = folder.path().join("tiny.bpk");
    save(&loaded("tiny.safetensors"), &bpk).unwrap();
    let formats = [file("tiny.pth"), file("tiny-legacy.pth"), file("tiny.safetensors"), bpk];
    for whole in formats.map(|path| fs::read(path).unwrap()) {
        for cut in [1, 7, 8, 9, 100, 1000, whole.len() / 2, whole.len() - 1] {
            check(&whole[..cut]);
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped");
    let bpk = folder.path().join("tiny.bpk");
    save(&loaded("tiny.safetensors"), &bpk).unwrap();
    for whole in [file("tiny.pth"), file("tiny-legacy.pth"), file("tiny.safetensors"), bpk] {
        let whole = fs::read(whole).unwrap();
        for i in 0..300 {
            let mut bytes = whole.clone();
            let at = (i * 7919) % 4000.min(bytes.len());
            bytes[at] ^= 1 << (i % 8);
            fs::write(&path, &bytes).unwrap();
            let _ = Checkpoint::read(&path).and_then(|c| load(&mut network(1), &c, &LoadOptions::default()));
        }
    }
}

#[test]
fn code_in_a_pickle_is_not_executed() {
    let trace = Path::new("/tmp/residual-evil-ran");
    assert!(!trace.exists(), "remove {} first", trace.display());
    refused(&file("evil.pth"));
    assert!(!trace.exists());
}
