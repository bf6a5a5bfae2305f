//! The way from Burn's tensors to the kernels and back, for the backends that keep their numbers in
//! the program's memory.
//!
//! A path's output and gradients are channels-last in memory under Burn's usual shape, `[batch,
//! channels, height, width]`: every operation of Burn is right on them, and the next path reads them
//! as they lie.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "Burn's ndarray backend is"))]

mod host;

use crate::{
    Buffer, Conv, Gradients, Layer, LayerGradients, Level, MaxPool, Norm, Path, Saved, Shortcut, Statistics, Wanted,
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, DispatchDevice, ExtensionType, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients as Gradients_,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::{DType, Device, Tensor},
};
use host::{Host, Numbers};
use std::{fmt, marker::PhantomData};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;

/// Whether the kernels run on this device: the CPU backends flex and ndarray, where compiled in.
pub fn runs_on(device: &Device) -> bool {
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// A layer of Burn's tensors; see [`Layer`].
#[derive(Clone, Debug)]
pub struct TensorLayer<const W: usize> {
    /// The convolution.
    pub conv: Conv,
    /// `[out, in / groups, kernel height, kernel width]`, or `[out, in]`.
    pub weight: Tensor<W>,
    /// γ.
    pub gain: Option<Tensor<1>>,
    /// β, or b.
    pub bias: Option<Tensor<1>>,
    /// The norm.
    pub norm: TensorNorm,
}

/// A norm of Burn's tensors; see [`Norm`].
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and not for long")]
pub enum TensorNorm {
    /// None.
    None,
    /// By the batch.
    Batch {
        /// ε.
        epsilon: f64,
    },
    /// By a given mean and variance.
    Running {
        /// One number a channel.
        mean: Tensor<1>,
        /// One number a channel.
        variance: Tensor<1>,
        /// ε.
        epsilon: f64,
    },
}

/// What is added; see [`Shortcut`].
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and not for long")]
pub enum TensorShortcut<const D: usize> {
    /// Nothing.
    None,
    /// α times the input.
    Input(f64),
    /// α times a tensor.
    Tensor(Tensor<D>, f64),
}

/// A path of Burn's tensors; see [`Path`]. `D` is 4 for images `[batch, channels, height, width]`, 2
/// for `[batch, channels]`.
#[derive(Clone, Debug)]
pub struct TensorPath<const D: usize> {
    /// The input.
    pub input: Tensor<D>,
    /// One to three layers.
    pub layers: Vec<TensorLayer<D>>,
    /// s.
    pub scale: f64,
    /// What is added.
    pub shortcut: TensorShortcut<D>,
    /// Whether the last operation is the ReLU.
    pub relu: bool,
    /// Whether the backward pass computes the outputs of the convolutions again, instead of keeping them.
    pub recompute: bool,
}

impl<const D: usize> TensorPath<D> {
    /// The output, and the batch's statistics at each batch norm.
    ///
    /// # Panics
    /// If the kernels do not run on the tensors' device or number type ([`runs_on`]), there are more than
    /// three layers, or shapes do not agree.
    pub fn forward(self) -> (Tensor<D>, Vec<Option<Statistics>>) {
        assert!(matches!(D, 2 | 4), "a path's tensors have rank 2 or 4");
        assert!((1..=3).contains(&self.layers.len()), "a path has one to three layers");
        assert_eq!(self.input.dtype(), DType::F32, "the kernels compute in f32");
        let mut specs = Vec::new();
        let mut layers = Vec::new();
        for TensorLayer { conv, weight, gain, bias, norm } in self.layers {
            let (kind, mean, variance) = match norm {
                TensorNorm::None => (NormKind::None, None, None),
                TensorNorm::Batch { epsilon } => (NormKind::Batch(epsilon as f32), None, None),
                TensorNorm::Running { mean, variance, epsilon } => {
                    (NormKind::Running(epsilon as f32), Some(mean), Some(variance))
                }
            };
            specs.push((conv, kind));
            let slot = |tensor: Option<Tensor<1>>| tensor.map_or(Slot::None, |t| Slot::Some(t.into_dispatch()));
            layers.push(LayerTensors {
                weight: weight.into_dispatch(),
                gain: slot(gain),
                bias: slot(bias),
                mean: slot(mean),
                variance: slot(variance),
            });
        }
        let (around, shortcut) = match self.shortcut {
            TensorShortcut::None => (Around::None, Slot::None),
            TensorShortcut::Input(strength) => (Around::Input(strength as f32), Slot::None),
            TensorShortcut::Tensor(tensor, strength) => {
                (Around::Tensor(strength as f32), Slot::Some(tensor.into_dispatch()))
            }
        };
        let spec = Spec { layers: specs, scale: self.scale as f32, around, relu: self.relu, recompute: self.recompute };
        let mut layers = layers.into_iter();
        let mut more = || layers.next().map_or(More::None, More::Some);
        let tensors =
            PathTensors { input: self.input.into_dispatch(), shortcut, layers: [more(), more(), more()].into() };
        let output = <Dispatch as Kernels>::path(tensors, spec);
        (Tensor::from_dispatch(output.output), output.statistics)
    }
}

/// Max-pooling of `[batch, channels, height, width]`; see [`MaxPool`].
///
/// # Panics
/// If the kernels do not run on the tensor's device or number type, or the window is larger than the
/// padded image.
pub fn max_pool(input: Tensor<4>, pool: MaxPool) -> Tensor<4> {
    assert_eq!(input.dtype(), DType::F32, "the kernels compute in f32");
    Tensor::from_dispatch(<Dispatch as Kernels>::max_pool(input.into_dispatch(), pool))
}

/// What of a path is not a tensor.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Spec {
    layers: Vec<(Conv, NormKind)>,
    scale: f32,
    around: Around,
    relu: bool,
    recompute: bool,
}

