//! The convolutional main path: two 3x3 convolutions (He et al. 2015, Fig. 5 left).

use crate::{
    Block, Layer, Norm, ShortcutOption,
    block::{MainPath, MainPathConfig},
    init::zeroed,
    norm::normalize,
    shortcut::pad_channels,
};
use burn::{
    config::Config,
    module::{Initializer, Module},
    nn::{
        BatchNorm, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Tensor, activation::relu, s},
};

/// A plain or residual block of two 3x3 convolutions.
pub type ConvBlock = Block<ConvPath, ConvShortcut>;

/// Configuration of a [`ConvPath`].
#[derive(Config, Debug)]
pub struct ConvPathConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of both convolutions' output.
    pub out_channels: usize,
    /// Stride of the first convolution.
    #[config(default = 1)]
    pub stride: usize,
    /// The norm after each convolution.
    #[config(default = "Norm::Batch")]
    pub norm: Norm,
}

/// `F(a) = norm(W2 * g(norm(W1 * a)))` with 3x3 kernels and padding 1.
///
/// Should be created using a block's configuration, such as
/// [`PlainBlockConfig`](crate::PlainBlockConfig).
#[derive(Module, Debug)]
pub struct ConvPath {
    /// `W1`, with the stride.
    pub conv1: Conv2d,
    /// The norm of `W1 * a`.
    pub bn1: Option<BatchNorm>,
    /// `W2`.
    pub conv2: Conv2d,
    /// The norm of `W2 * a1`.
    pub bn2: Option<BatchNorm>,
}

/// The way around a [`ConvPath`]: identity, subsampling with zero padding, or a strided 1x1
/// convolution with its norm.
#[derive(Module, Debug)]
pub struct ConvShortcut {
    /// `W_s`, if the shortcut projects.
    pub conv: Option<Conv2d>,
    /// The norm of `W_s * a`.
    pub bn: Option<BatchNorm>,
    /// The stride.
    pub stride: usize,
    /// Channels of the output.
    pub out_channels: usize,
}

impl ConvPathConfig {
    fn shapes_differ(&self) -> bool {
        self.stride != 1 || self.in_channels != self.out_channels
    }
}

impl MainPathConfig for ConvPathConfig {
    type Path = ConvPath;
    type Shortcut = ConvShortcut;

    fn build_path(&self, device: &Device) -> ConvPath {
        assert!(self.stride > 0, "stride must be at least 1");
        let Self { in_channels, out_channels, stride, norm } = *self;
        ConvPath {
            conv1: conv([in_channels, out_channels], 3, stride, norm, device),
            bn1: norm.init(out_channels, device),
            conv2: conv([out_channels, out_channels], 3, 1, norm, device),
            bn2: norm.init(out_channels, device),
        }
    }

    fn build_shortcut(&self, option: ShortcutOption, device: &Device) -> ConvShortcut {
        let Self { in_channels, out_channels, stride, norm } = *self;
        let projects = option.projects(self.shapes_differ());
        assert!(
            projects || out_channels >= in_channels,
            "a zero-padding shortcut cannot go from {in_channels} to {out_channels} channels; use a projection"
        );
        ConvShortcut {
            conv: projects.then(|| conv([in_channels, out_channels], 1, stride, norm, device)),
            bn: if projects { norm.init(out_channels, device) } else { None },
            stride,
            out_channels,
        }
    }
}

/// A convolution with weights still zero, and "same" padding at stride 1.
pub(crate) fn conv(channels: [usize; 2], kernel: usize, stride: usize, norm: Norm, device: &Device) -> Conv2d {
    assert!(channels.iter().all(|&c| c > 0), "channels must be at least 1");
    let pad = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(norm.needs_bias())
        .with_initializer(Initializer::Zeros)
        .init(device)
}

impl Layer<4> for ConvPath {
    /// # Shapes
    /// - a: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        let a1 = relu(normalize(&self.bn1, self.conv1.forward(a)));
        normalize(&self.bn2, self.conv2.forward(a1))
    }
}

impl Layer<4> for ConvShortcut {
    /// # Shapes
    /// As [`ConvPath`]'s.
    fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        if let Some(conv) = &self.conv {
            return normalize(&self.bn, conv.forward(a));
        }
        let a = match self.stride as isize {
            1 => a,
            stride => a.slice(s![.., .., ..;stride, ..;stride]),
        };
        pad_channels(a, self.out_channels)
    }
}

impl MainPath for ConvPath {
    fn zero_last_layer(mut self) -> Self {
        match &mut self.bn2 {
            Some(bn) => bn.gamma = zeroed(bn.gamma.clone()),
            None => self.conv2.weight = zeroed(self.conv2.weight),
        }
        self
    }
}
