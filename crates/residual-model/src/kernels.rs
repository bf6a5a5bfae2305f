//! Which code computes a block: Burn's operations one by one, or one fused operation on a CPU.
//!
//! Everything with a weight is a unit, a linear layer with its norm. Blocks say what they compute
//! in Burn's operations, and ask here first whether kernels compute the same at once: `fused` is
//! the only place that decides.

use crate::norm::normalize;
#[cfg(feature = "std")]
use alloc::vec::Vec;
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
        L: FusedLayer<D>,
    {
        fused(&[self], &a, End::identity).unwrap_or_else(|| normalize(self.norm, self.layer.apply(a)))
    }

    /// `g(norm(W a))`
    pub(crate) fn forward_relu<const D: usize>(self, a: Tensor<D>) -> Tensor<D>
    where
        L: FusedLayer<D>,
    {
        fused(&[self], &a, End::relu).unwrap_or_else(|| relu(normalize(self.norm, self.layer.apply(a))))
    }
}

/// What a block does with the output of its main path: `g(scale · z + shortcut)`.
#[derive(Clone, Debug)]
pub struct End<const D: usize> {
    /// The factor.
    pub scale: f64,
    /// What is added.
    pub shortcut: Addend<D>,
    /// Whether `g` is the ReLU, or the identity.
    pub relu: bool,
}

impl<const D: usize> End<D> {
    /// `z`
    pub fn identity() -> Self {
        Self { scale: 1.0, shortcut: Addend::None, relu: false }
    }

    /// `g(z)`
    pub fn relu() -> Self {
        Self { relu: true, ..Self::identity() }
    }
}

/// What a block adds.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and not for long")]
pub enum Addend<const D: usize> {
    /// Nothing.
    None,
    /// A multiple of its input, padded with zeros where shapes differ.
    Input(f64),
    /// A multiple of a tensor.
    Tensor(Tensor<D>, f64),
}

#[cfg(not(feature = "std"))]
mod choice {
    use super::*;

    /// A layer that kernels can compute.
    pub(crate) trait FusedLayer<const D: usize>: Weighted<D> {}

    impl<const D: usize, L: Weighted<D>> FusedLayer<D> for L {}

    pub(crate) fn max_pool(pool: &MaxPool2d, a: Tensor<4>) -> Tensor<4> {
        pool.forward(a)
    }

    pub(crate) fn fused<const D: usize, L>(
        _: &[Unit<L>],
        _: &Tensor<D>,
        _: impl FnOnce() -> End<D>,
    ) -> Option<Tensor<D>> {
        None
    }
}

#[cfg(feature = "std")]
mod choice {
    use super::*;
    use burn::{
        nn::PaddingConfig2d,
        tensor::{DType, Device, TensorData},
    };
    use residual_kernels::{
        Conv, MaxPool,
        bridge::{self, TensorLayer, TensorNorm, TensorPath, TensorShortcut},
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
        if !plain || Kernels::on(&a.device()) == Kernels::Reference || a.dtype() != DType::F32 {
            return pool.forward(a);
        }
        let (window, stride) = (pool.kernel_size[0], pool.stride[0]);
        bridge::max_pool(a.clone(), MaxPool { channels: a.dims()[1], window, stride, padding })
    }

    /// A layer that kernels can compute.
    pub(crate) trait FusedLayer<const D: usize>: Weighted<D> {
        /// The layer as a convolution, with its weight and bias, if it is one of the kernels'.
        fn convolution(&self) -> Option<(Conv, Tensor<D>, Option<Tensor<1>>)>;
    }

    impl FusedLayer<4> for Conv2d {
        fn convolution(&self) -> Option<(Conv, Tensor<4>, Option<Tensor<1>>)> {
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
            Some((conv, weight, self.bias.as_ref().map(|bias| bias.val())))
        }
    }

    impl FusedLayer<2> for Linear {
        fn convolution(&self) -> Option<(Conv, Tensor<2>, Option<Tensor<1>>)> {
            let weight = self.weight.val().transpose();
            let [outputs, inputs] = weight.dims();
            Some((Conv::same([inputs, outputs], 1), weight, self.bias.as_ref().map(|bias| bias.val())))
        }
    }

    /// The units with ReLUs between them, and the end of the block, in one operation; or none, if the
    /// kernels are not selected, or not made for this.
    pub(crate) fn fused<const D: usize, L: FusedLayer<D>>(
        units: &[Unit<L>],
        a: &Tensor<D>,
        end: impl FnOnce() -> End<D>,
    ) -> Option<Tensor<D>> {
        let device = a.device();
        let kernels = Kernels::on(&device);
        if kernels == Kernels::Reference || a.dtype() != DType::F32 {
            return None;
        }
        let layer = |unit: &Unit<L>| {
            let (conv, weight, linear_bias) = unit.layer.convolution()?;
            let Some(norm) = unit.norm else {
                return Some(TensorLayer { conv, weight, gain: None, bias: linear_bias, norm: TensorNorm::None });
            };
            if linear_bias.is_some() {
                return None;
            }
            let epsilon = norm.epsilon;
            let by_batch = device.is_autodiff() && norm.training.is_enabled();
            let running = || TensorNorm::Running {
                mean: norm.running_mean.value().to_device(&device),
                variance: norm.running_var.value().to_device(&device),
                epsilon,
            };
            Some(TensorLayer {
                conv,
                weight,
                gain: Some(norm.gamma.val()),
                bias: Some(norm.beta.val()),
                norm: if by_batch { TensorNorm::Batch { epsilon } } else { running() },
            })
        };
        let layers = units.iter().map(layer).collect::<Option<Vec<_>>>()?;
        let end = end();
        let path = TensorPath {
            input: a.clone(),
            layers,
            scale: end.scale,
            shortcut: match end.shortcut {
                Addend::None => TensorShortcut::None,
                Addend::Input(strength) => TensorShortcut::Input(strength),
                Addend::Tensor(tensor, strength) => TensorShortcut::Tensor(tensor, strength),
            },
            relu: end.relu,
            recompute: kernels == Kernels::Recompute,
        };
        let (output, statistics) = path.forward();
        for (unit, batch) in units.iter().zip(statistics) {
            if let (Some(norm), Some(batch)) = (unit.norm, batch) {
                let average = |running: Tensor<1>, batch: Vec<f32>| {
                    let channels = batch.len();
                    let batch = Tensor::from_data(TensorData::new(batch, [channels]), &running.device());
                    running.mul_scalar(1.0 - norm.momentum).add(batch.mul_scalar(norm.momentum)).detach()
                };
                norm.running_mean.update(average(norm.running_mean.value_sync(), batch.mean));
                norm.running_var.update(average(norm.running_var.value_sync(), batch.variance));
            }
        }
        Some(output)
    }
}

pub(crate) use choice::{FusedLayer, fused, max_pool};
