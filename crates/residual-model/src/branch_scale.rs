use crate::ModelError;
use serde::{Deserialize, Serialize};

/// The branch scale s: the factor of a residual block's main path.
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
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = ModelError, parse_err_fn = unknown_branch_scale)]
pub enum BranchScale {
    /// `s = 1`, as published with batch norm.
    #[default]
    One,
    /// `s = 1/√L` in a network of `L` blocks, displayed and parsed as `depth`. Without a norm, it keeps the variance of
    /// the activations bounded at any depth (Hayou et al. 2021, "Stable ResNet", section 3).
    #[strum(serialize = "depth")]
    InverseSqrtDepth,
}

impl BranchScale {
    /// The value of s in a network with this number of blocks.
    pub fn factor(self, blocks: usize) -> f64 {
        match self {
            Self::One => 1.0,
            Self::InverseSqrtDepth => 1.0 / libm::sqrt(blocks.max(1) as f64),
        }
    }
}

fn unknown_branch_scale(word: &str) -> ModelError {
    ModelError::UnknownWord { what: "branch scale", word: word.into(), expected: "one or depth" }
}
