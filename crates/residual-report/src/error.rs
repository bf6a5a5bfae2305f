use residual_lab::LabError;
use residual_train::TrainError;
use std::path::PathBuf;

/// Why a report failed.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The data cannot be read.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The folder holds nothing that a report shows.
    #[error("{} {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A figure could not be drawn as PNG.
    #[error("cannot draw {0}")]
    Picture(String),
}
