use crate::{
    Interrupted, Usage,
    args::{BackendArgs, Reset, TrainingArgs, duration, make_default, or_word},
    command_line,
    output::{self, Progress, log},
    removed::removed,
};
use residual_backend::Backend;
use residual_lab::{
    FamilySettings, Job, LabError, Progress as SweepProgress, RunResult, RunStatus, Sweep, SweepConfig, SweepFamily,
    SweepResults,
};
use residual_model::{BranchScale, Norm};
use residual_report::{redraw, sweep_markdown};
use residual_train::{DataName, Evaluate, OptimizerKind, StopFlag};
use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Train plain and residual nets of growing depth and plot their error
///
/// Finished trainings are kept, and interrupted ones resume: rerun the
/// command. A sweep can also grow: with more seeds, depths, families or
/// values, it trains what is missing.
///
/// --optimizer, --lr, --batch-size and --norm take several values, separated
/// by commas. Up to two of them become axes: each value gets a panel of the
/// figure and a verdict.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  residual sweep
  residual sweep --explain
  residual sweep --family conv --depths 8,20,56 --seeds 1 --out sweep-conv
  residual sweep --family dense --norm none --out sweep-without-norm
  residual sweep --alpha 0,0.25,0.5,0.75,1 --depths 32 --out sweep-alpha
  residual sweep --family dense --optimizer sgd,adam --out sweep-optimizers
  residual sweep --family conv --recipe quick-cifar --depths 20,56 --out cifar

On a cluster (docs/scale.md):
  residual sweep --family conv --seeds 5 --out shared/sweep --plan
  residual sweep --out shared/sweep --task 3
  residual sweep --out shared/sweep --collect"
)]
pub(crate) struct SweepArgs {
    /// Families of networks, separated by commas [default: dense,conv]
    ///
    /// dense: fully connected, even depths.
    /// conv: basic blocks, depths 6n+2. bottleneck: depths 9n+2.
    /// preact: pre-activation basic blocks, 6n+2. preact-bottleneck: 9n+2.
    /// both: dense,conv.
    #[arg(long, value_name = "FAMILIES", value_delimiter = ',', verbatim_doc_comment, value_parser = families)]
    pub(crate) family: Option<Vec<Families>>,
    /// Depths, separated by commas
    ///
    /// Default: 4,12,20,32,56,110 for dense nets, 8,20,32,44,56 for basic
    /// blocks, 11,20,29,47,56 for bottlenecks.
    #[arg(long, value_delimiter = ',', verbatim_doc_comment)]
    pub(crate) depths: Option<Vec<usize>>,
    /// Number of seeds [default: 3]
    #[arg(long)]
    pub(crate) seeds: Option<u64>,
    /// First seed [default: 0]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Factors of each optimizer's usual learning rate to choose from
    ///
    /// The rate with the lowest mean training error over plain and residual
    /// nets of all depths is used for both. none: the usual rates.
    /// Default: 0.1,0.3,1,3 with several optimizers and without --lr.
    #[arg(long, value_name = "FACTORS", value_delimiter = ',', verbatim_doc_comment, allow_negative_numbers = true,
        conflicts_with = "lr", value_parser = or_word::<f64>("none"))]
    pub(crate) lr_grid: Option<Vec<Reset<f64>>>,
    /// Width of the dense nets [default: --width without other nets, else 64]
    #[arg(long, value_name = "FEATURES")]
    pub(crate) dense_width: Option<usize>,
    /// Read the settings of a sweep from its sweep.json
    ///
    /// Other flags override them.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
    /// Also measure why shortcuts help
    ///
    /// Measures gradients, activations, lesions and loss landscapes of the
    /// shallowest and the deepest nets, and of the deepest plain and residual
    /// nets with equal training errors.
    #[arg(long, verbatim_doc_comment)]
    pub(crate) explain: bool,
    /// Print the resolved settings and exit
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Directory for the results
    #[arg(long, value_name = "DIR", default_value = "sweep")]
    pub(crate) out: PathBuf,
    /// Delete another sweep that is in the way, with its trainings
    ///
    /// It is in the way if trainings of the same name have other settings.
    /// All files that it wrote in the directory are deleted. Others stay.
    #[arg(long, verbatim_doc_comment)]
    pub(crate) force: bool,
    /// Accept trainings on different processors, which round differently
    ///
    /// Those with other SIMD instructions (AVX2, AVX-512, ...) or on another
    /// GPU. Without this flag, they are refused.
    #[arg(long, verbatim_doc_comment)]
    pub(crate) mixed_processors: bool,
    /// Delete the weights of finished trainings
    #[arg(long)]
    pub(crate) no_weights: bool,
    /// Write event files for TensorBoard into the run directories
    ///
    /// `tensorboard --logdir DIR/runs` shows them.
    #[arg(long)]
    pub(crate) tensorboard: bool,
    /// How often running trainings write a checkpoint [default: 10m]
    ///
    /// A number and s, m or h, such as 90s, 10m or 2h. A sweep that is killed
    /// loses at most the work since then.
    #[arg(long, value_name = "TIME", verbatim_doc_comment, value_parser = duration)]
    pub(crate) checkpoint_every: Option<Duration>,
    /// Parallel trainings, one core each [default: all cores, 1 on a GPU]
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    #[command(flatten)]
    pub(crate) tasks: TaskArgs,
    /// Print results.json instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// A sweep whose trainings run in several processes.
