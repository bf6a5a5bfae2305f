//! Every implementation of a burn-train trait, in one place: these change with Burn's versions.

use crate::{
    Evaluate, Evaluation, Event, Optimizer, Row, RunDir, Split, Status, StopFlag, TrainConfig, TrainError,
    directory::Progress,
    evaluate::{Measured, Sums, evaluate, loss},
    metrics,
    schedule::{Scheduler, Warm},
};
use burn::{
    data::dataloader::DataLoader,
    module::{Module, ParamGroup},
    optim::{
        SgdConfig, decay::WeightDecayConfig, lr_scheduler::module_lr_scheduler::ModuleLrScheduler,
        momentum::MomentumConfig,
    },
    tensor::{Device, Int, Tensor},
    train::{
        ClassificationOutput, EventProcessorTraining, InferenceStep, Learner, LearnerEvent, LearnerSummary,
        LearningResult, SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
        TrainOutput, TrainStep, TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
        checkpoint::{CheckpointingAction, CheckpointingStrategy},
        logger::{EvaluationProgressLogger, InMemoryMetricLogger, TrainingProgressLogger},
        metric::{AccuracyMetric, LearningRateMetric, LossMetric, MetricDefinition, store::EventStoreClient},
        renderer::{EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining},
    },
};
use residual_data::{Batch, Dataset, Loader, Order};
use residual_model::{Network, parameters::for_each_parameter};
use std::{cell::RefCell, sync::Arc, time::Instant};

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
        let logits = self.network.forward_training(batch.images, self.seed, batch.number);
        let output = output(logits, batch.labels);
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

fn measure(output: &ClassificationOutput) -> Measured {
    let ClassificationOutput { loss, output: logits, targets } = output;
    Measured::new(
        loss.clone().without_autodiff(),
        logits.clone().without_autodiff(),
        targets.clone().without_autodiff(),
    )
}

/// What a training has come to.
#[derive(Default)]
pub(crate) struct Session {
    /// Where it starts from, if not from initial weights.
    pub(crate) network: Option<Network>,
    pub(crate) progress: Progress,
    pub(crate) rows: Vec<Row>,
    pub(crate) curve: Vec<f32>,
    pub(crate) train: Option<Evaluation>,
    pub(crate) test: Option<Evaluation>,
    pub(crate) status: Status,
}

