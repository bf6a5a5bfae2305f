use crate::ModelError;
use alloc::{string::ToString, vec::Vec};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// A part of a network, which can be frozen or trained at its own learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "alloc::string::String", into = "alloc::string::String")]
pub enum Part {
    /// The layers before the first block. Its name is `stem`.
    Stem,
    /// A stage, counted from 1. The names are `layer1`, `layer2` and so on. The blocks of a dense network are stage 1.
    Stage(usize),
    /// The last linear layer and, in a pre-activation network, the norm before it. Its name is `head`.
    Head,
}

impl Part {
    /// All parts of a network with this number of stages, from first to last.
    pub(super) fn all(stages: usize) -> Vec<Self> {
        core::iter::once(Self::Stem).chain((1..=stages).map(Self::Stage)).chain([Self::Head]).collect()
    }

    /// Whether the parameter at this path of a network belongs to the part.
    ///
    /// ```
    /// use residual_model::Part;
    ///
    /// assert!(Part::Stage(2).contains("layer2.0.main_path.conv1.weight"));
    /// assert!(Part::Stem.contains("bn1.gamma") && !Part::Stem.contains("layer1.0.main_path.bn1.gamma"));
    /// ```
    pub fn contains(self, path: &str) -> bool {
        let field = path.split('.').next().unwrap_or_default();
        match self {
            Self::Stem => matches!(field, "conv1" | "bn1" | "linear1"),
            Self::Stage(n) => field.strip_prefix("layer") == Some(&n.to_string()) || (n == 1 && field == "blocks"),
            Self::Head => matches!(field, "fc" | "bn"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stem => f.write_str("stem"),
            Self::Stage(n) => write!(f, "layer{n}"),
            Self::Head => f.write_str("head"),
        }
    }
}

impl FromStr for Part {
    type Err = ModelError;

    fn from_str(word: &str) -> Result<Self, ModelError> {
        let stage = || match word.strip_prefix("layer")?.parse() {
            Ok(n) if (1..=4).contains(&n) => Some(Self::Stage(n)),
            _ => None,
        };
        match word {
            "stem" => Some(Self::Stem),
            "head" => Some(Self::Head),
            _ => stage(),
        }
        .ok_or_else(|| ModelError::UnknownWord {
            what: "part of a network",
            word: word.into(),
            expected: "stem, layer1 to layer4, or head",
        })
    }
}

impl TryFrom<alloc::string::String> for Part {
    type Error = ModelError;

    fn try_from(word: alloc::string::String) -> Result<Self, ModelError> {
        word.parse()
    }
}

impl From<Part> for alloc::string::String {
    fn from(part: Part) -> Self {
        part.to_string()
    }
}
