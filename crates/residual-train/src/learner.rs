//! The only module that implements burn-train's traits and uses its types, which change between versions of Burn.

use crate::{
    TrainError,
    evaluate::{PendingMetrics, cross_entropy, soft_cross_entropy},
    sinks::{SinkSender, SinkSenders},
};
use burn::{
    data::dataloader::DataLoader,
    module::Module,
    optim::GradientsParams,
    train::{
        ClassificationOutput, InferenceStep, LearnerSummary, LearningResult, SupervisedLearningStrategy,
        SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainOutput, TrainStep, TrainingComponents,
        TrainingStrategy, ValidLoader,
        checkpoint::{Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy},
        logger::{EvaluationProgressLogger, InMemoryMetricLogger, TrainingProgressLogger},
        metric::{MetricDefinition, store::EventStoreClient},
        renderer::{EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining},
    },
};
use residual_data::{Batch, Loader};
use residual_model::Network;
use std::{cell::RefCell, path::PathBuf, rc::Rc, sync::Arc};

/// Burn's learner: the network, its optimizer and its learning-rate schedulers.
pub(crate) type Learner = burn::train::Learner<Classifier>;

/// The parts of a run that Burn passes to a training strategy, such as the checkpointers.
pub(crate) type Components = TrainingComponents<Classifier>;

type Processor = SupervisedTrainingEventProcessor<Classifier>;

/// A training loop. Burn's `SupervisedTraining` calls it once.
pub(crate) trait RunLoop {
    /// Trains to the end of the run.
    fn run(
        &mut self,
        components: &mut Components,
        learner: &mut Learner,
        train: &dyn DataLoader<Batch>,
        valid: &dyn DataLoader<Batch>,
    );
}

/// Runs a training loop in Burn's `SupervisedTraining`. Returns the network in inference mode and the error from Burn,
/// if any.
pub(crate) fn launch<L: RunLoop + 'static>(
    training_loop: Rc<RefCell<L>>,
    learner: Learner,
    [train, valid]: [Loader; 2],
    senders: SinkSenders,
) -> (Network, Option<TrainError>) {
    let SinkSenders { model, optimizer, scheduler } = senders;
    let strategy = Arc::new(Strategy(training_loop));
    let training = SupervisedTraining::<Classifier>::new(PathBuf::new(), Arc::new(train), Arc::new(valid))
        .with_training_strategy(TrainingStrategy::Custom(strategy))
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_custom_checkpointers(model, optimizer, scheduler)
        .with_checkpointing_strategy(SaveAlways)
        .renderer(Box::new(Quiet));
    let LearningResult { model, error, .. } = training.launch(learner);
    (model.network, error.map(|error| TrainError::Learner(error.to_string())))
}

/// A network with its loss, as Burn's learner expects it.
#[derive(Module, Debug)]
pub(crate) struct Classifier {
    pub(crate) network: Network,
    /// The seed for stochastic depth.
    pub(crate) seed: u64,
}

impl TrainStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let Batch { images, labels, targets, number } = batch;
        let logits = self.network.forward_training(images, self.seed, number);
        let loss = match targets {
            None => cross_entropy(&logits, &labels),
            Some(targets) => soft_cross_entropy(&logits, targets),
        };
        let output = ClassificationOutput::new(loss, logits, labels);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        let logits = self.network.forward(batch.images);
        ClassificationOutput::new(cross_entropy(&logits, &batch.labels), logits, batch.labels)
    }
}

/// Runs the forward and the backward pass on a batch.
pub(crate) fn forward_backward(learner: &Learner, batch: Batch) -> (GradientsParams, PendingMetrics) {
    let TrainOutput { grads, item } = learner.train_step(batch);
    let ClassificationOutput { loss, output: logits, targets: labels } = item;
    let metrics = PendingMetrics::new(loss.without_autodiff(), logits.without_autodiff(), labels.without_autodiff());
    (grads, metrics)
}

/// Makes Burn's checkpointers send the learner's records to the [`Sinks`](crate::sinks::Sinks).
pub(crate) fn send_records(components: &mut Components, learner: &Learner) -> Result<(), TrainError> {
    let Some(checkpointer) = components.checkpointer.as_mut() else {
        return Err(TrainError::Learner("Burn's checkpointers are missing".into()));
    };
    checkpointer.checkpoint(learner, 0, &components.event_store);
    Ok(())
}

/// Adapts a training loop to Burn's interface for training strategies.
struct Strategy<L>(Rc<RefCell<L>>);

impl<L: RunLoop> SupervisedLearningStrategy<Classifier> for Strategy<L> {
    fn fit(
        &self,
        mut components: Components,
        mut learner: Learner,
        train: TrainLoader<Classifier>,
        valid: ValidLoader<Classifier>,
        _starting_epoch: usize,
    ) -> (Classifier, Processor) {
        self.0.borrow_mut().run(&mut components, &mut learner, &*train, &*valid);
        (learner.model(), components.event_processor)
    }
}

impl<R: burn::train::checkpoint::Checkpoint> Checkpointer<R> for SinkSender<R> {
    fn save(&self, _: usize, record: R) -> Result<(), CheckpointerError> {
        self.send(record).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn delete(&self, _: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _: usize) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown("checkpoints are read before the training begins".into()))
    }
}

/// A checkpointing strategy that always saves.
struct SaveAlways;

impl CheckpointingStrategy for SaveAlways {
    fn checkpointing(&mut self, _: usize, _: &EventStoreClient) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}

/// A renderer that shows nothing. The run reports its progress to the observer instead.
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
