//! Gradient accumulation and clipping.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{DType, Tensor, TensorData},
};
use residual_kernels::bridge;
use residual_model::Network;

/// Averages the gradients of several batches for one optimizer step.
#[derive(Default)]
pub(crate) struct GradientAccumulator {
    /// The sum of the batches' gradients, each weighted by its number of samples. The gradient of a single batch is not
    /// weighted.
    sum: Option<GradientsParams>,
    batches: usize,
    samples: usize,
}

impl GradientAccumulator {
    /// Whether no batch has been added since the last step.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// The number of batches that have been added since the last step.
    pub(crate) fn len(&self) -> usize {
        self.batches
    }

    /// Adds the mean gradient of a batch of `samples` samples. After `count` batches, or after the `last` batch of an
    /// epoch, returns the mean over all samples added and resets the accumulator. `network` is called only if there is a sum
    /// to add to, because cloning a network takes a noticeable part of a small network's step.
    pub(crate) fn add(
        &mut self,
        network: impl FnOnce() -> Network,
        gradients: GradientsParams,
        samples: usize,
        count: usize,
        last: bool,
    ) -> Option<GradientsParams> {
        // The first gradient is weighted when the second is added.
        let weights = [if self.batches == 1 { self.samples as f64 } else { 1.0 }, samples as f64];
        self.batches += 1;
        self.samples += samples;
        let is_full = self.batches == count || last;
        let divisor = if is_full { self.samples as f64 } else { 1.0 };
        let sum = match self.sum.take() {
            None => gradients,
            Some(sum) => {
                let mut add = AddWeighted { sum, gradients, weights, divisor };
                network().visit(&mut add);
                add.sum
            }
        };
        if is_full {
            *self = Self::default();
            return Some(sum);
        }
        self.sum = Some(sum);
        None
    }
}

/// Replaces `sum` by the [`weighted_sum`] of both gradients of each parameter.
struct AddWeighted {
    sum: GradientsParams,
    gradients: GradientsParams,
    weights: [f64; 2],
    divisor: f64,
}

impl ModuleVisitor for AddWeighted {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (sum, own) = (self.sum.remove::<D>(param.id), self.gradients.remove::<D>(param.id));
        // Stochastic depth leaves out blocks, so a batch may have no gradient of a parameter.
        let (sum, own) = match (sum, own) {
            (None, None) => return,
            (Some(sum), own) => (sum.clone(), own.unwrap_or_else(|| sum.zeros_like())),
            (None, Some(own)) => (own.zeros_like(), own),
        };
        self.sum.register(param.id, weighted_sum(sum, own, self.weights, self.divisor));
    }
}

/// Scales the gradient g down to a norm of at most `max_norm`: `g · min(1, max_norm / (‖g‖ + 1e-6))`, as in PyTorch.
/// The norm is taken over all parameters. The function does not wait for the device.
pub(crate) fn clip(network: &Network, gradients: GradientsParams, max_norm: f64) -> GradientsParams {
    let mut squares = Vec::new();
    let gradients = map(network, gradients, |gradient| {
        squares.push((gradient.clone() * gradient.clone()).sum());
        gradient
    });
    if squares.is_empty() {
        return gradients;
    }
    let norm = Tensor::cat(squares, 0).sum().sqrt();
    let factor = norm.add_scalar(1e-6).recip().mul_scalar(max_norm).clamp_max(1.0);
    map(network, gradients, |gradient| gradient * factor.clone())
}

/// `(weights[0] · a + weights[1] · b) / divisor`: on a CPU, one operation.
pub(crate) fn weighted_sum<const D: usize>(a: Tensor<D>, b: Tensor<D>, weights: [f64; 2], divisor: f64) -> Tensor<D> {
    let f32s = a.dtype() == DType::F32 && b.dtype() == DType::F32;
    if f32s && bridge::runs_on(&a.device()) {
        return bridge::weighted_sum(a, b, weights.map(|weight| weight as f32), divisor as f32);
    }
    let [first, second] = weights;
    let sum = a.mul_scalar(first) + b.mul_scalar(second);
    if divisor == 1.0 { sum } else { sum.div_scalar(divisor) }
}

/// Multiplies all gradients by a factor.
pub(crate) fn scale(network: &Network, gradients: GradientsParams, factor: f64) -> GradientsParams {
    map(network, gradients, |gradient| gradient.mul_scalar(factor))
}

/// Divides all gradients by a number.
pub(crate) fn divide(network: &Network, gradients: GradientsParams, by: f64) -> GradientsParams {
    map(network, gradients, |gradient| gradient.div_scalar(by))
}

/// The values of the gradients of all parameters that are trained, in the order of the network, and for each of them whether
/// there is a gradient. The others are zeros: a batch has no gradient of blocks that stochastic depth leaves out.
pub(crate) fn flatten(network: &Network, gradients: GradientsParams) -> (Vec<f32>, Vec<bool>) {
    let mut flat = Flatten { gradients, values: Vec::new(), present: Vec::new() };
    network.visit(&mut flat);
    (flat.values, flat.present)
}

