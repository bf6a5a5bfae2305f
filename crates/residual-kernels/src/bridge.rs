//! The kernels as operations on Burn's tensors, for the backends flex and ndarray, whose tensors are in host memory.
//!
//! The outputs and gradients of a block have Burn's usual shape, `[batch, channels, height, width]`, but their memory
//! is channels-last. All of Burn's operations work on these strided tensors, and the next block reads them without a
//! copy.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "Burn's ndarray backend is deprecated"))]

mod block;
mod host;
mod normalize;
mod pool;
mod sgd;

use crate::{ChannelPadding, Conv, MaxPool, Sgd, Statistics};
use block::{BlockBackward, BlockSpec, BlockValues, NormKind, ShortcutKind, forward_untracked};
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
use host::HostBackend;
use normalize::{NormalizeBackward, NormalizeOp};
use pool::{MaxPoolBackward, MaxPoolOp, MeanPoolBackward, MeanPoolOp};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
#[cfg(feature = "flex")]
pub(crate) use host::trim;

/// Whether the kernels run on this device: true for the CPU backends flex and ndarray, if the backend's feature is
/// enabled.
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

/// A convolution with its norm, on Burn's tensors; see [`ConvNorm`](crate::ConvNorm).
#[derive(Clone, Debug)]
pub struct TensorLayer {
    conv: Conv,
    weight: DispatchTensor,
    norm: TensorNorm,
}

impl TensorLayer {
    /// Creates a convolution with this weight, `[out, in / groups, kernel height, kernel width]`, and this norm or
    /// bias.
    ///
    /// # Panics
    /// If `conv` is invalid (see [`Conv::output`]), or the weight has the wrong shape.
    pub fn conv(conv: Conv, weight: Tensor<4>, norm: TensorNorm) -> Self {
        conv.check();
        let [inputs, outputs] = conv.group_channels();
        let shape = [outputs * conv.groups, inputs, conv.kernel[0], conv.kernel[1]];
        assert_eq!(weight.dims(), shape, "the weight has the wrong shape for {conv:?}");
        Self { conv, weight: weight.into_dispatch(), norm }
    }

    /// Creates a linear layer with this weight, `[in, out]` as in Burn, and this norm or bias.
    ///
    /// # Panics
    /// If a size is 0.
    pub fn linear(weight: Tensor<2>, norm: TensorNorm) -> Self {
        let conv = Conv::same(weight.dims(), 1);
        conv.check();
        Self { conv, weight: weight.into_dispatch(), norm }
    }
}

