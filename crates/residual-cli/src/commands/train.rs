mod progress;
mod run;

use crate::{
    Usage,
    args::{
        AugmentationArgs, BackendArgs, DataArgs, NetArg, NetworkArgs, OptimizerArgs, Reset, StartArgs, fit_side,
        or_word, thread_number, words,
    },
};
use residual_model::{BlockOptions, Part};
use residual_train::{Decay, DecayKind, Evaluate, OnNan, Recipe, RecipeOverrides, TrainConfig, Warmup};
use std::{path::PathBuf, time::Duration};

/// Train one network and write a run directory
///
/// Defaults are those without --recipe and --config.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual train --net resnet20
  residual train --net dense-plain56 --epochs 20 --lr 0.02 --out runs/plain56
  residual train --net resnet20 --recipe quick-cifar --checkpoint-every 5m
  residual train --config runs/plain56/config.json --seed 1 --out runs/plain56-1
  residual train --net resnet20 --weights runs/a --freeze stem --part-lr head=10
  residual train --resume runs/plain56")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) net: NetArg,
    /// Resume the training in this run directory
    ///
    /// Uses the backend and kernels that it began with, unless flags say
    /// otherwise. --data-dir names the new place of a dataset that moved.
    #[arg(long, help_heading = "Run directory", value_name = "DIR", verbatim_doc_comment, conflicts_with_all = [
        "net", "net_flag", "config", "data", "side", "samples",
        "validation", "group_by", "skip_broken", "max_pixels", "normalize", "no_exif", "augmentation", "out", "epochs", "iterations", "batch_size", "accumulate", "seed",
        "optimizer_settings", "schedule", "milestones", "factor", "warmup", "warmup_lr", "warmup_error",
        "ema", "on_nan", "patience", "evaluate", "force", "network", "start", "ignore_head", "freeze",
        "print_config", "dry_run"])]
    pub(crate) resume: Option<PathBuf>,
    /// Read settings from a config.json; other flags override them
    #[arg(long, help_heading = "Run directory", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Use the settings of a recipe; other flags override them
    ///
    /// `residual recipes` lists the recipes.
    #[arg(long, help_heading = "Training", conflicts_with_all = ["config", "resume"], value_parser = words::<Recipe>())]
    pub(crate) recipe: Option<Recipe>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) augmentation: AugmentationArgs,
    #[command(flatten)]
    pub(crate) optimizer: OptimizerArgs,
    /// Run directory [default: runs/NET-DATA-SEED]
    #[arg(long, help_heading = "Run directory", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Passes over the training set [default: 10]
    #[arg(long, help_heading = "Training")]
    pub(crate) epochs: Option<usize>,
    /// Stop after this many optimizer steps, or none
    #[arg(long, help_heading = "Training", value_parser = or_word::<usize>("none"))]
    pub(crate) iterations: Option<Reset<usize>>,
    /// Samples per batch [default: 64]
    #[arg(long, help_heading = "Training")]
    pub(crate) batch_size: Option<usize>,
    /// Batches over which each optimizer step averages gradients [default: 1]
    #[arg(long, help_heading = "Training", value_name = "BATCHES")]
    pub(crate) accumulate: Option<usize>,
    /// Seed of weights, sample order and augmentation [default: 0]
    #[arg(long, help_heading = "Training")]
    pub(crate) seed: Option<u64>,
    /// Decay of the learning rate [default: cosine]
    #[arg(long, help_heading = "Learning rate schedule", value_parser = words::<DecayKind>())]
    pub(crate) schedule: Option<DecayKind>,
    /// Iterations at which a step schedule decays, separated by commas
    #[arg(long, help_heading = "Learning rate schedule", value_delimiter = ',')]
    pub(crate) milestones: Option<Vec<usize>>,
    /// Factor of the learning rate at each milestone [default: 0.1]
    #[arg(long, help_heading = "Learning rate schedule")]
    pub(crate) factor: Option<f64>,
    /// Iterations of warm-up; 0 for none
    ///
    /// The learning rate rises linearly to its peak, or is --warmup-lr if
    /// given.
    #[arg(
        long,
        help_heading = "Learning rate schedule",
        value_name = "ITERATIONS",
        verbatim_doc_comment,
        conflicts_with = "warmup_error"
    )]
    pub(crate) warmup: Option<usize>,
    /// Warm up until the running training error is below this fraction
    #[arg(long, help_heading = "Learning rate schedule", value_name = "FRACTION")]
    pub(crate) warmup_error: Option<f64>,
    /// Learning rate of the warm-up [default: 0.01 with --warmup-error]
    #[arg(long, help_heading = "Learning rate schedule", allow_negative_numbers = true)]
    pub(crate) warmup_lr: Option<f64>,
    /// Average the weights with this decay; evaluate and keep the average
    ///
    /// The average is an exponential moving average (EMA). none: no average.
    #[arg(long, help_heading = "Training", value_parser = or_word::<f64>("none"), value_name = "DECAY", allow_negative_numbers = true)]
    pub(crate) ema: Option<Reset<f64>>,
    /// Parts to freeze, separated by commas: stem, layer1 to layer4, head
    ///
    /// none: no part.
    #[arg(long, help_heading = "Training", value_delimiter = ',', value_parser = or_word::<Part>("none"))]
    pub(crate) freeze: Option<Vec<Reset<Part>>>,
    /// Stop if the test loss has not improved for this many epochs, or none
    #[arg(long, help_heading = "Training", value_parser = or_word::<usize>("none"), value_name = "EPOCHS")]
    pub(crate) patience: Option<Reset<usize>>,
    /// When to measure the errors by clean passes [default: every-epoch]
    ///
    /// every-epoch: training and test error after every epoch.
    /// test-every-epoch: test error after every epoch, both at the end.
    /// at-end: both at the end.
    #[arg(long, help_heading = "Training", verbatim_doc_comment, value_parser = words::<Evaluate>())]
    pub(crate) evaluate: Option<Evaluate>,
    /// What to do if the loss becomes NaN or infinite [default: stop]
    ///
    /// rewind: return to the start of the epoch and halve the learning rate.
    #[arg(long, help_heading = "Training", value_parser = words::<OnNan>())]
    pub(crate) on_nan: Option<OnNan>,
    /// Also write checkpoints within epochs, at this interval
    ///
    /// A number and s, m or h, such as 90s, 10m or 2h.
    #[arg(long, help_heading = "Run directory", value_name = "TIME", value_parser = duration)]
    pub(crate) checkpoint_every: Option<Duration>,
    /// With --resume: use the previous checkpoint if the newest is damaged
    #[arg(long, help_heading = "Run directory")]
    pub(crate) older_checkpoint: bool,
    /// Threads that read and augment samples [default: the number of cores]
    #[arg(long, help_heading = "Training", value_parser = thread_number)]
    pub(crate) workers: Option<usize>,
    /// Delete the files of a training in the directory first
    ///
    /// Other files stay.
    #[arg(long, help_heading = "Run directory")]
    pub(crate) force: bool,
    /// Print the resolved configuration and exit
    #[arg(long, help_heading = "Run directory")]
    pub(crate) print_config: bool,
    /// Print the expected peak memory and exit
    #[arg(long, help_heading = "Run directory", conflicts_with = "print_config")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) start: StartArgs,
    /// Do not load the head, for example if the number of classes differs
    #[arg(long, help_heading = "Weights")]
    pub(crate) ignore_head: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Parses `90s`, `10m`, `2h`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let seconds = number.parse::<f64>().ok().map(|number| match unit {
        "m" => 60.0 * number,
        "h" => 3600.0 * number,
        _ => number,
    });
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("invalid time `{text}`; expected a number and s, m or h, such as 10m"))
}

