//! The choice between Burn's separate operations and one fused CPU kernel per block.
//!
//! Every layer with a weight is a `Unit`: a linear layer with its norm. The forward pass of a block first calls
//! `fused`, which computes the block in one operation if the kernels are selected and support it. Otherwise, the block
//! computes the same result with Burn's operations.

use crate::{ModelError, ShortcutOption, norm::normalize};
use burn::{
    module::Module,
    nn::{BatchNorm, Linear, conv::Conv2d, pool::MaxPool2d},
    tensor::{Tensor, activation::relu},
};
use serde::{Deserialize, Serialize};

/// The implementation of blocks for `f32` tensors on the backends flex and ndarray. Other backends and data types
/// always use [`Self::Reference`].
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = ModelError, parse_err_fn = unknown_kernels)]
pub enum Kernels {
    /// One fused operation per block, from the crate `residual-kernels`.
    #[default]
    Fused,
    /// Like [`Self::Fused`], but the forward pass stores only the input of each block, and the backward pass recomputes
    /// the rest. The gradients are identical. This takes a third of the memory and a third more arithmetic (Chen et al.
    /// 2016, "Training Deep Nets with Sublinear Memory Cost").
    Recompute,
    /// Burn's separate operations.
    Reference,
}

fn unknown_kernels(word: &str) -> ModelError {
    ModelError::UnknownWord { what: "kernels", word: word.into(), expected: "fused, recompute or reference" }
}

/// A convolution (rank 4) or a fully-connected layer (rank 2), without its norm.
pub(crate) trait LinearLayer<const D: usize>: Module {
    fn apply(&self, a: Tensor<D>) -> Tensor<D>;
}

impl LinearLayer<4> for Conv2d {
    fn apply(&self, a: Tensor<4>) -> Tensor<4> {
        self.forward(a)
    }
}

impl LinearLayer<2> for Linear {
    fn apply(&self, a: Tensor<2>) -> Tensor<2> {
        self.forward(a)
    }
}

/// A linear layer and its norm.
pub(crate) struct Unit<'a, L> {
    layer: &'a L,
    norm: &'a Option<BatchNorm>,
}

impl<L> Clone for Unit<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Unit<'_, L> {}

pub(crate) fn unit<'a, L>(layer: &'a L, norm: &'a Option<BatchNorm>) -> Unit<'a, L> {
    Unit { layer, norm }
}

impl<L> Unit<'_, L> {
    /// Computes `norm(W a)`.
    pub(crate) fn forward<const D: usize>(self, a: Tensor<D>) -> Tensor<D>
    where
        L: LinearLayer<D> + FusedLayer,
    {
        fused(None, &[self], &a, Epilogue::identity).unwrap_or_else(|| normalize(self.norm, self.layer.apply(a)))
    }

    /// Computes `relu(norm(W a))`.
    pub(crate) fn forward_relu<const D: usize>(self, a: Tensor<D>) -> Tensor<D>
    where
        L: LinearLayer<D> + FusedLayer,
    {
        fused(None, &[self], &a, Epilogue::relu).unwrap_or_else(|| relu(normalize(self.norm, self.layer.apply(a))))
    }
}

/// The last step of a block, applied to the output `z` of its main path: `g(scale · z + shortcut)`.
#[derive(Clone)]
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "only the kernels read it"))]
pub(crate) struct Epilogue<'a, const D: usize> {
    /// The factor of `z`.
    pub(crate) scale: f64,
    /// The shortcut term.
    pub(crate) shortcut: Addend<'a, D>,
    /// `g` is the ReLU if true, the identity if false.
    pub(crate) relu: bool,
}

impl<const D: usize> Epilogue<'_, D> {
    /// Returns `z` unchanged.
    pub(crate) fn identity() -> Self {
        Self { scale: 1.0, shortcut: Addend::None, relu: false }
    }

    /// Computes `relu(z)`.
    pub(crate) fn relu() -> Self {
        Self { relu: true, ..Self::identity() }
    }
}

