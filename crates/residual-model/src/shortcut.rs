use crate::ModelError;
use burn::tensor::{Tensor, s};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// How a shortcut bridges different shapes: options A, B and C of He et al. 2015, section 4.1.
///
/// Option A is published in two forms, whose weights do not fit each other: they differ in where the zeros are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortcutOption {
    /// Option A: subsample, and pad the channels with zeros, half of them before and half after. No parameters, so
    /// plain and residual nets have equally many. The nets of akamaster's `pytorch_resnet_cifar10`, TensorFlow's
    /// official models and Lasagne's recipes.
    ZeroPad,
    /// Option A with all zeros after the input's channels, as in Facebook's `fb.resnet.torch` and what derives from it.
    ZeroPadAfter,
    /// Option B: project with `W_s a` where shapes differ, identity elsewhere. The default of a block and of every
    /// network but the ones for small images with basic blocks, which have option A as published.
    #[default]
    Projection,
    /// Option C: project everywhere.
    ProjectAll,
}

impl ShortcutOption {
    /// Whether a shortcut between these shapes has a projection.
    pub fn projects(self, shapes_differ: bool) -> bool {
        match self {
            Self::ZeroPad | Self::ZeroPadAfter => false,
            Self::Projection => shapes_differ,
            Self::ProjectAll => true,
        }
    }

    /// How many of the zeros come before the input's channels.
    pub(crate) fn zeros_before(self, zeros: usize) -> usize {
        if self == Self::ZeroPadAfter { 0 } else { zeros / 2 }
    }
}

impl fmt::Display for ShortcutOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ZeroPad => "A",
            Self::ZeroPadAfter => "A-after",
            Self::Projection => "B",
            Self::ProjectAll => "C",
        })
    }
}

impl FromStr for ShortcutOption {
    type Err = ModelError;

    fn from_str(word: &str) -> Result<Self, ModelError> {
        match word.to_ascii_lowercase().as_str() {
            "a" => Ok(Self::ZeroPad),
            "a-after" => Ok(Self::ZeroPadAfter),
            "b" => Ok(Self::Projection),
            "c" => Ok(Self::ProjectAll),
            _ => Err(ModelError::UnknownWord {
                what: "shortcut option",
                word: word.into(),
                expected: "A, A-after, B or C",
            }),
        }
    }
}

/// Every `stride`-th pixel, padded with zeros up to `channels`, `before` of them before: option A.
pub(crate) fn subsampled(a: Tensor<4>, stride: usize, channels: usize, before: usize) -> Tensor<4> {
    let a = match stride as isize {
        1 => a,
        stride => a.slice(s![.., .., ..;stride, ..;stride]),
    };
    pad_channels(a, channels, before)
}

/// Pads dimension 1 with zeros up to `channels`, `before` of them before.
pub(crate) fn pad_channels<const D: usize>(a: Tensor<D>, channels: usize, before: usize) -> Tensor<D> {
    let zeros = channels - a.dims()[1];
    if zeros == 0 {
        return a;
    }
    let mut padding = [(0, 0); D];
    padding[1] = (before, zeros - before);
    a.pad(padding, 0.0)
}
