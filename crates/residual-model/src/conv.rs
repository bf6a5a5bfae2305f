//! The convolutional main paths: two 3x3 convolutions, or a bottleneck of three convolutions (He et al. 2015, Fig. 5).

use crate::{
    Block, Layer, MainPath, MainPathConfig, Norm, PreactPathConfig, ShortcutOption,
    init::{HE_NORMAL, zeroed},
    kernels::{Addend, Epilogue, fused, unit},
    norm::{Fold, fold_conv},
    shortcut::subsampled,
};
use alloc::{vec, vec::Vec};
use burn::{
    config::Config,
    module::Module,
    nn::{
        BatchNorm, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Tensor, activation::relu},
};
use serde::{Deserialize, Serialize};

/// A plain or residual block with a convolutional main path.
pub type ConvBlock = Block<ConvPath, ConvShortcut>;

/// Configuration to create a [`ConvPath`].
#[derive(Config, Debug)]
pub struct ConvPathConfig {
    /// The number of input channels.
    pub in_channels: usize,
    /// The number of output channels.
    pub out_channels: usize,
    /// The stride of the whole path.
    #[config(default = 1)]
    pub stride: usize,
    /// The dilation of the 3x3 convolutions.
    #[config(default = 1)]
    pub dilation: usize,
    /// The norm after each convolution.
    #[config(default = "Norm::Batch")]
    pub norm: Norm,
    /// The bottleneck. `None` means a basic path of two 3x3 convolutions.
    pub bottleneck: Option<Bottleneck>,
}

/// A main path of 1x1, 3x3 and 1x1 convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bottleneck {
    /// The number of channels between the 1x1 convolutions.
    pub channels: usize,
    /// The number of groups of the 3x3 convolution (Xie et al. 2017, "ResNeXt").
    pub groups: usize,
    /// The convolution that has the stride.
    pub stride: StrideAt,
}

/// The convolution of a bottleneck that has the stride.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrideAt {
    /// The first 1x1 convolution, as published ("v1").
    First,
    /// The 3x3 convolution, as in torchvision ("v1.5").
    #[default]
    Middle,
}

pub(crate) const AT_LEAST_TWO: &str = "a main path has at least two convolutions";

/// The shape of a convolution. Its padding keeps the image size at stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub(crate) channels: [usize; 2],
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
}

impl ConvShape {
    pub(crate) fn new(channels: [usize; 2], kernel: usize, stride: usize) -> Self {
        Self { channels, kernel, stride, dilation: 1, groups: 1 }
    }
}

/// The main path `F(a) = norm(W2 * g(norm(W1 * a)))` with 3x3 kernels and padding 1, or the bottleneck
/// `F(a) = norm(W3 * g(norm(W2 * g(norm(W1 * a)))))` with 1x1, 3x3 and 1x1 kernels.
///
/// Should be created using [`ConvPathConfig`], or as part of a block.
#[derive(Module, Debug)]
pub struct ConvPath {
    /// `W1`.
    pub conv1: Conv2d,
    /// The norm of `W1 * a`.
    pub bn1: Option<BatchNorm>,
    /// `W2`.
    pub conv2: Conv2d,
    /// The norm of `W2 * a1`, where `a1` is the output of the first ReLU.
    pub bn2: Option<BatchNorm>,
    /// `W3`, in a bottleneck.
    pub conv3: Option<Conv2d>,
    /// The norm of `W3 * a2`, where `a2` is the output of the second ReLU.
    pub bn3: Option<BatchNorm>,
}

/// The shortcut around a [`ConvPath`]: the identity, subsampling with zero padding, or a strided 1x1 convolution with
/// its norm.
#[derive(Module, Debug)]
pub struct ConvShortcut {
    /// `W_s`, if the shortcut projects.
    pub conv: Option<Conv2d>,
    /// The norm of `W_s * a`.
    pub bn: Option<BatchNorm>,
    /// The stride.
    pub stride: usize,
    /// The number of output channels.
    pub out_channels: usize,
    /// The kind of shortcut where input and output shapes differ.
    #[module(skip)]
    pub option: ShortcutOption,
}

