use super::{BlockOptions, Features, Part, Stage, at_least_one, at_most_largest, panic_unless_valid, small_enough};
use crate::{
    BlockKind, Bottleneck, ConvBlock, ConvPathConfig, Family, ModelError, NetName, Norm, PreactBlock, ShortcutOption,
    StrideAt, Summary,
    conv::{ConvShape, conv},
    dense::linear,
    init::{InitConfig, he_normal, he_normal_field},
    kernels::{max_pool, unit},
    name::{imagenet_stages, preact_has_bottlenecks},
    norm::{fold, normalize},
    preact::{PreactPath, PreactPlainBlock, PreactResidualBlock},
    stochastic_depth::survivors,
    transparent::transparent_module,
};
use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use burn::{
    config::Config,
    module::Module,
    nn::{
        BatchNorm, Linear, PaddingConfig2d,
        conv::Conv2d,
        pool::{MaxPool2d, MaxPool2dConfig},
    },
    tensor::{Device, Tensor, activation::relu},
};
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// Configuration of a [`ConvNetwork`].
///
/// [`ConvConfig::named`] makes the published ones; every field can then be changed.
#[derive(Config, Debug, PartialEq)]
pub struct ConvConfig {
    /// `[channels, height, width]` of an image. The network takes any height and width; these are
    /// for its summary.
    pub image: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Blocks in each stage: one to four stages. The first keeps the stem's resolution, each of the
    /// others halves it and doubles the channels.
    pub stages: Vec<usize>,
    /// What comes before the first stage.
    #[config(default = "Stem::Small")]
    pub stem: Stem,
    /// Channels of the stem, and of the 3x3 convolutions of the first stage.
    #[config(default = 16)]
    pub width: usize,
    /// The convolutions of a block.
    #[config(default = "BlockShape::Basic")]
    pub shape: BlockShape,
    /// Where a block has its norms and ReLUs.
    #[config(default = "Activation::Post")]
    pub activation: Activation,
    /// Keeps the input's size over that of the last stage's output at this, with dilation instead of
    /// stride in the stages beyond. For bottlenecks.
    pub output_stride: Option<usize>,
    /// What the blocks are like.
    #[config(default = "BlockOptions::default()")]
    pub blocks: BlockOptions,
    /// The initial weights.
    #[config(default = "InitConfig::default()")]
    pub init: InitConfig,
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

/// A convolutional network: a stem, one to four stages of plain or residual blocks, global average
/// pooling, one linear layer (He et al. 2015, table 1 and section 4.2).
///
/// Should be created using [`ConvConfig`].
#[derive(Module, Debug)]
pub struct ConvNetwork {
    /// The stem's convolution.
    pub conv1: Conv2d,
    /// The stem's norm; a pre-activation net has none.
    pub bn1: Option<BatchNorm>,
    /// The large stem's pooling.
    pub maxpool: Option<MaxPool2d>,
    /// The first stage.
    pub layer1: Vec<NetworkBlock>,
    /// The second stage, if any.
    pub layer2: Vec<NetworkBlock>,
    /// The third stage, if any.
    pub layer3: Vec<NetworkBlock>,
    /// The fourth stage, if any.
    pub layer4: Vec<NetworkBlock>,
    /// The norm after the last stage of a pre-activation net.
    pub bn: Option<BatchNorm>,
    /// The head.
    pub fc: Linear,
    /// Whether the blocks are pre-activation ones.
    pub preact: bool,
}

/// A block of either [`Activation`]. Parameter paths are those of the block inside.
#[derive(Clone, Debug)]
pub enum NetworkBlock {
    /// Norms and ReLUs after convolutions.
    Post(ConvBlock),
    /// Norms and ReLUs before convolutions.
    Pre(PreactBlock),
}

transparent_module!(NetworkBlock { Post, Pre });

impl NetworkBlock {
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

    fn survival(&self) -> f64 {
        match self {
            Self::Post(block) => block.survival(),
            Self::Pre(block) => block.survival(),
        }
    }

    fn zero_last_layer(self) -> Self {
        match self {
            Self::Post(block) => Self::Post(block.zero_last_layer()),
            Self::Pre(block) => Self::Pre(block.zero_last_layer()),
        }
    }

