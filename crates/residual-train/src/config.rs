use crate::{
    Decay, DecayKind, Optimizer, OptimizerKind, Schedule, TrainError, Warmup,
    files::unusable,
    ranges::{at_least_one, within},
};
use residual_data::{Augmentation, DataConfig, DataName, Description};
use residual_fetch::read_text;
use residual_model::{InitConfig, NetName, Network, NetworkConfig, Part};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// All settings that determine the result of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The version of this format: [`TrainConfig::VERSION`].
    pub version: u32,
    /// The network and its initialisation.
    pub network: NetworkConfig,
    /// The weights to start from, instead of newly initialised ones. The caller loads them and passes the network to
    /// [`Training::with_network`](crate::Training::with_network).
    pub start: Option<Start>,
    /// The parts of the network that are not trained. Their batch norms do not update their running statistics.
    pub freeze: Vec<Part>,
    /// The dataset.
    pub data: DataConfig,
    /// The random augmentation of the training images.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// The number of passes over the training set.
    pub epochs: usize,
    /// The maximum number of optimizer steps. The run ends after this many steps even if epochs are left.
    #[serde(default)]
    pub iterations: Option<usize>,
    /// The number of samples per batch. The last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// The number of batches per optimizer step. The gradient of a step is the mean over all samples in its batches.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The seed for the order of the samples, their augmentation, and stochastic depth.
    pub seed: u64,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The learning-rate schedule.
    pub schedule: Schedule,
    /// When the training error and the test error are measured.
    pub evaluate: Evaluate,
    /// What to do when the loss becomes NaN or infinite.
    #[serde(default)]
    pub on_nan: OnNan,
    /// Ends the run early once the test loss has not improved for this many epochs.
    pub patience: Option<usize>,
    /// The decay of an exponential moving average of the weights. If it is set, the averaged weights are evaluated and
    /// saved.
    #[serde(default)]
    pub ema: Option<f64>,
}

fn one() -> usize {
    1
}

/// When the training set and the test set are evaluated with a clean pass.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = TrainError, parse_err_fn = unknown_evaluate)]
pub enum Evaluate {
    /// Both after every epoch.
    #[default]
    EveryEpoch,
    /// The test set after every epoch, the training set after the last one.
    TestEveryEpoch,
    /// Both after the last epoch.
    AtEnd,
}

fn unknown_evaluate(name: &str) -> TrainError {
    TrainError::unknown::<Evaluate>("evaluation schedule", name)
}

/// What to do when the loss becomes NaN or infinite.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = TrainError, parse_err_fn = unknown_on_nan)]
pub enum OnNan {
    /// Stop with an error.
    #[default]
    Stop,
    /// Rewind to the checkpoint at the start of the epoch and continue with half the learning rate. Without a run
    /// directory, stop.
    Rewind,
}

fn unknown_on_nan(name: &str) -> TrainError {
    TrainError::unknown::<OnNan>("action on NaN", name)
}

