use super::config::{InspectConfig, OnStep};
use crate::{LabError, memory, parallel};
use burn::tensor::{Int, Tensor, activation::log_softmax};
use residual_data::{Batch, Dataset, Loader, Source, Subset, shown};
use residual_model::{BlockKind, Family, Kernels, Network};
use residual_train::{Device, RunDir, TrainConfig, TrainError, Training};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A network to measure, either at its initial weights or with trained weights.
pub struct Subject {
    pub(super) config: TrainConfig,
    pub(super) dataset: Dataset,
    pub(super) device: Device,
    trained: Option<Network>,
    /// The training error of the trained network.
    train_error: Option<f64>,
    /// The name of the file of the trained weights, if they do not come from a run.
    weights: Option<String>,
}

/// What an [`Inspection`](super::Inspection) records about a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubjectInfo {
    /// The network's name, followed by its skip strength if that is neither 0 nor 1.
    pub name: String,
    /// The family.
    pub family: Family,
    /// Plain or residual.
    pub kind: BlockKind,
    /// Weighted layers.
    pub depth: usize,
    /// Blocks.
    pub blocks: usize,
    /// Classes.
    pub classes: usize,
    /// The dataset.
    pub data: String,
    /// The seed of the network and of its training.
    pub seed: u64,
    /// Epochs trained, or `None` for a network at its initial weights or with the weights of a file.
    pub epochs: Option<usize>,
    /// The name of the file of the weights, if they do not come from a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The fraction of the training set misclassified at the end of the training. `None` for a network at its initial
    /// weights, or if it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_error: Option<f64>,
}

/// Whether training errors, as fractions, are equal for a comparison of networks: they differ by at most one percentage
/// point.
pub fn is_equal_error(a: f64, b: f64) -> bool {
    (a - b).abs() <= 0.01
}

impl SubjectInfo {
    /// `on digits, seed 0, trained for 10 epochs`, or `on cifar10, with the weights of plain56.safetensors`
    pub fn state(&self) -> String {
        if let Some(weights) = &self.weights {
            return format!("on {}, with the weights of {}", shown(&self.data), shown(weights));
        }
        let state = match self.epochs {
            None => "untrained".into(),
            Some(1) => "trained for 1 epoch".into(),
            Some(epochs) => format!("trained for {epochs} epochs"),
        };
        format!("on {}, seed {}, {state}", shown(&self.data), self.seed)
    }
}

impl fmt::Display for SubjectInfo {
    /// `plain56 on digits, seed 0, trained for 10 epochs`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", shown(&self.name), self.state())
    }
}

impl Subject {
    /// A network at its initial weights, as a training with these settings starts.
    ///
    /// # Errors
    /// If a setting is wrong, or the data cannot be loaded.
    pub fn fresh(config: TrainConfig, device: &Device) -> Result<Self, LabError> {
        config.validate()?;
        let dataset = config.data.load().map_err(TrainError::from)?;
        // Make the same checks as a training.
        Training::with_data(config.clone(), dataset.clone(), device.clone())?;
        Ok(Self { config, dataset, device: device.clone().inner(), trained: None, train_error: None, weights: None })
    }

    /// The network of a finished training. The run directory is not changed.
    ///
    /// # Errors
    /// If the folder holds no finished training, or the data cannot be loaded.
    pub fn of_run(folder: &Path, device: &Device) -> Result<Self, LabError> {
        let run = RunDir::open(folder)?;
        let device = device.clone().inner();
        run.model()?;
        let network = run.network(&device)?;
        let train_error = run.summary()?.train_error;
        Ok(Self { trained: Some(network), train_error, ..Self::fresh(run.config()?, &device)? })
    }

    /// A network with the weights of a file of this name, measured on this data. Measurements that repeat a training cannot
    /// be made of it.
    ///
    /// # Errors
    /// If a setting is wrong, or the data does not fit the network.
    pub fn of_weights(
        config: TrainConfig,
        dataset: Dataset,
        network: Network,
        weights: String,
        device: &Device,
    ) -> Result<Self, LabError> {
        Training::with_data(config.clone(), dataset.clone(), device.clone())?;
        let device = device.clone().inner();
        Ok(Self { config, dataset, device, trained: Some(network), train_error: None, weights: Some(weights) })
    }

    /// Whether the network has trained weights.
    pub fn is_trained(&self) -> bool {
        self.trained.is_some()
    }

    pub(super) fn kind(&self) -> BlockKind {
        self.config.network.blocks.kind
    }

    /// `plain56`
    pub(super) fn name(&self) -> String {
        let name = self.config.network.name().to_string();
        match self.config.network.blocks.skip_strength {
            alpha if alpha != 1.0 && self.kind() == BlockKind::Residual => format!("{name}, α = {alpha}"),
            _ => name,
        }
    }

