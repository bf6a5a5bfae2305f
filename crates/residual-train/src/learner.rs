//! Every implementation of a burn-train trait, in one place: these change with Burn's versions.

use crate::{
    Evaluate, Evaluation, Event, OnNan, Row, RunDir, Split, Status, StopFlag, TrainConfig, TrainError,
    checkpoint::{Checkpoint, Records},
    ema::Ema,
    evaluate::{READ_EVERY, Unread, loss, measure_all, read, soft_loss, unread},
    gradients::{self, Accumulated},
    ids, metrics,
    progress::Progress,
    schedule::{Pace, Scheduler},
    sgd::Sgd,
};
use burn::{
    data::dataloader::DataLoader,
    module::{Module, ParamGroup},
    optim::{
        ModuleOptimizer, OptimizerRecord,
        lr_scheduler::{LrSchedulerRecord, module_lr_scheduler::ModuleLrScheduler},
    },
    store::ModuleRecord,
    tensor::{Bytes, Device, Int, Tensor},
    train::{
        ClassificationOutput, InferenceStep, Learner, LearnerSummary, LearningResult, SupervisedLearningStrategy,
        SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainOutput, TrainStep, TrainingComponents,
        TrainingStrategy, ValidLoader,
        checkpoint::{Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy},
        logger::{EvaluationProgressLogger, InMemoryMetricLogger, TrainingProgressLogger},
        metric::{MetricDefinition, store::EventStoreClient},
        renderer::{EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining},
    },
};
use residual_data::{Batch, Dataset, Loader, Order};
use residual_model::{
    Network,
    parameters::{for_each_parameter, to_burnpack},
};
use std::{
    cell::RefCell,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

/// A network with its loss, as Burn's learner wants it.
#[derive(Module, Debug)]
pub(crate) struct Classifier {
    pub(crate) network: Network,
    /// Of stochastic depth.
    pub(crate) seed: u64,
}

fn output(logits: Tensor<2>, labels: Tensor<1, Int>) -> ClassificationOutput {
    ClassificationOutput::new(loss(&logits, &labels), logits, labels)
}

impl TrainStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let Batch { images, labels, targets, number } = batch;
        let logits = self.network.forward_training(images, self.seed, number);
        let output = match targets {
            None => output(logits, labels),
            Some(targets) => ClassificationOutput::new(soft_loss(&logits, targets), logits, labels),
        };
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        output(self.network.forward(batch.images), batch.labels)
    }
}

fn measure(output: &ClassificationOutput) -> Unread {
    let ClassificationOutput { loss, output: logits, targets } = output;
    Unread::new(loss.clone().without_autodiff(), logits.clone().without_autodiff(), targets.clone().without_autodiff())
}

/// What a training has come to.
#[derive(Default)]
pub(crate) struct Session {
    /// Where it starts from, if not from initial weights.
    pub(crate) network: Option<Network>,
    /// Where it goes on from.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) progress: Progress,
    pub(crate) rows: Vec<Row>,
    pub(crate) curve: Vec<f32>,
    /// The weights of the epoch with the lowest test error, as a file.
    pub(crate) best: Option<Vec<u8>>,
    pub(crate) train: Option<Evaluation>,
    pub(crate) test: Option<Evaluation>,
    pub(crate) status: Status,
}

