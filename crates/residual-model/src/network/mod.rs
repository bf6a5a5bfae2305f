//! Whole networks, and what all of them have in common.

mod cifar;
mod dense;

pub use cifar::{CifarConfig, CifarNetwork};
pub use dense::{DenseConfig, DenseNetwork};

use crate::{
    BlockKind, BranchScale, Family, ModelError, NetName, Norm, ResidualBlockConfig, ShortcutOption, Summary,
    block::MainPathConfig, init::InitConfig, transparent::transparent_module,
};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// What the blocks of a network are like, whatever its family.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockOptions {
    /// Plain or residual.
    pub kind: BlockKind,
    /// What a shortcut does where shapes differ.
    pub shortcut: ShortcutOption,
    /// α, the factor of the shortcut.
    pub skip_strength: f64,
    /// s, the factor of the main path in a residual block.
    pub branch_scale: BranchScale,
    /// The norm after each layer.
    pub norm: Norm,
}

impl Default for BlockOptions {
    /// Residual, option A, `α = s = 1`, batch norm.
    fn default() -> Self {
        Self {
            kind: BlockKind::Residual,
            shortcut: ShortcutOption::ZeroPad,
            skip_strength: 1.0,
            branch_scale: BranchScale::One,
            norm: Norm::Batch,
        }
    }
}

impl BlockOptions {
    /// The defaults, of this kind.
    pub fn of_kind(kind: BlockKind) -> Self {
        Self { kind, ..Self::default() }
    }

    fn validate(&self) -> Result<(), ModelError> {
        if self.skip_strength.is_finite() && self.skip_strength >= 0.0 {
            return Ok(());
        }
        Err(ModelError::Range {
            name: "the skip strength",
            expected: "a finite number of at least 0",
            value: self.skip_strength.to_string(),
        })
    }

    /// Whether blocks whose shapes differ, or do not, have a projection.
    fn projects(&self, shapes_differ: bool) -> bool {
        self.kind == BlockKind::Residual && self.shortcut.projects(shapes_differ)
    }

    fn block<C: MainPathConfig>(&self, path: C, blocks: usize, device: &Device) -> crate::Block<C::Path, C::Shortcut> {
        ResidualBlockConfig::new(path)
            .with_shortcut(self.shortcut)
            .with_skip_strength(self.skip_strength)
            .with_branch_scale(self.branch_scale.factor(blocks))
            .build_kind(self.kind, device)
    }
}

/// Configuration of any [`Network`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum NetworkConfig {
    /// Fully connected.
    Dense(DenseConfig),
    /// Convolutional.
    Conv(CifarConfig),
}

impl NetworkConfig {
    /// The network of this name for images `[channels, height, width]`, everything else at its
    /// default (dense width 64, convolutional width 16, option A, batch norm, seed 0).
    pub fn new(name: NetName, image: [usize; 3], classes: usize) -> Self {
        let blocks = BlockOptions::of_kind(name.kind);
        match name.family {
            Family::Dense => {
                let features = image.iter().product();
                Self::Dense(DenseConfig::new(name.depth, features, classes).with_blocks(blocks))
            }
            Family::Conv => Self::Conv(CifarConfig::new(name.depth, image, classes).with_blocks(blocks)),
        }
    }

    /// Sets the features of a dense net, or the channels of a convolutional net's first stage.
    pub fn with_width(self, width: usize) -> Self {
        match self {
            Self::Dense(config) => Self::Dense(config.with_width(width)),
            Self::Conv(config) => Self::Conv(config.with_width(width)),
        }
    }

    /// Sets what the blocks are like.
    pub fn with_blocks(self, blocks: BlockOptions) -> Self {
        match self {
            Self::Dense(config) => Self::Dense(config.with_blocks(blocks)),
            Self::Conv(config) => Self::Conv(config.with_blocks(blocks)),
        }
    }

    /// Sets the initial weights.
    pub fn with_init(self, init: InitConfig) -> Self {
        match self {
            Self::Dense(config) => Self::Dense(config.with_init(init)),
            Self::Conv(config) => Self::Conv(config.with_init(init)),
        }
    }

    /// Sets the number of classes.
    pub fn with_classes(self, classes: usize) -> Self {
        match self {
            Self::Dense(config) => Self::Dense(DenseConfig { classes, ..config }),
            Self::Conv(config) => Self::Conv(CifarConfig { classes, ..config }),
        }
    }

    /// The network's name.
    pub fn name(&self) -> NetName {
        let (family, depth) = match self {
            Self::Dense(config) => (Family::Dense, config.depth),
            Self::Conv(config) => (Family::Conv, config.depth),
        };
        NetName { family, kind: self.blocks().kind, depth }
    }

    /// What the blocks are like.
    pub fn blocks(&self) -> &BlockOptions {
        match self {
            Self::Dense(config) => &config.blocks,
            Self::Conv(config) => &config.blocks,
        }
    }

    /// The initial weights.
    pub fn init_config(&self) -> &InitConfig {
        match self {
            Self::Dense(config) => &config.init,
            Self::Conv(config) => &config.init,
        }
    }

    /// Features of a dense net, channels of a convolutional net's first stage.
    pub fn width(&self) -> usize {
        match self {
            Self::Dense(config) => config.width,
            Self::Conv(config) => config.width,
        }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        match self {
            Self::Dense(config) => config.classes,
            Self::Conv(config) => config.classes,
        }
    }

    /// The number of values in an input image.
    pub fn features(&self) -> usize {
        match self {
            Self::Dense(config) => config.features,
            Self::Conv(config) => config.image.iter().product(),
        }
    }

    /// Fails unless there is such a network.
    ///
    /// # Errors
    /// A depth the family does not have, a size of zero, or a skip strength out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self {
            Self::Dense(config) => config.validate(),
            Self::Conv(config) => config.validate(),
        }
    }

    /// Builds the network on the device.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn init(&self, device: &Device) -> Network {
        match self {
            Self::Dense(config) => Network::Dense(config.init(device)),
            Self::Conv(config) => Network::Conv(config.init(device)),
        }
    }

    /// Layers, shapes, parameters and multiply-adds.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn summary(&self) -> Summary {
        match self {
            Self::Dense(config) => config.summary(),
            Self::Conv(config) => config.summary(),
        }
    }
}

/// Any of the networks. Parameter paths are those of the network inside.
#[derive(Clone, Debug)]
pub enum Network {
    /// Fully connected.
    Dense(DenseNetwork),
    /// Convolutional.
    Conv(CifarNetwork),
}

transparent_module!(Network { Dense, Conv });

impl Network {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Dense(network) => network.forward(images.flatten(1, 3)),
            Self::Conv(network) => network.forward(images),
        }
    }
}

fn at_least_one(sizes: &[(&'static str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(ModelError::Zero(name)),
        None => Ok(()),
    }
}

fn panic_unless_valid(result: Result<(), ModelError>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}
