use super::{
    RunResult, RunSpec, SweepConfig, SweepFamily, SweepResults, Tuned,
    results::{Places, Recorded, distinct},
    store::{Here, Store},
};
use crate::{LabError, Measurement, memory, parallel::each};
use residual_backend::{Backend, Hardware};
use residual_data::{DataError, Dataset, Fingerprint, shown};
use residual_model::Kernels;
use residual_train::{
    Checkpoint, Device, Environment, Event, Existing, Note, RunDir, Status, StopFlag, TrainConfig, TrainError, Training,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// A sweep that is ready to run.
pub struct Sweep {
    pub(super) config: SweepConfig,
    pub(super) command: String,
    pub(super) environment: Environment,
    pub(super) device: Device,
    pub(super) datasets: Vec<(SweepFamily, Dataset)>,
    pub(super) jobs: usize,
    pub(super) force: bool,
    pub(super) explain: bool,
    pub(super) mixed: bool,
    pub(super) stop: StopFlag,
    weights: bool,
    tensorboard: bool,
    checkpoint_every: Duration,
    in_main_memory: bool,
    /// The folder in use.
    held: Mutex<Option<Arc<Store>>>,
}

/// How far a sweep is: the trainings by which learning rates are chosen, the rates, and the plan.
pub(super) struct State {
    pub(super) grid: Vec<RunSpec>,
    pub(super) tried: Vec<Option<RunResult>>,
    pub(super) tuned: Vec<Tuned>,
    pub(super) plan: Vec<RunSpec>,
    pub(super) results: Vec<Option<RunResult>>,
}

impl State {
    /// Whether the learning rates are chosen, so that the plan is known.
    fn is_tuned(&self) -> bool {
        self.tried.iter().all(Option::is_some)
    }

    /// The trainings to run now that have not finished: those of the grid until all of them have, then those of the plan.
    pub(super) fn missing(&self) -> Vec<RunSpec> {
        let (specs, results) = if self.is_tuned() { (&self.plan, &self.results) } else { (&self.grid, &self.tried) };
        specs.iter().zip(results).filter(|(_, result)| result.is_none()).map(|(spec, _)| *spec).collect()
    }
}

/// An event in the progress of a sweep. Events may come from several threads.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// These files of another sweep will be removed now.
    Replacing(&'a [PathBuf]),
    /// Finished trainings are kept that ran with other kernels, on another machine, or with another version.
    Other {
        /// The number of these trainings.
        trainings: usize,
        /// Where they ran.
        environment: &'a Environment,
    },
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
    /// A training goes on from a checkpoint.
    Resumed {
        /// The training.
        spec: RunSpec,
        /// The number of optimizer steps already taken.
        iteration: usize,
    },
    /// A training finished or diverged.
    Finished(&'a RunResult),
    /// A learning rate is chosen.
    Tuned(&'a Tuned),
    /// A measurement inside a family's networks starts.
    Measuring {
        /// The family.
        family: SweepFamily,
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
        let mut datasets: Vec<(SweepFamily, Dataset)> = Vec::new();
        for settings in &config.families {
            let same = |(family, _): &&(SweepFamily, Dataset)| {
                config.family(*family).is_some_and(|other| other.training.data == settings.training.data)
            };
            let dataset = match datasets.iter().find(same) {
                Some((_, dataset)) => dataset.clone(),
                None => settings.training.data.load().map_err(TrainError::from)?,
            };
            datasets.push((settings.family, dataset));
        }
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let environment = Environment::here(backend, &hardware);
        Ok(Self {
            config,
            command: String::new(),
            environment,
            device: hardware.device,
            datasets,
            jobs,
            force: false,
            explain: false,
            mixed: false,
            stop: StopFlag::default(),
            weights: true,
            tensorboard: false,
            checkpoint_every: Duration::from_mins(10),
            in_main_memory: backend.uses_main_memory(),
            held: Mutex::new(None),
        })
    }

    /// What is allowed but unusual about the trainings of each family, such as a schedule that never acts.
    ///
    /// # Errors
    /// If the networks cannot learn from the data.
    pub fn notes(&self) -> Result<Vec<(SweepFamily, Note)>, LabError> {
        let mut notes = Vec::new();
        for (family, dataset) in &self.datasets {
            for spec in self.config.plan(&[]).into_iter().filter(|spec| spec.family == *family) {
                if spec.seed != self.config.first_seed {
                    continue;
                }
                for note in self.config.training(spec)?.check_data(dataset)? {
                    if !notes.contains(&(*family, note.clone())) {
                        notes.push((*family, note));
                    }
                }
            }
        }
        Ok(notes)
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

    /// Sets whether trainings may run, or go on, with different SIMD instructions or on different GPUs. Their results differ by
    /// rounding, which training amplifies. The default is that the sweep fails if its trainings did.
    pub fn with_mixed_processors(mut self, mixed: bool) -> Self {
        self.mixed = mixed;
        self
    }

    /// Sets whether the networks' weights are kept. The default is to keep them.
    pub fn with_weights(mut self, weights: bool) -> Self {
        self.weights = weights;
        self
    }

    /// Sets whether the trainings write event files for TensorBoard into their run directories, which `tensorboard --logdir
    /// FOLDER/runs` shows. The default is not to.
    pub fn with_tensorboard(mut self, tensorboard: bool) -> Self {
        self.tensorboard = tensorboard;
        self
    }

    /// Sets how often running trainings write a checkpoint. The default is every ten minutes. A sweep that is killed
    /// loses at most the work since then. A sweep that is stopped loses nothing.
    pub fn with_checkpoint_every(mut self, every: Duration) -> Self {
        self.checkpoint_every = every;
        self
    }

    /// Sets whether to keep the networks among which [`Sweep::explain`] chooses, those of the first seed and setting, even
    /// if the weights of other networks are not kept.
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

    /// Sets the flag that stops the sweep. The running trainings write checkpoints, from which the next call of
    /// [`Sweep::run`] goes on.
    pub fn with_stop(mut self, stop: StopFlag) -> Self {
        self.stop = stop;
        self
    }

    /// Runs the trainings that have not finished yet, and writes the results into the folder. The folder stays locked
    /// until the sweep is dropped. If the sweep is stopped, it writes the results so far.
    ///
    /// # Errors
    /// If the folder holds anything but this sweep, another process uses it, a training needs more memory than there is,
    /// a file cannot be written, a training fails or the sweep is stopped. A training that diverges is a result, not a
    /// failure.
    pub fn run(&self, folder: &Path, progress: OnProgress<'_>) -> Result<SweepResults, LabError> {
        let jobs = self.parallel()?;
        let store = self.claim(folder, progress)?;
        let mut state = self.state(&store)?;
        self.announce(&store, &state.grid, &state.tried, &state.plan, &state.results, progress)?;
        if !state.missing().is_empty() {
            let kept = self.directories(&store, state.tried.iter().chain(&state.results).flatten())?;
            self.check_arithmetic(&store, &kept, (!kept.is_empty()).then_some(&self.environment))?;
        }

        if !state.is_tuned() {
            self.run_missing(&store, &state.grid, &mut state.tried, &[], jobs, progress)?;
            if !state.is_tuned() {
                let done = flat(&state.tried).len();
                return Err(LabError::Stopped { done, total: self.config.trainings() });
            }
            state = self.state_after(&store, state.grid, state.tried)?;
        }
        let State { tried, tuned, plan, mut results, .. } = state;
        tuned.iter().for_each(|tuned| progress(Progress::Tuned(tuned)));
        self.run_missing(&store, &plan, &mut results, &tuned, jobs, progress)?;

        let (missing, total) = (plan.len() - flat(&results).len(), self.config.trainings());
        let results = self.record(&store, tuned, plan.len(), &results, &tried)?;
        if missing > 0 { Err(LabError::Stopped { done: total - missing, total }) } else { Ok(results) }
    }

    /// How far the sweep is.
    pub(super) fn state(&self, store: &Store) -> Result<State, LabError> {
        let grid = self.config.grid();
        let tried = self.finished(store, &grid, &[])?;
        self.state_after(store, grid, tried)
    }

    /// How far the sweep is, given the trainings by which learning rates are chosen.
    fn state_after(&self, store: &Store, grid: Vec<RunSpec>, tried: Vec<Option<RunResult>>) -> Result<State, LabError> {
        let tuned = self.tuned(&tried);
        let plan = self.config.plan(&tuned);
        let mut state = State { results: vec![None; plan.len()], grid, tried, tuned, plan };
        if state.is_tuned() {
            state.results = self.finished(store, &state.plan, &state.tuned)?;
        }
        Ok(state)
    }

    /// The chosen learning rates. Empty if trainings of the grid are missing.
    pub(super) fn tuned(&self, tried: &[Option<RunResult>]) -> Vec<Tuned> {
        if tried.iter().all(Option::is_some) { Tuned::all(&self.config, &flat(tried)) } else { Vec::new() }
    }

    /// Writes the results of the finished trainings of a plan with this many trainings, if there are any.
    pub(super) fn record(
        &self,
        store: &Store,
        tuned: Vec<Tuned>,
        planned: usize,
        results: &[Option<RunResult>],
        tried: &[Option<RunResult>],
    ) -> Result<SweepResults, LabError> {
        store.check_in_place()?;
        self.compact(store, results, &tuned)?;
        let done = flat(results);
        let is_empty = done.is_empty();
        let results = self.results(store, tuned, planned, done, flat(tried))?;
        if !is_empty {
            results.write(store.folder())?;
        }
        Ok(results)
    }

    /// Removes the checkpoints of finished trainings, and weights that are not kept, as far as an earlier run of the sweep
    /// left them.
    fn compact(&self, store: &Store, results: &[Option<RunResult>], tuned: &[Tuned]) -> Result<(), LabError> {
        for result in results.iter().flatten() {
            let Some(run) = self.opened(store, result.spec)?.filter(|run| store.is_own(run.path())) else { continue };
            run.compact(self.weights || self.is_explained(result.spec, tuned))?;
        }
        Ok(())
    }

    /// Summarises the finished trainings.
    fn results(
        &self,
        store: &Store,
        tuned: Vec<Tuned>,
        planned: usize,
        runs: Vec<RunResult>,
        grid: Vec<RunResult>,
    ) -> Result<SweepResults, LabError> {
        let directories = self.directories(store, grid.iter().chain(&runs))?;
        self.check_arithmetic(store, &directories, None)?;
        let (config, command) = (self.config.clone(), store.command().to_string());
        let places = Places::of(&directories);
        Ok(Recorded { config, command, places, planned, tuned, runs, grid }.into())
    }

    /// The run directories of trainings, each once.
    fn directories<'a>(
        &self,
        store: &Store,
        results: impl IntoIterator<Item = &'a RunResult>,
    ) -> Result<Vec<RunDir>, LabError> {
        let mut seen = BTreeSet::new();
        let mut directories = Vec::new();
        for result in results {
            directories.extend(self.opened(store, result.spec)?.filter(|run| seen.insert(run.path().to_path_buf())));
        }
        Ok(directories)
    }

    /// Fails if finished trainings, and those that are to run here, differ in rounding, unless that is allowed.
    fn check_arithmetic(&self, store: &Store, finished: &[RunDir], here: Option<&Environment>) -> Result<(), LabError> {
        if self.mixed {
            return Ok(());
        }
        let mut kinds: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
        for run in finished {
            if let Some(arithmetic) = run.environment().ok().and_then(|environment| environment.arithmetic()) {
                let (trainings, hosts) = kinds.entry(arithmetic).or_default();
                *trainings += 1;
                hosts.extend(run.host());
            }
        }
        let found = |(arithmetic, (trainings, hosts)): (&String, &(usize, BTreeSet<String>))| {
            let hosts: Vec<String> = hosts.iter().map(|host| shown(host)).collect();
            let on = if hosts.is_empty() { String::new() } else { format!(", on {}", hosts.join(", ")) };
            format!("{} ({trainings}{on})", shown(arithmetic))
        };
        let mut all: Vec<String> = kinds.iter().map(found).collect();
        if let Some(here) = here.and_then(Environment::arithmetic).filter(|here| !kinds.contains_key(here)) {
            all.push(format!("{here} (here)"));
        }
        if all.len() < 2 {
            return Ok(());
        }
        Err(LabError::MixedProcessors { path: store.folder().into(), processors: all.join("; ") })
    }

    /// Reports the plan, and where finished trainings ran if not here.
    pub(super) fn announce(
        &self,
        store: &Store,
        grid: &[RunSpec],
        tried: &[Option<RunResult>],
        plan: &[RunSpec],
        kept: &[Option<RunResult>],
        progress: OnProgress<'_>,
    ) -> Result<(), LabError> {
        // The first seed's trainings at a chosen rate are part of the grid.
        let is_new = |spec: &RunSpec| grid.is_empty() || spec.seed != self.config.first_seed;
        let all: Vec<(RunSpec, bool)> = grid
            .iter()
            .zip(tried)
            .chain(plan.iter().zip(kept).filter(|(spec, _)| is_new(spec)))
            .map(|(&spec, result)| (spec, result.is_some()))
            .collect();
        let mut elsewhere: Vec<Environment> = Vec::new();
        for (spec, _) in all.iter().filter(|(_, is_kept)| *is_kept) {
            let began = self.opened(store, *spec)?.and_then(|run| run.environment().ok());
            elsewhere.extend(began.filter(|began| *began != self.environment));
        }
        for environment in &distinct(elsewhere.clone()) {
            let trainings = elsewhere.iter().filter(|other| *other == environment).count();
            progress(Progress::Other { trainings, environment });
        }
        let work = |(spec, _): &(RunSpec, bool)| self.config.work(*spec);
        progress(Progress::Planned {
            runs: all.len(),
            kept: all.iter().filter(|(_, is_kept)| *is_kept).count(),
            work: all.iter().map(work).sum(),
            done: all.iter().filter(|(_, is_kept)| *is_kept).map(work).sum(),
        });
        Ok(())
    }

    /// The number of trainings that run at the same time: the one that was set, or fewer if the plan has fewer or memory
    /// is short.
    ///
    /// # Errors
    /// If a training needs more memory than there is.
    pub fn parallel(&self) -> Result<usize, LabError> {
        let mut jobs = self.jobs.min(self.config.trainings());
        if self.in_main_memory {
            // Seeds change nothing, and neither do learning rates.
            let first = |spec: &&RunSpec| spec.seed == self.config.first_seed;
            for &spec in self.config.plan(&[]).iter().filter(first) {
                let config = self.config.training(spec)?;
                jobs = memory::fitting(&config, &spec.to_string(), Kernels::on(&self.device), jobs)?;
            }
        }
        Ok(jobs)
    }

    /// The machine of this process.
    pub(super) fn here(&self) -> Here<'_> {
        Here { environment: &self.environment, mixed: self.mixed }
    }

    /// Locks the folder, unless this sweep already holds the lock, and prepares it.
    pub(super) fn claim(&self, folder: &Path, progress: OnProgress<'_>) -> Result<Arc<Store>, LabError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match held.take().filter(|store| store.folder() == folder) {
            Some(store) => store,
            None => {
                let announce = |files: &[PathBuf]| progress(Progress::Replacing(files));
                Arc::new(Store::claim(folder, &self.config, &self.command, self.here(), self.force, &announce)?)
            }
        };
        *held = Some(store.clone());
        drop(held);
        store.check_in_place()?;
        Ok(store)
    }

    /// The run directory of a training, if it exists.
    pub(super) fn opened(&self, store: &Store, spec: RunSpec) -> Result<Option<RunDir>, LabError> {
        Ok(RunDir::open(&store.run_dir(spec, &self.config.training(spec)?)).ok())
    }

    /// The results of trainings that have finished. A training counts as not finished if a file of its result is damaged,
    /// for example by a power failure, or if its network is needed but was not kept; it is then repeated.
    pub(super) fn finished(
        &self,
        store: &Store,
        specs: &[RunSpec],
        tuned: &[Tuned],
    ) -> Result<Vec<Option<RunResult>>, LabError> {
        // One pass over each dataset, not one for each training.
        let mut fingerprints: Vec<(SweepFamily, Fingerprint)> = Vec::new();
        let mut check_data = |run: &RunDir, family: SweepFamily| -> Result<(), TrainError> {
            if !fingerprints.iter().any(|(known, _)| *known == family) {
                fingerprints.push((family, self.dataset(family)?.fingerprint()?));
            }
            fingerprints
                .iter()
                .filter(|(known, _)| *known == family)
                .try_for_each(|(_, own)| run.check_fingerprint(own))
        };
        let result = |&spec: &RunSpec| {
            let Some(run) = self.opened(store, spec)? else { return Ok(None) };
            let result = RunResult::of_run(spec, &run).ok().flatten();
            if result.is_some() {
                check_data(&run, spec.family)?;
            }
            Ok(result.filter(|result| {
                let diverged = result.train_loss.is_none();
                diverged || !self.is_explained(spec, tuned) || run.model().is_ok()
            }))
        };
        specs.iter().map(result).collect()
    }

    /// Whether the network of a training is measured later.
    fn is_explained(&self, spec: RunSpec, tuned: &[Tuned]) -> bool {
        self.explain && self.config.explained(spec.family, tuned).contains(&spec)
    }

    pub(super) fn run_missing(
        &self,
        store: &Store,
        plan: &[RunSpec],
        results: &mut [Option<RunResult>],
        tuned: &[Tuned],
        jobs: usize,
        progress: OnProgress<'_>,
    ) -> Result<(), LabError> {
        let mut missing: Vec<usize> = (0..plan.len()).filter(|&i| results[i].is_none()).collect();
        missing.sort_by_key(|&i| Reverse(self.config.work(plan[i])));
        let found = each(missing.len(), jobs, |k| {
            let spec = plan[missing[k]];
            // Which of the grid's networks are measured later is not known yet.
            let is_of_grid = self.explain && self.config.is_tuned() && tuned.is_empty();
            let weights = self.weights || is_of_grid || self.is_explained(spec, tuned);
            if self.stop.is_set() { Ok(None) } else { self.run_one(store, spec, weights, tuned, progress) }
        })?;
        missing.into_iter().zip(found).for_each(|(i, result)| results[i] = result);
        Ok(())
    }

    /// Trains one network. Returns `None` if the sweep is stopped during the training.
    fn run_one(
        &self,
        store: &Store,
        spec: RunSpec,
        weights: bool,
        tuned: &[Tuned],
        progress: OnProgress<'_>,
    ) -> Result<Option<RunResult>, LabError> {
        store.check_in_place()?;
        let config = self.config.training(spec)?;
        let path = store.own_dir(spec, &config);
        if path.is_dir() {
            // Another process may have finished it in the meantime.
            let _locked = RunDir::lock(&path)?;
            if let Some(result) = self.finished(store, &[spec], tuned)?.pop().flatten() {
                return Ok(Some(result));
            }
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.train(&path, config, spec, progress)));
        let run = result.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let message = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            LabError::Panic { run: spec.to_string(), message: message.into() }
        })??;
        store.check_in_place()?;
        let Some(run) = run else { return Ok(None) };
        run.compact(weights)?;
        let result = RunResult::of_run(spec, &run)?;
        if let Some(result) = &result {
            progress(Progress::Finished(result));
        }
        Ok(result)
    }

    /// Trains in a run directory, from its newest checkpoint if it has one. Returns `None` if the training is stopped.
    fn train(
        &self,
        path: &Path,
        config: TrainConfig,
        spec: RunSpec,
        progress: OnProgress<'_>,
    ) -> Result<Option<RunDir>, TrainError> {
        let epochs = config.epochs;
        let work = self.config.work(spec);
        let (run, checkpoint) = self.begin(path, &config)?;
        let dataset = self.dataset(spec.family)?;
        let mut training = Training::with_data(config, dataset.clone(), self.device.clone())?;
        if let Some(checkpoint) = checkpoint {
            progress(Progress::Resumed { spec, iteration: checkpoint.iteration() });
            training = training.from_checkpoint(checkpoint);
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let training = training
            .in_dir(run.clone())
            .with_checkpoint_every(Some(self.checkpoint_every))
            .with_epoch_checkpoints(false)
            .with_tensorboard(self.tensorboard)
            .with_stop(self.stop.clone())
            .with_observer(move |event| {
                if let Event::Step { epoch, batch, batches, .. } = event {
                    let share = ((epoch - 1) as f64 + batch as f64 / batches as f64) / epochs as f64;
                    let _ = sender.send((work as f64 * share.min(1.0)) as u64);
                }
            });
        // The observer must own what it captures, but `progress` is borrowed, so a scoped thread calls it.
        let forward = move || {
            let mut reported = 0;
            for done in receiver {
                progress(Progress::Work(done.saturating_sub(reported)));
                reported = done.max(reported);
            }
            reported
        };
        thread::scope(|scope| {
            let forwarding = thread::Builder::new().spawn_scoped(scope, forward);
            let forwarding = forwarding.map_err(|error| DataError::Threads(error.to_string()))?;
            let outcome = training.run();
            let reported = forwarding.join().unwrap_or(0);
            match outcome {
                Ok(outcome) if outcome.status == Status::Interrupted => return Ok(None),
                Ok(_) | Err(TrainError::Diverged { .. }) => {}
                Err(error) => return Err(error),
            }
            progress(Progress::Work(work.saturating_sub(reported)));
            Ok(Some(run))
        })
    }

    fn dataset(&self, family: SweepFamily) -> Result<&Dataset, TrainError> {
        let found = self.datasets.iter().find(|(other, _)| *other == family);
        found.map(|(_, dataset)| dataset).ok_or_else(|| TrainError::Conflict(format!("the sweep has no {family} nets")))
    }

    /// Opens the directory of an interrupted training, with its newest usable checkpoint, or creates a new one.
    fn begin(&self, path: &Path, config: &TrainConfig) -> Result<(RunDir, Option<Checkpoint>), TrainError> {
        if let Ok(run) = RunDir::open(path)
            && run.is_interrupted()
        {
            let run = run.locked()?;
            if let Ok(Some(checkpoint)) = run.latest(&self.device, true) {
                return Ok((run, Some(checkpoint)));
            }
        }
        let run = RunDir::create(path, config, &self.environment, Existing::Beside)?;
        Ok((run, None))
    }
}

pub(super) fn flat(results: &[Option<RunResult>]) -> Vec<RunResult> {
    results.iter().flatten().cloned().collect()
}