/// A norm or bias on Burn's tensors. Each tensor has one value per channel. See [`Norm`](crate::Norm).
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a block has at most five")]
pub enum TensorNorm {
    /// No norm, and an optional bias.
    None(Option<Tensor<1>>),
    /// Batch norm with the statistics of the batch.
    Batch {
        /// γ.
        gain: Tensor<1>,
        /// β.
        bias: Tensor<1>,
        /// ε.
        epsilon: f64,
    },
    /// Batch norm with a given mean and variance.
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

/// The shortcut that a block adds to its main path; see [`Shortcut`](crate::Shortcut).
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a block has one")]
pub enum TensorShortcut<const D: usize> {
    /// No shortcut.
    None,
    /// α times the input. Where shapes differ, the input is subsampled and padded with channels of zeros.
    Input(f64, ChannelPadding),
    /// α times the output of a layer that reads the same tensor as the main path.
    Projection(TensorLayer, f64),
    /// α times a tensor with the output's shape.
    Tensor(Tensor<D>, f64),
}

/// A block on Burn's tensors: `y = g(s · F(p) + α · shortcut)`, where `p` is the input, or `relu(norm(input))` in a
/// pre-activation block. `D` is 4 for images, `[batch, channels, height, width]`, and 2 for features,
/// `[batch, channels]`.
///
/// A projection shortcut reads `p`. [`TensorShortcut::Input`] adds the input itself if input and output have the same
/// shape. Otherwise, it subsamples and pads `p`.
#[derive(Clone, Debug)]
pub struct TensorBlock<const D: usize> {
    /// The input.
    pub input: Tensor<D>,
    /// The norm of `p = relu(norm(input))`. `None` means `p = input`.
    pub preactivation: Option<TensorNorm>,
    /// `F`: one to three layers, with ReLUs between them.
    pub layers: Vec<TensorLayer>,
    /// The factor s of the main path.
    pub scale: f64,
    /// The shortcut and its factor α.
    pub shortcut: TensorShortcut<D>,
    /// Whether `g` is the ReLU. Otherwise, it is the identity.
    pub relu: bool,
    /// Whether the backward pass recomputes the outputs of the convolutions. Otherwise, the forward pass stores them.
    pub recompute: bool,
}

/// The batch's statistics at each batch norm of a [`TensorBlock`].
#[derive(Clone, Debug, Default)]
pub struct BlockStatistics {
    /// The statistics of the pre-activation norm.
    pub preactivation: Option<Statistics>,
    /// The statistics of the projection's norm.
    pub projection: Option<Statistics>,
    /// The statistics of each layer's norm. Empty for an empty batch.
    pub layers: Vec<Option<Statistics>>,
}

impl<const D: usize> TensorBlock<D> {
    /// Computes the output and the batch's statistics. For an empty batch, the output is empty, there are no
    /// statistics, and inputs and parameters get no gradients.
    ///
    /// # Panics
    /// If the kernels do not run on the device ([`runs_on`]), the data type is not `f32`, `D` is not 2 or 4, there are
    /// not one to three layers, or shapes do not match.
    pub fn forward(self) -> (Tensor<D>, BlockStatistics) {
        assert!(matches!(D, 2 | 4), "the tensors of a block must have rank 2 or 4, not {D}");
        assert!(
            (1..=3).contains(&self.layers.len()),
            "a block must have one to three layers, not {}",
            self.layers.len()
        );
        assert_eq!(self.input.dtype(), DType::F32, "the kernels support only f32 tensors");
        let (dims, channels) = (self.input.dims(), self.layers[0].conv.channels[0]);
        assert_eq!(
            dims[1], channels,
            "axis 1 of an input of shape {dims:?} must match the input channels of the first layer"
        );
        if dims[0] == 0 {
            return (Tensor::zeros(self.output_dims(), &self.input.device()), BlockStatistics::default());
        }
        let (mut specs, mut tensors) = (Vec::new(), Vec::new());
        for layer in self.layers {
            let (spec, layer) = layer.split();
            specs.push(spec);
            tensors.push(layer);
        }
        let (preactivation_kind, preactivation) = match self.preactivation.map(TensorNorm::split) {
            Some((kind, tensors)) => (Some(kind), tensors),
            None => (None, TensorNorm::None(None).split().1),
        };
        let (mut projection_spec, mut projection) = (None, OptionalLayer::None);
        let (shortcut_kind, shortcut) = match self.shortcut {
            TensorShortcut::None => (ShortcutKind::None, OptionalTensor::None),
            TensorShortcut::Input(strength, padding) => {
                (ShortcutKind::Input(strength as f32, padding), OptionalTensor::None)
            }
            TensorShortcut::Tensor(tensor, strength) => {
                (ShortcutKind::Tensor(strength as f32), OptionalTensor::Some(tensor.into_dispatch()))
            }
            TensorShortcut::Projection(layer, strength) => {
                let (spec, layer) = layer.split();
                (projection_spec, projection) = (Some(spec), OptionalLayer::Some(layer));
                (ShortcutKind::Projection(strength as f32), OptionalTensor::None)
            }
        };
        let spec = BlockSpec {
            preactivation: preactivation_kind,
            projection: projection_spec,
            layers: specs,
            scale: self.scale as f32,
            shortcut: shortcut_kind,
            relu: self.relu,
            recompute: self.recompute,
        };
        let mut layers = tensors.into_iter();
        let mut next = || layers.next().map_or(OptionalLayer::None, OptionalLayer::Some);
        let layers = Layers { first: next(), second: next(), third: next() };
        let tensors = BlockTensors { input: self.input.into_dispatch(), shortcut, preactivation, projection, layers };
        let output = <Dispatch as Kernels>::block(tensors, spec);
        (Tensor::from_dispatch(output.output), output.statistics)
    }

