//! Files that claim more than they hold, or are built to take memory or time, are refused or read quickly.

use crate::{
    common::{Folder, config, holds, network, read, refused, scalar, state},
    torch::{Layout, Py, View, dict, save, zip},
};
use residual_weights::{Card, Checkpoint, HuggingFace, LoadOptions};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A tensor of PyTorch in the storage `0`, whose shape and strides are given.
fn view(shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let sizes = |sizes: &[i32]| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| [&b"J"[..], &size.to_le_bytes()].concat()).collect();
        [b"(", &sizes[..], b"t"].concat()
    };
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ\xff\xff\xff\x7ftQ";
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], b"K\0", &sizes(shape), &sizes(strides), b"\x89NtR"].concat()
}

fn pickled(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Writes a pickle and a storage of one float.
fn write_pickle(folder: &Folder, value: &[u8], method: CompressionMethod) -> PathBuf {
    let path = folder.path().join("net.pth");
    let pickle = [b"\x80\x02", value, b"."].concat();
    zip(&path, &[("a/data.pkl".into(), pickle), ("a/data/0".into(), vec![0; 4])], method);
    path
}

#[test]
fn only_bytes_that_a_file_holds_are_counted() {
    let folder = Folder::new();
    let tensors = [("conv1.weight", &[2000, 3, 3, 3][..]), ("junk", &[1 << 28, 8])];
    let pairs = tensors.map(|(name, shape)| [pickled(name), view(shape, &vec![0; shape.len()])].concat());
    let path = write_pickle(&folder, &[b"}(", &pairs.concat()[..], b"u"].concat(), CompressionMethod::Stored);
    let checkpoint = Checkpoint::read(&path).unwrap();
    assert_eq!(checkpoint.get("conv1.weight").unwrap().shape(), [2000, 3, 3, 3]);
    assert!((4..fs::metadata(&path).unwrap().len()).contains(&checkpoint.held_bytes()));
    // The claim of 2^31 elements is not allocated.
    let text = checkpoint.values("junk").unwrap_err().to_string();
    assert!(text.contains("its shape is too large for its storage"), "{text}");
}

/// Four bytes for each element overflow 64 bits, so that the bytes of another element would be read.
#[test]
fn offsets_and_strides_that_overflow_are_refused() {
    let folder = Folder::new();
    let number = |number: u64| [b"\x8a\x08", &number.to_le_bytes()[..]].concat();
    let tuple = |number: Vec<u8>| [b"(", &number[..], b"t"].concat();
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu";
    for (offset, size, stride) in [(1 << 62, 1, 1), (0, 2, 1 << 62)] {
        let view = [
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            &storage[..],
            &number(u64::MAX >> 1),
            b"tQ",
            &number(offset),
            &tuple(number(size)),
            &tuple(number(stride)),
            b"\x89NtR",
        ]
        .concat();
        let pickle = [b"}", &pickled("fc.bias")[..], &view, b"s"].concat();
        let path = write_pickle(&folder, &pickle, CompressionMethod::Stored);
        let text = Checkpoint::read(&path).unwrap().values("fc.bias").unwrap_err().to_string();
        assert!(text.contains("its shape is too large for its storage"), "{text}");
    }
}

#[test]
fn archives_that_unpack_to_much_more_than_their_size_are_refused() {
    let folder = Folder::new();
    let path = folder.path().join("bomb.pth");
    let mut archive = ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    archive.start_file("a/data.pkl", options).unwrap();
    archive.write_all(b"\x80\x02}.").unwrap();
    archive.start_file("a/data/0", options).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..300).for_each(|_| archive.write_all(&zeros).unwrap());
    archive.finish().unwrap();
    let text = refused(&path);
    assert!(text.contains("bytes that unpack to 314572804; expected at most"), "{text}");
    // Pickles of a thousand times the file's size.
    let path = write_pickle(&folder, &vec![b'}'; 90 << 20], CompressionMethod::Deflated);
    assert!(fs::metadata(&path).unwrap().len() < 120_000);
    assert!(refused(&path).contains("the pickle has too many values"));
}

