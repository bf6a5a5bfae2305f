use crate::{Decay, Schedule, TrainError, Warmup};
use residual_data::{Augmentation, DataConfig, DataName, Description};
use residual_model::{InitConfig, NetName, Network, NetworkConfig, Part};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// All that determines a training's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The format of this description: [`TrainConfig::VERSION`].
    pub version: u32,
    /// The network and its initial weights.
    pub network: NetworkConfig,
    /// The weights it starts from instead. Whoever trains loads them, see
    /// [`Training::with_network`](crate::Training::with_network).
    pub start: Option<Start>,
    /// Parts that are not trained. Their batch norms keep their running statistics.
    pub freeze: Vec<Part>,
    /// The dataset.
    pub data: DataConfig,
    /// How training images are changed at random.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Passes over the training set.
    pub epochs: usize,
    /// Optimizer steps after which the training ends, if before its last epoch does.
    #[serde(default)]
    pub iterations: Option<usize>,
    /// Samples in a batch; the last batch of an epoch may have fewer.
    pub batch_size: usize,
    /// Batches whose gradients, averaged over their samples, make one optimizer step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The seed of the order of samples and of their augmentation.
    pub seed: u64,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The learning rate.
    pub schedule: Schedule,
    /// When training and test error are measured.
    pub evaluate: Evaluate,
    /// What happens when the loss is no longer a finite number.
    #[serde(default)]
    pub on_nan: OnNan,
    /// Stops when the test loss has not improved for this many epochs.
    pub patience: Option<usize>,
    /// The decay of an exponential moving average of the weights, which is then what is measured and kept.
    #[serde(default)]
    pub ema: Option<f64>,
}

fn one() -> usize {
    1
}

/// Stochastic gradient descent: `v ← momentum · v + (g + weight_decay · w)`, `w ← w - lr · v`, or with Nesterov's
/// momentum `w ← w - lr · (g + weight_decay · w + momentum · v)`. Momentum is not dampened, as in the paper's Caffe and
/// in PyTorch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The momentum.
    pub momentum: f64,
    /// Whether it is Nesterov's (Sutskever et al. 2013).
    #[serde(default)]
    pub nesterov: bool,
    /// The largest norm of the gradient of all parameters together; a longer one is shortened to it (Pascanu et al. 2013).
    #[serde(default)]
    pub clip: Option<f64>,
    /// The weight decay.
    pub weight_decay: f64,
    /// Whether norms and biases decay too, as in the paper.
    pub decay_all: bool,
    /// Parts with learning rates of their own: the schedule's times a factor. The last that names a
    /// part holds.
    pub rates: Vec<(Part, f64)>,
}

impl Default for Optimizer {
    /// Momentum 0.9 and weight decay 1e-4 on every parameter alike (He et al. 2015, section 4.2).
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false, clip: None, weight_decay: 1e-4, decay_all: true, rates: Vec::new() }
    }
}

/// When the clean passes over the training and the test set happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluate {
    /// After every epoch.
    #[default]
    EveryEpoch,
    /// The test set after every epoch, the training set after the last.
    TestEveryEpoch,
    /// After the last.
    AtEnd,
}

/// What a training does that diverges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNan {
    /// It stops with an error.
    #[default]
    Stop,
    /// It goes back to its last checkpoint, and on with half the learning rate; without a run directory it stops.
    Rewind,
}

/// Weights to start from, for whoever loads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// A file of weights or the folder of a finished training, or else
    pub weights: Option<PathBuf>,
    /// published weights by name.
    pub pretrained: Option<String>,
    /// Whether the network keeps its own head.
    pub ignore_head: bool,
    /// A file that renames the weights' tensors.
    pub name_map: Option<PathBuf>,
}

impl TrainConfig {
    /// The format that this version of the crate writes and reads.
    pub const VERSION: u32 = 2;

