use crate::ModelError;
use burn::tensor::{Tensor, s};
use serde::{Deserialize, Serialize};

/// The kind of shortcut where input and output shapes differ: options A, B and C of He et al. 2015, section 4.1.
///
/// Option A has been published in two forms, which place the zeros differently. Weights trained with one form do not
/// work with the other.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(ascii_case_insensitive, parse_err_ty = ModelError, parse_err_fn = unknown_option)]
pub enum ShortcutOption {
    /// Option A: subsample, and pad the channels with zeros, half of them before the input's channels and half after.
    /// It has no parameters, so plain and residual networks have the same number of parameters. Used by akamaster's
    /// `pytorch_resnet_cifar10`, TensorFlow's official models and Lasagne's recipes.
    #[strum(serialize = "A")]
    ZeroPad,
    /// Option A with all zeros after the input's channels. Used by Facebook's `fb.resnet.torch` and the code derived
    /// from it.
    #[strum(serialize = "A-after")]
    ZeroPadAfter,
    /// Option B: project with `W_s a` where shapes differ, and use the identity elsewhere. The default of blocks and of
    /// all networks except those with basic blocks for small images, which use option A as published.
    #[default]
    #[strum(serialize = "B")]
    Projection,
    /// Option C: project everywhere.
    #[strum(serialize = "C")]
    ProjectAll,
}

impl ShortcutOption {
    /// Whether a shortcut has a projection, given whether its input and output shapes differ.
    pub fn projects(self, shapes_differ: bool) -> bool {
        match self {
            Self::ZeroPad | Self::ZeroPadAfter => false,
            Self::Projection => shapes_differ,
            Self::ProjectAll => true,
        }
    }

    /// The number of zero channels to place before the input's channels, out of `zeros` in all.
    pub(crate) fn zeros_before(self, zeros: usize) -> usize {
        if self == Self::ZeroPadAfter { 0 } else { zeros / 2 }
    }
}

fn unknown_option(word: &str) -> ModelError {
    ModelError::UnknownWord { what: "shortcut option", word: word.into(), expected: "A, A-after, B or C" }
}

/// Option A: takes every `stride`-th pixel and pads the channels with zeros up to `channels`, with `before` zero
/// channels before the input's channels.
pub(crate) fn subsampled(a: Tensor<4>, stride: usize, channels: usize, before: usize) -> Tensor<4> {
    let a = match stride as isize {
        1 => a,
        stride => a.slice(s![.., .., ..;stride, ..;stride]),
    };
    pad_channels(a, channels, before)
}

/// Pads dimension 1 with zeros up to `channels`, with `before` of the zeros before the input's values.
pub(crate) fn pad_channels<const D: usize>(a: Tensor<D>, channels: usize, before: usize) -> Tensor<D> {
    let zeros = channels - a.dims()[1];
    if zeros == 0 {
        return a;
    }
    let mut padding = [(0, 0); D];
    padding[1] = (before, zeros - before);
    a.pad(padding, 0.0)
}