    /// What an inspection records about the network.
    pub fn info(&self) -> SubjectInfo {
        let network = &self.config.network;
        let name = network.name();
        SubjectInfo {
            name: self.name(),
            family: name.family,
            kind: self.kind(),
            depth: name.depth,
            blocks: network.block_count(),
            classes: network.classes,
            data: self.config.data.to_string(),
            seed: self.config.seed,
            epochs: (self.is_trained() && self.weights.is_none()).then_some(self.config.epochs),
            weights: self.weights.clone(),
            train_error: self.train_error,
        }
    }

    /// The trained network, in inference mode.
    pub(super) fn trained(&self) -> Option<Network> {
        self.trained.clone()
    }

    /// The trained network if there is one, otherwise [`Self::initial`], in inference mode.
    pub(super) fn network(&self, images: &Tensor<4>) -> Network {
        self.trained().unwrap_or_else(|| self.initial(images))
    }

    /// The initial network in inference mode. Its norms use the batch statistics of these images.
    pub(super) fn initial(&self, images: &Tensor<4>) -> Network {
        self.config.init(&self.device.clone().autodiff()).calibrated(images.clone())
    }

    /// Fails if the training cannot be repeated: if it started from a file of weights, or is not known.
    pub(super) fn check_start(&self) -> Result<(), LabError> {
        if let Some(weights) = &self.weights {
            let weights = shown(weights);
            return Err(LabError::Setting(format!("the training of {weights} is not known; omit steps and alpha")));
        }
        match &self.config.start {
            Some(_) => Err(LabError::Setting(format!(
                "the training of {} started from a file of weights and cannot be repeated; omit steps and alpha",
                self.name()
            ))),
            None => Ok(()),
        }
    }

    /// The number of forward and backward passes over this many images that fit into memory at the same time, at most
    /// `jobs`. Fails if not even one fits.
    pub(super) fn fitting(&self, samples: usize, jobs: usize) -> Result<usize, LabError> {
        let config = TrainConfig { batch_size: samples, ..self.config.clone() };
        memory::fitting(&config, &self.name(), Kernels::on(&self.device), jobs)
    }

    /// The number of tasks that run at the same time: the configured number, or fewer if memory is short.
    pub(super) fn jobs(subjects: &[Self], config: &InspectConfig) -> Result<usize, LabError> {
        subjects.iter().try_fold(config.jobs, |jobs, subject| subject.fitting(config.samples, jobs))
    }

    /// A batch of evenly spaced training images.
    pub(super) fn training_images(&self, samples: usize, device: &Device) -> Result<Batch, LabError> {
        batch(&self.dataset.train, samples, device)
    }

    /// A batch of evenly spaced test images.
    pub(super) fn test_images(&self, samples: usize, device: &Device) -> Result<Batch, LabError> {
        batch(&self.dataset.test, samples, device)
    }
}

fn batch(source: &Arc<dyn Source>, samples: usize, device: &Device) -> Result<Batch, LabError> {
    let some: Arc<dyn Source> = Arc::new(Subset::evenly(source.clone(), samples));
    let batch = Loader::new(some, samples, device).batches().next();
    Ok(batch.ok_or_else(|| LabError::Setting("the dataset has no samples".into()))?.map_err(TrainError::from)?)
}

/// The size of the largest batch that [`Subject::training_images`] returns for any of the subjects.
pub(super) fn training_count(subjects: &[Subject], samples: usize) -> usize {
    samples.min(subjects.iter().map(|subject| subject.dataset.train.len()).max().unwrap_or(0))
}

/// The size of the largest batch that [`Subject::test_images`] returns for any of the subjects.
pub(super) fn test_count(subjects: &[Subject], samples: usize) -> usize {
    samples.min(subjects.iter().map(|subject| subject.dataset.test.len()).max().unwrap_or(0))
}

/// The cross-entropy `-ln softmax(z)_y` of each image, in nats, of shape `[batch, 1]`.
pub(super) fn cross_entropies(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<2> {
    let [samples, _] = logits.dims();
    log_softmax(logits, 1).gather(1, labels.reshape([samples, 1])).neg()
}

/// The values of a tensor.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// `‖v‖₂`
pub(super) fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Runs [`parallel::each`] and calls `on_step` after each task. Fails with [`TrainError::Stopped`] once the stop flag is
/// set.
pub(super) fn each<R: Send>(
    count: usize,
    config: &InspectConfig,
    on_step: OnStep<'_>,
    f: impl Fn(usize) -> Result<R, LabError> + Sync,
) -> Result<Vec<R>, LabError> {
    let done = AtomicUsize::new(0);
    on_step(0, count);
    parallel::each(count, config.jobs, |i| {
        if config.stop.is_set() {
            return Err(TrainError::Stopped.into());
        }
        let result = f(i)?;
        on_step(done.fetch_add(1, Ordering::SeqCst) + 1, count);
        Ok(result)
    })
}
