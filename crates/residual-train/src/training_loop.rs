use crate::{
    Checkpoint, Evaluate, Evaluation, Event, OnNan, Row, Split, Status, TrainConfig, TrainError,
    checkpoint::{Records, burn_bytes, encode_network},
    ema::Ema,
    evaluate::{PendingMetrics, READ_EVERY, measure_all, measure_batch, measure_batches, read_pending},
    event::Observer,
    gradients::{GradientAccumulator, clip},
    ids,
    learner::{Classifier, Components, Learner, RunLoop, forward_backward, launch, send_records},
    metrics::is_stale,
    ranks::Group,
    run_options::RunOptions,
    schedule::{Scheduler, WarmupState},
    session::Session,
    sinks::Sinks,
    tensorboard::{EventFile, SessionStatus},
};
use burn::{
    data::dataloader::DataLoader,
    module::Module,
    optim::{
        OptimizerRecord,
        lr_scheduler::{LrSchedulerRecord, module_lr_scheduler::ModuleLrScheduler},
    },
    store::ModuleRecord,
    tensor::Device,
};
use residual_data::{Batch, Dataset, Loader, Order};
use residual_model::Network;
use std::{cell::RefCell, rc::Rc, time::Instant};

/// The maximum number of rewinds. A run that diverges once more fails.
const MAX_REWINDS: usize = 8;

/// Trains from the session's progress to the end of the run. Returns the network in inference mode, the session, and
/// the error that ended the run, if any.
pub(crate) fn train(
    config: TrainConfig,
    dataset: Dataset,
    device: &Device,
    options: RunOptions,
    mut session: Session,
    observer: Observer,
) -> (Network, Session, Option<TrainError>) {
    let device = device.clone().autodiff();
    let loader = Loader::new(dataset.train.clone(), config.batch_size, &device)
        .with_order(Order::Shuffled { seed: config.seed })
        .with_augmentation(config.augmentation.clone(), config.seed)
        .with_classes(config.network.classes)
        .with_workers(options.workers)
        .with_prefetch(if options.directory.is_some() { 2 } else { 0 });
    let (rank, count) = options.share();
    let loader = loader.with_share(rank, count);
    let valid = Loader::new(dataset.test.clone(), config.batch_size, &device.clone().inner())
        .with_workers(options.workers)
        .with_share(rank, count);
    let warmup = WarmupState::default();
    let steps = config.steps(loader.batches_per_epoch());
    let mut learner = init(&config, &device, session.network.take(), steps, &warmup);
    let ema = config.ema.map(|decay| Ema::new(&config, &learner.model().network, decay));
    let checkpoint = session.checkpoint.take();
    let (sinks, senders) = Sinks::new();
    let mut training_loop = TrainingLoop {
        config,
        dataset,
        device,
        loader: loader.clone(),
        warmup,
        options,
        sinks,
        session,
        ema,
        last_checkpoint: Instant::now(),
        events: None,
        observer,
        error: None,
        agreed: [false; 2],
    };
    if let Some(checkpoint) = checkpoint {
        training_loop.restore(&mut learner, checkpoint);
    }
    let training_loop = Rc::new(RefCell::new(training_loop));
    let (network, error) = launch(training_loop.clone(), learner, [loader, valid], senders);

    let mut training_loop = training_loop.borrow_mut();
    let session = std::mem::take(&mut training_loop.session);
    let error = training_loop.error.take().or(error);
    let network = training_loop.ema.take().map_or(network, Ema::into_network);
    (ids::assign_unique(network), session, error)
}

/// Builds the learner: the given network or a new one, its optimizer and its learning-rate schedulers.
fn init(
    config: &TrainConfig,
    device: &Device,
    network: Option<Network>,
    steps: usize,
    warmup: &WarmupState,
) -> Learner {
    let network = network.unwrap_or_else(|| config.init(device)).unfreeze().train();
    let network = network.freeze_parts(&config.freeze).expect("the configuration was validated");
    let network = ids::assign_by_path(network);
    let scheduler = |factor| Scheduler {
        schedule: config.schedule.clone(),
        total: steps,
        warmup: warmup.clone(),
        iteration: 0,
        factor,
    };
    let mut schedulers = ModuleLrScheduler::new(scheduler(1.0));
    for &(part, factor) in &config.optimizer.rates {
        schedulers = schedulers.with_group(ids::group(&network, |path| part.contains(path)), scheduler(factor));
    }
    let optimizer = config.optimizer.init(&network);
    Learner::new(Classifier { network, seed: config.seed }, optimizer, schedulers)
}

