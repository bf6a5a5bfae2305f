use super::{BlockOptions, at_least_one, panic_unless_valid};
use crate::{
    ConvBlock, ConvPathConfig, Family, ModelError, Norm, Summary,
    conv::conv,
    dense::linear,
    init::{InitConfig, he_normal},
    norm::normalize,
};
use burn::{
    config::Config,
    module::Module,
    nn::{BatchNorm, Linear, conv::Conv2d},
    tensor::{Device, Tensor, activation::relu},
};

/// Configuration of a [`CifarNetwork`].
#[derive(Config, Debug)]
pub struct CifarConfig {
    /// Weighted layers: 6n+2, for n blocks in each of three stages.
    pub depth: usize,
    /// `[channels, height, width]` of an image. The network takes any height and width; these are
    /// for its summary.
    pub image: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Channels of the first stage; the other two have twice and four times as many.
    #[config(default = 16)]
    pub width: usize,
    /// What the blocks are like.
    #[config(default = "BlockOptions::default()")]
    pub blocks: BlockOptions,
    /// The initial weights.
    #[config(default = "InitConfig::default()")]
    pub init: InitConfig,
}

/// The network for small images of He et al. 2015, section 4.2: a 3x3 convolution, three stages of
/// n blocks with `w`, `2w`, `4w` channels (the second and third start with stride 2), global
/// average pooling, one linear layer. `6n + 2` weighted layers.
///
/// Should be created using [`CifarConfig`].
#[derive(Module, Debug)]
pub struct CifarNetwork {
    /// The stem's convolution.
    pub conv1: Conv2d,
    /// The stem's norm.
    pub bn1: Option<BatchNorm>,
    /// First stage, full resolution.
    pub layer1: Vec<ConvBlock>,
    /// Second stage, half resolution.
    pub layer2: Vec<ConvBlock>,
    /// Third stage, a quarter of the resolution.
    pub layer3: Vec<ConvBlock>,
    /// The head.
    pub fc: Linear,
}

impl CifarConfig {
    /// Fails unless there is such a network.
    ///
    /// # Errors
    /// A depth that is not 6n+2, a size of zero, or a skip strength out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        Family::Conv.check_depth(self.depth)?;
        at_least_one(&[
            ("image channels", self.image[0]),
            ("image height", self.image[1]),
            ("image width", self.image[2]),
            ("classes", self.classes),
            ("width", self.width),
        ])?;
        self.blocks.validate()
    }

    /// Builds the network on the device.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn init(&self, device: &Device) -> CifarNetwork {
        panic_unless_valid(self.validate());
        let norm = self.blocks.norm;
        let [layer1, layer2, layer3] = self.stages().map(|stage| self.stage(stage, device));
        let network = CifarNetwork {
            conv1: conv([self.image[0], self.width], 3, 1, norm, device),
            bn1: norm.init(self.width, device),
            layer1,
            layer2,
            layer3,
            fc: linear([4 * self.width, self.classes], Norm::None, device),
        };
        let network = he_normal(network, self.init.seed);
        if self.init.zero_init { network.zero_last_layers() } else { network }
    }

    fn stages(&self) -> [Vec<ConvPathConfig>; 3] {
        let blocks = (self.depth - 2) / 6;
        [0, 1, 2].map(|stage| {
            let channels = self.width << stage;
            let first = match stage {
                0 => ConvPathConfig::new(channels, channels),
                _ => ConvPathConfig::new(channels / 2, channels).with_stride(2),
            };
            let rest = ConvPathConfig::new(channels, channels);
            std::iter::once(first)
                .chain(std::iter::repeat_n(rest, blocks - 1))
                .map(|path| path.with_norm(self.blocks.norm))
                .collect()
        })
    }

    fn stage(&self, paths: Vec<ConvPathConfig>, device: &Device) -> Vec<ConvBlock> {
        let blocks = (self.depth - 2) / 2;
        paths.into_iter().map(|path| self.blocks.block(path, blocks, device)).collect()
    }

    /// Layers, shapes, parameters and multiply-adds.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn summary(&self) -> Summary {
        panic_unless_valid(self.validate());
        let mut summary = Summary::new(self.blocks.norm);
        let [channels, height, width] = self.image;
        let mut size = [height, width];
        summary.conv("conv1", [channels, self.width], 3, size);
        for (stage, paths) in self.stages().iter().enumerate() {
            for (i, path) in paths.iter().enumerate() {
                size = size.map(|s| s.div_ceil(path.stride));
                let name = format!("layer{}.{i}", stage + 1);
                let channels = [path.in_channels, path.out_channels];
                summary.conv(&format!("{name}.conv1"), channels, 3, size);
                summary.conv(&format!("{name}.conv2"), [path.out_channels; 2], 3, size);
                let differ = path.stride != 1 || path.in_channels != path.out_channels;
                if self.blocks.projects(differ) {
                    summary.conv(&format!("{name}.shortcut"), channels, 1, size);
                }
            }
        }
        summary.head(4 * self.width, self.classes);
        summary
    }
}

impl CifarNetwork {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut a = relu(normalize(&self.bn1, self.conv1.forward(images)));
        for block in self.layer1.iter().chain(&self.layer2).chain(&self.layer3) {
            a = block.forward(a);
        }
        let pooled = a.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2); // [batch, 4w]
        self.fc.forward(pooled)
    }

    fn zero_last_layers(self) -> Self {
        let zero = |stage: Vec<ConvBlock>| stage.into_iter().map(ConvBlock::zero_last_layer).collect();
        Self { layer1: zero(self.layer1), layer2: zero(self.layer2), layer3: zero(self.layer3), ..self }
    }
}
