//! The way from Burn's tensors to the kernels and back, for the backends that keep their numbers in
//! the program's memory.
//!
//! A block's output and gradients are channels-last in memory under Burn's usual shape, `[batch,
//! channels, height, width]`: every operation of Burn is right on them, and the next block reads them
//! as they lie.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "Burn's ndarray backend is"))]

mod block;
mod host;
mod normalize;
mod pool;
mod sgd;

use crate::{ChannelPadding, Conv, MaxPool, Sgd, Statistics};
use block::{Around, BlockBackward, BlockNumbers, NormKind, Spec, compute};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, DispatchDevice, DispatchTensor, ExtensionType, TensorMetadata,
        autodiff::{
            checkpoint::strategy::CheckpointStrategy,
            ops::{Backward, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::{DType, Device, Tensor},
};
use host::Host;
use normalize::{NormalizeBackward, Normalized};
use pool::{MaxPoolBackward, MaxPooled, MeanPoolBackward, MeanPooled};

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

/// A convolution of Burn's tensors with its norm; see [`Layer`](crate::Layer).
#[derive(Clone, Debug)]
pub struct TensorLayer {
    conv: Conv,
    weight: DispatchTensor,
    norm: TensorNorm,
}

impl TensorLayer {
    /// A convolution with this weight, `[out, in / groups, kernel height, kernel width]`, and what comes after it.
    ///
    /// # Panics
    /// If there is no such convolution, or the weight has not its size.
    pub fn conv(conv: Conv, weight: Tensor<4>, norm: TensorNorm) -> Self {
        conv.check();
        let [inputs, outputs] = conv.group_channels();
        let shape = [outputs * conv.groups, inputs, conv.kernel[0], conv.kernel[1]];
        assert_eq!(weight.dims(), shape, "the shape of a weight for {conv:?}");
        Self { conv, weight: weight.into_dispatch(), norm }
    }

    /// A linear layer with this weight, `[in, out]` as Burn's, and what comes after it.
    ///
    /// # Panics
    /// If a size is 0.
    pub fn linear(weight: Tensor<2>, norm: TensorNorm) -> Self {
        let conv = Conv::same(weight.dims(), 1);
        conv.check();
        Self { conv, weight: weight.into_dispatch(), norm }
    }
}

/// A norm of Burn's tensors, each of one number per channel; see [`Norm`](crate::Norm).
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a block has at most five")]
pub enum TensorNorm {
    /// A bias, if there is one.
    None(Option<Tensor<1>>),
    /// By the batch.
    Batch {
        /// γ.
        gain: Tensor<1>,
        /// β.
        bias: Tensor<1>,
        /// ε.
        epsilon: f64,
    },
    /// By a given mean and variance.
    Running {
        /// γ.
        gain: Tensor<1>,
        /// β.
        bias: Tensor<1>,
        /// The mean.
        mean: Tensor<1>,
        /// The variance.
        variance: Tensor<1>,
        /// ε.
        epsilon: f64,
    },
}

/// What a block adds to its main path; see [`Shortcut`](crate::Shortcut).
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a block has one")]
pub enum TensorShortcut<const D: usize> {
    /// Nothing.
    None,
    /// α times the input, with zeros for the channels it lacks.
    Input(f64, ChannelPadding),
    /// α times a layer's output.
    Projection(TensorLayer, f64),
    /// α times a tensor.
    Tensor(Tensor<D>, f64),
}

/// A block of Burn's tensors: `y = g(s · F(p) + α · shortcut)`, with `p` the input, or the ReLU of its norm. `D` is 4
/// for images `[batch, channels, height, width]`, 2 for `[batch, channels]`.
///
/// A projection reads `p`. So does the shortcut of the input where shapes differ; where they agree, it adds the input
/// itself.
#[derive(Clone, Debug)]
pub struct TensorBlock<const D: usize> {
    /// The input.
    pub input: Tensor<D>,
    /// The norm before the ReLU that makes `p`, if it is not the input.
    pub preactivation: Option<TensorNorm>,
    /// `F`: one to three layers, with ReLUs between them.
    pub layers: Vec<TensorLayer>,
    /// s.
    pub scale: f64,
    /// What is added.
    pub shortcut: TensorShortcut<D>,
    /// Whether `g` is the ReLU, or the identity.
    pub relu: bool,
    /// Whether the backward pass computes the outputs of the convolutions again, instead of keeping them.
    pub recompute: bool,
}

/// The batch's statistics at each batch norm of a [`TensorBlock`].
#[derive(Clone, Debug, Default)]
pub struct BlockStatistics {
    /// Of the norm before the first ReLU.
    pub preactivation: Option<Statistics>,
    /// Of the shortcut's projection.
    pub projection: Option<Statistics>,
    /// Of each layer; none for an empty batch.
    pub layers: Vec<Option<Statistics>>,
}

impl<const D: usize> TensorBlock<D> {
    /// The output, and the batch's statistics. An empty batch has an empty output without a gradient, and no
    /// statistics.
    ///
    /// # Panics
    /// If the kernels do not run on the tensors' device or number type ([`runs_on`]), there are more than
    /// three layers, or shapes do not agree.
    pub fn forward(self) -> (Tensor<D>, BlockStatistics) {
        assert!(matches!(D, 2 | 4), "a block's tensors have rank 2 or 4, not {D}");
        assert!((1..=3).contains(&self.layers.len()), "a block has one to three layers");
        assert_eq!(self.input.dtype(), DType::F32, "the kernels compute in f32");
        let (dims, channels) = (self.input.dims(), self.layers[0].conv.channels[0]);
        assert_eq!(dims[1], channels, "axis 1 of an input of shape {dims:?} must have the channels of the first layer");
        if dims[0] == 0 {
            return (Tensor::zeros(self.output_dims(), &self.input.device()), BlockStatistics::default());
        }
        let (mut specs, mut tensors) = (Vec::new(), Vec::new());
        for layer in self.layers {
            let (spec, layer) = layer.split();
            specs.push(spec);
            tensors.push(layer);
        }
        let (pre_kind, pre) = match self.preactivation.map(TensorNorm::split) {
            Some((kind, tensors)) => (Some(kind), tensors),
            None => (None, TensorNorm::None(None).split().1),
        };
        let (mut projection_spec, mut projection) = (None, More::None);
        let (around, shortcut) = match self.shortcut {
            TensorShortcut::None => (Around::None, Slot::None),
            TensorShortcut::Input(strength, padding) => (Around::Input(strength as f32, padding), Slot::None),
            TensorShortcut::Tensor(tensor, strength) => {
                (Around::Tensor(strength as f32), Slot::Some(tensor.into_dispatch()))
            }
            TensorShortcut::Projection(layer, strength) => {
                let (spec, layer) = layer.split();
                (projection_spec, projection) = (Some(spec), More::Some(layer));
                (Around::Projection(strength as f32), Slot::None)
            }
        };
        let spec = Spec {
            preactivation: pre_kind,
            projection: projection_spec,
            layers: specs,
            scale: self.scale as f32,
            around,
            relu: self.relu,
            recompute: self.recompute,
        };
        let mut layers = tensors.into_iter();
        let mut more = || layers.next().map_or(More::None, More::Some);
        let layers = Layers { first: more(), second: more(), third: more() };
        let tensors = BlockTensors { input: self.input.into_dispatch(), shortcut, pre, projection, layers };
        let output = <Dispatch as Kernels>::block(tensors, spec);
        (Tensor::from_dispatch(output.output), output.statistics)
    }

    fn output_dims(&self) -> [usize; D] {
        let mut dims = self.input.dims();
        for TensorLayer { conv, .. } in &self.layers {
            dims[1] = conv.channels[1];
            if D == 4 {
                let image = conv.output([dims[2], dims[3]]).expect("the kernel is larger than its image");
                dims[2..].copy_from_slice(&image);
            }
        }
        dims
    }
}

impl TensorLayer {
    fn split(self) -> ((Conv, NormKind), LayerTensors<Dispatch>) {
        let (kind, norm) = self.norm.split();
        ((self.conv, kind), LayerTensors { weight: self.weight, norm })
    }
}

impl TensorNorm {
    fn split(self) -> (NormKind, NormTensors<Dispatch>) {
        let slot = |tensor: Option<Tensor<1>>| tensor.map_or(Slot::None, |t| Slot::Some(t.into_dispatch()));
        let (kind, gain, bias, mean, variance) = match self {
            Self::None(bias) => (NormKind::None, None, bias, None, None),
            Self::Batch { gain, bias, epsilon } => {
                (NormKind::Batch(epsilon as f32), Some(gain), Some(bias), None, None)
            }
            Self::Running { gain, bias, mean, variance, epsilon } => {
                (NormKind::Running(epsilon as f32), Some(gain), Some(bias), Some(mean), Some(variance))
            }
        };
        (kind, NormTensors { gain: slot(gain), bias: slot(bias), mean: slot(mean), variance: slot(variance) })
    }
}

/// `g(norm(a))` of `[batch, channels, height, width]` with `g` the ReLU, and the batch's statistics; see
/// [`Normalize`](crate::Normalize).
///
/// # Panics
/// If the kernels do not run on the tensors' device or number type, or shapes do not agree.
pub fn normalize(input: Tensor<4>, norm: TensorNorm) -> (Tensor<4>, Option<Statistics>) {
    assert_eq!(input.dtype(), DType::F32, "the kernels compute in f32");
    let (kind, norm) = norm.split();
    let output = <Dispatch as Kernels>::normalize(NormalizeTensors { input: input.into_dispatch(), norm }, kind);
    (Tensor::from_dispatch(output.output), output.statistics.preactivation)
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

/// The mean over the pixels of `[batch, channels, height, width]`: `[batch, channels]`.
///
/// # Panics
/// If the kernels do not run on the tensor's device or number type, or an image has no pixels.
pub fn mean_pool(input: Tensor<4>) -> Tensor<2> {
    assert_eq!(input.dtype(), DType::F32, "the kernels compute in f32");
    Tensor::from_dispatch(<Dispatch as Kernels>::mean_pool(input.into_dispatch()))
}

/// `(1 - weight) · tensor + weight · other`, without a gradient.
///
/// # Panics
/// If the kernels do not run on the tensors' device or number type, or their sizes differ.
pub fn average<const D: usize>(tensor: Tensor<D>, other: Vec<f32>, weight: f64) -> Tensor<D> {
    assert_eq!(tensor.dtype(), DType::F32, "the kernels compute in f32");
    Tensor::from_dispatch(<Dispatch as Kernels>::average(tensor.into_dispatch(), other, weight))
}

/// A step of [`Sgd`]: the new weight and velocity. Without a velocity it is the first. Nothing is tracked.
///
/// # Panics
/// If the kernels do not run on the tensors' device or number type, or shapes differ.
pub fn sgd<const D: usize>(
    sgd: Sgd,
    weight: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Option<Tensor<D>>,
) -> (Tensor<D>, Tensor<D>) {
    assert_eq!(weight.dtype(), DType::F32, "the kernels compute in f32");
    let velocity = velocity.map_or(Slot::None, |velocity| Slot::Some(velocity.into_dispatch()));
    let tensors = SgdTensors { weight: weight.into_dispatch(), gradient: gradient.into_dispatch(), velocity };
    let Updated { weight, velocity } = <Dispatch as Kernels>::sgd(tensors, sgd);
    (Tensor::from_dispatch(weight), Tensor::from_dispatch(velocity))
}

/// A tensor that may be absent.
#[derive(ExtensionType)]
#[doc(hidden)]
pub enum Slot<B: Backend> {
    Some(FloatTensor<B>),
    None,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct NormTensors<B: Backend> {
    #[extension_type]
    gain: Slot<B>,
    #[extension_type]
    bias: Slot<B>,
    #[extension_type]
    mean: Slot<B>,
    #[extension_type]
    variance: Slot<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct LayerTensors<B: Backend> {
    weight: FloatTensor<B>,
    #[extension_type]
    norm: NormTensors<B>,
}

/// A layer that may be absent.
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
pub struct BlockTensors<B: Backend> {
    input: FloatTensor<B>,
    #[extension_type]
    shortcut: Slot<B>,
    #[extension_type]
    pre: NormTensors<B>,
    #[extension_type]
    projection: More<B>,
    #[extension_type]
    layers: Layers<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct BlockOutput<B: Backend> {
    output: FloatTensor<B>,
    statistics: BlockStatistics,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct NormalizeTensors<B: Backend> {
    input: FloatTensor<B>,
    #[extension_type]
    norm: NormTensors<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct SgdTensors<B: Backend> {
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    #[extension_type]
    velocity: Slot<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct Updated<B: Backend> {
    weight: FloatTensor<B>,
    velocity: FloatTensor<B>,
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

impl<B: Backend> NormTensors<B> {
    fn map<C: Backend>(self, f: &impl Fn(FloatTensor<B>) -> FloatTensor<C>) -> NormTensors<C> {
        let Self { gain, bias, mean, variance } = self;
        NormTensors { gain: gain.map(f), bias: bias.map(f), mean: mean.map(f), variance: variance.map(f) }
    }
}

impl<B: Backend> More<B> {
    fn into_option(self) -> Option<LayerTensors<B>> {
        match self {
            Self::Some(layer) => Some(layer),
            Self::None => None,
        }
    }

    fn as_ref(&self) -> Option<&LayerTensors<B>> {
        match self {
            Self::Some(layer) => Some(layer),
            Self::None => None,
        }
    }

    fn map<C: Backend>(self, f: &impl Fn(FloatTensor<B>) -> FloatTensor<C>) -> More<C> {
        match self {
            Self::Some(LayerTensors { weight, norm }) => {
                More::Some(LayerTensors { weight: f(weight), norm: norm.map(f) })
            }
            Self::None => More::None,
        }
    }
}

impl<B: Backend> Layers<B> {
    fn into_vec(self) -> Vec<LayerTensors<B>> {
        [self.first, self.second, self.third].into_iter().filter_map(More::into_option).collect()
    }

    fn iter(&self) -> impl Iterator<Item = &LayerTensors<B>> {
        [&self.first, &self.second, &self.third].into_iter().filter_map(More::as_ref)
    }
}

/// What the kernels compute, as operations of Burn's backends.
#[backend_extension(Autodiff, Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"))]
#[doc(hidden)]
pub trait Kernels: Backend {
    fn block(#[extension_type] tensors: BlockTensors<Self>, spec: Spec) -> BlockOutput<Self>;
    fn normalize(#[extension_type] tensors: NormalizeTensors<Self>, kind: NormKind) -> BlockOutput<Self>;
    fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self>;
    fn mean_pool(input: FloatTensor<Self>) -> FloatTensor<Self>;
    fn average(tensor: FloatTensor<Self>, other: Vec<f32>, weight: f64) -> FloatTensor<Self>;
    fn sgd(#[extension_type] tensors: SgdTensors<Self>, sgd: Sgd) -> Updated<Self>;
}

macro_rules! kernels_on {
    ($backend:ty) => {
        impl Kernels for $backend {
            fn block(tensors: BlockTensors<Self>, spec: Spec) -> BlockOutput<Self> {
                compute(tensors, spec)
            }

            fn normalize(tensors: NormalizeTensors<Self>, kind: NormKind) -> BlockOutput<Self> {
                Normalized::new(tensors, kind).forward()
            }

            fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
                MaxPooled::<Self>::new(input, pool).forward()
            }

            fn mean_pool(input: FloatTensor<Self>) -> FloatTensor<Self> {
                MeanPooled::new(input.shape()).forward::<Self>(input)
            }

            fn average(tensor: FloatTensor<Self>, other: Vec<f32>, weight: f64) -> FloatTensor<Self> {
                Self::averaged(tensor, &other, weight)
            }

            fn sgd(tensors: SgdTensors<Self>, sgd: Sgd) -> Updated<Self> {
                sgd::step(tensors, sgd)
            }
        }
    };
}

#[cfg(feature = "flex")]
kernels_on!(Flex);
#[cfg(feature = "ndarray")]
kernels_on!(NdArray);

impl<B: Host, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn block(tensors: BlockTensors<Self>, spec: Spec) -> BlockOutput<Self> {
        // Absent tensors have a node too, of a constant that nothing reads.
        let absent = <FloatTensor<Self>>::new(B::small_tensor(vec![0.0], &[1]));
        let node = |slot: &Slot<Self>| slot.as_ref().unwrap_or(&absent).node();
        let layer = |layer: Option<&LayerTensors<Self>>| match layer {
            Some(layer) => [layer.weight.node(), node(&layer.norm.gain), node(&layer.norm.bias)],
            None => [absent.node(), absent.node(), absent.node()],
        };
        let mut layers = tensors.layers.iter();
        let [pw, pg, pb] = layer(tensors.projection.as_ref());
        let [w1, g1, b1] = layer(layers.next());
        let [w2, g2, b2] = layer(layers.next());
        let [w3, g3, b3] = layer(layers.next());
        let (gain, bias) = (node(&tensors.pre.gain), node(&tensors.pre.bias));
        let (input, shortcut) = (tensors.input.node(), node(&tensors.shortcut));
        let nodes = [input, shortcut, gain, bias, pw, pg, pb, w1, g1, b1, w2, g2, b2, w3, g3, b3];
        let weights = tensors.projection.as_ref().into_iter().chain(tensors.layers.iter());
        let weights = weights.map(|layer| layer.weight.shape().to_vec()).collect();
        drop(layers);
        let prepared = BlockBackward.prepare::<C>(nodes).compute_bound().stateful();

        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let BlockTensors { input, shortcut, pre, projection, layers } = tensors;
        let Layers { first, second, third } = layers;
        let tensors = BlockTensors::<B> {
            input: inner(input),
            shortcut: shortcut.map(inner),
            pre: pre.map(&inner),
            projection: projection.map(&inner),
            layers: Layers { first: first.map(&inner), second: second.map(&inner), third: third.map(&inner) },
        };
        match prepared {
            OpsKind::UnTracked(prepared) => {
                let BlockOutput { output, statistics } = compute(tensors, spec);
                BlockOutput { output: prepared.finish(output), statistics }
            }
            OpsKind::Tracked(prepared) => {
                let (output, statistics, state) = BlockNumbers::new(tensors, spec).train::<B>(weights);
                BlockOutput { output: prepared.finish(state, output), statistics }
            }
        }
    }

    fn normalize(tensors: NormalizeTensors<Self>, kind: NormKind) -> BlockOutput<Self> {
        let absent = <FloatTensor<Self>>::new(B::small_tensor(vec![0.0], &[1]));
        let node = |slot: &Slot<Self>| slot.as_ref().unwrap_or(&absent).node();
        let nodes = [tensors.input.node(), node(&tensors.norm.gain), node(&tensors.norm.bias)];
        let prepared = NormalizeBackward.prepare::<C>(nodes).compute_bound().stateful();
        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let NormalizeTensors { input, norm } = tensors;
        let normalized = Normalized::new(NormalizeTensors::<B> { input: inner(input), norm: norm.map(&inner) }, kind);
        let output = normalized.forward::<B>();
        let statistics = output.statistics.clone();
        let output = match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(normalized.state(&output), output.output),
            OpsKind::UnTracked(prepared) => prepared.finish(output.output),
        };
        BlockOutput { output, statistics }
    }

    fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
        let prepared = MaxPoolBackward.prepare::<C>([input.node()]).compute_bound().stateful();
        let pooled = MaxPooled::<B>::new(input.into_primitive(), pool);
        let output = pooled.forward();
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(pooled, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn mean_pool(input: FloatTensor<Self>) -> FloatTensor<Self> {
        let prepared = MeanPoolBackward.prepare::<C>([input.node()]).compute_bound().stateful();
        let pooled = MeanPooled::new(input.shape());
        let output = pooled.forward::<B>(input.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(pooled, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn average(tensor: FloatTensor<Self>, other: Vec<f32>, weight: f64) -> FloatTensor<Self> {
        <FloatTensor<Self>>::new(B::averaged(tensor.into_primitive(), &other, weight))
    }

    fn sgd(tensors: SgdTensors<Self>, sgd: Sgd) -> Updated<Self> {
        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let SgdTensors { weight, gradient, velocity } = tensors;
        let tensors =
            SgdTensors::<B> { weight: inner(weight), gradient: inner(gradient), velocity: velocity.map(inner) };
        let Updated { weight, velocity } = sgd::step(tensors, sgd);
        Updated { weight: <FloatTensor<Self>>::new(weight), velocity: <FloatTensor<Self>>::new(velocity) }
    }
}
