use crate::{
    Activation, BlockKind, ConvBlock, ConvPathConfig, PreactBlock, ResidualBlockConfig, ShortcutOption,
    block::{Fold, seeded},
    transparent::{transparent_enum, transparent_struct},
};
use alloc::{string::String, vec::Vec};
use burn::{
    config::Config,
    tensor::{Device, Tensor},
};
use serde::Serialize;

/// Configuration of a [`Stage`].
#[derive(Config, Debug)]
pub struct StageConfig {
    /// The main path of the first block. The others have its output's channels, stride 1, and everything else of it.
    pub first: ConvPathConfig,
    /// The number of blocks, at least 1.
    pub blocks: usize,
    /// Plain or residual.
    #[config(default = "BlockKind::Residual")]
    pub kind: BlockKind,
    /// Where blocks have their norms and ReLUs.
    #[config(default = "Activation::Post")]
    pub activation: Activation,
    /// What shortcuts do where shapes differ.
    #[config(default = "ShortcutOption::Projection")]
    pub shortcut: ShortcutOption,
    /// α, the factor of the shortcuts.
    #[config(default = 1.0)]
    pub skip_strength: f64,
    /// s, the factor of the main paths in residual blocks.
    #[config(default = 1.0)]
    pub branch_scale: f64,
    /// The seed of the initial weights, which are then a function of (seed, parameter path); without one the
    /// device's generator draws them.
    pub seed: Option<u64>,
    /// Whether the last layer of each main path starts at zero, see [`InitConfig`](crate::InitConfig).
    #[config(default = false)]
    pub zero_init: bool,
}

/// A row of convolutional blocks, as networks are made of: the first changes channels and resolution, the others keep
/// them. The paths of its parameters begin with the blocks' numbers.
///
/// Should be created using [`StageConfig`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use residual_model::{ConvPathConfig, StageConfig};
///
/// let device = Device::flex();
/// let stage = StageConfig::new(ConvPathConfig::new(16, 32).with_stride(2), 3).init(&device);
/// assert_eq!(stage.forward(Tensor::ones([1, 16, 8, 8], &device)).dims(), [1, 32, 4, 4]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// The blocks, first to last.
    pub blocks: Vec<NetworkBlock>,
}

transparent_struct!(Stage { blocks });

/// A stage as those need to know it who build on its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageInfo {
    /// The field's name: `layer1` …, or `blocks` in a dense network.
    pub name: String,
    /// Channels of its output.
    pub channels: usize,
    /// The image's size over its output's; `None` in a dense network, whose features have no place in the image.
    pub stride: Option<usize>,
}

/// A block of either [`Activation`]. Parameter paths are those of the block inside.
#[derive(Clone, Debug)]
pub enum NetworkBlock {
    /// Norms and ReLUs after convolutions.
    Post(ConvBlock),
    /// Norms and ReLUs before convolutions.
    Pre(PreactBlock),
}

transparent_enum!(NetworkBlock { Post, Pre });

impl StageConfig {
    /// Builds the stage.
    ///
    /// # Panics
    /// If a size is zero, groups do not divide the channels, or a zero-padding shortcut would have to drop channels.
    pub fn init(&self, device: &Device) -> Stage {
        assert!(self.blocks > 0, "a stage must have at least 1 block");
        let others = ConvPathConfig { in_channels: self.first.out_channels, stride: 1, ..self.first.clone() };
        let block = |i| {
            let path = if i == 0 { self.first.clone() } else { others.clone() };
            let config = ResidualBlockConfig::new(path)
                .with_shortcut(self.shortcut)
                .with_skip_strength(self.skip_strength)
                .with_branch_scale(self.branch_scale);
            NetworkBlock::new(config, self.kind, self.activation, device)
        };
        let stage = seeded(Stage { blocks: (0..self.blocks).map(block).collect() }, self.seed);
        if !self.zero_init {
            return stage;
        }
        Stage { blocks: stage.blocks.into_iter().map(NetworkBlock::zero_last_layer).collect() }
    }
}

impl Stage {
    /// The last block's output.
    ///
    /// # Shapes
    /// - a: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(a, |a, block| block.forward(a))
    }
}

impl NetworkBlock {
    /// Builds a block, its weights to be drawn.
    pub(super) fn new(
        config: ResidualBlockConfig<ConvPathConfig>,
        kind: BlockKind,
        activation: Activation,
        device: &Device,
    ) -> Self {
        match activation {
            Activation::Post => Self::Post(config.build_kind(kind, device)),
            Activation::Pre => Self::Pre(config.map_path(ConvPathConfig::preactivated).build_kind(kind, device)),
        }
    }

    /// The block's output.
    ///
    /// # Shapes
    /// - a: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Post(block) => block.forward(a),
            Self::Pre(block) => block.forward(a),
        }
    }

    /// The block's output in a training step with stochastic depth.
    ///
    /// # Shapes
    /// As [`Self::forward`]'s.
    pub fn forward_sampled(&self, a: Tensor<4>, survives: bool) -> Tensor<4> {
        match self {
            Self::Post(block) => block.forward_sampled(a, survives),
            Self::Pre(block) => block.forward_sampled(a, survives),
        }
    }

    pub(super) fn survival(&self) -> f64 {
        match self {
            Self::Post(block) => block.survival(),
            Self::Pre(block) => block.survival(),
        }
    }

    pub(super) fn zero_last_layer(self) -> Self {
        match self {
            Self::Post(block) => Self::Post(block.zero_last_layer()),
            Self::Pre(block) => Self::Pre(block.zero_last_layer()),
        }
    }
}

impl Fold for NetworkBlock {
    fn folded(self) -> Self {
        match self {
            Self::Post(block) => Self::Post(block.folded()),
            Self::Pre(block) => Self::Pre(block.folded()),
        }
    }
}
