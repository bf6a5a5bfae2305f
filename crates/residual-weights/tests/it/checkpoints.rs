//! Finds the weights in checkpoints as people save them.

use crate::{
    common::{Folder, config, holds, network, read, refused, scalar, state},
    torch::{Layout, Py, dict, save, tensor, text},
};
use burn::tensor::Device;
use residual_model::{NetworkConfig, ShortcutOption};
use residual_weights::{Cause, Checkpoint, LoadOptions, WeightsError, tensors};

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
    assert!(
        refused(&path).ends_with("has several dictionaries that fit the network equally well: student and teacher")
    );
    let with_key = |key: &str| read(&path, &LoadOptions { key: Some(key.into()), ..LoadOptions::default() });
    assert!(tensors(&with_key("teacher").unwrap().0) == tensors(&network(2)));
    let error = with_key("tutor").err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("no tensors under `tutor`; expected student, teacher"));
    // A deeper network has all names of this network, and more.
    let deeper = NetworkConfig::new("resnet14".parse().unwrap(), [3, 16, 16], 10).with_width(4);
    let deeper = deeper.with_shortcut("B".parse().unwrap()).init(&Device::flex());
    let deeper = tensors(&deeper).iter().map(|(name, (shape, v))| (text(name), tensor(shape, v))).collect();
    assert!(holds(&folder.save(&dict([("a", Py::Dict(deeper)), ("b", state(4, ""))])), 4).is_some());
    // The shapes distinguish two networks of the same architecture.
    let other = config().with_classes(7).init(&Device::flex());
    let other = tensors(&other).iter().map(|(name, (shape, v))| (text(name), tensor(shape, v))).collect();
    assert!(holds(&folder.save(&dict([("a", Py::Dict(other)), ("b", state(4, ""))])), 4).is_some());
}

#[test]
fn the_name_of_an_archive_has_any_length() {
    let folder = Folder::new();
    for length in 1..=64 {
        assert_eq!(holds(&save(folder.path(), "net.pth", &state(1, ""), Layout::Zip64(length)), 1), None, "{length}");
    }
}

#[test]
fn equal_dictionaries_in_different_storages_are_the_same() {
    let folder = Folder::new();
    let path = folder.save(&dict([("student", state(1, "")), ("teacher", state(1, ""))]));
    assert_eq!(holds(&path, 1).unwrap(), "read student (47 tensors); left aside teacher (47 tensors)");
}

#[test]
fn shapes_break_no_tie_if_they_are_unknown() {
    let folder = Folder::new();
    let other = |config: NetworkConfig| {
        let tensors = tensors(&config.init(&Device::flex()));
        Py::Dict(tensors.iter().map(|(name, (shape, v))| (text(name), tensor(shape, v))).collect())
    };
    for config in [config().with_width(8), config().with_classes(7), config().with_image([1, 16, 16])] {
        let path = folder.save(&dict([("a", other(config)), ("b", state(1, ""))]));
        let checkpoint = Checkpoint::read(&path).unwrap();
        assert_eq!(checkpoint.select(&network(9), &LoadOptions::default()).unwrap().key(), "b");
        let error = checkpoint.select_by_name(&network(9), &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, WeightsError::Ambiguous { .. }), "{error}");
    }
    // The names still decide.
    let deeper = NetworkConfig::new("resnet14".parse().unwrap(), [3, 16, 16], 10).with_shortcut("B".parse().unwrap());
    let path = folder.save(&dict([("a", other(deeper)), ("b", state(1, ""))]));
    let checkpoint = Checkpoint::read(&path).unwrap();
    assert_eq!(checkpoint.select_by_name(&network(9), &LoadOptions::default()).unwrap().key(), "b");
}