/// Runs the command `train`.
pub(crate) fn train(args: &TrainArgs) -> anyhow::Result<()> {
    match &args.resume {
        Some(path) => run::resume(args, path),
        None if args.older_checkpoint => Err(Usage("--older-checkpoint needs --resume".into()).into()),
        None => run::start(args),
    }
}

impl TrainArgs {
    /// The configuration from the file, the recipe or the defaults, overridden by the flags.
    fn resolve(&self) -> anyhow::Result<TrainConfig> {
        let mut config = match (&self.config, self.net.get()) {
            (Some(path), _) => {
                let config = TrainConfig::read(path)?;
                TrainConfig { data: self.data.apply(config.data.clone())?, ..config }
            }
            (None, Some(net)) => {
                let recipe = self.recipe.unwrap_or_default();
                let overrides =
                    RecipeOverrides { epochs: self.epochs, batch_size: self.batch_size, accumulate: self.accumulate };
                recipe.config_with(net, self.data.apply(recipe.data())?, overrides)?
            }
            (None, None) => {
                let text =
                    "no network given; name one, such as `residual train resnet20`, or give --config or --resume";
                return Err(Usage(text.into()).into());
            }
        };
        config.augmentation = self.augmentation.apply(&config.augmentation);
        if let (Some(_), Some(net)) = (&self.config, self.net.get()) {
            // Keep the file's block options and initialisation, and within a family its width: `--net plain20` makes
            // the plain twin of a resnet20.
            let old = &config.network;
            let blocks = BlockOptions { kind: net.kind, ..old.blocks };
            let mut network =
                TrainConfig::new(net, config.data.clone())?.network.with_blocks(blocks).with_init(old.init);
            if old.name().family == net.family {
                network = network.with_width(old.width);
            }
            config.network = network;
        }
        fit_side(&mut config.data, &config.network);
        let mut config = self.optimizer.apply(config)?;
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        config.iterations = Reset::or(self.iterations.as_ref(), config.iterations);
        config.accumulate = self.accumulate.unwrap_or(config.accumulate);
        config.patience = Reset::or(self.patience.as_ref(), config.patience);
        config.ema = Reset::or(self.ema.as_ref(), config.ema);
        config.evaluate = self.evaluate.unwrap_or(config.evaluate);
        config.on_nan = self.on_nan.unwrap_or(config.on_nan);
        if let Some(parts) = &self.freeze {
            config.freeze = parts.iter().filter_map(|part| part.0).collect();
        }
        if let Some(start) = self.start.resolve(self.ignore_head)? {
            config.start = Some(start);
        }
        self.resolve_schedule(&mut config)?;
        let config = match self.seed {
            Some(seed) => config.with_seed(seed),
            None => config,
        };
        let init = config.network.init;
        let network = self.network.apply(config.network.clone(), init)?;
        Ok(config.with_network(network))
    }

