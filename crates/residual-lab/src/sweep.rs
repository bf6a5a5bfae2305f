use crate::{LabError, Results, RunResult, RunStatus};
use rayon::ThreadPoolBuilder;
use residual_backend::{Backend, Hardware};
use residual_data::{DataConfig, DataName, Dataset};
use residual_model::{BlockKind, BlockOptions, BranchScale, Family, NetName, NetworkConfig, Norm, ShortcutOption};
use residual_train::{
    Device, Environment, Evaluate, Event, Schedule, Status, StopFlag, TrainConfig, TrainError, Training, files,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

/// What a depth sweep trains: every family × depth × α × seed, all with the same settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// Which families.
    pub families: Vec<Family>,
    /// Which depths; by default each family's own ([`SweepConfig::default_depths`]).
    pub depths: Option<Vec<usize>>,
    /// Skip strengths: 0 is the plain net, 1 the residual net.
    pub alphas: Vec<f64>,
    /// How many seeds.
    pub seeds: u64,
    /// The first of them.
    pub first_seed: u64,
    /// The dataset.
    pub data: DataConfig,
    /// Passes over the training set; by default each family's own ([`SweepConfig::default_epochs`]).
    pub epochs: Option<usize>,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Learning rate at the start of its cosine decay; by default each family's own
    /// ([`SweepConfig::default_lr`]).
    pub lr: Option<f64>,
    /// The norm after each layer.
    pub norm: Norm,
    /// The factor of the main path in residual blocks; by default 1 with a norm and `1/√L` without.
    pub branch_scale: Option<BranchScale>,
    /// Width of the dense nets.
    pub dense_width: usize,
    /// Channels of the convolutional nets' first stage.
    pub conv_width: usize,
}

impl Default for SweepConfig {
    /// The lecture's figure on the embedded digits in a few minutes on two cores.
    fn default() -> Self {
        Self {
            families: vec![Family::Dense, Family::Conv],
            depths: None,
            alphas: vec![0.0, 1.0],
            seeds: 3,
            first_seed: 0,
            data: DataConfig::default(),
            epochs: None,
            batch_size: 64,
            lr: None,
            norm: Norm::Batch,
            branch_scale: None,
            dense_width: 64,
            conv_width: 8,
        }
    }
}

/// One training of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The family.
    pub family: Family,
    /// Plain where α is 0.
    pub kind: BlockKind,
    /// Weighted layers.
    pub depth: usize,
    /// α.
    pub alpha: f64,
    /// The seed of weights and order.
    pub seed: u64,
}

impl fmt::Display for RunSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, kind, depth, alpha, seed } = self;
        write!(f, "{family}-{kind}-{depth}")?;
        if *alpha != 0.0 && *alpha != 1.0 {
            write!(f, "-alpha{alpha}")?;
        }
        write!(f, "-seed{seed}")
    }
}

