//! What can be typed.

use clap::{Parser, Subcommand, ValueEnum};
use residual_data::DataName;
use residual_model::{BranchScale, Family, NetName, Norm, ShortcutOption};
use std::path::PathBuf;

/// Trains plain and residual networks and shows what shortcuts do
///
/// `residual sweep` draws the figure of the ResNet lecture: training error against number of layers.
#[derive(Parser)]
#[command(name = "residual", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Sweep(SweepArgs),
    Train(Box<TrainArgs>),
    Summary(SummaryArgs),
    Devices(DevicesArgs),
}

/// Train plain and residual nets of growing depth and draw error against depth
///
/// Finished trainings are kept: the same command goes on where it was stopped.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual sweep
  residual sweep --family conv --depths 8,20,56 --seeds 1
  residual sweep --family dense --norm none --out sweep-without-norm
  residual sweep --alpha 0,0.25,0.5,0.75,1 --depths 32 --out sweep-alpha")]
pub(crate) struct SweepArgs {
    /// Families of networks
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) family: FamilyChoice,
    /// Depths, separated by commas [default: 4,12,20,32,56,110 dense, 8,20,32,44,56 conv]
    #[arg(long, value_delimiter = ',')]
    pub(crate) depths: Option<Vec<usize>>,
    /// Skip strengths, separated by commas: 0 is the plain net, 1 the residual net
    #[arg(long, value_delimiter = ',', default_value = "0,1", allow_negative_numbers = true)]
    pub(crate) alpha: Vec<f64>,
    /// Number of seeds
    #[arg(long, default_value_t = 3)]
    pub(crate) seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Dataset: digits or synthetic
    #[arg(long, default_value = "digits")]
    pub(crate) data: DataName,
    /// Passes over the training set [default: 20 dense, 7 conv]
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Samples in a batch
    #[arg(long, default_value_t = 64)]
    pub(crate) batch_size: usize,
    /// Learning rate at the start of its cosine decay [default: 0.02 dense, 0.05 conv]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// Norm after each layer: batch or none
    #[arg(long, default_value = "batch")]
    pub(crate) norm: Norm,
    /// Factor of the main path in residual blocks: one, or depth for 1/sqrt(blocks)
    /// [default: one with a norm, depth without]
    #[arg(long)]
    pub(crate) branch_scale: Option<BranchScale>,
    /// Folder for the results
    #[arg(long, default_value = "sweep")]
    pub(crate) out: PathBuf,
    /// Use the folder even if it holds another sweep
    #[arg(long)]
    pub(crate) force: bool,
    /// Trainings at a time, each on one core [default: the cores of this machine, 1 on a GPU]
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print results.json instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum FamilyChoice {
    Dense,
    Conv,
    Both,
}

impl FamilyChoice {
    pub(crate) fn families(self) -> Vec<Family> {
        match self {
            Self::Dense => vec![Family::Dense],
            Self::Conv => vec![Family::Conv],
            Self::Both => vec![Family::Dense, Family::Conv],
        }
    }
}

/// Train one network and write a run directory
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual train --net resnet20
  residual train --net dense-plain56 --epochs 20 --lr 0.02 --out runs/plain56
  residual train --config runs/plain56/config.json --seed 1 --out runs/plain56-s1
  residual train --resume runs/plain56")]
