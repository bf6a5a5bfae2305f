use super::{InspectConfig, Watch};
use crate::{LabError, figures, parallel};
use burn::tensor::{Int, Tensor, activation::log_softmax};
use residual_data::{Batch, Dataset, Loader, Source, Subset};
use residual_model::{BlockKind, Kernels, Network};
use residual_train::{Device, Memory, RunDir, TrainConfig, TrainError};
use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A network to look at: fresh, or with a training's weights.
pub struct Subject {
    pub(super) config: TrainConfig,
    pub(super) dataset: Dataset,
    pub(super) device: Device,
    trained: Option<Network>,
}

impl Subject {
    /// The network that a training with these settings starts with.
    ///
    /// # Errors
    /// If a setting is wrong, or the data cannot be loaded.
    pub fn fresh(config: TrainConfig, device: &Device) -> Result<Self, LabError> {
        config.validate()?;
        let dataset = config.data.load().map_err(TrainError::from)?;
        // What a training checks before it starts.
        residual_train::Training::with_data(config.clone(), dataset.clone(), device.clone())?;
        Ok(Self { config, dataset, device: device.clone().inner(), trained: None })
    }

    /// The network of a finished training. The folder is only read.
    ///
    /// # Errors
    /// If the folder holds no finished training, or its data cannot be loaded.
    pub fn of_run(folder: &Path, device: &Device) -> Result<Self, LabError> {
        let run = RunDir::open(folder)?;
        let device = device.clone().inner();
        run.model()?;
        let network = run.network(&device)?;
        Ok(Self { trained: Some(network), ..Self::fresh(run.config()?, &device)? })
    }

    /// Whether it has a training's weights.
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

    /// `on digits, seed 0, trained for 10 epochs`
    fn state(&self) -> String {
        let (data, seed) = (&self.config.data, self.config.seed);
        match self.is_trained() {
            true => format!("on {data}, seed {seed}, trained for {} epochs", self.config.epochs),
            false => format!("on {data}, seed {seed}, fresh"),
        }
    }

    /// The training's network in inference mode.
    pub(super) fn trained(&self) -> Option<Network> {
        self.trained.clone()
    }

    /// The training's network, or else the initial one with the batch's statistics in its norms; in inference mode.
    pub(super) fn network(&self, images: &Tensor<4>) -> Network {
        self.trained().unwrap_or_else(|| self.initial(images))
    }

    /// The initial network with the batch's statistics in its norms, in inference mode.
    pub(super) fn initial(&self, images: &Tensor<4>) -> Network {
        self.config.init(&self.device.clone().autodiff()).calibrated(images.clone())
    }

    /// Fails if its training began with weights from elsewhere, which are not known here.
    pub(super) fn check_start(&self) -> Result<(), LabError> {
        match &self.config.start {
            Some(_) => Err(LabError::Setting(format!(
                "the training of {} began with weights from a file, and is not done again here; leave out steps and alpha",
                self.name()
            ))),
            None => Ok(()),
        }
    }

    /// The memory that a pass over so many images takes, with its gradients, in bytes.
    fn memory(&self, samples: usize) -> Result<u64, LabError> {
        let config = TrainConfig { batch_size: samples, ..self.config.clone() };
        Ok(Memory::expected(&config, Kernels::on(&self.device)).map_err(TrainError::from)?.total())
    }

    /// Fails if a pass over so many images takes more memory than there is.
    pub(super) fn check_memory(&self, samples: usize) -> Result<(), LabError> {
        let (expected, there) = (self.memory(samples)?, Memory::available());
        if expected <= there {
            return Ok(());
        }
        let [expected, there] = [expected, there].map(|bytes| bytes as f64 / f64::from(1 << 30));
        Err(LabError::Setting(format!(
            "{} takes some {expected:.1} GiB of memory with {samples} images, and there are {there:.1}; try fewer images",
            self.name()
        )))
    }

