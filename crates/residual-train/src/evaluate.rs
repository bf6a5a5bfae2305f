use crate::{StopFlag, TrainError, ranks::Ranks};
use burn::{
    nn::loss::CrossEntropyLossConfig,
    tensor::{Device, Int, Tensor, Transaction, activation::log_softmax},
};
use residual_data::{Batch, DataError, Loader, Source};
use residual_model::Network;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Loss and error over a set of samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Fraction of samples that are misclassified.
    pub error: f64,
    /// Number of samples.
    pub samples: usize,
}

/// Evaluates a network with a clean pass: it reads all samples in inference mode, where batch norms use their running
/// statistics and do not update them.
///
/// # Errors
/// If a sample cannot be read.
pub fn evaluate(
    network: &Network,
    source: &Arc<dyn Source>,
    batch_size: usize,
    device: &Device,
) -> Result<Evaluation, DataError> {
    let loader = prefetching_loader(source, batch_size, &device.clone().inner());
    match measure_all(measure_batches(network, &loader), &StopFlag::default(), None) {
        Err(TrainError::Data(error)) => Err(error),
        result => Ok(result.expect("the stop flag is never set")),
    }
}

/// A loader that prefetches the samples in order, using all cores.
fn prefetching_loader(source: &Arc<dyn Source>, batch_size: usize, device: &Device) -> Loader {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Loader::new(source.clone(), batch_size, device).with_workers(cores).with_prefetch(2)
}

/// Measures each batch of a loader in inference mode.
pub(crate) fn measure_batches(
    network: &Network,
    loader: &Loader,
) -> impl Iterator<Item = Result<PendingMetrics, TrainError>> {
    loader.batches().map(move |batch| Ok(measure_batch(network, batch?)))
}

/// Measures a batch in inference mode.
pub(crate) fn measure_batch(network: &Network, batch: Batch) -> PendingMetrics {
    let logits = network.forward(batch.images);
    PendingMetrics::new(cross_entropy(&logits, &batch.labels), logits, batch.labels)
}

/// The number of batches whose metrics are read from the device at once. On a GPU, a read waits for all queued work.
pub(crate) const READ_EVERY: usize = 10;

/// Combines the metrics of all batches. Fails with [`TrainError::Stopped`] once the flag is set. With ranks, each of them
/// measures its share of the batches.
pub(crate) fn measure_all(
    mut batches: impl Iterator<Item = Result<PendingMetrics, TrainError>>,
    stop: &StopFlag,
    ranks: Option<&Ranks>,
) -> Result<Evaluation, TrainError> {
    let (mut sums, mut pending) = (MetricSums::default(), Vec::new());
    if let Some(ranks) = ranks {
        loop {
            pending = batches.by_ref().take(READ_EVERY).collect::<Result<_, _>>()?;
            let (metrics, is_stopped) = ranks.in_turn(&read_pending(&mut pending), stop.is_set())?;
            if is_stopped {
                return Err(TrainError::Stopped);
            }
            let is_last = metrics.len() < READ_EVERY * ranks.share().1;
            metrics.into_iter().for_each(|batch| sums.add(batch));
            if is_last {
                return Ok(sums.evaluation());
            }
        }
    }
    let mut add =
        |pending: &mut Vec<PendingMetrics>| read_pending(pending).into_iter().for_each(|batch| sums.add(batch));
    for batch in batches {
        if stop.is_set() {
            return Err(TrainError::Stopped);
        }
        pending.push(batch?);
        if pending.len() == READ_EVERY {
            add(&mut pending);
        }
    }
    add(&mut pending);
    Ok(sums.evaluation())
}

/// The predictions for a set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// For each sample, the class with the highest score. Ties go to the lowest class.
    pub predicted: Vec<usize>,
    /// For each sample, the true class.
    pub labels: Vec<usize>,
    /// For each sample, the number of classes ranked above the true class. Classes with equal scores are ranked in
    /// ascending order of their numbers.
    pub rank: Vec<usize>,
    /// The number of classes of the network.
    pub classes: usize,
}

