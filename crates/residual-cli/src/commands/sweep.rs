use crate::{
    Interrupted,
    args::SweepArgs,
    output::{self, Progress},
};
use anyhow::Context;
use residual_backend::Backend;
use residual_data::DataConfig;
use residual_lab::{LabError, Progress as SweepProgress, Results, RunResult, RunStatus, Sweep, SweepConfig};
use residual_train::StopFlag;
use std::{
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Trains plain and residual nets of growing depth.
pub(crate) fn sweep(args: SweepArgs, stop: &StopFlag) -> anyhow::Result<()> {
    let config = SweepConfig {
        families: args.family.families(),
        depths: args.depths.clone(),
        alphas: args.alpha.clone(),
        seeds: args.seeds,
        first_seed: args.seed,
        data: args.data.apply(DataConfig::default())?,
        conv_width: args.width,
        epochs: args.epochs,
        batch_size: args.batch_size,
        lr: args.lr,
        clip: args.clip,
        norm: args.norm,
        branch_scale: args.branch_scale,
        ..SweepConfig::default()
    };
    let (backend, hardware) = args.backend.open()?;
    let jobs = match args.jobs {
        Some(0) => return Err(LabError::Setting("--jobs must be at least 1, not 0".into()).into()),
        Some(jobs) => jobs,
        None => default_jobs(backend),
    };
    config.validate()?;
    let plan = config.plan().len();
    let sweep = Sweep::new(config, backend, hardware.clone())?
        .with_jobs(jobs)
        .with_force(args.force)
        .with_explain(args.explain)?
        .with_stop(stop.clone());
    let at_a_time = jobs.min(plan);
    eprintln!("{plan} trainings on {} ({}), {at_a_time} at a time", backend, hardware.name);
    match run(&sweep, &args.out) {
        Ok(results) if args.json => output::print_json(&results),
        Ok(results) => output::print(&report(&results, &args.out)),
        Err(LabError::Stopped { done, total }) => Err(Interrupted(format!(
            "stopped: {done} of {total} trainings are finished and kept; the same command goes on"
        ))
        .into()),
        Err(error) => Err(error).context(format!("sweep in {}", args.out.display())),
    }
}

pub(super) fn default_jobs(backend: Backend) -> usize {
    match backend {
        Backend::Flex | Backend::NdArray => std::thread::available_parallelism().map_or(1, usize::from),
        _ => 1,
    }
}

fn run(sweep: &Sweep, out: &Path) -> Result<Results, LabError> {
    let bar: OnceLock<Progress> = OnceLock::new();
    // Held while a line is printed, so that lines stand in the order of their numbers.
    let ended = Mutex::new((0, 0));
    let results = sweep.run(out, &|event| match event {
        SweepProgress::Planned { runs, kept, work, done } => {
            *lock(&ended) = (kept, runs);
            let bar = bar.get_or_init(|| Progress::new(work, done));
            if kept > 0 {
                bar.line(&format!("{kept} of {runs} are finished already"));
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
        SweepProgress::Measuring { family, what } => {
            if let Some(bar) = bar.get() {
                bar.line(&format!("measuring {what} of {family} nets"));
            }
        }
    });
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

fn report(results: &Results, out: &Path) -> String {
    let page = out.join("index.html");
    format!("{}\nThe figure: {} (and depth.png, curves.svg, results.csv there)\n", results.report(), page.display())
}
