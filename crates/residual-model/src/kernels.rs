//! Which code computes a block: Burn's operations one by one, or one fused operation on a CPU.
//!
//! Everything with a weight is a unit, a linear layer with its norm. Blocks say what they compute
//! in Burn's operations, and ask here first whether kernels compute the same at once: `fused` is
//! the only place that decides.

use crate::{ShortcutOption, norm::normalize};
use burn::{
    module::Module,
    nn::{BatchNorm, Linear, conv::Conv2d, pool::MaxPool2d},
    tensor::{Tensor, activation::relu},
};
use core::fmt;
use serde::{Deserialize, Serialize};

/// Which code computes blocks of `f32` on the backends flex and ndarray. Elsewhere it is always
/// [`Self::Reference`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    /// One operation a block, by the crate `residual-kernels`.
    #[default]
    Fused,
    /// The same, keeping only each block's input for the backward pass, which computes the rest again:
    /// identical gradients in a third of the memory, for a third more arithmetic (Chen et al. 2016,
    /// "Training Deep Nets with Sublinear Memory Cost").
    Recompute,
    /// Burn's operations.
    Reference,
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fused => "fused",
            Self::Recompute => "recompute",
            Self::Reference => "reference",
        })
    }
}

/// A linear layer, over channels (rank 4) or features (rank 2).
pub(crate) trait Weighted<const D: usize>: Module {
    fn apply(&self, a: Tensor<D>) -> Tensor<D>;
}

impl Weighted<4> for Conv2d {
    fn apply(&self, a: Tensor<4>) -> Tensor<4> {
        self.forward(a)
    }
}

impl Weighted<2> for Linear {
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
    /// `norm(W a)`
    pub(crate) fn forward<const D: usize>(self, a: Tensor<D>) -> Tensor<D>
    where
        L: Weighted<D> + FusedLayer,
    {
        fused(None, &[self], &a, End::identity).unwrap_or_else(|| normalize(self.norm, self.layer.apply(a)))
    }

    /// `g(norm(W a))`
    pub(crate) fn forward_relu<const D: usize>(self, a: Tensor<D>) -> Tensor<D>
    where
        L: Weighted<D> + FusedLayer,
    {
        fused(None, &[self], &a, End::relu).unwrap_or_else(|| relu(normalize(self.norm, self.layer.apply(a))))
    }
}

/// What a block does with the output of its main path: `g(scale · z + shortcut)`.
#[derive(Clone)]
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "the kernels read it"))]
pub(crate) struct End<'a, const D: usize> {
    /// The factor.
    pub(crate) scale: f64,
    /// What is added.
    pub(crate) shortcut: Addend<'a, D>,
    /// Whether `g` is the ReLU, or the identity.
    pub(crate) relu: bool,
}

impl<const D: usize> End<'_, D> {
    /// `z`
    pub(crate) fn identity() -> Self {
        Self { scale: 1.0, shortcut: Addend::None, relu: false }
    }

    /// `g(z)`
    pub(crate) fn relu() -> Self {
        Self { relu: true, ..Self::identity() }
    }
}

