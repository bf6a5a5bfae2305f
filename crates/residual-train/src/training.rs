use crate::{
    Checkpoint, Device, Evaluation, Event, Note, Row, RunDir, Status, StopFlag, TrainConfig, TrainError,
    event::Observer,
    ranks::{Ranks, Threads},
    run_options::RunOptions,
    session::Session,
    training_loop,
};
use burn::module::Module;
use rayon::ThreadPoolBuilder;
use residual_data::{DataError, Dataset, Preprocessing, check_threads, start_threads};
use residual_model::{Kernels, Network};
use sha2::{Digest, Sha256};
use std::{thread, time::Duration};

/// A training run, ready to start.
pub struct Training {
    config: TrainConfig,
    dataset: Dataset,
    device: Device,
    more_devices: Vec<Device>,
    notes: Vec<Note>,
    options: RunOptions,
    observer: Observer,
    session: Session,
}

/// The result of a training run.
#[derive(Debug)]
pub struct Outcome {
    /// The network in inference mode.
    pub network: Network,
    /// How the run ended.
    pub status: Status,
    /// All measurements.
    pub rows: Vec<Row>,
    /// The loss of every training batch that led to the final weights, including those before an interruption. What was
    /// undone by a rewind is left out.
    pub curve: Vec<f32>,
    /// The last clean pass over the training set. If there was none, its metrics are NaN and its `samples` are 0.
    pub train: Evaluation,
    /// The last pass over the test set. If there was none, its metrics are NaN and its `samples` are 0.
    pub test: Evaluation,
    /// The number of finished epochs.
    pub epochs: usize,
    /// The number of optimizer steps taken.
    pub iterations: usize,
    /// The time spent on training and evaluation, in seconds.
    pub seconds: f64,
}

impl Outcome {
    /// The last evaluations on the training and the test set, if there were any.
    pub(crate) fn evaluations(&self) -> Option<(Evaluation, Evaluation)> {
        (self.train.samples > 0).then_some((self.train, self.test))
    }
}

impl Training {
    /// Validates the configuration and loads the dataset.
    ///
    /// # Errors
    /// If a setting is invalid, the dataset cannot be loaded, or the network does not match the dataset or cannot learn
    /// from it (see [`TrainConfig::check_data`]).
    pub fn new(config: TrainConfig, device: Device) -> Result<Self, TrainError> {
        let dataset = config.data.load()?;
        Self::with_data(config, dataset, device)
    }

    /// Like [`Self::new`], with a dataset that is already loaded.
    ///
    /// # Errors
    /// If a setting is invalid, or the network does not match the dataset or cannot learn from it (see
    /// [`TrainConfig::check_data`]).
    pub fn with_data(config: TrainConfig, dataset: Dataset, device: Device) -> Result<Self, TrainError> {
        config.validate()?;
        if let Some(network) = config.network.as_conv()
            && network.image != dataset.shape()
        {
            let (image, data) = (network.image, dataset.shape());
            return Err(TrainError::Mismatch(format!(
                "the images have shape {data:?}, but the network takes {image:?}"
            )));
        }
        let features = dataset.shape().iter().product::<usize>();
        if config.network.features() != features {
            return Err(TrainError::Mismatch(format!(
                "the images have {features} values, but the network takes {}",
                config.network.features()
            )));
        }
        TrainError::check_classes(dataset.classes(), config.network.classes)?;
        config.augmentation.check([dataset.shape()[1], dataset.shape()[2]])?;
        let notes = config.check_data(&dataset)?;
        Ok(Self {
            config,
            dataset,
            device,
            more_devices: Vec::new(),
            notes,
            options: RunOptions::default(),
            observer: Box::new(|_| {}),
            session: Session::default(),
        })
    }

    /// What is allowed but unusual about this training.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The names of the dataset's classes, if they are known.
    pub fn class_names(&self) -> Option<Vec<String>> {
        self.dataset.train.class_names()
    }