pub(crate) struct TrainArgs {
    /// Network, such as resnet20, plain20, dense-resnet20 or dense-plain20
    #[arg(long, required_unless_present_any = ["config", "resume"])]
    pub(crate) net: Option<NetName>,
    /// Go on with the training in this folder, on the backend it began on unless --backend says otherwise
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "net", "config", "data", "out", "epochs", "batch_size", "seed", "lr", "schedule", "milestones", "factor",
        "warmup", "warmup_lr", "warmup_error", "momentum", "weight_decay", "patience", "evaluate", "force", "network",
        "print_config"])]
    pub(crate) resume: Option<PathBuf>,
    /// Start from a config.json; other flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Dataset: digits or synthetic [default: digits]
    #[arg(long)]
    pub(crate) data: Option<DataName>,
    /// Folder for the run [default: runs/NET-DATA-SEED]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Passes over the training set [default: 10]
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Samples in a batch [default: 64]
    #[arg(long)]
    pub(crate) batch_size: Option<usize>,
    /// Seed of the weights and of the order of samples [default: 0]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Learning rate at its peak [default: 0.05]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// How the learning rate falls [default: cosine]
    #[arg(long, value_enum)]
    pub(crate) schedule: Option<ScheduleChoice>,
    /// Iterations at which a step schedule falls, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) milestones: Option<Vec<usize>>,
    /// What a step schedule multiplies the rate by
    #[arg(long, default_value_t = 0.1)]
    pub(crate) factor: f64,
    /// Iterations over which the learning rate rises to its peak
    #[arg(long, value_name = "ITERATIONS", conflicts_with = "warmup_error")]
    pub(crate) warmup: Option<usize>,
    /// Train at --warmup-lr until the running training error is below this fraction
    #[arg(long, value_name = "FRACTION")]
    pub(crate) warmup_error: Option<f64>,
    /// The learning rate until then
    #[arg(long, default_value_t = 0.01, requires = "warmup_error")]
    pub(crate) warmup_lr: f64,
    /// Momentum of SGD, not dampened [default: 0.9]
    #[arg(long)]
    pub(crate) momentum: Option<f64>,
    /// Weight decay [default: 1e-4]
    #[arg(long)]
    pub(crate) weight_decay: Option<f64>,
    /// Stop when the test loss has not improved for this many epochs
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) patience: Option<usize>,
    /// When training and test error are measured by clean passes [default: every-epoch]
    #[arg(long, value_enum)]
    pub(crate) evaluate: Option<EvaluateChoice>,
    /// Replace a training that is already in the folder
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the resolved configuration and stop
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ScheduleChoice {
    Constant,
    Cosine,
    Step,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum EvaluateChoice {
    EveryEpoch,
    AtEnd,
}

/// Show a network's layers, shapes, parameters and multiply-adds
#[derive(clap::Args)]
pub(crate) struct SummaryArgs {
    /// Network, such as resnet20, plain20, dense-resnet20 or dense-plain20
    pub(crate) net: NetName,
    /// Channels, height and width of an image
    #[arg(long, value_name = "CxHxW", default_value = "3x32x32")]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a network is like beside its name.
#[derive(clap::Args)]
#[group(id = "network", multiple = true)]
pub(crate) struct NetworkArgs {
    /// Classes [default: those of the data; 10 for a summary]
    #[arg(long)]
    pub(crate) classes: Option<usize>,
    /// Features of a dense net, channels of a convolutional net's first stage
    /// [default: 64 dense, 16 conv, 8 conv when training on 8x8 images]
    #[arg(long)]
    pub(crate) width: Option<usize>,
    /// Shortcut where shapes differ: A zero-pads, B projects, C projects everywhere [default: A]
    #[arg(long)]
    pub(crate) shortcut: Option<ShortcutOption>,
    /// Norm after each layer: batch or none [default: batch]
    #[arg(long)]
    pub(crate) norm: Option<Norm>,
    /// Skip strength of residual blocks [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) alpha: Option<f64>,
    /// Factor of the main path in residual blocks: one, or depth for 1/sqrt(blocks) [default: one]
    #[arg(long)]
    pub(crate) branch_scale: Option<BranchScale>,
    /// Start the last layer of each main path at zero
    #[arg(long)]
    pub(crate) zero_init: bool,
}

#[derive(clap::Args)]
pub(crate) struct BackendArgs {
    /// Backend: flex, ndarray, wgpu, or another this program was built with
    /// [default: BURN_DEVICE, else flex]
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
}

/// List backends, the devices that answer, and the default
#[derive(clap::Args)]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
