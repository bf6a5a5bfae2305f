use residual_data::DataError;
use residual_model::ModelError;
use std::path::{Path, PathBuf};

/// Why a training run cannot start, continue or be read.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The network's configuration is invalid.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The dataset is missing or invalid.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A setting is out of range.
    #[error("{name} must be {expected}, not {value}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The allowed values.
        expected: &'static str,
        /// The given value.
        value: String,
    },
    /// A name is unknown.
    #[error("unknown {kind} `{name}`; expected {expected}")]
    Unknown {
        /// The kind of name, such as `recipe`.
        kind: &'static str,
        /// The given name.
        name: String,
        /// The known names.
        expected: String,
    },
    /// Settings contradict each other or the network.
    #[error("{0}")]
    Conflict(String),
    /// The network's scores for a sample are NaN or infinite.
    #[error("the network's scores for sample {sample} are NaN or infinite; check the weights and the normalisation")]
    Scores {
        /// The index of the sample, from 0.
        sample: usize,
    },
    /// A sample cannot be read. If the run has a directory, it keeps a checkpoint to resume from.
    #[error("{reason}")]
    Sample {
        /// The file and the problem.
        reason: String,
    },
    /// The dataset differs from the one with which the run began.
    #[error("the dataset changed since {} began: {changes}; restore it, or start a new training", path.display())]
    ChangedData {
        /// The run directory.
        path: PathBuf,
        /// What changed.
        changes: String,
    },
    /// The network does not match the dataset.
    #[error("the network does not match the dataset: {0}")]
    Mismatch(String),
    /// The loss is NaN or infinite.
    #[error(
        "the loss became {loss} in epoch {epoch}, iteration {iteration}; try a lower learning rate or batch norm; \
         without a norm, try a branch scale or zero initialisation"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The iteration, from 1.
        iteration: usize,
        /// The loss.
        loss: f32,
    },
    /// The [`StopFlag`](crate::StopFlag) was set.
    #[error("stopped")]
    Stopped,
    /// The training on another device ended with an error.
    #[error("the training on another device ended")]
    Rank,
    /// An error from Burn.
    #[error("{0}")]
    Learner(String),
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that failed, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error from the operating system.
        source: std::io::Error,
    },
    /// The directory for a new run already holds a run.
    #[error("{} holds {} training run; choose another directory", path.display(), if *.finished { "a finished" } else { "an unfinished" })]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// Whether the run in it is finished.
        finished: bool,
    },
    /// A file or directory has unexpected content.
    #[error("{} {reason}", path.display())]
    BadFile {
        /// The file or directory.
        path: PathBuf,
        /// The problem, phrased to follow the path, such as `is missing`.
        reason: String,
    },
}

impl TrainError {
    /// Whether the error comes from an invalid setting, rather than from a failure during the run.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Model(_) | Self::Setting { .. } | Self::Unknown { .. } | Self::Conflict(_) | Self::Mismatch(_) => {
                true
            }
            Self::Data(error) => error.is_usage(),
            Self::Scores { .. } | Self::Sample { .. } | Self::Stopped | Self::Diverged { .. } | Self::Learner(_) => {
                false
            }
            Self::Rank => false,
            Self::Io { .. } | Self::Occupied { .. } | Self::BadFile { .. } | Self::ChangedData { .. } => false,
        }
    }

    /// The error for a name that is not the name of a variant of `T`.
    pub(crate) fn unknown<T: strum::VariantNames>(kind: &'static str, name: &str) -> Self {
        let expected = match T::VARIANTS {
            [first, second] => format!("{first} or {second}"),
            names => format!("one of {}", names.join(", ")),
        };
        Self::Unknown { kind, name: name.into(), expected }
    }

    /// Fails if the dataset has more classes than the network.
    pub(crate) fn check_classes(data: usize, network: usize) -> Result<(), Self> {
        if data > network {
            return Err(Self::Mismatch(format!("the dataset has {data} classes, but the network has only {network}")));
        }
        Ok(())
    }

    pub(crate) fn bad_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadFile { path: path.into(), reason: reason.into() }
    }
}
