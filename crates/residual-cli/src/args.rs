//! What can be typed.

use clap::{Parser, Subcommand, ValueEnum};
use residual_data::{DataName, Normalize};
use residual_lab::What;
use residual_model::{BranchScale, Family, NetName, Norm, Part, ShortcutOption, Stem};
use residual_train::Recipe;
use std::{path::PathBuf, time::Duration};

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
    Report(ReportArgs),
    Compare(CompareArgs),
    Inspect(InspectArgs),
    Predict(PredictArgs),
    Eval(EvalArgs),
    Models(ModelsArgs),
    Summary(SummaryArgs),
    Weights(WeightsArgs),
    Convert(ConvertArgs),
    Data(DataCommandArgs),
    Recipes(RecipesArgs),
    Bench(BenchArgs),
    Devices(DevicesArgs),
}

/// Train plain and residual nets of growing depth and draw error against depth
///
/// Finished trainings are kept: the same command goes on where it was stopped.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual sweep
  residual sweep --explain
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
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Passes over the training set [default: 20 dense, 7 conv; 30 and 10 with nets of more than
    /// 200 layers]
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Samples in a batch
    #[arg(long, default_value_t = 64)]
    pub(crate) batch_size: usize,
    /// Learning rate at the start of its cosine decay [default: 0.05; 0.02 of dense nets of at
    /// most 200 layers]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// Shorten the gradient of all parameters together to this norm [default: 2 with nets of more than 200 layers]
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    pub(crate) clip: Option<f64>,
    /// Norm after each layer: batch or none
    #[arg(long, default_value = "batch")]
    pub(crate) norm: Norm,
    /// Factor of the main path in residual blocks: one, or depth for 1/sqrt(blocks)
    /// [default: one with a norm, depth without]
    #[arg(long)]
    pub(crate) branch_scale: Option<BranchScale>,
    /// Channels of the convolutional nets' first stage
    #[arg(long, default_value_t = 8)]
    pub(crate) width: usize,
    /// Measure inside the shallowest and the deepest nets why shortcuts help: gradients, activations, lesions, landscapes
    #[arg(long)]
    pub(crate) explain: bool,
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

/// Measure inside networks why shortcuts help, plain and residual side by side
///
/// A subject is the folder of a finished training, which is only read, or a network's name: that is measured as it
/// starts. Each measurement writes NAME.csv, NAME.svg and NAME.json; `residual report` makes a page of them.
#[derive(clap::Args)]
#[command(after_help = "Measurements:
  gradients    norm of each layer's gradient at initialisation and in training, with and without norm
  activations  scale of blocks' outputs and layers' responses, main path against input
  lesion       test error without blocks, and with blocks swapped (trained networks)
  alpha        error of trainings with the shortcut weakened
  paths        gradient by the length of its path, and the effective depth (residual networks)
  landscape    loss around the weights
  shattered    autocorrelation of gradients at neighbouring inputs

Examples:
  residual inspect plain56 resnet56 --what gradients,activations
  residual inspect dense-plain32 --what gradients --width 256 --images 1024
  residual inspect runs/plain20 runs/resnet20 --what lesion,landscape
  residual inspect runs/resnet20 --what gradients --steps 1,10,100
  residual inspect resnet32 --what alpha --epochs 7 --seeds 3")]
pub(crate) struct InspectArgs {
    /// Folders of trainings, or names of networks
    #[arg(required = true, value_name = "RUN|NET")]
    pub(crate) subjects: Vec<String>,
    /// What to measure, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "WHAT")]
    pub(crate) what: Vec<What>,
    /// Folder for the results [default: inspect/ and the subjects' names]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Images that are looked at [default: 512]
    #[arg(long, value_name = "IMAGES")]
    pub(crate) images: Option<usize>,
    /// Initialisations over which gradients are averaged [default: 10]
    #[arg(long)]
    pub(crate) inits: Option<u64>,
    /// Training steps after which gradients are measured too, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) steps: Vec<usize>,
    /// Trainings for each skip strength [default: 2]
    #[arg(long)]
    pub(crate) seeds: Option<u64>,
    /// Random choices of blocks, paths and lines of inputs [default: 20]
    #[arg(long)]
    pub(crate) draws: Option<usize>,
    /// Points along each direction of a landscape [default: 21]
    #[arg(long)]
    pub(crate) points: Option<usize>,
    /// Seed of a fresh network [default: 0]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Passes over the training set, of a fresh network's trainings [default: 10]
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Learning rate of a fresh network's trainings [default: 0.05]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// Measurements at a time, each on one core [default: the cores of this machine, 1 on a GPU]
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print findings as JSON
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
  residual train --net resnet20 --recipe quick-cifar --checkpoint-every 5m
  residual train --config runs/plain56/config.json --seed 1 --out runs/plain56-s1
  residual train --net resnet20 --weights runs/old --freeze stem,layer1 --part-lr head=10 --lr 0.005
  residual train --resume runs/plain56")]
pub(crate) struct TrainArgs {
    /// Network, such as resnet20, plain20, dense-resnet20, preact_resnet20 or resnet18: see `residual models`
    #[arg(long, required_unless_present_any = ["config", "resume"])]
    pub(crate) net: Option<NetName>,
    /// Go on with the training in this folder, on the backend and the kernels it began on unless flags say otherwise
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "net", "config", "dataset", "augmentation", "out", "epochs", "iterations", "batch_size", "accumulate", "seed",
        "lr", "schedule", "milestones", "factor", "warmup", "warmup_lr", "warmup_error", "momentum", "nesterov", "clip",
        "ema", "on_nan", "weight_decay", "patience", "evaluate", "force", "network", "start", "ignore_head", "freeze",
        "part_lr", "no_norm_decay", "print_config", "dry_run"])]
    pub(crate) resume: Option<PathBuf>,
    /// Start from a config.json; other flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Settings by name, which other flags override: see `residual recipes`
    #[arg(long, conflicts_with_all = ["config", "resume"])]
    pub(crate) recipe: Option<Recipe>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) augmentation: AugmentationArgs,
    /// Folder for the run [default: runs/NET-DATA-SEED]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Passes over the training set [default: 10]
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Optimizer steps after which the training ends, if before its last epoch does
    #[arg(long)]
    pub(crate) iterations: Option<usize>,
    /// Samples in a batch [default: 64]
    #[arg(long)]
    pub(crate) batch_size: Option<usize>,
    /// Batches whose gradients are averaged for one step [default: 1]
    #[arg(long, value_name = "BATCHES")]
    pub(crate) accumulate: Option<usize>,
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
    /// What a step schedule multiplies the rate by [default: 0.1]
    #[arg(long)]
    pub(crate) factor: Option<f64>,
    /// Iterations over which the learning rate rises to its peak, or for which it is --warmup-lr; 0 for no warm-up
    #[arg(long, value_name = "ITERATIONS", conflicts_with = "warmup_error")]
    pub(crate) warmup: Option<usize>,
    /// Train at --warmup-lr until the running training error is below this fraction
    #[arg(long, value_name = "FRACTION")]
    pub(crate) warmup_error: Option<f64>,
    /// The learning rate of the warm-up [default: 0.01 with --warmup-error]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) warmup_lr: Option<f64>,
    /// Momentum of SGD, not dampened [default: 0.9]
    #[arg(long)]
    pub(crate) momentum: Option<f64>,
    /// Nesterov's momentum
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) nesterov: Option<bool>,
    /// Shorten the gradient of all parameters together to this norm
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    pub(crate) clip: Option<f64>,
    /// Measure and keep an exponential moving average of the weights, with this decay
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    pub(crate) ema: Option<f64>,
    /// Weight decay [default: 1e-4]
    #[arg(long)]
    pub(crate) weight_decay: Option<f64>,
    /// No weight decay on norms and biases
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_norm_decay: Option<bool>,
    /// Parts that are not trained, separated by commas: stem, layer1 to layer4, head
    #[arg(long, value_delimiter = ',')]
    pub(crate) freeze: Option<Vec<Part>>,
    /// Learning rates of parts as factors, separated by commas, such as stem=0.1,head=10
    #[arg(long, value_name = "PART=FACTOR", value_delimiter = ',', value_parser = part_rate)]
    pub(crate) part_lr: Option<Vec<(Part, f64)>>,
    /// Stop when the test loss has not improved for this many epochs
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) patience: Option<usize>,
    /// When training and test error are measured by clean passes [default: every-epoch]
    #[arg(long, value_enum)]
    pub(crate) evaluate: Option<EvaluateChoice>,
    /// When the loss is no longer a number: stop, or rewind to the last checkpoint and go on at half the rate
    /// [default: stop]
    #[arg(long, value_enum)]
    pub(crate) on_nan: Option<OnNanChoice>,
    /// Write checkpoints in the middle of epochs too, when the last is this old, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) checkpoint_every: Option<Duration>,
    /// With --resume: if the newest checkpoint is damaged, go on from the one before
    #[arg(long)]
    pub(crate) older_checkpoint: bool,
    /// Threads that read and augment samples [default: the cores of this machine]
    #[arg(long, value_parser = threads)]
    pub(crate) workers: Option<usize>,
    /// Replace a training that is already in the folder
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the resolved configuration and stop
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Print the memory that the training is expected to take, and stop
    #[arg(long, conflicts_with = "print_config")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) start: StartArgs,
    /// Start with a new head, as for another number of classes than the weights'
    #[arg(long)]
    pub(crate) ignore_head: bool,
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
    Linear,
    Step,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum OnNanChoice {
    Stop,
    Rewind,
}

