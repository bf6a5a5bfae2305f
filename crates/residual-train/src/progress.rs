use crate::evaluate::Sums;
use serde::{Deserialize, Serialize};

/// How far a training has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epochs finished.
    pub(crate) epoch: usize,
    /// Batches of the next epoch that are done.
    pub(crate) batch: usize,
    /// Optimizer steps taken.
    pub(crate) iteration: usize,
    /// What those batches measured.
    pub(crate) running: Sums,
    /// What the last of them did, those that no window is full of yet.
    pub(crate) window: Sums,
    /// The time they took.
    pub(crate) seconds: f64,
    /// The epoch with the lowest test error, and that.
    pub(crate) best: Option<(usize, f64)>,
    /// How often the training went back after it diverged.
    pub(crate) rewinds: usize,
    /// Whether that is how it came here.
    #[serde(default)]
    pub(crate) rewound: bool,
}

impl Progress {
    pub(crate) fn next_epoch(&mut self) {
        let Self { epoch, iteration, best, rewinds, .. } = *self;
        *self = Self { epoch: epoch + 1, iteration, best, rewinds, ..Self::default() };
    }

    /// Notes a test error, and says whether it is the lowest.
    pub(crate) fn improves(&mut self, epoch: usize, error: f64) -> bool {
        let improves = self.best.is_none_or(|(_, least)| error < least);
        if improves {
            self.best = Some((epoch, error));
        }
        improves
    }
}