#[derive(Clone, Copy, Debug)]
enum NormKind {
    None,
    Batch(f32),
    Running(f32),
}

#[derive(Clone, Copy, Debug)]
enum Around {
    None,
    Input(f32),
    Tensor(f32),
}

/// A tensor, perhaps.
#[derive(ExtensionType)]
#[doc(hidden)]
pub enum Slot<B: Backend> {
    Some(FloatTensor<B>),
    None,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct LayerTensors<B: Backend> {
    weight: FloatTensor<B>,
    #[extension_type]
    gain: Slot<B>,
    #[extension_type]
    bias: Slot<B>,
    #[extension_type]
    mean: Slot<B>,
    #[extension_type]
    variance: Slot<B>,
}

/// A layer, perhaps.
#[derive(ExtensionType)]
#[doc(hidden)]
pub enum More<B: Backend> {
    Some(#[extension_type] LayerTensors<B>),
    None,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct Layers<B: Backend> {
    #[extension_type]
    first: More<B>,
    #[extension_type]
    second: More<B>,
    #[extension_type]
    third: More<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct PathTensors<B: Backend> {
    input: FloatTensor<B>,
    #[extension_type]
    shortcut: Slot<B>,
    #[extension_type]
    layers: Layers<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct PathOutput<B: Backend> {
    output: FloatTensor<B>,
    statistics: Vec<Option<Statistics>>,
}

impl<B: Backend> From<[More<B>; 3]> for Layers<B> {
    fn from([first, second, third]: [More<B>; 3]) -> Self {
        Self { first, second, third }
    }
}

impl<B: Backend> Slot<B> {
    fn map<C: Backend>(self, f: impl FnOnce(FloatTensor<B>) -> FloatTensor<C>) -> Slot<C> {
        match self {
            Self::Some(tensor) => Slot::Some(f(tensor)),
            Self::None => Slot::None,
        }
    }

    fn as_ref(&self) -> Option<&FloatTensor<B>> {
        match self {
            Self::Some(tensor) => Some(tensor),
            Self::None => None,
        }
    }
}

impl<B: Backend> Layers<B> {
    fn into_vec(self) -> Vec<LayerTensors<B>> {
        let some = |more| match more {
            More::Some(layer) => Some(layer),
            More::None => None,
        };
        [self.first, self.second, self.third].into_iter().filter_map(some).collect()
    }
}

/// The path as an operation of Burn's backends.
#[backend_extension(Autodiff, Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"))]
#[doc(hidden)]
pub trait Kernels: Backend {
    fn path(#[extension_type] tensors: PathTensors<Self>, spec: Spec) -> PathOutput<Self>;
    fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self>;
}

#[cfg(feature = "flex")]
impl Kernels for Flex {
    fn path(tensors: PathTensors<Self>, spec: Spec) -> PathOutput<Self> {
        compute(tensors, spec)
    }

    fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
        Pooled::<Self>::new(input, pool).forward()
    }
}

#[cfg(feature = "ndarray")]
impl Kernels for NdArray {
    fn path(tensors: PathTensors<Self>, spec: Spec) -> PathOutput<Self> {
        compute(tensors, spec)
    }

    fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
        Pooled::<Self>::new(input, pool).forward()
    }
}

/// A path's numbers, wherever they lie.
#[derive(Clone)]
struct PathNumbers {
    /// `[batch, height, width, channels]`, or `[1, 1, rows, channels]`.
    shape: [usize; 4],
    rank: usize,
    input: Numbers,
    shortcut: Option<Numbers>,
    layers: Vec<LayerNumbers>,
    spec: Spec,
}

#[derive(Clone)]
struct LayerNumbers {
    /// None where inference reads it prepared.
    weight: Option<Numbers>,
    gain: Option<Numbers>,
    bias: Option<Numbers>,
    mean: Option<Numbers>,
    variance: Option<Numbers>,
}

impl LayerNumbers {
    fn new<B: Host>(weight: Option<Numbers>, layer: LayerTensors<B>) -> Self {
        let slot = |slot: Slot<B>| slot.as_ref().cloned().map(B::numbers);
        let LayerTensors { gain, bias, mean, variance, .. } = layer;
        Self { weight, gain: slot(gain), bias: slot(bias), mean: slot(mean), variance: slot(variance) }
    }
}

const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];
const CHANNELS_SECOND: [usize; 4] = [0, 3, 1, 2];

/// A tensor's numbers, channels-last.
fn image_numbers<B: Host>(tensor: FloatTensor<B>) -> Numbers {
    match tensor.rank() {
        4 => B::numbers(B::float_permute(tensor, &CHANNELS_LAST)),
        _ => B::numbers(tensor),
    }
}

/// A tensor of numbers that lie channels-last.
fn image_tensor<B: Host>(buffer: Buffer, shape: [usize; 4]) -> FloatTensor<B> {
    B::float_permute(B::tensor(buffer, &shape), &CHANNELS_SECOND)
}

impl PathNumbers {
    fn with_weights<B: Host>(tensors: PathTensors<B>, spec: Spec) -> Self {
        let PathTensors { input, shortcut, layers } = tensors;
        let layers = layers.into_vec().into_iter();
        let layers = layers.map(|layer| LayerNumbers::new(Some(B::numbers(layer.weight.clone())), layer)).collect();
        Self::new(input, shortcut, layers, spec)
    }

    fn new<B: Host>(input: FloatTensor<B>, shortcut: Slot<B>, layers: Vec<LayerNumbers>, spec: Spec) -> Self {
        let shape = input.shape();
        let rank = shape.num_dims();
        let shape = match rank {
            4 => CHANNELS_LAST.map(|axis| shape[axis]),
            _ => [1, 1, shape[0], shape[1]],
        };
        let shortcut = shortcut.as_ref().cloned().map(image_numbers::<B>);
        Self { shape, rank, input: image_numbers::<B>(input), shortcut, layers, spec }
    }

    fn path(&self) -> Path<'_> {
        let layers = self.layers.iter().zip(&self.spec.layers).map(|(layer, (conv, norm))| {
            let running = "a running norm has mean and variance";
            Layer {
                conv: *conv,
                weight: layer.weight.as_ref().map_or(&[], Numbers::slice),
                gain: layer.gain.as_ref().map(Numbers::slice),
                bias: layer.bias.as_ref().map(Numbers::slice),
                norm: match *norm {
                    NormKind::None => Norm::None,
                    NormKind::Batch(epsilon) => Norm::Batch { epsilon },
                    NormKind::Running(epsilon) => Norm::Running {
                        mean: layer.mean.as_ref().expect(running).slice(),
                        variance: layer.variance.as_ref().expect(running).slice(),
                        epsilon,
                    },
                },
            }
        });
        Path {
            layers: layers.collect(),
            input: self.input.slice(),
            image: [self.shape[1], self.shape[2]],
            scale: self.spec.scale,
            shortcut: match self.spec.around {
                Around::None => Shortcut::None,
                Around::Input(strength) => Shortcut::Input { strength },
                Around::Tensor(strength) => {
                    let values = self.shortcut.as_ref().expect("the shortcut's tensor").slice();
                    Shortcut::Tensor { values, strength }
                }
            },
            relu: self.spec.relu,
        }
    }

    /// A tensor of numbers that lie as the path's output, or as its input.
    fn tensor<B: Host>(&self, buffer: Buffer, [height, width, channels]: [usize; 3]) -> FloatTensor<B> {
        if self.rank == 2 {
            return B::tensor(buffer, &[width, channels]);
        }
        image_tensor::<B>(buffer, [self.shape[0], height, width, channels])
    }

    fn output<B: Host>(&self, buffer: Buffer) -> FloatTensor<B> {
        let [height, width] = self.path().output_image();
        let channels = self.spec.layers.last().expect("at least one layer").0.channels[1];
        self.tensor::<B>(buffer, [height, width, channels])
    }
}

impl fmt::Debug for PathNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathNumbers").field("shape", &self.shape).field("spec", &self.spec).finish_non_exhaustive()
    }
}

