use residual_model::ModelError;
use residual_train::TrainError;
use std::path::PathBuf;

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A training has wrong settings, or it failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A network configuration is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// The folder cannot be used for a sweep, for example because it holds other files.
    #[error("{} {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder holds a sweep whose trainings have other settings.
    #[error("{} holds another sweep: {difference}; choose another directory", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The trainings of a sweep ran with different SIMD instructions or on different GPUs.
    #[error("the trainings in {} ran on processors that round differently: {processors}", path.display())]
    MixedProcessors {
        /// The folder of the sweep.
        path: PathBuf,
        /// The processors, with the number of trainings and the host names of each.
        processors: String,
    },
    /// The measurement needs a trained network, but this network is untrained.
    #[error("lesion needs a trained network, but {network} is at its initial weights")]
    Untrained {
        /// The network's name.
        network: String,
    },
    /// A training panicked.
    #[error("the training of {run} panicked: {message}")]
    Panic {
        /// The name of the training.
        run: String,
        /// The panic message.
        message: String,
    },
    /// The sweep was stopped.
    #[error("stopped after {done} of {total} trainings")]
    Stopped {
        /// The number of finished trainings.
        done: usize,
        /// The number of planned trainings.
        total: usize,
    },
}

impl LabError {
    /// Whether the request itself is wrong, as opposed to a failure while carrying it out.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Train(error) => error.is_usage(),
            Self::Model(_) | Self::Setting(_) | Self::Untrained { .. } => true,
            Self::Folder { .. } | Self::Occupied { .. } | Self::MixedProcessors { .. } => false,
            Self::Panic { .. } | Self::Stopped { .. } => false,
        }
    }
}