/// A number of threads that systems have.
fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=256).contains(number));
    number.ok_or_else(|| format!("`{text}` is no number of threads; expected 1 to 256"))
}

/// `90s`, `10m`, `2h`, or seconds.
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
    duration.ok_or_else(|| format!("`{text}` is no time; expected a number and s, m or h, such as 10m"))
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum EvaluateChoice {
    EveryEpoch,
    TestEveryEpoch,
    AtEnd,
}

/// Which data.
#[derive(clap::Args)]
#[group(id = "dataset", multiple = true)]
pub(crate) struct DataArgs {
    /// Dataset: digits, cifar10, cifar100, mnist, fashion-mnist, folder or synthetic
    /// [default: that of the recipe, the configuration or the training, else digits]
    #[arg(long, value_name = "NAME")]
    pub(crate) data: Option<DataName>,
    /// Folder of the dataset's files [default: where `residual data fetch` puts them]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Side of the square that images of a folder are cropped to [default: 224, 32 for nets for small images]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) side: Option<usize>,
    /// Take only so many of the training samples, spread evenly, and as many test samples at most
    #[arg(long)]
    pub(crate) samples: Option<usize>,
    /// Hold out the last so many training samples, and measure those instead of the test samples
    #[arg(long, value_name = "SAMPLES")]
    pub(crate) validation: Option<usize>,
    /// Mean and standard deviation that pixels are normalised by: of all, each channel or each pixel [default: all]
    #[arg(long, value_name = "BY")]
    pub(crate) normalize: Option<Normalize>,
}

