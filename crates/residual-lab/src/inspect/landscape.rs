//! The loss on a plane around the weights, along filter-normalised random directions (Li et al. 2018, "Visualizing the
//! Loss Landscape of Neural Nets", section 4).
//!
//! Each filter of a direction is drawn from N(0, 1) and scaled to the norm of the filter that it moves. Biases and the
//! parameters of norms stay fixed. The loss is measured on training images in inference mode.

use super::{
    config::{InspectConfig, OnStep},
    subject::{Subject, cross_entropies, each, norm, training_count, values},
};
use crate::{LabError, numbers};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData, s},
};
use rand_distr::{Distribution, StandardNormal};
use residual_data::Batch;
use residual_model::{Network, init::parameter_rng, parameters::for_each_parameter};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The loss of each network on a square around its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landscape {
    /// Training images over which the loss is averaged.
    pub images: usize,
    /// The offsets from the weights along each direction, in units of each filter's norm.
    pub offsets: Vec<f64>,
    /// Mean cross-entropy of each network, in nats, row by row. The offset along the first direction varies within a
    /// row.
    #[serde(with = "numbers")]
    pub losses: Vec<Vec<f64>>,
}

impl Landscape {
    /// Whether every network has one loss per point of a square with a centre.
    pub(super) fn is_consistent(&self, networks: usize) -> bool {
        let points = self.offsets.len();
        let square = |losses: &Vec<f64>| Some(losses.len()) == points.checked_mul(points);
        points % 2 == 1 && self.losses.len() == networks && self.losses.iter().all(square)
    }

    /// The losses of a network along the first direction, through its weights.
    pub fn first_direction(&self, network: usize) -> &[f64] {
        let points = self.offsets.len();
        &self.losses[network][points / 2 * points..(points / 2 + 1) * points]
    }

    /// The loss of a network at its weights.
    pub fn at_weights(&self, network: usize) -> f64 {
        self.losses[network][self.losses[network].len() / 2]
    }

    /// The fraction of the grid points at which the loss of a network is below a threshold.
    pub fn share_below(&self, network: usize, threshold: f64) -> f64 {
        let losses = &self.losses[network];
        losses.iter().filter(|loss| **loss < threshold).count() as f64 / losses.len() as f64
    }
}

/// Half the side of the square, in units of each filter's norm.
const RADIUS: f64 = 1.0;

/// Images per forward pass.
const CHUNK: usize = 256;

/// The plane spanned by two directions from a network's weights.
pub(super) struct Plane {
    network: Network,
    /// For each weight, by path: its values, the first direction and the second direction.
    weights: HashMap<String, [Vec<f32>; 3]>,
}

impl Plane {
    /// Draws the directions from a seed.
    pub(super) fn new(network: Network, seed: u64) -> Self {
        let mut weights = HashMap::new();
        for_each_parameter(&network, |parameter| {
            if parameter.path.ends_with(".weight") {
                let values: Vec<f32> = parameter.data().iter::<f32>().collect();
                let directions = [1, 2].map(|k| direction(&values, &parameter.shape, seed, parameter.path, k));
                let [first, second] = directions;
                weights.insert(parameter.path.to_string(), [values, first, second]);
            }
        });
        Self { network, weights }
    }

    /// The network at `weights + x · first + y · second`.
    pub(super) fn at(&self, x: f64, y: f64) -> Network {
        self.network.clone().map(&mut Move { weights: &self.weights, x: x as f32, y: y as f32, path: Vec::new() })
    }
}

/// A random direction for a weight, in which each filter has the norm of the weight's own filter. A filter holds the
/// weights of one output: a row of a convolution's weight `[out, in, height, width]`, or a column of a linear layer's
/// weight `[in, out]`.
fn direction(weight: &[f32], shape: &[usize], seed: u64, path: &str, number: u32) -> Vec<f32> {
    let mut rng = parameter_rng(seed, &format!("direction {number} of {path}"));
    let mut drawn: Vec<f32> = weight.iter().map(|_| StandardNormal.sample(&mut rng)).collect();
    let filters = if shape.len() == 2 { shape[1] } else { shape[0] };
    let size = weight.len() / filters.max(1);
    for filter in 0..filters {
        let place = |k: usize| if shape.len() == 2 { k * filters + filter } else { filter * size + k };
        let length = |values: &[f32]| norm(&(0..size).map(|k| f64::from(values[place(k)])).collect::<Vec<_>>());
        let factor = (length(weight) / length(&drawn).max(f64::MIN_POSITIVE)) as f32;
        (0..size).for_each(|k| drawn[place(k)] *= factor);
    }
    drawn
}

struct Move<'a> {
    weights: &'a HashMap<String, [Vec<f32>; 3]>,
    x: f32,
    y: f32,
    path: Vec<String>,
}

impl ModuleMapper for Move<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some([weight, first, second]) = self.weights.get(&self.path.join(".")) else { return param };
        let moved = weight.iter().zip(first).zip(second).map(|((w, a), b)| w + self.x * a + self.y * b);
        let moved: Vec<f32> = moved.collect();
        param.map(|tensor| Tensor::from_data(TensorData::new(moved, tensor.dims()), &tensor.device()))
    }
}

/// Mean cross-entropy of a batch, in nats.
fn loss(network: &Network, batch: &Batch) -> f64 {
    let samples = batch.images.dims()[0];
    let mut sum = 0.0;
    for start in (0..samples).step_by(CHUNK) {
        let end = (start + CHUNK).min(samples);
        let logits = network.forward(batch.images.clone().slice(s![start..end]));
        sum += values(cross_entropies(logits, batch.labels.clone().slice(s![start..end]))).iter().sum::<f64>();
    }
    sum / samples as f64
}

/// Evaluates a function of the network on a grid of `points` by `points` around the weights, row by row. y is constant
/// within a row.
pub(super) fn scan(
    plane: &Plane,
    points: usize,
    config: &InspectConfig,
    on_step: OnStep<'_>,
    f: impl Fn(&Network) -> f64 + Sync,
) -> Result<Vec<f64>, LabError> {
    let at = |i: usize| offset(i, points);
    each(points * points, config, on_step, |job| Ok(f(&plane.at(at(job % points), at(job / points)))))
}

/// The offset of a grid point, from `-RADIUS` to `RADIUS`.
pub(super) fn offset(i: usize, points: usize) -> f64 {
    RADIUS * (2.0 * i as f64 / (points - 1) as f64 - 1.0)
}

pub(super) fn measure(
    subjects: &[Subject],
    config: &InspectConfig,
    on_step: OnStep<'_>,
) -> Result<Landscape, LabError> {
    // The number is odd, so the weights themselves are a grid point.
    let points = config.points | 1;
    let mut losses = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let batch = subject.training_images(config.samples, &subject.device)?;
        let plane = Plane::new(subject.network(&batch.images), subject.config.seed);
        let all = subjects.len() * points * points;
        let on_step = |done: usize, of: usize| on_step(i * of + done, all);
        losses.push(scan(&plane, points, config, &on_step, |network| loss(network, &batch))?);
    }
    let offsets = (0..points).map(|i| offset(i, points)).collect();
    Ok(Landscape { images: training_count(subjects, config.samples), offsets, losses })
}
