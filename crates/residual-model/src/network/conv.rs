use super::{NetworkConfig, Stage, StageInfo, at_least_one, at_most_largest, stage::NetworkBlock};
use crate::{
    Bottleneck, ConvPathConfig, Family, ModelError, NetName, ShortcutOption, StrideAt, Summary,
    conv::{ConvShape, conv},
    kernels::{max_pool, mean_pool, preactivate, unit},
    name::{imagenet_stages, preact_has_bottlenecks},
};
use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use burn::{
    module::Module,
    nn::{
        BatchNorm, PaddingConfig2d,
        conv::Conv2d,
        pool::{MaxPool2d, MaxPool2dConfig},
    },
    tensor::{Device, Tensor},
};
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// What a convolutional network is made of: a stem, one to four stages of blocks, global average pooling, one linear
/// layer (He et al. 2015, table 1 and section 4.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvArchitecture {
    /// `[channels, height, width]` of an image. The network takes any height and width; these are
    /// for its summary.
    pub image: [usize; 3],
    /// Blocks in each stage: one to four stages. The first keeps the stem's resolution, each of the
    /// others halves it and doubles the channels.
    pub stages: Vec<usize>,
    /// What comes before the first stage.
    pub stem: Stem,
    /// The convolutions of a block.
    pub shape: BlockShape,
    /// Where a block has its norms and ReLUs.
    pub activation: Activation,
    /// Keeps the input's size over that of the last stage's output at this, with dilation instead of
    /// stride in the stages beyond. For bottlenecks.
    pub output_stride: Option<usize>,
}

/// What comes before the first stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// A 3x3 convolution, for images of 32x32 and the like.
    #[default]
    Small,
    /// A 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2, for ImageNet's.
    Large,
}

impl Stem {
    fn stride(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Large => 4,
        }
    }

    fn conv(self, image_channels: usize, width: usize) -> ConvShape {
        match self {
            Self::Small => ConvShape::new([image_channels, width], 3, 1),
            Self::Large => ConvShape::new([image_channels, width], 7, 2),
        }
    }
}

impl FromStr for Stem {
    type Err = ModelError;

    fn from_str(word: &str) -> Result<Self, ModelError> {
        match word {
            "small" => Ok(Self::Small),
            "large" => Ok(Self::Large),
            _ => Err(ModelError::UnknownWord { what: "stem", word: word.into(), expected: "small or large" }),
        }
    }
}

/// The convolutions of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockShape {
    /// Two 3x3 convolutions.
    #[default]
    Basic,
    /// 1x1, 3x3, 1x1. In a stage of width w the 3x3 has `w · base_width / 64 · groups` channels, the
    /// output `4w`.
    Bottleneck {
        /// Groups of the 3x3 convolution.
        groups: usize,
        /// Channels of a group where w is 64.
        base_width: usize,
        /// Which convolution has the stride.
        stride: StrideAt,
    },
}

impl BlockShape {
    /// A bottleneck without groups, as in He et al. 2015.
    pub const fn bottleneck(stride: StrideAt) -> Self {
        Self::Bottleneck { groups: 1, base_width: 64, stride }
    }

    fn layers(self) -> usize {
        match self {
            Self::Basic => 2,
            Self::Bottleneck { .. } => 3,
        }
    }
}

/// Where a block has its norms and ReLUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// After each convolution, the last ReLU after the addition (He et al. 2015).
    #[default]
    Post,
    /// Before each convolution (He et al. 2016).
    Pre,
}

/// A convolutional network without its head: a stem, one to four stages of plain or residual blocks, global average
/// pooling (He et al. 2015, table 1 and section 4.2).
#[derive(Module, Debug)]
pub struct ConvBackbone {
    /// The stem's convolution.
    pub conv1: Conv2d,
    /// The stem's norm; a pre-activation net has none.
    pub bn1: Option<BatchNorm>,
    /// The large stem's pooling.
    pub maxpool: Option<MaxPool2d>,
    /// The first stage.
    pub layer1: Stage,
    /// The second stage, if any.
    pub layer2: Stage,
    /// The third stage, if any.
    pub layer3: Stage,
    /// The fourth stage, if any.
    pub layer4: Stage,
    /// The norm after the last stage of a pre-activation net.
    pub bn: Option<BatchNorm>,
    /// Whether the blocks are pre-activation ones.
    pub preact: bool,
}

