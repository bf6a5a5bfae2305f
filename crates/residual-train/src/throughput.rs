use crate::{Optimizer, TrainError, evaluate::loss, learner::sgd};
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Distribution, Int, Tensor, TensorData},
};
use residual_model::{Network, NetworkConfig};
use serde::Serialize;
use std::time::Instant;

/// How fast a network trains and infers, on random images.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Seconds of each training step: forward, backward and the optimizer's update.
    pub train_seconds: Vec<f64>,
    /// Seconds of each pass over the batch in inference mode, norms folded into convolutions.
    pub infer_seconds: Vec<f64>,
    /// The most memory the process has had resident by the end of training, in bytes, where the system tells.
    pub train_peak_bytes: Option<u64>,
}

/// Steps before those that are timed.
const WARM_UP: usize = 2;

/// Times training steps and inference passes over one batch of random images, by SGD with momentum 0.9
/// and weight decay 1e-4. `training` off skips the first half. Calls `watch` after each step and pass with the
/// number of those done and of all, two of each kind more than are timed.
///
/// # Errors
/// If the network cannot be built, or the device fails.
pub fn throughput(
    config: &NetworkConfig,
    batch: usize,
    steps: usize,
    training: bool,
    device: &Device,
    mut watch: impl FnMut(usize, usize),
) -> Result<Throughput, TrainError> {
    config.validate()?;
    let [channels, height, width] = match config {
        NetworkConfig::Conv(config) => config.image,
        NetworkConfig::Dense(config) => [config.features, 1, 1],
    };
    let images = |device: &Device| Tensor::<4>::random([batch, channels, height, width], Distribution::Default, device);
    let sync = |device: &Device| device.sync().map_err(|error| TrainError::Learner(error.to_string()));

    let all = (WARM_UP + steps) * if training { 2 } else { 1 };
    let mut train_seconds = Vec::new();
    let mut network = config.init(device);
    if training {
        let device = device.clone().autodiff();
        let mut trained = config.init(&device).train();
        let mut optimizer = sgd(&Optimizer::default(), 1e-4).init();
        let images = images(&device);
        let labels: Vec<i64> = (0..batch).map(|i| (i % config.classes()) as i64).collect();
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [batch]), &device);
        for step in 0..WARM_UP + steps {
            let start = Instant::now();
            let loss = loss(&trained.forward_training(images.clone(), 0, step as u64), &labels);
            let gradients = GradientsParams::from_grads(loss.backward(), &trained);
            trained = optimizer.step(0.01, trained, gradients);
            sync(&device)?;
            train_seconds.push(start.elapsed().as_secs_f64());
            watch(train_seconds.len(), all);
        }
        network = trained.valid();
    }
    let train_peak_bytes = peak_bytes();

    let network = match network {
        Network::Conv(network) => Network::Conv(network.fold_batch_norm()),
        dense => dense,
    };
    let images = images(device);
    let mut infer_seconds = Vec::new();
    for _ in 0..WARM_UP + steps {
        let start = Instant::now();
        let scores = network.forward(images.clone());
        sync(device)?;
        drop(scores);
        infer_seconds.push(start.elapsed().as_secs_f64());
        watch(train_seconds.len() + infer_seconds.len(), all);
    }
    let timed = |seconds: Vec<f64>| seconds.into_iter().skip(WARM_UP).collect();
    Ok(Throughput { train_seconds: timed(train_seconds), infer_seconds: timed(infer_seconds), train_peak_bytes })
}

/// The floating-point operations a second of a product of two square matrices, the best of several.
///
/// # Errors
/// If the device fails.
pub fn matmul_flops(device: &Device) -> Result<f64, TrainError> {
    const SIDE: usize = 2048;
    let matrix = Tensor::<2>::random([SIDE, SIDE], Distribution::Default, device);
    let mut best = 0.0f64;
    for _ in 0..8 {
        let start = Instant::now();
        let product = matrix.clone().matmul(matrix.clone());
        device.sync().map_err(|error| TrainError::Learner(error.to_string()))?;
        drop(product);
        best = best.max(2.0 * (SIDE as f64).powi(3) / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// The most memory this process has had resident; Linux tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