    fn folded(self) -> Self {
        match self {
            Self::Post(block) => Self::Post(block.folded()),
            Self::Pre(block) => Self::Pre(block.folded()),
        }
    }
}

impl ConvConfig {
    /// The net for small images of depth 6n+2, with option A (He et al. 2015, section 4.2).
    ///
    /// # Panics
    /// If the depth is not 6n+2.
    pub fn cifar(depth: usize, image: [usize; 3], classes: usize) -> Self {
        Self::named(NetName { family: Family::Conv, kind: BlockKind::Residual, depth }, image, classes)
    }

    /// The network of this name: residual ones with option A for small images and basic blocks, with
    /// option B otherwise.
    ///
    /// # Panics
    /// If the family is not convolutional, or has no network of this depth.
    pub fn named(name: NetName, image: [usize; 3], classes: usize) -> Self {
        let NetName { family, kind, depth } = name;
        panic_unless_valid(family.check_depth(depth));
        let small = |layers: usize| Self::new(image, classes, vec![(depth - 2) / (3 * layers); 3]);
        let large = |shape: BlockShape| {
            let stages = imagenet_stages(depth).expect("the depth was checked");
            let shape = if depth < 50 { BlockShape::Basic } else { shape };
            Self::new(image, classes, stages.to_vec()).with_stem(Stem::Large).with_width(64).with_shape(shape)
        };
        let plain_bottleneck = BlockShape::bottleneck(StrideAt::Middle);
        let config = match family {
            Family::Conv => small(2),
            Family::Preact if preact_has_bottlenecks(depth) => {
                small(3).with_shape(BlockShape::bottleneck(StrideAt::First)).with_activation(Activation::Pre)
            }
            Family::Preact => small(2).with_activation(Activation::Pre),
            Family::ImageNet(stride) => large(BlockShape::bottleneck(stride)),
            Family::PreactImageNet => large(plain_bottleneck).with_activation(Activation::Pre),
            Family::Grouped(groups, base_width) => {
                large(BlockShape::Bottleneck { groups, base_width, stride: StrideAt::Middle })
            }
            Family::Wide(factor) => {
                large(BlockShape::Bottleneck { groups: 1, base_width: 64 * factor, stride: StrideAt::Middle })
            }
            Family::Dense | Family::Custom => panic!("{family} networks have no convolutional configuration"),
        };
        let shortcut = match (config.stem, config.shape) {
            (Stem::Small, BlockShape::Basic) => ShortcutOption::ZeroPad,
            _ => ShortcutOption::Projection,
        };
        config.with_blocks(BlockOptions { shortcut, ..BlockOptions::of_kind(kind) })
    }

    /// The family and depth this is a network of.
    pub fn name(&self) -> NetName {
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
        NetName { family: family.unwrap_or(Family::Custom), kind: self.blocks.kind, depth }
    }

    /// Weighted layers on the main path.
    pub fn depth(&self) -> usize {
        2 + self.shape.layers() * self.block_count()
    }

    pub(super) fn block_count(&self) -> usize {
        self.stages.iter().sum()
    }

    /// Fails unless there is such a network.
    ///
    /// # Errors
    /// A number of stages other than one to four, a size of zero or beyond reason, an output stride the
    /// net cannot have, or options out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [
            ("image channels", self.image[0]),
            ("image height", self.image[1]),
            ("image width", self.image[2]),
            ("classes", self.classes),
            ("width", self.width),
        ];
        at_least_one(&sizes)?;
        at_most_largest(&sizes)?;
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
            at_most_largest(&[("the width of a bottleneck", (self.width << 3) * base_width / 64 * groups)])?;
            if self.width * base_width < 64 {
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
        self.blocks.validate()?;
        small_enough(&self.count())
    }