struct Flatten {
    gradients: GradientsParams,
    values: Vec<f32>,
    present: Vec<bool>,
}

impl ModuleVisitor for Flatten {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if !tensor.is_require_grad() {
            return;
        }
        let gradient = self.gradients.remove::<D>(param.id);
        self.present.push(gradient.is_some());
        match gradient {
            Some(gradient) => self.values.extend(gradient.into_data().iter::<f32>()),
            None => self.values.resize(self.values.len() + tensor.dims().iter().product::<usize>(), 0.0),
        }
    }
}

/// The gradients with these values, of the parameters that have one, the inverse of [`flatten`]. Values after the last
/// gradient are ignored.
pub(crate) fn unflatten(network: &Network, values: &[f32], present: &[bool]) -> GradientsParams {
    let mut whole = Unflatten { gradients: GradientsParams::new(), values, present };
    network.visit(&mut whole);
    whole.gradients
}

struct Unflatten<'a> {
    gradients: GradientsParams,
    values: &'a [f32],
    present: &'a [bool],
}

impl ModuleVisitor for Unflatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if !tensor.is_require_grad() {
            return;
        }
        let (own, rest) = self.values.split_at(tensor.dims().iter().product());
        let (is_present, others) = self.present.split_first().expect("there is a flag for each parameter");
        (self.values, self.present) = (rest, others);
        if *is_present {
            let data = TensorData::new(own.to_vec(), tensor.dims());
            self.gradients.register(param.id, Tensor::<D>::from_data(data, &tensor.device().inner()));
        }
    }
}

/// Applies a function to the gradient of each parameter, flattened.
fn map(network: &Network, gradients: GradientsParams, f: impl FnMut(Tensor<1>) -> Tensor<1>) -> GradientsParams {
    let mut mapper = GradientMapper { gradients, f };
    network.visit(&mut mapper);
    mapper.gradients
}

struct GradientMapper<F> {
    gradients: GradientsParams,
    f: F,
}

impl<F: FnMut(Tensor<1>) -> Tensor<1>> ModuleVisitor for GradientMapper<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let dims = gradient.dims();
            let flat = (self.f)(gradient.flatten(0, D - 1));
            self.gradients.register(param.id, flat.reshape(dims));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, TrainConfig, evaluate::cross_entropy};
    use burn::tensor::{Distribution, Int};
    use residual_data::DataName;
    use residual_model::Norm;

    fn values(network: &Network, gradients: GradientsParams) -> Vec<f32> {
        flatten(network, gradients).0
    }

    fn network() -> Network {
        let config = TrainConfig::new("dense-resnet4".parse().unwrap(), DataName::Synthetic).unwrap();
        let blocks = residual_model::BlockOptions { norm: Norm::None, ..config.network.blocks };
        let network = config.network.clone().with_blocks(blocks);
        config.with_network(network).init(&Device::flex().autodiff())
    }

    fn gradients(network: &Network, images: Tensor<4>, first: i64) -> GradientsParams {
        let n = images.dims()[0];
        let labels = Tensor::<1, Int>::arange(first..first + n as i64, &images.device());
        let logits = network.forward_training(images, 0, 0);
        GradientsParams::from_grads(cross_entropy(&logits, &labels).backward(), network)
    }

    #[test]
    fn accumulated_gradients_match_one_large_batch() {
        let network = network();
        let device = network.devices()[0].clone();
        let images = Tensor::<4>::random([7, 1, 8, 8], Distribution::Default, &device);
        let whole = values(&network, gradients(&network, images.clone(), 0));
        let mut accumulator = GradientAccumulator::default();
        let mut mean = None;
        for (from, to) in [(0, 3), (3, 6), (6, 7)] {
            let part = gradients(&network, images.clone().slice_dim(0, from..to), from as i64);
            mean = accumulator.add(|| network.clone(), part, to - from, 3, false);
            assert_eq!(mean.is_some(), to == 7);
        }
        let mean = values(&network, mean.unwrap());
        assert!(accumulator.is_empty());
        let largest = whole.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(whole.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
    }

    #[test]
    fn clipping_scales_large_gradients_and_keeps_small_ones() {
        let network = network();
        let device = network.devices()[0].clone();
        let images = Tensor::<4>::random([5, 1, 8, 8], Distribution::Default, &device);
        let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let whole = values(&network, gradients(&network, images.clone(), 0));
        let max_norm = norm(&whole) / 4.0;
        let clipped = values(&network, clip(&network, gradients(&network, images.clone(), 0), max_norm));
        assert!((norm(&clipped) / max_norm - 1.0).abs() < 1e-4);
        assert!(whole.iter().zip(&clipped).all(|(a, b)| (a / 4.0 - b).abs() < 1e-4));
        let kept = values(&network, clip(&network, gradients(&network, images, 0), 8.0 * max_norm));
        assert_eq!(kept, whole);
    }
}