/// The training loop that Burn's `SupervisedTraining` runs.
///
/// It differs from Burn's own loop in these points:
///
/// - It measures the training error with a clean pass.
/// - It can end the warm-up when the error of the training batches falls below a threshold.
/// - It can stop after any optimizer step.
/// - It fails if the loss is NaN or infinite.
/// - It resumes bit-exactly, even within an epoch.
struct TrainingLoop {
    config: TrainConfig,
    dataset: Dataset,
    device: Device,
    /// The loader of the training set.
    loader: Loader,
    warmup: WarmupState,
    options: RunOptions,
    sinks: Sinks,
    session: Session,
    ema: Option<Ema>,
    /// When the last checkpoint was written.
    last_checkpoint: Instant,
    /// What TensorBoard reads.
    events: Option<EventFile>,
    observer: Observer,
    /// The error that ended the run.
    error: Option<TrainError>,
    /// With ranks: whether all of them stop, and whether a checkpoint is due, as they agreed after the last batch.
    agreed: [bool; 2],
}

impl RunLoop for TrainingLoop {
    /// Trains from the session's progress to the end of the run. Stores the status in the session and, if the run
    /// failed, the error in `self`.
    fn run(
        &mut self,
        components: &mut Components,
        learner: &mut Learner,
        train: &dyn DataLoader<Batch>,
        valid: &dyn DataLoader<Batch>,
    ) {
        if let Err(error) = self.epochs(components, learner, train, valid) {
            let diverged = matches!(error, TrainError::Diverged { .. });
            if diverged {
                // The error of the run says more than one of writing this.
                let _ = self.end_events(SessionStatus::Failure);
            }
            self.session.status = if diverged { Status::Diverged } else { Status::Failed };
            self.error = Some(error);
        }
    }
}

