use residual_model::ModelError;
use residual_train::TrainError;
use std::path::PathBuf;

/// Why an experiment cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A training's settings are wrong, or it failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A network's description is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A setting of the sweep is wrong.
    #[error("{0}")]
    Setting(String),
    /// The folder holds something else.
    #[error("{} {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is the matter with it.
        reason: String,
    },
    /// A folder for a sweep that holds another.
    #[error("{} holds another sweep; choose another folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A measurement of trained networks, of one that is not.
    #[error("lesions need a trained network, and {network} is at its initial weights")]
    Untrained {
        /// The network's name.
        network: String,
    },
    /// A training died.
    #[error("the training of {run} panicked: {message}")]
    Panic {
        /// Which one.
        run: String,
        /// Its last words.
        message: String,
    },
    /// A picture could not be drawn.
    #[error("cannot draw {0}")]
    Picture(String),
    /// The sweep was asked to stop.
    #[error("stopped after {done} of {total} trainings")]
    Stopped {
        /// Trainings finished.
        done: usize,
        /// Trainings planned.
        total: usize,
    },
}

impl LabError {
    /// Whether what was asked for is wrong, rather than something that happened on the way.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Train(error) => error.is_usage(),
            Self::Model(_) | Self::Setting(_) | Self::Untrained { .. } => true,
            Self::Folder { .. } | Self::Occupied { .. } => false,
            Self::Panic { .. } | Self::Picture(_) | Self::Stopped { .. } => false,
        }
    }
}