#[derive(clap::Args)]
pub(crate) struct TaskArgs {
    /// Train nothing, but print a line of JSON for each training to run
    ///
    /// It has the training's number, its name and its expected work. The
    /// longest trainings come first.
    #[arg(long, help_heading = "Tasks", verbatim_doc_comment, conflicts_with_all = ["task", "collect", "json"])]
    pub(crate) plan: bool,
    /// Print a line for each job of up to this many trainings, of equal work
    #[arg(long, help_heading = "Tasks", value_name = "N", requires = "plan")]
    pub(crate) tasks_per_job: Option<NonZeroUsize>,
    /// Run only the trainings with these numbers, separated by commas
    ///
    /// Other processes may run others at the same time. The settings are
    /// those of DIR/sweep.json, which --plan wrote.
    #[arg(long, help_heading = "Tasks", value_name = "K", value_delimiter = ',', verbatim_doc_comment,
        conflicts_with_all = ["collect", "json", "force", "explain"])]
    pub(crate) task: Vec<usize>,
    /// Train nothing, but draw what has finished, and list what has not
    ///
    /// The settings are those of DIR/sweep.json.
    #[arg(long, help_heading = "Tasks", verbatim_doc_comment, conflicts_with = "force")]
    pub(crate) collect: bool,
}

/// Families that one word names.
#[derive(Clone)]
pub(crate) struct Families(Vec<SweepFamily>);

fn families(word: &str) -> Result<Families, String> {
    if word == "both" {
        return Ok(Families(vec![SweepFamily::Dense, SweepFamily::Conv]));
    }
    word.parse().map(|family| Families(vec![family])).map_err(|error: LabError| error.to_string())
}

impl SweepArgs {
    /// Whether the settings are those of a sweep that was planned before.
    fn is_planned(&self) -> bool {
        self.tasks.collect || !self.tasks.task.is_empty()
    }

    /// The file with the settings of a sweep, if they do not come from flags alone.
    fn settings_file(&self) -> Option<PathBuf> {
        if self.is_planned() { Some(self.out.join("sweep.json")) } else { self.config.clone() }
    }

    /// The sweep that the flags describe.
    pub(crate) fn config(&self) -> anyhow::Result<SweepConfig> {
        let config = self.described()?;
        if let (true, Some(file)) = (self.is_planned(), self.settings_file())
            && (self.config.is_some() || config != SweepConfig::read(&file)?)
        {
            let text = format!("--task and --collect take the settings of {}; omit other ones", file.display());
            return Err(Usage(text).into());
        }
        Ok(config)
    }

