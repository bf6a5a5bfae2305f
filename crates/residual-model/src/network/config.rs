use super::{
    Activation, Backbone, BlockOptions, BlockShape, ConvArchitecture, DenseArchitecture, Network, Part, StageInfo,
    Stem, at_least_one, at_most_max_size, check_parameters, panic_unless_valid,
};
use crate::{
    BlockKind, BranchScale, Family, ModelError, NetName, Norm, ShortcutOption, Summary,
    dense::linear,
    init::{InitConfig, he_normal},
};
use alloc::{vec, vec::Vec};
use burn::{config::Config, tensor::Device};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`Network`].
///
/// The functions in [`published`](super::published) and [`NetworkConfig::new`] configure published networks. The
/// `with_` methods change single settings:
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
    /// The architecture of the backbone.
    #[serde(flatten)]
    pub architecture: Architecture,
    /// The number of classes.
    pub classes: usize,
    /// In a dense network, the number of features of the hidden layers. In a convolutional network, the number of
    /// channels of the stem and of the 3x3 convolutions of the first stage.
    pub width: usize,
    /// The options of the blocks.
    pub blocks: BlockOptions,
    /// The initial weights.
    pub init: InitConfig,
}

impl Config for NetworkConfig {}

/// The part of a configuration that depends on whether the network is dense or convolutional.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum Architecture {
    /// A fully-connected network.
    Dense(DenseArchitecture),
    /// A convolutional network.
    Conv(ConvArchitecture),
}

impl NetworkConfig {
    /// Configures the network with this name for images `[channels, height, width]`. By default, it has batch norm and
    /// seed 0. The width of a dense network is 64. Shortcuts are option A in networks with basic blocks for small
    /// images, and option B in others.
    ///
    /// # Panics
    /// If the family has no network of this depth, or is [`Family::Custom`].
    pub fn new(name: NetName, image: [usize; 3], classes: usize) -> Self {
        panic_unless_valid(name.family.check_depth(name.depth));
        let config = match name.family {
            Family::Dense => Self::dense(name.depth, image.iter().product(), classes),
            _ => ConvArchitecture::named(name, image, classes),
        };
        config.with_kind(name.kind)
    }

    /// Configures a dense network of width 64. The depth counts the weighted layers: the input layer, the output layer
    /// and two layers per block. It must be even.
    pub fn dense(depth: usize, features: usize, classes: usize) -> Self {
        let architecture = Architecture::Dense(DenseArchitecture { depth, features });
        Self { architecture, classes, width: 64, blocks: BlockOptions::default(), init: InitConfig::default() }
    }

    /// Configures a convolutional network for images `[channels, height, width]`, with one to four stages of basic
    /// blocks, the small stem, width 16 and option B shortcuts. `stages` gives the number of blocks in each stage.
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

    /// Sets the number of features of a dense network's hidden layers, or the number of channels of a convolutional
    /// network's first stage.
    pub fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    /// Sets the number of classes.
    pub fn with_classes(self, classes: usize) -> Self {
        Self { classes, ..self }
    }

    /// Sets the shape `[channels, height, width]` of an image. A dense network takes images with exactly this number of
    /// values. A convolutional network takes images of any height and width, and uses this height and width only in its
    /// summary.
    pub fn with_image(mut self, image: [usize; 3]) -> Self {
        match &mut self.architecture {
            Architecture::Dense(dense) => dense.features = image.iter().product(),
            Architecture::Conv(conv) => conv.image = image,
        }
        self
    }

    /// Sets all options of the blocks.
    pub fn with_blocks(self, blocks: BlockOptions) -> Self {
        Self { blocks, ..self }
    }

    /// Sets whether the blocks are plain or residual.
    pub fn with_kind(mut self, kind: BlockKind) -> Self {
        self.blocks.kind = kind;
        self
    }

    /// Sets the kind of shortcut where input and output shapes differ.
    pub fn with_shortcut(mut self, shortcut: ShortcutOption) -> Self {
        self.blocks.shortcut = shortcut;
        self
    }

    /// Sets the skip strength α, the factor of the shortcuts.
    pub fn with_skip_strength(mut self, skip_strength: f64) -> Self {
        self.blocks.skip_strength = skip_strength;
        self
    }

    /// Sets the branch scale s, the factor of the main paths.
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

    /// Sets the seed of the initial weights, and whether the last layer of each block's main path starts at zero.
    pub fn with_init(self, init: InitConfig) -> Self {
        Self { init, ..self }
    }

    /// Sets the seed of the initial weights. Networks with the same configuration and seed start with the same weights,
    /// so give the members of an ensemble different seeds.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.init.seed = seed;
        self
    }

    /// Sets whether the last layer of each block's main path starts at zero.
    pub fn with_zero_init(mut self, zero_init: bool) -> Self {
        self.init.zero_init = zero_init;
        self
    }

    /// Sets the layers before a convolutional network's first stage.
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

    /// Sets the position of norms and ReLUs in a convolutional network's blocks.
    ///
    /// # Panics
    /// If the network is dense.
    pub fn with_activation(self, activation: Activation) -> Self {
        self.with_conv(|conv| conv.activation = activation)
    }

    /// Sets the output stride of a convolutional network: the ratio of the image size to the output size of the last
    /// stage. Stages that would exceed it use dilation instead of stride. Only networks of bottlenecks support it.
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

    /// The architecture of a convolutional network, or `None` if the network is dense.
    pub fn as_conv(&self) -> Option<&ConvArchitecture> {
        match &self.architecture {
            Architecture::Conv(conv) => Some(conv),
            Architecture::Dense(_) => None,
        }
    }

    /// The name of the network. Networks with the same name may differ in other options, such as width and shortcuts.
    pub fn name(&self) -> NetName {
        let family = match &self.architecture {
            Architecture::Dense(_) => Family::Dense,
            Architecture::Conv(conv) => conv.family(),
        };
        NetName { family, kind: self.blocks.kind, depth: self.depth() }
    }

    /// The number of weighted layers on the main path.
    pub fn depth(&self) -> usize {
        match &self.architecture {
            Architecture::Dense(dense) => dense.depth,
            Architecture::Conv(conv) => conv.depth(),
        }
    }

    /// The parts of the network, from first to last.
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

    /// The number of input features of the head.
    pub fn embedding(&self) -> usize {
        match &self.architecture {
            Architecture::Dense(_) => self.width,
            Architecture::Conv(conv) => conv.out_channels(self.width, conv.stages.len().saturating_sub(1)),
        }
    }

    /// The names, channels and strides of the stages, for example to build a decoder on their outputs.
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

    /// Checks that the configuration is valid.
    ///
    /// # Errors
    /// If the depth of a dense network is odd, a size is zero or too large, the number of stages is not one to four,
    /// the network cannot have the output stride, an option is out of range, or the network has more than 10 billion
    /// parameters.
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [("classes", self.classes), ("width", self.width)];
        match &self.architecture {
            Architecture::Dense(dense) => dense.validate()?,
            Architecture::Conv(conv) => conv.validate_sizes()?,
        }
        at_least_one(&sizes)?;
        at_most_max_size(&sizes)?;
        if let Architecture::Conv(conv) = &self.architecture {
            conv.validate_blocks(self.width)?;
        }
        self.blocks.validate()?;
        check_parameters(&self.count())
    }

    /// Initialises a new [network](Network) on the device.
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

    /// The layers of the network with their output shapes, parameters and multiply-adds.
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