/// Called with each [`Event`].
pub(crate) type Observer = Box<dyn FnMut(Event<'_>)>;

/// How a training runs, which does not change its result.
#[derive(Clone, Debug)]
pub(crate) struct Conduct {
    pub(crate) stop: StopFlag,
    /// Sets the flag after this optimizer step.
    pub(crate) stop_after: Option<usize>,
    pub(crate) directory: Option<RunDir>,
    pub(crate) checkpoint_every: Option<Duration>,
    /// Threads that read samples.
    pub(crate) workers: usize,
}

/// Our training loop, run by Burn's `SupervisedTraining`.
///
/// Beside what Burn's own does it measures the training error by a clean pass, feeds that of the
/// running batches to the schedule, stops within a step, refuses a loss that is not finite, and
/// goes on in the middle of an epoch as if it had not stopped.
pub(crate) struct Loop {
    config: TrainConfig,
    dataset: Dataset,
    device: Device,
    loader: Loader,
    pace: Pace,
    conduct: Conduct,
    sinks: Sinks,
    session: RefCell<Session>,
    ema: RefCell<Option<Ema>>,
    last_checkpoint: RefCell<Instant>,
    observer: RefCell<Observer>,
    error: RefCell<Option<TrainError>>,
}

type Processor = SupervisedTrainingEventProcessor<Classifier>;
type Components = TrainingComponents<Classifier>;

/// Trains from the session's progress on; returns the network, in inference mode, and the session.
pub(crate) fn train(
    config: TrainConfig,
    dataset: Dataset,
    device: &Device,
    conduct: Conduct,
    mut session: Session,
    observer: Observer,
) -> (Network, Session, Option<TrainError>) {
    let device = device.clone().autodiff();
    let writes = conduct.directory.is_some();
    let loader = Loader::new(dataset.train.clone(), config.batch_size, &device)
        .with_order(Order::Shuffled { seed: config.seed })
        .with_augmentation(config.augmentation.clone(), config.seed)
        .with_workers(conduct.workers)
        .with_prefetch(if writes { 2 } else { 0 });
    let valid: Arc<dyn DataLoader<Batch>> = Arc::new(
        Loader::new(dataset.test.clone(), config.batch_size, &device.clone().inner()).with_workers(conduct.workers),
    );
    let pace = Pace::default();
    let total = config.steps(loader.batches_per_epoch());
    let scheduler =
        |factor| Scheduler { schedule: config.schedule.clone(), total, pace: pace.clone(), iteration: 0, factor };
    let network = session.network.take().unwrap_or_else(|| config.init(&device)).unfreeze().train();
    let network = network.freeze_parts(&config.freeze).expect("the configuration was validated");
    let network = ids::by_path(network);
    let mut schedulers = ModuleLrScheduler::new(scheduler(1.0));
    for &(part, factor) in &config.optimizer.rates {
        schedulers = schedulers.with_group(group(&network, |path| part.contains(path)), scheduler(factor));
    }
    let mut optimizer = ModuleOptimizer::from(Sgd::new(&config.optimizer, config.optimizer.weight_decay));
    if !config.optimizer.decay_all {
        let norms_and_biases =
            group(&network, |path| [".gamma", ".beta", ".bias"].iter().any(|end| path.ends_with(end)));
        optimizer = optimizer.with_group(norms_and_biases, Sgd::new(&config.optimizer, 0.0), None);
    }
    let ema = config.ema.map(|decay| Ema::new(&config, &network, decay));
    let model = Classifier { network, seed: config.seed };
    let mut learner = Learner::new(model, optimizer, schedulers);

    let (sinks, checkpointers) = Sinks::new();
    let ema = RefCell::new(ema);
    let checkpoint = session.checkpoint.take();
    #[expect(clippy::arc_with_non_send_sync, reason = "Burn takes a strategy in an Arc, and calls it on this thread")]
    let training_loop = Arc::new(Loop {
        config,
        dataset,
        device,
        loader: loader.clone(),
        pace,
        conduct,
        sinks,
        session: RefCell::new(session),
        ema,
        last_checkpoint: RefCell::new(Instant::now()),
        observer: RefCell::new(observer),
        error: RefCell::new(None),
    });
    if let Some(checkpoint) = checkpoint {
        training_loop.restore(&mut learner, &mut training_loop.session.borrow_mut(), checkpoint);
    }
    let Checkpointers { model, optimizer, scheduler } = checkpointers;
    let training = SupervisedTraining::<Classifier>::new(PathBuf::new(), Arc::new(loader), valid)
        .with_training_strategy(TrainingStrategy::Custom(training_loop.clone()))
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_custom_checkpointers(model, optimizer, scheduler)
        .with_checkpointing_strategy(SaveAlways)
        .renderer(Box::new(Quiet));
    let LearningResult { model, error, .. } = training.launch(learner);

    let session = training_loop.session.take();
    let error = training_loop.error.take().or(error.map(|e| TrainError::Learner(e.to_string())));
    let network = training_loop.ema.take().map_or(model.network, Ema::into_network);
    (ids::unique(network), session, error)
}

/// The parameters whose paths in the network satisfy a condition.
fn group(network: &Network, holds: impl Fn(&str) -> bool) -> ParamGroup {
    let mut ids = Vec::new();
    for_each_parameter(network, |parameter| {
        if holds(parameter.path) {
            ids.push(parameter.id);
        }
    });
    ParamGroup::from_ids(ids)
}

impl SupervisedLearningStrategy<Classifier> for Loop {
    fn fit(
        &self,
        mut components: Components,
        mut learner: Learner<Classifier>,
        train: TrainLoader<Classifier>,
        valid: ValidLoader<Classifier>,
        _starting_epoch: usize,
    ) -> (Classifier, Processor) {
        let mut session = self.session.borrow_mut();
        if let Err(error) = self.epochs(&mut components, &mut learner, &*train, &*valid, &mut session) {
            session.status = Status::Failed;
            *self.error.borrow_mut() = Some(error);
        }
        (learner.model(), components.event_processor)
    }
}

impl Loop {
    fn epochs(
        &self,
        components: &mut Components,
        learner: &mut Learner<Classifier>,
        train: &dyn DataLoader<Batch>,
        valid: &dyn DataLoader<Batch>,
        session: &mut Session,
    ) -> Result<(), TrainError> {
        session.status = Status::Finished;
        if self.config.on_nan == OnNan::Rewind && session.progress.iteration == 0 {
            self.checkpoint(components, learner, session)?;
        }
        let total = self.config.steps(self.loader.batches_per_epoch());
        while session.progress.iteration < total || session.progress.batch > 0 {
            if self.config.patience.is_some_and(|n| metrics::is_stale(&session.rows, n)) {
                session.status = Status::StoppedEarly;
                break;
            }
            let kept = session.rows.len();
            match self.epoch(components, learner, train, valid, session, total) {
                Err(TrainError::Stopped) => {
                    // What the epoch measured so far it measures again.
                    session.rows.truncate(kept);
                    session.status = Status::Interrupted;
                    return self.checkpoint(components, learner, session);
                }
                Err(TrainError::Diverged { loss, .. })
                    if self.config.on_nan == OnNan::Rewind && session.progress.rewinds < MOST_REWINDS =>
                {
                    self.rewind(components, learner, session, loss)?;
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        let missing = [session.train.is_none(), session.test.is_none()];
        match self.evaluate(learner, valid, session, missing) {
            Err(TrainError::Stopped) => {
                session.status = Status::Interrupted;
                Ok(())
            }
            result => result,
        }
    }

    /// One epoch, or what is left of it.
    fn epoch(
        &self,
        components: &mut Components,
        learner: &mut Learner<Classifier>,
        train: &dyn DataLoader<Batch>,
        valid: &dyn DataLoader<Batch>,
        session: &mut Session,
        total: usize,
    ) -> Result<(), TrainError> {
        self.loader.seek(session.progress.epoch, session.progress.batch);
        self.train_epoch(components, learner, train, session, total)?;
        let ended = session.progress.iteration >= total;
        let measured = match self.config.evaluate {
            Evaluate::EveryEpoch => [true, true],
            Evaluate::TestEveryEpoch => [ended, true],
            Evaluate::AtEnd => [ended, ended],
        };
        self.evaluate(learner, valid, session, measured)?;
        session.progress.next_epoch();
        self.checkpoint(components, learner, session)?;
        self.notify(Event::Epoch(&session.rows));
        Ok(())
    }

    fn train_epoch(
        &self,
        components: &mut Components,
        learner: &mut Learner<Classifier>,
        train: &dyn DataLoader<Batch>,
        session: &mut Session,
        total: usize,
    ) -> Result<(), TrainError> {
        let number = session.progress.epoch + 1;
        let batches = self.loader.batches_per_epoch();
        let mut pending = Vec::new();
        let mut accumulated = Accumulated::default();
        let mut start = Instant::now();
        let mut iterator = train.iter();
        let stopped = |accumulated: &Accumulated| accumulated.is_empty() && self.conduct.stop.is_set();
        while !stopped(&accumulated) && session.progress.iteration < total {
            let Some(batch) = iterator.next() else { break };
            let batch = batch.map_err(|e| TrainError::Learner(e.to_string()))?;
            let samples = batch.labels.dims()[0];
            let TrainOutput { grads, item } = learner.train_step(batch);
            pending.push(measure(&item));
            session.progress.batch += 1;
            let last = session.progress.batch == batches;
            let network = learner.model().network;
            let Some(mut grads) = accumulated.add(&network, grads, samples, self.config.accumulate, last) else {
                continue;
            };
            if let Some(most) = self.config.optimizer.clip {
                grads = gradients::clip(&network, grads, most);
            }
            drop(network);
            learner.lr_step();
            learner.optimizer_step(grads);
            session.progress.iteration += 1;
            session.progress.rewound = false;
            if self.conduct.stop_after == Some(session.progress.iteration) {
                self.conduct.stop.set();
            }
            if let Some(ema) = &mut *self.ema.borrow_mut() {
                ema.update(&learner.model().valid().network);
            }
            let due =
                self.conduct.checkpoint_every.is_some_and(|every| self.last_checkpoint.borrow().elapsed() >= every);
            // A window is read when it is full, whatever was read of it before: the warm-up's end depends on that.
            let batch = session.progress.batch;
            let full = batch / READ_EVERY > (batch - pending.len()) / READ_EVERY;
            if full || last || due || self.conduct.stop.is_set() {
                self.read(&mut pending, session)?;
                let loss = session.curve.last().copied().unwrap_or_default();
                self.notify(Event::Step { epoch: number, batch: session.progress.batch, batches, loss });
            }
            if due && !last && session.progress.iteration < total {
                session.progress.seconds += start.elapsed().as_secs_f64();
                start = Instant::now();
                self.checkpoint(components, learner, session)?;
            }
        }
        self.read(&mut pending, session)?;
        session.progress.seconds += start.elapsed().as_secs_f64();
        if self.conduct.stop.is_set() {
            return Err(TrainError::Stopped);
        }
        if session.progress.batch == batches || session.progress.iteration >= total {
            let Progress { running, seconds, iteration, .. } = session.progress;
            let lr =
                self.pace.factor() * self.config.schedule.rate(iteration.saturating_sub(1), total, self.pace.is_warm());
            session.push(number, Split::Running, running.evaluation(), lr, seconds);
        }
        Ok(())
    }

    /// Reads what the device measured; on a GPU this waits for it.
    fn read(&self, pending: &mut Vec<Unread>, session: &mut Session) -> Result<(), TrainError> {
        let progress = &mut session.progress;
        let count = pending.len();
        let first = progress.batch - count;
        for (i, measured) in read(pending).into_iter().enumerate() {
            progress.running.add(measured);
            progress.window.add(measured);
            let loss = measured.loss;
            session.curve.push(loss);
            if !loss.is_finite() {
                let iteration = progress.iteration - (count - 1 - i) / self.config.accumulate;
                return Err(TrainError::Diverged { epoch: progress.epoch + 1, iteration, loss });
            }
            // Windows are those of the whole run, wherever it stopped and went on.
            let batch = first + i + 1;
            if batch.is_multiple_of(READ_EVERY) || batch == self.loader.batches_per_epoch() {
                let window = std::mem::take(&mut progress.window);
                if self.config.schedule.threshold().is_some_and(|threshold| window.evaluation().error < threshold) {
                    self.pace.set_warm(true);
                }
            }
        }
        Ok(())
    }

    /// The network that is measured and kept.
    fn measured(&self, learner: &Learner<Classifier>) -> Network {
        let ema = self.ema.borrow();
        ema.as_ref().map_or_else(|| learner.model().valid().network, |ema| ema.network().clone())
    }

    fn evaluate(
        &self,
        learner: &Learner<Classifier>,
        valid: &dyn DataLoader<Batch>,
        session: &mut Session,
        [on_train, on_test]: [bool; 2],
    ) -> Result<(), TrainError> {
        let model = Classifier { network: self.measured(learner), seed: self.config.seed };
        let number = session.progress.epoch + usize::from(session.progress.batch > 0);
        let lr = session.rows.last().map_or(0.0, |row| row.lr);
        let mut losses = Vec::new();
        let stop = || self.conduct.stop.is_set();
        if on_train {
            let start = Instant::now();
            let loader = Loader::new(self.dataset.train.clone(), self.config.batch_size, &self.device.clone().inner())
                .with_workers(self.conduct.workers);
            let train = measure_all(unread(&model.network, &loader), &stop)?;
            session.push(number, Split::Train, train, lr, start.elapsed().as_secs_f64());
            session.train = Some(train);
            losses.push(train.loss);
        }
        if on_test {
            let start = Instant::now();
            let batches = valid.iter().map(|batch| {
                let batch = batch.map_err(|e| TrainError::Learner(e.to_string()))?;
                Ok(measure(&InferenceStep::step(&model, batch)))
            });
            let test = measure_all(batches, &stop)?;
            session.push(number, Split::Test, test, lr, start.elapsed().as_secs_f64());
            session.test = Some(test);
            losses.push(test.loss);
        }
        if let Some(loss) = losses.into_iter().find(|loss| !loss.is_finite()) {
            let iteration = session.progress.iteration;
            return Err(TrainError::Diverged { epoch: number, iteration, loss: loss as f32 });
        }
        if let Some(test) = session.test.filter(|_| on_test && self.conduct.directory.is_some())
            && session.progress.improves(number, test.error)
        {
            session.best = Some(file(&model.network)?);
        }
        Ok(())
    }

    /// Writes the checkpoint and the metrics, if there is a run directory.
    fn checkpoint(
        &self,
        components: &mut Components,
        learner: &Learner<Classifier>,
        session: &Session,
    ) -> Result<(), TrainError> {
        let Some(directory) = &self.conduct.directory else { return Ok(()) };
        // `valid` folds the last step's running statistics into what a record holds.
        drop(learner.model().valid());
        let records = self.sinks.records(components, learner)?;
        let ema = self.ema.borrow().as_ref().map(|ema| file(ema.network())).transpose()?;
        let checkpoint = Checkpoint {
            network: self.config.network.clone(),
            progress: session.progress.clone(),
            warm: self.pace.is_warm(),
            rows: session.rows.clone(),
            records: Records { ema, best: session.best.clone(), ..records },
        };
        directory.write_checkpoint(&checkpoint)?;
        *self.last_checkpoint.borrow_mut() = Instant::now();
        Ok(())
    }

    /// Puts a checkpoint's state in place of the present one.
    fn restore(&self, learner: &mut Learner<Classifier>, session: &mut Session, checkpoint: Checkpoint) {
        let Checkpoint { progress, warm, rows, records, .. } = checkpoint;
        const CHECKED: &str = "a checkpoint's records were read when it was";
        // Running statistics that a step left to be folded in are not to overtake those of the checkpoint.
        drop(learner.model().valid());
        learner.load_model(ModuleRecord::from_bytes(burn_bytes(&records.model)).expect(CHECKED));
        learner.load_optim(OptimizerRecord::from_bytes(burn_bytes(&records.optimizer)).expect(CHECKED));
        learner.load_scheduler(LrSchedulerRecord::from_bytes(burn_bytes(&records.scheduler)).expect(CHECKED));
        if let (Some(ema), Some(record)) = (&mut *self.ema.borrow_mut(), &records.ema) {
            ema.restore(ModuleRecord::from_bytes(burn_bytes(record)).expect(CHECKED), progress.iteration);
        }
        self.pace.set_warm(warm);
        self.pace.set_rewinds(progress.rewinds);
        let measured = |split, samples| {
            let row = rows.iter().rfind(|row| row.epoch == progress.epoch && row.split == split)?;
            Some(Evaluation { loss: row.loss, error: row.error, samples })
        };
        session.train = measured(Split::Train, self.dataset.train.len());
        session.test = measured(Split::Test, self.dataset.test.len());
        session.best = records.best;
        (session.progress, session.rows) = (progress, rows);
    }

    /// Goes back to the last checkpoint, with half the rate from there on, and writes that as a checkpoint. From one
    /// that it came back to before without a checkpoint since, it goes back to the one before, if there is one.
    fn rewind(
        &self,
        components: &mut Components,
        learner: &mut Learner<Classifier>,
        session: &mut Session,
        loss: f32,
    ) -> Result<(), TrainError> {
        let diverged =
            TrainError::Diverged { epoch: session.progress.epoch + 1, iteration: session.progress.iteration, loss };
        let Some(directory) = &self.conduct.directory else { return Err(diverged) };
        let Some(mut checkpoint) = directory.latest(&self.device, true)? else { return Err(diverged) };
        if checkpoint.progress.rewound
            && let Some(older) = directory.before(checkpoint.iteration(), &self.device)?
        {
            checkpoint = older;
        }
        let (epoch, rewinds) = (session.progress.epoch + 1, session.progress.rewinds + 1);
        // The rows of rewinds that the checkpoint does not know of are kept.
        let earlier: Vec<Row> = session.rows.iter().filter(|row| row.split == Split::Rewind).cloned().collect();
        self.restore(learner, session, checkpoint);
        session.rows.extend(earlier.into_iter().skip(session.progress.rewinds));
        (session.progress.rewinds, session.progress.rewound) = (rewinds, true);
        self.pace.set_rewinds(rewinds);
        let total = self.config.steps(self.loader.batches_per_epoch());
        let lr = self.pace.factor() * self.config.schedule.rate(session.progress.iteration, total, self.pace.is_warm());
        let diverged = Evaluation { loss: f64::from(loss), error: f64::NAN, samples: 0 };
        session.push(epoch, Split::Rewind, diverged, lr, 0.0);
        self.checkpoint(components, learner, session)?;
        self.notify(Event::Rewind { iteration: session.progress.iteration, lr });
        Ok(())
    }

    fn notify(&self, event: Event<'_>) {
        (self.observer.borrow_mut())(event);
    }
}

/// Times that a training goes back before it gives up.
const MOST_REWINDS: usize = 8;

impl Session {
    fn push(&mut self, epoch: usize, split: Split, evaluation: Evaluation, lr: f64, seconds: f64) {
        let Evaluation { loss, error, samples } = evaluation;
        let images_per_second = samples as f64 / seconds.max(1e-9);
        self.rows.push(Row { epoch, split, loss, error, lr, seconds, images_per_second });
    }
}

/// The content of a file with a network's weights.
pub(crate) fn file(network: &Network) -> Result<Vec<u8>, TrainError> {
    to_burnpack(network).map_err(|error| TrainError::Learner(error.to_string()))
}

pub(crate) fn burn_bytes(bytes: &[u8]) -> Bytes {
    Bytes::from_bytes_vec(bytes.to_vec())
}

/// Where Burn's checkpointing hands records over, instead of writing files of its own.
struct Sinks {
    model: Receiver<ModuleRecord>,
    optimizer: Receiver<OptimizerRecord>,
    scheduler: Receiver<LrSchedulerRecord>,
}

struct Checkpointers {
    model: Sink<ModuleRecord>,
    optimizer: Sink<OptimizerRecord>,
    scheduler: Sink<LrSchedulerRecord>,
}

struct Sink<R>(Mutex<SyncSender<R>>);

fn sink<R>() -> (Receiver<R>, Sink<R>) {
    let (sender, receiver) = sync_channel(1);
    (receiver, Sink(Mutex::new(sender)))
}

impl Sinks {
    fn new() -> (Self, Checkpointers) {
        let (model, model_sink) = sink();
        let (optimizer, optimizer_sink) = sink();
        let (scheduler, scheduler_sink) = sink();
        let checkpointers = Checkpointers { model: model_sink, optimizer: optimizer_sink, scheduler: scheduler_sink };
        (Self { model, optimizer, scheduler }, checkpointers)
    }

    /// The learner's state; without the moving average and the best weights.
    fn records(&self, components: &mut Components, learner: &Learner<Classifier>) -> Result<Records, TrainError> {
        let gone = || TrainError::Learner("Burn's checkpointing has stopped".into());
        let failed = |error: &dyn std::fmt::Display| TrainError::Learner(error.to_string());
        let checkpointer = components.checkpointer.as_mut().ok_or_else(gone)?;
        checkpointer.checkpoint(learner, 0, &components.event_store);
        let model = self.model.recv().map_err(|_| gone())?;
        let optimizer = self.optimizer.recv().map_err(|_| gone())?;
        let scheduler = self.scheduler.recv().map_err(|_| gone())?;
        let (model, optimizer) = (model.into_bytes(), optimizer.into_bytes());
        Ok(Records {
            model: ids::canonical_module(model.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?,
            optimizer: ids::canonical_optimizer(optimizer.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?,
            scheduler: scheduler.into_bytes().map_err(|e| failed(&e))?.to_vec(),
            ema: None,
            best: None,
        })
    }
}

impl<R: Send> Checkpointer<R> for Sink<R>
where
    R: burn::train::checkpoint::Checkpoint,
{
    fn save(&self, _: usize, record: R) -> Result<(), CheckpointerError> {
        let sender = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sender.send(record).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn delete(&self, _: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _: usize) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown("checkpoints are read before the training begins".into()))
    }
}

/// Hands over every state it is asked for.
struct SaveAlways;

impl CheckpointingStrategy for SaveAlways {
    fn checkpointing(&mut self, _: usize, _: &EventStoreClient) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}

/// Draws nothing: progress goes to the [`Observer`].
struct Quiet;

impl MetricsRendererTraining for Quiet {
    fn update_train(&mut self, _: MetricState) {}
    fn update_valid(&mut self, _: MetricState) {}
    fn on_train_end(&mut self, _: Option<LearnerSummary>) -> Result<(), Box<dyn core::error::Error>> {
        Ok(())
    }
}

impl MetricsRendererEvaluation for Quiet {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl TrainingProgressLogger for Quiet {
    fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {}
    fn update_epoch(&mut self, _: usize) {}
    fn start_split(&mut self, _: &str, _: usize) {}
    fn update_split(&mut self, _: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _: String) {}
}

impl EvaluationProgressLogger for Quiet {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}

impl MetricsRenderer for Quiet {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _: MetricDefinition) {}
}
