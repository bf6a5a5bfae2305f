//! Pre-activation blocks: norm and ReLU before each convolution, and nothing after the addition (He et al. 2016,
//! "Identity Mappings in Deep Residual Networks", Fig. 4e).

use crate::{
    BlockKind, ConvPathConfig, ConvShortcut, Layer, Norm, PlainBlockConfig, ResidualBlockConfig,
    block::scale,
    conv::AT_LEAST_TWO,
    init::{seeded, zeroed},
    kernels::{Epilogue, Unit, fused, preactivate, unit},
    norm::{Fold, fold_conv, normalize},
    transparent::transparent_enum,
};
use alloc::vec::Vec;
use burn::{
    module::Module,
    nn::{BatchNorm, conv::Conv2d},
    tensor::{Device, Tensor, activation::relu},
};
use serde::{Deserialize, Serialize};

type ConvUnit<'a> = Unit<'a, Conv2d>;

/// Configuration to create a [`PreactPath`]. As the main path of a [`PlainBlockConfig`] or a [`ResidualBlockConfig`],
/// it makes the block a pre-activation block.
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
    /// The convolutions. A norm and a ReLU come before each of them.
    pub convolutions: ConvPathConfig,
}

/// The main path `F(p) = W2 * g(norm(W1 * p))`, or `F(p) = W3 * g(norm(W2 * g(norm(W1 * p))))` in a bottleneck, where
/// `p = g(norm(a))` is the pre-activated input of the block.
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
    /// The norm before `W3`, in a bottleneck.
    pub bn3: Option<BatchNorm>,
    /// `W3`, in a bottleneck.
    pub conv3: Option<Conv2d>,
}

/// A pre-activation block without a shortcut: `a_out = F(g(norm(a)))`.
///
/// Should be created using [`PlainBlockConfig`] with a [`PreactPathConfig`].
#[derive(Module, Debug)]
pub struct PreactPlainBlock {
    /// The main path `F` with the norm before it.
    pub main_path: PreactPath,
}

/// A pre-activation block with a shortcut: `a_out = s · F(p) + α · shortcut(a)`, with `p = g(norm(a))`.
///
/// Where input and output shapes agree, the shortcut is the identity on `a`, so that the signal passes through the
/// block unchanged. Where they differ, the input of the shortcut is `p`, the same as that of the main path.
///
/// Should be created using [`ResidualBlockConfig`] with a [`PreactPathConfig`].
#[derive(Module, Debug)]
pub struct PreactResidualBlock {
    /// The main path `F` with the norm before it.
    pub main_path: PreactPath,
    /// The shortcut around the main path.
    pub shortcut: ConvShortcut,
    /// The skip strength α.
    pub skip_strength: f64,
    /// The branch scale s.
    pub branch_scale: f64,
    /// The survival probability q: the probability that the main path takes part in a training step.
    pub survival: f64,
}

impl PreactPathConfig {
    /// Initialises a new [main path](PreactPath). The device's random generator draws its weights.
    ///
    /// # Panics
    /// If a size is zero, or if the number of groups does not divide the number of channels.
    pub fn init(&self, device: &Device) -> PreactPath {
        let [(conv1, bn1), (conv2, bn2), (conv3, bn3)] = self.convolutions.layers(|shape| shape.channels[0], device);
        let (conv1, conv2) = (conv1.expect(AT_LEAST_TWO), conv2.expect(AT_LEAST_TWO));
        PreactPath { bn1, conv1, bn2, conv2, bn3, conv3 }
    }
}

impl PlainBlockConfig<PreactPathConfig> {
    /// Initialises a new [pre-activation block](PreactPlainBlock).
    ///
    /// # Panics
    /// If a size is zero, or if the number of groups does not divide the number of channels.
    pub fn init(&self, device: &Device) -> PreactPlainBlock {
        let block = seeded(PreactPlainBlock { main_path: self.main_path.init(device) }, self.seed);
        if !self.zero_init {
            return block;
        }
        PreactPlainBlock { main_path: block.main_path.zero_last_layer() }
    }
}

impl ResidualBlockConfig<PreactPathConfig> {
    /// Initialises a new [pre-activation block](PreactResidualBlock). The projection of its shortcut has no norm.
    ///
    /// # Panics
    /// If a size is zero, if the number of groups does not divide the number of channels, or if a zero-padding shortcut
    /// would have to drop channels.
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

    /// Builds a block of the given kind without applying the seed or zero initialisation.
    pub(crate) fn build_kind(&self, kind: BlockKind, device: &Device) -> PreactBlock {
        match kind {
            BlockKind::Plain => PreactBlock::Plain(PreactPlainBlock { main_path: self.main_path.init(device) }),
            BlockKind::Residual => PreactBlock::Residual(self.build(device)),
        }
    }
}

impl PreactPath {
    /// Computes `p = g(norm(a))`.
    ///
    /// # Shapes
    /// - a: `[batch, in_channels, height, width]`
    /// - output: the same shape
    pub fn preactivate(&self, a: Tensor<4>) -> Tensor<4> {
        preactivate(&self.bn1, a)
    }

