use residual_model::ModelError;
use residual_train::TrainError;
use std::path::PathBuf;

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The settings of a training are wrong, or it failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A network's description is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// The folder holds something else.
    #[error("{} {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder for a sweep holds another sweep.
    #[error("{} holds another sweep; choose another directory", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A measurement of trained networks was asked of an untrained one.
    #[error("lesion needs a trained network, but {network} is at its initial weights")]
    Untrained {
        /// The network's name.
        network: String,
    },
    /// A training panicked.
    #[error("the training of {run} panicked: {message}")]
    Panic {
        /// The training.
        run: String,
        /// The panic's message.
        message: String,
    },
    /// The sweep was stopped.
    #[error("stopped after {done} of {total} trainings")]
    Stopped {
        /// Trainings finished.
        done: usize,
        /// Trainings planned.
        total: usize,
    },
}

impl LabError {
    /// Whether the request is wrong, as opposed to a failure while it ran.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Train(error) => error.is_usage(),
            Self::Model(_) | Self::Setting(_) | Self::Untrained { .. } => true,
            Self::Folder { .. } | Self::Occupied { .. } => false,
            Self::Panic { .. } | Self::Stopped { .. } => false,
        }
    }
}
