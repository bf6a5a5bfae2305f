use super::RunSpec;
use residual_train::Outcome;
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
    /// It completed its last epoch.
    Finished,
    /// Its loss became NaN or infinite.
    Diverged,
}

impl RunResult {
    pub(super) fn finished(spec: RunSpec, parameters: u64, outcome: &Outcome) -> Self {
        Self {
            spec,
            train_error: outcome.train.error,
            test_error: outcome.test.error,
            train_loss: Some(outcome.train.loss),
            test_loss: Some(outcome.test.loss),
            parameters,
            iterations: outcome.iterations,
            seconds: outcome.seconds,
            status: RunStatus::Finished,
            curve: outcome.curve.clone(),
        }
    }

    pub(super) fn diverged(spec: RunSpec, parameters: u64, iterations: usize, time: Duration) -> Self {
        Self {
            spec,
            train_error: 1.0,
            test_error: 1.0,
            train_loss: None,
            test_loss: None,
            parameters,
            iterations,
            seconds: time.as_secs_f64(),
            status: RunStatus::Diverged,
            curve: Vec::new(),
        }
    }
}
