use crate::{
    Interrupted,
    args::{BackendArgs, DataArgs, words},
    command_line,
    output::{self, Progress, log},
    removed::removed,
};
use clap::ValueEnum;
use residual_backend::Backend;
use residual_data::DataConfig;
use residual_lab::{LabError, Progress as SweepProgress, RunResult, RunStatus, Sweep, SweepConfig, SweepResults};
use residual_model::{BranchScale, Family, Norm};
use residual_report::{redraw, sweep_markdown};
use residual_train::{Environment, StopFlag};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Train plain and residual nets of growing depth and plot their error
///
/// Finished trainings are kept: rerun the command to resume.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual sweep
  residual sweep --explain
  residual sweep --family conv --depths 8,20,56 --seeds 1 --out sweep-conv
  residual sweep --family dense --norm none --out sweep-without-norm
  residual sweep --alpha 0,0.25,0.5,0.75,1 --depths 32 --out sweep-alpha")]
pub(crate) struct SweepArgs {
    /// Families of networks
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) family: Families,
    /// Depths, separated by commas
    ///
    /// Default: 4,12,20,32,56,110 for dense nets, 8,20,32,44,56 for
    /// convolutional nets.
    #[arg(long, value_delimiter = ',', verbatim_doc_comment)]
    pub(crate) depths: Option<Vec<usize>>,
    /// Skip strengths, separated by commas: 0 is plain, 1 is residual
    #[arg(long, value_delimiter = ',', default_value = "0,1", allow_negative_numbers = true)]
    pub(crate) alpha: Vec<f64>,
    /// Number of seeds
    #[arg(long, default_value_t = 3)]
    pub(crate) seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Passes over the training set
    ///
    /// Default: 20 for dense nets, 7 for convolutional nets;
    /// 30 and 10 if some nets have more than 200 layers.
    #[arg(long, verbatim_doc_comment)]
    pub(crate) epochs: Option<usize>,
    /// Samples per batch
    #[arg(long, default_value_t = 64)]
    pub(crate) batch_size: usize,
    /// Learning rate at the start of its cosine decay
    ///
    /// Default: 0.02 for dense nets if none has more than 200 layers, else
    /// 0.05.
    #[arg(long, verbatim_doc_comment, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// Largest norm of the gradient; larger gradients are scaled down
    ///
    /// The norm is over all parameters.
    /// Default: 2 if some nets have more than 200 layers, else no limit.
    #[arg(long, value_name = "NORM", verbatim_doc_comment, allow_negative_numbers = true)]
    pub(crate) clip: Option<f64>,
    /// Normalisation after each layer
    #[arg(long, default_value = "batch", value_parser = words::<Norm>())]
    pub(crate) norm: Norm,
    /// Factor of the main path in residual blocks
    ///
    /// one: 1. depth: 1/sqrt(number of blocks).
    /// Default: one with a norm, depth without.
    #[arg(long, verbatim_doc_comment, value_parser = words::<BranchScale>())]
    pub(crate) branch_scale: Option<BranchScale>,
    /// Channels of the first stage of the convolutional nets
    #[arg(long, default_value_t = 8)]
    pub(crate) width: usize,
    /// Also measure why shortcuts help
    ///
    /// Measures gradients, activations, lesions and loss landscapes of the
    /// shallowest and the deepest nets.
    #[arg(long, verbatim_doc_comment)]
    pub(crate) explain: bool,
    /// Directory for the results
    #[arg(long, value_name = "DIR", default_value = "sweep")]
    pub(crate) out: PathBuf,
    /// Delete the files of another sweep in the directory first
    ///
    /// Other files stay.
    #[arg(long)]
    pub(crate) force: bool,
    /// Parallel trainings, one core each [default: all cores, 1 on a GPU]
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print results.json instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// The families of a sweep.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Families {
    Dense,
    Conv,
    Both,
}

impl Families {
    fn list(self) -> Vec<Family> {
        match self {
            Self::Dense => vec![Family::Dense],
            Self::Conv => vec![Family::Conv],
            Self::Both => vec![Family::Dense, Family::Conv],
        }
    }
}

impl SweepArgs {
    /// The sweep that the flags describe.
    pub(crate) fn config(&self) -> anyhow::Result<SweepConfig> {
        Ok(SweepConfig {
            families: self.family.list(),
            depths: self.depths.clone(),
            alphas: self.alpha.clone(),
            seeds: self.seeds,
            first_seed: self.seed,
            data: self.data.apply(DataConfig::default())?,
            conv_width: self.width,
            epochs: self.epochs,
            batch_size: self.batch_size,
            lr: self.lr,
            clip: self.clip,
            norm: self.norm,
            branch_scale: self.branch_scale,
            ..SweepConfig::default()
        })
    }
}