impl Predictions {
    /// The fraction of samples whose true class is not among the k classes with the highest scores. `top_k_error(1)` is
    /// the error.
    pub fn top_k_error(&self, k: usize) -> f64 {
        let wrong = self.rank.iter().filter(|&&rank| rank >= k).count();
        wrong as f64 / self.rank.len().max(1) as f64
    }

    /// The confusion matrix: the number of samples of each true class (row) that were predicted as each class (column).
    pub fn confusion(&self) -> Vec<Vec<usize>> {
        let mut table = vec![vec![0; self.classes]; self.classes];
        for (&label, &predicted) in self.labels.iter().zip(&self.predicted) {
            table[label][predicted] += 1;
        }
        table
    }
}

/// Predicts the class of every sample, in order, in inference mode.
///
/// # Errors
/// If the samples have more classes than the network, a sample cannot be read, or its scores are NaN or infinite.
pub fn predict(
    network: &Network,
    source: &Arc<dyn Source>,
    batch_size: usize,
    device: &Device,
) -> Result<Predictions, TrainError> {
    let device = device.clone().inner();
    let mut loss_sum = 0.0;
    let (mut predicted, mut labels, mut rank, mut classes) = (Vec::new(), Vec::new(), Vec::new(), source.classes());
    for batch in prefetching_loader(source, batch_size, &device).batches() {
        let batch = batch?;
        let logits = network.forward(batch.images);
        classes = logits.dims()[1];
        TrainError::check_classes(source.classes(), classes)?;
        let mean = cross_entropy(&logits, &batch.labels);
        let data = Transaction::default().register(logits).register(batch.labels).register(mean).execute();
        let scores: Vec<f32> = data[0].iter::<f32>().collect();
        let truth: Vec<i64> = data[1].iter::<i64>().collect();
        let mean = data[2].iter::<f32>().next().map_or(f64::NAN, f64::from);
        loss_sum += mean * truth.len() as f64;
        for (scores, truth) in scores.chunks_exact(classes).zip(truth) {
            let truth = truth as usize;
            if !scores.iter().all(|score| score.is_finite()) {
                return Err(TrainError::Scores { sample: labels.len() });
            }
            let best = (0..classes).fold(0, |best, c| if scores[c] > scores[best] { c } else { best });
            let above = |c: usize| scores[c] > scores[truth] || (scores[c] == scores[truth] && c < truth);
            predicted.push(best);
            labels.push(truth);
            rank.push((0..classes).filter(|&c| above(c)).count());
        }
    }
    Ok(Predictions { loss: loss_sum / labels.len().max(1) as f64, predicted, labels, rank, classes })
}

/// The mean cross-entropy of a batch, in nats: `- 1/N Σ_n ln softmax(z_n)_{y_n}`.
///
/// # Shapes
/// - logits: `[batch, classes]`
/// - labels: `[batch]`
/// - output: `[1]`
pub fn cross_entropy(logits: &Tensor<2>, labels: &Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), labels.clone())
}

/// The mean cross-entropy of a batch against class probabilities t, in nats: `- 1/N Σ_n Σ_c t_nc · ln softmax(z_n)_c`.
///
/// # Shapes
/// - logits and targets: `[batch, classes]`
/// - output: `[1]`
pub fn soft_cross_entropy(logits: &Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let samples = logits.dims()[0] as f64;
    (log_softmax(logits.clone(), 1) * targets).sum().div_scalar(-samples)
}

/// The mean loss and the number of errors of a batch.
#[expect(clippy::large_enum_variant, reason = "at most a few dozen exist at a time")]
pub(crate) enum PendingMetrics {
    /// Not yet read from the device.
    OnDevice {
        loss: Tensor<1>,
        errors: Tensor<1>,
        samples: usize,
    },
    Read(BatchMetrics),
}

