use crate::ModelError;
use burn::{
    nn::{BatchNorm, BatchNormConfig},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The normalisation after each linear layer.
///
/// With [`Norm::Batch`] the layers carry no bias, since the norm's β does its work; with
/// [`Norm::None`] they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Batch normalisation (Ioffe & Szegedy 2015).
    #[default]
    Batch,
    /// None.
    None,
}

impl Norm {
    pub(crate) fn init(self, features: usize, device: &Device) -> Option<BatchNorm> {
        (self == Self::Batch).then(|| BatchNormConfig::new(features).init(device))
    }

    /// Whether the linear layers before this norm have a bias.
    pub fn needs_bias(self) -> bool {
        self == Self::None
    }
}

/// Applies the norm if there is one.
pub(crate) fn normalize<const D: usize>(norm: &Option<BatchNorm>, z: Tensor<D>) -> Tensor<D> {
    match norm {
        Some(norm) => norm.forward(z),
        None => z,
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batch => "batch",
            Self::None => "none",
        })
    }
}

impl FromStr for Norm {
    type Err = ModelError;

    fn from_str(word: &str) -> Result<Self, ModelError> {
        match word {
            "batch" => Ok(Self::Batch),
            "none" => Ok(Self::None),
            _ => Err(ModelError::UnknownWord { what: "norm", word: word.into(), expected: "batch or none" }),
        }
    }
}
