use std::path::PathBuf;

/// What went wrong with data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// A word that names no dataset.
    #[error("unknown dataset `{name}`; expected one of {expected}")]
    UnknownDataset {
        /// The word.
        name: String,
        /// The datasets there are.
        expected: String,
    },
    /// A file that does not hold what it should.
    #[error("{file} is not usable: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image file that cannot be used.
    #[error("{} {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong, as the rest of a sentence that begins with the file's name.
        reason: String,
    },
    /// Means or standard deviations for another number of channels.
    #[error("images of {channels} channel(s) cannot be normalised by {values} values; give one for each channel")]
    Channels {
        /// Channels of the images.
        channels: usize,
        /// Values given.
        values: usize,
    },
    /// Means or standard deviations that are no such thing.
    #[error("means must be finite and standard deviations positive")]
    Statistics,
    /// A label without a class.
    #[error("sample {index} has label {label}, but there are {classes} classes")]
    Label {
        /// Which sample.
        index: usize,
        /// Its label.
        label: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// A number that makes no dataset.
    #[error("a synthetic dataset of {samples} samples cannot have {classes} classes; there must be 1 to {samples}")]
    Classes {
        /// Training samples.
        samples: usize,
        /// Classes asked for.
        classes: usize,
    },
    /// The thread that reads ahead died.
    #[error("the data loader's worker panicked: {0}")]
    Worker(String),
}

impl DataError {
    /// Whether something asked for is wrong, rather than a failure on the way.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::UnknownDataset { .. } | Self::Classes { .. } | Self::Channels { .. } | Self::Statistics)
    }
}