impl ConvPathConfig {
    /// Initialises a new [main path](ConvPath). The device's random generator draws its weights.
    ///
    /// # Panics
    /// If a size is zero, or if the number of groups does not divide the number of channels.
    pub fn init(&self, device: &Device) -> ConvPath {
        self.build_path(device)
    }

    /// Configures a pre-activation path with the same convolutions: norm and ReLU come before each convolution.
    pub fn preactivated(self) -> PreactPathConfig {
        PreactPathConfig { convolutions: self }
    }

    /// Makes the path a bottleneck.
    pub fn bottleneck(self, bottleneck: Bottleneck) -> Self {
        self.with_bottleneck(Some(bottleneck))
    }

    pub(crate) fn shapes_differ(&self) -> bool {
        self.stride != 1 || self.in_channels != self.out_channels
    }

    /// The convolutions of the main path, in order.
    pub(crate) fn convolutions(&self) -> Vec<ConvShape> {
        assert!(self.stride > 0 && self.dilation > 0, "stride and dilation must be at least 1");
        let Self { in_channels, out_channels, stride, dilation, .. } = *self;
        let dilated = |shape: ConvShape| ConvShape { dilation, ..shape };
        let Some(Bottleneck { channels, groups, stride: at }) = self.bottleneck else {
            return vec![
                dilated(ConvShape::new([in_channels, out_channels], 3, stride)),
                dilated(ConvShape::new([out_channels, out_channels], 3, 1)),
            ];
        };
        let (first, middle) = match at {
            StrideAt::First => (stride, 1),
            StrideAt::Middle => (1, stride),
        };
        vec![
            ConvShape::new([in_channels, channels], 1, first),
            dilated(ConvShape { groups, ..ConvShape::new([channels, channels], 3, middle) }),
            ConvShape::new([channels, out_channels], 1, 1),
        ]
    }

    /// The convolutions with their norms. `norm_channels` returns the number of channels of a convolution's norm. Only
    /// a bottleneck has a third convolution.
    pub(crate) fn layers(
        &self,
        norm_channels: impl Fn(ConvShape) -> usize,
        device: &Device,
    ) -> [(Option<Conv2d>, Option<BatchNorm>); 3] {
        let shapes = self.convolutions();
        [0, 1, 2].map(|i| match shapes.get(i) {
            Some(&shape) => (Some(conv(shape, self.norm, device)), self.norm.init(norm_channels(shape), device)),
            None => (None, None),
        })
    }

    /// The convolution of a projection shortcut.
    pub(crate) fn projection(&self) -> ConvShape {
        ConvShape::new([self.in_channels, self.out_channels], 1, self.stride)
    }

    pub(crate) fn shortcut(&self, option: ShortcutOption, norm: Norm, device: &Device) -> ConvShortcut {
        let Self { in_channels, out_channels, stride, .. } = *self;
        let projects = option.projects(self.shapes_differ());
        assert!(
            projects || out_channels >= in_channels,
            "a zero-padding shortcut cannot go from {in_channels} to {out_channels} channels; use a projection"
        );
        ConvShortcut {
            conv: projects.then(|| conv(self.projection(), self.norm, device)),
            bn: if projects { norm.init(out_channels, device) } else { None },
            stride,
            out_channels,
            option,
        }
    }
}

impl MainPathConfig for ConvPathConfig {
    type Path = ConvPath;
    type Shortcut = ConvShortcut;

    fn build_path(&self, device: &Device) -> ConvPath {
        let [(conv1, bn1), (conv2, bn2), (conv3, bn3)] = self.layers(|shape| shape.channels[1], device);
        let (conv1, conv2) = (conv1.expect(AT_LEAST_TWO), conv2.expect(AT_LEAST_TWO));
        ConvPath { conv1, bn1, conv2, bn2, conv3, bn3 }
    }

    fn build_shortcut(&self, option: ShortcutOption, device: &Device) -> ConvShortcut {
        self.shortcut(option, self.norm, device)
    }
}