    fn resolve_schedule(&self, config: &mut TrainConfig) -> anyhow::Result<()> {
        let schedule = &mut config.schedule;
        let (known, usual) = match &schedule.decay {
            Decay::Step { milestones, factor } => (Some(milestones.clone()), *factor),
            _ => (None, 0.1),
        };
        let steps = self.milestones.is_some() || self.factor.is_some();
        let kind = self.schedule.or_else(|| steps.then_some(DecayKind::Step));
        if let Some(kind) = kind {
            schedule.decay = match kind {
                DecayKind::Constant => Decay::Constant,
                DecayKind::Linear => Decay::Linear,
                DecayKind::Cosine => Decay::Cosine,
                DecayKind::Step => {
                    let Some(milestones) = self.milestones.clone().or(known) else {
                        return Err(Usage("a step schedule needs --milestones, such as 32000,48000".into()).into());
                    };
                    Decay::Step { milestones, factor: self.factor.unwrap_or(usual) }
                }
            };
            if steps && !matches!(schedule.decay, Decay::Step { .. }) {
                return Err(Usage("--milestones and --factor need --schedule step".into()).into());
            }
        }
        match (self.warmup, self.warmup_error) {
            (Some(0), _) => schedule.warmup = Warmup::None,
            (Some(iterations), _) => schedule.warmup = Warmup::Linear { iterations },
            (None, Some(threshold)) => schedule.warmup = Warmup::UntilError { lr: 0.01, threshold },
            (None, None) => {}
        }
        if let Some(lr) = self.warmup_lr {
            schedule.warmup = match schedule.warmup {
                Warmup::None => {
                    let text = "--warmup-lr needs --warmup or --warmup-error, which set the warm-up's length";
                    return Err(Usage(text.into()).into());
                }
                Warmup::Linear { iterations } | Warmup::Constant { iterations, .. } => {
                    Warmup::Constant { lr, iterations }
                }
                Warmup::UntilError { threshold, .. } => Warmup::UntilError { lr, threshold },
            };
        }
        Ok(())
    }
}
