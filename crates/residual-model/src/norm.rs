use crate::ModelError;
use burn::{
    module::Param,
    nn::{BatchNorm, BatchNormConfig, Linear, conv::Conv2d},
    tensor::{Device, Tensor},
};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

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

/// The share of a batch's statistics in the running ones after a training step.
pub(crate) const MOMENTUM: f64 = 0.1;

impl Norm {
    pub(crate) fn init(self, features: usize, device: &Device) -> Option<BatchNorm> {
        (self == Self::Batch).then(|| BatchNormConfig::new(features).with_momentum(MOMENTUM).init(device))
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

/// A convolution that computes `norm(conv(a))` in inference mode: `W' = W · γ/√(v + ε)` and
/// `b' = β + (b - m) · γ/√(v + ε)` for each output channel, with the running mean m and variance v.
pub(crate) fn fold_conv(conv: Conv2d, norm: Option<BatchNorm>) -> Conv2d {
    let Some(norm) = norm else { return conv };
    let (factor, bias) = affine(&norm, conv.bias.as_ref());
    let channels = factor.dims()[0];
    let weight = conv.weight.val() * factor.reshape([channels, 1, 1, 1]);
    Conv2d { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)), ..conv }
}

/// The same for a linear layer.
pub(crate) fn fold_linear(linear: Linear, norm: Option<BatchNorm>) -> Linear {
    let Some(norm) = norm else { return linear };
    let (factor, bias) = affine(&norm, linear.bias.as_ref());
    let weight = linear.weight.val() * factor.unsqueeze();
    Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) }
}

/// `γ/√(v + ε)`, and what a bias becomes.
fn affine(norm: &BatchNorm, bias: Option<&Param<Tensor<1>>>) -> (Tensor<1>, Tensor<1>) {
    let factor = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let shift = match bias {
        Some(bias) => bias.val() - norm.running_mean.value(),
        None => norm.running_mean.value().neg(),
    };
    let bias = norm.beta.val() + shift * factor.clone();
    (factor, bias)
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
