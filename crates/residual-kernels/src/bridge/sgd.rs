//! The step of [`Sgd`] on Burn's tensors.

use super::{SgdTensors, UpdatedTensors, host::HostBackend};
use crate::Sgd;
use burn::backend::TensorMetadata;

/// Computes the new weight and velocity.
pub(super) fn step<B: HostBackend>(tensors: SgdTensors<B>, sgd: Sgd) -> UpdatedTensors<B> {
    let SgdTensors { weight, gradient, velocity } = tensors;
    let shape = weight.shape();
    let old = velocity.as_ref().cloned().map(B::values);
    let (weight, gradient) = (B::values(weight), B::values(gradient));
    let mut velocity = match &old {
        Some(old) => old.slice().to_vec(),
        None => vec![0.0; gradient.slice().len()],
    };
    let mut updated = vec![0.0; weight.slice().len()];
    sgd.step(weight.slice(), gradient.slice(), &mut velocity, old.is_none(), &mut updated);
    UpdatedTensors { weight: B::small_tensor(updated, &shape), velocity: B::small_tensor(velocity, &shape) }
}