    /// Builds the network on the device.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn init(&self, device: &Device) -> ConvNetwork {
        panic_unless_valid(self.validate());
        let norm = self.blocks.norm;
        let mut index = 0;
        let mut stages = self.paths().into_iter().map(|paths| {
            let build = |path: ConvPathConfig| {
                index += 1;
                self.block(path, index, device)
            };
            paths.into_iter().map(build).collect::<Vec<_>>()
        });
        let mut stage = || stages.next().unwrap_or_default();
        let preact = self.activation == Activation::Pre;
        let network = ConvNetwork {
            conv1: conv(self.stem.conv(self.image[0], self.width), norm, device),
            bn1: if preact { None } else { norm.init(self.width, device) },
            maxpool: (self.stem == Stem::Large).then(|| {
                let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
                MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(padding).init()
            }),
            layer1: stage(),
            layer2: stage(),
            layer3: stage(),
            layer4: stage(),
            bn: if preact { norm.init(self.features(), device) } else { None },
            fc: linear([self.features(), self.classes], Norm::None, device),
            preact,
        };
        let network = he_normal(network, self.init.seed);
        if self.init.zero_init { network.map_blocks(NetworkBlock::zero_last_layer) } else { network }
    }

    fn block(&self, path: ConvPathConfig, index: usize, device: &Device) -> NetworkBlock {
        let blocks = self.block_count();
        if self.activation == Activation::Post {
            return NetworkBlock::Post(self.blocks.block(path, index, blocks, device));
        }
        let main_path = PreactPath::new(&path, device);
        NetworkBlock::Pre(match self.blocks.kind {
            BlockKind::Plain => PreactBlock::Plain(PreactPlainBlock { main_path }),
            BlockKind::Residual => PreactBlock::Residual(PreactResidualBlock {
                main_path,
                shortcut: PreactBlock::shortcut(&path, self.blocks.shortcut, device),
                skip_strength: self.blocks.skip_strength,
                branch_scale: self.blocks.branch_scale.factor(blocks),
                survival: self.blocks.survival(index, blocks),
            }),
        })
    }

    /// Channels of what the head takes.
    fn features(&self) -> usize {
        self.out_channels(self.stages.len() - 1)
    }

    fn out_channels(&self, stage: usize) -> usize {
        match self.shape {
            BlockShape::Basic => self.width << stage,
            BlockShape::Bottleneck { .. } => 4 * (self.width << stage),
        }
    }

    /// The main paths of each stage.
    fn paths(&self) -> Vec<Vec<ConvPathConfig>> {
        let mut in_channels = self.width;
        let mut reduction = self.stem.stride();
        let mut dilation = 1;
        let mut stages = Vec::new();
        for (stage, &blocks) in self.stages.iter().enumerate() {
            let out_channels = self.out_channels(stage);
            let bottleneck = match self.shape {
                BlockShape::Basic => None,
                BlockShape::Bottleneck { groups, base_width, stride } => {
                    Some(Bottleneck { channels: (self.width << stage) * base_width / 64 * groups, groups, stride })
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
                    .with_norm(self.blocks.norm)
                    .with_bottleneck(bottleneck)
            };
            stages.push((0..blocks).map(path).collect());
            in_channels = out_channels;
        }
        stages
    }

    /// The stages' names, channels and strides, for those who build on their outputs.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn stage_list(&self) -> Vec<Stage> {
        panic_unless_valid(self.validate());
        let mut stride = self.stem.stride();
        let stage = |(i, paths): (usize, &Vec<ConvPathConfig>)| {
            stride *= paths[0].stride;
            Stage { name: format!("layer{}", i + 1), channels: self.out_channels(i), stride }
        };
        self.paths().iter().enumerate().map(stage).collect()
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
        let preact = self.activation == Activation::Pre;
        let mut summary = Summary::new(self.blocks.norm);
        let [channels, height, width] = self.image;
        let mut size = [height, width];
        let stem = self.stem.conv(channels, self.width);
        size = size.map(|s| s.div_ceil(stem.stride));
        summary.conv("conv1", stem, (!preact).then_some(self.width), size);
        size = size.map(|s| s.div_ceil(self.stem.stride() / stem.stride));
        for (stage, paths) in self.paths().iter().enumerate() {
            for (i, path) in paths.iter().enumerate() {
                let name = format!("layer{}.{i}", stage + 1);
                let input = size;
                for (layer, shape) in path.convolutions().into_iter().enumerate() {
                    size = size.map(|s| s.div_ceil(shape.stride));
                    let norm = if preact { shape.channels[0] } else { shape.channels[1] };
                    summary.conv(&format!("{name}.conv{}", layer + 1), shape, Some(norm), size);
                }
                if self.blocks.projects(path.shapes_differ()) {
                    let shape = path.projection();
                    let size = input.map(|s| s.div_ceil(shape.stride));
                    summary.conv(&format!("{name}.shortcut"), shape, (!preact).then_some(path.out_channels), size);
                }
            }
        }
        if preact {
            summary.norm("bn", self.features(), size);
        }
        summary.head(self.features(), self.classes);
        summary
    }
}