impl PendingMetrics {
    pub(crate) fn new(loss: Tensor<1>, logits: Tensor<2>, labels: Tensor<1, Int>) -> Self {
        let samples = labels.dims()[0];
        let errors = logits.argmax(1).squeeze_dim::<1>(1).not_equal(labels).float().sum();
        Self::OnDevice { loss, errors, samples }
    }
}

/// The mean loss and the number of errors of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchMetrics {
    pub(crate) loss: f32,
    pub(crate) errors: f32,
    pub(crate) samples: usize,
}

/// Reads all pending metrics from the device at once, and empties the list.
pub(crate) fn read_pending(pending: &mut Vec<PendingMetrics>) -> Vec<BatchMetrics> {
    let mut transaction = Transaction::default();
    let mut all = Vec::with_capacity(pending.len());
    for batch in pending.drain(..) {
        all.push(match batch {
            PendingMetrics::Read(metrics) => Ok(metrics),
            PendingMetrics::OnDevice { loss, errors, samples } => {
                transaction = transaction.register(loss).register(errors);
                Err(samples)
            }
        });
    }
    let mut values = transaction.execute().into_iter().flat_map(|data| data.iter::<f32>().collect::<Vec<_>>());
    let mut value = || values.next().expect("a value for each tensor");
    let mut read = |samples| BatchMetrics { loss: value(), errors: value(), samples };
    all.into_iter().map(|metrics| metrics.unwrap_or_else(&mut read)).collect()
}

/// The loss and the number of errors, summed over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetricSums {
    pub(crate) loss: f64,
    pub(crate) errors: f64,
    pub(crate) samples: usize,
}

impl MetricSums {
    /// Adds the metrics of a batch.
    pub(crate) fn add(&mut self, batch: BatchMetrics) {
        self.loss += f64::from(batch.loss) * batch.samples as f64;
        self.errors += f64::from(batch.errors);
        self.samples += batch.samples;
    }

    /// The means over the samples.
    pub(crate) fn evaluation(&self) -> Evaluation {
        let n = self.samples.max(1) as f64;
        Evaluation { loss: self.loss / n, error: self.errors / n, samples: self.samples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrainConfig;
    use residual_data::DataName;

    #[test]
    fn evaluation_matches_a_loop_over_single_samples() {
        let device = Device::flex();
        let source = DataName::Digits.load().unwrap().test;
        let config = TrainConfig::new("dense-resnet4".parse().unwrap(), DataName::Digits).unwrap();
        let network = config.init(&device);
        // 360 samples: 51 batches of 7 and one of 3.
        let evaluation = evaluate(&network, &source, 7, &device).unwrap();
        let predictions = predict(&network, &source, 7, &device).unwrap();

        let (mut loss, mut wrong) = (0.0, 0);
        for i in 0..source.len() {
            let mut pixels = vec![0.0; 64];
            let label = source.read(i, &mut pixels).unwrap();
            let image = Tensor::<1>::from_floats(pixels.as_slice(), &device).reshape([1, 1, 8, 8]);
            let scores: Vec<f64> = network.forward(image).into_data().iter::<f64>().collect();
            loss += scores.iter().map(|z| z.exp()).sum::<f64>().ln() - scores[label];
            wrong += usize::from(scores.iter().any(|&z| z > scores[label]));
        }
        let (loss, error) = (loss / 360.0, wrong as f64 / 360.0);
        assert!((0.5..1.0).contains(&error), "the error of untrained weights is {error}");
        assert_eq!((evaluation.samples, evaluation.error), (360, error));
        assert!((evaluation.loss / loss - 1.0).abs() < 1e-5, "{} and {loss}", evaluation.loss);
        assert!((predictions.loss / loss - 1.0).abs() < 1e-5, "{} and {loss}", predictions.loss);
        assert_eq!(predictions.top_k_error(1), error);
    }
}
