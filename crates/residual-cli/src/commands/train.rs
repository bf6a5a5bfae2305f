mod progress;
mod run;

use crate::{
    Usage,
    args::{BackendArgs, NetArg, StartArgs, TrainingArgs, duration, thread_number},
    job,
};
use residual_model::BlockOptions;
use residual_train::{Recipe, TrainConfig};
use std::{path::PathBuf, time::Duration};

/// Train one network and write a run directory
///
/// Defaults are those without --recipe and --config.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual train --net resnet20
  residual train --net dense-plain56 --epochs 20 --lr 0.02 --out runs/plain56
  residual train --net resnet20 --recipe quick-cifar --checkpoint-every 5m
  residual train --net resnet20 --optimizer adamw --lr 0.002
  residual train --config runs/plain56/config.json --seed 1 --out runs/plain56-1
  residual train --net resnet20 --weights runs/a --freeze stem --part-lr head=10
  residual train --resume runs/plain56
  residual train --resume runs/step --epochs 15")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) net: NetArg,
    /// Resume the training in this run directory
    ///
    /// Uses the backend and kernels that it began with, unless flags say
    /// otherwise. --data-dir names the new place of a dataset that moved.
    /// --epochs extends the training, if its schedule is constant or step.
    #[arg(long, help_heading = "Run directory", value_name = "DIR", verbatim_doc_comment, conflicts_with_all = [
        "net", "net_flag", "config", "recipe", "data", "side", "samples", "validation", "group_by", "skip_broken",
        "max_pixels", "normalize", "no_exif", "augmentation", "optimizer_settings", "schedule_settings", "iterations", "batch_size", "accumulate", "ema", "freeze", "patience", "evaluate", "on_nan", "network", "seed",
        "out", "force", "start", "ignore_head", "print_config", "dry_run"])]
    pub(crate) resume: Option<PathBuf>,
    /// Read settings from a config.json; other flags override them
    #[arg(long, help_heading = "Run directory", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
    /// Seed of weights, sample order and augmentation [default: 0]
    #[arg(long, help_heading = "Training")]
    pub(crate) seed: Option<u64>,
    /// Run directory [default: runs/NET-DATA-SEED]
    #[arg(long, help_heading = "Run directory", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write event files for TensorBoard into the run directory
    ///
    /// `tensorboard --logdir runs` shows those of all runs in `runs`. A
    /// resumed training goes on to write them.
    #[arg(long, help_heading = "Run directory", verbatim_doc_comment)]
    pub(crate) tensorboard: bool,
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
    pub(crate) backend: BackendArgs,
    /// Devices that share each step's batches, such as cuda:0,cuda:1
    ///
    /// See `residual devices`. --accumulate, the number of batches per step,
    /// must be a multiple of the number of devices. The steps are the same as
    /// on one device if the devices round alike. Not tried on several GPUs.
    #[arg(
        long,
        help_heading = "Backend",
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "backend",
        verbatim_doc_comment
    )]
    pub(crate) devices: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `train`.
pub(crate) fn train(args: &TrainArgs) -> anyhow::Result<()> {
    job::check()?;
    match &args.resume {
        Some(path) => run::resume(args, path),
        None if args.older_checkpoint => Err(Usage("--older-checkpoint needs --resume".into()).into()),
        None => run::start(args),
    }
}

impl TrainArgs {
    /// The configuration from the file, the recipe or the defaults, overridden by the flags.
    fn resolve(&self) -> anyhow::Result<TrainConfig> {
        let config = match (&self.config, self.net.get()) {
            (Some(path), net) => {
                let config = TrainConfig::read(path)?;
                let mut config = TrainConfig { data: self.training.data.apply(config.data.clone())?, ..config };
                if let Some(net) = net {
                    // Keep the file's block options and initialisation, and within a family its width: `--net plain20`
                    // makes the plain twin of a resnet20.
                    let old = &config.network;
                    let blocks = BlockOptions { kind: net.kind, ..old.blocks };
                    let mut network =
                        TrainConfig::new(net, config.data.clone())?.network.with_blocks(blocks).with_init(old.init);
                    if old.name().family == net.family {
                        network = network.with_width(old.width);
                    }
                    config.network = network;
                }
                config
            }
            (None, Some(net)) => {
                let data = self.training.dataset(Recipe::default().data())?;
                match self.training.of_recipe(net, data.clone())? {
                    Some(config) => config,
                    None => TrainConfig::new(net, data)?,
                }
            }
            (None, None) => {
                let text =
                    "no network given; name one, such as `residual train resnet20`, or give --config or --resume";
                return Err(Usage(text.into()).into());
            }
        };
        let mut config = self.training.apply(config)?;
        if let Some(start) = self.start.resolve(self.ignore_head)? {
            config.start = Some(start);
        }
        Ok(match self.seed {
            Some(seed) => config.with_seed(seed),
            None => config,
        })
    }
}