impl SweepConfig {
    /// The depths a family is swept over unless others are asked for.
    pub fn default_depths(family: Family) -> &'static [usize] {
        match family {
            Family::Dense => &[4, 12, 20, 32, 56, 110],
            _ => &[8, 20, 32, 44, 56],
        }
    }

    /// The epochs of a family's trainings unless others are asked for: 20 of the cheap dense nets, 7
    /// of the convolutional ones.
    pub fn default_epochs(family: Family) -> usize {
        match family {
            Family::Dense => 20,
            _ => 7,
        }
    }

    /// The learning rate of a family's trainings unless another is asked for: 0.02 dense, 0.05 conv.
    pub fn default_lr(family: Family) -> f64 {
        match family {
            Family::Dense => 0.02,
            _ => 0.05,
        }
    }

    /// The epochs of a family's trainings.
    pub fn epochs(&self, family: Family) -> usize {
        self.epochs.unwrap_or(Self::default_epochs(family))
    }

    /// The learning rate of a family's trainings.
    pub fn lr(&self, family: Family) -> f64 {
        self.lr.unwrap_or(Self::default_lr(family))
    }

    /// The trainings in the order of the results.
    pub fn plan(&self) -> Vec<RunSpec> {
        let mut plan = Vec::new();
        for &family in &self.families {
            let depths = self.depths.as_deref().unwrap_or(Self::default_depths(family));
            for &alpha in &self.alphas {
                let kind = if alpha == 0.0 { BlockKind::Plain } else { BlockKind::Residual };
                for &depth in depths {
                    let seeds = self.first_seed..self.first_seed + self.seeds;
                    plan.extend(seeds.map(|seed| RunSpec { family, kind, depth, alpha, seed }));
                }
            }
        }
        plan
    }

    /// Fails unless the sweep can run.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn validate(&self) -> Result<(), LabError> {
        let setting = |text: &str| Err(LabError::Setting(text.into()));
        if self.families.is_empty() || self.depths.as_ref().is_some_and(Vec::is_empty) || self.alphas.is_empty() {
            return setting("a sweep needs at least one family, one depth and one skip strength");
        }
        if self.seeds == 0 {
            return setting("seeds must be at least 1, not 0");
        }
        if self.first_seed.checked_add(self.seeds).is_none() || self.seeds > 1000 {
            return setting("seeds must be at most 1000, and the last of them below 2^64");
        }
        let mut alphas = self.alphas.clone();
        alphas.sort_by(f64::total_cmp);
        alphas.dedup();
        if alphas.len() < self.alphas.len() {
            return setting("a skip strength is given twice");
        }
        if let Some(depths) = &self.depths {
            let mut sorted = depths.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() < depths.len() {
                return setting("a depth is given twice");
            }
            let mut families = self.families.iter();
            families.try_for_each(|f| depths.iter().try_for_each(|&d| f.check_depth(d)))?;
        }
        self.plan().iter().try_for_each(|spec| Ok(self.training(*spec)?.validate()?))
    }

    /// The data, images of a folder at the side that all nets take.
    fn data(&self) -> DataConfig {
        let side = (self.data.name == DataName::Folder).then_some(32);
        DataConfig { side: self.data.side.or(side), ..self.data.clone() }
    }

    /// One training's configuration.
    fn training(&self, spec: RunSpec) -> Result<TrainConfig, TrainError> {
        let RunSpec { family, kind, depth, alpha, seed } = spec;
        let config = TrainConfig::new(NetName { family, kind, depth }, self.data())?;
        let blocks = BlockOptions {
            kind,
            shortcut: ShortcutOption::ZeroPad,
            skip_strength: alpha,
            branch_scale: self.branch_scale(),
            norm: self.norm,
            last_survival: 1.0,
        };
        let width = match family {
            Family::Dense => self.dense_width,
            _ => self.conv_width,
        };
        let network: NetworkConfig = config.network.clone().with_blocks(blocks).with_width(width);
        Ok(TrainConfig {
            batch_size: self.batch_size,
            evaluate: Evaluate::AtEnd,
            ..config
                .with_network(network)
                .with_epochs(self.epochs(family))
                .with_schedule(Schedule::cosine(self.lr(family)))
                .with_seed(seed)
        })
    }

    /// The factor of the main path in residual blocks.
    pub fn branch_scale(&self) -> BranchScale {
        self.branch_scale.unwrap_or(match self.norm {
            Norm::Batch => BranchScale::One,
            Norm::None => BranchScale::InverseSqrtDepth,
        })
    }
}

/// A sweep, to be run.
pub struct Sweep {
    config: SweepConfig,
    environment: Environment,
    device: Device,
    dataset: Dataset,
    jobs: usize,
    force: bool,
    stop: StopFlag,
}

/// What happens on the way; calls come from several threads.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// This many trainings are planned, and this much of their work is done already.
    Planned {
        /// Trainings.
        runs: usize,
        /// Of these, finished earlier.
        kept: usize,
        /// The work of all in units of one layer's epoch.
        work: u64,
        /// The part of it that is done.
        done: u64,
    },
    /// Some work is done.
    Work(u64),
    /// A training has ended.
    Finished(&'a RunResult),
}

impl Sweep {
    /// Checks the configuration and loads the data.
    ///
    /// # Errors
    /// If a setting is wrong.
    pub fn new(config: SweepConfig, backend: Backend, hardware: Hardware) -> Result<Self, LabError> {
        config.validate()?;
        let dataset = config.data().load().map_err(TrainError::from)?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let environment = Environment::here(backend, &hardware);
        let (device, stop) = (hardware.device, StopFlag::default());
        Ok(Self { config, environment, device, dataset, jobs, force: false, stop })
    }

    /// Sets how many trainings run at a time, each on one core; by default as many as there are
    /// cores. The results do not depend on it.
    ///
    /// # Panics
    /// If it is zero.
    pub fn with_jobs(mut self, jobs: usize) -> Self {
        assert!(jobs > 0, "at least one training must run at a time");
        self.jobs = jobs;
        self
    }

    /// Sets whether the folder may hold another sweep, which this one then replaces.
    pub fn with_force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Sets the flag that stops it.
    pub fn with_stop(mut self, stop: StopFlag) -> Self {
        self.stop = stop;
        self
    }

