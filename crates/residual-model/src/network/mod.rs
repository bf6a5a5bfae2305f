//! Whole networks, and what all of them have in common.

mod anatomy;
mod conv;
mod dense;
mod part;

pub use anatomy::{BlockView, Branches};
pub use conv::{Activation, BlockShape, ConvConfig, ConvNetwork, NetworkBlock, Stem};
pub use dense::{DenseConfig, DenseNetwork};
pub use part::Part;

use crate::{
    BlockKind, BranchScale, Family, ModelError, NetName, Norm, ResidualBlockConfig, ShortcutOption, Summary,
    block::MainPathConfig, init::InitConfig, stochastic_depth, transparent::transparent_module,
};
use alloc::{
    string::{String, ToString},
    vec::Vec,
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
    /// Stochastic depth: the probability that the last block takes part in a training step; 1 is
    /// without. Earlier blocks take part more often, see [`stochastic_depth::survival`].
    pub last_survival: f64,
}

impl Default for BlockOptions {
    /// Residual, option A, `α = s = 1`, batch norm, no stochastic depth.
    fn default() -> Self {
        Self {
            kind: BlockKind::Residual,
            shortcut: ShortcutOption::ZeroPad,
            skip_strength: 1.0,
            branch_scale: BranchScale::One,
            norm: Norm::Batch,
            last_survival: 1.0,
        }
    }
}

impl BlockOptions {
    /// The defaults, of this kind.
    pub fn of_kind(kind: BlockKind) -> Self {
        Self { kind, ..Self::default() }
    }

    fn validate(&self) -> Result<(), ModelError> {
        let range = |name, expected, value: f64| Err(ModelError::Range { name, expected, value: value.to_string() });
        if !(self.skip_strength.is_finite() && self.skip_strength >= 0.0) {
            return range("the skip strength", "a finite number of at least 0", self.skip_strength);
        }
        if !(self.last_survival > 0.0 && self.last_survival <= 1.0) {
            return range("the survival probability", "above 0 and at most 1", self.last_survival);
        }
        if self.kind == BlockKind::Plain && self.last_survival < 1.0 {
            return range("the survival probability", "1 in a plain net, whose blocks all count", self.last_survival);
        }
        Ok(())
    }

    /// The survival probability of a block, counted from 1.
    fn survival(&self, block: usize, blocks: usize) -> f64 {
        stochastic_depth::survival(block, blocks, self.last_survival)
    }

    /// Whether blocks whose shapes differ, or do not, have a projection.
    fn projects(&self, shapes_differ: bool) -> bool {
        self.kind == BlockKind::Residual && self.shortcut.projects(shapes_differ)
    }

    /// Builds a block, counted from 1.
    fn block<C: MainPathConfig>(
        &self,
        path: C,
        block: usize,
        blocks: usize,
        device: &Device,
    ) -> crate::Block<C::Path, C::Shortcut> {
        ResidualBlockConfig::new(path)
            .with_shortcut(self.shortcut)
            .with_skip_strength(self.skip_strength)
            .with_branch_scale(self.branch_scale.factor(blocks))
            .with_survival(self.survival(block, blocks))
            .build_kind(self.kind, device)
    }
}

/// Configuration of any [`Network`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum NetworkConfig {
    /// Fully connected.
    Dense(DenseConfig),
    /// Convolutional.
    Conv(ConvConfig),
}

impl NetworkConfig {
    /// The network of this name for images `[channels, height, width]`, everything else at its
    /// default: dense width 64, option A for basic blocks on small images and option B for others,
    /// batch norm, seed 0.
    ///
    /// # Panics
    /// If the family has no network of this depth.
    pub fn new(name: NetName, image: [usize; 3], classes: usize) -> Self {
        match name.family {
            Family::Dense => {
                let features = image.iter().product();
                let blocks = BlockOptions::of_kind(name.kind);
                Self::Dense(DenseConfig::new(name.depth, features, classes).with_blocks(blocks))
            }
            _ => Self::Conv(ConvConfig::named(name, image, classes)),
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
            Self::Conv(config) => Self::Conv(ConvConfig { classes, ..config }),
        }
    }

