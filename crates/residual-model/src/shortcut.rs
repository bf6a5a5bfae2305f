use crate::ModelError;
use burn::tensor::{Tensor, s};
use serde::{Deserialize, Serialize};

/// The kind of shortcut where input and output shapes differ: options A, B and C of He et al. 2015, section 4.1.
///
/// Option A has been published in two forms, which insert the channels of zeros at different places. Weights trained
/// with one form do not work with the other.
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
    /// Option A: subsample, and insert channels of zeros, half of them before the input's channels and half after. It
    /// has no parameters, so plain and residual networks have the same number of parameters. Used by akamaster's
    /// `pytorch_resnet_cifar10`, TensorFlow's official models and Lasagne's recipes.
    #[strum(serialize = "A")]
    ZeroPad,
    /// Option A with all channels of zeros after the input's channels. Used by Facebook's `fb.resnet.torch` and the
    /// code derived from it.
    #[strum(serialize = "A-after")]
    ZeroPadAfter,
    /// Option B: the projection `W_s a` where shapes differ, and the identity elsewhere. This is the default, except
    /// that [`NetworkConfig::new`](crate::NetworkConfig::new) configures networks with basic blocks for small images
    /// with option A, as published.
    #[default]
    #[strum(serialize = "B")]
    Projection,
    /// Option C: projections everywhere.
    #[strum(serialize = "C")]
    ProjectAll,
}

impl ShortcutOption {
    /// Whether a shortcut is a projection, given whether its input and output shapes differ.
    pub fn projects(self, shapes_differ: bool) -> bool {
        match self {
            Self::ZeroPad | Self::ZeroPadAfter => false,
            Self::Projection => shapes_differ,
            Self::ProjectAll => true,
        }
    }

    /// The number of channels of zeros before the input's channels, if there are `zeros` in all.
    pub fn zeros_before(self, zeros: usize) -> usize {
        if self == Self::ZeroPadAfter { 0 } else { zeros / 2 }
    }
}

fn unknown_option(word: &str) -> ModelError {
    ModelError::UnknownWord { what: "shortcut option", word: word.into(), expected: "A, A-after, B or C" }
}

/// Option A: takes every `stride`-th pixel and pads to `channels` channels, with `before` channels of zeros before the
/// input's channels.
pub(crate) fn subsampled(a: Tensor<4>, stride: usize, channels: usize, before: usize) -> Tensor<4> {
    let a = match stride as isize {
        1 => a,
        stride => a.slice(s![.., .., ..;stride, ..;stride]),
    };
    pad_channels(a, channels, before)
}

/// Pads dimension 1 with zeros to size `channels`, with `before` of the zeros before the input's values.
pub(crate) fn pad_channels<const D: usize>(a: Tensor<D>, channels: usize, before: usize) -> Tensor<D> {
    let zeros = channels - a.dims()[1];
    if zeros == 0 {
        return a;
    }
    let mut padding = [(0, 0); D];
    padding[1] = (before, zeros - before);
    a.pad(padding, 0.0)
}