/// The shortcut term of a block. The `f64` of a variant is the factor of the term.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, on the stack")]
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "only the kernels read it"))]
pub(crate) enum Addend<'a, const D: usize> {
    /// No shortcut.
    None,
    /// The input. Where shapes differ, it is subsampled and zero-padded according to the option.
    Input(f64, ShortcutOption),
    /// A convolution of the input, with its norm.
    Conv(Unit<'a, Conv2d>, f64),
    /// A linear layer applied to the input, with its norm.
    Linear(Unit<'a, Linear>, f64),
    /// Any tensor.
    Tensor(Tensor<D>, f64),
}

#[cfg(not(feature = "std"))]
mod choice {
    use super::*;

    /// A layer that the kernels may support.
    pub(crate) trait FusedLayer {}

    impl<L> FusedLayer for L {}

    pub(crate) fn max_pool(pool: &MaxPool2d, a: Tensor<4>) -> Tensor<4> {
        pool.forward(a)
    }

    pub(crate) fn mean_pool(a: Tensor<4>) -> Tensor<2> {
        reference_mean_pool(a)
    }

    pub(crate) fn preactivate(norm: &Option<BatchNorm>, a: Tensor<4>) -> Tensor<4> {
        relu(normalize(norm, a))
    }

    pub(crate) fn fused<'a, const D: usize, L>(
        _: Option<&Option<BatchNorm>>,
        _: &[Unit<L>],
        _: &Tensor<D>,
        _: impl FnOnce() -> Epilogue<'a, D>,
    ) -> Option<Tensor<D>> {
        None
    }
}

#[cfg(feature = "std")]
mod choice {
    use super::*;
    use burn::{
        module::{Param, RunningState},
        nn::PaddingConfig2d,
        tensor::{DType, Device},
    };
    use residual_kernels::{
        ChannelPadding, Conv, MaxPool, Statistics,
        bridge::{self, TensorBlock, TensorLayer, TensorNorm, TensorShortcut},
    };
    use std::{
        cell::Cell,
        sync::{Mutex, MutexGuard, PoisonError},
    };

    static SELECTED: Mutex<Kernels> = Mutex::new(Kernels::Fused);

    fn process_wide() -> MutexGuard<'static, Kernels> {
        SELECTED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    std::thread_local! {
        static SCOPED: Cell<Option<Kernels>> = const { Cell::new(None) };
    }

