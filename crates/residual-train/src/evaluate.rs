use burn::{
    nn::loss::CrossEntropyLossConfig,
    tensor::{Device, Int, Tensor},
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
    let device = device.clone().inner();
    let mut sums = Sums::default();
    for batch in Loader::new(source.clone(), batch_size, &device).batches() {
        let batch = batch?;
        let logits = network.forward(batch.images);
        sums.add(&Measured::new(loss(&logits, &batch.labels), logits, batch.labels));
    }
    Ok(sums.evaluation())
}

/// Mean cross-entropy of a batch.
pub(crate) fn loss(logits: &Tensor<2>, labels: &Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), labels.clone())
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
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
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
