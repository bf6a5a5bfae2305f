use crate::{
    Checkpoint, Format, NameMap, WeightsError,
    error::Differences,
    names::{canonical, duplicates, is_counter, torchvision},
};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use residual_model::parameters::for_each_parameter;
use std::collections::{BTreeMap, BTreeSet};

/// How a checkpoint is put into a network.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Leaves the network's head as it is, whatever the checkpoint has there.
    pub ignore_head: bool,
    /// Renames the checkpoint's tensors first.
    pub names: NameMap,
}

/// What was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Tensors taken from the checkpoint.
    pub tensors: usize,
}

/// Puts a checkpoint into a network: every tensor, or none.
///
/// Counters of batches (`num_batches_tracked`) are left out. Values become f32.
///
/// # Errors
/// If the checkpoint lacks a tensor of the network, has one more, or one of another shape, or if a
/// tensor cannot be read. The network is then as it was.
pub fn load<M: Module>(
    network: &mut M,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Loaded, WeightsError> {
    let wanted = shapes(network);
    let named: Vec<(String, &str)> = checkpoint
        .entries()
        .filter(|(name, _)| !is_counter(name))
        .map(|(name, _)| (canonical(&options.names.apply(name)), name))
        .collect();
    if let Some(twice) = duplicates(named.iter().map(|(name, _)| name.as_str())).first() {
        return Err(WeightsError::bad_file(checkpoint.path(), format!("has two tensors for {twice}")));
    }
    let sources: BTreeMap<String, &str> = named.into_iter().collect();
    let is_ignored = |name: &str| options.ignore_head && name.starts_with("fc.");

    let mut differences = Differences::default();
    let mut values = BTreeMap::new();
    for (name, shape) in &wanted {
        if is_ignored(name) {
            continue;
        }
        let Some(source) = sources.get(name) else {
            differences.missing.push(name.clone());
            continue;
        };
        let entry = checkpoint.get(source).expect("it is one of them");
        let transposed = checkpoint.format() != Format::Burnpack && shape.len() == 2;
        let ours = if transposed { vec![shape[1], shape[0]] } else { shape.clone() };
        if !same_shape(&ours, entry.shape()) {
            // Torchvision's order of a linear layer's sizes, whatever the file's.
            let torchvisions = |mut shape: Vec<usize>| {
                if shape.len() == 2 && !transposed {
                    shape.reverse();
                }
                shape
            };
            differences.shapes.push((name.clone(), torchvisions(ours), torchvisions(entry.shape().to_vec())));
            continue;
        }
        let read = checkpoint.values(source)?;
        values.insert(name.clone(), if transposed { transpose(&read, ours[0], ours[1]) } else { read });
    }
    let known: BTreeSet<&String> = wanted.keys().collect();
    differences.unknown = sources.keys().filter(|name| !known.contains(name) && !is_ignored(name)).cloned().collect();
    if !differences.is_empty() {
        return Err(WeightsError::Mismatch { path: checkpoint.path().into(), differences });
    }
    let tensors = values.len();
    *network = network.clone().map(&mut Fill { path: Vec::new(), values });
    Ok(Loaded { tensors })
}

/// Whether shapes are equal, but for the 1x1 of a head that is a convolution.
fn same_shape(ours: &[usize], theirs: &[usize]) -> bool {
    ours == theirs || (ours.len() == 2 && theirs.len() == 4 && theirs[..2] == *ours && theirs[2..] == [1, 1])
}

/// `[rows, columns]` to `[columns, rows]`.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns * rows).map(|i| values[i % rows * columns + i / rows]).collect()
}

/// The shape of every tensor, by torchvision's name.
fn shapes<M: Module>(network: &M) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    for_each_parameter(network, |parameter| {
        shapes.insert(torchvision(parameter.path), parameter.shape);
    });
    shapes
}

/// Replaces every tensor that there are values for.
struct Fill {
    path: Vec<String>,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.values.remove(&torchvision(&self.path.join("."))) else { return param };
        let (id, tensor, mapper) = param.consume();
        let data = TensorData::new(values, tensor.dims());
        let loaded = Tensor::from_data(data, (&tensor.device(), tensor.dtype()));
        let loaded = if tensor.is_require_grad() { loaded.require_grad() } else { loaded };
        Param::from_mapped_value(id, loaded, mapper)
    }
}
