use super::{RunResult, RunSpec, RunStatus, SweepConfig, SweepResults, store};
use crate::{LabError, Measurement, memory, parallel::each};
use residual_backend::{Backend, Hardware};
use residual_data::{DataError, Dataset};
use residual_model::{Family, Kernels};
use residual_train::{
    Device, Environment, Event, Existing, Outcome, RunDir, Status, StopFlag, TrainConfig, TrainError, Training,
    files::{self, Lock},
};
use std::{
    cmp::Reverse,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

/// A sweep that is ready to run.
pub struct Sweep {
    pub(super) config: SweepConfig,
    pub(super) command: String,
    pub(super) environment: Environment,
    pub(super) device: Device,
    pub(super) dataset: Dataset,
    pub(super) jobs: usize,
    pub(super) force: bool,
    pub(super) explain: bool,
    pub(super) stop: StopFlag,
    in_main_memory: bool,
    /// The folder in use, and its lock.
    held: Mutex<Option<(PathBuf, Lock)>>,
}

/// An event in the progress of a sweep. Events may come from several threads.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// These files of another sweep will be removed now.
    Replacing(&'a [PathBuf]),
    /// The plan, before the first training starts.
    Planned {
        /// Trainings in the plan.
        runs: usize,
        /// Trainings that an earlier run of the sweep finished.
        kept: usize,
        /// The expected cost of all trainings, in units of one epoch of one dense layer.
        work: u64,
        /// The part of `work` that is already done.
        done: u64,
    },
    /// The work done since the previous event, in the same units.
    Work(u64),
    /// A training finished or diverged.
    Finished(&'a RunResult),
    /// A measurement inside a family's networks starts.
    Measuring {
        /// The family.
        family: Family,
        /// The measurement.
        measurement: Measurement,
    },
}

/// The callback for [`Progress`].
pub(super) type OnProgress<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

impl Sweep {
    /// Checks the configuration and loads the data.
    ///
    /// # Errors
    /// If a setting is out of range, or the data cannot be loaded.
    pub fn new(config: SweepConfig, backend: Backend, hardware: Hardware) -> Result<Self, LabError> {
        config.validate()?;
        let dataset = config.dataset().load().map_err(TrainError::from)?;
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let environment = Environment::here(backend, &hardware);
        Ok(Self {
            config,
            command: String::new(),
            environment,
            device: hardware.device,
            dataset,
            jobs,
            force: false,
            explain: false,
            stop: StopFlag::default(),
            in_main_memory: backend.uses_main_memory(),
            held: Mutex::new(None),
        })
    }

    /// Sets the command that repeats the sweep. It is stored with the results.
    pub fn with_command(mut self, command: String) -> Self {
        self.command = command;
        self
    }

    /// Sets the number of trainings that run at the same time, each on one core. The default is one per core. The
    /// results do not depend on it.
    ///
    /// # Panics
    /// If it is zero.
    pub fn with_jobs(mut self, jobs: usize) -> Self {
        assert!(jobs > 0, "jobs must be at least 1, not 0");
        self.jobs = jobs;
        self
    }

    /// Sets whether this sweep may replace another one in its folder. It then removes the files that the other one
    /// wrote, and no others.
    pub fn with_force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Sets whether to keep the networks that [`Sweep::explain`] measures. They are the networks of
    /// [`SweepConfig::explained`], each in a run directory in `runs/`.
    ///
    /// # Errors
    /// If the sweep does not train both plain and residual nets.
    pub fn with_explain(mut self, explain: bool) -> Result<Self, LabError> {
        let alphas = &self.config.alphas;
        if explain && !(alphas.contains(&0.0) && alphas.contains(&1.0)) {
            let text = "explaining a sweep compares plain and residual nets; the skip strengths must include 0 and 1";
            return Err(LabError::Setting(text.into()));
        }
        self.explain = explain;
        Ok(self)
    }

    /// Sets the flag that stops the sweep.
    pub fn with_stop(mut self, stop: StopFlag) -> Self {
        self.stop = stop;
        self
    }

    /// Runs the trainings that have not finished yet, and writes the results into the folder. The folder stays locked
    /// until the sweep is dropped.
    ///
    /// # Errors
    /// If the folder holds anything but this sweep, another process uses it, a training needs more memory than there is,
    /// a file cannot be written, a training fails or the sweep is stopped. A training that diverges is a result, not a
    /// failure.
    pub fn run(&self, folder: &Path, progress: OnProgress<'_>) -> Result<SweepResults, LabError> {
        let jobs = self.parallel()?;
        self.claim(folder, progress)?;
        let plan = self.config.plan();
        let finished = plan.iter().map(|&spec| self.finished(folder, spec));
        let mut results = finished.collect::<Result<Vec<Option<RunResult>>, LabError>>()?;
        let kept = results.iter().flatten();
        progress(Progress::Planned {
            runs: plan.len(),
            kept: kept.clone().count(),
            work: plan.iter().map(|&spec| self.config.work(spec)).sum(),
            done: kept.map(|result| self.config.work(result.spec)).sum(),
        });
        self.run_missing(folder, &plan, &mut results, jobs, progress)?;
        let done: Vec<RunResult> = results.into_iter().flatten().collect();
        if done.len() < plan.len() {
            return Err(LabError::Stopped { done: done.len(), total: plan.len() });
        }
        self.check_in_place()?;
        let results = SweepResults::new(self.config.clone(), self.command.clone(), self.environment.clone(), done);
        results.write(folder)?;
        Ok(results)
    }

    /// The number of trainings that run at the same time: the one that was set, or fewer if the plan has fewer or memory
    /// is short.
    ///
    /// # Errors
    /// If a training needs more memory than there is.
    pub fn parallel(&self) -> Result<usize, LabError> {
        let plan = self.config.plan();
        let mut jobs = self.jobs.min(plan.len());
        if self.in_main_memory {
            // Seeds and skip strengths change nothing.
            let first = |spec: &&RunSpec| (spec.seed, spec.alpha) == (self.config.first_seed, self.config.alphas[0]);
            for &spec in plan.iter().filter(first) {
                let config = self.config.training(spec)?;
                jobs = memory::fitting(&config, &spec.to_string(), Kernels::on(&self.device), jobs)?;
            }
        }
        Ok(jobs)
    }

    /// Locks the folder, unless this sweep already holds the lock, and prepares it.
    pub(super) fn claim(&self, folder: &Path, progress: OnProgress<'_>) -> Result<(), LabError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|(path, _)| path != folder) {
            let announce = |files: &[PathBuf]| progress(Progress::Replacing(files));
            let lock = store::claim(folder, &self.config, &self.environment, self.force, &announce)?;
            *held = Some((folder.into(), lock));
        }
        drop(held);
        self.check_in_place()
    }

    /// Fails if the folder was removed or renamed, so that nothing may be written into it.
    pub(super) fn check_in_place(&self) -> Result<(), LabError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map_or(Ok(()), |(folder, lock)| Ok(files::check_in_place(lock, folder)?))
    }

    /// The result of a training that an earlier run of the sweep finished. Returns `None` if the network of the
    /// training is needed but was not kept.
    fn finished(&self, folder: &Path, spec: RunSpec) -> Result<Option<RunResult>, LabError> {
        if !store::has_run(folder, spec) {
            return Ok(None);
        }
        let config = self.config.training(spec)?;
        let result = store::read_run(folder, &self.environment.backend, &config, spec);
        Ok(result.filter(|result| {
            result.status == RunStatus::Diverged || !self.keeps_network(spec) || store::has_network(folder, spec)
        }))
    }

    /// Whether the network of a training is kept, to be measured later.
    fn keeps_network(&self, spec: RunSpec) -> bool {
        self.explain && self.config.explained(spec.family).contains(&spec)
    }

    fn run_missing(
        &self,
        folder: &Path,
        plan: &[RunSpec],
        results: &mut [Option<RunResult>],
        jobs: usize,
        progress: OnProgress<'_>,
    ) -> Result<(), LabError> {
        let mut missing: Vec<usize> = (0..plan.len()).filter(|&i| results[i].is_none()).collect();
        missing.sort_by_key(|&i| Reverse(self.config.work(plan[i])));
        let found = each(missing.len(), jobs, |k| {
            if self.stop.is_set() { Ok(None) } else { self.run_one(folder, plan[missing[k]], progress) }
        })?;
        missing.into_iter().zip(found).for_each(|(i, result)| results[i] = result);
        Ok(())
    }

    /// Trains one network. Returns `None` if the sweep is stopped during the training.
    fn run_one(&self, folder: &Path, spec: RunSpec, progress: OnProgress<'_>) -> Result<Option<RunResult>, LabError> {
        self.check_in_place()?;
        let config = self.config.training(spec)?;
        let parameters = config.network.summary().parameters();
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| self.train(folder, config.clone(), spec, progress)));
        let outcome = result.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let message = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            LabError::Panic { run: spec.to_string(), message: message.into() }
        })?;
        let result = match outcome {
            Ok(outcome) if outcome.status == Status::Interrupted => return Ok(None),
            Ok(outcome) => RunResult::finished(spec, parameters, &outcome),
            Err(TrainError::Diverged { iteration, .. }) => {
                RunResult::diverged(spec, parameters, iteration, start.elapsed())
            }
            Err(error) => return Err(error.into()),
        };
        self.check_in_place()?;
        store::write_run(folder, &self.environment.backend, &config, &result)?;
        progress(Progress::Finished(&result));
        Ok(Some(result))
    }

    fn train(
        &self,
        folder: &Path,
        config: TrainConfig,
        spec: RunSpec,
        progress: OnProgress<'_>,
    ) -> Result<Outcome, TrainError> {
        let epochs = config.epochs;
        let work = self.config.work(spec);
        let (sender, receiver) = std::sync::mpsc::channel();
        let run_dir = if self.keeps_network(spec) {
            let path = store::run_dir(folder, spec);
            Some(RunDir::create(&path, &config, &self.environment, Existing::Replace(&|_| {}))?)
        } else {
            None
        };
        let training = Training::with_data(config, self.dataset.clone(), self.device.clone())?;
        let training = match run_dir {
            Some(run_dir) => training.in_dir(run_dir),
            None => training,
        };
        let training = training.with_stop(self.stop.clone()).with_observer(move |event| {
            if let Event::Step { epoch, batch, batches, .. } = event {
                let share = ((epoch - 1) as f64 + batch as f64 / batches as f64) / epochs as f64;
                let _ = sender.send((work as f64 * share.min(1.0)) as u64);
            }
        });
        // The observer must own what it captures, but `progress` is borrowed, so a scoped thread calls it.
        let forward = move || {
            let mut reported = 0;
            for done in receiver.into_iter().chain([work]) {
                progress(Progress::Work(done.saturating_sub(reported)));
                reported = done;
            }
        };
        thread::scope(|scope| {
            let forwarding = thread::Builder::new().spawn_scoped(scope, forward);
            forwarding.map_err(|error| DataError::Threads(error.to_string()))?;
            training.run()
        })
    }
}