    /// The network's name. Options that a name does not say, such as widths and shortcuts, may differ.
    pub fn name(&self) -> NetName {
        match self {
            Self::Dense(config) => NetName { family: Family::Dense, kind: config.blocks.kind, depth: config.depth },
            Self::Conv(config) => config.name(),
        }
    }

    /// The parts it has, from the first to the last.
    pub fn parts(&self) -> Vec<Part> {
        let stages = match self {
            Self::Dense(_) => 1,
            Self::Conv(config) => config.stages.len(),
        };
        core::iter::once(Part::Stem).chain((1..=stages).map(Part::Stage)).chain([Part::Head]).collect()
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

    /// The number of blocks.
    pub fn block_count(&self) -> usize {
        match self {
            Self::Dense(config) => config.block_count(),
            Self::Conv(config) => config.block_count(),
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
#[expect(clippy::large_enum_variant, reason = "the tensors behind it are far larger")]
pub enum Network {
    /// Fully connected.
    Dense(DenseNetwork),
    /// Convolutional.
    Conv(ConvNetwork),
}

transparent_module!(Network { Dense, Conv });

/// What a network computes on its way.
#[derive(Clone, Debug)]
pub struct Features {
    /// The output of each stage: `[batch, channels, height, width]`.
    pub stages: Vec<Tensor<4>>,
    /// What the head takes: `[batch, features]`.
    pub embedding: Tensor<2>,
    /// Class scores before the softmax: `[batch, classes]`.
    pub logits: Tensor<2>,
}

/// A stage of a convolutional network, as those need it who build on its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// The field's name: `layer1` …
    pub name: String,
    /// Channels of its output.
    pub channels: usize,
    /// The image's size over its output's.
    pub stride: usize,
}

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

    /// Class scores of a training step: with stochastic depth the blocks that take part are a pure
    /// function of the seed and the step.
    ///
    /// # Shapes
    /// As [`Self::forward`]'s.
    pub fn forward_training(&self, images: Tensor<4>, seed: u64, step: u64) -> Tensor<2> {
        match self {
            Self::Dense(network) => network.forward_training(images.flatten(1, 3), seed, step),
            Self::Conv(network) => network.forward_training(images, seed, step),
        }
    }

    /// What the head takes.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    pub fn embed(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Dense(network) => network.embed(images.flatten(1, 3)),
            Self::Conv(network) => network.embed(images),
        }
    }

    /// Replaces the head by a new one with this many classes.
    pub fn with_head(self, classes: usize, seed: u64) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.with_head(classes, seed)),
            Self::Conv(network) => Self::Conv(network.with_head(classes, seed)),
        }
    }

    /// Freezes parts of the network: their parameters get no gradients, their batch norms use and
    /// keep their running statistics.
    ///
    /// # Errors
    /// If there is no such stage. The blocks of a dense net are its stage 1.
    pub fn freeze_parts(self, parts: &[Part]) -> Result<Self, ModelError> {
        match self {
            Self::Dense(network) => network.freeze_parts(parts).map(Self::Dense),
            Self::Conv(network) => network.freeze_parts(parts).map(Self::Conv),
        }
    }
}

fn at_least_one(sizes: &[(&'static str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(ModelError::Zero(name)),
        None => Ok(()),
    }
}

/// Larger than any network one would build, small enough for its sizes to be multiplied.
const LARGEST_SIZE: usize = 1 << 20;

/// 40 GB of weights.
const MOST_PARAMETERS: u64 = 10_000_000_000;

fn at_most_largest(sizes: &[(&'static str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size > LARGEST_SIZE) {
        Some((name, size)) => Err(ModelError::Range { name, expected: "at most 1048576", value: size.to_string() }),
        None => Ok(()),
    }
}

fn small_enough(summary: &Summary) -> Result<(), ModelError> {
    match summary.parameters() {
        n if n > MOST_PARAMETERS => Err(ModelError::Range {
            name: "the number of parameters",
            expected: "at most 10 billion",
            value: crate::summary::thousands(n),
        }),
        _ => Ok(()),
    }
}

fn panic_unless_valid(result: Result<(), ModelError>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}
