use crate::{
    Activation, BlockKind, ConvBlock, ConvPathConfig, PreactBlock, ResidualBlockConfig, ShortcutOption,
    init::seeded,
    norm::Fold,
    transparent::{transparent_enum, transparent_struct},
};
use alloc::{string::String, vec::Vec};
use burn::{
    config::Config,
    tensor::{Device, Tensor},
};
use serde::Serialize;

/// Configuration to create a [`Stage`].
#[derive(Config, Debug)]
pub struct StageConfig {
    /// The main path of the first block. The other blocks have the same main path, but with stride 1 and `out_channels`
    /// input channels.
    pub first: ConvPathConfig,
    /// The number of blocks, at least 1.
    pub blocks: usize,
    /// Whether the blocks are plain or residual.
    #[config(default = "BlockKind::Residual")]
    pub kind: BlockKind,
    /// The position of norms and ReLUs: after or before the convolutions.
    #[config(default = "Activation::Post")]
    pub activation: Activation,
    /// The kind of shortcut where input and output shapes differ.
    #[config(default = "ShortcutOption::Projection")]
    pub shortcut: ShortcutOption,
    /// The skip strength α: the factor of the shortcuts.
    #[config(default = 1.0)]
    pub skip_strength: f64,
    /// The branch scale s: the factor of the main paths in residual blocks.
    #[config(default = 1.0)]
    pub branch_scale: f64,
    /// The seed of the initial weights, which are then a pure function of (seed, parameter path). Without a seed, the
    /// device's random generator draws the weights.
    pub seed: Option<u64>,
    /// Whether the last layer of each main path starts at zero; see [`InitConfig`](crate::InitConfig).
    #[config(default = false)]
    pub zero_init: bool,
}

/// A sequence of convolutional blocks. The first block may change the number of channels and the resolution; the other
/// blocks keep both. Parameter paths start with the index of the block.
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
    /// The blocks in order.
    pub blocks: Vec<NetworkBlock>,
}

transparent_struct!(Stage { blocks });

/// The name, channels and stride of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageInfo {
    /// The name of the stage's field in the backbone: `layer1`, `layer2` and so on, or `blocks` in a dense network.
    pub name: String,
    /// The number of output channels.
    pub channels: usize,
    /// The ratio of the image size to the output size. `None` in a dense network, whose features have no position in
    /// the image.
    pub stride: Option<usize>,
}

/// A convolutional block: post-activation or pre-activation. Parameter paths are the same as those of the inner block.
#[derive(Clone, Debug)]
pub enum NetworkBlock {
    /// Norms and ReLUs come after the convolutions.
    Post(ConvBlock),
    /// Norms and ReLUs come before the convolutions.
    Pre(PreactBlock),
}

transparent_enum!(NetworkBlock { Post, Pre });

impl StageConfig {
    /// Initialises a new [stage](Stage).
    ///
    /// # Panics
    /// If a size or the number of blocks is zero, if the number of groups does not divide the number of channels, or if
    /// a zero-padding shortcut would have to drop channels.
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
    /// Computes the output of the last block.
    ///
    /// # Shapes
    /// - a: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(a, |a, block| block.forward(a))
    }
}

impl NetworkBlock {
    /// Builds a block without applying the seed or zero initialisation.
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

    /// Computes the block's output.
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

    /// Computes the block's output for a training step with stochastic depth.
    ///
    /// # Shapes
    /// The same as for [`Self::forward`].
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
