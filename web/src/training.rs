//! One training, step by step.

use crate::{
    digits::{Digits, PIXELS},
    settings::Settings,
};
use burn::{
    module::Module,
    nn::loss::CrossEntropyLossConfig,
    optim::{GradientsParams, ModuleOptimizer},
    tensor::{Device, Int, Tensor, TensorData, activation::softmax},
};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use residual_model::{Network, parameters::for_each_parameter};
use serde::Serialize;
use std::f64::consts::PI;

/// The number of images per step.
const BATCH: usize = 64;

/// A network and its optimizer, between two steps.
pub struct Training {
    settings: Settings,
    network: Network,
    optimizer: ModuleOptimizer,
    digits: Digits,
    device: Device,
    /// The images of this epoch, in their order.
    order: Vec<usize>,
    step: usize,
}

/// What a step did.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The number of steps so far.
    pub step: usize,
    /// The mean cross-entropy of the batch before the step, in nats.
    pub loss: f32,
    /// The norm of the gradient of each layer's weight, from the input on, if it was asked for.
    pub gradients: Option<Vec<f64>>,
    /// Whether an epoch ended with this step.
    pub epoch_ended: bool,
    /// Whether it was the last step.
    pub ended: bool,
}

impl Training {
    /// Starts a training.
    ///
    /// # Errors
    /// If the settings are invalid.
    pub fn new(json: &str) -> Result<Self, String> {
        let settings = Settings::read(json)?;
        let device = Device::flex().autodiff();
        let network = settings.network()?.init(&device);
        let mut training = Self {
            optimizer: settings.optimizer(),
            network,
            digits: Digits::training(),
            device,
            order: Vec::new(),
            step: 0,
            settings,
        };
        training.shuffle();
        Ok(training)
    }

    /// The number of steps of the whole training.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.steps_per_epoch()
    }

    fn steps_per_epoch(&self) -> usize {
        self.digits.len().div_ceil(BATCH)
    }

    /// The order that `residual train` has.
    fn shuffle(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed.into());
        rng.set_stream((self.step / self.steps_per_epoch()) as u64);
        self.order = (0..self.digits.len()).collect();
        self.order.shuffle(&mut rng);
    }

    fn images(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        let pixels = indices.iter().flat_map(|&i| &self.digits.pixels[i * PIXELS..][..PIXELS]).copied();
        Tensor::from_data(TensorData::new(pixels.collect::<Vec<f32>>(), [indices.len(), 1, 8, 8]), device)
    }

    fn labels(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|&i| self.digits.labels[i]).collect()
    }

    /// Takes a step.
    ///
    /// # Panics
    /// After the last step.
    pub fn step(&mut self, measure: bool) -> Step {
        assert!(self.step < self.steps(), "the training has ended");
        let number = self.step % self.steps_per_epoch();
        let batch = &self.order[number * BATCH..self.order.len().min((number + 1) * BATCH)];
        let labels: Vec<i32> = self.labels(batch).into_iter().map(|label| label as i32).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(labels, [batch.len()]), &self.device);
        let logits = self.network.forward_training(self.images(batch, &self.device), 0, self.step as u64);
        let loss = CrossEntropyLossConfig::new().init(&self.device).forward(logits, targets);
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        let norms = measure.then(|| gradient_norms(&self.network, &gradients));
        let progress = self.step as f64 / self.steps() as f64;
        let lr = self.settings.lr * (1.0 + (PI * progress).cos()) / 2.0;
        self.network = self.optimizer.step(lr, self.network.clone(), gradients);
        self.step += 1;
        let epoch_ended = self.step.is_multiple_of(self.steps_per_epoch());
        if epoch_ended {
            self.shuffle();
        }
        let ended = self.step >= self.steps();
        Step { step: self.step, loss: value, gradients: norms, epoch_ended, ended }
    }

    /// The share of all training images that the network takes for another digit, by a clean pass: with the running
    /// statistics of the norms.
    pub fn training_error(&self) -> f64 {
        let network = self.network.valid();
        let device = self.device.clone().inner();
        let all: Vec<usize> = (0..self.digits.len()).collect();
        let errors: usize = all
            .chunks(4 * BATCH)
            .map(|part| wrong(network.forward(self.images(part, &device)), &self.labels(part)))
            .sum();
        errors as f64 / all.len() as f64
    }

    /// The root mean square of the first block's input and of the output of every block, for the first images of the
    /// training set, with norms as in training.
    pub fn activations(&self) -> Vec<f64> {
        let first: Vec<usize> = (0..BATCH).collect();
        let device = self.device.clone().inner();
        let network = self.network.calibrated(self.images(&first, &self.device));
        let mut a = network.stem(self.images(&first, &device));
        let mut scales = vec![root_mean_square(a.clone())];
        for block in network.blocks() {
            a = block.forward(a);
            scales.push(root_mean_square(a.clone()));
        }
        scales
    }

    /// The probability of each digit for an image of 8x8 pixels from 0 to 1.
    ///
    /// # Errors
    /// If there are not 64 pixels.
    pub fn predict(&self, pixels: &[f32]) -> Result<Vec<f32>, String> {
        if pixels.len() != PIXELS {
            return Err(format!("an image has {PIXELS} pixels, not {}", pixels.len()));
        }
        let data = TensorData::new(self.digits.normalized(pixels), [1, 1, 8, 8]);
        let logits = self.network.valid().forward(Tensor::from_data(data, &self.device.clone().inner()));
        Ok(softmax(logits, 1).into_data().iter::<f32>().collect())
    }
}

/// The number of rows whose largest score is not that of the label. NaN is never right.
fn wrong(logits: Tensor<2>, labels: &[usize]) -> usize {
    let scores: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let classes = scores.len() / labels.len();
    let is_right =
        |(row, label): (&[f32], &usize)| row.iter().enumerate().all(|(i, score)| i == *label || *score < row[*label]);
    labels.len() - scores.chunks(classes).zip(labels).filter(|pair| is_right(*pair)).count()
}

/// The norm of the gradient of each weight, in the order of the layers.
fn gradient_norms(network: &Network, gradients: &GradientsParams) -> Vec<f64> {
    let mut norms = Vec::new();
    for_each_parameter(network, |parameter| {
        if !parameter.path.ends_with(".weight") || parameter.path.contains("shortcut") {
            return;
        }
        let gradient = match parameter.shape.len() {
            2 => gradients.get::<2>(parameter.id).map(Tensor::into_data),
            _ => gradients.get::<4>(parameter.id).map(Tensor::into_data),
        };
        norms.extend(gradient.map(|gradient| sum_of_squares(&gradient).sqrt()));
    });
    norms
}

fn root_mean_square(a: Tensor<4>) -> f64 {
    let data = a.into_data();
    (sum_of_squares(&data) / data.num_elements() as f64).sqrt()
}

fn sum_of_squares(data: &TensorData) -> f64 {
    data.iter::<f32>().map(|value| f64::from(value).powi(2)).sum()
}