    /// Computes `F(p)`.
    ///
    /// # Shapes
    /// - p: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, p: Tensor<4>) -> Tensor<4> {
        if let Some(output) = self.forward_fused(None, &p, Epilogue::identity) {
            return output;
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

    /// The output of each convolution.
    pub(crate) fn responses(&self, a: Tensor<4>) -> Vec<Tensor<4>> {
        let mut a = a;
        let respond = |(conv, norm): (&Conv2d, &Option<BatchNorm>)| {
            let z = conv.forward(relu(normalize(norm, a.clone())));
            a = z.clone();
            z
        };
        self.convolutions().into_iter().zip([&self.bn1, &self.bn2, &self.bn3]).map(respond).collect()
    }

    /// The convolutions, each with the norm after it. The last one has none.
    fn units(&self) -> (ConvUnit<'_>, ConvUnit<'_>, Option<ConvUnit<'_>>) {
        let third = self.conv3.as_ref().map(|conv3| unit(conv3, &None));
        (unit(&self.conv1, &self.bn2), unit(&self.conv2, &self.bn3), third)
    }

    /// Computes the main path and the epilogue in one kernel. Returns `None` if no kernel supports them.
    ///
    /// If `preactivation` is given, the input is `a`, and the kernel applies this norm and a ReLU to it first.
    /// Otherwise, the input is `p`.
    fn forward_fused<'a>(
        &self,
        preactivation: Option<&Option<BatchNorm>>,
        input: &Tensor<4>,
        epilogue: impl FnOnce() -> Epilogue<'a, 4>,
    ) -> Option<Tensor<4>> {
        match self.units() {
            (first, second, None) => fused(preactivation, &[first, second], input, epilogue),
            (first, second, Some(third)) => fused(preactivation, &[first, second, third], input, epilogue),
        }
    }

    fn zero_last_layer(mut self) -> Self {
        let last = self.conv3.as_mut().unwrap_or(&mut self.conv2);
        last.weight = zeroed(last.weight.clone());
        self
    }
}

impl Fold for PreactPath {
    /// Keeps the norm before the first convolution, because its input also goes to the shortcut.
    fn folded(mut self) -> Self {
        self.conv1 = fold_conv(self.conv1, self.bn2.take());
        if self.conv3.is_some() {
            self.conv2 = fold_conv(self.conv2, self.bn3.take());
        }
        self
    }
}

impl PreactPlainBlock {
    /// Computes `F(g(norm(a)))`.
    ///
    /// # Shapes
    /// The same as for [`PreactPath::forward`].
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        let path = &self.main_path;
        if let Some(output) = path.forward_fused(Some(&path.bn1), &a, Epilogue::identity) {
            return output;
        }
        path.forward(path.preactivate(a))
    }
}

impl PreactResidualBlock {
    /// Computes `q · s · F(g(norm(a))) + α · shortcut(a)`, with the survival probability q.
    ///
    /// # Shapes
    /// The same as for [`PreactPath::forward`].
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        self.forward_scaled(a, self.survival * self.branch_scale)
    }

    /// Computes the output for a training step with stochastic depth: `s · F(g(norm(a))) + α · shortcut(a)` if the main
    /// path survives, `α · shortcut(a)` otherwise.
    ///
    /// # Shapes
    /// The same as for [`PreactPath::forward`].
    pub fn forward_sampled(&self, a: Tensor<4>, survives: bool) -> Tensor<4> {
        if !survives {
            let (_, shortcut) = self.preactivate_and_shortcut(a);
            return scale(shortcut, self.skip_strength);
        }
        self.forward_scaled(a, self.branch_scale)
    }

    /// Computes the pre-activated input `p` and the output of the shortcut.
    fn preactivate_and_shortcut(&self, a: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let p = self.main_path.preactivate(a.clone());
        let shortcut = if self.shortcut.is_identity(a.dims()[1]) { a } else { self.shortcut.forward(p.clone()) };
        (p, shortcut)
    }

    fn forward_scaled(&self, a: Tensor<4>, main_path_scale: f64) -> Tensor<4> {
        let path = &self.main_path;
        let epilogue =
            || Epilogue { scale: main_path_scale, shortcut: self.shortcut.addend(self.skip_strength), relu: false };
        if let Some(output) = path.forward_fused(Some(&path.bn1), &a, epilogue) {
            return output;
        }
        let (p, shortcut) = self.preactivate_and_shortcut(a);
        scale(path.forward(p), main_path_scale) + scale(shortcut, self.skip_strength)
    }
}

/// A plain or residual pre-activation block, chosen at run time. Parameter paths are the same for both.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the tensors behind it are far larger")]
pub enum PreactBlock {
    /// A block without a shortcut.
    Plain(PreactPlainBlock),
    /// A block with a shortcut.
    Residual(PreactResidualBlock),
}

transparent_enum!(PreactBlock { Plain, Residual });

impl PreactBlock {
    /// Computes [`PreactPlainBlock::forward`] or [`PreactResidualBlock::forward`].
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Plain(block) => block.forward(a),
            Self::Residual(block) => block.forward(a),
        }
    }

    /// Computes [`PreactPlainBlock::forward`] or [`PreactResidualBlock::forward_sampled`].
    pub fn forward_sampled(&self, a: Tensor<4>, survives: bool) -> Tensor<4> {
        match self {
            Self::Plain(block) => block.forward(a),
            Self::Residual(block) => block.forward_sampled(a, survives),
        }
    }

    /// The survival probability, which is 1 for a plain block.
    pub fn survival(&self) -> f64 {
        match self {
            Self::Plain(_) => 1.0,
            Self::Residual(block) => block.survival,
        }
    }

    /// Computes the scaled outputs of the main path and of the shortcut. A plain block has no shortcut.
    pub(crate) fn branches(&self, a: Tensor<4>) -> (Tensor<4>, Option<Tensor<4>>) {
        match self {
            Self::Plain(block) => (block.forward(a), None),
            Self::Residual(block) => {
                let (p, shortcut) = block.preactivate_and_shortcut(a);
                let main_path = scale(block.main_path.forward(p), block.survival * block.branch_scale);
                (main_path, Some(scale(shortcut, block.skip_strength)))
            }
        }
    }

    /// Replaces the main path.
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
