use crate::{
    Cause, Checkpoint, Entry, Format, NameMap, WeightsError,
    error::{Differences, first_few, name_shown},
    names::torchvision,
};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use residual_model::parameters::for_each_parameter;
use std::collections::BTreeMap;

/// Options for [`load`].
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Whether to leave the network's head unchanged and ignore the checkpoint's head.
    pub ignore_head: bool,
    /// The rules by which the checkpoint's tensors are renamed before they are matched with the network's.
    pub names: NameMap,
    /// The keys that lead to the dictionary to read, joined by dots. If `None`, the dictionary that fits best is read,
    /// see [`Checkpoint::select`].
    pub key: Option<String>,
}

impl LoadOptions {
    pub(crate) fn ignores(&self, name: &str) -> bool {
        self.ignore_head && name.starts_with("fc.")
    }
}

/// The result of [`load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The number of tensors copied from the checkpoint.
    pub tensors: usize,
    /// If anything was left aside, a line that names it and the dictionary that was read: `read state_dict (39
    /// tensors); left aside model_ema (39 tensors), best_acc1`.
    pub left_aside: Option<String>,
    /// If any tensor has NaN or infinite values, which may come from a conversion to f32, a line that names them: `2
    /// tensors have NaN or infinite values: bn1.running_var, fc.bias`.
    pub not_finite: Option<String>,
}

/// Copies the tensors of the dictionary that [fits](Checkpoint::select) into a network.
///
/// The batch counters of norms (`num_batches_tracked`) are ignored. Values are converted to f32.
///
/// # Errors
/// If no dictionary can be selected, its tensors differ from the network's in name or shape, or one cannot be read. The
/// network is then unchanged.
pub fn load<M: Module>(
    network: &mut M,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Loaded, WeightsError> {
    let wanted = shapes(network);
    let selection = checkpoint.select(network, options)?;
    let mut differences = Differences::default();
    let mut values = BTreeMap::new();
    let mut not_finite = Vec::new();
    for (name, shape) in wanted.iter().filter(|(name, _)| !options.ignores(name)) {
        let (Some(source), Some(entry)) = (selection.names().get(name), selection.get(name)) else {
            differences.missing.push(name.clone());
            continue;
        };
        if !has_shape(entry, shape, checkpoint.format()) && !entry.is_without_values() {
            // Errors show the shapes of linear layers in PyTorch's order, `[out, in]`, for every format.
            let theirs = in_layout_of(Format::PyTorch, entry.shape().to_vec(), checkpoint.format());
            differences.shapes.push((
                name.clone(),
                in_layout_of(Format::PyTorch, shape.clone(), Format::Burnpack),
                theirs,
            ));
            continue;
        }
        let read = checkpoint.values(source)?;
        if !read.iter().all(|value| value.is_finite()) {
            not_finite.push(name.clone());
        }
        let ours = match shape[..] {
            [input, output] if checkpoint.format() != Format::Burnpack => transpose(&read, output, input),
            _ => read,
        };
        values.insert(name.clone(), ours);
    }
    let unknown = selection.names().keys().filter(|name| !wanted.contains_key(*name) && !options.ignores(name));
    differences.unknown = unknown.cloned().collect();
    let left_aside = (!selection.aside().is_empty()).then(|| selection.to_string());
    if !differences.is_empty() {
        let path = checkpoint.path();
        let given = selection.names().keys().map(String::as_str).collect();
        let cause = Cause::of(path, &differences, &wanted.keys().map(String::as_str).collect(), &given);
        let left_aside = left_aside.filter(|_| !matches!(cause, Cause::Shard { .. }));
        let (differences, cause) = (differences.into(), cause.into());
        return Err(WeightsError::Mismatch { path: path.into(), differences, cause, left_aside });
    }
    let tensors = values.len();
    *network = network.clone().map(&mut Fill { path: Vec::new(), values });
    let not_finite = match not_finite.len() {
        0 => None,
        1 => Some(format!("the tensor {} has NaN or infinite values", not_finite[0])),
        count => Some(format!("{count} tensors have NaN or infinite values: {}", first_few(&not_finite, name_shown))),
    };
    Ok(Loaded { tensors, left_aside, not_finite })
}

/// Whether a tensor of a file has the shape of a network's tensor.
pub(crate) fn has_shape(entry: &Entry, shape: &[usize], format: Format) -> bool {
    same_shape(&in_layout_of(format, shape.to_vec(), Format::Burnpack), entry.shape())
}

/// A shape in the layout of another format: linear layers are `[in, out]` in burnpack files, and `[out, in]` in others.
fn in_layout_of(format: Format, mut shape: Vec<usize>, from: Format) -> Vec<usize> {
    if shape.len() == 2 && (format == Format::Burnpack) != (from == Format::Burnpack) {
        shape.reverse();
    }
    shape
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
pub(crate) fn shapes<M: Module>(network: &M) -> BTreeMap<String, Vec<usize>> {
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
