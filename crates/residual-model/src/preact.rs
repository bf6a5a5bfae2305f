//! Pre-activation blocks: norm and ReLU before each convolution, nothing after the addition (He et
//! al. 2016, "Identity Mappings in Deep Residual Networks", Fig. 4e).

use crate::{
    ConvPathConfig, ConvShortcut, Layer, Norm, ShortcutOption,
    block::scale,
    conv::AT_LEAST_TWO,
    init::zeroed,
    kernels::{Addend, End, Unit, fused, unit},
    norm::{fold, normalize},
};
use alloc::vec::Vec;
use burn::{
    module::Module,
    nn::{BatchNorm, conv::Conv2d},
    tensor::{Device, Tensor, activation::relu},
};

type ConvUnit<'a> = Unit<'a, Conv2d>;

/// `F(p) = W2 * g(norm(W1 * p))`, or with a third convolution `W3 * g(norm(W2 * g(norm(W1 * p))))`,
/// where `p = g(norm(a))` is the block's pre-activated input.
#[derive(Module, Debug)]
pub struct PreactPath {
    /// The norm of the block's input.
    pub bn1: Option<BatchNorm>,
    /// `W1`.
    pub conv1: Conv2d,
    /// The norm of `W1 * p`.
    pub bn2: Option<BatchNorm>,
    /// `W2`.
    pub conv2: Conv2d,
    /// The norm of what `W3` takes, in a bottleneck.
    pub bn3: Option<BatchNorm>,
    /// `W3`, in a bottleneck.
    pub conv3: Option<Conv2d>,
}

/// A pre-activation block without a shortcut: `a_out = F(g(norm(a)))`.
#[derive(Module, Debug)]
pub struct PreactPlainBlock {
    /// `F` and the norm before it.
    pub main_path: PreactPath,
}

/// A pre-activation block: `a_out = s · F(p) + α · shortcut(a)`, with `p = g(norm(a))`.
///
/// The shortcut is the identity on `a`, so that the signal passes through the whole net unchanged.
/// Where shapes differ it bridges from `p`, which both ways then share.
#[derive(Module, Debug)]
pub struct PreactResidualBlock {
    /// `F` and the norm before it.
    pub main_path: PreactPath,
    /// The way around it.
    pub shortcut: ConvShortcut,
    /// α.
    pub skip_strength: f64,
    /// s.
    pub branch_scale: f64,
    /// The probability that the main path takes part in a training step.
    pub survival: f64,
}

impl PreactPath {
    pub(crate) fn new(config: &ConvPathConfig, device: &Device) -> Self {
        let [(conv1, bn1), (conv2, bn2), (conv3, bn3)] = config.layers(|shape| shape.channels[0], device);
        let (conv1, conv2) = (conv1.expect(AT_LEAST_TWO), conv2.expect(AT_LEAST_TWO));
        Self { bn1, conv1, bn2, conv2, bn3, conv3 }
    }

    /// `p = g(norm(a))`
    ///
    /// # Shapes
    /// - a and output: `[batch, in_channels, height, width]`
    pub fn preactivate(&self, a: Tensor<4>) -> Tensor<4> {
        relu(normalize(&self.bn1, a))
    }

    /// `F(p)`
    ///
    /// # Shapes
    /// - p: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, p: Tensor<4>) -> Tensor<4> {
        if let Some(z) = self.fused(&p, End::identity) {
            return z;
        }
        let (first, second, third) = self.units();
        let p1 = first.forward_relu(p);
        match third {
            None => second.forward(p1),
            Some(third) => third.forward(second.forward_relu(p1)),
        }
    }

    /// The convolutions in order.
    pub(crate) fn convolutions(&self) -> Vec<&Conv2d> {
        [Some(&self.conv1), Some(&self.conv2), self.conv3.as_ref()].into_iter().flatten().collect()
    }

    /// Each convolution's output.
    pub(crate) fn responses(&self, a: Tensor<4>) -> Vec<Tensor<4>> {
        let mut a = a;
        let respond = |(conv, norm): (&Conv2d, &Option<BatchNorm>)| {
            let z = conv.forward(relu(normalize(norm, a.clone())));
            a = z.clone();
            z
        };
        self.convolutions().into_iter().zip([&self.bn1, &self.bn2, &self.bn3]).map(respond).collect()
    }

    /// The convolutions, each with the norm after it; the last has none.
    fn units(&self) -> (ConvUnit<'_>, ConvUnit<'_>, Option<ConvUnit<'_>>) {
        let third = self.conv3.as_ref().map(|conv3| unit(conv3, &None));
        (unit(&self.conv1, &self.bn2), unit(&self.conv2, &self.bn3), third)
    }

    /// `F(p)` and what is done with it in one operation, where there is a kernel for it.
    fn fused(&self, p: &Tensor<4>, end: impl FnOnce() -> End<4>) -> Option<Tensor<4>> {
        match self.units() {
            (first, second, None) => fused(&[first, second], p, end),
            (first, second, Some(third)) => fused(&[first, second, third], p, end),
        }
    }

    fn folded(mut self) -> Self {
        self.conv1 = fold(self.conv1, self.bn2.take());
        if self.conv3.is_some() {
            self.conv2 = fold(self.conv2, self.bn3.take());
        }
        self
    }

    fn zero_last_layer(mut self) -> Self {
        let last = self.conv3.as_mut().unwrap_or(&mut self.conv2);
        last.weight = zeroed(last.weight.clone());
        self
    }
}

