use super::RunSpec;
use residual_train::{RunDir, Status, TrainError};
use serde::{Deserialize, Serialize};

/// The outcome of one training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The training.
    #[serde(flatten)]
    pub spec: RunSpec,
    /// Fraction of the training set misclassified, measured by a clean pass; 1 if the training diverged.
    pub train_error: f64,
    /// Fraction of the test set misclassified; 1 if the training diverged.
    pub test_error: f64,
    /// Mean cross-entropy over the training set, in nats.
    pub train_loss: Option<f64>,
    /// Mean cross-entropy over the test set, in nats.
    pub test_loss: Option<f64>,
    /// Trainable parameters.
    pub parameters: u64,
    /// Optimizer steps.
    pub iterations: usize,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
    /// How the training ended.
    pub status: RunStatus,
    /// The training loss of every batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<f32>,
}

/// How a training of a sweep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RunStatus {
    /// It completed its last epoch, or stopped early because the test loss no longer improved.
    Finished,
    /// Its loss became NaN or infinite.
    Diverged,
}

impl RunResult {
    /// The result in the directory of a finished run. Returns `None` if the run is not finished, or an error is not a
    /// fraction, because a file was changed.
    ///
    /// # Errors
    /// If a file is damaged.
    pub(super) fn of_run(spec: RunSpec, run: &RunDir) -> Result<Option<Self>, TrainError> {
        let summary = match run.status() {
            Some(Status::Finished | Status::StoppedEarly | Status::Diverged) => run.summary()?,
            _ => return Ok(None),
        };
        let diverged = summary.status == Status::Diverged;
        let is_fraction = |error: Option<f64>| error.is_some_and(|error| (0.0..=1.0).contains(&error));
        let has_errors = is_fraction(summary.train_error) && is_fraction(summary.test_error);
        if !(diverged || has_errors) {
            return Ok(None);
        }
        let error = |error: Option<f64>| if diverged { 1.0 } else { error.unwrap_or(1.0) };
        Ok(Some(Self {
            spec,
            train_error: error(summary.train_error),
            test_error: error(summary.test_error),
            train_loss: summary.train_loss.filter(|_| !diverged),
            test_loss: summary.test_loss.filter(|_| !diverged),
            parameters: summary.parameters,
            iterations: summary.iterations,
            seconds: summary.seconds,
            status: if diverged { RunStatus::Diverged } else { RunStatus::Finished },
            curve: if diverged { Vec::new() } else { run.losses()? },
        }))
    }

    /// A result without measurements, for tests.
    #[cfg(test)]
    pub(super) fn untrained(spec: RunSpec) -> Self {
        Self {
            spec,
            train_error: 1.0,
            test_error: 1.0,
            train_loss: None,
            test_loss: None,
            parameters: 0,
            iterations: 0,
            seconds: 0.0,
            status: RunStatus::Finished,
            curve: Vec::new(),
        }
    }
}
