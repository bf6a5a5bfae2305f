use crate::ModelError;
use burn::tensor::{Tensor, s};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// How a shortcut bridges different shapes: options A, B and C of He et al. 2015, section 4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortcutOption {
    /// Option A: subsample, and pad new channels with zeros. No parameters, so plain and residual
    /// nets have equally many.
    #[default]
    ZeroPad,
    /// Option B: project with `W_s a` where shapes differ, identity elsewhere.
    Projection,
    /// Option C: project everywhere.
    ProjectAll,
}

impl ShortcutOption {
    /// Whether a shortcut between these shapes has a projection.
    pub fn projects(self, shapes_differ: bool) -> bool {
        match self {
            Self::ZeroPad => false,
            Self::Projection => shapes_differ,
            Self::ProjectAll => true,
        }
    }
}

impl fmt::Display for ShortcutOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroPad => "A",
            Self::Projection => "B",
            Self::ProjectAll => "C",
        })
    }
}

impl FromStr for ShortcutOption {
    type Err = ModelError;

    fn from_str(word: &str) -> Result<Self, ModelError> {
        match word.to_ascii_uppercase().as_str() {
            "A" => Ok(Self::ZeroPad),
            "B" => Ok(Self::Projection),
            "C" => Ok(Self::ProjectAll),
            _ => Err(ModelError::UnknownWord { what: "shortcut option", word: word.into(), expected: "A, B or C" }),
        }
    }
}

/// Every `stride`-th pixel, padded with zeros up to `channels`: option A.
pub(crate) fn subsampled(a: Tensor<4>, stride: usize, channels: usize) -> Tensor<4> {
    let a = match stride as isize {
        1 => a,
        stride => a.slice(s![.., .., ..;stride, ..;stride]),
    };
    pad_channels(a, channels)
}

/// Pads dimension 1 with zeros up to `channels`, half of them before and half after.
pub(crate) fn pad_channels<const D: usize>(a: Tensor<D>, channels: usize) -> Tensor<D> {
    let grow = channels - a.dims()[1];
    if grow == 0 {
        return a;
    }
    let mut padding = [(0, 0); D];
    padding[1] = (grow / 2, grow - grow / 2);
    a.pad(padding, 0.0)
}
