//! Inference without the standard library, built for a target that has none.

#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use burn::{
    module::Module,
    store::{ModuleRecord, RecordError},
    tensor::{Bytes, Device, Tensor, TensorData},
};
use residual_model::{NetName, NetworkConfig};

/// The logits of a network for one 3x32x32 image. `weights` is the content of a burnpack file.
pub fn classify(name: NetName, weights: Vec<u8>, pixels: Vec<f32>) -> Result<Vec<f32>, RecordError> {
    let device = Device::flex();
    let network = NetworkConfig::new(name, [3, 32, 32], 10).init(&device);
    let network = network.try_load_record(ModuleRecord::from_bytes(Bytes::from_bytes_vec(weights))?)?;
    let image = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, 32, 32]), &device);
    Ok(network.forward(image).into_data().iter::<f32>().collect())
}