    fn output_dims(&self) -> [usize; D] {
        let mut dims = self.input.dims();
        for TensorLayer { conv, .. } in &self.layers {
            dims[1] = conv.channels[1];
            if D == 4 {
                let image = conv.output([dims[2], dims[3]]).expect("the kernel is larger than the padded image");
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
        let optional = |tensor: Option<Tensor<1>>| {
            tensor.map_or(OptionalTensor::None, |t| OptionalTensor::Some(t.into_dispatch()))
        };
        let (kind, gain, bias, mean, variance) = match self {
            Self::None(bias) => (NormKind::None, None, bias, None, None),
            Self::Batch { gain, bias, epsilon } => {
                (NormKind::Batch(epsilon as f32), Some(gain), Some(bias), None, None)
            }
            Self::Running { gain, bias, mean, variance, epsilon } => {
                (NormKind::Running(epsilon as f32), Some(gain), Some(bias), Some(mean), Some(variance))
            }
        };
        (
            kind,
            NormTensors {
                gain: optional(gain),
                bias: optional(bias),
                mean: optional(mean),
                variance: optional(variance),
            },
        )
    }
}

/// Computes `relu(norm(input))` of an input `[batch, channels, height, width]`, and the batch's statistics; see
/// [`Normalize`](crate::Normalize).
///
/// # Panics
/// If the kernels do not run on the device ([`runs_on`]), the data type is not `f32`, or shapes do not match.
pub fn normalize(input: Tensor<4>, norm: TensorNorm) -> (Tensor<4>, Option<Statistics>) {
    assert_eq!(input.dtype(), DType::F32, "the kernels support only f32 tensors");
    let (kind, norm) = norm.split();
    let output = <Dispatch as Kernels>::normalize(NormalizeTensors { input: input.into_dispatch(), norm }, kind);
    (Tensor::from_dispatch(output.output), output.statistics.preactivation)
}

/// Max-pooling of `[batch, channels, height, width]`; see [`MaxPool`].
///
/// # Panics
/// If the kernels do not run on the device ([`runs_on`]), the data type is not `f32`, or [`MaxPool::output`] panics.
pub fn max_pool(input: Tensor<4>, pool: MaxPool) -> Tensor<4> {
    assert_eq!(input.dtype(), DType::F32, "the kernels support only f32 tensors");
    Tensor::from_dispatch(<Dispatch as Kernels>::max_pool(input.into_dispatch(), pool))
}

/// Global average pooling: the mean over the pixels of an input `[batch, channels, height, width]`. The output has the
/// shape `[batch, channels]`.
///
/// # Panics
/// If the kernels do not run on the device ([`runs_on`]), the data type is not `f32`, or an image has no values.
pub fn mean_pool(input: Tensor<4>) -> Tensor<2> {
    assert_eq!(input.dtype(), DType::F32, "the kernels support only f32 tensors");
    Tensor::from_dispatch(<Dispatch as Kernels>::mean_pool(input.into_dispatch()))
}

/// Computes the weighted sum `(weights[0] · a + weights[1] · b) / divisor`. Autodiff does not track it.
///
/// # Panics
/// If the kernels do not run on the device ([`runs_on`]), a data type is not `f32`, or shapes differ.
pub fn weighted_sum<const D: usize>(a: Tensor<D>, b: Tensor<D>, weights: [f32; 2], divisor: f32) -> Tensor<D> {
    assert_eq!([a.dtype(), b.dtype()], [DType::F32; 2], "the kernels support only f32 tensors");
    let (a, b) = (a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::weighted_sum(a, b, weights, divisor))
}

/// Performs a step of [`Sgd`] and returns the new weight and velocity. In the first step, `velocity` is `None`.
/// Autodiff does not track the step.
///
/// # Panics
/// If the kernels do not run on the device ([`runs_on`]), the data type is not `f32`, or shapes differ.
pub fn sgd<const D: usize>(
    sgd: Sgd,
    weight: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Option<Tensor<D>>,
) -> (Tensor<D>, Tensor<D>) {
    assert_eq!(weight.dtype(), DType::F32, "the kernels support only f32 tensors");
    let velocity = velocity.map_or(OptionalTensor::None, |velocity| OptionalTensor::Some(velocity.into_dispatch()));
    let tensors = SgdTensors { weight: weight.into_dispatch(), gradient: gradient.into_dispatch(), velocity };
    let UpdatedTensors { weight, velocity } = <Dispatch as Kernels>::sgd(tensors, sgd);
    (Tensor::from_dispatch(weight), Tensor::from_dispatch(velocity))
}

/// An optional tensor, because `Option` does not implement `ExtensionType`.
#[derive(ExtensionType)]
#[doc(hidden)]
pub enum OptionalTensor<B: Backend> {
    Some(FloatTensor<B>),
    None,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct NormTensors<B: Backend> {
    #[extension_type]
    gain: OptionalTensor<B>,
    #[extension_type]
    bias: OptionalTensor<B>,
    #[extension_type]
    mean: OptionalTensor<B>,
    #[extension_type]
    variance: OptionalTensor<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct LayerTensors<B: Backend> {
    weight: FloatTensor<B>,
    #[extension_type]
    norm: NormTensors<B>,
}

/// An optional layer.
#[derive(ExtensionType)]
#[doc(hidden)]
pub enum OptionalLayer<B: Backend> {
    Some(#[extension_type] LayerTensors<B>),
    None,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct Layers<B: Backend> {
    #[extension_type]
    first: OptionalLayer<B>,
    #[extension_type]
    second: OptionalLayer<B>,
    #[extension_type]
    third: OptionalLayer<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct BlockTensors<B: Backend> {
    input: FloatTensor<B>,
    #[extension_type]
    shortcut: OptionalTensor<B>,
    #[extension_type]
    preactivation: NormTensors<B>,
    #[extension_type]
    projection: OptionalLayer<B>,
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
    velocity: OptionalTensor<B>,
}

#[derive(ExtensionType)]
#[doc(hidden)]
pub struct UpdatedTensors<B: Backend> {
    weight: FloatTensor<B>,
    velocity: FloatTensor<B>,
}

impl<B: Backend> OptionalTensor<B> {
    fn map<C: Backend>(self, f: impl FnOnce(FloatTensor<B>) -> FloatTensor<C>) -> OptionalTensor<C> {
        match self {
            Self::Some(tensor) => OptionalTensor::Some(f(tensor)),
            Self::None => OptionalTensor::None,
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

impl<B: Backend> OptionalLayer<B> {
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

    fn map<C: Backend>(self, f: &impl Fn(FloatTensor<B>) -> FloatTensor<C>) -> OptionalLayer<C> {
        match self {
            Self::Some(LayerTensors { weight, norm }) => {
                OptionalLayer::Some(LayerTensors { weight: f(weight), norm: norm.map(f) })
            }
            Self::None => OptionalLayer::None,
        }
    }
}

impl<B: Backend> Layers<B> {
    fn into_vec(self) -> Vec<LayerTensors<B>> {
        [self.first, self.second, self.third].into_iter().filter_map(OptionalLayer::into_option).collect()
    }

    fn iter(&self) -> impl Iterator<Item = &LayerTensors<B>> {
        [&self.first, &self.second, &self.third].into_iter().filter_map(OptionalLayer::as_ref)
    }
}

/// The kernels as operations of a Burn backend.
#[backend_extension(Autodiff, Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"))]
#[doc(hidden)]
pub trait Kernels: Backend {
    fn block(#[extension_type] tensors: BlockTensors<Self>, spec: BlockSpec) -> BlockOutput<Self>;
    fn normalize(#[extension_type] tensors: NormalizeTensors<Self>, kind: NormKind) -> BlockOutput<Self>;
    fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self>;
    fn mean_pool(input: FloatTensor<Self>) -> FloatTensor<Self>;
    fn weighted_sum(a: FloatTensor<Self>, b: FloatTensor<Self>, weights: [f32; 2], divisor: f32) -> FloatTensor<Self>;
    fn sgd(#[extension_type] tensors: SgdTensors<Self>, sgd: Sgd) -> UpdatedTensors<Self>;
}

macro_rules! kernels_on {
    ($backend:ty) => {
        impl Kernels for $backend {
            fn block(tensors: BlockTensors<Self>, spec: BlockSpec) -> BlockOutput<Self> {
                forward_untracked(tensors, spec)
            }

            fn normalize(tensors: NormalizeTensors<Self>, kind: NormKind) -> BlockOutput<Self> {
                NormalizeOp::new(tensors, kind).forward()
            }

            fn max_pool(input: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
                MaxPoolOp::<Self>::new(input, pool).forward()
            }

            fn mean_pool(input: FloatTensor<Self>) -> FloatTensor<Self> {
                MeanPoolOp::new(input.shape()).forward::<Self>(input)
            }

            fn weighted_sum(
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                weights: [f32; 2],
                divisor: f32,
            ) -> FloatTensor<Self> {
                <Self as HostBackend>::weighted_sum(a, b, weights, divisor)
            }

            fn sgd(tensors: SgdTensors<Self>, sgd: Sgd) -> UpdatedTensors<Self> {
                sgd::step(tensors, sgd)
            }
        }
    };
}

#[cfg(feature = "flex")]
kernels_on!(Flex);
#[cfg(feature = "ndarray")]
kernels_on!(NdArray);

impl<B: HostBackend, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn block(tensors: BlockTensors<Self>, spec: BlockSpec) -> BlockOutput<Self> {
        // All absent tensors use the graph node of one unused constant.
        let absent = <FloatTensor<Self>>::new(B::small_tensor(vec![0.0], &[1]));
        let node = |tensor: &OptionalTensor<Self>| tensor.as_ref().unwrap_or(&absent).node();
        let layer = |layer: Option<&LayerTensors<Self>>| match layer {
            Some(layer) => [layer.weight.node(), node(&layer.norm.gain), node(&layer.norm.bias)],
            None => [absent.node(), absent.node(), absent.node()],
        };
        let mut layers = tensors.layers.iter();
        let [pw, pg, pb] = layer(tensors.projection.as_ref());
        let [w1, g1, b1] = layer(layers.next());
        let [w2, g2, b2] = layer(layers.next());
        let [w3, g3, b3] = layer(layers.next());
        let (gain, bias) = (node(&tensors.preactivation.gain), node(&tensors.preactivation.bias));
        let (input, shortcut) = (tensors.input.node(), node(&tensors.shortcut));
        let nodes = [input, shortcut, gain, bias, pw, pg, pb, w1, g1, b1, w2, g2, b2, w3, g3, b3];
        let weights = tensors.projection.as_ref().into_iter().chain(tensors.layers.iter());
        let weights = weights.map(|layer| layer.weight.shape().to_vec()).collect();
        drop(layers);
        let prepared = BlockBackward.prepare::<C>(nodes).compute_bound().stateful();

        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let BlockTensors { input, shortcut, preactivation, projection, layers } = tensors;
        let Layers { first, second, third } = layers;
        let tensors = BlockTensors::<B> {
            input: inner(input),
            shortcut: shortcut.map(inner),
            preactivation: preactivation.map(&inner),
            projection: projection.map(&inner),
            layers: Layers { first: first.map(&inner), second: second.map(&inner), third: third.map(&inner) },
        };
        match prepared {
            OpsKind::UnTracked(prepared) => {
                let BlockOutput { output, statistics } = forward_untracked(tensors, spec);
                BlockOutput { output: prepared.finish(output), statistics }
            }
            OpsKind::Tracked(prepared) => {
                let (output, statistics, state) = BlockValues::new(tensors, spec).train::<B>(weights);
                BlockOutput { output: prepared.finish(state, output), statistics }
            }
        }
    }

    fn normalize(tensors: NormalizeTensors<Self>, kind: NormKind) -> BlockOutput<Self> {
        let absent = <FloatTensor<Self>>::new(B::small_tensor(vec![0.0], &[1]));
        let node = |tensor: &OptionalTensor<Self>| tensor.as_ref().unwrap_or(&absent).node();
        let nodes = [tensors.input.node(), node(&tensors.norm.gain), node(&tensors.norm.bias)];
        let prepared = NormalizeBackward.prepare::<C>(nodes).compute_bound().stateful();
        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let NormalizeTensors { input, norm } = tensors;
        let normalized = NormalizeOp::new(NormalizeTensors::<B> { input: inner(input), norm: norm.map(&inner) }, kind);
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
        let pooled = MaxPoolOp::<B>::new(input.into_primitive(), pool);
        let output = pooled.forward();
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(pooled, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn mean_pool(input: FloatTensor<Self>) -> FloatTensor<Self> {
        let prepared = MeanPoolBackward.prepare::<C>([input.node()]).compute_bound().stateful();
        let pooled = MeanPoolOp::new(input.shape());
        let output = pooled.forward::<B>(input.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(pooled, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn weighted_sum(a: FloatTensor<Self>, b: FloatTensor<Self>, weights: [f32; 2], divisor: f32) -> FloatTensor<Self> {
        let (a, b) = (a.into_primitive(), b.into_primitive());
        <FloatTensor<Self>>::new(<B as HostBackend>::weighted_sum(a, b, weights, divisor))
    }

    fn sgd(tensors: SgdTensors<Self>, sgd: Sgd) -> UpdatedTensors<Self> {
        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let SgdTensors { weight, gradient, velocity } = tensors;
        let tensors =
            SgdTensors::<B> { weight: inner(weight), gradient: inner(gradient), velocity: velocity.map(inner) };
        let UpdatedTensors { weight, velocity } = sgd::step(tensors, sgd);
        UpdatedTensors { weight: <FloatTensor<Self>>::new(weight), velocity: <FloatTensor<Self>>::new(velocity) }
    }
}