impl TrainingLoop {
    fn epochs(
        &mut self,
        components: &mut Components,
        learner: &mut Learner,
        train: &dyn DataLoader<Batch>,
        valid: &dyn DataLoader<Batch>,
    ) -> Result<(), TrainError> {
        self.session.status = Status::Finished;
        if let Some(directory) = &self.options.directory {
            self.events = directory.events(self.options.tensorboard, self.session.progress.iteration)?;
        }
        if self.config.on_nan == OnNan::Rewind && self.session.progress.iteration == 0 {
            self.checkpoint(components, learner)?;
        }
        let total = self.total_steps();
        while self.session.progress.iteration < total || self.session.progress.batch > 0 {
            if self.config.patience.is_some_and(|epochs| is_stale(&self.session.rows, epochs)) {
                self.session.status = Status::StoppedEarly;
                break;
            }
            let rows = self.session.rows.len();
            let start = Instant::now();
            match self.epoch(components, learner, train, valid) {
                Err(TrainError::Stopped) => {
                    // The resumed run evaluates the epoch again and writes these rows again.
                    self.session.rows.truncate(rows);
                    self.session.status = Status::Interrupted;
                    return self.checkpoint(components, learner);
                }
                Err(TrainError::Diverged { loss, .. })
                    if self.config.on_nan == OnNan::Rewind && self.session.progress.rewinds < MAX_REWINDS =>
                {
                    self.rewind(components, learner, loss)?;
                }
                // Several devices may be in the middle of a step, so they keep the last checkpoint.
                Err(error @ (TrainError::Sample { .. } | TrainError::Data(_))) if self.options.ranks.is_none() => {
                    self.session.rows.truncate(rows);
                    self.checkpoint(components, learner)?;
                    return Err(error);
                }
                Err(error) => {
                    if matches!(error, TrainError::Diverged { .. }) {
                        self.session.diverged_seconds = start.elapsed().as_secs_f64();
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        let rows = self.session.rows.len();
        let (epoch, measured) = (self.session.progress.epoch, &self.session.rows);
        let missing = [Split::Train, Split::Test]
            .map(|split| !measured.iter().any(|row| (row.epoch, row.split) == (epoch, split)));
        match self.evaluate(learner, valid, missing) {
            Err(TrainError::Stopped) => {
                self.session.rows.truncate(rows);
                self.session.status = Status::Interrupted;
                self.checkpoint(components, learner)
            }
            Ok(()) => {
                self.write_events(rows)?;
                self.end_events(SessionStatus::Success)
            }
            result => result,
        }
    }

    /// Trains for one epoch, or for the rest of an interrupted one, and evaluates.
    fn epoch(
        &mut self,
        components: &mut Components,
        learner: &mut Learner,
        train: &dyn DataLoader<Batch>,
        valid: &dyn DataLoader<Batch>,
    ) -> Result<(), TrainError> {
        let rows = self.session.rows.len();
        self.loader.seek(self.session.progress.epoch, self.session.progress.batch);
        self.train_epoch(components, learner, train)?;
        let ended = self.session.progress.iteration >= self.total_steps();
        let sets = match self.config.evaluate {
            Evaluate::EveryEpoch => [true, true],
            Evaluate::TestEveryEpoch => [ended, true],
            Evaluate::AtEnd => [ended, ended],
        };
        self.evaluate(learner, valid, sets)?;
        // Before the checkpoint, so that no epoch is missing if the run is killed in between.
        self.write_events(rows)?;
        self.session.progress.next_epoch();
        let rewinds = self.config.on_nan == OnNan::Rewind;
        if self.options.checkpoint_epochs || rewinds || (self.is_due() && !ended) {
            self.checkpoint(components, learner)?;
        }
        (self.observer)(Event::Epoch(&self.session.rows));
        Ok(())
    }

    fn train_epoch(
        &mut self,
        components: &mut Components,
        learner: &mut Learner,
        train: &dyn DataLoader<Batch>,
    ) -> Result<(), TrainError> {
        let epoch = self.session.progress.epoch + 1;
        let batches = self.loader.batches_per_epoch();
        let total = self.total_steps();
        let mut pending = Vec::new();
        let mut accumulator = GradientAccumulator::default();
        let (ranks, mut group) = (self.options.ranks.clone(), Group::default());
        // The network as it was before the batches in the accumulator.
        let mut before_step: Option<Classifier> = None;
        let mut start = Instant::now();
        let mut iterator = train.iter();
        while self.session.progress.iteration < total && self.session.progress.batch < batches {
            // If gradients have accumulated, the run stops only after the step that uses them.
            if accumulator.is_empty() && group.len() == 0 && self.is_stopped() {
                break;
            }
            let batch = match iterator.next().transpose() {
                Ok(batch) => batch,
                Err(error) => {
                    // The batches since the last step are trained on again after a resume, because their gradients are
                    // lost. So they must not count in the running statistics now.
                    if let Some(before) = before_step {
                        drop(learner.model().valid());
                        learner.load_model(before.into_record());
                    }
                    self.session.progress.batch -= accumulator.len();
                    pending.truncate(pending.len() - accumulator.len());
                    self.read_metrics(&mut pending)?;
                    self.session.progress.seconds += start.elapsed().as_secs_f64();
                    return Err(TrainError::Sample { reason: error.to_string() });
                }
            };
            let count = self.config.accumulate;
            let gradients = match (&ranks, batch) {
                (Some(ranks), batch) => {
                    let is_alone = group.len() == 0 && self.session.progress.batch + 1 == batches;
                    let local = [self.options.stop.is_set(), self.is_due()];
                    let round = ranks.round(learner, batch, &mut group, is_alone, local)?;
                    self.agreed = [round.stop, round.due];
                    self.session.progress.batch += round.metrics.len();
                    pending.extend(round.metrics.into_iter().map(PendingMetrics::Read));
                    let is_full = group.len() == count || self.session.progress.batch == batches;
                    if is_full { Some(ranks.mean(&learner.model().network, &mut group)?) } else { None }
                }
                (None, None) => break,
                (None, Some(batch)) => {
                    let samples = batch.labels.dims()[0];
                    if count > 1 && accumulator.is_empty() {
                        before_step = Some(learner.model().valid());
                    }
                    let (gradients, metrics) = forward_backward(learner, batch);
                    pending.push(metrics);
                    self.session.progress.batch += 1;
                    let last = self.session.progress.batch == batches;
                    accumulator.add(|| learner.model().network, gradients, samples, count, last)
                }
            };
            let Some(mut gradients) = gradients else { continue };
            before_step = None;
            let batch = self.session.progress.batch;
            let last = batch == batches;
            if let Some(max_norm) = self.config.optimizer.clip {
                gradients = clip(&learner.model().network, gradients, max_norm);
            }
            learner.lr_step();
            learner.optimizer_step(gradients);
            if let Some(directory) = &self.options.directory {
                directory.check_in_place()?;
            }
            self.session.progress.iteration += 1;
            self.session.progress.rewound = false;
            if let Some(ema) = &mut self.ema {
                ema.update(&learner.model().valid().network);
            }
            let due = if ranks.is_some() { self.agreed[1] } else { self.is_due() };
            // The end of the warm-up depends on whole windows of batches, so each window is read as soon as it is full.
            let full = batch / READ_EVERY > (batch - pending.len()) / READ_EVERY;
            if full || last || due || self.is_stopped() {
                self.read_metrics(&mut pending)?;
                let loss = self.session.curve.last().copied().unwrap_or_default();
                (self.observer)(Event::Step { epoch, batch, batches, loss });
            }
            if due && !last && self.session.progress.iteration < total {
                self.session.progress.seconds += start.elapsed().as_secs_f64();
                start = Instant::now();
                self.checkpoint(components, learner)?;
            }
        }
        self.read_metrics(&mut pending)?;
        self.session.progress.seconds += start.elapsed().as_secs_f64();
        if self.is_stopped() {
            return Err(TrainError::Stopped);
        }
        let progress = &self.session.progress;
        if progress.batch == batches || progress.iteration >= total {
            let (running, seconds) = (progress.running.evaluation(), progress.seconds);
            let lr = self.rate(progress.iteration.saturating_sub(1));
            self.session.push(epoch, Split::Running, running, lr, seconds);
        }
        Ok(())
    }

    /// Writes the rows from this one on for TensorBoard.
    fn write_events(&mut self, first: usize) -> Result<(), TrainError> {
        let mut scalars = Vec::new();
        for row in &self.session.rows[first..] {
            let [error, loss] = match row.split {
                Split::Running => ["error/running", "loss/running"],
                Split::Train => ["error/training", "loss/training"],
                Split::Test => ["error/test", "loss/test"],
                Split::Rewind => continue,
            };
            scalars.extend([(error, row.error), (loss, row.loss)]);
            if row.split == Split::Running {
                scalars.extend([("lr", row.lr), ("images_per_second", row.images_per_second)]);
            }
        }
        let step = self.session.progress.iteration;
        if scalars.is_empty() { Ok(()) } else { self.with_events(|events| events.scalars(step, &scalars)) }
    }

    fn end_events(&mut self, status: SessionStatus) -> Result<(), TrainError> {
        self.with_events(|events| events.end(status))
    }

    fn with_events(&mut self, write: impl FnOnce(&mut EventFile) -> std::io::Result<()>) -> Result<(), TrainError> {
        let (Some(events), Some(directory)) = (&mut self.events, &self.options.directory) else { return Ok(()) };
        let path = directory.path().to_path_buf();
        write(events).map_err(|source| TrainError::Io { action: "write into", path, source })
    }

    /// Whether the last checkpoint is so old that another one is due.
    fn is_due(&self) -> bool {
        self.options.checkpoint_every.is_some_and(|every| self.last_checkpoint.elapsed() >= every)
    }

    /// Whether the stop flag is set, or the run has reached the step after which it is to stop.
    fn is_stopped(&self) -> bool {
        let reached = self.options.stop_after.is_some_and(|step| self.session.progress.iteration >= step);
        let is_stopped = if self.options.ranks.is_some() { self.agreed[0] } else { self.options.stop.is_set() };
        reached || is_stopped
    }

    /// Reads the pending metrics from the device. On a GPU, this waits for all queued work.
    fn read_metrics(&mut self, pending: &mut Vec<PendingMetrics>) -> Result<(), TrainError> {
        let progress = &mut self.session.progress;
        let count = pending.len();
        let first = progress.batch - count;
        for (i, metrics) in read_pending(pending).into_iter().enumerate() {
            progress.running.add(metrics);
            progress.window.add(metrics);
            let loss = metrics.loss;
            self.session.curve.push(loss);
            if !loss.is_finite() {
                let iteration = progress.iteration - (count - 1 - i) / self.config.accumulate;
                return Err(TrainError::Diverged { epoch: progress.epoch + 1, iteration, loss });
            }
            // Windows are counted from the start of the epoch, so that they do not depend on where a run was
            // interrupted.
            let batch = first + i + 1;
            if batch.is_multiple_of(READ_EVERY) || batch == self.loader.batches_per_epoch() {
                let window = std::mem::take(&mut progress.window);
                if self.config.schedule.threshold().is_some_and(|threshold| window.evaluation().error < threshold) {
                    self.warmup.set_warm(true);
                }
            }
        }
        Ok(())
    }

    /// The total number of optimizer steps.
    fn total_steps(&self) -> usize {
        self.config.steps(self.loader.batches_per_epoch())
    }

    /// The learning rate at an iteration, from 0.
    fn rate(&self, iteration: usize) -> f64 {
        self.warmup.factor() * self.config.schedule.rate(iteration, self.total_steps(), self.warmup.is_warm())
    }

    /// The network to evaluate and save. It has the averaged weights if the run averages weights.
    fn network(&self, learner: &Learner) -> Network {
        self.ema.as_ref().map_or_else(|| learner.model().valid().network, |ema| ema.network().clone())
    }

    /// Evaluates on the training set, the test set, or both.
    fn evaluate(
        &mut self,
        learner: &Learner,
        valid: &dyn DataLoader<Batch>,
        [on_train, on_test]: [bool; 2],
    ) -> Result<(), TrainError> {
        let network = self.network(learner);
        let epoch = self.session.progress.epoch + usize::from(self.session.progress.batch > 0);
        let lr = self.session.rows.last().map_or(0.0, |row| row.lr);
        let mut losses = Vec::new();
        if on_train {
            let start = Instant::now();
            let (rank, count) = self.options.share();
            let loader = Loader::new(self.dataset.train.clone(), self.config.batch_size, &self.device.clone().inner())
                .with_workers(self.options.workers)
                .with_share(rank, count);
            let (stop, ranks) = (&self.options.stop, self.options.ranks.as_ref());
            let train = measure_all(measure_batches(&network, &loader), stop, ranks)?;
            self.session.push(epoch, Split::Train, train, lr, start.elapsed().as_secs_f64());
            self.session.train = Some(train);
            losses.push(train.loss);
        }
        if on_test {
            let start = Instant::now();
            let batches = valid.iter().map(|batch| {
                let batch = batch.map_err(|error| TrainError::Sample { reason: error.to_string() })?;
                Ok(measure_batch(&network, batch))
            });
            let test = measure_all(batches, &self.options.stop, self.options.ranks.as_ref())?;
            self.session.push(epoch, Split::Test, test, lr, start.elapsed().as_secs_f64());
            self.session.test = Some(test);
            losses.push(test.loss);
        }
        if let Some(loss) = losses.into_iter().find(|loss| !loss.is_finite()) {
            let iteration = self.session.progress.iteration;
            return Err(TrainError::Diverged { epoch, iteration, loss: loss as f32 });
        }
        if on_test
            && self.options.directory.is_some()
            && let Some(test) = self.session.test
            && self.session.progress.improves(epoch, test.error)
        {
            self.session.best = Some(encode_network(&network)?);
        }
        Ok(())
    }

    /// Writes a checkpoint and the metrics, if there is a run directory.
    fn checkpoint(&mut self, components: &mut Components, learner: &Learner) -> Result<(), TrainError> {
        let Some(directory) = &self.options.directory else { return Ok(()) };
        // `valid` folds the running statistics of the last step into the tensors that a record holds.
        drop(learner.model().valid());
        send_records(components, learner)?;
        let records = self.sinks.receive()?;
        let ema = self.ema.as_ref().map(|ema| encode_network(ema.network())).transpose()?;
        let checkpoint = Checkpoint {
            network: self.config.network.clone(),
            progress: self.session.progress.clone(),
            warm: self.warmup.is_warm(),
            rows: self.session.rows.clone(),
            records: Records {
                ema,
                best: self.session.best.clone(),
                curve: Some(bytes(&self.session.curve)),
                ..records
            },
        };
        directory.write_checkpoint(&checkpoint)?;
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    /// Replaces the state of the run with the state in a checkpoint.
    ///
    /// # Panics
    /// If a record cannot be decoded. [`RunDir`](crate::RunDir) decodes all records when it reads a checkpoint.
    fn restore(&mut self, learner: &mut Learner, checkpoint: Checkpoint) {
        const CHECKED: &str = "records are decoded when the checkpoint is read";
        let Checkpoint { progress, warm, rows, records, .. } = checkpoint;
        // `valid` folds in the running statistics of the last step. Otherwise they would later overwrite the
        // checkpoint's.
        drop(learner.model().valid());
        learner.load_model(ModuleRecord::from_bytes(burn_bytes(&records.model)).expect(CHECKED));
        learner.load_optim(OptimizerRecord::from_bytes(burn_bytes(&records.optimizer)).expect(CHECKED));
        learner.load_scheduler(LrSchedulerRecord::from_bytes(burn_bytes(&records.scheduler)).expect(CHECKED));
        if let (Some(ema), Some(record)) = (&mut self.ema, &records.ema) {
            ema.restore(ModuleRecord::from_bytes(burn_bytes(record)).expect(CHECKED), progress.iteration);
        }
        self.warmup.set_warm(warm);
        self.warmup.set_rewinds(progress.rewinds);
        let evaluation = |split, samples| {
            let row = rows.iter().rfind(|row| row.epoch == progress.epoch && row.split == split)?;
            Some(Evaluation { loss: row.loss, error: row.error, samples })
        };
        self.session.train = evaluation(Split::Train, self.dataset.train.len());
        self.session.test = evaluation(Split::Test, self.dataset.test.len());
        self.session.best = records.best;
        self.session.curve = records.curve.map(|bytes| floats(&bytes)).unwrap_or_default();
        (self.session.progress, self.session.rows) = (progress, rows);
    }

    /// The checkpoint to go back to. Of several ranks, the first one has it and sends it to the others.
    fn epoch_end(&self) -> Result<Option<Checkpoint>, TrainError> {
        let own = self.options.directory.as_ref().and_then(|directory| {
            let newest = directory.epoch_end(usize::MAX, &self.device)?;
            let older =
                newest.progress.rewound.then(|| directory.epoch_end(newest.iteration(), &self.device)).flatten();
            Some(older.unwrap_or(newest))
        });
        let Some(ranks) = &self.options.ranks else { return Ok(own) };
        let bytes = own.as_ref().map_or(Ok(Vec::new()), Checkpoint::to_bytes)?;
        let bytes = ranks.broadcast(&bytes)?;
        if own.is_some() || bytes.is_empty() {
            return Ok(own);
        }
        let sent = Checkpoint::from_bytes(&bytes);
        sent.map(Some)
            .map_err(|reason| TrainError::Conflict(format!("the checkpoint that another process sent {reason}")))
    }

    /// Goes back to the checkpoint at the start of the epoch, halves the learning rate, and writes the resulting state
    /// as a checkpoint. If the run was already rewound to that checkpoint and has not finished an epoch since, it goes
    /// back to the checkpoint before it, if there is one.
    ///
    /// Checkpoints from within an epoch depend on the time and on interruptions, so a run does not go back to them:
    /// otherwise its result would depend on these too.
    fn rewind(&mut self, components: &mut Components, learner: &mut Learner, loss: f32) -> Result<(), TrainError> {
        let (epoch, iteration) = (self.session.progress.epoch + 1, self.session.progress.iteration);
        let diverged = TrainError::Diverged { epoch, iteration, loss };
        let Some(checkpoint) = self.epoch_end()? else { return Err(diverged) };
        let rewinds = self.session.progress.rewinds + 1;
        // The checkpoint may be older than some rewinds. Keep the rows of those rewinds.
        let earlier: Vec<Row> = self.session.rows.iter().filter(|row| row.split == Split::Rewind).cloned().collect();
        self.restore(learner, checkpoint);
        self.session.rows.extend(earlier.into_iter().skip(self.session.progress.rewinds));
        (self.session.progress.rewinds, self.session.progress.rewound) = (rewinds, true);
        self.warmup.set_rewinds(rewinds);
        let lr = self.rate(self.session.progress.iteration);
        let diverged = Evaluation { loss: f64::from(loss), error: f64::NAN, samples: 0 };
        self.session.push(epoch, Split::Rewind, diverged, lr, 0.0);
        self.checkpoint(components, learner)?;
        let iteration = self.session.progress.iteration;
        self.with_events(|events| events.restart(iteration + 1))?;
        (self.observer)(Event::Rewind { iteration: self.session.progress.iteration, lr });
        Ok(())
    }
}

/// 32-bit floats as little-endian bytes.
fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The floats that [`bytes`] encoded.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}
