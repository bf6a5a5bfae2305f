use crate::{
    Checkpoint, Device, Evaluation, Row, RunDir, TrainConfig, TrainError,
    learner::{self, Conduct, Observer, Session},
};
use residual_data::Dataset;
use residual_model::Network;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// One training, to be run.
pub struct Training {
    config: TrainConfig,
    dataset: Dataset,
    device: Device,
    conduct: Conduct,
    observer: Observer,
    session: Session,
}

/// Asks a training to stop; clones ask the same one.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Makes the training stop after the step it is in.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked to.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What happens on the way.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Some batches have passed.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Batches done in it.
        batch: usize,
        /// Batches in all of it.
        batches: usize,
        /// The last batch's loss.
        loss: f32,
    },
    /// An epoch has ended; these are all rows so far.
    Epoch(&'a [Row]),
    /// The training diverged and went back to a checkpoint.
    Rewind {
        /// The checkpoint's optimizer steps.
        iteration: usize,
        /// The learning rate from there on.
        lr: f64,
    },
}

/// How a training ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// With its last epoch.
    #[default]
    Finished,
    /// Early, because the test loss no longer improved.
    StoppedEarly,
    /// Because it was asked to stop.
    Interrupted,
    /// With an error.
    Failed,
}

/// What a training leaves.
#[derive(Debug)]
pub struct Outcome {
    /// The network in inference mode.
    pub network: Network,
    /// How it ended.
    pub status: Status,
    /// Everything measured.
    pub rows: Vec<Row>,
    /// The loss of every batch that was computed since the start, or since it was resumed. Where the training went
    /// back to a checkpoint, the batches after it come again.
    pub curve: Vec<f32>,
    /// The last clean pass over the training set; NaN and 0 samples if there was none.
    pub train: Evaluation,
    /// The last pass over the test set; NaN and 0 samples if there was none.
    pub test: Evaluation,
    /// Epochs finished.
    pub epochs: usize,
    /// Optimizer steps taken.
    pub iterations: usize,
    /// Time spent on training and evaluation.
    pub seconds: f64,
}

impl Outcome {
    /// The last evaluations, if there were any.
    pub(crate) fn measured(&self) -> Option<(Evaluation, Evaluation)> {
        (self.train.samples > 0).then_some((self.train, self.test))
    }
}

impl Training {
    /// Checks the configuration and loads the data.
    ///
    /// # Errors
    /// If a setting is wrong, or the network does not fit the data.
    pub fn new(config: TrainConfig, device: Device) -> Result<Self, TrainError> {
        let dataset = config.data.load()?;
        Self::with_data(config, dataset, device)
    }

    /// As [`Self::new`], on data that are loaded already.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_data(config: TrainConfig, dataset: Dataset, device: Device) -> Result<Self, TrainError> {
        config.validate()?;
        if let Some(network) = config.network.as_conv()
            && network.image != dataset.shape()
        {
            let (image, data) = (network.image, dataset.shape());
            return Err(TrainError::Mismatch(format!("an image has the shape {data:?}, the network takes {image:?}")));
        }
        let features = dataset.shape().iter().product::<usize>();
        if config.network.features() != features {
            return Err(TrainError::Mismatch(format!(
                "an image has {features} values, the network takes {}",
                config.network.features()
            )));
        }
        TrainError::unless_classes_suffice(dataset.classes(), config.network.classes)?;
        config.augmentation.check([dataset.shape()[1], dataset.shape()[2]])?;
        Ok(Self {
            config,
            dataset,
            device,
            conduct: Conduct {
                stop: StopFlag::default(),
                stop_after: None,
                directory: None,
                checkpoint_every: None,
                workers: 1,
            },
            observer: Box::new(|_| {}),
            session: Session::default(),
        })
    }

    /// Sets the flag that stops it.
    pub fn with_stop(mut self, stop: StopFlag) -> Self {
        self.conduct.stop = stop;
        self
    }

    /// Interrupts it after this optimizer step; the schedule stays that of the whole training.
    pub fn with_stop_after(mut self, step: usize) -> Self {
        self.conduct.stop_after = Some(step);
        self
    }

    /// Sets who hears of [`Event`]s.
    pub fn with_observer(mut self, observer: impl FnMut(Event<'_>) + 'static) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// Writes everything into this folder, and trains by its `config.json`: what is read from JSON may differ from what
    /// was written in a number's last bit, and a resumed training reads it.
    pub fn in_dir(mut self, directory: RunDir) -> Self {
        self.conduct.directory = Some(directory);
        self
    }

    /// Writes a checkpoint in the middle of epochs too, when the last is this old.
    pub fn with_checkpoint_every(mut self, every: Option<Duration>) -> Self {
        self.conduct.checkpoint_every = every;
        self
    }

    /// Sets how many threads read samples; the result is the same for any number.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.conduct.workers = workers;
        self
    }

    /// Starts from this network, such as one with weights that were loaded, instead of initial weights.
    /// It must be the one the configuration describes; what is frozen is for the configuration to say.
    pub fn with_network(mut self, network: Network) -> Self {
        self.session.network = Some(network);
        self
    }

    /// Goes on from a checkpoint of the folder.
    ///
    /// Burn restores the optimizer's state on `Device::default()` before it moves to this training's
    /// device: where the program is built with a GPU backend and there is no GPU, set the
    /// environment variable `BURN_DEVICE` to a backend that answers.
    pub fn from_checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.session.checkpoint = Some(checkpoint);
        self
    }

    /// Trains.
    ///
    /// # Errors
    /// If the loss is not finite, a sample cannot be read or a file not written. A run directory
    /// then says so in its summary and keeps its last checkpoint.
    pub fn run(mut self) -> Result<Outcome, TrainError> {
        let parameters = self.config.network.summary().parameters();
        if let Some(directory) = &self.conduct.directory {
            self.config = directory.config()?;
            directory.write_data(&self.dataset)?;
        }
        let (network, session, error) =
            learner::train(self.config, self.dataset, &self.device, self.conduct.clone(), self.session, self.observer);
        let nothing = Evaluation { loss: f64::NAN, error: f64::NAN, samples: 0 };
        let outcome = Outcome {
            network,
            status: session.status,
            curve: session.curve,
            train: session.train.unwrap_or(nothing),
            test: session.test.unwrap_or(nothing),
            epochs: session.progress.epoch,
            iterations: session.progress.iteration,
            seconds: session.rows.iter().map(|row| row.seconds).sum(),
            rows: session.rows,
        };
        let written = match &self.conduct.directory {
            Some(directory) => directory.finish(&outcome, parameters, error.as_ref()),
            None => Ok(()),
        };
        // What went wrong first is what is told.
        error.map_or(written, Err).map(|()| outcome)
    }
}