fn compute<B: Host>(tensors: PathTensors<B>, spec: Spec) -> PathOutput<B> {
    if spec.layers.iter().any(|(_, norm)| matches!(norm, NormKind::Batch(_))) {
        let numbers = PathNumbers::with_weights(tensors, spec);
        let (output, saved) = numbers.path().train(Level::detect(), false);
        return PathOutput { output: numbers.output::<B>(output), statistics: saved.statistics };
    }
    let PathTensors { input, shortcut, layers } = tensors;
    let layers = layers.into_vec();
    let pairs = layers.iter().zip(&spec.layers);
    let prepared: Vec<_> = pairs.map(|(layer, (conv, _))| B::prepared(&layer.weight, conv)).collect();
    let layers = layers.into_iter().map(|layer| LayerNumbers::new(None, layer)).collect();
    let numbers = PathNumbers::new(input, shortcut, layers, spec);
    let output = numbers.path().infer(Level::detect(), &prepared);
    PathOutput { output: numbers.output::<B>(output), statistics: vec![None; prepared.len()] }
}

/// A pooling and its input.
struct Pooled<B> {
    pool: MaxPool,
    /// `[batch, height, width, channels]`
    shape: [usize; 4],
    numbers: Numbers,
    backend: PhantomData<B>,
}