/// Called with each [`Event`].
pub(crate) type Observer = Box<dyn FnMut(Event<'_>)>;

/// Our training loop, run by Burn's `SupervisedTraining`.
///
/// Beside what Burn's own does it measures the training error by a clean pass, feeds that of the
/// running batches to the schedule, stops within a step, refuses a loss that is not finite, and
/// starts in the middle of an epoch.
pub(crate) struct Loop {
    config: TrainConfig,
    dataset: Dataset,
    device: Device,
    loader: Loader,
    warm: Warm,
    stop: StopFlag,
    directory: Option<RunDir>,
    session: RefCell<Session>,
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
    stop: StopFlag,
    directory: Option<RunDir>,
    mut session: Session,
    observer: Observer,
) -> (Network, Session, Option<TrainError>) {
    let device = device.clone().autodiff();
    let loader = Loader::new(dataset.train.clone(), config.batch_size, &device)
        .with_order(Order::Shuffled { seed: config.seed })
        .with_prefetch(if directory.is_some() { 2 } else { 0 });
    let valid: Arc<dyn DataLoader<Batch>> =
        Arc::new(Loader::new(dataset.test.clone(), config.batch_size, &device.clone().inner()));
    let warm = Warm::default();
    let scheduler = |factor| Scheduler {
        schedule: config.schedule.clone(),
        total: config.epochs * loader.batches_per_epoch(),
        warm: warm.clone(),
        iteration: 0,
        factor,
    };
    let network = session.network.take().unwrap_or_else(|| config.init(&device)).unfreeze().train();
    let network = network.freeze_parts(&config.freeze).expect("the configuration was validated");
    let mut schedulers = ModuleLrScheduler::new(scheduler(1.0));
    for &(part, factor) in &config.optimizer.rates {
        schedulers = schedulers.with_group(group(&network, |path| part.contains(path)), scheduler(factor));
    }
    let mut optimizer = sgd(&config.optimizer, config.optimizer.weight_decay).init();
    if !config.optimizer.decay_all {
        let norms_and_biases =
            group(&network, |path| [".gamma", ".beta", ".bias"].iter().any(|end| path.ends_with(end)));
        optimizer = optimizer.with_group(norms_and_biases, sgd(&config.optimizer, 0.0).build(), None);
    }
    let model = Classifier { network, seed: config.seed };
    let learner = Learner::new(model, optimizer, schedulers);

    let resumed = session.progress.iteration;
    #[expect(clippy::arc_with_non_send_sync, reason = "Burn takes a strategy in an Arc, and calls it on this thread")]
    let training_loop = Arc::new(Loop {
        config,
        dataset,
        device,
        loader: loader.clone(),
        warm,
        stop,
        directory: directory.clone(),
        session: RefCell::new(session),
        observer: RefCell::new(observer),
        error: RefCell::new(None),
    });
    let path = directory.as_ref().map_or_else(Default::default, |d| d.path().to_path_buf());
    let mut training = SupervisedTraining::<Classifier>::new(path, Arc::new(loader), valid)
        .with_training_strategy(TrainingStrategy::Custom(training_loop.clone()))
        .with_application_logger(None)
        .renderer(Box::new(Quiet));
    training = match &directory {
        None => training.with_metric_logger(InMemoryMetricLogger::new()),
        Some(directory) => training
            .metrics((AccuracyMetric::new(), LossMetric::new()))
            .metric_train_numeric(LearningRateMetric::new())
            .with_default_checkpointers()
            .with_checkpointing_strategy(KeepLast::new(directory.clone())),
    };
    if resumed > 0 {
        training = training.checkpoint(resumed);
    }
    let LearningResult { model, error, .. } = training.launch(learner);

    let session = training_loop.session.take();
    let error = training_loop.error.take().or(error.map(|e| TrainError::Learner(e.to_string())));
    (model.network, session, error)
}

/// Stochastic gradient descent with the optimizer's momentum and this weight decay.
pub(crate) fn sgd(optimizer: &Optimizer, weight_decay: f64) -> SgdConfig {
    let momentum = MomentumConfig::new().with_momentum(optimizer.momentum).with_dampening(0.0);
    let decay = WeightDecayConfig::new(weight_decay as f32);
    SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay))
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
        let first = session.progress.epoch;
        for epoch in first..self.config.epochs {
            if self.config.patience.is_some_and(|n| metrics::is_stale(&session.rows, n)) {
                session.status = Status::StoppedEarly;
                break;
            }
            self.loader.seek(epoch, session.progress.batch);
            self.train_epoch(components, learner, train, session)?;
            if self.stop.is_set() {
                session.status = Status::Interrupted;
                return self.checkpoint(components, learner, session);
            }
            if self.config.evaluate == Evaluate::EveryEpoch || epoch + 1 == self.config.epochs {
                self.evaluate(components, learner, valid, epoch + 1, session)?;
            }
            session.progress.next_epoch();
            self.checkpoint(components, learner, session)?;
            self.notify(Event::Epoch(&session.rows));
        }
        if session.train.is_none() {
            self.evaluate(components, learner, valid, session.progress.epoch, session)?;
        }
        Ok(())
    }

    fn train_epoch(
        &self,
        components: &mut Components,
        learner: &mut Learner<Classifier>,
        train: &dyn DataLoader<Batch>,
        session: &mut Session,
    ) -> Result<(), TrainError> {
        let number = session.progress.epoch + 1;
        let batches = self.loader.batches_per_epoch();
        let mut window = Sums::default();
        let mut pending = Vec::new();
        let start = Instant::now();
        self.event(components, LearnerEvent::StartSplit { epoch_number: number, total_items: train.num_items() })?;
        let mut iterator = train.iter();
        while !self.stop.is_set() {
            let Some(batch) = iterator.next() else { break };
            let batch = batch.map_err(|e| TrainError::Learner(e.to_string()))?;
            let TrainOutput { grads, item } = learner.train_step(batch);
            learner.lr_step();
            learner.optimizer_step(grads);
            pending.push(measure(&item));
            session.progress.batch += 1;
            session.progress.iteration += 1;
            let iteration = session.progress.iteration;
            if self.directory.is_some() {
                let item = TrainingItem::new(item, iterator.progress(), Some(iteration), Some(learner.lr_current()));
                self.event(components, LearnerEvent::ProcessedItem(item))?;
            }
            if pending.len() == READ_EVERY || session.progress.batch == batches || self.stop.is_set() {
                self.read(&mut pending, session, &mut window)?;
                let loss = session.curve.last().copied().unwrap_or_default();
                self.notify(Event::Step { epoch: number, batch: session.progress.batch, batches, loss });
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        self.event(components, LearnerEvent::EndSplit(number))?;
        session.progress.seconds += seconds;
        if !self.stop.is_set() {
            let Progress { running, seconds, .. } = session.progress;
            let total = self.config.epochs * batches;
            let lr = self.config.schedule.rate(session.progress.iteration - 1, total, self.warm.get());
            session.push(number, Split::Running, running.evaluation(), lr, seconds);
        }
        Ok(())
    }

    /// Reads what the device measured; on a GPU this waits for it.
    fn read(&self, pending: &mut Vec<Measured>, session: &mut Session, window: &mut Sums) -> Result<(), TrainError> {
        let first = session.progress.iteration - pending.len();
        *window = Sums::default();
        for (i, measured) in pending.drain(..).enumerate() {
            session.progress.running.add(&measured);
            let loss = window.add(&measured);
            session.curve.push(loss);
            if !loss.is_finite() {
                return Err(TrainError::Diverged { epoch: session.progress.epoch + 1, iteration: first + i + 1, loss });
            }
        }
        if let Some(threshold) = self.config.schedule.threshold()
            && window.evaluation().error < threshold
        {
            self.warm.set(true);
        }
        Ok(())
    }

    fn evaluate(
        &self,
        components: &mut Components,
        learner: &Learner<Classifier>,
        valid: &dyn DataLoader<Batch>,
        number: usize,
        session: &mut Session,
    ) -> Result<(), TrainError> {
        let model = learner.model().valid();
        let lr = session.rows.last().map_or(0.0, |row| row.lr);
        let start = Instant::now();
        let train = evaluate(&model.network, &self.dataset.train, self.config.batch_size, &self.device)?;
        session.push(number, Split::Train, train, lr, start.elapsed().as_secs_f64());

        let start = Instant::now();
        let mut sums = Sums::default();
        self.valid_event(
            components,
            LearnerEvent::StartSplit { epoch_number: number, total_items: valid.num_items() },
        )?;
        let mut iterator = valid.iter();
        let mut iteration = 0;
        while let Some(batch) = iterator.next() {
            let batch = batch.map_err(|e| TrainError::Learner(e.to_string()))?;
            let item = InferenceStep::step(&model, batch);
            sums.add(&measure(&item));
            iteration += 1;
            if self.directory.is_some() {
                let item = TrainingItem::new(item, iterator.progress(), Some(iteration), None);
                self.valid_event(components, LearnerEvent::ProcessedItem(item))?;
            }
        }
        self.valid_event(components, LearnerEvent::EndSplit(number))?;
        self.event(components, LearnerEvent::EndEpoch(number))?;
        let test = sums.evaluation();
        session.push(number, Split::Test, test, lr, start.elapsed().as_secs_f64());
        (session.train, session.test) = (Some(train), Some(test));
        match [train.loss, test.loss].into_iter().find(|loss| !loss.is_finite()) {
            Some(loss) => {
                let iteration = session.progress.iteration;
                Err(TrainError::Diverged { epoch: number, iteration, loss: loss as f32 })
            }
            None => Ok(()),
        }
    }

    /// Writes the checkpoint and the metrics, if there is a run directory.
    fn checkpoint(
        &self,
        components: &mut Components,
        learner: &Learner<Classifier>,
        session: &Session,
    ) -> Result<(), TrainError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let flushed = components.event_processor.flush();
        flushed.map_err(|e| TrainError::Learner(e.to_string()))?;
        // `valid` folds the last step's running statistics into what a record holds.
        drop(learner.model().valid());
        if let Some(checkpointer) = &mut components.checkpointer {
            checkpointer.checkpoint(learner, session.progress.iteration, &components.event_store);
        }
        directory.write_metrics(&session.rows)?;
        directory.write_progress(&session.progress)?;
        match components.interrupter.error() {
            Some(error) => Err(TrainError::Learner(error.to_string())),
            None => Ok(()),
        }
    }

    fn event(&self, components: &mut Components, event: LearnerEvent<ClassificationOutput>) -> Result<(), TrainError> {
        if self.directory.is_none() {
            return Ok(());
        }
        components.event_processor.process_train(event).map_err(|e| TrainError::Learner(e.to_string()))
    }

    fn valid_event(
        &self,
        components: &mut Components,
        event: LearnerEvent<ClassificationOutput>,
    ) -> Result<(), TrainError> {
        if self.directory.is_none() {
            return Ok(());
        }
        components.event_processor.process_valid(event).map_err(|e| TrainError::Learner(e.to_string()))
    }

    fn notify(&self, event: Event<'_>) {
        (self.observer.borrow_mut())(event);
    }
}

/// Iterations between two reads of losses from the device.
const READ_EVERY: usize = 10;

impl Session {
    fn push(&mut self, epoch: usize, split: Split, evaluation: Evaluation, lr: f64, seconds: f64) {
        let Evaluation { loss, error, samples } = evaluation;
        let images_per_second = samples as f64 / seconds.max(1e-9);
        self.rows.push(Row { epoch, split, loss, error, lr, seconds, images_per_second });
    }
}

/// Keeps the two newest checkpoints. Burn numbers them by epoch; ours count iterations, since an
/// interrupted epoch is saved too.
struct KeepLast {
    directory: RunDir,
}

impl KeepLast {
    fn new(directory: RunDir) -> Self {
        Self { directory }
    }
}

impl CheckpointingStrategy for KeepLast {
    fn checkpointing(&mut self, iteration: usize, _store: &EventStoreClient) -> Vec<CheckpointingAction> {
        let mut old = self.directory.checkpoints();
        old.retain(|&i| i != iteration);
        let delete = old.split_off(old.len().min(1)).into_iter().map(|i| {
            self.directory.forget_progress(i);
            CheckpointingAction::Delete(i)
        });
        std::iter::once(CheckpointingAction::Save).chain(delete).collect()
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