    fn described(&self) -> anyhow::Result<SweepConfig> {
        let mut training = self.training.clone();
        if training.network.classes.is_some() {
            let text = "--classes is for single networks; a sweep's networks have the classes of the data";
            return Err(Usage(text.into()).into());
        }
        let mut optimizers: Vec<OptimizerKind> = axis(&mut training.optimizer.optimizer);
        if !optimizers.is_empty() {
            training.optimizer.check_several()?;
        }
        let mut lrs = axis(&mut training.optimizer.lr);
        if !optimizers.is_empty() && lrs.is_empty() {
            // One rate for all of them.
            lrs = training.optimizer.lr.take().unwrap_or_default();
        }
        let batch_sizes = axis(&mut training.batch_size);
        let norms: Vec<Norm> = axis(&mut training.network.norm);
        // One value of a flag replaces the axis of a configuration.
        let one_optimizer = training.optimizer.optimizer.is_some();
        let (one_lr, one_batch_size) = (training.optimizer.lr.is_some(), training.batch_size.is_some());
        let one_norm = training.network.norm.is_some();
        let alphas = training.network.alpha.take();
        let branch_scale: Option<BranchScale> = training.network.branch_scale.take();
        let lr_grid: Vec<f64> = match &self.lr_grid {
            Some(factors) => factors.iter().filter_map(|factor| factor.0).collect(),
            None if optimizers.is_empty() || !lrs.is_empty() => Vec::new(),
            None => SweepConfig::LR_GRID.into(),
        };
        let known = self.settings_file().as_deref().map(SweepConfig::read).transpose()?;
        let families = self.families(&training, known.as_ref())?;
        if !lr_grid.is_empty() && optimizers.is_empty() {
            optimizers.extend(families.first().map(|settings| settings.training.optimizer.kind()));
        }
        let config = known.unwrap_or_else(|| SweepConfig::of(Vec::new()));
        let new_grid = self.lr_grid.is_some() || one_lr || !lrs.is_empty();
        Ok(SweepConfig {
            families,
            alphas: alphas.unwrap_or(config.alphas),
            seeds: self.seeds.unwrap_or(config.seeds),
            first_seed: self.seed.unwrap_or(config.first_seed),
            branch_scale: branch_scale.or(config.branch_scale),
            optimizers: replaced(config.optimizers, optimizers, one_optimizer),
            lrs: replaced(config.lrs, lrs, one_lr),
            batch_sizes: replaced(config.batch_sizes, batch_sizes, one_batch_size),
            norms: replaced(config.norms, norms, one_norm),
            lr_grid: replaced(config.lr_grid, lr_grid, new_grid),
        })
    }

    /// The families with their depths and the settings of their trainings.
    fn families(&self, training: &TrainingArgs, known: Option<&SweepConfig>) -> anyhow::Result<Vec<FamilySettings>> {
        let given = self.family.as_ref().map(|given| given.iter().flat_map(|families| families.0.clone()).collect());
        let recorded = known.map(|known| known.families.iter().map(|settings| settings.family).collect());
        let families: Vec<SweepFamily> =
            given.or(recorded).unwrap_or_else(|| vec![SweepFamily::Dense, SweepFamily::Conv]);
        let alone = families == [SweepFamily::Dense];
        if self.dense_width.is_some() && !families.contains(&SweepFamily::Dense) {
            return Err(Usage("--dense-width is for dense nets, but the sweep has none".into()).into());
        }
        if alone && self.dense_width.is_some() && training.network.width.is_some() {
            return Err(Usage("--width and --dense-width both set the width of the dense nets; give one".into()).into());
        }
        let mut settings = Vec::new();
        for family in families {
            let recorded = known.and_then(|known| known.family(family));
            if let (Some(file), None) = (&self.settings_file(), recorded) {
                return Err(Usage(format!("{} has no settings of {family} nets", file.display())).into());
            }
            let usual = || recorded.map_or(family.usual_depths().to_vec(), |settings| settings.depths.clone());
            let depths = self.depths.clone().unwrap_or_else(usual);
            depths.iter().try_for_each(|&depth| family.check_depth(depth))?;
            let mut flags = training.clone();
            if family == SweepFamily::Dense && !alone {
                // These are for the convolutional nets beside them.
                (flags.network.width, flags.network.stem, flags.network.output_stride) = (None, None, None);
            }
            if family == SweepFamily::Dense {
                flags.network.width = self.dense_width.or(flags.network.width);
            }
            let base = match recorded {
                Some(recorded) => {
                    let mut base = recorded.training.clone();
                    base.data = training.data.apply(base.data)?;
                    base
                }
                None => {
                    let data = training.dataset(DataName::Digits.into())?;
                    let deepest = depths.iter().copied().max().unwrap_or_default();
                    match training.of_recipe(family.published(deepest), data.clone())? {
                        Some(base) => base,
                        None => {
                            let mut usual = family.usual(data, &depths)?.training;
                            if matches!(training.patience, Some(Reset(Some(_)))) {
                                // It needs the test loss of every epoch.
                                usual.evaluate = Evaluate::TestEveryEpoch;
                            }
                            usual
                        }
                    }
                }
            };
            settings.push(FamilySettings { family, depths, training: flags.apply(base)? });
        }
        Ok(settings)
    }
}