impl<B> Clone for Pooled<B> {
    fn clone(&self) -> Self {
        Self { numbers: self.numbers.clone(), ..*self }
    }
}

impl<B> fmt::Debug for Pooled<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.pool, self.shape)
    }
}

impl<B: Host> Pooled<B> {
    fn new(input: FloatTensor<B>, pool: MaxPool) -> Self {
        let shape = input.shape();
        let shape = CHANNELS_LAST.map(|axis| shape[axis]);
        Self { pool, shape, numbers: image_numbers::<B>(input), backend: PhantomData }
    }

    fn forward(&self) -> FloatTensor<B> {
        let [batch, height, width, channels] = self.shape;
        let output = self.pool.forward(Level::detect(), self.numbers.slice(), [height, width]);
        let [height, width] = self.pool.output([height, width]);
        image_tensor::<B>(output, [batch, height, width, channels])
    }
}

/// The backward pass of a pooling.
#[derive(Debug)]
struct MaxPoolBackward;

impl<B: Host> Backward<B, 1> for MaxPoolBackward {
    type State = Pooled<B>;

    fn backward(self, ops: Ops<Pooled<B>, 1>, grads: &mut Gradients_, _: &mut Checkpointer) {
        let dy = image_numbers::<B>(grads.consume::<B>(&ops.node));
        if let [Some(node)] = ops.parents {
            let Pooled { pool, shape, numbers, .. } = ops.state;
            let dx = pool.gradient(Level::detect(), numbers.slice(), [shape[1], shape[2]], dy.slice());
            grads.register::<B>(node.id, image_tensor::<B>(dx, shape));
        }
    }
}

/// The backward pass of a path.
#[derive(Debug)]
struct PathBackward;

#[derive(Clone, Debug)]
struct State {
    numbers: PathNumbers,
    output: Numbers,
    saved: Saved,
    /// The shapes of each layer's weight.
    weights: Vec<Vec<usize>>,
}

