use crate::{Format, WeightsError, load::transpose, names::torchvision};
use burn::module::Module;
use residual_fetch::write_atomic;
use residual_model::parameters::{for_each_parameter, to_burnpack};
use safetensors::{Dtype, tensor::TensorView};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// The shape and values of every tensor of a network, with torchvision's names and PyTorch's layouts. The weights of
/// linear layers have shape `[out, in]`.
pub fn tensors<M: Module>(network: &M) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut tensors = BTreeMap::new();
    // `valid` brings the running statistics up to date with the last training step.
    for_each_parameter(&network.valid(), |parameter| {
        let values: Vec<f32> = parameter.data().iter::<f32>().collect();
        let entry = match parameter.shape[..] {
            [input, output] => (vec![output, input], transpose(&values, input, output)),
            _ => (parameter.shape.clone(), values),
        };
        tensors.insert(torchvision(parameter.path), entry);
    });
    tensors
}

/// The name of the first tensor of a network with a NaN or infinite value, in torchvision's naming.
pub fn not_finite<M: Module>(network: &M) -> Option<String> {
    let mut found = None;
    for_each_parameter(&network.valid(), |parameter| {
        if found.is_none() && !parameter.data().iter::<f32>().all(f32::is_finite) {
            found = Some(torchvision(parameter.path));
        }
    });
    found
}

/// Writes the weights of a network to a file whose extension selects the format: `.safetensors` with torchvision's
/// names and PyTorch's layouts, which PyTorch can load, or `.bpk`, Burn's own format, without parameter ids.
///
/// The file is replaced atomically. Networks with equal weights are written as identical bytes.
///
/// # Errors
/// If the name does not end in `.safetensors` or `.bpk`, or the file cannot be written.
pub fn save<M: Module>(network: &M, path: &Path) -> Result<(), WeightsError> {
    if Format::to_write(path)? == Format::Safetensors {
        return save_safetensors(network, path);
    }
    let file = to_burnpack(&network.valid())
        .map_err(|error| WeightsError::bad_file(path, format!("cannot be written: {error}")))?;
    write_atomic(path, &file).map_err(WeightsError::io("write", path))
}

fn save_safetensors<M: Module>(network: &M, path: &Path) -> Result<(), WeightsError> {
    let tensors = tensors(network);
    let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, (shape.clone(), values.iter().flat_map(|x| x.to_le_bytes()).collect())))
        .collect();
    let views: Result<Vec<_>, _> = bytes
        .iter()
        .map(|(name, (shape, data))| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect();
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let file = views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|error| WeightsError::bad_file(path, format!("cannot be written: {error}")))?;
    write_atomic(path, &file).map_err(WeightsError::io("write", path))
}
