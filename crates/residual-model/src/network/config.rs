use super::{
    Activation, Backbone, BlockOptions, BlockShape, ConvArchitecture, DenseArchitecture, Network, Part, StageInfo,
    Stem, at_least_one, at_most_largest, panic_unless_valid, small_enough,
};
use crate::{
    BlockKind, BranchScale, Family, ModelError, NetName, Norm, ShortcutOption, Summary,
    dense::linear,
    init::{InitConfig, he_normal},
};
use alloc::{vec, vec::Vec};
use burn::{config::Config, tensor::Device};
use serde::{Deserialize, Serialize};

/// Configuration of a [`Network`].
///
/// The functions of [`published`](super::published) and [`NetworkConfig::new`] make the published ones, of which
/// everything can then be changed:
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use residual_model::{Norm, cifar_resnet, resnet18};
///
/// let device = Device::flex();
/// let network = cifar_resnet(8).with_width(4).with_norm(Norm::None).init(&device);
/// assert_eq!(network.forward(Tensor::ones([2, 3, 32, 32], &device)).dims(), [2, 10]);
/// assert_eq!(resnet18(1000).summary().parameters(), 11_689_512);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// What it is made of.
    #[serde(flatten)]
    pub architecture: Architecture,
    /// Number of classes.
    pub classes: usize,
    /// Features of a dense net's hidden layers; channels of a convolutional net's stem, and of the 3x3 convolutions of
    /// its first stage.
    pub width: usize,
    /// What the blocks are like.
    pub blocks: BlockOptions,
    /// The initial weights.
    pub init: InitConfig,
}

impl Config for NetworkConfig {}

/// What a network is made of, but for what every network has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum Architecture {
    /// Fully connected.
    Dense(DenseArchitecture),
    /// Convolutional.
    Conv(ConvArchitecture),
}

impl NetworkConfig {
    /// The network of this name for images `[channels, height, width]`, everything else at its
    /// default: dense width 64, option A for basic blocks on small images and option B for others,
    /// batch norm, seed 0.
    ///
    /// # Panics
    /// If the family has no network of this depth.
    pub fn new(name: NetName, image: [usize; 3], classes: usize) -> Self {
        panic_unless_valid(name.family.check_depth(name.depth));
        let config = match name.family {
            Family::Dense => Self::dense(name.depth, image.iter().product(), classes),
            _ => ConvArchitecture::named(name, image, classes),
        };
        config.with_kind(name.kind)
    }

    /// A dense network: its depth counts the weighted layers, one in, one out and two in each block, so that it is
    /// even.
    pub fn dense(depth: usize, features: usize, classes: usize) -> Self {
        let architecture = Architecture::Dense(DenseArchitecture { depth, features });
        Self { architecture, classes, width: 64, blocks: BlockOptions::default(), init: InitConfig::default() }
    }

    /// A convolutional network for images `[channels, height, width]` with so many basic blocks in each of one to four
    /// stages, the small stem, width 16 and option B.
    pub fn conv(image: [usize; 3], classes: usize, stages: impl Into<Vec<usize>>) -> Self {
        let architecture = Architecture::Conv(ConvArchitecture {
            image,
            stages: stages.into(),
            stem: Stem::default(),
            shape: BlockShape::default(),
            activation: Activation::default(),
            output_stride: None,
        });
        Self { architecture, classes, width: 16, blocks: BlockOptions::default(), init: InitConfig::default() }
    }

    /// Sets the features of a dense net's hidden layers, or the channels of a convolutional net's first stage.
    pub fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    /// Sets the number of classes.
    pub fn with_classes(self, classes: usize) -> Self {
        Self { classes, ..self }
    }

    /// Sets the shape of an image, `[channels, height, width]`. A convolutional network takes images of any height and
    /// width; these are for its summary. A dense one takes exactly so many values.
    pub fn with_image(mut self, image: [usize; 3]) -> Self {
        match &mut self.architecture {
            Architecture::Dense(dense) => dense.features = image.iter().product(),
            Architecture::Conv(conv) => conv.image = image,
        }
        self
    }

    /// Sets all that the blocks are like.
    pub fn with_blocks(self, blocks: BlockOptions) -> Self {
        Self { blocks, ..self }
    }

    /// Sets whether the blocks are plain or residual.
    pub fn with_kind(mut self, kind: BlockKind) -> Self {
        self.blocks.kind = kind;
        self
    }

    /// Sets what shortcuts do where shapes differ.
    pub fn with_shortcut(mut self, shortcut: ShortcutOption) -> Self {
        self.blocks.shortcut = shortcut;
        self
    }

    /// Sets α, the factor of the shortcuts.
    pub fn with_skip_strength(mut self, skip_strength: f64) -> Self {
        self.blocks.skip_strength = skip_strength;
        self
    }

    /// Sets s, the factor of the main paths.
    pub fn with_branch_scale(mut self, branch_scale: BranchScale) -> Self {
        self.blocks.branch_scale = branch_scale;
        self
    }

    /// Sets the norm after each layer.
    pub fn with_norm(mut self, norm: Norm) -> Self {
        self.blocks.norm = norm;
        self
    }

    /// Sets the probability that the last block takes part in a training step (stochastic depth).
    pub fn with_last_survival(mut self, last_survival: f64) -> Self {
        self.blocks.last_survival = last_survival;
        self
    }

    /// Sets the initial weights.
    pub fn with_init(self, init: InitConfig) -> Self {
        Self { init, ..self }
    }

