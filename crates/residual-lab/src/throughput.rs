use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Distribution, Int, Tensor, TensorData},
};
use residual_data::{Augmentation, Batch, Loader, Order, Source};
use residual_model::{Network, NetworkConfig};
use residual_train::{Memory, Optimizer, TrainError, cross_entropy, soft_cross_entropy};
use serde::Serialize;
use std::{sync::Arc, time::Instant};

/// Times of training steps and inference passes.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Seconds per training step: forward pass, backward pass and optimizer step.
    pub train_seconds: Vec<f64>,
    /// Seconds per training step on batches from a loader, including the time spent waiting for them.
    pub loaded_seconds: Vec<f64>,
    /// Seconds per forward pass in inference mode, with batch norms folded into the convolutions.
    pub infer_seconds: Vec<f64>,
    /// The peak resident memory of the process up to the end of training, in bytes, if the operating system reports it.
    pub train_peak_bytes: Option<u64>,
    /// The device memory reserved at the end of training, in bytes, if the backend reports it. GPU backends do.
    pub train_device_bytes: Option<u64>,
}

/// The largest number of timed steps.
const MOST_STEPS: usize = 1_000_000;

/// Untimed steps at the start of each kind.
const WARM_UP: usize = 2;

/// The number of consecutive steps of one kind before a switch to the other kind.
const TURN: usize = 12;

/// A dataset for timing training steps on loaded batches.
#[derive(Clone)]
pub struct DataFeed {
    /// The samples.
    pub source: Arc<dyn Source>,
    /// The augmentation of the samples.
    pub augmentation: Augmentation,
    /// The number of threads that load samples.
    pub workers: usize,
}

impl DataFeed {
    fn loader(&self, batch: usize, device: &Device) -> Loader {
        Loader::new(self.source.clone(), batch, device)
            .with_order(Order::Shuffled { seed: 0 })
            .with_augmentation(self.augmentation.clone(), 0)
            .with_workers(self.workers)
            .with_drop_last(true)
            .with_prefetch(2)
    }
}

/// Times training steps and inference passes on one batch of random images. Training uses SGD with momentum 0.9 and
/// weight decay 1e-4. If `training` is false, only inference is timed. With a `feed`, the same number of training steps
/// is also timed on batches from a loader; the two kinds of training steps alternate in groups of at most twelve.
///
/// Calls `on_step` after each step and pass with the number done so far and the total. Both numbers include two untimed
/// warm-up steps of each kind.
///
/// # Errors
/// If the network cannot be built, there are too many steps, a batch needs more memory than there is, a sample cannot be
/// read or the device fails.
pub fn throughput(
    config: &NetworkConfig,
    batch: usize,
    steps: usize,
    training: bool,
    feed: Option<&DataFeed>,
    device: &Device,
    mut on_step: impl FnMut(usize, usize),
) -> Result<Throughput, TrainError> {
    config.validate()?;
    if steps > MOST_STEPS {
        return Err(TrainError::Conflict(format!("at most {MOST_STEPS} steps can be timed, not {steps}")));
    }
    check_memory(config, batch, training)?;
    if feed.is_some_and(|feed| feed.source.len() < batch) {
        return Err(TrainError::Conflict(format!("the dataset has fewer samples than a batch of {batch}")));
    }
    let [channels, height, width] = config.as_conv().map_or([config.features(), 1, 1], |conv| conv.image);
    let images = |device: &Device| Tensor::<4>::random([batch, channels, height, width], Distribution::Default, device);
    let sync = |device: &Device| device.sync().map_err(|error| TrainError::Learner(error.to_string()));

    let kinds = 1 + usize::from(training) + usize::from(training && feed.is_some());
    let (all, mut done) = ((WARM_UP + steps) * kinds, 0);
    let mut stepped = || {
        done += 1;
        on_step(done, all);
    };
    let (mut train_seconds, mut loaded_seconds) = (Vec::new(), Vec::new());
    let mut network = config.init(device);
    if training {
        let device = device.clone().autodiff();
        let mut trained = config.init(&device).train();
        let mut optimizer = Optimizer::default().init(&trained);
        let labels: Vec<i64> = (0..batch).map(|i| (i % config.classes) as i64).collect();
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [batch]), &device);
        let held = Batch { images: images(&device), labels, targets: None, number: 0 };
        let mut step = |mut trained: Network, batch: Batch, number: usize| {
            let logits = trained.forward_training(batch.images, 0, number as u64);
            let loss = match batch.targets {
                Some(targets) => soft_cross_entropy(&logits, targets),
                None => cross_entropy(&logits, &batch.labels),
            };
            let gradients = GradientsParams::from_grads(loss.backward(), &trained);
            trained = optimizer.step(0.01, trained, gradients);
            sync(&device).map(|()| trained)
        };
        while train_seconds.len() < WARM_UP + steps {
            let turn = TURN.min(WARM_UP + steps - train_seconds.len());
            for _ in 0..turn {
                let start = Instant::now();
                trained = step(trained, held.clone(), train_seconds.len())?;
                train_seconds.push(start.elapsed().as_secs_f64());
                stepped();
            }
            let Some(feed) = feed else { continue };
            let loader = feed.loader(batch, &device);
            let mut batches = std::iter::repeat_with(|| loader.batches()).flatten();
            let mut next = || batches.next().expect("the epochs repeat endlessly");
            // Not timed: it includes the start of the loader.
            next()?;
            for _ in 0..turn {
                let start = Instant::now();
                let read = next()?;
                trained = step(trained, read, loaded_seconds.len())?;
                loaded_seconds.push(start.elapsed().as_secs_f64());
                stepped();
            }
        }
        network = trained.valid();
    }
    let train_peak_bytes = peak_bytes();
    let train_device_bytes = device.memory_pool_usage().map(|usage| usage.bytes_reserved);

    let network = network.fold_batch_norm();
    let images = images(device);
    let mut infer_seconds = Vec::new();
    for _ in 0..WARM_UP + steps {
        let start = Instant::now();
        let scores = network.forward(images.clone());
        sync(device)?;
        drop(scores);
        infer_seconds.push(start.elapsed().as_secs_f64());
        stepped();
    }
    let timed = |seconds: Vec<f64>| seconds.into_iter().skip(WARM_UP).collect();
    Ok(Throughput {
        train_seconds: timed(train_seconds),
        loaded_seconds: timed(loaded_seconds),
        infer_seconds: timed(infer_seconds),
        train_peak_bytes,
        train_device_bytes,
    })
}

/// Fails if the outputs of the layers for a batch need more memory than there is: those of all layers in training, of the
/// largest one, with its input, in inference.
fn check_memory(config: &NetworkConfig, batch: usize, training: bool) -> Result<(), TrainError> {
    let summary = config.summary();
    let sizes = summary.rows().iter().map(|row| row.output.iter().map(|&length| length as f64).product::<f64>());
    let kept = if training { sizes.sum() } else { 2.0 * sizes.fold(0.0, f64::max) };
    let needed = size_of::<f32>() as f64 * (batch as f64 * (kept + config.features() as f64));
    match Memory::shortage(needed as u64) {
        None => Ok(()),
        Some(shortage) => Err(TrainError::Conflict(format!(
            "a batch of {batch} images needs more than {shortage}; try a smaller batch"
        ))),
    }
}

/// The rate of multiplying two 2048x2048 matrices, in floating-point operations per second: the best of eight
/// measurements.
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

/// The peak resident memory of this process in bytes. Only Linux reports it.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