impl ConvNetwork {
    /// Class scores before the softmax. With stochastic depth every block takes part, scaled by its
    /// survival probability.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.embed(images))
    }

    /// Class scores of a training step: as [`Self::forward`], but with stochastic depth the blocks
    /// that take part are drawn from the seed and the step.
    ///
    /// # Shapes
    /// As [`Self::forward`]'s.
    pub fn forward_training(&self, images: Tensor<4>, seed: u64, step: u64) -> Tensor<2> {
        let probabilities: Vec<f64> = self.blocks().map(NetworkBlock::survival).collect();
        let survivors = survivors(seed, step, &probabilities);
        let blocks = self.blocks().zip(survivors);
        let last = blocks.fold(self.stem(images), |a, (block, survives)| block.forward_sampled(a, survives));
        self.fc.forward(self.pool(last))
    }

    /// What the head takes: the average over the last stage's pixels.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    pub fn embed(&self, images: Tensor<4>) -> Tensor<2> {
        self.pool(self.blocks().fold(self.stem(images), |a, block| block.forward(a)))
    }

    /// The output of every stage, the embedding and the class scores, from one pass.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - stages: `[batch, channels of the stage, ⌈height / its stride⌉, ⌈width / its stride⌉]`, see
    ///   [`ConvConfig::stage_list`]
    pub fn forward_features(&self, images: Tensor<4>) -> Features {
        let mut a = self.stem(images);
        let mut stages = Vec::new();
        for stage in self.stages() {
            a = stage.iter().fold(a, |a, block| block.forward(a));
            stages.push(a.clone());
        }
        let embedding = self.pool(a);
        let logits = self.fc.forward(embedding.clone());
        Features { stages, embedding, logits }
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
        let a = if self.preact { relu(normalize(&self.bn, a)) } else { a };
        a.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2)
    }

    /// The blocks of each stage.
    pub fn stages(&self) -> impl Iterator<Item = &Vec<NetworkBlock>> {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().filter(|stage| !stage.is_empty())
    }

    fn blocks(&self) -> impl Iterator<Item = &NetworkBlock> {
        self.stages().flatten()
    }

    fn map_blocks(self, mut f: impl FnMut(NetworkBlock) -> NetworkBlock) -> Self {
        let mut map = |stage: Vec<NetworkBlock>| stage.into_iter().map(&mut f).collect();
        Self {
            layer1: map(self.layer1),
            layer2: map(self.layer2),
            layer3: map(self.layer3),
            layer4: map(self.layer4),
            ..self
        }
    }

    /// Replaces the head by a new one with this many classes.
    pub fn with_head(self, classes: usize, seed: u64) -> Self {
        let [features, _] = self.fc.weight.dims();
        let fc = linear([features, classes], Norm::None, &self.fc.weight.device());
        Self { fc: he_normal_field(fc, "fc", seed), ..self }
    }

    /// Freezes parts of the network: their parameters get no gradients, their batch norms use and
    /// keep their running statistics.
    ///
    /// # Errors
    /// If there is no such stage.
    pub fn freeze_parts(mut self, parts: &[Part]) -> Result<Self, ModelError> {
        let stages = self.stages().count();
        for part in parts {
            match part {
                Part::Stem => {
                    self.conv1 = self.conv1.freeze();
                    self.bn1 = self.bn1.map(Module::freeze);
                }
                Part::Head => {
                    self.bn = self.bn.map(Module::freeze);
                    self.fc = self.fc.freeze();
                }
                Part::Stage(n) => {
                    let stage = match n {
                        1 => &mut self.layer1,
                        2 => &mut self.layer2,
                        3 => &mut self.layer3,
                        4 => &mut self.layer4,
                        _ => return Err(ModelError::NoStage { stage: *n, stages }),
                    };
                    if stage.is_empty() {
                        return Err(ModelError::NoStage { stage: *n, stages });
                    }
                    *stage = core::mem::take(stage).into_iter().map(Module::freeze).collect();
                }
            }
        }
        Ok(self)
    }

    /// The same network for inference, with each batch norm that follows a convolution folded into
    /// its weight and bias: `W' = W · γ/√(v + ε)`, `b' = β + (b - m) · γ/√(v + ε)`. The norms before
    /// the blocks of a pre-activation net follow an addition and stay.
    pub fn fold_batch_norm(&self) -> Self {
        let mut network = self.valid().map_blocks(NetworkBlock::folded);
        network.conv1 = fold(network.conv1, network.bn1.take());
        network
    }
}