    /// Sets the seed of the initial weights. Networks of one configuration with the same seed start with the same
    /// weights, so the members of an ensemble take different ones.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.init.seed = seed;
        self
    }

    /// Sets whether the last layer of each block's main path starts at zero.
    pub fn with_zero_init(mut self, zero_init: bool) -> Self {
        self.init.zero_init = zero_init;
        self
    }

    /// Sets what comes before a convolutional network's first stage.
    ///
    /// # Panics
    /// If the network is dense.
    pub fn with_stem(self, stem: Stem) -> Self {
        self.with_conv(|conv| conv.stem = stem)
    }

    /// Sets the convolutions of a convolutional network's blocks.
    ///
    /// # Panics
    /// If the network is dense.
    pub fn with_shape(self, shape: BlockShape) -> Self {
        self.with_conv(|conv| conv.shape = shape)
    }

    /// Sets where a convolutional network's blocks have their norms and ReLUs.
    ///
    /// # Panics
    /// If the network is dense.
    pub fn with_activation(self, activation: Activation) -> Self {
        self.with_conv(|conv| conv.activation = activation)
    }

    /// Keeps the size of a convolutional network's input over that of its last stage's output at this, with dilation
    /// instead of stride in the stages beyond. For bottlenecks.
    ///
    /// # Panics
    /// If the network is dense.
    pub fn with_output_stride(self, output_stride: impl Into<Option<usize>>) -> Self {
        self.with_conv(|conv| conv.output_stride = output_stride.into())
    }

    fn with_conv(mut self, set: impl FnOnce(&mut ConvArchitecture)) -> Self {
        match &mut self.architecture {
            Architecture::Conv(conv) => set(conv),
            Architecture::Dense(_) => panic!("{}", ModelError::ConvOnly),
        }
        self
    }

    /// What a convolutional network is made of; `None` for a dense one.
    pub fn as_conv(&self) -> Option<&ConvArchitecture> {
        match &self.architecture {
            Architecture::Conv(conv) => Some(conv),
            Architecture::Dense(_) => None,
        }
    }

    /// The network's name. Options that a name does not say, such as widths and shortcuts, may differ.
    pub fn name(&self) -> NetName {
        let family = match &self.architecture {
            Architecture::Dense(_) => Family::Dense,
            Architecture::Conv(conv) => conv.family(),
        };
        NetName { family, kind: self.blocks.kind, depth: self.depth() }
    }

    /// Weighted layers on the main path.
    pub fn depth(&self) -> usize {
        match &self.architecture {
            Architecture::Dense(dense) => dense.depth,
            Architecture::Conv(conv) => conv.depth(),
        }
    }

    /// The parts it has, from the first to the last.
    pub fn parts(&self) -> Vec<Part> {
        let stages = self.as_conv().map_or(1, |conv| conv.stages.len());
        Part::all(stages)
    }

    /// The number of blocks.
    pub fn block_count(&self) -> usize {
        match &self.architecture {
            Architecture::Dense(dense) => dense.block_count(),
            Architecture::Conv(conv) => conv.block_count(),
        }
    }

    /// The number of values in an input image.
    pub fn features(&self) -> usize {
        match &self.architecture {
            Architecture::Dense(dense) => dense.features,
            Architecture::Conv(conv) => conv.image.iter().product(),
        }
    }

    /// The number of features that the head takes.
    pub fn embedding(&self) -> usize {
        match &self.architecture {
            Architecture::Dense(_) => self.width,
            Architecture::Conv(conv) => conv.out_channels(self.width, conv.stages.len().saturating_sub(1)),
        }
    }

    /// The stages' names, channels and strides, for those who build on their outputs.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn stages(&self) -> Vec<StageInfo> {
        panic_unless_valid(self.validate());
        match &self.architecture {
            Architecture::Dense(_) => vec![StageInfo { name: "blocks".into(), channels: self.width, stride: None }],
            Architecture::Conv(conv) => conv.stage_list(self),
        }
    }

    /// Fails unless there is such a network.
    ///
    /// # Errors
    /// A depth that the family does not have, a size of zero or beyond reason, a number of stages other than one to
    /// four, an output stride that the network cannot have, or options out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [("classes", self.classes), ("width", self.width)];
        match &self.architecture {
            Architecture::Dense(dense) => dense.validate()?,
            Architecture::Conv(conv) => conv.validate_sizes()?,
        }
        at_least_one(&sizes)?;
        at_most_largest(&sizes)?;
        if let Architecture::Conv(conv) = &self.architecture {
            conv.validate_blocks(self.width)?;
        }
        self.blocks.validate()?;
        small_enough(&self.count())
    }

    /// Builds the network on the device.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn init(&self, device: &Device) -> Network {
        panic_unless_valid(self.validate());
        let backbone = match &self.architecture {
            Architecture::Dense(dense) => Backbone::Dense(dense.init(self, device)),
            Architecture::Conv(conv) => Backbone::Conv(conv.init(self, device)),
        };
        let fc = linear([self.embedding(), self.classes], Norm::None, device);
        let network = he_normal(Network { backbone, fc }, self.init.seed);
        if self.init.zero_init {
            return Network { backbone: network.backbone.zero_last_layers(), ..network };
        }
        network
    }

    /// Layers, shapes, parameters and multiply-adds.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn summary(&self) -> Summary {
        panic_unless_valid(self.validate());
        self.count()
    }

    fn count(&self) -> Summary {
        let mut summary = Summary::new(self.blocks.norm);
        match &self.architecture {
            Architecture::Dense(dense) => dense.count(self, &mut summary),
            Architecture::Conv(conv) => conv.count(self, &mut summary),
        }
        summary.head(self.embedding(), self.classes);
        summary
    }
}
