//! The correlation of gradients at neighbouring inputs (Balduzzi et al. 2017, "The Shattered Gradients Problem").
//!
//! The inputs lie on a line through two training images, at t = -1 and t = 1. f is the score of the second image's
//! class.

use super::{
    config::{InspectConfig, OnStep},
    subject::{Subject, each, norm, values},
};
use crate::{LabError, numbers};
use burn::{
    module::Module,
    tensor::{Tensor, s},
};
use residual_data::Batch;
use residual_model::Network;
use serde::{Deserialize, Serialize};

/// The derivatives `df/dt` along lines of inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shattered {
    /// Lines per network. If the network is untrained, each line uses a new initialisation.
    pub lines: usize,
    /// `df/dt` of each network along each line, at [`Shattered::POINTS`] points with t from -[`Shattered::REACH`] to
    /// [`Shattered::REACH`].
    #[serde(with = "numbers")]
    pub derivatives: Vec<Vec<Vec<f64>>>,
}

impl Shattered {
    /// Whether every network has the same number of complete lines.
    pub(super) fn is_consistent(&self, networks: usize) -> bool {
        let complete =
            |lines: &Vec<Vec<f64>>| lines.len() == self.lines && lines.iter().all(|line| line.len() == Self::POINTS);
        self.lines > 0 && self.derivatives.len() == networks && self.derivatives.iter().all(complete)
    }

    /// Inputs per line.
    pub const POINTS: usize = 256;
    /// The largest t: lines run from `-REACH` to `REACH`.
    pub const REACH: f64 = 2.0;
    /// The largest distance between two compared inputs, in points.
    pub const LAGS: usize = 64;
    /// The distance between neighbouring inputs, in t.
    pub const SPACING: f64 = 2.0 * Self::REACH / (Self::POINTS - 1) as f64;

    /// The position t of a point.
    pub fn position(point: usize) -> f64 {
        Self::REACH * (2.0 * point as f64 / (Self::POINTS - 1) as f64 - 1.0)
    }

    /// The autocorrelation of a network's derivative along each line, for lags k from 0 to [`Shattered::LAGS`]:
    /// `Σ (xᵢ - m)(xᵢ₊ₖ - m) / Σ (xᵢ - m)²`, where m is the mean. Lines along which the derivative is constant, NaN or
    /// infinite are left out.
    pub fn autocorrelations(&self, network: usize) -> Vec<Vec<f64>> {
        self.derivatives[network].iter().filter_map(|line| autocorrelation(line, Self::LAGS)).collect()
    }
}

/// `df/dt` at the points of a line from one image to another. The network must be in inference mode, on a device that
/// records gradients.
fn derivative(network: &Network, batch: &Batch, from: usize, to: usize) -> Vec<f64> {
    let image = |i: usize| batch.images.clone().slice(s![i..i + 1]);
    let [_, channels, height, width] = batch.images.dims();
    let (middle, half) = ((image(from) + image(to)).div_scalar(2), (image(to) - image(from)).div_scalar(2));
    let t: Vec<f32> = (0..Shattered::POINTS).map(|i| Shattered::position(i) as f32).collect();
    let t = Tensor::<1>::from_data(&t[..], &batch.images.device()).reshape([Shattered::POINTS, 1, 1, 1]);
    let line = middle.expand([Shattered::POINTS, channels, height, width])
        + half.clone().expand([Shattered::POINTS, channels, height, width])
            * t.expand([Shattered::POINTS, channels, height, width]);
    let line = line.detach().require_grad();
    let class = values(batch.labels.clone().float())[to] as usize;
    let scores = network.forward(line.clone()).slice(s![.., class..class + 1]).sum();
    let Some(gradient) = line.grad(&scores.backward()) else { return vec![0.0; Shattered::POINTS] };
    let (gradient, direction) = (values(gradient), values(half));
    let along = |gradient: &[f64]| gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
    gradient.chunks(direction.len()).map(along).collect()
}

/// The autocorrelation for lags from 0 to `lags`. Returns `None` if all values are equal, or if one is NaN or infinite.
pub(super) fn autocorrelation(values: &[f64], lags: usize) -> Option<Vec<f64>> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let power = centred.iter().map(|c| c * c).sum::<f64>();
    if !power.is_finite() || power <= f64::EPSILON * norm(values).powi(2) {
        return None;
    }
    let at = |lag: usize| centred.iter().zip(&centred[lag..]).map(|(a, b)| a * b).sum::<f64>() / power;
    Some((0..=lags.min(values.len() - 1)).map(at).collect())
}

/// `df/dt` along one line, for the trained network, or for a new initialisation of an untrained one.
fn line(subject: &Subject, config: &InspectConfig, draw: usize) -> Result<Vec<f64>, LabError> {
    let device = subject.device.clone().autodiff();
    let network = match subject.trained() {
        Some(trained) => trained,
        None => {
            let images = subject.training_images(config.samples, &subject.device)?.images;
            let seed = subject.config.network.init.seed.wrapping_add(draw as u64);
            subject.config.clone().with_seed(seed).init(&device).calibrated(images)
        }
    };
    let batch = subject.training_images(config.samples, &device)?;
    // Each line joins two images far apart in the dataset.
    let count = batch.images.dims()[0];
    let (from, to) = (draw % count, (draw * 7 + count / 2) % count);
    let to = if to == from { (to + 1) % count } else { to };
    Ok(derivative(&network.train().freeze(), &batch, from, to))
}

pub(super) fn measure(
    subjects: &[Subject],
    config: &InspectConfig,
    on_step: OnStep<'_>,
) -> Result<Shattered, LabError> {
    let lines = config.draws;
    let count = subjects.len() * lines;
    let derivatives = each(count, config, on_step, |job| line(&subjects[job / lines], config, job % lines))?;
    Ok(Shattered { lines, derivatives: derivatives.chunks(lines).map(<[Vec<f64>]>::to_vec).collect() })
}