impl ConvArchitecture {
    /// The network of this name: residual ones with option A for small images and basic blocks, with
    /// option B otherwise.
    ///
    /// # Panics
    /// If the family is not convolutional, or has no network of this depth.
    pub(super) fn named(name: NetName, image: [usize; 3], classes: usize) -> NetworkConfig {
        let NetName { family, depth, .. } = name;
        let small = |layers: usize| NetworkConfig::conv(image, classes, vec![(depth - 2) / (3 * layers); 3]);
        let large = |shape: BlockShape| {
            let stages = imagenet_stages(depth).expect("the depth was checked");
            let shape = if depth < 50 { BlockShape::Basic } else { shape };
            NetworkConfig::conv(image, classes, stages).with_stem(Stem::Large).with_width(64).with_shape(shape)
        };
        let bottleneck = |groups, base_width| BlockShape::Bottleneck { groups, base_width, stride: StrideAt::Middle };
        match family {
            Family::Conv => small(2).with_shortcut(ShortcutOption::ZeroPad),
            Family::Preact if preact_has_bottlenecks(depth) => {
                small(3).with_shape(BlockShape::bottleneck(StrideAt::First)).with_activation(Activation::Pre)
            }
            Family::Preact => small(2).with_shortcut(ShortcutOption::ZeroPad).with_activation(Activation::Pre),
            Family::ImageNet(stride) => large(BlockShape::bottleneck(stride)),
            Family::PreactImageNet => large(BlockShape::bottleneck(StrideAt::Middle)).with_activation(Activation::Pre),
            Family::Grouped(groups, base_width) => large(bottleneck(groups, base_width)),
            Family::Wide(factor) => large(bottleneck(1, 64 * factor)),
            Family::Dense | Family::Custom => panic!("{family} networks have no convolutional configuration"),
        }
    }

    /// The family that this is a network of.
    pub(super) fn family(&self) -> Family {
        let depth = self.depth();
        let bottleneck = |groups: usize, base_width: usize, stride| match (groups, base_width, self.activation) {
            (1, 64, Activation::Pre) if stride == StrideAt::Middle => Some(Family::PreactImageNet),
            (1, 64, Activation::Post) => Some(Family::ImageNet(stride)),
            (1, _, Activation::Post) if stride == StrideAt::Middle && base_width.is_multiple_of(64) => {
                Some(Family::Wide(base_width / 64))
            }
            (_, _, Activation::Post) if groups > 1 && stride == StrideAt::Middle => {
                Some(Family::Grouped(groups, base_width))
            }
            _ => None,
        };
        let small = self.stages.len() == 3 && self.stages.iter().all(|n| *n == self.stages[0]);
        let large = |basic: bool| {
            imagenet_stages(depth).is_some_and(|stages| stages[..] == self.stages[..]) && (depth < 50) == basic
        };
        let family = match (self.shape, self.activation) {
            (BlockShape::Basic, Activation::Post) if small => Some(Family::Conv),
            (BlockShape::Basic, Activation::Pre) if small && !preact_has_bottlenecks(depth) => Some(Family::Preact),
            (BlockShape::Bottleneck { groups: 1, base_width: 64, stride: StrideAt::First }, Activation::Pre)
                if small && preact_has_bottlenecks(depth) =>
            {
                Some(Family::Preact)
            }
            (BlockShape::Basic, Activation::Post) if large(true) => Some(Family::ImageNet(StrideAt::Middle)),
            (BlockShape::Basic, Activation::Pre) if large(true) => Some(Family::PreactImageNet),
            (BlockShape::Bottleneck { groups, base_width, stride }, _) if large(false) => {
                bottleneck(groups, base_width, stride)
            }
            _ => None,
        };
        family.unwrap_or(Family::Custom)
    }

    pub(super) fn depth(&self) -> usize {
        2 + self.shape.layers() * self.block_count()
    }

    pub(super) fn block_count(&self) -> usize {
        self.stages.iter().sum()
    }

