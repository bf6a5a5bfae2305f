use crate::Part;
use alloc::string::String;

/// An error in the configuration or the name of a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No network has this name.
    #[error(
        "unknown network `{0}`; expected a name such as resnet20, plain20, resnet50, preact_resnet164, \
         resnext50_32x4d, wide_resnet50_2 or dense-resnet20"
    )]
    UnknownName(String),
    /// The family has no network of this depth.
    #[error("no {family} network has depth {depth}: {rule}; try {nearest}")]
    Depth {
        /// The family's name.
        family: &'static str,
        /// The requested depth.
        depth: usize,
        /// The rule for the depths of this family.
        rule: &'static str,
        /// The nearest valid depths, such as `20 or 26`.
        nearest: String,
    },
    /// A size is zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A number is out of range.
    #[error("{name} must be {expected}, not {value}")]
    Range {
        /// The name of the quantity.
        name: &'static str,
        /// The range of valid values.
        expected: &'static str,
        /// The given value.
        value: String,
    },
    /// A network with this stem and these stages cannot have this output stride.
    #[error("the output stride must be {expected}, not {stride}")]
    OutputStride {
        /// The valid strides.
        expected: String,
        /// The given stride.
        stride: usize,
    },
    /// The setting applies to convolutional networks only, and the network is dense.
    #[error("dense networks have no stem, block shape, activation or output stride to set")]
    ConvOnly,
    /// The network does not have this part.
    #[error("the network has no part {part}, only {parts}")]
    NoPart {
        /// The requested part.
        part: Part,
        /// The parts of the network.
        parts: String,
    },
    /// The word is not a value of the setting.
    #[error("unknown {what} `{word}`; expected {expected}")]
    UnknownWord {
        /// The name of the setting, such as `norm`.
        what: &'static str,
        /// The given word.
        word: String,
        /// The valid words.
        expected: &'static str,
    },
}
