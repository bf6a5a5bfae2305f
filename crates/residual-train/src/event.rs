use crate::Row;

/// The progress of a training run, as reported to its observer.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// More batches of the current epoch are done.
    Step {
        /// The epoch, from 1.
        epoch: usize,
        /// The number of batches done in this epoch.
        batch: usize,
        /// The number of batches per epoch.
        batches: usize,
        /// The loss of the last batch.
        loss: f32,
    },
    /// An epoch is done. The slice holds all rows of metrics so far.
    Epoch(&'a [Row]),
    /// The run diverged and was rewound to a checkpoint.
    Rewind {
        /// The number of optimizer steps at the checkpoint.
        iteration: usize,
        /// The learning rate after the rewind.
        lr: f64,
    },
}

/// A function that is called with each [`Event`].
pub(crate) type Observer = Box<dyn FnMut(Event<'_>)>;