    pub(super) fn validate_sizes(&self) -> Result<(), ModelError> {
        let [channels, height, width] = self.image;
        let sizes = [("image channels", channels), ("image height", height), ("image width", width)];
        at_least_one(&sizes)?;
        at_most_largest(&sizes)
    }

    /// Checks the stages and blocks, given a width that is in range.
    pub(super) fn validate_blocks(&self, width: usize) -> Result<(), ModelError> {
        let range = |name, expected, value: String| Err(ModelError::Range { name, expected, value });
        if !(1..=4).contains(&self.stages.len()) {
            return range("the number of stages", "1 to 4", self.stages.len().to_string());
        }
        if self.stages.contains(&0) {
            return Err(ModelError::Zero("the number of blocks in a stage"));
        }
        let blocks = self.stages.iter().fold(0usize, |sum, &n| sum.saturating_add(n));
        at_most_largest(&[("the number of blocks", blocks)])?;
        if let BlockShape::Bottleneck { groups, base_width, .. } = self.shape {
            let sizes = [("groups", groups), ("the width of a group", base_width)];
            at_least_one(&sizes)?;
            at_most_largest(&sizes)?;
            at_most_largest(&[("the width of a bottleneck", (width << 3) * base_width / 64 * groups)])?;
            if width * base_width < 64 {
                return range("the width of a bottleneck", "at least 1 channel", "0".to_string());
            }
        }
        if let Some(stride) = self.output_stride {
            let possible: Vec<usize> = (0..self.stages.len()).map(|i| self.stem.stride() << i).collect();
            if !possible.contains(&stride) {
                let expected = format!("one of {possible:?}");
                return Err(ModelError::OutputStride { expected, stride });
            }
            if self.shape == BlockShape::Basic {
                return range("the output stride", "left alone for basic blocks", stride.to_string());
            }
        }
        Ok(())
    }

    pub(super) fn init(&self, config: &NetworkConfig, device: &Device) -> ConvBackbone {
        let NetworkConfig { width, blocks: options, init, .. } = *config;
        let blocks = self.block_count();
        let mut index = 0;
        let mut stages = self.paths(config).into_iter().map(|paths| {
            let build = |path: ConvPathConfig| {
                index += 1;
                let block = options.block(path, index, blocks, &init);
                NetworkBlock::new(block, options.kind, self.activation, device)
            };
            Stage { blocks: paths.into_iter().map(build).collect() }
        });
        let mut stage = || stages.next().unwrap_or_default();
        let preact = self.activation == Activation::Pre;
        ConvBackbone {
            conv1: conv(self.stem.conv(self.image[0], width), options.norm, device),
            bn1: if preact { None } else { options.norm.init(width, device) },
            maxpool: (self.stem == Stem::Large).then(|| {
                let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
                MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(padding).init()
            }),
            layer1: stage(),
            layer2: stage(),
            layer3: stage(),
            layer4: stage(),
            bn: if preact { options.norm.init(config.embedding(), device) } else { None },
            preact,
        }
    }

    /// Channels of a stage's output, counted from 0.
    pub(super) fn out_channels(&self, width: usize, stage: usize) -> usize {
        match self.shape {
            BlockShape::Basic => width << stage,
            BlockShape::Bottleneck { .. } => 4 * (width << stage),
        }
    }

    /// The main paths of each stage.
    fn paths(&self, config: &NetworkConfig) -> Vec<Vec<ConvPathConfig>> {
        let width = config.width;
        let mut in_channels = width;
        let mut reduction = self.stem.stride();
        let mut dilation = 1;
        let mut stages = Vec::new();
        for (stage, &blocks) in self.stages.iter().enumerate() {
            let out_channels = self.out_channels(width, stage);
            let bottleneck = match self.shape {
                BlockShape::Basic => None,
                BlockShape::Bottleneck { groups, base_width, stride } => {
                    Some(Bottleneck { channels: (width << stage) * base_width / 64 * groups, groups, stride })
                }
            };
            let dilation_before = dilation;
            let mut stride = if stage == 0 { 1 } else { 2 };
            if self.output_stride.is_some_and(|limit| reduction * stride > limit) {
                (dilation, stride) = (dilation * stride, 1);
            }
            reduction *= stride;
            let path = |i: usize| {
                let (in_channels, stride, dilation) =
                    if i == 0 { (in_channels, stride, dilation_before) } else { (out_channels, 1, dilation) };
                ConvPathConfig::new(in_channels, out_channels)
                    .with_stride(stride)
                    .with_dilation(dilation)
                    .with_norm(config.blocks.norm)
                    .with_bottleneck(bottleneck)
            };
            stages.push((0..blocks).map(path).collect());
            in_channels = out_channels;
        }
        stages
    }