    /// Runs what is not finished yet and writes everything into the folder.
    ///
    /// # Errors
    /// If the folder holds another sweep, a file cannot be written, or a training fails other than
    /// by diverging, which is a result.
    pub fn run(&self, folder: &Path, progress: &(dyn Fn(Progress<'_>) + Sync)) -> Result<Results, LabError> {
        self.claim(folder)?;
        let plan = self.config.plan();
        let mut results: Vec<Option<RunResult>> = Vec::new();
        for &spec in &plan {
            results.push(self.finished(folder, spec)?);
        }
        let kept = results.iter().flatten();
        progress(Progress::Planned {
            runs: plan.len(),
            kept: kept.clone().count(),
            work: plan.iter().map(|spec| self.work(spec)).sum(),
            done: kept.map(|result| self.work(&result.spec)).sum(),
        });
        self.run_missing(folder, &plan, &mut results, progress)?;
        let done: Vec<RunResult> = results.into_iter().flatten().collect();
        if done.len() < plan.len() {
            return Err(LabError::Stopped { done: done.len(), total: plan.len() });
        }
        let results = Results::new(self.config.clone(), self.environment.clone(), done);
        results.write(folder)?;
        Ok(results)
    }

    /// Makes the folder this sweep's.
    fn claim(&self, folder: &Path) -> Result<(), LabError> {
        let path = folder.join("sweep.json");
        let claim = Claim { backend: self.environment.backend.clone(), config: self.config.clone() };
        let other = |reason: &str| Err(LabError::Folder { path: folder.into(), reason: reason.into() });
        if path.exists() {
            let same = files::read_json(&path).is_ok_and(|old: Claim| old == claim);
            if !same && !self.force {
                return other("holds another sweep; choose another folder with --out, or replace it with --force");
            }
            if !same {
                files::remove(&folder.join("runs"))?;
                Results::FILES.iter().try_for_each(|name| files::remove(&folder.join(name)))?;
            }
        } else if !path.exists() && folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return other("is not empty and holds no sweep; choose another folder with --out");
        }
        files::create_dir(&folder.join("runs"))?;
        files::write_json(&folder.join("environment.json"), &self.environment)?;
        Ok(files::write_json(&path, &claim)?)
    }

    /// A result from an earlier run with the same configuration on the same backend.
    fn finished(&self, folder: &Path, spec: RunSpec) -> Result<Option<RunResult>, LabError> {
        let path = run_path(folder, spec);
        if !path.exists() {
            return Ok(None);
        }
        // What cannot be read, a half-written file of a machine that lost power, is trained again.
        let Ok(stored) = files::read_json::<Stored>(&path) else { return Ok(None) };
        let config = to_json(&self.config.training(spec)?);
        Ok((stored.config == config && stored.backend == self.environment.backend).then_some(stored.result))
    }

    fn run_missing(
        &self,
        folder: &Path,
        plan: &[RunSpec],
        results: &mut [Option<RunResult>],
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<(), LabError> {
        let mut missing: Vec<usize> = (0..plan.len()).filter(|&i| results[i].is_none()).collect();
        missing.sort_by_key(|&i| self.work(&plan[i])); // Longest first, as `pop` takes from the end.
        let queue = Mutex::new(missing);
        let results = Mutex::new(results);
        let failure: Mutex<Option<LabError>> = Mutex::new(None);
        let halt = StopFlag::default();
        let worker = || {
            loop {
                let next = lock(&queue).pop();
                let Some(i) = next else { return };
                if self.stop.is_set() || halt.is_set() {
                    return;
                }
                match self.run_one(folder, plan[i], progress) {
                    Ok(result) => lock(&results)[i] = result,
                    Err(error) => {
                        halt.set();
                        lock(&failure).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(plan.len()) {
                scope.spawn(worker);
            }
        });
        match lock(&failure).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Trains once, on a thread pool of its own, so that results do not depend on how many run at a
    /// time. `None` if it was stopped.
    fn run_one(
        &self,
        folder: &Path,
        spec: RunSpec,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Option<RunResult>, LabError> {
        let config = self.config.training(spec)?;
        let json = to_json(&config);
        let pool = ThreadPoolBuilder::new().num_threads(1).stack_size(STACK).build();
        let pool = pool.map_err(|e| LabError::Setting(format!("cannot start a thread: {e}")))?;
        let parameters = config.network.summary().parameters();
        let start = Instant::now();
        let result = pool.install(|| catch_unwind(AssertUnwindSafe(|| self.train(config, spec, progress))));
        let outcome = result.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let message = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            LabError::Panic { run: spec.to_string(), message: message.into() }
        })?;
        let result = match outcome {
            Ok(outcome) if outcome.status == Status::Interrupted => return Ok(None),
            Ok(outcome) => RunResult::new(spec, parameters, &outcome),
            Err(TrainError::Diverged { iteration, .. }) => {
                RunResult::diverged(spec, parameters, iteration, start.elapsed())
            }
            Err(error) => return Err(error.into()),
        };
        let stored = Stored { backend: self.environment.backend.clone(), config: json, result };
        files::write_json(&run_path(folder, spec), &stored)?;
        progress(Progress::Finished(&stored.result));
        Ok(Some(stored.result))
    }

    fn train(
        &self,
        config: TrainConfig,
        spec: RunSpec,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<residual_train::Outcome, TrainError> {
        let epochs = config.epochs;
        let work = self.work(&spec);
        let (sender, receiver) = std::sync::mpsc::channel();
        let training = Training::with_data(config, self.dataset.clone(), self.device.clone())?
            .with_stop(self.stop.clone())
            .with_observer(move |event| {
                if let Event::Step { epoch, batch, batches, .. } = event {
                    let done = ((epoch - 1) * batches + batch) as u64;
                    let _ = sender.send(work * done / (epochs * batches) as u64);
                }
            });
        // The observer must own what it holds; a scoped thread passes on what it says.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut reported = 0;
                for done in receiver {
                    progress(Progress::Work(done - reported));
                    reported = done;
                }
                progress(Progress::Work(work - reported));
            });
            training.run()
        })
    }

    /// What a training costs, in units that only compare with each other.
    fn work(&self, spec: &RunSpec) -> u64 {
        let layer = match spec.family {
            Family::Dense => 1,
            _ => 10,
        };
        (layer * spec.depth * self.config.epochs(spec.family)) as u64
    }
}

/// Enough for Burn's recursive helpers on graphs of a thousand layers.
pub(crate) const STACK: usize = 64 << 20;

/// `sweep.json`
#[derive(PartialEq, Serialize, Deserialize)]
struct Claim {
    backend: String,
    #[serde(flatten)]
    config: SweepConfig,
}

/// `runs/*.json`
#[derive(Serialize, Deserialize)]
struct Stored {
    backend: String,
    config: serde_json::Value,
    result: RunResult,
}

fn run_path(folder: &Path, spec: RunSpec) -> std::path::PathBuf {
    folder.join("runs").join(format!("{spec}.json"))
}

fn to_json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl RunResult {
    fn new(spec: RunSpec, parameters: u64, outcome: &residual_train::Outcome) -> Self {
        Self {
            spec,
            train_error: outcome.train.error,
            test_error: outcome.test.error,
            train_loss: Some(outcome.train.loss),
            test_loss: Some(outcome.test.loss),
            parameters,
            iterations: outcome.iterations,
            seconds: outcome.seconds,
            status: RunStatus::Finished,
            curve: outcome.curve.clone(),
        }
    }

    fn diverged(spec: RunSpec, parameters: u64, iterations: usize, time: Duration) -> Self {
        Self {
            spec,
            train_error: 1.0,
            test_error: 1.0,
            train_loss: None,
            test_loss: None,
            parameters,
            iterations,
            seconds: time.as_secs_f64(),
            status: RunStatus::Diverged,
            curve: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl Fn(&mut SweepConfig)) -> String {
        let mut config = SweepConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn both_kinds_train_with_the_same_settings() {
        let config = SweepConfig::default();
        let plan = config.plan();
        assert_eq!(plan.len(), (6 + 5) * 2 * 3);
        for spec in plan.iter().filter(|spec| spec.kind == BlockKind::Plain) {
            let twin = RunSpec { kind: BlockKind::Residual, alpha: 1.0, ..*spec };
            assert!(plan.contains(&twin));
            let [mut plain, mut residual] = [*spec, twin].map(|s| to_json(&config.training(s).unwrap()));
            for json in [&mut plain, &mut residual] {
                let blocks = json["network"]["blocks"].as_object_mut().unwrap();
                assert!(blocks.remove("kind").is_some() && blocks.remove("skip_strength").is_some());
            }
            assert_eq!(plain, residual);
        }
    }

    #[test]
    fn wrong_settings_are_named() {
        assert!(error(|c| c.depths = Some(vec![8, 21])).contains("no dense network has depth 21"));
        assert!(
            error(|c| c.depths = Some(vec![10]))
                .contains("no conv network has depth 10: depths are 6n+2; the nearest are 8 and 14")
        );
        assert_eq!(error(|c| c.seeds = 0), "seeds must be at least 1, not 0");
        assert_eq!(error(|c| c.epochs = Some(0)), "epochs must be at least 1, not 0");
        assert!(error(|c| c.lr = Some(f64::NAN)).starts_with("the learning rate must be"));
        assert!(error(|c| c.alphas = vec![-1.0]).starts_with("the skip strength must be"));
        assert_eq!(error(|c| c.alphas = vec![1.0, 1.0]), "a skip strength is given twice");
        assert_eq!(error(|c| c.depths = Some(vec![8, 8])), "a depth is given twice");
    }
}