/// The weights to start from. The caller loads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// A weights file, or the directory of a finished run.
    pub weights: Option<PathBuf>,
    /// The name of published weights, if `weights` is not set.
    pub pretrained: Option<String>,
    /// Whether the network keeps its initial head instead of loading the head from the weights.
    pub ignore_head: bool,
    /// A file with rules for renaming the tensors in the weights file.
    pub name_map: Option<PathBuf>,
    /// The keys that lead to the weights in their file, joined by dots. `None` for the dictionary that fits best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl TrainConfig {
    /// The format version that this crate writes and reads.
    pub const VERSION: u32 = 2;

    /// Ten epochs in batches of 64, SGD with a cosine decay of the learning rate from 0.05, and seed 0.
    ///
    /// The network has its default settings, with one exception: networks for small images have a width of 8 if the
    /// images are at most 8 pixels high. For these networks, the images of a dataset folder are cropped to 32x32 pixels
    /// by default.
    ///
    /// # Errors
    /// If there is no such network, or the dataset's directory cannot be used.
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
    /// If the file cannot be read, has another version, or has missing, unknown or invalid fields.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        /// A configuration has a few kilobytes.
        const MAX_BYTES: u64 = 16 << 20;
        let text = read_text(path, MAX_BYTES).map_err(|source| TrainError::Io {
            action: "read",
            path: path.into(),
            source,
        })?;
        let config = Self::parse(&text).map_err(|reason| TrainError::bad_file(path, reason))?;
        config.validate()?;
        Ok(config)
    }

    /// Parses a configuration from JSON without validating its settings.
    ///
    /// # Errors
    /// If `json` is not a configuration of this version. The error is phrased to follow the file's name: `is not
    /// usable`.
    pub fn parse(json: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|error| unusable(&error))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            // The text is parsed again, because errors from `value` would not name a line and a column.
            Some(version) if version == u64::from(Self::VERSION) => {
                serde_json::from_str(json).map_err(|error| unusable(&error))
            }
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

    /// Sets the seed of the initial weights and [`Self::seed`].
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

    /// Sets the learning-rate schedule.
    pub fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Sets the optimizer to the one of this kind, with its usual settings and its usual learning rate. Gradient clipping,
    /// the parts' learning rates and the schedule stay, and the rate of a warm-up changes in proportion. Does nothing if
    /// the optimizer is already of this kind.
    pub fn with_optimizer(mut self, kind: OptimizerKind) -> Self {
        if self.optimizer.kind() != kind {
            let Optimizer { clip, decay_all, rates, .. } = self.optimizer;
            self.optimizer = Optimizer { clip, decay_all, rates, ..Optimizer::new(kind) };
            return self.with_lr(kind.lr());
        }
        self
    }

    /// Sets the peak learning rate. The rate of a warm-up changes in proportion.
    pub fn with_lr(mut self, peak: f64) -> Self {
        let factor = peak / self.schedule.lr;
        self.schedule.lr = peak;
        if let Warmup::Constant { lr, .. } | Warmup::UntilError { lr, .. } = &mut self.schedule.warmup {
            *lr *= factor;
        }
        self
    }

    /// Checks that a run with these settings can start.
    ///
    /// # Errors
    /// If a setting is invalid, or a path is not valid Unicode. The error names the first invalid setting and its
    /// allowed values.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.network.validate()?;
        let start = self.start.iter().flat_map(|start| [&start.weights, &start.name_map]);
        if let Some(path) = start.chain([&self.data.dir]).flatten().find(|path| path.to_str().is_none()) {
            // Configurations are stored as JSON, which can only hold Unicode.
            let value = path.display().to_string();
            return Err(TrainError::Setting { name: "a path in the configuration", expected: "valid Unicode", value });
        }
        at_least_one("epochs", self.epochs)?;
        if self.epochs > MOST_EPOCHS {
            return Err(TrainError::Setting {
                name: "epochs",
                expected: "at most 1000000000",
                value: self.epochs.to_string(),
            });
        }
        at_least_one("the batch size", self.batch_size)?;
        at_least_one("the number of batches per step", self.accumulate)?;
        if let Some(iterations) = self.iterations {
            at_least_one("the number of iterations", iterations)?;
        }
        if let Some(network) = self.network.as_conv() {
            self.augmentation.check([network.image[1], network.image[2]])?;
        }
        if let Some(decay) = self.ema {
            within("the decay of the moving average", decay, "at least 0 and below 1", |x| (0.0..1.0).contains(&x))?;
        }
        if let Some(patience) = self.patience {
            at_least_one("patience", patience)?;
            if self.evaluate == Evaluate::AtEnd {
                return Err(TrainError::Conflict("patience requires an evaluation after every epoch".into()));
            }
        }
        within("the learning rate", self.schedule.lr, "a positive number", |x| x > 0.0)?;
        self.optimizer.validate()?;
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
            within("the factor of a step decay", *factor, "a positive number", |x| x > 0.0)?;
        }
        match self.schedule.warmup {
            Warmup::None => Ok(()),
            Warmup::Linear { iterations } => at_least_one("the number of warm-up iterations", iterations),
            Warmup::Constant { lr, iterations } => {
                at_least_one("the number of warm-up iterations", iterations)?;
                within("the warm-up learning rate", lr, "a positive number", |x| x > 0.0)
            }
            Warmup::UntilError { lr, threshold } => {
                within("the warm-up learning rate", lr, "a positive number", |x| x > 0.0)?;
                within("the error threshold of the warm-up", threshold, "above 0 and at most 1", |x| {
                    x > 0.0 && x <= 1.0
                })
            }
        }
    }

    /// The configuration of the same training with more epochs. The steps so far stay as they are.
    ///
    /// # Errors
    /// If there are no more epochs than now, the schedule depends on the number of epochs, or the training ends at a
    /// number of iterations or early.
    pub fn extended(&self, epochs: usize) -> Result<Self, TrainError> {
        let refused = |reason: String| Err(TrainError::Conflict(format!("the training cannot be extended: {reason}")));
        if epochs <= self.epochs {
            return refused(format!("it already has {} epochs, so more are needed than {epochs}", self.epochs));
        }
        let kind = DecayKind::from(&self.schedule.decay);
        if matches!(self.schedule.decay, Decay::Cosine | Decay::Linear) {
            let old = self.epochs;
            return refused(format!(
                "its {kind} schedule falls to 0 at the end of epoch {old}, so that each step of a longer training has another \
                 learning rate; start a new one"
            ));
        }
        let batches = self.data.describe()?.train.div_ceil(self.batch_size.max(1));
        let whole = Self { iterations: None, ..self.clone() }.steps(batches);
        if let Some(iterations) = self.iterations.filter(|&iterations| iterations < whole) {
            return refused(format!("it ends after {iterations} iterations, not after an epoch"));
        }
        let config = self.clone().with_epochs(epochs);
        config.validate()?;
        Ok(config)
    }

    /// The total number of optimizer steps, given the number of batches per epoch.
    pub fn steps(&self, batches: usize) -> usize {
        let all = self.epochs.saturating_mul(batches.div_ceil(self.accumulate.max(1)));
        self.iterations.map_or(all, |iterations| iterations.min(all))
    }

    /// Checks that this many devices, or processes, can share the batches of a step.
    ///
    /// # Errors
    /// If they do not divide the number of batches per step, or several processes have several devices each.
    pub fn check_share(&self, devices: usize, processes: usize) -> Result<(), TrainError> {
        let (number, what) = match devices {
            1 => (processes, "processes"),
            _ if processes > 1 => {
                return Err(TrainError::Conflict("a run in several processes has one device in each".into()));
            }
            devices => (devices, "devices"),
        };
        let batches = self.accumulate;
        if batches.is_multiple_of(number) {
            return Ok(());
        }
        let divisors = (1..=batches).filter(|divisor| batches.is_multiple_of(*divisor));
        let divisors: Vec<String> = divisors.map(|divisor| divisor.to_string()).collect();
        Err(TrainError::Conflict(format!(
            "{number} {what} cannot share the batches of a step equally: `accumulate` must be a multiple of {number}, not \
             {batches}; the number of {what} can be {}",
            divisors.join(", ")
        )))
    }

    /// Builds the network on a device. The network can be trained if autodiff is enabled on the device.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn init(&self, device: &crate::Device) -> Network {
        self.network.init(device)
    }
}