/// Builds a convolution. Without a norm, it has a bias, which is initially zero.
pub(crate) fn conv(shape: ConvShape, norm: Norm, device: &Device) -> Conv2d {
    let ConvShape { channels, kernel, stride, dilation, groups } = shape;
    assert!(channels.iter().all(|&c| c > 0), "channels must be at least 1");
    let divides = groups > 0 && channels.iter().all(|c| c.is_multiple_of(groups));
    let [inputs, outputs] = channels;
    assert!(divides, "{inputs} input channels and {outputs} output channels must be divisible by {groups} groups");
    let pad = dilation * (kernel / 2);
    let conv = Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_dilation([dilation, dilation])
        .with_groups(groups)
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(norm.needs_bias())
        .with_initializer(HE_NORMAL)
        .init(device);
    Conv2d { bias: conv.bias.map(zeroed), ..conv }
}

impl Layer<4> for ConvPath {
    /// # Shapes
    /// - a: `[batch, in_channels, height, width]`
    /// - output: `[batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉]`
    fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        let a1 = unit(&self.conv1, &self.bn1).forward_relu(a);
        let second = unit(&self.conv2, &self.bn2);
        match &self.conv3 {
            None => second.forward(a1),
            Some(conv3) => unit(conv3, &self.bn3).forward(second.forward_relu(a1)),
        }
    }
}

impl ConvShortcut {
    /// Whether the shortcut is the identity for an input with this number of channels.
    pub fn is_identity(&self, in_channels: usize) -> bool {
        self.conv.is_none() && self.stride == 1 && self.out_channels == in_channels
    }

    /// The term that a fused block with this shortcut adds to its main path.
    pub(crate) fn addend<const D: usize>(&self, skip_strength: f64) -> Addend<'_, D> {
        match &self.conv {
            Some(conv) => Addend::Conv(unit(conv, &self.bn), skip_strength),
            None => Addend::Input(skip_strength, self.option),
        }
    }
}

impl Fold for ConvShortcut {
    fn folded(mut self) -> Self {
        self.conv = self.conv.map(|conv| fold_conv(conv, self.bn.take()));
        self
    }
}

impl Layer<4> for ConvShortcut {
    /// # Shapes
    /// The same as for [`ConvPath`].
    fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        if let Some(conv) = &self.conv {
            return unit(conv, &self.bn).forward(a);
        }
        let before = self.option.zeros_before(self.out_channels - a.dims()[1]);
        subsampled(a, self.stride, self.out_channels, before)
    }
}

impl ConvPath {
    /// The convolutions in order.
    pub(crate) fn convolutions(&self) -> Vec<&Conv2d> {
        [Some(&self.conv1), Some(&self.conv2), self.conv3.as_ref()].into_iter().flatten().collect()
    }

    /// The output of each convolution, after its norm.
    pub(crate) fn responses(&self, a: Tensor<4>) -> Vec<Tensor<4>> {
        let mut a = a;
        let respond = |(conv, norm)| {
            let z = unit(conv, norm).forward(a.clone());
            a = relu(z.clone());
            z
        };
        self.convolutions().into_iter().zip([&self.bn1, &self.bn2, &self.bn3]).map(respond).collect()
    }

    /// Computes a block with this main path and epilogue in one kernel. Returns `None` if no kernel supports it.
    pub(crate) fn forward_fused<'a, const D: usize>(
        &self,
        a: &Tensor<D>,
        epilogue: impl FnOnce() -> Epilogue<'a, D>,
    ) -> Option<Tensor<D>> {
        let [first, second] = [unit(&self.conv1, &self.bn1), unit(&self.conv2, &self.bn2)];
        match &self.conv3 {
            None => fused(None, &[first, second], a, epilogue),
            Some(conv3) => fused(None, &[first, second, unit(conv3, &self.bn3)], a, epilogue),
        }
    }
}

impl Fold for ConvPath {
    fn folded(mut self) -> Self {
        self.conv1 = fold_conv(self.conv1, self.bn1.take());
        self.conv2 = fold_conv(self.conv2, self.bn2.take());
        self.conv3 = self.conv3.map(|conv| fold_conv(conv, self.bn3.take()));
        self
    }
}

impl MainPath for ConvPath {
    fn zero_last_layer(mut self) -> Self {
        let (conv, bn) = match &mut self.conv3 {
            Some(conv3) => (conv3, &mut self.bn3),
            None => (&mut self.conv2, &mut self.bn2),
        };
        match bn {
            Some(bn) => bn.gamma = zeroed(bn.gamma.clone()),
            None => conv.weight = zeroed(conv.weight.clone()),
        }
        self
    }
}
