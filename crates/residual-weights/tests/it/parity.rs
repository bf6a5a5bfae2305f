//! Compares every architecture with PyTorch's outputs, which `scripts/parity.py` recorded as fixtures.
//!
//! Both sides compute the weights by the same formula, so the fixtures need no weights.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor, TensorData},
};
use residual_model::{Features, Network, NetworkConfig, Norm, ShortcutOption, Stem, summary::trainable_parameters};
use residual_weights::{names::torchvision, tensors};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, io::Write, path::PathBuf};

/// The largest allowed relative difference.
const TOLERANCE: f64 = 1e-4;

/// The largest allowed relative difference of an image's gradient if one ReLU input has a different sign.
const ONE_FLIP: f64 = 5e-2;

#[derive(Deserialize)]
struct Fixture {
    net: String,
    batch: usize,
    image: [usize; 3],
    classes: usize,
    parameters: u64,
    inference: Pass,
    training: Pass,
}

#[derive(Deserialize)]
struct Pass {
    /// A constant added to the biases of the norms. It moves most ReLU inputs away from 0, so that rounding does not
    /// change their signs. Without it, the gradients of deep nets in training mode depend on the order of summation.
    norm_bias: f64,
    logits: Recorded,
    stages: Vec<Recorded>,
    embedding: Recorded,
    input_gradient: Recorded,
    #[serde(default)]
    running: BTreeMap<String, Running>,
}

/// A tensor's shape, its L2 norm and its values. For large tensors, only 128 values at regular intervals are recorded.
#[derive(Deserialize)]
struct Recorded {
    shape: Vec<usize>,
    norm: f64,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Running {
    count: f64,
    mean: Vec<f64>,
    var: Vec<f64>,
}

/// The formula that both sides use: it maps the index of an element in the named tensor to a value in [0, 1).
fn units(name: &str) -> impl Fn(usize) -> f64 {
    let hash = name.bytes().fold(2_166_136_261u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    move |index| unit(hash, index)
}

fn unit(hash: u32, index: usize) -> f64 {
    let mut x = (index as u32).wrapping_mul(2_654_435_761).wrapping_add(hash);
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    f64::from(x >> 8) / f64::from(1 << 24)
}

/// Fills a network with the formula's values.
struct Fill {
    path: Vec<String>,
    norm_bias: f64,
}

fn fill<M: Module>(network: M, pass: &Pass) -> M {
    network.map(&mut Fill { path: Vec::new(), norm_bias: pass.norm_bias })
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = torchvision(&self.path.join("."));
        let (id, tensor, mapper) = param.consume();
        let shape: [usize; D] = tensor.dims();
        let uniform = |fan_in: usize| {
            let bound = (6.0 / fan_in as f64).sqrt();
            (-bound, 2.0 * bound)
        };
        let (offset, scale) = match name.rsplit('.').next() {
            Some("weight") if D == 2 => uniform(shape[0]),
            Some("weight") if D == 4 => uniform(shape[1..].iter().product()),
            Some("weight") => (0.75, 0.5),
            Some("running_var") => (0.5, 1.0),
            Some("bias") if is_norm(&name) => (self.norm_bias - 0.1, 0.2),
            _ => (-0.1, 0.2),
        };
        let unit = units(&name);
        let n = shape.iter().product();
        // The formula uses indices in PyTorch's `[out, in]` layout of linear weights, the transpose of Burn's layout.
        let index = |i: usize| if D == 2 { i % shape[1] * shape[0] + i / shape[1] } else { i };
        let values: Vec<f32> = (0..n).map(|i| (offset + scale * unit(index(i))) as f32).collect();
        let filled = Tensor::from_data(TensorData::new(values, shape), &tensor.device());
        let filled = if tensor.is_require_grad() { filled.require_grad() } else { filled };
        Param::from_mapped_value(id, filled, mapper)
    }
}

fn is_norm(name: &str) -> bool {
    let module = name.rsplit('.').nth(1).unwrap_or_default();
    module.starts_with("bn") || name.ends_with("downsample.1.bias")
}

fn formula<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let unit = units(name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| (2.0 * unit(i) - 1.0) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn config(fixture: &Fixture) -> NetworkConfig {
    let name = match fixture.net.as_str() {
        "resnet50_os16" | "resnet50_os8" => "resnet50",
        "resnet18_small" => "resnet18",
        "resnet20_a" | "resnet20_a_after" | "resnet20_b" | "resnet20_c" | "resnet20_none" => "resnet20",
        name => name,
    };
    let config = NetworkConfig::new(name.parse().unwrap(), fixture.image, fixture.classes);
    match fixture.net.as_str() {
        "resnet50_os16" => config.with_output_stride(16),
        "resnet50_os8" => config.with_output_stride(8),
        "resnet18_small" => config.with_stem(Stem::Small),
        "resnet20_a_after" => config.with_shortcut(ShortcutOption::ZeroPadAfter),
        "resnet20_b" => config.with_shortcut(ShortcutOption::Projection),
        "resnet20_c" => config.with_shortcut(ShortcutOption::ProjectAll),
        "resnet20_none" => config.with_norm(Norm::None),
        _ => config,
    }
}

/// The largest absolute difference divided by the largest absolute value.
fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst.is_finite() && largest > 0.0);
    worst / largest
}

impl Recorded {
    fn differs<const D: usize>(&self, tensor: Tensor<D>) -> f64 {
        assert_eq!(tensor.dims()[..], self.shape[..]);
        let values: Vec<f64> = tensor.into_data().iter::<f64>().collect();
        let kept = self.values.len();
        let ours: Vec<f64> = (0..kept).map(|k| values[k * values.len() / kept]).collect();
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        difference(&ours, &self.values).max((norm / self.norm - 1.0).abs())
    }