    pub(super) fn stage_list(&self, config: &NetworkConfig) -> Vec<StageInfo> {
        let mut stride = self.stem.stride();
        let stage = |(i, paths): (usize, &Vec<ConvPathConfig>)| {
            stride *= paths[0].stride;
            let channels = self.out_channels(config.width, i);
            StageInfo { name: format!("layer{}", i + 1), channels, stride: Some(stride) }
        };
        self.paths(config).iter().enumerate().map(stage).collect()
    }

    pub(super) fn count(&self, config: &NetworkConfig, summary: &mut Summary) {
        let preact = self.activation == Activation::Pre;
        let [channels, height, width] = self.image;
        let mut size = [height, width];
        let stem = self.stem.conv(channels, config.width);
        size = size.map(|s| s.div_ceil(stem.stride));
        summary.conv("conv1", stem, (!preact).then_some(config.width), size);
        size = size.map(|s| s.div_ceil(self.stem.stride() / stem.stride));
        for (stage, paths) in self.paths(config).iter().enumerate() {
            for (i, path) in paths.iter().enumerate() {
                let name = format!("layer{}.{i}", stage + 1);
                let input = size;
                for (layer, shape) in path.convolutions().into_iter().enumerate() {
                    size = size.map(|s| s.div_ceil(shape.stride));
                    let norm = if preact { shape.channels[0] } else { shape.channels[1] };
                    summary.conv(&format!("{name}.conv{}", layer + 1), shape, Some(norm), size);
                }
                if config.blocks.projects(path.shapes_differ()) {
                    let shape = path.projection();
                    let size = input.map(|s| s.div_ceil(shape.stride));
                    summary.conv(&format!("{name}.shortcut"), shape, (!preact).then_some(path.out_channels), size);
                }
            }
        }
        if preact {
            summary.norm("bn", config.embedding(), size);
        }
    }
}

impl ConvBackbone {
    /// The average over the last stage's pixels.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.pool(self.blocks().fold(self.stem(images), |a, block| block.forward(a)))
    }

    /// The same in a training step with stochastic depth, given which blocks take part.
    pub(super) fn forward_sampled(&self, images: Tensor<4>, survivors: &[bool]) -> Tensor<2> {
        let blocks = self.blocks().zip(survivors);
        self.pool(blocks.fold(self.stem(images), |a, (block, survives)| block.forward_sampled(a, *survives)))
    }

    /// What the first stage takes.
    pub(super) fn stem(&self, images: Tensor<4>) -> Tensor<4> {
        let stem = unit(&self.conv1, &self.bn1);
        let a = if self.preact { stem.forward(images) } else { stem.forward_relu(images) };
        match &self.maxpool {
            Some(pool) => max_pool(pool, a),
            None => a,
        }
    }

    pub(super) fn pool(&self, a: Tensor<4>) -> Tensor<2> {
        mean_pool(if self.preact { preactivate(&self.bn, a) } else { a })
    }

    /// The stages, first to last.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().filter(|stage| !stage.blocks.is_empty())
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &NetworkBlock> {
        self.stages().flat_map(|stage| &stage.blocks)
    }

    pub(super) fn map_blocks(self, mut f: impl FnMut(NetworkBlock) -> NetworkBlock) -> Self {
        let mut map = |stage: Stage| Stage { blocks: stage.blocks.into_iter().map(&mut f).collect() };
        Self {
            layer1: map(self.layer1),
            layer2: map(self.layer2),
            layer3: map(self.layer3),
            layer4: map(self.layer4),
            ..self
        }
    }
}
