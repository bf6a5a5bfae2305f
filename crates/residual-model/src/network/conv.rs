use super::{NetworkConfig, Stage, StageInfo, at_least_one, at_most_max_size, stage::NetworkBlock};
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
use serde::{Deserialize, Serialize};

/// The architecture of a convolutional network: a stem, one to four stages of blocks, global average pooling, and a
/// linear layer (He et al. 2015, table 1 and section 4.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvArchitecture {
    /// The shape `[channels, height, width]` of an image. The height and width are used only in the summary; the
    /// network takes images of any height and width.
    pub image: [usize; 3],
    /// The number of blocks in each stage. There are one to four stages. The first stage keeps the resolution of the
    /// stem. Each later stage halves the resolution and doubles the channels.
    pub stages: Vec<usize>,
    /// The layers before the first stage.
    pub stem: Stem,
    /// The convolutions of a block.
    pub shape: BlockShape,
    /// The position of norms and ReLUs: after or before the convolutions.
    pub activation: Activation,
    /// The output stride: the ratio of the image size to the output size of the last stage. Stages that would exceed it
    /// use dilation instead of stride. `None` uses stride in all stages. Only networks of bottlenecks support it.
    pub output_stride: Option<usize>,
}

/// The layers before the first stage.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, strum::EnumString, strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = ModelError, parse_err_fn = unknown_stem)]
pub enum Stem {
    /// A 3x3 convolution, for small images such as 32x32.
    #[default]
    Small,
    /// A 7x7 convolution of stride 2 and 3x3 max-pooling of stride 2, for ImageNet images.
    Large,
}

fn unknown_stem(word: &str) -> ModelError {
    ModelError::UnknownWord { what: "stem", word: word.into(), expected: "small or large" }
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

/// The convolutions of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockShape {
    /// Two 3x3 convolutions.
    #[default]
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions. In a stage of width w, the 3x3 convolution has `w · base_width / 64 · groups`
    /// channels, and the output has `4w` channels.
    Bottleneck {
        /// The number of groups of the 3x3 convolution.
        groups: usize,
        /// The number of channels per group in a stage of width 64.
        base_width: usize,
        /// The convolution that has the stride.
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

/// The position of a block's norms and ReLUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Norm and ReLU come after each convolution. The last ReLU comes after the addition (He et al. 2015).
    #[default]
    Post,
    /// Norm and ReLU come before each convolution (He et al. 2016).
    Pre,
}

/// A convolutional network without its head: a stem, one to four stages of plain or residual blocks, and global average
/// pooling (He et al. 2015, table 1 and section 4.2).
#[derive(Module, Debug)]
pub struct ConvBackbone {
    /// The convolution of the stem.
    pub conv1: Conv2d,
    /// The norm of the stem. In a pre-activation network, the stem has no norm.
    pub bn1: Option<BatchNorm>,
    /// The pooling of the large stem.
    pub maxpool: Option<MaxPool2d>,
    /// The first stage.
    pub layer1: Stage,
    /// The second stage, which may be empty.
    pub layer2: Stage,
    /// The third stage, which may be empty.
    pub layer3: Stage,
    /// The fourth stage, which may be empty.
    pub layer4: Stage,
    /// The norm after the last stage of a pre-activation network.
    pub bn: Option<BatchNorm>,
    /// Whether the blocks are pre-activation blocks.
    pub preact: bool,
}

impl ConvArchitecture {
    /// Configures the network with this name. Shortcuts are option A in networks with basic blocks for small images,
    /// and option B otherwise.
    ///
    /// # Panics
    /// If the family is dense or custom, or has no network of this depth.
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
            Family::Dense | Family::Custom => panic!("a {family} network cannot be configured by its name"),
        }
    }

    /// The family of this architecture.
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
        at_most_max_size(&sizes)
    }

    /// Checks the stages and blocks. The width must be valid.
    pub(super) fn validate_blocks(&self, width: usize) -> Result<(), ModelError> {
        let range = |name, expected, value: String| Err(ModelError::Range { name, expected, value });
        if !(1..=4).contains(&self.stages.len()) {
            return range("the number of stages", "1 to 4", self.stages.len().to_string());
        }
        if self.stages.contains(&0) {
            return Err(ModelError::Zero("the number of blocks in a stage"));
        }
        let blocks = self.stages.iter().fold(0usize, |sum, &n| sum.saturating_add(n));
        at_most_max_size(&[("the number of blocks", blocks)])?;
        if let BlockShape::Bottleneck { groups, base_width, .. } = self.shape {
            let sizes = [("groups", groups), ("the width of a group", base_width)];
            at_least_one(&sizes)?;
            at_most_max_size(&sizes)?;
            at_most_max_size(&[("the width of a bottleneck", (width << 3) * base_width / 64 * groups)])?;
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
                return range("the output stride", "unset for basic blocks", stride.to_string());
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

    /// The number of output channels of a stage, counted from 0.
    pub(super) fn out_channels(&self, width: usize, stage: usize) -> usize {
        match self.shape {
            BlockShape::Basic => width << stage,
            BlockShape::Bottleneck { .. } => 4 * (width << stage),
        }
    }

    /// The main paths of the blocks in each stage.
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
    /// Computes the average of the last stage's output over its pixels.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.pool(self.blocks().fold(self.stem(images), |a, block| block.forward(a)))
    }

    /// Computes the output for a training step with stochastic depth. `survivors` tells whether each block survives.
    pub(super) fn forward_sampled(&self, images: Tensor<4>, survivors: &[bool]) -> Tensor<2> {
        let blocks = self.blocks().zip(survivors);
        self.pool(blocks.fold(self.stem(images), |a, (block, survives)| block.forward_sampled(a, *survives)))
    }

    /// Computes the input of the first stage.
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

    /// The stages that have blocks, from first to last.
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