    /// Restores the thread's previous selection when dropped, even after a panic.
    struct Restore(Option<Kernels>);

    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPED.set(self.0);
        }
    }

    impl Kernels {
        /// Selects these kernels for all later forward passes of this process, except inside [`Self::scope`].
        pub fn select(self) {
            *process_wide() = self;
        }

        /// Selects these kernels for the forward passes of this thread while `f` runs.
        pub fn scope<R>(self, f: impl FnOnce() -> R) -> R {
            let _restore = Restore(SCOPED.replace(Some(self)));
            f()
        }

        /// The kernels currently selected for forward passes of this thread.
        pub fn selected() -> Self {
            SCOPED.get().unwrap_or_else(|| *process_wide())
        }

        /// The kernels that forward passes of this thread use on this device.
        pub fn on(device: &Device) -> Self {
            if bridge::runs_on(device) { Self::selected() } else { Self::Reference }
        }

        /// Frees the memory that the fused kernels keep for reuse, such as that of dropped activations and the prepared
        /// weights of networks. The next operations allocate and compute it again, so this is worthwhile only before a
        /// long time without any, as after a training in a program that goes on.
        pub fn trim() {
            residual_kernels::trim();
        }
    }

    /// Max-pooling, with the kernels if they support it.
    pub(crate) fn max_pool(pool: &MaxPool2d, a: Tensor<4>) -> Tensor<4> {
        let same = |[y, x]: [usize; 2]| y == x;
        let PaddingConfig2d::Explicit(padding, left, below, right) = pool.padding else { return pool.forward(a) };
        let square = same(pool.kernel_size) && same(pool.stride) && [left, below, right] == [padding; 3];
        let supported = square && pool.dilation == [1, 1] && !pool.ceil_mode;
        if !supported || !has_kernels(&a) {
            return pool.forward(a);
        }
        let (window, stride) = (pool.kernel_size[0], pool.stride[0]);
        bridge::max_pool(a.clone(), MaxPool { channels: a.dims()[1], window, stride, padding })
    }

    /// Global average pooling: the mean over the pixels, `[batch, channels]`.
    pub(crate) fn mean_pool(a: Tensor<4>) -> Tensor<2> {
        if !has_kernels(&a) {
            return reference_mean_pool(a);
        }
        bridge::mean_pool(a)
    }

    /// Computes `relu(norm(a))`.
    pub(crate) fn preactivate(norm: &Option<BatchNorm>, a: Tensor<4>) -> Tensor<4> {
        if !has_kernels(&a) {
            return relu(normalize(norm, a));
        }
        let tensors = norm.as_ref().map_or(TensorNorm::None(None), |norm| tensor_norm(norm, &a.device()));
        let (output, statistics) = bridge::normalize(a, tensors);
        track(norm, statistics);
        output
    }

    /// The kernels selected for this tensor, or `None` for Burn's operations.
    fn kernels_for<const D: usize>(a: &Tensor<D>) -> Option<Kernels> {
        let kernels = Kernels::on(&a.device());
        (kernels != Kernels::Reference && a.dtype() == DType::F32).then_some(kernels)
    }

    /// Whether kernels are selected for this tensor and its batch is not empty.
    fn has_kernels<const D: usize>(a: &Tensor<D>) -> bool {
        kernels_for(a).is_some() && a.dims()[0] > 0
    }

    /// A layer that the kernels may support.
    pub(crate) trait FusedLayer {
        /// The layer with its norm or bias, or `None` if the kernels do not support it.
        fn tensors(&self, norm: &Option<BatchNorm>, device: &Device) -> Option<TensorLayer>;
    }

    impl FusedLayer for Conv2d {
        fn tensors(&self, norm: &Option<BatchNorm>, device: &Device) -> Option<TensorLayer> {
            let PaddingConfig2d::Explicit(padding, left, below, right) = self.padding else { return None };
            let same = |[y, x]: [usize; 2]| y == x;
            if !same(self.stride) || !same(self.dilation) || [left, below, right] != [padding; 3] {
                return None;
            }
            let weight = self.weight.val();
            let [outputs, inputs, ..] = weight.dims();
            let conv = Conv {
                channels: [inputs * self.groups, outputs],
                kernel: self.kernel_size,
                stride: self.stride[0],
                padding,
                dilation: self.dilation[0],
                groups: self.groups,
            };
            Some(TensorLayer::conv(conv, weight, norm_or_bias(self.bias.as_ref(), norm, device)?))
        }
    }

    impl FusedLayer for Linear {
        fn tensors(&self, norm: &Option<BatchNorm>, device: &Device) -> Option<TensorLayer> {
            Some(TensorLayer::linear(self.weight.val(), norm_or_bias(self.bias.as_ref(), norm, device)?))
        }
    }

    /// The norm or the bias of a layer, or `None` if it has both, which the kernels do not support.
    fn norm_or_bias(bias: Option<&Param<Tensor<1>>>, norm: &Option<BatchNorm>, device: &Device) -> Option<TensorNorm> {
        match (norm, bias) {
            (None, bias) => Some(TensorNorm::None(bias.map(Param::val))),
            (Some(norm), None) => Some(tensor_norm(norm, device)),
            (Some(_), Some(_)) => None,
        }
    }

    fn tensor_norm(norm: &BatchNorm, device: &Device) -> TensorNorm {
        let (gain, bias, epsilon) = (norm.gamma.val(), norm.beta.val(), norm.epsilon);
        if device.is_autodiff() && norm.training.is_enabled() {
            return TensorNorm::Batch { gain, bias, epsilon };
        }
        let statistic = |running: &RunningState<Tensor<1>>| running.value().to_device(device);
        let (mean, variance) = (statistic(&norm.running_mean), statistic(&norm.running_var));
        TensorNorm::Running { gain, bias, mean, variance, epsilon }
    }

    /// Updates the running statistics with the statistics of the batch.
    fn track(norm: &Option<BatchNorm>, batch: Option<Statistics>) {
        let (Some(norm), Some(batch)) = (norm, batch) else { return };
        let weights = [(1.0 - norm.momentum) as f32, norm.momentum as f32];
        let average = |running: &RunningState<Tensor<1>>, batch: Vec<f32>| {
            let old = running.value_sync();
            let batch = Tensor::from_floats(&batch[..], &old.device());
            running.update(bridge::weighted_sum(old, batch, weights, 1.0));
        };
        average(&norm.running_mean, batch.mean);
        average(&norm.running_var, batch.variance);
    }

    impl<'a, const D: usize> Addend<'a, D> {
        /// The shortcut and the norm of its projection, or `None` if the kernels do not support it.
        fn tensors(self, device: &Device) -> Option<(TensorShortcut<D>, &'a Option<BatchNorm>)> {
            let shortcut = match self {
                Self::None => TensorShortcut::None,
                Self::Input(strength, ShortcutOption::ZeroPadAfter) => {
                    TensorShortcut::Input(strength, ChannelPadding::After)
                }
                Self::Input(strength, _) => TensorShortcut::Input(strength, ChannelPadding::BothSides),
                Self::Tensor(tensor, strength) => TensorShortcut::Tensor(tensor, strength),
                Self::Conv(Unit { layer, norm }, strength) => {
                    return Some((TensorShortcut::Projection(layer.tensors(norm, device)?, strength), norm));
                }
                Self::Linear(Unit { layer, norm }, strength) => {
                    return Some((TensorShortcut::Projection(layer.tensors(norm, device)?, strength), norm));
                }
            };
            Some((shortcut, &None))
        }
    }

    /// Computes a block in one operation: the norm and ReLU of the pre-activation, if `before` is given; the units,
    /// with ReLUs between them; and the epilogue. Returns `None` if the kernels are not selected or do not support the
    /// block.
    pub(crate) fn fused<'a, const D: usize, L: FusedLayer>(
        before: Option<&Option<BatchNorm>>,
        units: &[Unit<L>],
        a: &Tensor<D>,
        epilogue: impl FnOnce() -> Epilogue<'a, D>,
    ) -> Option<Tensor<D>> {
        let kernels = kernels_for(a)?;
        let device = a.device();
        let layers = units.iter().map(|unit| unit.layer.tensors(unit.norm, &device)).collect::<Option<Vec<_>>>()?;
        let Epilogue { scale, shortcut, relu } = epilogue();
        let (shortcut, projection_norm) = shortcut.tensors(&device)?;
        let preactivation =
            before.map(|norm| norm.as_ref().map_or(TensorNorm::None(None), |norm| tensor_norm(norm, &device)));
        let recompute = kernels == Kernels::Recompute;
        let input = a.clone();
        let block = TensorBlock { input, preactivation, layers, scale, shortcut, relu, recompute };
        let (output, statistics) = block.forward();
        track(before.unwrap_or(&None), statistics.preactivation);
        track(projection_norm, statistics.projection);
        units.iter().zip(statistics.layers).for_each(|(unit, batch)| track(unit.norm, batch));
        Some(output)
    }
}

/// Global average pooling with Burn's operations.
fn reference_mean_pool(a: Tensor<4>) -> Tensor<2> {
    let [batch, channels, ..] = a.dims();
    if batch == 0 {
        return Tensor::zeros([batch, channels], &a.device());
    }
    a.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2)
}

pub(crate) use choice::{FusedLayer, fused, max_pool, mean_pool, preactivate};
