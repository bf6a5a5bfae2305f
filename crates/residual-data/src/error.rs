use crate::DataName;
use residual_fetch::FetchError;
use std::path::PathBuf;

/// What went wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A word that names no dataset.
    #[error("unknown dataset `{name}`; expected one of {expected}")]
    UnknownDataset {
        /// The word.
        name: String,
        /// The datasets there are.
        expected: String,
    },
    /// A word that is none of some.
    #[error("unknown {what} `{word}`; expected {expected}")]
    UnknownWord {
        /// What the word should have said.
        what: &'static str,
        /// The word.
        word: String,
        /// The words there are.
        expected: &'static str,
    },
    /// A setting out of its range.
    #[error("{name} must be {expected}, not {value}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The values allowed.
        expected: String,
        /// The value given.
        value: String,
    },
    /// A file of a dataset that is not there.
    #[error("{name} is not there: {} is missing; fetch the dataset, or name the folder that has it", path.display())]
    Missing {
        /// The dataset.
        name: DataName,
        /// The file.
        path: PathBuf,
    },
    /// A folder of images, without the folder.
    #[error("a dataset of image files needs the folder that holds them")]
    WhichFolder,
    /// A folder that holds no dataset.
    #[error("{} {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong, as the rest of a sentence that begins with the folder's name.
        reason: String,
    },
    /// What is to be done to image files cannot be done.
    #[error("{0}")]
    Preprocessing(String),
    /// A dataset that cannot be downloaded.
    #[error("{0} is {reason}; there is nothing to fetch", reason = if *.0 == DataName::Folder { "a folder of your own" } else { "in the program" })]
    NotPublished(DataName),
    /// A file that cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A download that failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
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
        match self {
            Self::UnknownDataset { .. } | Self::UnknownWord { .. } | Self::Setting { .. } | Self::Missing { .. } => {
                true
            }
            Self::WhichFolder | Self::Folder { .. } | Self::Preprocessing(_) => true,
            Self::Classes { .. } | Self::Channels { .. } | Self::Statistics => true,
            Self::NotPublished(_) => true,
            Self::Fetch(error) => error.is_usage(),
            Self::Io { .. } => false,
            Self::Corrupt { .. } | Self::Image { .. } | Self::Label { .. } | Self::Worker(_) => false,
        }
    }
}