    /// As many measurements at a time as were asked for and the memory holds.
    pub(super) fn jobs(subjects: &[Self], config: &InspectConfig) -> Result<usize, LabError> {
        let passes = subjects.iter().map(|subject| subject.memory(config.samples));
        let largest = passes.collect::<Result<Vec<u64>, LabError>>()?.into_iter().max().unwrap_or(0).max(1);
        Ok(config.jobs.min((Memory::available() / largest) as usize).max(1))
    }

    /// So many training images, at equal distances.
    pub(super) fn training_images(&self, samples: usize, device: &Device) -> Result<Batch, LabError> {
        batch(&self.dataset.train, samples, device)
    }

    /// So many test images, at equal distances.
    pub(super) fn test_images(&self, samples: usize, device: &Device) -> Result<Batch, LabError> {
        batch(&self.dataset.test, samples, device)
    }
}

impl fmt::Display for Subject {
    /// `plain56 on digits, seed 0, trained for 10 epochs`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.state())
    }
}

/// `plain56 and resnet56 on digits, seed 0, fresh`; what differs is said of each.
pub(super) fn described(subjects: &[Subject]) -> String {
    let same = subjects.windows(2).all(|pair| pair[0].state() == pair[1].state());
    match subjects.first() {
        Some(first) if same => format!("{} {}", listed(subjects.iter().map(Subject::name)), first.state()),
        _ => subjects.iter().map(Subject::to_string).collect::<Vec<_>>().join("; "),
    }
}

fn batch(source: &Arc<dyn Source>, samples: usize, device: &Device) -> Result<Batch, LabError> {
    let some: Arc<dyn Source> = Arc::new(Subset::evenly(source.clone(), samples));
    let batch = Loader::new(some, samples, device).batches().next();
    Ok(batch.ok_or_else(|| LabError::Setting("there are no samples".into()))?.map_err(TrainError::from)?)
}

/// `512 training images`, if there are so many.
pub(super) fn training_images(subjects: &[Subject], samples: usize) -> String {
    let most = subjects.iter().map(|subject| subject.dataset.train.len()).max().unwrap_or(0);
    format!("{} training images", samples.min(most))
}

/// `512 test images`, if there are so many.
pub(super) fn test_images(subjects: &[Subject], samples: usize) -> String {
    let most = subjects.iter().map(|subject| subject.dataset.test.len()).max().unwrap_or(0);
    format!("{} test images", samples.min(most))
}

/// The subjects' names, with a number where two have the same.
pub(super) fn labels(subjects: &[Subject]) -> Vec<String> {
    numbered(subjects.iter().map(Subject::name).collect())
}

/// Names, with their place where two are the same.
pub(super) fn numbered(names: Vec<String>) -> Vec<String> {
    let label = |(i, name): (usize, &String)| match names.iter().filter(|other| *other == name).count() {
        1 => name.clone(),
        _ => format!("{name} ({})", i + 1),
    };
    names.iter().enumerate().map(label).collect()
}

/// `a, b and c`
pub(super) fn listed(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match &words[..] {
        [] => String::new(),
        [word] => word.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The subjects' colours, by kind.
pub(super) fn colors(subjects: &[Subject]) -> Vec<String> {
    let before = |i: usize| subjects[..i].iter().filter(|other| other.kind() == subjects[i].kind()).count();
    (0..subjects.len()).map(|i| figures::color(subjects[i].kind(), before(i))).collect()
}

/// `-ln softmax(z)_y` of each image, in nats: `[batch, 1]`.
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

/// [`parallel::each`], and tells how much is done.
pub(super) fn each<R: Send>(
    count: usize,
    config: &InspectConfig,
    watch: Watch<'_>,
    f: impl Fn(usize) -> Result<R, LabError> + Sync,
) -> Result<Vec<R>, LabError> {
    let done = AtomicUsize::new(0);
    watch(0, count);
    parallel::each(count, config.jobs, |i| {
        let result = f(i)?;
        watch(done.fetch_add(1, Ordering::SeqCst) + 1, count);
        Ok(result)
    })
}
