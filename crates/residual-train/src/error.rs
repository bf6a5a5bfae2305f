use residual_data::DataError;
use residual_model::ModelError;
use std::path::{Path, PathBuf};

/// Why a training cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The network's description is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data are wrong.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A setting is out of its range.
    #[error("{name} must be {expected}, not {value}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The values allowed.
        expected: &'static str,
        /// The value given.
        value: String,
    },
    /// Two settings that exclude each other.
    #[error("{0}")]
    Conflict(String),
    /// Scores that are not numbers.
    #[error("the network's scores for sample {sample} are not finite; are the weights and the normalisation right?")]
    Scores {
        /// Which sample, from 0.
        sample: usize,
    },
    /// The network does not fit the data.
    #[error("network and data do not fit: {0}")]
    Mismatch(String),
    /// The loss is not a finite number.
    #[error(
        "the loss became {loss} in epoch {epoch}, iteration {iteration}; try a lower learning rate, batch norm, or \
         without a norm a branch scale or zero initialisation"
    )]
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
        /// Iteration, from 1.
        iteration: usize,
        /// The loss.
        loss: f32,
    },
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// Burn's learner reports an error.
    #[error("{0}")]
    Learner(String),
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
    /// A folder for a new training that holds one already.
    #[error("{} holds {} training; choose another folder", path.display(), if *.finished { "a finished" } else { "an unfinished" })]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// Whether the training there came to its end.
        finished: bool,
    },
    /// A file whose content is not what it should be.
    #[error("{} {reason}", path.display())]
    BadFile {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl TrainError {
    /// Whether what was asked for is wrong, rather than something that happened on the way.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Scores { .. } => false,
            Self::Model(_) | Self::Setting { .. } | Self::Conflict(_) | Self::Mismatch(_) => true,
            Self::Data(error) => error.is_usage(),
            Self::Stopped | Self::Diverged { .. } | Self::Learner(_) | Self::Io { .. } | Self::Occupied { .. } => false,
            Self::BadFile { .. } => false,
        }
    }

    /// Fails if the data have more classes than the network knows.
    pub(crate) fn unless_classes_suffice(data: usize, network: usize) -> Result<(), Self> {
        match data > network {
            true => Err(Self::Mismatch(format!("the data have {data} classes, the network only {network}"))),
            false => Ok(()),
        }
    }

    pub(crate) fn bad_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadFile { path: path.into(), reason: reason.into() }
    }
}