    /// Ten epochs of batches of 64, SGD with cosine decay from 0.05, seed 0, everything of the
    /// network at its default but the width of convolutional nets on 8x8 images, which is 8.
    ///
    /// # Errors
    /// If there is no such network, or the dataset's folder cannot be used.
    pub fn new(name: NetName, data: impl Into<DataConfig>) -> Result<Self, TrainError> {
        let mut data = data.into();
        name.family.check_depth(name.depth)?;
        let small = name.family.is_for_small_images();
        if data.name == DataName::Folder && data.side.is_none() && small {
            data.side = Some(32);
        }
        let Description { shape, classes, .. } = data.describe()?;
        let mut network = NetworkConfig::new(name, shape, classes);
        if small && shape[1] <= 8 {
            network = network.with_width(8);
        }
        Ok(Self {
            version: Self::VERSION,
            network,
            start: None,
            freeze: Vec::new(),
            data,
            augmentation: Augmentation::default(),
            epochs: 10,
            iterations: None,
            batch_size: 64,
            accumulate: 1,
            seed: 0,
            optimizer: Optimizer::default(),
            schedule: Schedule::cosine(0.05),
            evaluate: Evaluate::EveryEpoch,
            on_nan: OnNan::Stop,
            patience: None,
            ema: None,
        })
    }

    /// Reads a configuration from a JSON file.
    ///
    /// # Errors
    /// If it cannot be read, is of another version, or has missing, unknown or wrong fields.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Io {
            action: "read",
            path: path.into(),
            source,
        })?;
        let config = Self::parse(&text).map_err(|reason| TrainError::bad_file(path, reason))?;
        config.validate()?;
        Ok(config)
    }

    /// Reads a configuration from JSON, whose settings need not make sense.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence that begins with the file's name.
    pub fn parse(json: &str) -> Result<Self, String> {
        let unusable = |error: serde_json::Error| format!("is not usable: {error}");
        let value: serde_json::Value = serde_json::from_str(json).map_err(unusable)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            // Read again, so that errors say where they are.
            Some(version) if version == u64::from(Self::VERSION) => serde_json::from_str(json).map_err(unusable),
            Some(version) => {
                Err(format!("is a configuration of version {version}; this program reads version {}", Self::VERSION))
            }
            None => Err("is not a training configuration: it has no `version`".into()),
        }
    }

    /// Sets the number of epochs.
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets the seed of the initial weights and of the order of samples.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        let init = InitConfig { seed, ..self.network.init };
        self.network = self.network.with_init(init);
        self
    }

    /// Sets the network.
    pub fn with_network(mut self, network: NetworkConfig) -> Self {
        self.network = network;
        self
    }

    /// Sets the learning rate.
    pub fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Fails unless a training with these settings can start.
    ///
    /// # Errors
    /// The first setting that is wrong, with the values it may have.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.network.validate()?;
        at_least_one("epochs", self.epochs)?;
        at_least_one("the batch size", self.batch_size)?;
        at_least_one("the number of batches for a step", self.accumulate)?;
        if let Some(iterations) = self.iterations {
            at_least_one("the number of iterations", iterations)?;
        }
        if let Some(network) = self.network.as_conv() {
            self.augmentation.check([network.image[1], network.image[2]])?;
        }
        if let Some(decay) = self.ema {
            within("the decay of the moving average", decay, "at least 0 and below 1", |x| (0.0..1.0).contains(&x))?;
        }
        if let Some(clip) = self.optimizer.clip {
            within("the gradient's largest norm", clip, "a positive number", |x| x > 0.0)?;
        }
        if let Some(patience) = self.patience {
            at_least_one("patience", patience)?;
            if self.evaluate == Evaluate::AtEnd {
                return Err(TrainError::Conflict("patience needs an evaluation after every epoch".into()));
            }
        }
        within("the learning rate", self.schedule.lr, "a positive number", |x| x > 0.0)?;
        within("momentum", self.optimizer.momentum, "at least 0 and below 1", |x| (0.0..1.0).contains(&x))?;
        within("weight decay", self.optimizer.weight_decay, "at least 0", |x| x >= 0.0)?;
        for (_, factor) in &self.optimizer.rates {
            within("the factor of a part's learning rate", *factor, "a positive number", |x| x > 0.0)?;
        }
        let parts = self.network.parts();
        let rated = self.optimizer.rates.iter().map(|(part, _)| part);
        if let Some(part) = self.freeze.iter().chain(rated).find(|part| !parts.contains(part)) {
            let expected = parts.iter().map(Part::to_string).collect::<Vec<_>>().join(", ");
            return Err(TrainError::Conflict(format!("{} has no part {part}, only {expected}", self.network.name())));
        }
        if parts.iter().all(|part| self.freeze.contains(part)) {
            return Err(TrainError::Conflict("nothing is left to train: every part is frozen".into()));
        }
        if let Decay::Step { milestones, factor } = &self.schedule.decay {
            at_least_one("the number of milestones", milestones.len())?;
            within("the factor of a step", *factor, "a positive number", |x| x > 0.0)?;
        }
        match self.schedule.warmup {
            Warmup::None => Ok(()),
            Warmup::Linear { iterations } => at_least_one("the iterations of a warm-up", iterations),
            Warmup::Constant { lr, iterations } => {
                at_least_one("the iterations of a warm-up", iterations)?;
                within("the learning rate of the warm-up", lr, "a positive number", |x| x > 0.0)
            }
            Warmup::UntilError { lr, threshold } => {
                within("the learning rate of the warm-up", lr, "a positive number", |x| x > 0.0)?;
                within("the error that ends a warm-up", threshold, "above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
            }
        }
    }

    /// Optimizer steps in all, with so many batches an epoch.
    pub fn steps(&self, batches: usize) -> usize {
        let all = self.epochs.saturating_mul(batches.div_ceil(self.accumulate.max(1)));
        self.iterations.map_or(all, |iterations| iterations.min(all))
    }

    /// Builds the network on the device, ready to train if the device records gradients.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn init(&self, device: &crate::Device) -> Network {
        self.network.init(device)
    }
}

