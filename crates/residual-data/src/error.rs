use crate::words::shown_path;
use residual_fetch::FetchError;
use std::path::PathBuf;

/// An error while reading, checking or downloading a dataset.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The name of the dataset is unknown.
    #[error("unknown dataset `{name}`; expected one of {expected}")]
    UnknownDataset {
        /// The given name.
        name: String,
        /// The known names.
        expected: String,
    },
    /// A setting has an unknown value.
    #[error("unknown {what} `{word}`; expected {expected}")]
    UnknownWord {
        /// The setting.
        what: &'static str,
        /// The given value.
        word: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// A setting is out of range.
    #[error("{name} must be {expected}, not {value}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The allowed values.
        expected: String,
        /// The given value.
        value: String,
    },
    /// A file of a dataset does not exist.
    #[error(
        "dataset {dataset} not found: {} is missing; fetch the dataset, or give the directory that contains it",
        shown_path(path)
    )]
    Missing {
        /// The name of the dataset.
        dataset: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The files of a dataset are in an archive that is not unpacked.
    #[error(
        "dataset {dataset} not found: {} is an archive; unpack it, and give the folder of its content",
        shown_path(path)
    )]
    Packed {
        /// The name of the dataset.
        dataset: &'static str,
        /// The archive.
        path: PathBuf,
    },
    /// No folder was given for the dataset [`DataName::Folder`](crate::DataName::Folder).
    #[error("the dataset `folder` needs the path to its images")]
    FolderRequired,
    /// A folder is not a usable dataset.
    #[error("{} {reason}", shown_path(path))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The problem, phrased to follow the path, such as `is not a directory`.
        reason: String,
    },
    /// The settings of the preprocessing are invalid.
    #[error("{0}")]
    Preprocessing(String),
    /// The dataset cannot be downloaded.
    #[error("dataset {dataset} {reason}; there is nothing to fetch")]
    NotPublished {
        /// The name of the dataset.
        dataset: &'static str,
        /// The reason, phrased to follow the name of the dataset: `is built in`.
        reason: &'static str,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", shown_path(path))]
    Io {
        /// The operation that failed, such as `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A download failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The content of a dataset's file is invalid.
    #[error("{file} is invalid: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// The problem with the content.
        reason: String,
    },
    /// An image file cannot be used.
    #[error("{} {reason}", shown_path(path))]
    Image {
        /// The file.
        path: PathBuf,
        /// The problem, phrased to follow the path, such as `is truncated`.
        reason: String,
    },
    /// An image has more pixels than are allowed.
    #[error("{} {}", shown_path(path), pixels(*width, *height, *most))]
    Pixels {
        /// The file.
        path: PathBuf,
        /// The width in pixels.
        width: u32,
        /// The height in pixels.
        height: u32,
        /// The allowed number of pixels.
        most: u64,
    },
    /// A folder has more broken images than may be skipped.
    #[error("{} has {number} broken images, more than the {most} to skip: {first}", shown_path(path))]
    Broken {
        /// The folder.
        path: PathBuf,
        /// The number of broken images.
        number: usize,
        /// The maximum number of images to skip.
        most: usize,
        /// The first of them, with the reasons.
        first: String,
    },
    /// The number of means or standard deviations does not match the images.
    #[error(
        "images with {channels} channel(s) cannot be normalised with {values} values; expected one value, one per \
         channel, or one per pixel and channel"
    )]
    Channels {
        /// The number of channels of the images.
        channels: usize,
        /// The number of means or standard deviations.
        values: usize,
    },
    /// A mean is not finite, or a standard deviation is not finite and positive.
    #[error("means must be finite and standard deviations positive")]
    InvalidStatistics,
    /// A label is not less than the number of classes.
    #[error("sample {index} has label {label}, but there are {classes} classes")]
    Label {
        /// The index of the sample.
        index: usize,
        /// The label.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// Some classes of a dataset are not classes of the network.
    #[error(
        "the network does not know these classes of the dataset: {unknown}; classes of the network without a match: \
         {unmatched}"
    )]
    UnknownClasses {
        /// The names of the dataset's classes that the network does not know.
        unknown: String,
        /// The names of the network's classes that the dataset does not have.
        unmatched: String,
    },
    /// The names of a dataset's classes are needed, but unknown.
    #[error("the names of the dataset's classes are unknown")]
    UnnamedClasses,
    /// A synthetic dataset has no classes, or more classes than training samples.
    #[error("a synthetic dataset of {samples} samples cannot have {classes} classes; there must be 1 to {samples}")]
    Classes {
        /// The number of training samples.
        samples: usize,
        /// The number of classes.
        classes: usize,
    },
    /// The thread that prefetches batches panicked.
    #[error("the data loader's background thread panicked: {0}")]
    Worker(String),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}; the limit on processes may be too low (see `ulimit -u`)")]
    Threads(String),
}

fn pixels(width: u32, height: u32, most: u64) -> String {
    format!("is {width}x{height} pixels, more than the limit of {most}")
}

impl DataError {
    /// The reason why an image file cannot be used, without the name of the file.
    pub(crate) fn image_reason(self) -> String {
        match self {
            Self::Image { reason, .. } => reason,
            Self::Pixels { width, height, most, .. } => pixels(width, height, most),
            error => error.to_string(),
        }
    }

    /// Whether the request itself is invalid, such as a setting or a path. Otherwise a file or the system is at fault.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::UnknownDataset { .. } | Self::UnknownWord { .. } | Self::Setting { .. } | Self::Missing { .. } => {
                true
            }
            Self::FolderRequired | Self::Folder { .. } | Self::Packed { .. } | Self::Preprocessing(_) => true,
            Self::Classes { .. } | Self::Channels { .. } | Self::InvalidStatistics => true,
            Self::NotPublished { .. } | Self::UnknownClasses { .. } | Self::UnnamedClasses => true,
            Self::Fetch(error) => error.is_usage(),
            Self::Io { .. } => false,
            Self::Corrupt { .. } | Self::Image { .. } | Self::Pixels { .. } | Self::Broken { .. } => false,
            Self::Label { .. } | Self::Worker(_) | Self::Threads(_) => false,
        }
    }
}