/// A checkpoint as trainers save it: a state of zeros for each weight, settings, and the order of a sampler.
#[test]
fn large_states_of_optimizers_are_read_from_compressed_files() {
    let folder = Folder::new();
    let momentum =
        || Py::Tensor(View { values: vec![0.0; 1 << 20], offset: 0, shape: vec![1 << 20], strides: vec![1] });
    let states: Vec<(Py, Py)> = (0..40).map(|i| (Py::Int(i), dict([("momentum_buffer", momentum())]))).collect();
    let order = Py::List((0..200_000).map(Py::Int).collect());
    let all = dict([("state_dict", state(1, "module.")), ("optimizer", Py::Dict(states)), ("order", order)]);
    let deflated = Layout::Zip(CompressionMethod::Deflated);
    let path = save(folder.path(), "net.pth", &all, deflated);
    // 160 MB of zeros take less than 2 MB.
    assert!(fs::metadata(&path).unwrap().len() < 2 << 20);
    assert!(holds(&path, 1).unwrap().contains("left aside optimizer (40 tensors)"));
}

/// Each takes billions of steps if every container is searched whenever it is reached.
#[test]
fn shared_containers_take_no_more_time_than_their_number() {
    const MANY: usize = 50_000;
    let folder = Folder::new();
    let many = |item: &[u8]| [b"(", &item.repeat(MANY)[..]].concat();
    let one = view(&[1], &[1]);
    let list = [b"]q\0", &many(b"N")[..], &one, b"e"].concat();
    let entries = [b"]q\0", &many(b"NN\x86")[..], b"X\x01\0\0\0w", &one, b"\x86e"].concat();
    let state = [b"}q\0", &many(b"NN")[..], b"X\x01\0\0\0w", &one, b"u"].concat();
    let shared = [
        ([&list[..], b"0]", &many(b"h\0"), b"e"].concat(), None),
        (
            [&entries[..], b"0ccollections\nOrderedDict\nq\x010]", &many(b"h\x01h\0\x85R"), b"e"].concat(),
            Some("nested"),
        ),
        ([&state[..], b"0cmy\nModule\nq\x010]", &many(b"h\x01)\x81h\0b"), b"e"].concat(), None),
        ([&list[..], b"0cmy\nmake\nq\x010]", &many(b"h\x01h\0R"), b"e"].concat(), None),
    ];
    for (pickle, error) in shared {
        let path = write_pickle(&folder, &pickle, CompressionMethod::Deflated);
        match error {
            Some(error) => assert!(refused(&path).contains(error)),
            None => assert_eq!(Checkpoint::read(&path).unwrap().entries().count(), MANY),
        }
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    tensors: BTreeMap<&'a str, Tensor<'a>>,
}

#[derive(Clone, Serialize)]
struct Tensor<'a> {
    dtype: &'a ciborium::Value,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The name, the type, the shape and the range of a tensor.
type Described<'a> = (&'a str, &'a ciborium::Value, Vec<u64>, (u64, u64));

fn burnpack(path: &Path, tensors: Vec<Described<'_>>) {
    let tensor = |(name, dtype, shape, data_offsets)| (name, Tensor { dtype, shape, data_offsets });
    let mut metadata = Vec::new();
    ciborium::into_writer(&Metadata { tensors: tensors.into_iter().map(tensor).collect() }, &mut metadata).unwrap();
    let mut file = [b"NRUB\x01\0", &(metadata.len() as u32).to_le_bytes()[..], &metadata].concat();
    file.resize(file.len().next_multiple_of(256) + 4096, 0);
    fs::write(path, file).unwrap();
}

#[test]
fn burnpack_files_are_checked_before_values_are_read() {
    let folder = Folder::new();
    let path = folder.path().join("net.bpk");
    let float = ciborium::Value::from("F32");
    let quantized = |store: &str| {
        let fields = [("value", "Q8S"), ("param", "F32"), ("store", store), ("level", "Tensor"), ("mode", "Symmetric")];
        let fields = fields.map(|(name, value)| (name.into(), value.into()));
        ciborium::Value::Map(vec![("QFloat".into(), ciborium::Value::Map(fields.into()))])
    };
    burnpack(&path, vec![("a", &float, vec![2, 2], (0, 16)), ("b", &float, vec![], (256, 260))]);
    let checkpoint = Checkpoint::read(&path).unwrap();
    assert_eq!((checkpoint.held_bytes(), checkpoint.values("a").unwrap()), (20, vec![0.0; 4]));
    for (ranges, expected) in [
        ([(0, 16), (12, 28)], "two of its tensors overlap"),
        ([(0, 16), (0, 16)], "two of its tensors overlap"),
        ([(0, 16), (16, 12)], "`b` ends before it starts"),
        ([(0, 16), (u64::MAX - 15, u64::MAX)], "`b` has 15 bytes; its shape and type require 16"),
        ([(0, 16), (u64::MAX - 264, u64::MAX - 248)], "`b` extends past the end of the file"),
        ([(0, 16), (u64::MAX - 16, u64::MAX)], "`b` extends past the end of the file"),
        ([(0, 16), (8192, 8208)], "`b` extends past the end of the file"),
    ] {
        burnpack(&path, vec![("a", &float, vec![4], ranges[0]), ("b", &float, vec![4], ranges[1])]);
        assert!(refused(&path).contains(expected), "{}", refused(&path));
    }
    burnpack(&path, vec![("first", &float, vec![4], (0, 16)), ("other", &float, vec![4], (16, 32))]);
    let mut file = fs::read(&path).unwrap();
    let other = file.windows(5).position(|name| name == b"other").unwrap();
    file[other..other + 5].copy_from_slice(b"first");
    fs::write(&path, file).unwrap();
    assert!(refused(&path).contains("it has two tensors named `first`"), "{}", refused(&path));
    burnpack(&path, vec![("a", &float, vec![1 << 32, 1 << 32], (0, 16))]);
    assert!(refused(&path).contains("its shape and type require more than a file can have"));
    burnpack(&path, vec![("bn1.bias", &"I64".into(), vec![4], (0, 32))]);
    assert!(refused(&path).contains("its dtype is I64; expected"));
    for store in ["Native", "PackedU32"] {
        let dtype = quantized(store);
        burnpack(&path, vec![("a", &dtype, vec![4], (0, 4))]);
        let text = Checkpoint::read(&path).and_then(|c| c.values("a").map(|_| ())).unwrap_err().to_string();
        assert!(text.contains("QFloat") || text.contains("metadata are damaged"), "{text}");
    }
}

fn safetensors(path: &Path, header: &str, data: usize) {
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
    fs::write(path, file).unwrap();
}

#[test]
fn safetensors_files_are_checked_before_values_are_read() {
    let folder = Folder::new();
    let path = folder.path().join("net.safetensors");
    let header = |tensors: &[(&str, usize, usize)]| {
        let tensor = |(name, start, end): &(&str, usize, usize)| {
            let size = (end - start) / 4;
            format!(r#""{name}":{{"dtype":"F32","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        };
        format!(r#"{{"__metadata__":{{"a":"b"}},{}}}"#, tensors.iter().map(tensor).collect::<Vec<_>>().join(","))
    };
    safetensors(&path, &header(&[("b", 8, 16), ("a", 0, 8), ("empty", 8, 8)]), 16);
    assert_eq!(Checkpoint::read(&path).unwrap().entries().count(), 3);
    for (tensors, data, expected) in [
        (&[("a", 0, 8), ("b", 4, 12)][..], 12, "two of its tensors overlap"),
        (&[("a", 0, 8), ("b", 12, 16)], 16, "its tensors take 12 of 16 bytes of data"),
        (
            &[("a", 0, 8), ("b", 8, 16)],
            12,
            "`b` extends past the end of the file, perhaps because a download was interrupted",
        ),
        (&[("a", 0, 8), ("b", 8, 16)], 17, "its tensors take 16 of 17 bytes"),
        (&[("a", 0, 8), ("a", 8, 16)], 16, "it has two tensors named `a`"),
    ] {
        safetensors(&path, &header(tensors), data);
        assert!(refused(&path).contains(expected), "{}", refused(&path));
    }
    let long = "model.".repeat(500_000);
    safetensors(&path, &header(&[(&long, 0, 4)]), 4);
    let text = refused(&path);
    assert!(text.contains("is longer than 4096 bytes") && text.len() < 1000, "{text}");
}

/// Takes minutes if any step is quadratic in the number of tensors.
#[test]
fn hundreds_of_thousands_of_tensors_are_read() {
    const TENSORS: usize = 300_000;
    let folder = Folder::new();
    let path = folder.path().join("net.safetensors");
    let tensor = |i: usize| {
        let (start, end) = (4 * i, 4 * i + 4);
        format!(r#""layer{}.{i}.main.weight":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{end}]}}"#, i % 3)
    };
    let header = format!("{{{}}}", (0..TENSORS).map(tensor).collect::<Vec<_>>().join(","));
    safetensors(&path, &header, 4 * TENSORS);
    let text = refused(&path);
    assert!(text.contains("and 299995 more") && text.len() < 2000, "{text}");
}

#[test]
fn names_that_control_a_terminal_are_escaped_and_short() {
    let folder = Folder::new();
    let evil = format!("\u{1b}]0;title\u{7}{}", "x".repeat(3000));
    let long_key = format!("\u{1b}[2J{}", "k".repeat(2000));
    let pth = folder.save(&dict([(&evil[..], scalar(1.0)), (&long_key, state(1, ""))]));
    let mut texts = vec![holds(&pth, 1).unwrap(), refused(&folder.save(&dict([(&evil[..], scalar(1.0))])))];
    let path = folder.path().join("net.safetensors");
    let json_evil = evil.replace('\u{1b}', "\\u001b").replace('\u{7}', "\\u0007");
    safetensors(&path, &format!(r#"{{"{json_evil}":{{"dtype":"{json_evil}","shape":[1],"data_offsets":[0,4]}}}}"#), 4);
    texts.push(refused(&path));
    safetensors(&path, &format!(r#"{{"{json_evil}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#), 4);
    texts.push(refused(&path));
    let options = LoadOptions { key: Some(evil.clone()), ..LoadOptions::default() };
    texts.push(read(&path, &options).unwrap_err().to_string());
    fs::write(Card::path(&path), format!(r#"{{"{json_evil}": 1}}"#)).unwrap();
    texts.push(Card::of(&path).unwrap_err().to_string());
    fs::write(folder.path().join("config.json"), format!(r#"{{"model_type": "{json_evil}"}}"#)).unwrap();
    texts.extend(HuggingFace::beside(&path, &config()).unwrap().notes);
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, format!(r#"{{"weight_map": {{"a": "{json_evil}"}}}}"#)).unwrap();
    texts.push(refused(&index));
    for text in texts {
        assert!(!text.contains(char::is_control) && text.len() < 2000, "{text}");
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once() {
    let folder = Folder::new();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let weights = folder.path().join("net.safetensors");
    for path in [&pipe, Path::new("/dev/zero")] {
        assert!(refused(path).ends_with("it is not a regular file"), "{}", refused(path));
        let _ = fs::remove_file(Card::path(&weights));
        std::os::unix::fs::symlink(path, Card::path(&weights)).unwrap();
        assert!(Card::of(&weights).unwrap_err().to_string().ends_with("it is not a regular file"));
    }
    assert!(refused(folder.path()).ends_with("it is a folder"));
    // A link to a file is followed, as in a cache of downloads.
    let link = folder.path().join("link.pth");
    std::os::unix::fs::symlink(folder.save(&state(1, "")), &link).unwrap();
    assert_eq!(holds(&link, 1), None);
}

#[test]
fn values_that_are_not_finite_are_named() {
    let folder = Folder::new();
    let with = |name: &'static str, value: f32| {
        let Py::Updated(ordered, mut pairs) = state(1, "") else { panic!() };
        let pair = pairs.iter_mut().find(|(key, _)| matches!(key, Py::Text(text) if text == name)).unwrap();
        let Py::Tensor(view) = &mut pair.1 else { panic!() };
        view.values[1] = value;
        let path = folder.save(&Py::Updated(ordered, pairs));
        read(&path, &LoadOptions::default()).unwrap().1.not_finite
    };
    assert_eq!(with("bn1.running_var", 1.0), None);
    let expected = |name: &str| Some(format!("the tensor {name} has NaN or infinite values"));
    for name in ["bn1.running_mean", "bn1.running_var", "bn1.bias", "layer3.0.conv2.weight", "fc.bias"] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(with(name, value), expected(name));
        }
    }
    // 10^300 becomes infinite in f32.
    let path = folder.path().join("double.safetensors");
    let tensors = residual_weights::tensors(&network(1));
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, (shape, values))| {
            let large = |x: f32| if name == "fc.bias" { 1e300 } else { f64::from(x) };
            let bytes = values.iter().flat_map(|x| large(*x).to_le_bytes()).collect();
            (name.clone(), shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        (name.clone(), ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F64, shape.clone(), data).unwrap())
    });
    fs::write(&path, ::safetensors::serialize(views, None).unwrap()).unwrap();
    assert_eq!(read(&path, &LoadOptions::default()).unwrap().1.not_finite, expected("fc.bias"));
}

#[test]
fn weights_and_their_card_are_replaced_together_or_not_at_all() {
    let folder = Folder::new();
    let card = |classes: usize| Card { network: config().with_classes(classes), preprocessing: None, labels: None };
    let path = folder.path().join("net.safetensors");
    for seed in [1, 2] {
        residual_weights::save_with_card(&network(seed), &card(10), &path, residual_weights::Precision::Full).unwrap();
        assert_eq!(holds(&path, seed), None);
        assert_eq!(Card::of(&path).unwrap().unwrap().network.classes, 10);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    // A folder in the place of the weights cannot be replaced.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(residual_weights::save_with_card(&network(3), &card(7), &path, residual_weights::Precision::Full).is_err());
    assert_eq!(Card::of(&path).unwrap().unwrap().network.classes, 10);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