/// How training images are changed at random.
#[derive(clap::Args)]
#[group(id = "augmentation", multiple = true)]
pub(crate) struct AugmentationArgs {
    /// Crop at a random place after so many pixels of zeros were put around
    #[arg(long, value_name = "PIXELS")]
    pub(crate) crop_padding: Option<usize>,
    /// Mirror left to right every other time
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) flip: Option<bool>,
    /// Resize a random part, of this fraction of the area at least
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    pub(crate) resized_crop: Option<f64>,
    /// Set a random square of this side to zero
    #[arg(long, value_name = "PIXELS")]
    pub(crate) cutout: Option<usize>,
    /// Put noise on a random rectangle with this probability
    #[arg(long, value_name = "PROBABILITY", allow_negative_numbers = true)]
    pub(crate) erase: Option<f64>,
    /// Mix images and labels by fractions from Beta(ALPHA, ALPHA)
    #[arg(long, value_name = "ALPHA", allow_negative_numbers = true)]
    pub(crate) mixup: Option<f64>,
    /// Give each class this much of the label's probability
    #[arg(long, value_name = "EPSILON", allow_negative_numbers = true)]
    pub(crate) label_smoothing: Option<f64>,
}

/// `head=10`.
fn part_rate(text: &str) -> Result<(Part, f64), String> {
    let (part, factor) = text.split_once('=').ok_or("expected a part and a factor, such as head=10")?;
    let factor = factor.parse().map_err(|_| format!("`{factor}` is not a number"))?;
    Ok((part.parse().map_err(|error: residual_model::ModelError| error.to_string())?, factor))
}

/// Weights to start from.
#[derive(clap::Args)]
#[group(id = "start", multiple = true)]
pub(crate) struct StartArgs {
    /// Weights: a .pth, .pt, .th, .safetensors or .bpk file, or the folder of a finished training
    #[arg(long, value_name = "FILE", conflicts_with = "pretrained")]
    pub(crate) weights: Option<PathBuf>,
    /// Published weights by name, downloaded if need be: see `residual weights list`
    #[arg(long, value_name = "NAME")]
    pub(crate) pretrained: Option<String>,
    /// JSON file that renames the weights' tensors: an object of regular expressions and replacements
    #[arg(long, value_name = "FILE")]
    pub(crate) name_map: Option<PathBuf>,
}

