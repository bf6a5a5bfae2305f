//! Pre-activation blocks: norm and ReLU before each convolution, nothing after the addition (He et
//! al. 2016, "Identity Mappings in Deep Residual Networks", Fig. 4e).

use crate::{
    BlockKind, ConvPathConfig, ConvShortcut, Layer, Norm, PlainBlockConfig, ResidualBlockConfig,
    block::{Fold, scale, seeded},
    conv::AT_LEAST_TWO,
    init::zeroed,
    kernels::{End, Unit, fused, preactivate, unit},
    norm::{fold_conv, normalize},
};
use alloc::vec::Vec;
use burn::{
    module::Module,
    nn::{BatchNorm, conv::Conv2d},
    tensor::{Device, Tensor, activation::relu},
};
use serde::{Deserialize, Serialize};

type ConvUnit<'a> = Unit<'a, Conv2d>;

/// Configuration of a [`PreactPath`], and in a [`PlainBlockConfig`] or a [`ResidualBlockConfig`] of a
/// pre-activation block.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use residual_model::{ConvPathConfig, ResidualBlockConfig};
///
/// let device = Device::flex();
/// let block = ResidualBlockConfig::new(ConvPathConfig::new(16, 32).with_stride(2).preactivated()).init(&device);
/// assert_eq!(block.forward(Tensor::ones([1, 16, 8, 8], &device)).dims(), [1, 32, 4, 4]);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PreactPathConfig {
    /// The convolutions, each of which comes after its norm and ReLU.
    pub convolutions: ConvPathConfig,
}

impl PreactPathConfig {
    /// Builds the path, its weights to be drawn by the device's generator.
    ///
    /// # Panics
    /// If a size is zero, or groups do not divide the channels.
    pub fn init(&self, device: &Device) -> PreactPath {
        let [(conv1, bn1), (conv2, bn2), (conv3, bn3)] = self.convolutions.layers(|shape| shape.channels[0], device);
        let (conv1, conv2) = (conv1.expect(AT_LEAST_TWO), conv2.expect(AT_LEAST_TWO));
        PreactPath { bn1, conv1, bn2, conv2, bn3, conv3 }
    }
}

impl PlainBlockConfig<PreactPathConfig> {
    /// Builds the block.
    ///
    /// # Panics
    /// If a size is zero, or groups do not divide the channels.
    pub fn init(&self, device: &Device) -> PreactPlainBlock {
        let block = seeded(PreactPlainBlock { main_path: self.main_path.init(device) }, self.seed);
        if !self.zero_init {
            return block;
        }
        PreactPlainBlock { main_path: block.main_path.zero_last_layer() }
    }
}

impl ResidualBlockConfig<PreactPathConfig> {
    /// Builds the block. The projection of its shortcut has no norm.
    ///
    /// # Panics
    /// If a size is zero, groups do not divide the channels, or a zero-padding shortcut would have to drop channels.
    pub fn init(&self, device: &Device) -> PreactResidualBlock {
        let block = seeded(self.build(device), self.seed);
        if !self.zero_init {
            return block;
        }
        PreactResidualBlock { main_path: block.main_path.zero_last_layer(), ..block }
    }

    fn build(&self, device: &Device) -> PreactResidualBlock {
        PreactResidualBlock {
            main_path: self.main_path.init(device),
            shortcut: self.main_path.convolutions.shortcut(self.shortcut, Norm::None, device),
            skip_strength: self.skip_strength,
            branch_scale: self.branch_scale,
            survival: self.survival,
        }
    }

    /// Builds either kind of block, its weights to be drawn.
    pub(crate) fn build_kind(&self, kind: BlockKind, device: &Device) -> PreactBlock {
        match kind {
            BlockKind::Plain => PreactBlock::Plain(PreactPlainBlock { main_path: self.main_path.init(device) }),
            BlockKind::Residual => PreactBlock::Residual(self.build(device)),
        }
    }
}

/// `F(p) = W2 * g(norm(W1 * p))`, or with a third convolution `W3 * g(norm(W2 * g(norm(W1 * p))))`,
/// where `p = g(norm(a))` is the block's pre-activated input.
///
/// Should be created using [`PreactPathConfig`].
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
///
/// Should be created using [`PlainBlockConfig`] with a [`PreactPathConfig`].
#[derive(Module, Debug)]
pub struct PreactPlainBlock {
    /// `F` and the norm before it.
    pub main_path: PreactPath,
}

/// A pre-activation block: `a_out = s · F(p) + α · shortcut(a)`, with `p = g(norm(a))`.
///
/// The shortcut is the identity on `a`, so that the signal passes through the whole net unchanged.
/// Where shapes differ it bridges from `p`, which both ways then share.
///
/// Should be created using [`ResidualBlockConfig`] with a [`PreactPathConfig`].
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
    /// `p = g(norm(a))`
    ///
    /// # Shapes
    /// - a and output: `[batch, in_channels, height, width]`
    pub fn preactivate(&self, a: Tensor<4>) -> Tensor<4> {
        preactivate(&self.bn1, a)
    }

    /// `F(p)`
    ///
    /// # Shapes
    /// - p: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, p: Tensor<4>) -> Tensor<4> {
        if let Some(z) = self.fused(None, &p, End::identity) {
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

    /// `F(p)` and what is done with it in one operation, where there is a kernel for it; with a norm before, of an input
    /// that is still to be pre-activated.
    fn fused<'a>(
        &self,
        before: Option<&Option<BatchNorm>>,
        input: &Tensor<4>,
        end: impl FnOnce() -> End<'a, 4>,
    ) -> Option<Tensor<4>> {
        match self.units() {
            (first, second, None) => fused(before, &[first, second], input, end),
            (first, second, Some(third)) => fused(before, &[first, second, third], input, end),
        }
    }

    fn zero_last_layer(mut self) -> Self {
        let last = self.conv3.as_mut().unwrap_or(&mut self.conv2);
        last.weight = zeroed(last.weight.clone());
        self
    }
}

impl Fold for PreactPath {
    /// The norm before the first convolution follows an addition and stays.
    fn folded(mut self) -> Self {
        self.conv1 = fold_conv(self.conv1, self.bn2.take());
        if self.conv3.is_some() {
            self.conv2 = fold_conv(self.conv2, self.bn3.take());
        }
        self
    }
}

impl PreactPlainBlock {
    /// `F(g(norm(a)))`
    ///
    /// # Shapes
    /// As [`PreactPath::forward`]'s.
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        let path = &self.main_path;
        path.fused(Some(&path.bn1), &a, End::identity).unwrap_or_else(|| path.forward(path.preactivate(a)))
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
        let path = &self.main_path;
        let end = || End { scale: branch_scale, shortcut: self.shortcut.addend(self.skip_strength), relu: false };
        if let Some(output) = path.fused(Some(&path.bn1), &a, end) {
            return output;
        }
        let (p, around) = self.ways(a);
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

crate::transparent::transparent_enum!(PreactBlock { Plain, Residual });

impl PreactBlock {
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
