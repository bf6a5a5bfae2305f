use super::{Reset, one, or_word, words};
use crate::{Usage, model::published_for};
use residual_model::{
    BlockOptions, BranchScale, InitConfig, ModelError, NetName, NetworkConfig, Norm, ShortcutOption, Stem,
};

/// The settings of a network, apart from its name.
#[derive(Clone, clap::Args)]
#[group(id = "network", multiple = true)]
pub(crate) struct NetworkArgs {
    /// Number of classes [default: from the data or weights]
    ///
    /// Without data or weights: 10, or 1000 for ImageNet nets.
    #[arg(long, help_heading = "Network")]
    pub(crate) classes: Option<usize>,
    /// Features of a dense net, or channels of the first convolutional stage
    ///
    /// Default: 64 for dense and ImageNet nets, 16 for nets for small images,
    /// or 8 for training these on images of 8x8 pixels.
    #[arg(long, help_heading = "Network", verbatim_doc_comment)]
    pub(crate) width: Option<usize>,
    /// Shortcut where shapes differ: A, A-after, B or C
    ///
    /// A pads the channels with zeros, half before and half after.
    /// A-after pads all of them after, as fb.resnet.torch does.
    /// B projects where shapes differ. C projects everywhere.
    /// Default: A for basic blocks on small images, else B.
    #[arg(long, help_heading = "Network", verbatim_doc_comment)]
    pub(crate) shortcut: Option<ShortcutOption>,
    /// Normalisation after each layer [default: batch]
    #[arg(long, help_heading = "Network", value_delimiter = ',', value_parser = words::<Norm>())]
    pub(crate) norm: Option<Vec<Norm>>,
    /// Skip strength: the factor of the shortcut [default: 1]
    #[arg(long, help_heading = "Network", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) alpha: Option<Vec<f64>>,
    /// Factor of the main path in residual blocks [default: one]
    ///
    /// one: 1. depth: 1/sqrt(number of blocks).
    #[arg(long, help_heading = "Network", value_parser = words::<BranchScale>())]
    pub(crate) branch_scale: Option<BranchScale>,
    /// Initialise the last layer of each main path to zero
    #[arg(long, help_heading = "Network", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(crate) zero_init: Option<bool>,
    /// Layers before the first stage [default: large for ImageNet nets]
    ///
    /// small: a 3x3 convolution.
    /// large: a 7x7 convolution with stride 2 and a max-pool.
    #[arg(long, help_heading = "Network", verbatim_doc_comment, value_parser = words::<Stem>())]
    pub(crate) stem: Option<Stem>,
    /// Input size divided by the last stage's output size
    ///
    /// Stages beyond it have dilation instead of stride. none: no dilation.
    #[arg(long, help_heading = "Network", value_name = "STRIDE", value_parser = or_word::<usize>("none"))]
    pub(crate) output_stride: Option<Reset<usize>>,
    /// Stochastic depth: survival probability of the last block [default: 1]
    ///
    /// The probability falls linearly over the blocks, from 1 at the first.
    #[arg(long, help_heading = "Network", value_name = "PROBABILITY")]
    pub(crate) last_survival: Option<f64>,
}

impl NetworkArgs {
    /// Whether any of these flags is set.
    pub(crate) fn any(&self) -> bool {
        let Self { classes, width, shortcut, norm, alpha, branch_scale, zero_init, stem, output_stride, last_survival } =
            self;
        let sizes = [classes, width].iter().any(|size| size.is_some()) || output_stride.is_some();
        let factors = alpha.is_some() || last_survival.is_some();
        let words = shortcut.is_some() || norm.is_some() || branch_scale.is_some() || stem.is_some();
        sizes || factors || words || zero_init.is_some()
    }

    /// Overrides the settings whose flags are set.
    pub(crate) fn apply(&self, network: NetworkConfig, init: InitConfig) -> anyhow::Result<NetworkConfig> {
        let blocks = network.blocks;
        let blocks = BlockOptions {
            kind: blocks.kind,
            shortcut: self.shortcut.unwrap_or(blocks.shortcut),
            skip_strength: one("--alpha", self.alpha.as_deref())?.unwrap_or(blocks.skip_strength),
            branch_scale: self.branch_scale.unwrap_or(blocks.branch_scale),
            norm: one("--norm", self.norm.as_deref())?.unwrap_or(blocks.norm),
            last_survival: self.last_survival.unwrap_or(blocks.last_survival),
        };
        let init = InitConfig { zero_init: self.zero_init.unwrap_or(init.zero_init), ..init };
        let mut network = network.with_blocks(blocks).with_init(init);
        if let Some(classes) = self.classes {
            network = network.with_classes(classes);
        }
        if let Some(width) = self.width {
            network = network.with_width(width);
        }
        if (self.stem.is_some() || self.output_stride.is_some()) && network.as_conv().is_none() {
            return Err(ModelError::ConvOnly.into());
        }
        if let Some(stem) = self.stem {
            network = network.with_stem(stem);
        }
        if let Some(output_stride) = self.output_stride {
            network = network.with_output_stride(output_stride.0);
        }
        network.validate()?;
        Ok(network)
    }
}

/// The settings of a network whose images no dataset determines.
#[derive(clap::Args)]
pub(crate) struct ImageNetworkArgs {
    /// Image shape [default: 3x224x224 for ImageNet nets, else 3x32x32]
    #[arg(long, help_heading = "Network", value_name = "CxHxW")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl ImageNetworkArgs {
    /// The configuration of a network and the shape `[channels, height, width]` of its images.
    pub(crate) fn describe(&self, net: NetName) -> anyhow::Result<(NetworkConfig, [usize; 3])> {
        let (image, classes) = published_for(net);
        let image = self.image.as_deref().map_or(Ok(image), parse_image)?;
        Ok((self.network.apply(NetworkConfig::new(net, image, classes), InitConfig::default())?, image))
    }
}

fn parse_image(text: &str) -> Result<[usize; 3], Usage> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
    let shape = sizes.and_then(|sizes| <[usize; 3]>::try_from(sizes).ok());
    shape.ok_or_else(|| {
        Usage(format!("invalid image shape `{text}`; expected channels, height and width, such as 3x32x32"))
    })
}
