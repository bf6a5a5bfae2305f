use crate::{RunDir, ranks::Ranks};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Options of a training run that do not affect its result.
#[derive(Clone, Debug)]
pub(crate) struct RunOptions {
    pub(crate) stop: StopFlag,
    /// The optimizer step after which the run stops.
    pub(crate) stop_after: Option<usize>,
    pub(crate) directory: Option<RunDir>,
    pub(crate) checkpoint_every: Option<Duration>,
    /// Whether a checkpoint is written after every epoch.
    pub(crate) checkpoint_epochs: bool,
    /// Whether the run writes event files for TensorBoard.
    pub(crate) tensorboard: bool,
    /// The number of threads that read samples.
    pub(crate) workers: usize,
    /// The devices that train together, if there are several.
    pub(crate) ranks: Option<Ranks>,
}

impl RunOptions {
    /// The rank of this device and the number of devices, which divide the batches.
    pub(crate) fn share(&self) -> (usize, usize) {
        self.ranks.as_ref().map_or((0, 1), Ranks::share)
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            stop: StopFlag::default(),
            stop_after: None,
            directory: None,
            checkpoint_every: None,
            checkpoint_epochs: true,
            tensorboard: false,
            workers: 1,
            ranks: None,
        }
    }
}

/// A flag that stops a training run. All clones share one flag.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl From<Arc<AtomicBool>> for StopFlag {
    /// A flag that others can set, such as the handler of a signal.
    fn from(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }
}

impl StopFlag {
    /// Stops the run after its current optimizer step.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
