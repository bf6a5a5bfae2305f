//! ONNX models. `scripts/check-onnx` runs them in ONNX Runtime.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Distribution, Tensor, TensorData, activation::softmax},
};
use residual_data::Preprocessing;
use residual_model::{BlockKind, BranchScale, Family, Network, NetworkConfig, Norm, PUBLISHED, ShortcutOption, Stem};
use residual_weights::{
    Card, Precision,
    onnx::{OnnxOptions, save},
};
use serde_json::{Value, json};
use std::{env, fs, path::Path};

/// The environment variable that names the directory into which [`models_for_other_engines`] writes.
const DIRECTORY: &str = "RESIDUAL_ONNX_DIRECTORY";

const BATCH: usize = 5;

/// Random norms and running statistics. The γ of residual networks are small, so that activations do not overflow in deep
/// networks.
struct RandomNorms {
    path: Vec<String>,
    gamma: (f64, f64),
}

impl ModuleMapper for RandomNorms {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (low, high) = match self.path.last().map(String::as_str) {
            Some("gamma") => self.gamma,
            Some("beta" | "bias" | "running_mean") => (-0.2, 0.2),
            Some("running_var") => (0.5, 1.5),
            _ => return param,
        };
        param.map(|tensor| tensor.random_like(Distribution::Uniform(low, high)))
    }
}

fn network(config: &NetworkConfig) -> Network {
    let device = Device::flex();
    device.seed(7);
    let gamma = if config.blocks.kind == BlockKind::Plain { (0.75, 1.25) } else { (0.2, 0.4) };
    config.clone().with_seed(3).init(&device).map(&mut RandomNorms { path: Vec::new(), gamma })
}

/// The network with this name, with few channels and small images.
fn named(name: &str) -> NetworkConfig {
    let name: residual_model::NetName = name.parse().unwrap();
    match name.family {
        Family::Dense | Family::Conv | Family::Preact => NetworkConfig::new(name, [3, 16, 16], 10).with_width(8),
        _ => NetworkConfig::new(name, [3, 64, 64], 10).with_width(16),
    }
}

/// Every name of `residual models`, and every option of a network.
fn configs() -> Vec<(String, NetworkConfig)> {
    let more = ["dense-resnet8", "dense-plain8", "plain110", "preact_plain20", "preact_plain29"];
    let mut configs: Vec<_> = PUBLISHED.iter().chain(&more).map(|name| (name.to_string(), named(name))).collect();
    let mut add = |name: &str, config: NetworkConfig| configs.push((name.to_string(), config));
    for base in ["resnet20", "resnet18", "preact_resnet20", "dense-resnet8"] {
        for option in ["A", "A-after", "B", "C"] {
            let config = named(base).with_shortcut(option.parse::<ShortcutOption>().unwrap());
            add(&format!("{base}-{option}"), config);
        }
        add(&format!("{base}-no-norm"), named(base).with_norm(Norm::None));
        add(&format!("{base}-alpha"), named(base).with_skip_strength(0.5));
        add(&format!("{base}-alpha-0"), named(base).with_skip_strength(0.0));
        add(&format!("{base}-branch-scale"), named(base).with_branch_scale(BranchScale::InverseSqrtDepth));
        add(&format!("{base}-survival"), named(base).with_last_survival(0.5));
    }
    add("resnet50-os8", named("resnet50").with_output_stride(8));
    add("resnet50-os16", named("resnet50").with_output_stride(16));
    add("resnet18-small-stem", named("resnet18").with_stem(Stem::Small));
    configs
}

fn bytes(tensor: Tensor<2>) -> Vec<u8> {
    tensor.into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect()
}

/// Writes the models of a network, the input and the expected output. Returns their description.
fn write(folder: &Path, name: &str, config: &NetworkConfig) -> Value {
    let network = network(config);
    let card = Card { network: config.clone(), preprocessing: None, labels: None };
    let shape = config.as_conv().map_or(vec![BATCH, config.features()], |conv| [&[BATCH][..], &conv.image].concat());
    let len = shape.iter().product::<usize>() / BATCH;
    let images = Tensor::<2>::random([BATCH, len], Distribution::Default, &Device::flex());
    let [_, channels, height, width] = *shape.first_chunk().unwrap_or(&[BATCH, len, 1, 1]);
    let logits = network.forward(images.clone().reshape([BATCH, channels, height, width]));
    let options = OnnxOptions::default();
    for (suffix, options) in [
        ("", options),
        (".norms", OnnxOptions { keep_norms: true, ..options }),
        (".half", OnnxOptions { precision: Precision::Half, ..options }),
    ] {
        save(&network, &card, &folder.join(format!("{name}{suffix}.onnx")), options).unwrap();
    }
    fs::write(folder.join(format!("{name}.input")), bytes(images)).unwrap();
    fs::write(folder.join(format!("{name}.output")), bytes(logits)).unwrap();
    json!({ "name": name, "depth": config.depth(), "input": shape, "outputs": config.classes })
}