/// Input, shortcut, and weight, gain and bias of three layers.
const PARENTS: usize = 11;

impl<B: Host> Backward<B, PARENTS> for PathBackward {
    type State = State;

    fn backward(self, ops: Ops<State, PARENTS>, grads: &mut Gradients_, _: &mut Checkpointer) {
        let dy = image_numbers::<B>(grads.consume::<B>(&ops.node));
        let State { numbers, output, saved, weights } = ops.state;
        let [input, shortcut, layers @ ..] = ops.parents;
        let wanted = Wanted {
            input: input.is_some(),
            shortcut: shortcut.is_some(),
            parameters: layers.iter().any(Option::is_some),
        };
        let gradients = numbers.path().gradients(Level::detect(), output.slice(), saved, dy.slice(), wanted);
        drop((output, dy));
        let Gradients { input: dx, shortcut: dr, layers: found } = gradients;
        if let (Some(node), Some(dx)) = (input, dx) {
            let [_, height, width, channels] = numbers.shape;
            grads.register::<B>(node.id, numbers.tensor::<B>(dx, [height, width, channels]));
        }
        if let (Some(node), Some(dr)) = (shortcut, dr) {
            grads.register::<B>(node.id, numbers.output::<B>(dr));
        }
        let mut nodes = layers.into_iter();
        for (LayerGradients { weight, gain, bias }, shape) in found.into_iter().zip(weights) {
            let channels = [bias.len()];
            for (values, shape) in [(weight, &shape[..]), (gain, &channels), (bias, &channels)] {
                if let Some(node) = nodes.next().flatten() {
                    grads.register::<B>(node.id, B::small_tensor(values, shape));
                }
            }
        }
    }
}

impl<B: Host, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
        let prepared = MaxPoolBackward.prepare::<C>([input.node()]).compute_bound().stateful();
        let pooled = Pooled::<B>::new(input.into_primitive(), pool);
        let output = pooled.forward();
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(pooled, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn path(tensors: PathTensors<Self>, spec: Spec) -> PathOutput<Self> {
        let PathTensors { input, shortcut, layers } = tensors;
        let layers = layers.into_vec();
        let weights = layers.iter().map(|layer| layer.weight.shape().to_vec()).collect();
        // Absent tensors have a node too, of a constant that nothing reads.
        let absent = <FloatTensor<Self>>::new(B::small_tensor(vec![0.0], &[1]));
        let node = |slot: &Slot<Self>| slot.as_ref().unwrap_or(&absent).node();
        let layer_nodes: Vec<_> =
            layers.iter().flat_map(|layer| [layer.weight.node(), node(&layer.gain), node(&layer.bias)]).collect();
        let mut layer_nodes = layer_nodes.into_iter();
        let mut next = || layer_nodes.next().unwrap_or_else(|| absent.node());
        let nodes =
            [input.node(), node(&shortcut), next(), next(), next(), next(), next(), next(), next(), next(), next()];
        let prepared = PathBackward.prepare::<C>(nodes).compute_bound().stateful();

        let inner = |slot: Slot<Self>| slot.map(|tensor| tensor.into_primitive());
        let mut layers = layers.into_iter().map(|layer| LayerTensors {
            weight: layer.weight.into_primitive(),
            gain: inner(layer.gain),
            bias: inner(layer.bias),
            mean: inner(layer.mean),
            variance: inner(layer.variance),
        });
        let mut more = || layers.next().map_or(More::None, More::Some);
        let layers = [more(), more(), more()].into();
        let tensors = PathTensors::<B> { input: input.into_primitive(), shortcut: inner(shortcut), layers };
        match prepared {
            OpsKind::UnTracked(prepared) => {
                let PathOutput { output, statistics } = compute(tensors, spec);
                PathOutput { output: prepared.finish(output), statistics }
            }
            OpsKind::Tracked(prepared) => {
                let numbers = PathNumbers::with_weights(tensors, spec);
                let (output, saved) = numbers.path().train(Level::detect(), !numbers.spec.recompute);
                let statistics = saved.statistics.clone();
                let output = numbers.output::<B>(output);
                let state = State { output: image_numbers::<B>(output.clone()), numbers, saved, weights };
                PathOutput { output: prepared.finish(state, output), statistics }
            }
        }
    }
}