#[test]
fn a_key_is_not_needed_if_the_whole_file_fits() {
    let folder = Folder::new();
    let path = folder.save(&state(1, ""));
    let error = read(&path, &LoadOptions { key: Some("x".into()), ..LoadOptions::default() }).err().unwrap();
    let expected = "no tensors under `x`; expected no key, because the file as a whole fits the network";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn the_cause_of_a_mismatch_is_named() {
    let folder = Folder::new();
    let cause = |file: NetworkConfig, edit: fn(&mut Vec<(Py, Py)>)| {
        let tensors = tensors(&file.init(&Device::flex()));
        let mut pairs = tensors.iter().map(|(name, (shape, v))| (text(name), tensor(shape, v))).collect();
        edit(&mut pairs);
        let error = read(&folder.save(&Py::Dict(pairs)), &LoadOptions::default()).err().unwrap();
        let WeightsError::Mismatch { cause, .. } = &error else { panic!("{error}") };
        (Cause::clone(cause), error.to_string())
    };
    let none = |_: &mut Vec<(Py, Py)>| {};
    for option in ["A", "C"] {
        let option: ShortcutOption = option.parse().unwrap();
        assert_eq!(cause(config().with_shortcut(option), none).0, Cause::Shortcuts(option));
    }
    assert_eq!(cause(config().with_classes(7), none).0, Cause::Classes);
    let without_head: fn(&mut Vec<(Py, Py)>) =
        |pairs| pairs.retain(|(name, _)| !matches!(name, Py::Text(name) if name.starts_with("fc.")));
    assert_eq!(cause(config(), without_head).0, Cause::NoHead);
    let deeper = NetworkConfig::new("resnet14".parse().unwrap(), [3, 16, 16], 10).with_width(4);
    assert_eq!(cause(deeper.with_shortcut("B".parse().unwrap()), none).0, Cause::Blocks);
    let (sizes, text) = cause(config().with_width(8).with_image([1, 16, 16]), none);
    assert_eq!(sizes, Cause::Sizes { width: Some(8), channels: Some(1), classes: None });
    assert!(text.ends_with("; the file has width 8 and 1 channel"), "{text}");
    let extra: fn(&mut Vec<(Py, Py)>) = |pairs| pairs.push((Py::Text("loss.weight".into()), tensor(&[1], &[1.0])));
    assert_eq!(cause(config(), extra).0, Cause::Extra);
    let renamed: fn(&mut Vec<(Py, Py)>) = |pairs| pairs[0].0 = Py::Text("other".into());
    assert_eq!(cause(config(), renamed).0, Cause::Names);
    let incomplete: fn(&mut Vec<(Py, Py)>) = |pairs| drop(pairs.remove(0));
    assert_eq!(cause(config(), incomplete).0, Cause::Incomplete);
}

#[test]
fn a_tensor_under_an_empty_key_is_shown_in_quotes() {
    let folder = Folder::new();
    let Py::Updated(ordered, mut pairs) = state(1, "") else { panic!() };
    pairs.push((text(""), tensor(&[1], &[1.0])));
    assert!(refused(&folder.save(&Py::Updated(ordered, pairs))).ends_with("unknown: \"\""));
}

#[test]
fn a_wrong_network_is_refused_whatever_is_beside_it() {
    let folder = Folder::new();
    let Py::Updated(ordered, mut pairs) = state(1, "module.") else { panic!() };
    pairs.push((text("module.layer4.0.conv1.weight"), tensor(&[1], &[1.0])));
    let path = folder.save(&dict([("state_dict", Py::Updated(ordered, pairs)), ("optimizer", optimizer())]));
    let expected = "does not fit the network: unknown: layer4.0.conv1.weight; the number of blocks differs; is it another \
                    network?; read state_dict.module (48 tensors); left aside optimizer (2 tensors)";
    assert!(refused(&path).ends_with(expected));
    // timm's resnet18d has a stem of three convolutions, whose names others give to the first norm.
    let Py::Updated(ordered, mut pairs) = state(1, "") else { panic!() };
    pairs.extend(["weight", "bias"].map(|name| (text(&format!("conv1.1.{name}")), tensor(&[4], &[1.0; 4]))));
    let path = folder.save(&Py::Updated(ordered, pairs));
    assert!(refused(&path).ends_with("does not fit the network: unknown: conv1.1.bias, conv1.1.weight"));
}
