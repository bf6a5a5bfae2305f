//! Channels that receive the records from Burn's checkpointers, which would otherwise write them to files.

use crate::{TrainError, checkpoint::Records, ids};
use burn::{
    optim::{OptimizerRecord, lr_scheduler::LrSchedulerRecord},
    store::ModuleRecord,
};
use std::{
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvError, SendError, SyncSender, sync_channel},
    },
};

/// The receiving ends.
pub(crate) struct Sinks {
    model: Receiver<ModuleRecord>,
    optimizer: Receiver<OptimizerRecord>,
    scheduler: Receiver<LrSchedulerRecord>,
}

/// The sending ends, one for each of Burn's checkpointers.
pub(crate) struct SinkSenders {
    pub(crate) model: SinkSender<ModuleRecord>,
    pub(crate) optimizer: SinkSender<OptimizerRecord>,
    pub(crate) scheduler: SinkSender<LrSchedulerRecord>,
}

/// The sending end for one kind of record.
pub(crate) struct SinkSender<R>(Mutex<SyncSender<R>>);

impl<R> SinkSender<R> {
    pub(crate) fn send(&self, record: R) -> Result<(), SendError<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).send(record)
    }
}

fn channel<R>() -> (Receiver<R>, SinkSender<R>) {
    let (sender, receiver) = sync_channel(1);
    (receiver, SinkSender(Mutex::new(sender)))
}

impl Sinks {
    pub(crate) fn new() -> (Self, SinkSenders) {
        let (model, model_sender) = channel();
        let (optimizer, optimizer_sender) = channel();
        let (scheduler, scheduler_sender) = channel();
        let senders = SinkSenders { model: model_sender, optimizer: optimizer_sender, scheduler: scheduler_sender };
        (Self { model, optimizer, scheduler }, senders)
    }

    /// Receives the records of the weights, the optimizer and the scheduler. The caller adds the moving average, the
    /// best weights and the losses.
    pub(crate) fn receive(&self) -> Result<Records, TrainError> {
        let stopped = |_: RecvError| TrainError::Learner("Burn's checkpointer has stopped".into());
        let failed = |error: &dyn Display| TrainError::Learner(error.to_string());
        let model = self.model.recv().map_err(stopped)?;
        let optimizer = self.optimizer.recv().map_err(stopped)?;
        let scheduler = self.scheduler.recv().map_err(stopped)?;
        let (model, optimizer) = (model.into_bytes(), optimizer.into_bytes());
        Ok(Records {
            model: ids::canonical_module(model.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?,
            optimizer: ids::canonical_optimizer(optimizer.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?,
            scheduler: scheduler.into_bytes().map_err(|e| failed(&e))?.to_vec(),
            ema: None,
            best: None,
            curve: None,
        })
    }
}
