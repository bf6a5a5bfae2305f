//! Weights in several files and under other names, and files of other programs.

use crate::{
    common::{Folder, STORED, holds, network, read, refused, renamed, state, write_safetensors},
    torch::{Py, dict, save, tensor, text, zip},
};
use residual_weights::{LoadOptions, NameMap, tensors};
use std::{collections::BTreeMap, fs, path::Path};
use zip::CompressionMethod;

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
    let whole = path("model.safetensors.index.json");
    assert!(text.ends_with(&format!("; it is one of 2 shards; give {}", whole.display())), "{text}");
    fs::remove_file(whole).unwrap();
    assert!(refused(&first).ends_with("; it is one of 2 shards; their index is not in its folder"));

    let Py::Updated(_, pairs) = state(1, "") else { panic!() };
    let is_first = |(name, _): &(Py, Py)| matches!(name, Py::Text(name) if in_first(name));
    let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().partition(is_first);
    save(folder.path(), "model-00001-of-00002.bin", &Py::Dict(a), STORED);
    save(folder.path(), "model-00002-of-00002.bin", &Py::Dict(b), STORED);
    assert_eq!(holds(&index("bin"), 1), None);
    fs::remove_file(path("model-00002-of-00002.bin")).unwrap();
    let text = refused(&path("model.bin.index.json"));
    assert!(text.contains("model.bin.index.json names model-00002-of-00002.bin, which cannot be read"), "{text}");

    let bad = path("bad.index.json");
    for (file, expected) in [
        ("../secret.safetensors", "expected a file in the same folder"),
        ("/etc/passwd", "expected a file in the same folder"),
        ("..", "expected a file in the same folder"),
        ("bad.index.json", "is not"),
        ("model-00001-of-00002.safetensors", "holds the tensor `fc.other`, but it does not"),
    ] {
        fs::write(&bad, serde_json::json!({ "weight_map": { "fc.other": file } }).to_string()).unwrap();
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
    // Editors on Windows write a byte order mark.
    let names = NameMap::parse("\u{feff}{ \"^odd/\": \"\" }", Path::new("map.json")).unwrap();
    let (ours, _) = read(&path, &LoadOptions { names, ..LoadOptions::default() }).unwrap();
    assert!(tensors(&ours) == tensors(&network(1)));
}

#[test]
fn a_name_map_drops_tensors_by_an_empty_name() {
    let folder = Folder::new();
    let Py::Updated(ordered, mut pairs) = state(1, "") else { panic!() };
    pairs.extend(["loss.weight", "loss.bias"].map(|name| (text(name), tensor(&[1], &[1.0]))));
    let path = folder.save(&Py::Updated(ordered, pairs));
    assert!(refused(&path).ends_with("unknown: loss.bias, loss.weight"));
    let names = NameMap::parse(r#"{ "^loss\\..*$": "" }"#, Path::new("map.json")).unwrap();
    let (ours, loaded) = read(&path, &LoadOptions { names, ..LoadOptions::default() }).unwrap();
    assert!(loaded.left_aside.is_none() && tensors(&ours) == tensors(&network(1)));
}

#[test]
fn an_invalid_pattern_is_explained() {
    let error = NameMap::parse(r#"{ "(": "" }"#, Path::new("map.json")).unwrap_err();
    assert_eq!(error.to_string(), "map.json: `(` is not a valid regular expression: unclosed group");
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