/// The values of an axis, which are then no longer among the flags. Empty if there is at most one.
fn axis<T>(flag: &mut Option<Vec<T>>) -> Vec<T> {
    match flag {
        Some(values) if values.len() > 1 => flag.take().unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// An axis of a configuration, replaced by that of the flags, or by none if a flag has one value.
fn replaced<T>(known: Vec<T>, given: Vec<T>, has_one: bool) -> Vec<T> {
    if given.is_empty() && !has_one { known } else { given }
}

/// Runs the command `sweep`.
pub(crate) fn sweep(args: &SweepArgs, stop: &StopFlag) -> anyhow::Result<()> {
    let config = args.config()?;
    if args.print_config {
        config.validate()?;
        return output::print_json(&config);
    }
    let (backend, hardware) = args.backend.open()?;
    let jobs = match args.jobs {
        Some(0) => return Err(LabError::Setting("--jobs must be at least 1, not 0".into()).into()),
        Some(jobs) => jobs,
        None => default_jobs(backend),
    };
    config.validate()?;
    let trainings = config.trainings();
    // The names of trainings at a chosen learning rate are longer than those planned.
    let longest = config.plan(&[]).iter().map(|spec| spec.to_string().len()).max().unwrap_or_default();
    let width = (longest + if config.is_tuned() { 9 } else { 0 }).max(28);
    // Interrupted trainings restore their optimizer's state.
    make_default(backend)?;
    // The page shows earlier measurements too, so its command repeats them.
    let explained = args.explain || (!args.force && args.out.join("inspect").exists());
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    // The command of a planned sweep is the one that planned it.
    let command = if args.is_planned() { String::new() } else { command_line::sweep(words, backend, explained) };
    let mut sweep = Sweep::new(config, backend, hardware.clone())?
        .with_command(command)
        .with_jobs(jobs)
        .with_force(args.force)
        .with_mixed_processors(args.mixed_processors)
        .with_weights(!args.no_weights)
        .with_tensorboard(args.tensorboard)
        .with_explain(args.explain)?
        .with_stop(stop.clone());
    if let Some(every) = args.checkpoint_every {
        sweep = sweep.with_checkpoint_every(every);
    }
    for (family, note) in sweep.notes()? {
        log!("note: {family} nets: {note}");
    }
    if args.tasks.plan {
        return plan(&sweep, args);
    }
    let count = args.tasks.task.len();
    let trainings = if count > 0 { count } else { trainings };
    let parallel = sweep.parallel()?.min(trainings);
    if args.tasks.collect {
        return collect(&sweep, args, width);
    }
    log!("{trainings} trainings on {backend} ({}), {parallel} in parallel", hardware.name);
    if parallel < jobs.min(trainings) {
        log!("note: there is memory for {parallel} at a time, not for {}", jobs.min(trainings));
    }
    if count > 0 {
        return with_progress(args, width, |on_progress| {
            sweep.run_tasks(&args.out, &args.tasks.task, on_progress).map_err(|error| match error {
                LabError::Stopped { done, total } => {
                    let text =
                        format!("stopped: {done} of {total} trainings are finished; rerun the command to resume");
                    Interrupted(text).into()
                }
                error => error.into(),
            })
        });
    }
    let results = with_progress(args, width, |on_progress| train_and_explain(&sweep, args, on_progress));
    let results = results.map_err(|error| match error.downcast_ref() {
        Some(LabError::Stopped { done, total }) => {
            // What has finished so far. An error here would hide that the sweep was stopped.
            let has_some = SweepResults::read(&args.out).is_ok_and(|results| !results.runs.is_empty());
            let drawn = has_some && redraw(&args.out).is_ok();
            let page =
                if drawn { format!("; so far: {}", args.out.join("index.html").display()) } else { String::new() };
            let rest = if done < total { "the others resume where they stopped" } else { "the measurements resume" };
            Interrupted(format!(
                "stopped: {done} of {total} trainings are finished; {rest} if you rerun the command{page}"
            ))
            .into()
        }
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

/// Prints the trainings to run.
fn plan(sweep: &Sweep, args: &SweepArgs) -> anyhow::Result<()> {
    let tasks = sweep.plan(&args.out, &|event| {
        if let SweepProgress::Replacing(files) = event {
            log!("{}", removed(&args.out, files));
        }
    })?;
    let lines: Vec<String> = match args.tasks.tasks_per_job {
        Some(most) => Job::pack(&tasks, most.get()).iter().map(serde_json::to_string).collect::<Result<_, _>>()?,
        None => tasks.iter().map(serde_json::to_string).collect::<Result<_, _>>()?,
    };
    output::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// Draws what has finished. Fails if trainings are missing, after it has printed their numbers.
fn collect(sweep: &Sweep, args: &SweepArgs, width: usize) -> anyhow::Result<()> {
    let (results, missing) = with_progress(args, width, |on_progress| {
        let (results, missing) = sweep.collect(&args.out, on_progress)?;
        if results.is_some() {
            redraw(&args.out)?;
        }
        if missing.is_empty() && args.explain {
            sweep.explain(&args.out, &command_line::inspect, on_progress)?;
            redraw(&args.out)?;
        }
        Ok((results, missing))
    })?;
    if !missing.is_empty() {
        let mut numbers: Vec<usize> = missing.iter().map(|task| task.task).collect();
        numbers.sort_unstable();
        let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
        output::print(&format!("--array={}\n", numbers.join(",")))?;
        let page = args.out.join("index.html");
        let so_far = results.map_or_else(String::new, |_| format!("; so far: {}", page.display()));
        anyhow::bail!("{} trainings are not finished{so_far}", missing.len());
    }
    let Some(results) = results else { anyhow::bail!("no training is finished") };
    if args.json { output::print_json(&results) } else { output::print_markdown(&report(&results, &args.out)) }
}

/// Runs a function with a progress bar.
fn with_progress<R>(
    args: &SweepArgs,
    width: usize,
    run: impl FnOnce(&(dyn Fn(SweepProgress<'_>) + Sync)) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let bar: OnceLock<Progress> = OnceLock::new();
    // Locked while a line is printed, so that the lines appear in the order of their numbers.
    let ended = Mutex::new((0, 0));
    let on_progress = |event: SweepProgress<'_>| match event {
        SweepProgress::Replacing(files) => log!("{}", removed(&args.out, files)),
        SweepProgress::Other { trainings, environment } => {
            log!(
                "note: finished trainings from {environment}, {} kernels, version {}, are kept: {trainings}",
                environment.kernels,
                environment.residual
            );
        }
        SweepProgress::Resumed { spec, iteration } => {
            if let Some(bar) = bar.get() {
                bar.line(&format!("resuming {spec} after iteration {iteration}"));
            }
        }
        SweepProgress::Tuned(tuned) => {
            if let Some(bar) = bar.get() {
                let nets = format!("{} nets {}", tuned.family, tuned.setting);
                bar.line(&format!("chose learning rate {} for {}", tuned.lr, nets.trim_end()));
            }
        }
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
                bar.line(&line(result, *ended, width));
            }
        }
        SweepProgress::Measuring { family, measurement } => {
            if let Some(bar) = bar.get() {
                bar.line(&format!("measuring {measurement} of {family} nets"));
            }
        }
    };
    let results = run(&on_progress);
    if let Some(bar) = bar.get() {
        bar.finish();
    }
    results
}

/// ` 12/66  dense-plain-20-seed2          training error   3.8 %    1.4 s`
fn line(result: &RunResult, (ended, runs): (usize, usize), width: usize) -> String {
    let error = match result.status {
        RunStatus::Finished => format!("training error {:>5.1} %", 100.0 * result.train_error),
        RunStatus::Diverged => "diverged              ".into(),
    };
    format!("{ended:>3}/{runs}  {:<width$} {error}  {:>5.1} s", result.spec.to_string(), result.seconds)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(results: &SweepResults, out: &Path) -> String {
    let page = out.join("index.html");
    let run = results.runs.iter().map(|run| out.join("runs").join(run.spec.to_string()).join("config.json"));
    let run = run.filter(|run| run.exists()).map(|run| command_line::quoted(&run.to_string_lossy())).next();
    let one = run.map(|run| format!("One training alone: residual train --config {run}\n"));
    format!(
        "{}\nReport: {} (beside it: depth.png, curves.svg, results.csv)\n{}",
        sweep_markdown(results),
        page.display(),
        one.unwrap_or_default()
    )
}