fn at_least_one(name: &'static str, value: usize) -> Result<(), TrainError> {
    match value {
        0 => Err(TrainError::Setting { name, expected: "at least 1", value: value.to_string() }),
        _ => Ok(()),
    }
}

fn within(
    name: &'static str,
    value: f64,
    expected: &'static str,
    holds: impl Fn(f64) -> bool,
) -> Result<(), TrainError> {
    if value.is_finite() && holds(value) {
        return Ok(());
    }
    Err(TrainError::Setting { name, expected, value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TrainConfig {
        TrainConfig::new("resnet8".parse().unwrap(), DataName::Digits).unwrap()
    }

    fn error(change: impl Fn(&mut TrainConfig)) -> String {
        let mut config = config();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_would_be_right() {
        assert_eq!(error(|c| c.epochs = 0), "epochs must be at least 1, not 0");
        assert_eq!(error(|c| c.batch_size = 0), "the batch size must be at least 1, not 0");
        assert_eq!(error(|c| c.schedule.lr = f64::NAN), "the learning rate must be a positive number, not NaN");
        assert_eq!(error(|c| c.schedule.lr = -1.0), "the learning rate must be a positive number, not -1");
        assert_eq!(error(|c| c.optimizer.momentum = 1.0), "momentum must be at least 0 and below 1, not 1");
        assert_eq!(error(|c| c.network = c.network.clone().with_width(0)), "width must be at least 1");
    }

    #[test]
    fn a_config_survives_json_and_unknown_fields_do_not() {
        let config = config().with_seed(7);
        let json = serde_json::to_string(&config).unwrap();
        let back: TrainConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        let typo = json.replace("\"batch_size\"", "\"batchsize\"");
        assert!(serde_json::from_str::<TrainConfig>(&typo).unwrap_err().to_string().contains("batchsize"));
    }
}