/// What a block adds: a multiple of something.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, on the stack")]
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "the kernels read it"))]
pub(crate) enum Addend<'a, const D: usize> {
    /// Nothing.
    None,
    /// The input, padded with zeros where shapes differ as the option says.
    Input(f64, ShortcutOption),
    /// A convolution of the input.
    Conv(Unit<'a, Conv2d>, f64),
    /// A linear layer of the input.
    Linear(Unit<'a, Linear>, f64),
    /// A tensor.
    Tensor(Tensor<D>, f64),
}

#[cfg(not(feature = "std"))]
mod choice {
    use super::*;

    /// A layer that kernels can compute.
    pub(crate) trait FusedLayer {}

    impl<L> FusedLayer for L {}

    pub(crate) fn max_pool(pool: &MaxPool2d, a: Tensor<4>) -> Tensor<4> {
        pool.forward(a)
    }

    pub(crate) fn mean_pool(a: Tensor<4>) -> Tensor<2> {
        mean_of_pixels(a)
    }

    pub(crate) fn preactivate(norm: &Option<BatchNorm>, a: Tensor<4>) -> Tensor<4> {
        relu(normalize(norm, a))
    }

    pub(crate) fn fused<'a, const D: usize, L>(
        _: Option<&Option<BatchNorm>>,
        _: &[Unit<L>],
        _: &Tensor<D>,
        _: impl FnOnce() -> End<'a, D>,
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

    /// Puts back what a thread used before, however its scope ends.
    struct Restore(Option<Kernels>);

    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPED.set(self.0);
        }
    }

    impl Kernels {
        /// Selects what forward passes of this process use from now on.
        pub fn select(self) {
            *process_wide() = self;
        }

        /// Selects what forward passes of this thread use while `f` runs.
        pub fn scope<R>(self, f: impl FnOnce() -> R) -> R {
            let _restore = Restore(SCOPED.replace(Some(self)));
            f()
        }

        /// What a forward pass of this thread uses now.
        pub fn selected() -> Self {
            SCOPED.get().unwrap_or_else(|| *process_wide())
        }

        /// What a forward pass of this thread uses on this device.
        pub fn on(device: &Device) -> Self {
            if bridge::runs_on(device) { Self::selected() } else { Self::Reference }
        }
    }

    /// The pooling's output.
    pub(crate) fn max_pool(pool: &MaxPool2d, a: Tensor<4>) -> Tensor<4> {
        let same = |[y, x]: [usize; 2]| y == x;
        let PaddingConfig2d::Explicit(padding, left, below, right) = pool.padding else { return pool.forward(a) };
        let square = same(pool.kernel_size) && same(pool.stride) && [left, below, right] == [padding; 3];
        let plain = square && pool.dilation == [1, 1] && !pool.ceil_mode;
        if !plain || !computes(&a) {
            return pool.forward(a);
        }
        let (window, stride) = (pool.kernel_size[0], pool.stride[0]);
        bridge::max_pool(a.clone(), MaxPool { channels: a.dims()[1], window, stride, padding })
    }

    /// The mean over the pixels.
    pub(crate) fn mean_pool(a: Tensor<4>) -> Tensor<2> {
        if !computes(&a) {
            return mean_of_pixels(a);
        }
        bridge::mean_pool(a)
    }

    /// `g(norm(a))`
    pub(crate) fn preactivate(norm: &Option<BatchNorm>, a: Tensor<4>) -> Tensor<4> {
        if !computes(&a) {
            return relu(normalize(norm, a));
        }
        let tensors = norm.as_ref().map_or(TensorNorm::None(None), |norm| tensor_norm(norm, &a.device()));
        let (output, statistics) = bridge::normalize(a, tensors);
        track(norm, statistics);
        output
    }

    /// The kernels that compute what is done with this tensor: none for another precision than theirs.
    fn for_tensor<const D: usize>(a: &Tensor<D>) -> Option<Kernels> {
        let kernels = Kernels::on(&a.device());
        (kernels != Kernels::Reference && a.dtype() == DType::F32).then_some(kernels)
    }

    /// Whether kernels compute what is done with this tensor, which is not empty.
    fn computes<const D: usize>(a: &Tensor<D>) -> bool {
        for_tensor(a).is_some() && a.dims()[0] > 0
    }

    /// A layer that kernels can compute.
    pub(crate) trait FusedLayer {
        /// The layer with what comes after it, if it is one of the kernels' convolutions.
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
            Some(TensorLayer::conv(conv, weight, after(self.bias.as_ref(), norm, device)?))
        }
    }

    impl FusedLayer for Linear {
        fn tensors(&self, norm: &Option<BatchNorm>, device: &Device) -> Option<TensorLayer> {
            Some(TensorLayer::linear(self.weight.val(), after(self.bias.as_ref(), norm, device)?))
        }
    }

    /// What comes after a layer: its norm, or its bias; kernels have not both.
    fn after(bias: Option<&Param<Tensor<1>>>, norm: &Option<BatchNorm>, device: &Device) -> Option<TensorNorm> {
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

    /// Moves running statistics towards the batch's.
    fn track(norm: &Option<BatchNorm>, batch: Option<Statistics>) {
        let (Some(norm), Some(batch)) = (norm, batch) else { return };
        let momentum = norm.momentum;
        let average = |running: &RunningState<Tensor<1>>, batch| {
            running.update(bridge::average(running.value_sync(), batch, momentum));
        };
        average(&norm.running_mean, batch.mean);
        average(&norm.running_var, batch.variance);
    }

    /// A block in one operation: the ReLU of a norm, if there is one before, the units with ReLUs between them, and
    /// the end. None if the kernels are not selected, or not made for this.
    pub(crate) fn fused<'a, const D: usize, L: FusedLayer>(
        before: Option<&Option<BatchNorm>>,
        units: &[Unit<L>],
        a: &Tensor<D>,
        end: impl FnOnce() -> End<'a, D>,
    ) -> Option<Tensor<D>> {
        let kernels = for_tensor(a)?;
        let device = a.device();
        let layers = units.iter().map(|unit| unit.layer.tensors(unit.norm, &device)).collect::<Option<Vec<_>>>()?;
        let End { scale, shortcut, relu } = end();
        let mut projection_norm = &None;
        let shortcut = match shortcut {
            Addend::None => TensorShortcut::None,
            Addend::Input(strength, ShortcutOption::ZeroPadAfter) => {
                TensorShortcut::Input(strength, ChannelPadding::After)
            }
            Addend::Input(strength, _) => TensorShortcut::Input(strength, ChannelPadding::BothSides),
            Addend::Tensor(tensor, strength) => TensorShortcut::Tensor(tensor, strength),
            Addend::Conv(unit, strength) => {
                projection_norm = unit.norm;
                TensorShortcut::Projection(unit.layer.tensors(unit.norm, &device)?, strength)
            }
            Addend::Linear(unit, strength) => {
                projection_norm = unit.norm;
                TensorShortcut::Projection(unit.layer.tensors(unit.norm, &device)?, strength)
            }
        };
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

/// The mean over the pixels, by Burn's operations.
fn mean_of_pixels(a: Tensor<4>) -> Tensor<2> {
    let [batch, channels, ..] = a.dims();
    if batch == 0 {
        return Tensor::zeros([batch, channels], &a.device());
    }
    a.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2)
}

pub(crate) use choice::{FusedLayer, fused, max_pool, mean_pool, preactivate};
