use crate::evaluate::MetricSums;
use serde::{Deserialize, Serialize};

/// The progress of a training run, as stored in a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Finished epochs.
    pub(crate) epoch: usize,
    /// Finished batches of the current epoch.
    pub(crate) batch: usize,
    /// Optimizer steps taken.
    pub(crate) iteration: usize,
    /// The metrics of the current epoch's batches.
    pub(crate) running: MetricSums,
    /// The metrics of the batches since the end of the last window (see [`crate::evaluate::READ_EVERY`]).
    pub(crate) window: MetricSums,
    /// The training time of the current epoch, in seconds.
    pub(crate) seconds: f64,
    /// The epoch with the lowest test error, and that error.
    pub(crate) best: Option<(usize, f64)>,
    /// The number of times the run diverged and was rewound to a checkpoint.
    pub(crate) rewinds: usize,
    /// Whether the run was rewound to this point and has not taken a step since.
    #[serde(default)]
    pub(crate) rewound: bool,
}

impl Progress {
    pub(crate) fn next_epoch(&mut self) {
        let Self { epoch, iteration, best, rewinds, .. } = *self;
        *self = Self { epoch: epoch + 1, iteration, best, rewinds, ..Self::default() };
    }

    /// Records a test error and returns whether it is the lowest so far.
    pub(crate) fn improves(&mut self, epoch: usize, error: f64) -> bool {
        let improves = self.best.is_none_or(|(_, lowest)| error < lowest);
        if improves {
            self.best = Some((epoch, error));
        }
        improves
    }
}