/// Writes a model that normalises pixels and computes probabilities.
fn write_preprocessed(folder: &Path) -> Value {
    let config = named("resnet20");
    let network = network(&config);
    let preprocessing = Preprocessing::imagenet(20, 16);
    let labels: Vec<String> = (0..config.classes).map(|class| format!("class \"{class}\", é")).collect();
    let card = Card { network: config, preprocessing: Some(preprocessing.clone()), labels: Some(labels) };
    let options = OnnxOptions { preprocess: true, softmax: true, ..OnnxOptions::default() };
    save(&network, &card, &folder.join("preprocessed.onnx"), options).unwrap();
    let pixels: Vec<u8> = (0..BATCH * 16 * 16 * 3).map(|i| (i * 7919 % 251) as u8).collect();
    let value = |n: usize, c: usize, at: usize| {
        (f32::from(pixels[(n * 256 + at) * 3 + c]) / 255.0 - preprocessing.mean[c]) / preprocessing.std[c]
    };
    let values = (0..BATCH * 3 * 256).map(|i| value(i / 768, i / 256 % 3, i % 256)).collect::<Vec<f32>>();
    let images = Tensor::<4>::from_data(TensorData::new(values, [BATCH, 3, 16, 16]), &Device::flex());
    fs::write(folder.join("preprocessed.input"), &pixels).unwrap();
    fs::write(folder.join("preprocessed.output"), bytes(softmax(network.forward(images), 1))).unwrap();
    json!({
        "name": "preprocessed", "input": [BATCH, 16, 16, 3], "outputs": 10, "mean": preprocessing.mean,
        "std": preprocessing.std, "classes": card.labels, "network": "resnet20",
    })
}

/// Writes the models of all networks if [`DIRECTORY`] is set, and otherwise those of three networks.
#[test]
fn models_for_other_engines() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, configs) = match env::var_os(DIRECTORY) {
        Some(folder) => (folder.into(), configs()),
        None => {
            let few = ["resnet20", "preact_resnet20", "dense-resnet8"].map(|name| (name.to_string(), named(name)));
            (temporary.path().to_path_buf(), few.to_vec())
        }
    };
    let models: Vec<Value> = configs.iter().map(|(name, config)| write(&folder, name, config)).collect();
    let description = json!({ "models": models, "preprocessed": write_preprocessed(&folder) });
    fs::write(folder.join("models.json"), description.to_string()).unwrap();
}

#[test]
fn equal_networks_give_equal_models_and_failures_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let config = named("resnet8");
    let card = Card { network: config.clone(), preprocessing: None, labels: None };
    let network = || config.clone().with_seed(3).init(&Device::flex());
    save(&network(), &card, &path, OnnxOptions::default()).unwrap();
    let first = fs::read(&path).unwrap();
    save(&network(), &card, &path, OnnxOptions::default()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);

    let mut large = network();
    large.fc.weight = large.fc.weight.map(|weight| weight.mul_scalar(1e6));
    let half = OnnxOptions { precision: Precision::Half, ..OnnxOptions::default() };
    let error = save(&large, &card, &path, half).unwrap_err().to_string();
    assert!(error.contains("fc.weight has the value") && error.ends_with("16-bit float"), "{error}");
    let error = save(&large, &card, &path, OnnxOptions { preprocess: true, ..OnnxOptions::default() }).unwrap_err();
    assert!(error.to_string().ends_with("the preprocessing of its images is not known"), "{error}");
    let mut same = network();
    if let residual_model::Backbone::Conv(backbone) = &mut same.backbone {
        backbone.conv1.padding = burn::nn::PaddingConfig2d::Same;
    }
    let error = save(&same, &card, &path, OnnxOptions::default()).unwrap_err().to_string();
    assert!(error.contains("the layer conv1 cannot be expressed in ONNX"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
