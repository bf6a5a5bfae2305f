//! Reads what `torch.save` writes, and refuses hostile files.

use crate::{
    common::{Folder, STORED, holds, network, refused, scalar, state},
    torch::{Layout, Py, View, call, dict, save, tensor, text, zip},
};
use residual_weights::tensors;
use std::collections::BTreeMap;
use zip::CompressionMethod;

#[test]
fn older_and_newer_calls_make_the_same_tensors() {
    let folder = Folder::new();
    let Py::Updated(_, pairs) = state(1, "") else { panic!() };
    let made = |function: fn(Py) -> Py| pairs.iter().map(move |(name, value)| (name.clone(), function(value.clone())));
    // Python 2 writes the entries of a dictionary as an argument.
    let entries = made(|value| value).map(|(name, value)| Py::List(vec![name, value]));
    let python_2 = call("collections", "OrderedDict", vec![Py::List(entries.collect())]);
    assert_eq!(holds(&folder.save(&python_2), 1), None);
    let functions: [fn(Py) -> Py; 3] = [
        |value| call("torch.nn.parameter", "Parameter", vec![value]),
        |value| call("torch._utils", "_rebuild_parameter_with_state", vec![value, Py::None, Py::None, dict([])]),
        |value| {
            let rebuild = Py::Global("torch._utils", "_rebuild_parameter");
            let args = Py::Tuple(vec![value, Py::None, Py::None]);
            call("torch._tensor", "_rebuild_from_type_v2", vec![rebuild, Py::Global("my", "Tensor"), args, dict([])])
        },
    ];
    for function in functions {
        assert_eq!(holds(&folder.save(&Py::Dict(made(function).collect())), 1), None);
    }
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
            // A tensor that is not a parameter is not part of the state dictionary.
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