    /// The preprocessing that turns an image file into an input of the network.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.dataset.preprocessing
    }

    /// Sets the flag that stops the run.
    pub fn with_stop(mut self, stop: StopFlag) -> Self {
        self.options.stop = stop;
        self
    }

    /// Interrupts the run after this optimizer step. The learning-rate schedule still covers the whole run.
    pub fn with_stop_after(mut self, step: usize) -> Self {
        self.options.stop_after = Some(step);
        self
    }

    /// Sets the observer, which is called with each [`Event`].
    pub fn with_observer(mut self, observer: impl FnMut(Event<'_>) + 'static) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// Writes metrics, checkpoints and results to this run directory. The run then uses the configuration in the
    /// directory's `config.json`.
    pub fn in_dir(mut self, directory: RunDir) -> Self {
        self.options.directory = Some(directory);
        self
    }

    /// Also writes checkpoints within an epoch, whenever the last one is at least this old.
    pub fn with_checkpoint_every(mut self, every: Option<Duration>) -> Self {
        self.options.checkpoint_every = every;
        self
    }

    /// Sets whether a checkpoint is written after every epoch, as it is by default. Runs that can be rewound always write
    /// them.
    pub fn with_epoch_checkpoints(mut self, epochs: bool) -> Self {
        self.options.checkpoint_epochs = epochs;
        self
    }

    /// Sets whether the run writes event files for TensorBoard into its run directory. A run whose directory already has
    /// event files goes on to write them.
    ///
    /// Each epoch gets the scalars `error/running`, `error/training`, `error/test`, the same for `loss`, `lr` and
    /// `images_per_second`, as far as they are measured, at the number of optimizer steps so far. They are the values of
    /// `metrics.csv`, rounded to 32 bits. The HParams tab has the settings in `config.json`.
    pub fn with_tensorboard(mut self, tensorboard: bool) -> Self {
        self.options.tensorboard = tensorboard;
        self
    }

    /// Sets the number of threads that read samples. It does not affect the result.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.options.workers = workers;
        self
    }

    /// Also trains on these devices. Each of the R devices, of which there is one more, holds the network and computes every
    /// R-th batch. All of them take the steps that one device takes with the same configuration, to the bit if they round
    /// alike: gradients and running statistics are added in the order of the batches. The number of batches per step,
    /// `accumulate`, must be a multiple of R. A run may go on with other devices than those with which it began.
    ///
    /// This was tested on several CPU devices, and not tried on several GPUs.
    ///
    /// # Errors
    /// If the devices cannot share the batches of a step.
    pub fn with_more_devices(mut self, devices: Vec<Device>) -> Result<Self, TrainError> {
        self.more_devices = devices;
        self.check_ranks().map(|()| self)
    }

    /// Shares the training with the other processes of an MPI job, all of which must run it with the same configuration. Each
    /// of the R processes holds the network and computes every R-th batch. Together they take the steps of one process with
    /// the same configuration, to the bit if they round alike, as with [`Self::with_more_devices`]: the number of batches
    /// per step, `accumulate`, must be a multiple of R, and a run may go on with another number of processes.
    ///
    /// Only process 0 should have a run directory; all must resume from the same checkpoint. A process that fails should
    /// call [`Processes::abort`](crate::Processes::abort), because the others wait for it.
    ///
    /// # Errors
    /// If the processes cannot share the batches of a step.
    #[cfg(feature = "mpi")]
    pub fn with_processes(mut self, processes: std::rc::Rc<crate::Processes>) -> Result<Self, TrainError> {
        self.options.ranks = (processes.size() > 1).then(|| Ranks::of(processes));
        self.check_ranks().map(|()| self)
    }

    /// Starts from this network, for example one with loaded weights, instead of a newly initialised one. It must have
    /// the architecture given in the configuration. The configuration also decides which parts are frozen.
    pub fn with_network(mut self, network: Network) -> Self {
        self.session.network = Some(network);
        self
    }

    /// Resumes from a checkpoint of the run directory.
    ///
    /// Burn restores the optimizer's state on `Device::default()` before it moves the state to the device of this run.
    /// If the program is built with a GPU backend but the machine has no GPU, set the environment variable
    /// `BURN_DEVICE` to an available backend.
    pub fn from_checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.session.checkpoint = Some(checkpoint);
        self
    }

    /// Trains to the end of the run, or until it is stopped.
    ///
    /// # Errors
    /// If the loss becomes NaN or infinite, a sample cannot be read, a file cannot be written, or the dataset is not the one
    /// that a resumed run began with. The run directory, if there is one, then has the error in its summary and keeps its last
    /// checkpoint. If the system refuses to start threads, nothing is written.
    pub fn run(mut self) -> Result<Outcome, TrainError> {
        /// The threads that Burn's learner starts, and a few to spare. It panics if they cannot be started.
        const LEARNER: usize = 10;
        start_threads()?;
        check_threads((1 + self.more_devices.len()) * (2 * self.options.workers + LEARNER))?;
        let parameters = self.config.network.summary().parameters();
        if let Some(directory) = &self.options.directory {
            directory.write_data(&self.config.data, &self.dataset)?;
            self.config = directory.config()?;
        }
        if let Some(ranks) = &self.options.ranks {
            let text = serde_json::to_vec(&self.config).map_err(|error| TrainError::Conflict(error.to_string()))?;
            ranks.check_equal(&Sha256::digest(text), "configurations")?;
            let resumed = self.session.checkpoint.as_ref().map_or(0, Checkpoint::iteration);
            ranks.check_equal(&(resumed as u64).to_le_bytes(), "checkpoints")?;
        }
        let directory = self.options.directory.clone();
        let (network, session, error) = if self.more_devices.is_empty() {
            training_loop::train(self.config, self.dataset, &self.device, self.options, self.session, self.observer)
        } else {
            self.run_on_all()?
        };
        // What cannot be written may have been removed.
        let error = error.map(|error| match (&error, &directory) {
            (TrainError::Io { .. }, Some(directory)) => directory.check_in_place().err().unwrap_or(error),
            _ => error,
        });
        let none = Evaluation { loss: f64::NAN, error: f64::NAN, samples: 0 };
        let outcome = Outcome {
            network,
            status: session.status,
            curve: session.curve,
            train: session.train.unwrap_or(none),
            test: session.test.unwrap_or(none),
            epochs: session.progress.epoch,
            iterations: session.progress.iteration,
            seconds: session.rows.iter().map(|row| row.seconds).fold(session.diverged_seconds, |sum, time| sum + time),
            rows: session.rows,
        };
        let written = directory.map_or(Ok(()), |directory| directory.finish(&outcome, parameters, error.as_ref()));
        // An error of the run takes precedence over an error in writing its summary.
        error.map_or(written, Err).map(|()| outcome)
    }

    fn check_ranks(&self) -> Result<(), TrainError> {
        let (_, processes) = self.options.share();
        self.config.check_share(1 + self.more_devices.len(), processes)
    }

    /// Trains on all devices, each in a thread. The first one writes the files and reports the progress.
    fn run_on_all(self) -> Result<(Network, Session, Option<TrainError>), TrainError> {
        /// Burn recurses over the graph of a network.
        const STACK: usize = 256 << 20;
        let Self { config, dataset, device, more_devices, mut options, session, observer, .. } = self;
        let kernels = Kernels::selected();
        let mut communicators = Threads::connected(1 + more_devices.len()).into_iter();
        let first = communicators.next().expect("there is a first device");
        thread::scope(|scope| {
            let mut others = Vec::new();
            for (device, communicator) in more_devices.iter().zip(communicators) {
                let (config, dataset) = (config.clone(), dataset.clone());
                let (stop, stop_after, workers) = (options.stop.clone(), options.stop_after, options.workers);
                let checkpoint = session.checkpoint.clone();
                // A clone of the network would share its running statistics.
                let copy = |network: &Network| {
                    config.init(&device.clone().autodiff()).load_record(network.clone().into_record())
                };
                let network = session.network.as_ref().map(copy);
                // A pool of its own, because the other devices wait for this one.
                let threads = (rayon::current_num_threads() / (1 + more_devices.len())).max(1);
                let pool = ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build();
                let pool = pool.map_err(|error| DataError::Threads(error.to_string()))?;
                let train = move || {
                    let ranks = Some(Ranks::new(communicator));
                    let options = RunOptions { stop, stop_after, workers, ranks, ..RunOptions::default() };
                    let session = Session { network, checkpoint, ..Session::default() };
                    let run = || training_loop::train(config, dataset, device, options, session, Box::new(|_| {}));
                    kernels.scope(run).2
                };
                let thread = thread::Builder::new().spawn_scoped(scope, move || pool.install(train));
                others.push(thread.map_err(|error| DataError::Threads(error.to_string()))?);
            }
            options.ranks = Some(Ranks::new(first));
            let (network, session, error) = training_loop::train(config, dataset, &device, options, session, observer);
            let mut errors: Vec<TrainError> = error.into_iter().collect();
            for thread in others {
                errors.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            // The error of the device that failed says why, those of the others that it did.
            let cause = errors.iter().position(|error| !matches!(error, TrainError::Rank)).unwrap_or(0);
            let error = (!errors.is_empty()).then(|| errors.swap_remove(cause));
            Ok((network, session, error))
        })
    }
}
