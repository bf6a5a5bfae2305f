use crate::{
    Checkpoint, Format, NameMap, WeightsError,
    error::Differences,
    names::{canonical, duplicates, is_batch_counter, torchvision},
};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use residual_model::parameters::for_each_parameter;
use std::collections::{BTreeMap, BTreeSet};

/// Options for [`load`].
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Whether to leave the network's head unchanged and ignore the checkpoint's head.
    pub ignore_head: bool,
    /// The rules by which the checkpoint's tensors are renamed before they are matched with the network's.
    pub names: NameMap,
}

/// The result of [`load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The number of tensors copied from the checkpoint.
    pub tensors: usize,
}

/// Copies the tensors of a checkpoint into a network.
///
/// The batch counters of norms (`num_batches_tracked`) are ignored. Values are converted to f32.
///
/// # Errors
/// If the checkpoint's tensors differ from the network's in name or shape, two of them have the same name after
/// renaming, or one cannot be read. The network is then unchanged.
pub fn load<M: Module>(
    network: &mut M,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Loaded, WeightsError> {
    let wanted = shapes(network);
    let named: Vec<(String, &str)> = checkpoint
        .entries()
        .filter(|(name, _)| !is_batch_counter(name))
        .map(|(name, _)| (canonical(&options.names.apply(name)), name))
        .collect();
    if let Some(twice) = duplicates(named.iter().map(|(name, _)| name.as_str())).first() {
        return Err(WeightsError::bad_file(checkpoint.path(), format!("has two tensors named `{twice}`")));
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
        let entry = checkpoint.get(source).expect("sources hold names of the checkpoint");
        let transposed = checkpoint.format() != Format::Burnpack && shape.len() == 2;
        let ours = if transposed { vec![shape[1], shape[0]] } else { shape.clone() };
        if !same_shape(&ours, entry.shape()) {
            // Errors show the shapes of linear layers in PyTorch's order, `[out, in]`, for every format.
            let in_pytorch_order = |mut shape: Vec<usize>| {
                if shape.len() == 2 && !transposed {
                    shape.reverse();
                }
                shape
            };
            differences.shapes.push((name.clone(), in_pytorch_order(ours), in_pytorch_order(entry.shape().to_vec())));
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

/// Whether two shapes are equal. `[out, in, 1, 1]` counts as `[out, in]`, because the head of some checkpoints is a 1x1
/// convolution.
fn same_shape(ours: &[usize], theirs: &[usize]) -> bool {
    ours == theirs || (ours.len() == 2 && theirs.len() == 4 && theirs[..2] == *ours && theirs[2..] == [1, 1])
}

/// Transposes a row-major matrix of shape `[rows, columns]`.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns * rows).map(|i| values[i % rows * columns + i / rows]).collect()
}

/// The shape of every tensor of a network, by torchvision's name.
fn shapes<M: Module>(network: &M) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    for_each_parameter(network, |parameter| {
        shapes.insert(torchvision(parameter.path), parameter.shape);
    });
    shapes
}

/// Replaces every tensor of a module that has an entry in `values`.
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