/// Weights and what a file of them does not say.
#[derive(clap::Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    pub(crate) start: StartArgs,
    /// Network of the weights [default: as the weights' card or training says]
    #[arg(long)]
    pub(crate) net: Option<NetName>,
    /// Mean of each channel of pixels in 0 to 1, separated by commas
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) std: Option<Vec<f32>>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
}

/// Classify image files
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual predict --pretrained resnet50 --labels imagenet.txt dog.jpg cat.png
  residual predict --weights runs/resnet20-digits-0 seven.png")]
pub(crate) struct PredictArgs {
    /// PNG or JPEG files
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// File of the classes' names, one a line [default: those of the weights' card, else numbers]
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// How many classes to show
    #[arg(long, default_value_t = 5)]
    pub(crate) top: usize,
    /// Pixels of the shorter side after resizing
    #[arg(long)]
    pub(crate) resize: Option<usize>,
    /// Side of the square crop from the middle
    #[arg(long)]
    pub(crate) crop: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure the error of weights on a dataset
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual eval --weights runs/resnet20-digits-0
  residual eval --net resnet20 --weights resnet20.th --data digits --predictions predicted.txt")]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Which samples
    #[arg(long, value_enum, default_value = "test")]
    pub(crate) split: SplitChoice,
    /// Samples in a batch
    #[arg(long, default_value_t = 128)]
    pub(crate) batch_size: usize,
    /// Write every predicted class, one number a line in the order of the samples
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SplitChoice {
    Train,
    Test,
}

/// List, download and check datasets
#[derive(clap::Args)]
pub(crate) struct DataCommandArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// List datasets, and where they are
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download a dataset and verify it; a download that was cut goes on
    ///
    /// The folder is $RESIDUAL_CACHE/data/NAME, else that of the system's folder for caches. RESIDUAL_MIRROR can name
    /// another server, which has the same files in a folder of the dataset's name.
    Fetch {
        /// cifar10, cifar100, mnist or fashion-mnist
        name: DataName,
        /// Folder to put it into
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Look at every sample in a folder: what it is, classes, mean and standard deviation, broken and equal files
    Check {
        /// The folder
        dir: PathBuf,
        /// What it is [default: what its files look like]
        #[arg(long, value_name = "NAME")]
        data: Option<DataName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Write one page of sweeps and inspections: figures, findings, commands
///
/// The page holds everything it shows and needs no network. A sweep's inspections are those in its folder `inspect`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual report sweep
  residual report sweep inspect --out found.html")]
pub(crate) struct ReportArgs {
    /// Folders that `residual sweep` or `residual inspect` wrote
    #[arg(required = true, value_name = "DIR")]
    pub(crate) folders: Vec<PathBuf>,
    /// HTML file to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub(crate) out: PathBuf,
}

/// Compare trainings: errors, parameters and time as a table, error against epoch as a figure
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual compare runs/*
  residual compare runs/resnet20-cifar10-0 runs/plain20-cifar10-0 --figure error.svg")]
pub(crate) struct CompareArgs {
    /// Folders of trainings, finished or not
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// SVG file to draw into
    #[arg(long, value_name = "FILE")]
    pub(crate) figure: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// List recipes: settings for `residual train` by name
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual train --recipe quick-cifar --net resnet20
  residual train --recipe he2015-cifar --net resnet110 --print-config")]
pub(crate) struct RecipesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the published networks with their layers, parameters and multiply-adds
#[derive(clap::Args)]
pub(crate) struct ModelsArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// List and download published weights
#[derive(clap::Args)]
pub(crate) struct WeightsArgs {
    #[command(subcommand)]
    pub(crate) command: WeightsCommand,
}

#[derive(Subcommand)]
pub(crate) enum WeightsCommand {
    /// List published weights, and which of them are here
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download weights by name into the cache folder and verify them
    ///
    /// The folder is $RESIDUAL_CACHE, else the system's folder for caches. RESIDUAL_MIRROR can name
    /// another server that has the same files.
    Fetch {
        /// Names, as `residual weights list` shows them
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Convert weights between PyTorch, safetensors and burnpack
///
/// Reads any of them and writes .safetensors, with torchvision's names, or .bpk.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual convert resnet18-f37072fd.pth resnet18.safetensors --net resnet18
  residual convert runs/resnet20-digits-0 resnet20.safetensors
  residual convert resnet20.safetensors resnet20.bpk")]
pub(crate) struct ConvertArgs {
    /// Weights: a file, or the folder of a finished training
    pub(crate) from: PathBuf,
    /// File to write, which ends in .safetensors or .bpk
    pub(crate) to: PathBuf,
    /// Network of the weights [default: as the weights' card or training says]
    #[arg(long)]
    pub(crate) net: Option<NetName>,
    /// JSON file that renames the weights' tensors: an object of regular expressions and replacements
    #[arg(long, value_name = "FILE")]
    pub(crate) name_map: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Replace the file if there is one
    #[arg(long)]
    pub(crate) force: bool,
}

/// Show a network's layers, shapes, parameters and multiply-adds
#[derive(clap::Args)]
pub(crate) struct SummaryArgs {
    /// Network, as `residual models` lists them, or of another depth
    pub(crate) net: NetName,
    #[command(flatten)]
    pub(crate) network: ImageNetworkArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a network is like beside its name, where no data say what images it is for.
#[derive(clap::Args)]
pub(crate) struct ImageNetworkArgs {
    /// Channels, height and width of an image [default: 3x32x32 for small images, 3x224x224 for ImageNet]
    #[arg(long, value_name = "CxHxW")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// What a network is like beside its name.
#[derive(clap::Args)]
#[group(id = "network", multiple = true)]
pub(crate) struct NetworkArgs {
    /// Classes [default: those of the data or the weights; 10, or ImageNet's 1000, for a summary]
    #[arg(long)]
    pub(crate) classes: Option<usize>,
    /// Features of a dense net, channels of a convolutional net's first stage
    /// [default: 64 dense and ImageNet, 16 for small images, 8 when training on 8x8 images]
    #[arg(long)]
    pub(crate) width: Option<usize>,
    /// Shortcut where shapes differ: A pads channels with zeros, half before and half after; A-after pads them after, as
    /// fb.resnet.torch's nets; B projects; C projects everywhere [default: A for basic blocks on small images, else B]
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
    /// Before the first stage: small is a 3x3 convolution, large a 7x7 of stride 2 and a max-pool
    /// [default: large for ImageNet nets]
    #[arg(long)]
    pub(crate) stem: Option<Stem>,
    /// Input size over the last stage's output size, kept by dilation instead of stride
    #[arg(long, value_name = "STRIDE")]
    pub(crate) output_stride: Option<usize>,
    /// Stochastic depth: probability that the last block takes part in a training step; it falls
    /// linearly from 1 at the first
    #[arg(long, value_name = "PROBABILITY")]
    pub(crate) last_survival: Option<f64>,
}

#[derive(clap::Args)]
pub(crate) struct BackendArgs {
    /// Backend: flex, ndarray, wgpu, or another this program was built with
    /// [default: BURN_DEVICE, else flex]
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// What computes blocks on flex and ndarray: fused kernels, or reference for Burn's operations one by one
    /// [default: fused]
    #[arg(long, value_name = "KIND")]
    pub(crate) kernels: Option<KernelsChoice>,
    /// Keep only each block's input for the backward pass, which computes the rest again: less memory, more
    /// time, the same result; on flex and ndarray
    #[arg(long)]
    pub(crate) recompute: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelsChoice {
    Fused,
    Reference,
}

/// Time training and inference of a network
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual bench
  residual bench resnet56 --kernels reference
  residual bench resnet50 --batch 8 --inference
  residual bench resnet20 --data cifar10 --flip --crop-padding 4
  residual bench resnet1202 --recompute --steps 1")]
pub(crate) struct BenchArgs {
    /// Network, as `residual models` lists them, or of another depth
    #[arg(default_value = "resnet20")]
    pub(crate) net: NetName,
    /// Images in a batch
    #[arg(long, default_value_t = 128)]
    pub(crate) batch: usize,
    /// Timed steps, after two that are not
    #[arg(long, default_value_t = 10)]
    pub(crate) steps: usize,
    /// Threads [default: the cores of this machine]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Inference alone
    #[arg(long)]
    pub(crate) inference: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) augmentation: AugmentationArgs,
    #[command(flatten)]
    pub(crate) network: ImageNetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// List backends, the devices that answer, and the default
#[derive(clap::Args)]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