    /// The relative difference for each image of the batch.
    fn differs_by_image(&self, gradient: Tensor<4>) -> Vec<f64> {
        let images = gradient.dims()[0];
        let values: Vec<f64> = gradient.into_data().iter::<f64>().collect();
        let kept = self.values.len();
        let ours: Vec<f64> = (0..kept).map(|k| values[k * values.len() / kept]).collect();
        let each = kept / images;
        ours.chunks_exact(each).zip(self.values.chunks_exact(each)).map(|(a, b)| difference(a, b)).collect()
    }
}

/// The largest relative differences in one pass.
struct Differences {
    logits: f64,
    features: f64,
    gradient: f64,
    /// The difference of the input gradient, for each image.
    images: Vec<f64>,
}

impl Differences {
    fn largest(&self) -> f64 {
        self.logits.max(self.features).max(self.gradient)
    }

    /// Whether everything agrees except for the gradients of single images.
    ///
    /// If a ReLU input is within rounding error of 0, its sign depends on the order of summation. A different sign
    /// changes the gradient of that image by up to a few per cent. At least one image must agree within `TOLERANCE`.
    fn agree_except_sign_flips(&self) -> bool {
        let clean = self.images.iter().copied().fold(f64::INFINITY, f64::min);
        let strict = [self.logits, self.features, clean];
        strict.iter().all(|&d| d <= TOLERANCE) && self.images.iter().all(|&d| d <= ONE_FLIP)
    }
}

fn compare(fixture: &Fixture, network: &Network, pass: &Pass, device: &Device) -> Differences {
    let images = formula("input", [fixture.batch, fixture.image[0], fixture.image[1], fixture.image[2]], device);
    let images = images.require_grad();
    let Features { stages, embedding } = network.features(images.clone());
    let logits = network.classify(embedding.clone());
    let cotangent = formula("cotangent", [fixture.batch, fixture.classes], device);
    let grads = (logits.clone() * cotangent).sum().backward();
    let gradient = images.grad(&grads).expect("the images require a gradient");
    assert_eq!(stages.len(), pass.stages.len());
    let features = stages.into_iter().zip(&pass.stages).map(|(ours, theirs)| theirs.differs(ours));
    Differences {
        features: features.fold(pass.embedding.differs(embedding), f64::max),
        logits: pass.logits.differs(logits),
        images: pass.input_gradient.differs_by_image(gradient.clone()),
        gradient: pass.input_gradient.differs(gradient),
    }
}

#[test]
fn every_family_agrees_with_pytorch() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    assert!(files.len() >= 20, "only {} fixtures", files.len());
    let device = Device::flex().autodiff();
    let mut table = format!("{:<18} inference: logits features gradient  training: logits features gradient\n", "net");
    let mut failures = Vec::new();
    for path in files {
        let fixture: Fixture = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let config = config(&fixture);
        let network = fill(config.init(&device), &fixture.training);
        assert_eq!(trainable_parameters(&network) as u64, fixture.parameters, "{}", fixture.net);
        assert_eq!(config.summary().parameters(), fixture.parameters, "{}", fixture.net);
        let training = compare(&fixture, &network, &fixture.training, &device);
        let running = check_running(&fixture, &network);
        // Frozen norms use their running statistics, as in PyTorch's eval mode.
        let frozen = fill(config.init(&device), &fixture.inference).freeze();
        let inference = compare(&fixture, &frozen, &fixture.inference, &device);

        let rows = [&inference, &training].map(|d| [d.logits, d.features, d.gradient]);
        table += &format!(
            "{:<18}{}\n",
            fixture.net,
            rows.as_flattened().iter().map(|d| format!(" {d:>9.1e}")).collect::<String>()
        );
        if !inference.agree_except_sign_flips() || training.largest().max(running) > TOLERANCE {
            failures.push(fixture.net);
        }
    }
    let _ = std::io::stderr().write_all(table.as_bytes());
    assert!(failures.is_empty(), "differences above {TOLERANCE}: {failures:?}\n{table}");
}

/// The largest relative difference of the running statistics after one step. Burn averages the biased variance, PyTorch
/// the unbiased one, so the recorded variances are converted first.
fn check_running(fixture: &Fixture, network: &Network) -> f64 {
    let ours = tensors(network);
    let start = |name: String, offset: f64, scale: f64| {
        let (n, unit) = (ours[&name].1.len(), units(&name));
        (0..n).map(|i| f64::from((offset + scale * unit(i)) as f32)).collect::<Vec<f64>>()
    };
    let mut worst = 0.0f64;
    for (norm, running) in &fixture.training.running {
        let values = |name: &str| -> Vec<f64> { ours[&format!("{norm}.{name}")].1.iter().map(|&x| x.into()).collect() };
        let kept = |all: Vec<f64>, kept: usize| -> Vec<f64> { (0..kept).map(|k| all[k * all.len() / kept]).collect() };
        worst = worst.max(difference(&kept(values("running_mean"), running.mean.len()), &running.mean));
        let before = kept(start(format!("{norm}.running_var"), 0.5, 1.0), running.var.len());
        let biased: Vec<f64> = running
            .var
            .iter()
            .zip(before)
            .map(|(after, before)| 0.9 * before + (after - 0.9 * before) * (running.count - 1.0) / running.count)
            .collect();
        worst = worst.max(difference(&kept(values("running_var"), biased.len()), &biased));
    }
    worst
}
