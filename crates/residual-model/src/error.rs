use crate::Part;
use alloc::string::String;

/// What is wrong with a network's description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A name of no network.
    #[error(
        "unknown network `{0}`; expected a name such as resnet20, plain20, resnet50, preact_resnet164, \
         resnext50_32x4d, wide_resnet50_2 or dense-resnet20"
    )]
    UnknownName(String),
    /// A depth the family has no network of.
    #[error("no {family} network has depth {depth}: {rule}; the nearest are {nearest}")]
    Depth {
        /// The family's name.
        family: &'static str,
        /// The depth asked for.
        depth: usize,
        /// Which depths exist.
        rule: &'static str,
        /// The nearest depths that exist.
        nearest: String,
    },
    /// A size that must be at least one.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A number out of its range.
    #[error("{name} must be {expected}, not {value}")]
    Range {
        /// What the number is.
        name: &'static str,
        /// The values allowed.
        expected: &'static str,
        /// The value given.
        value: String,
    },
    /// An output stride that the network's stem and stages cannot have.
    #[error("the output stride must be {expected}, not {stride}")]
    OutputStride {
        /// The strides possible.
        expected: String,
        /// The stride given.
        stride: usize,
    },
    /// A setting of convolutional networks for a dense one.
    #[error("dense networks have no stem and no strides to choose")]
    ConvOnly,
    /// A part that the network does not have.
    #[error("the network has no part {part}, only {parts}")]
    NoPart {
        /// The part asked for.
        part: Part,
        /// The parts that there are.
        parts: String,
    },
    /// A word that names no choice.
    #[error("unknown {what} `{word}`; expected {expected}")]
    UnknownWord {
        /// What is chosen.
        what: &'static str,
        /// The word given.
        word: String,
        /// The words that exist.
        expected: &'static str,
    },
}
