use crate::TrainError;
use burn::{
    nn::loss::CrossEntropyLossConfig,
    tensor::{Device, Int, Tensor, Transaction, activation::log_softmax},
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
    match measure_all(unread(network, &loader), &|| false) {
        Err(TrainError::Data(error)) => Err(error),
        result => Ok(result.expect("nobody asked to stop")),
    }
}

/// What a network makes of a loader's batches.
pub(crate) fn unread(network: &Network, loader: &Loader) -> impl Iterator<Item = Result<Unread, TrainError>> {
    loader.batches().map(|batch| {
        let batch = batch?;
        let logits = network.forward(batch.images);
        Ok(Unread::new(loss(&logits, &batch.labels), logits, batch.labels))
    })
}

/// Samples in order, read ahead by every core.
fn ahead(source: &Arc<dyn Source>, batch_size: usize, device: &Device) -> Loader {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Loader::new(source.clone(), batch_size, device).with_workers(cores).with_prefetch(2)
}

/// Batches between two reads from the device. On a GPU each waits until all the work before it is done.
pub(crate) const READ_EVERY: usize = 10;

/// Measures batches one after the other, unless asked to stop.
pub(crate) fn measure_all(
    batches: impl Iterator<Item = Result<Unread, TrainError>>,
    stop: &dyn Fn() -> bool,
) -> Result<Evaluation, TrainError> {
    let (mut sums, mut unread) = (Sums::default(), Vec::new());
    let mut add = |unread: &mut Vec<Unread>| read(unread).into_iter().for_each(|batch| sums.add(batch));
    for batch in batches {
        if stop() {
            return Err(TrainError::Stopped);
        }
        unread.push(batch?);
        if unread.len() == READ_EVERY {
            add(&mut unread);
        }
    }
    add(&mut unread);
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
    let mut loss_sum = 0.0;
    let (mut predicted, mut labels, mut rank, mut classes) = (Vec::new(), Vec::new(), Vec::new(), source.classes());
    for batch in ahead(source, batch_size, &device).batches() {
        let batch = batch?;
        let logits = network.forward(batch.images);
        classes = logits.dims()[1];
        TrainError::unless_classes_suffice(source.classes(), classes)?;
        let mean = loss(&logits, &batch.labels);
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
pub(crate) struct Unread {
    loss: Tensor<1>,
    errors: Tensor<1>,
    samples: usize,
}

impl Unread {
    pub(crate) fn new(loss: Tensor<1>, logits: Tensor<2>, labels: Tensor<1, Int>) -> Self {
        let samples = labels.dims()[0];
        let errors = logits.argmax(1).squeeze_dim::<1>(1).not_equal(labels).float().sum();
        Self { loss, errors, samples }
    }
}

/// One batch's mean loss and number of errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) loss: f32,
    pub(crate) errors: f32,
    pub(crate) samples: usize,
}

/// Takes what is unread from the device, all of it at once.
pub(crate) fn read(unread: &mut Vec<Unread>) -> Vec<Measured> {
    let mut transaction = Transaction::default();
    let mut samples = Vec::with_capacity(unread.len());
    for batch in unread.drain(..) {
        transaction = transaction.register(batch.loss).register(batch.errors);
        samples.push(batch.samples);
    }
    let mut values = transaction.execute().into_iter().flat_map(|data| data.iter::<f32>().collect::<Vec<_>>());
    let mut value = || values.next().expect("a value for each tensor");
    samples.into_iter().map(|samples| Measured { loss: value(), errors: value(), samples }).collect()
}

/// Sums over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) loss: f64,
    pub(crate) errors: f64,
    pub(crate) samples: usize,
}

impl Sums {
    /// Adds a batch.
    pub(crate) fn add(&mut self, batch: Measured) {
        self.loss += f64::from(batch.loss) * batch.samples as f64;
        self.errors += f64::from(batch.errors);
        self.samples += batch.samples;
    }

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
    fn many_batches_give_what_their_samples_give_one_by_one() {
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
        assert!((0.5..1.0).contains(&error), "fresh weights know little: {error}");
        assert_eq!((evaluation.samples, evaluation.error), (360, error));
        assert!((evaluation.loss / loss - 1.0).abs() < 1e-5, "{} and {loss}", evaluation.loss);
        assert!((predictions.loss / loss - 1.0).abs() < 1e-5, "{} and {loss}", predictions.loss);
        assert_eq!(predictions.top_k_error(1), error);
    }
}
