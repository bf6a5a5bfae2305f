//! The step of [`Sgd`] on Burn's tensors.

use super::{OptionalTensor, SgdTensors, UpdatedTensors, host::HostBackend};
use crate::Sgd;
use burn::backend::TensorMetadata;

/// Computes the new weight and velocity.
pub(super) fn step<B: HostBackend>(tensors: SgdTensors<B>, sgd: Sgd) -> UpdatedTensors<B> {
    let SgdTensors { weight, gradient, velocity } = tensors;
    let shape = weight.shape();
    let (velocity, first) = match velocity {
        OptionalTensor::Some(velocity) => (velocity, false),
        OptionalTensor::None => (B::small_tensor(vec![0.0; shape.num_elements()], &shape), true),
    };
    let weight = B::values(weight);
    let (velocity, (updated, ())) = B::overwrite(velocity, |velocity| {
        B::overwrite(gradient, |gradient| sgd.step(weight.slice(), gradient, velocity, first))
    });
    UpdatedTensors { weight: updated, velocity }
}
