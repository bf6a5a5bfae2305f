use crate::ModelError;
use burn::{
    module::{Module, Param},
    nn::{BatchNorm, BatchNormConfig, Linear, conv::Conv2d},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// The normalisation after each linear layer.
///
/// With [`Norm::Batch`], the layers have no bias, because the norm's β replaces it. With [`Norm::None`], they have a
/// bias.
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
#[strum(serialize_all = "kebab-case", parse_err_ty = ModelError, parse_err_fn = unknown_norm)]
pub enum Norm {
    /// Batch normalisation (Ioffe & Szegedy 2015).
    ///
    /// The running variance averages the biased variance of each batch, as Burn does, while PyTorch averages the
    /// unbiased one. For n values per channel (batch size times pixels), PyTorch's is larger by the factor n / (n - 1).
    #[default]
    Batch,
    /// No normalisation.
    None,
}

fn unknown_norm(word: &str) -> ModelError {
    ModelError::UnknownWord { what: "norm", word: word.into(), expected: "batch or none" }
}

impl Norm {
    /// The weight of the batch statistics in each update of the running statistics.
    pub const MOMENTUM: f64 = 0.1;

    pub(crate) fn init(self, features: usize, device: &Device) -> Option<BatchNorm> {
        (self == Self::Batch).then(|| BatchNormConfig::new(features).with_momentum(Self::MOMENTUM).init(device))
    }

    /// Whether the linear layers before this norm have a bias.
    pub fn needs_bias(self) -> bool {
        self == Self::None
    }
}

/// Applies the norm, if there is one.
pub(crate) fn normalize<const D: usize>(norm: &Option<BatchNorm>, z: Tensor<D>) -> Tensor<D> {
    match norm {
        Some(norm) => norm.forward(z),
        None => z,
    }
}

/// A module whose batch norms can be folded into the layers before them, for inference.
pub(crate) trait Fold: Module {
    fn folded(self) -> Self;
}

/// Folds a batch norm into the convolution before it, so that in inference the convolution alone computes
/// `norm(conv(a))`: `W' = W · γ/√(v + ε)` and `b' = β + (b - m) · γ/√(v + ε)` for each output channel, where m is the
/// running mean and v the running variance.
pub(crate) fn fold_conv(conv: Conv2d, norm: Option<BatchNorm>) -> Conv2d {
    let Some(norm) = norm else { return conv };
    let (factor, bias) = folded_factor_and_bias(&norm, conv.bias.as_ref());
    let channels = factor.dims()[0];
    let weight = conv.weight.val() * factor.reshape([channels, 1, 1, 1]);
    Conv2d { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)), ..conv }
}

/// Folds a batch norm into the linear layer before it, as [`fold_conv`] does for a convolution.
pub(crate) fn fold_linear(linear: Linear, norm: Option<BatchNorm>) -> Linear {
    let Some(norm) = norm else { return linear };
    let (factor, bias) = folded_factor_and_bias(&norm, linear.bias.as_ref());
    let weight = linear.weight.val() * factor.unsqueeze();
    Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) }
}

/// What folding a batch norm into the layer before it takes, for each output channel: the factor `γ/√(v + ε)` of the weight,
/// and the new bias `β + (b - m) · γ/√(v + ε)`. Here b is the layer's bias, m the running mean and v the running variance.
pub fn folded_factor_and_bias(norm: &BatchNorm, bias: Option<&Param<Tensor<1>>>) -> (Tensor<1>, Tensor<1>) {
    let factor = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let shift = match bias {
        Some(bias) => bias.val() - norm.running_mean.value(),
        None => norm.running_mean.value().neg(),
    };
    let bias = norm.beta.val() + shift * factor.clone();
    (factor, bias)
}