/// Runs the command `sweep`.
pub(crate) fn sweep(args: &SweepArgs, stop: &StopFlag) -> anyhow::Result<()> {
    let config = args.config()?;
    let (backend, hardware) = args.backend.open()?;
    let jobs = match args.jobs {
        Some(0) => return Err(LabError::Setting("--jobs must be at least 1, not 0".into()).into()),
        Some(jobs) => jobs,
        None => default_jobs(backend),
    };
    config.validate()?;
    let plan = config.plan().len();
    let environment = Environment::here(backend, &hardware);
    // The page shows earlier measurements too, so its command repeats them.
    let explained = args.explain || (!args.force && args.out.join("inspect").exists());
    let sweep = Sweep::new(config.clone(), backend, hardware.clone())?
        .with_command(command_line::sweep(&config, &environment, explained))
        .with_jobs(jobs)
        .with_force(args.force)
        .with_explain(args.explain)?
        .with_stop(stop.clone());
    let parallel = sweep.parallel()?;
    log!("{plan} trainings on {backend} ({}), {parallel} in parallel", hardware.name);
    let results = run(&sweep, args).map_err(|error| match error.downcast_ref() {
        Some(LabError::Stopped { done, total }) => Interrupted(format!(
            "stopped: {done} of {total} trainings are finished and kept; rerun the command to resume"
        ))
        .into(),
        _ => error,
    })?;
    if args.json { output::print_json(&results) } else { output::print_markdown(&report(&results, &args.out)) }
}

/// The number of parallel jobs: one per core on a CPU, one on a GPU.
pub(super) fn default_jobs(backend: Backend) -> usize {
    match backend {
        Backend::Flex | Backend::NdArray => std::thread::available_parallelism().map_or(1, usize::from),
        _ => 1,
    }
}

/// Runs the sweep, and with `--explain` the measurements inside its networks. Draws what was measured after each.
fn train_and_explain(
    sweep: &Sweep,
    args: &SweepArgs,
    on_progress: &(dyn Fn(SweepProgress<'_>) + Sync),
) -> anyhow::Result<SweepResults> {
    let results = sweep.run(&args.out, on_progress)?;
    redraw(&args.out)?;
    if args.explain {
        sweep.explain(&args.out, &command_line::inspect, on_progress)?;
        redraw(&args.out)?;
    }
    Ok(results)
}

/// [`train_and_explain`] with a progress bar.
fn run(sweep: &Sweep, args: &SweepArgs) -> anyhow::Result<SweepResults> {
    let bar: OnceLock<Progress> = OnceLock::new();
    // Locked while a line is printed, so that the lines appear in the order of their numbers.
    let ended = Mutex::new((0, 0));
    let on_progress = |event: SweepProgress<'_>| match event {
        SweepProgress::Replacing(files) => log!("{}", removed(&args.out, files)),
        SweepProgress::Planned { runs, kept, work, done } => {
            *lock(&ended) = (kept, runs);
            let bar = bar.get_or_init(|| Progress::new(work, done));
            if kept > 0 {
                bar.line(&format!("{kept} of {runs} trainings are already finished"));
            }
        }
        SweepProgress::Work(work) => {
            if let Some(bar) = bar.get() {
                bar.inc(work);
            }
        }
        SweepProgress::Finished(result) => {
            let mut ended = lock(&ended);
            ended.0 += 1;
            if let Some(bar) = bar.get() {
                bar.line(&line(result, *ended));
            }
        }
        SweepProgress::Measuring { family, measurement } => {
            if let Some(bar) = bar.get() {
                bar.line(&format!("measuring {measurement} of {family} nets"));
            }
        }
    };
    let results = train_and_explain(sweep, args, &on_progress);
    if let Some(bar) = bar.get() {
        bar.finish();
    }
    results
}

/// ` 12/66  dense-plain-20-seed2          training error   3.8 %    1.4 s`
fn line(result: &RunResult, (ended, runs): (usize, usize)) -> String {
    let error = match result.status {
        RunStatus::Finished => format!("training error {:>5.1} %", 100.0 * result.train_error),
        RunStatus::Diverged => "diverged              ".into(),
    };
    format!("{ended:>3}/{runs}  {:<28} {error}  {:>5.1} s", result.spec.to_string(), result.seconds)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(results: &SweepResults, out: &Path) -> String {
    let page = out.join("index.html");
    format!("{}\nReport: {} (beside it: depth.png, curves.svg, results.csv)\n", sweep_markdown(results), page.display())
}
