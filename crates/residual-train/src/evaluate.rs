use crate::TrainError;
use burn::{
    nn::loss::CrossEntropyLossConfig,
    tensor::{Device, Int, Tensor, activation::log_softmax},
};
use residual_data::{DataError, Loader, Source};
use residual_model::Network;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Loss and error over a set of samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Fraction misclassified.
    pub error: f64,
    /// How many samples.
    pub samples: usize,
}

/// Measures the network by a clean pass over all samples, in inference mode: batch norms use their
/// running statistics, which stay as they are.
///
/// # Errors
/// If a sample cannot be read.
pub fn evaluate(
    network: &Network,
    source: &Arc<dyn Source>,
    batch_size: usize,
    device: &Device,
) -> Result<Evaluation, DataError> {
    let loader = ahead(source, batch_size, &device.clone().inner());
    match measure_all(network, &loader, &|| false) {
        Err(TrainError::Data(error)) => Err(error),
        result => Ok(result.expect("nobody asked to stop")),
    }
}

/// Samples in order, read ahead by every core.
fn ahead(source: &Arc<dyn Source>, batch_size: usize, device: &Device) -> Loader {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Loader::new(source.clone(), batch_size, device).with_workers(cores).with_prefetch(2)
}

/// Measures all of a loader's samples, unless asked to stop.
pub(crate) fn measure_all(
    network: &Network,
    loader: &Loader,
    stop: &dyn Fn() -> bool,
) -> Result<Evaluation, TrainError> {
    let mut sums = Sums::default();
    for batch in loader.batches() {
        if stop() {
            return Err(TrainError::Stopped);
        }
        let batch = batch?;
        let logits = network.forward(batch.images);
        sums.add(&Measured::new(loss(&logits, &batch.labels), logits, batch.labels));
    }
    Ok(sums.evaluation())
}

/// Every prediction over a set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// The class of the highest score, sample by sample; the lower class of two.
    pub predicted: Vec<usize>,
    /// The true class, sample by sample.
    pub labels: Vec<usize>,
    /// How many of the classes score higher than the true one, sample by sample.
    pub rank: Vec<usize>,
    /// The number of classes that the network knows.
    pub classes: usize,
}

impl Predictions {
    /// The fraction of samples whose true class is not among the k highest scores; `top_k_error(1)` is
    /// the error.
    pub fn top_k_error(&self, k: usize) -> f64 {
        let wrong = self.rank.iter().filter(|&&rank| rank >= k).count();
        wrong as f64 / self.rank.len().max(1) as f64
    }

    /// How many samples of each true class (row) were taken for each class (column).
    pub fn confusion(&self) -> Vec<Vec<usize>> {
        let mut table = vec![vec![0; self.classes]; self.classes];
        for (&label, &predicted) in self.labels.iter().zip(&self.predicted) {
            table[label][predicted] += 1;
        }
        table
    }
}

/// Predicts every sample, in order, in inference mode.
///
/// # Errors
/// If the network knows fewer classes than the samples have, a sample cannot be read, or its scores are
/// not finite.
pub fn predict(
    network: &Network,
    source: &Arc<dyn Source>,
    batch_size: usize,
    device: &Device,
) -> Result<Predictions, TrainError> {
    let device = device.clone().inner();
    let mut sums = Sums::default();
    let (mut predicted, mut labels, mut rank, mut classes) = (Vec::new(), Vec::new(), Vec::new(), source.classes());
    for batch in ahead(source, batch_size, &device).batches() {
        let batch = batch?;
        let logits = network.forward(batch.images);
        classes = logits.dims()[1];
        TrainError::unless_classes_suffice(source.classes(), classes)?;
        sums.add(&Measured::new(loss(&logits, &batch.labels), logits.clone(), batch.labels.clone()));
        let scores: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let truth = batch.labels.into_data().iter::<i64>().collect::<Vec<_>>();
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
    Ok(Predictions { loss: sums.evaluation().loss, predicted, labels, rank, classes })
}

/// Mean cross-entropy of a batch.
pub(crate) fn loss(logits: &Tensor<2>, labels: &Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), labels.clone())
}

/// Mean cross-entropy of a batch against probabilities of the classes: `- Σ_c t_c · ln softmax(z)_c`.
pub(crate) fn soft_loss(logits: &Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let samples = logits.dims()[0] as f64;
    (log_softmax(logits.clone(), 1) * targets).sum().div_scalar(-samples)
}

/// One batch's mean loss and number of errors, still on the device.
pub(crate) struct Measured {
    loss: Tensor<1>,
    errors: Tensor<1>,
    samples: usize,
}

impl Measured {
    pub(crate) fn new(loss: Tensor<1>, logits: Tensor<2>, labels: Tensor<1, Int>) -> Self {
        let samples = labels.dims()[0];
        let errors = logits.argmax(1).squeeze_dim::<1>(1).not_equal(labels).float().sum();
        Self { loss, errors, samples }
    }

    /// Mean loss and number of errors; waits for the device.
    pub(crate) fn read(&self) -> (f32, f32) {
        let both = Tensor::cat(vec![self.loss.clone(), self.errors.clone()], 0).into_data();
        let values: Vec<f32> = both.iter::<f32>().collect();
        (values[0], values[1])
    }
}

/// Sums over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) loss: f64,
    pub(crate) errors: f64,
    pub(crate) samples: usize,
}

impl Sums {
    /// Adds a batch and returns its mean loss.
    pub(crate) fn add(&mut self, measured: &Measured) -> f32 {
        let (loss, errors) = measured.read();
        self.loss += f64::from(loss) * measured.samples as f64;
        self.errors += f64::from(errors);
        self.samples += measured.samples;
        loss
    }

    pub(crate) fn evaluation(&self) -> Evaluation {
        let n = self.samples.max(1) as f64;
        Evaluation { loss: self.loss / n, error: self.errors / n, samples: self.samples }
    }
}