impl PreactPlainBlock {
    /// `F(g(norm(a)))`
    ///
    /// # Shapes
    /// As [`PreactPath::forward`]'s.
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        self.main_path.forward(self.main_path.preactivate(a))
    }
}

impl PreactResidualBlock {
    /// `p · s · F(g(norm(a))) + α · shortcut(a)`, with the survival probability p.
    ///
    /// # Shapes
    /// As [`PreactPath::forward`]'s.
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        self.forward_scaled(a, self.survival * self.branch_scale)
    }

    /// A training step with stochastic depth: without the main path unless it survives.
    ///
    /// # Shapes
    /// As [`PreactPath::forward`]'s.
    pub fn forward_sampled(&self, a: Tensor<4>, survives: bool) -> Tensor<4> {
        if !survives {
            let (_, shortcut) = self.ways(a);
            return scale(shortcut, self.skip_strength);
        }
        self.forward_scaled(a, self.branch_scale)
    }

    /// The pre-activated input, and what goes around the main path.
    fn ways(&self, a: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let p = self.main_path.preactivate(a.clone());
        let shortcut = if self.shortcut.is_identity(a.dims()[1]) { a } else { self.shortcut.forward(p.clone()) };
        (p, shortcut)
    }

    fn forward_scaled(&self, a: Tensor<4>, branch_scale: f64) -> Tensor<4> {
        let (p, around) = self.ways(a);
        let addend = || Addend::Tensor(around.clone(), self.skip_strength);
        if let Some(output) = self.main_path.fused(&p, || End { scale: branch_scale, shortcut: addend(), relu: false })
        {
            return output;
        }
        scale(self.main_path.forward(p), branch_scale) + scale(around, self.skip_strength)
    }
}

/// Either pre-activation block, chosen at run time. Parameter paths are the same for both.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the tensors behind it are far larger")]
pub enum PreactBlock {
    /// Without a shortcut.
    Plain(PreactPlainBlock),
    /// With one.
    Residual(PreactResidualBlock),
}

crate::transparent::transparent_module!(PreactBlock { Plain, Residual });

impl PreactBlock {
    /// The projection of a pre-activation shortcut has no norm.
    pub(crate) fn shortcut(config: &ConvPathConfig, option: ShortcutOption, device: &Device) -> ConvShortcut {
        config.shortcut(option, Norm::None, device)
    }

    /// [`PreactPlainBlock::forward`] or [`PreactResidualBlock::forward`].
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Plain(block) => block.forward(a),
            Self::Residual(block) => block.forward(a),
        }
    }

    /// [`PreactPlainBlock::forward`] or [`PreactResidualBlock::forward_sampled`].
    pub fn forward_sampled(&self, a: Tensor<4>, survives: bool) -> Tensor<4> {
        match self {
            Self::Plain(block) => block.forward(a),
            Self::Residual(block) => block.forward_sampled(a, survives),
        }
    }

    /// The two ways through the block, each with its factor; a plain block has one.
    pub(crate) fn branches(&self, a: Tensor<4>) -> (Tensor<4>, Option<Tensor<4>>) {
        match self {
            Self::Plain(block) => (block.forward(a), None),
            Self::Residual(block) => {
                let (p, shortcut) = block.ways(a);
                let main_path = scale(block.main_path.forward(p), block.survival * block.branch_scale);
                (main_path, Some(scale(shortcut, block.skip_strength)))
            }
        }
    }

    /// The survival probability: 1 in a plain block.
    pub fn survival(&self) -> f64 {
        match self {
            Self::Plain(_) => 1.0,
            Self::Residual(block) => block.survival,
        }
    }

    pub(crate) fn map_path(self, f: impl FnOnce(PreactPath) -> PreactPath) -> Self {
        match self {
            Self::Plain(block) => Self::Plain(PreactPlainBlock { main_path: f(block.main_path) }),
            Self::Residual(block) => Self::Residual(PreactResidualBlock { main_path: f(block.main_path), ..block }),
        }
    }

    pub(crate) fn zero_last_layer(self) -> Self {
        self.map_path(PreactPath::zero_last_layer)
    }

    pub(crate) fn folded(self) -> Self {
        self.map_path(PreactPath::folded)
    }
}
