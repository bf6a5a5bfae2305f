/// What is wrong with a network's description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A name that is none of ours.
    #[error(
        "unknown network `{0}`; expected resnet20, plain20, dense-resnet20, dense-plain20, \
         or any other depth of these"
    )]
    UnknownName(String),
    /// The name of an ImageNet network, which needs the prefix `cifar-` to mean the 6n+2 one.
    #[error("`{name}` names an ImageNet network; for the 6n+2 network write `cifar-{name}`")]
    ImageNetName {
        /// The name as given.
        name: String,
    },
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
