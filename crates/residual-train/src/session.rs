use crate::{Checkpoint, Evaluation, Row, Split, progress::Progress};
use residual_model::Network;
use serde::{Deserialize, Serialize};

/// How a training run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// After its last epoch.
    #[default]
    Finished,
    /// Early, because the test loss no longer improved.
    StoppedEarly,
    /// Because its stop flag was set.
    Interrupted,
    /// Because the loss became NaN or infinite.
    Diverged,
    /// With another error.
    Failed,
}

/// The state of a training run: its starting point, its progress and its measurements so far.
#[derive(Default)]
pub(crate) struct Session {
    /// The network to start from, if not a newly initialised one.
    pub(crate) network: Option<Network>,
    /// The checkpoint to resume from.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) progress: Progress,
    pub(crate) rows: Vec<Row>,
    /// The loss of each batch that led to the current weights.
    pub(crate) curve: Vec<f32>,
    /// The weights of the epoch with the lowest test error, encoded as a file.
    pub(crate) best: Option<Vec<u8>>,
    /// The last evaluation on the training set.
    pub(crate) train: Option<Evaluation>,
    /// The last evaluation on the test set.
    pub(crate) test: Option<Evaluation>,
    pub(crate) status: Status,
    /// The time spent in the epoch in which the run diverged, in seconds. No row has it.
    pub(crate) diverged_seconds: f64,
}

impl Session {
    /// Appends a row of metrics.
    pub(crate) fn push(&mut self, epoch: usize, split: Split, evaluation: Evaluation, lr: f64, seconds: f64) {
        let Evaluation { loss, error, samples } = evaluation;
        let images_per_second = samples as f64 / seconds.max(1e-9);
        self.rows.push(Row { epoch, split, loss, error, lr, seconds, images_per_second });
    }
}
