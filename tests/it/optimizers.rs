//! Compares ten steps of each optimizer with those of PyTorch, or of timm if PyTorch lacks it, which
//! `scripts/parity.py optimizers` recorded.

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Int, Tensor, TensorData},
};
use residual::{
    model::{Network, NetworkConfig},
    train::{Device, Optimizer, OptimizerKind, cross_entropy},
    weights::{Checkpoint, LoadOptions, load, tensors},
};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// The largest allowed difference between the weights of a tensor, relative to the tensor's largest weight.
const TOLERANCE: f64 = 1e-4;

/// The largest allowed difference between the weights of a tensor, relative to the largest change of one of them.
const OF_CHANGE: f64 = 2e-2;

#[derive(Deserialize)]
struct Recorded {
    trainings: Vec<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    optimizer: Optimizer,
    lr: f64,
    /// The loss of each step.
    losses: Vec<f64>,
    /// Up to 16 weights of each tensor at regular intervals, by torchvision's names.
    weights: BTreeMap<String, Vec<f64>>,
}

/// The formula by which both sides compute the images: values from -1 to 1.
fn images(name: &str, shape: [usize; 4]) -> TensorData {
    let hash = name.bytes().fold(2_166_136_261u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    let value = |index: usize| {
        let mut x = (index as u32).wrapping_mul(2_654_435_761).wrapping_add(hash);
        x ^= x >> 16;
        x = x.wrapping_mul(0x7feb_352d);
        x ^= x >> 15;
        x = x.wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        2.0 * f64::from(x >> 8) / f64::from(1 << 24) - 1.0
    };
    TensorData::new((0..shape.iter().product()).map(|i| value(i) as f32).collect(), shape)
}

/// The network that both sides train, with the same initial weights.
fn start(device: &Device) -> Network {
    let config = NetworkConfig::new("resnet8".parse().unwrap(), [3, 16, 16], 10).with_width(4);
    let mut network = config.init(device).train();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/residual-weights/tests/files/tiny.safetensors");
    load(&mut network, &Checkpoint::read(&file).unwrap(), &LoadOptions::default()).unwrap();
    network
}

#[test]
fn ten_steps_match_pytorch() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/optimizers.json");
    let Recorded { trainings } = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for kind in OptimizerKind::ALL {
        assert!(trainings.iter().any(|training| training.optimizer.kind() == *kind), "{kind} is missing");
    }
    let device = Device::flex().autodiff();
    for Recording { optimizer, lr, losses, weights } in trainings {
        let mut network = start(&device);
        let before = tensors(&network);
        let mut built = optimizer.init(&network);
        let labels = Tensor::<1, Int>::arange(0..8, &device);
        for (step, recorded) in losses.into_iter().enumerate() {
            let batch = Tensor::from_data(images(&format!("input{step}"), [8, 3, 16, 16]), &device);
            let loss = cross_entropy(&network.forward_training(batch, 0, 0), &labels);
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            network = built.step(lr, network, gradients);
            let loss = f64::from(loss.into_scalar::<f32>());
            assert!((loss - recorded).abs() < TOLERANCE * recorded, "{optimizer:?}, step {step}: {loss}, {recorded}");
        }
        let own = tensors(&network);
        assert_eq!(weights.len(), 23);
        for (name, recorded) in weights {
            let [before, values] = [&before[&name].1, &own[&name].1];
            let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let count = values.len().min(16);
            assert_eq!(recorded.len(), count);
            let index = |k: usize| k * values.len() / count;
            let change = (0..count).map(|k| (values[index(k)] - before[index(k)]).abs()).fold(0.0, f32::max);
            for (k, recorded) in recorded.into_iter().enumerate() {
                let difference = (f64::from(values[index(k)]) - recorded).abs();
                let [of_largest, of_change] = [largest, change].map(|scale| difference / f64::from(scale));
                assert!(
                    of_largest < TOLERANCE,
                    "{optimizer:?}: {name} differs by {of_largest:e} of the largest weight"
                );
                assert!(of_change < OF_CHANGE, "{optimizer:?}: {name} differs by {of_change:e} of the largest change");
            }
        }
    }
}