/// Far more than any training has. Within it, products of epochs, layers and batches do not overflow.
const MOST_EPOCHS: usize = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    fn config() -> TrainConfig {
        TrainConfig::new("resnet8".parse().unwrap(), DataName::Digits).unwrap()
    }

    fn error(change: impl Fn(&mut TrainConfig)) -> String {
        let mut config = config();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_setting_and_its_allowed_values() {
        assert_eq!(error(|c| c.epochs = 0), "epochs must be at least 1, not 0");
        assert_eq!(error(|c| c.batch_size = 0), "the batch size must be at least 1, not 0");
        assert_eq!(error(|c| c.schedule.lr = f64::NAN), "the learning rate must be a positive number, not NaN");
        assert_eq!(error(|c| c.schedule.lr = -1.0), "the learning rate must be a positive number, not -1");
        assert_eq!(
            error(|c| c.optimizer = Algorithm::Sgd { momentum: 1.0, nesterov: false }.into()),
            "momentum must be at least 0 and below 1, not 1"
        );
        assert_eq!(error(|c| c.network = c.network.clone().with_width(0)), "width must be at least 1");
    }

    #[test]
    fn configs_round_trip_through_json_and_unknown_fields_are_rejected() {
        let config = config().with_seed(7);
        let json = serde_json::to_string(&config).unwrap();
        let back: TrainConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        let typo = json.replace("\"batch_size\"", "\"batchsize\"");
        assert!(serde_json::from_str::<TrainConfig>(&typo).unwrap_err().to_string().contains("batchsize"));
    }

    #[test]
    fn names_match_their_json() {
        for &evaluate in <Evaluate as strum::VariantArray>::VARIANTS {
            assert_eq!(serde_json::to_string(&evaluate).unwrap(), format!("\"{evaluate}\""));
            assert_eq!(evaluate.to_string().parse::<Evaluate>().unwrap(), evaluate);
        }
        for &on_nan in <OnNan as strum::VariantArray>::VARIANTS {
            assert_eq!(serde_json::to_string(&on_nan).unwrap(), format!("\"{on_nan}\""));
            assert_eq!(on_nan.to_string().parse::<OnNan>().unwrap(), on_nan);
        }
        let error = "never".parse::<Evaluate>().unwrap_err().to_string();
        assert_eq!(error, "unknown evaluation schedule `never`; expected one of every-epoch, test-every-epoch, at-end");
        let error = "skip".parse::<OnNan>().unwrap_err().to_string();
        assert_eq!(error, "unknown action on NaN `skip`; expected stop or rewind");
    }
}
