use residual_lab::LabError;
use residual_train::TrainError;
use std::path::PathBuf;

/// Why a report cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The data cannot be read.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The folder holds no results.
    #[error("{} {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A figure cannot be drawn as a PNG.
    #[error("cannot draw the figure {0}")]
    Picture(String),
}
