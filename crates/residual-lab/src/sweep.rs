use crate::{
    LabError, Results, RunResult, RunStatus, What,
    explain::{explain, explained},
    parallel::each,
};
use residual_backend::{Backend, Hardware};
use residual_data::{DataConfig, DataName, Dataset};
use residual_model::{
    BlockKind, BlockOptions, BranchScale, Family, Kernels, NetName, NetworkConfig, Norm, ShortcutOption,
};
use residual_train::{
    Device, Environment, Evaluate, Event, Optimizer, RunDir, Schedule, Status, StopFlag, TrainConfig, TrainError,
    Training, files,
};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
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
    /// Passes over the training set; by default each family's own ([`SweepConfig::epochs()`]).
    pub epochs: Option<usize>,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Learning rate at the start of its cosine decay; by default each family's own
    /// ([`SweepConfig::lr()`]).
    pub lr: Option<f64>,
    /// The norm that the gradient of all parameters together is shortened to; by default as [`SweepConfig::clip()`] says.
    #[serde(default)]
    pub clip: Option<f64>,
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
            clip: None,
            norm: Norm::Batch,
            branch_scale: None,
            dense_width: 64,
            conv_width: 8,
        }
    }
}

/// The layers above which nets need care.
const DEEP: usize = 200;

/// Settings that depend on the family and the depths.
struct Usual {
    epochs: usize,
    lr: f64,
    clip: Option<f64>,
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

    /// What a family's trainings are like unless something else is asked for. A first step along the summed gradient of
    /// hundreds of blocks is too long, so that it is clipped where there are such nets, for all nets alike.
    fn usual(&self, family: Family) -> Usual {
        let depths = self.depths.as_deref().unwrap_or(Self::default_depths(family));
        let deep = depths.iter().any(|&depth| depth > DEEP);
        match (family, deep) {
            (Family::Dense, false) => Usual { epochs: 20, lr: 0.02, clip: None },
            (Family::Dense, true) => Usual { epochs: 30, lr: 0.05, clip: Some(2.0) },
            (_, false) => Usual { epochs: 7, lr: 0.05, clip: None },
            (_, true) => Usual { epochs: 10, lr: 0.05, clip: Some(2.0) },
        }
    }

    /// The epochs of a family's trainings: by default 20 of the cheap dense nets and 7 of the convolutional ones, 30 and 10
    /// if some have more than 200 layers.
    pub fn epochs(&self, family: Family) -> usize {
        self.epochs.unwrap_or(self.usual(family).epochs)
    }

    /// The learning rate of a family's trainings: by default 0.05, but 0.02 of dense nets of at most 200 layers.
    pub fn lr(&self, family: Family) -> f64 {
        self.lr.unwrap_or(self.usual(family).lr)
    }

    /// The norm that gradients of a family's trainings are shortened to: by default 2 if some nets have more than 200
    /// layers.
    pub fn clip(&self, family: Family) -> Option<f64> {
        self.clip.or(self.usual(family).clip)
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
            optimizer: Optimizer { clip: self.clip(family), ..config.optimizer.clone() },
            ..config
                .with_network(network)
                .with_epochs(self.epochs(family))
                .with_schedule(Schedule::cosine(self.lr(family)))
                .with_seed(seed)
        })
    }

    /// The command that trains the same, on this backend.
    pub fn command(&self, environment: &Environment) -> String {
        let usual = Self::default();
        let list = |values: Vec<String>| values.join(",");
        let mut command = String::from("residual sweep");
        let mut say = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                command.push_str(&format!(" --{flag} {}", quoted(&value)));
            }
        };
        let DataConfig { name, dir, side, samples, validation, normalize } = &self.data;
        let Environment { backend, kernels, .. } = environment;
        if let [family] = self.families[..] {
            say("family", Some(family.to_string()));
        }
        say("depths", self.depths.as_ref().map(|depths| list(depths.iter().map(usize::to_string).collect())));
        let alphas = list(self.alphas.iter().map(f64::to_string).collect());
        say("alpha", (self.alphas != usual.alphas).then_some(alphas));
        say("seeds", (self.seeds != usual.seeds).then(|| self.seeds.to_string()));
        say("seed", (self.first_seed != usual.first_seed).then(|| self.first_seed.to_string()));
        say("data", (*name != usual.data.name).then(|| name.to_string()));
        say("data-dir", dir.as_ref().map(|dir| dir.display().to_string()));
        say("side", side.map(|side| side.to_string()));
        say("samples", samples.map(|samples| samples.to_string()));
        say("validation", (*validation != usual.data.validation).then(|| validation.to_string()));
        say("normalize", (*normalize != usual.data.normalize).then(|| normalize.to_string()));
        say("epochs", self.epochs.map(|epochs| epochs.to_string()));
        say("batch-size", (self.batch_size != usual.batch_size).then(|| self.batch_size.to_string()));
        say("lr", self.lr.map(|lr| lr.to_string()));
        say("clip", self.clip.map(|clip| clip.to_string()));
        say("norm", (self.norm != usual.norm).then(|| self.norm.to_string()));
        say("branch-scale", self.branch_scale.map(|scale| scale.to_string()));
        say("width", (self.conv_width != usual.conv_width).then(|| self.conv_width.to_string()));
        say("backend", (*backend != Backend::Flex.to_string()).then(|| backend.clone()));
        let chosen = [Backend::Flex, Backend::NdArray].iter().any(|known| known.to_string() == *backend);
        say("kernels", (chosen && *kernels == Kernels::Reference).then(|| kernels.to_string()));
        if *kernels == Kernels::Recompute {
            command.push_str(" --recompute");
        }
        command
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
    explain: bool,
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
    /// A family's nets are measured inside.
    Measuring {
        /// The family.
        family: Family,
        /// What is measured.
        what: What,
    },
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
        Ok(Self { config, environment, device, dataset, jobs, force: false, explain: false, stop })
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

    /// Sets whether the shallowest and the deepest nets are measured inside, too: their trainings become run directories
    /// in `runs/`, the measurements lie in `inspect/`.
    ///
    /// # Errors
    /// If the sweep does not train both plain and residual nets.
    pub fn with_explain(mut self, explain: bool) -> Result<Self, LabError> {
        let alphas = &self.config.alphas;
        if explain && !(alphas.contains(&0.0) && alphas.contains(&1.0)) {
            let text = "an explanation compares plain and residual nets: the skip strengths must contain 0 and 1";
            return Err(LabError::Setting(text.into()));
        }
        self.explain = explain;
        Ok(self)
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
        if self.explain {
            explain(folder, &self.config, &self.environment, &self.device, self.jobs, &self.stop, progress)?;
            // The page has what was measured inside, too.
            results.write(folder)?;
        }
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
                return Err(LabError::Occupied { path: folder.into() });
            }
            if !same {
                ["runs", "inspect"].iter().try_for_each(|name| files::remove(&folder.join(name)))?;
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
        let is_whole = stored.result.status == RunStatus::Diverged
            || !self.keeps(spec)
            || RunDir::open(&run_dir(folder, spec)).is_ok_and(|run| run.model().is_ok());
        if !is_whole {
            return Ok(None);
        }
        Ok((stored.config == config && stored.backend == self.environment.backend).then_some(stored.result))
    }

    /// Whether the training's network is needed later.
    fn keeps(&self, spec: RunSpec) -> bool {
        self.explain && explained(&self.config, spec.family).contains(&spec)
    }

    fn run_missing(
        &self,
        folder: &Path,
        plan: &[RunSpec],
        results: &mut [Option<RunResult>],
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<(), LabError> {
        let mut missing: Vec<usize> = (0..plan.len()).filter(|&i| results[i].is_none()).collect();
        missing.sort_by_key(|&i| Reverse(self.work(&plan[i])));
        let found = each(missing.len(), self.jobs, |k| match self.stop.is_set() {
            true => Ok(None),
            false => self.run_one(folder, plan[missing[k]], progress),
        })?;
        missing.into_iter().zip(found).for_each(|(i, result)| results[i] = result);
        Ok(())
    }

    /// Trains once. `None` if it was stopped.
    fn run_one(
        &self,
        folder: &Path,
        spec: RunSpec,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Option<RunResult>, LabError> {
        let config = self.config.training(spec)?;
        let json = to_json(&config);
        let parameters = config.network.summary().parameters();
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| self.train(folder, config, spec, progress)));
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
        folder: &Path,
        config: TrainConfig,
        spec: RunSpec,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<residual_train::Outcome, TrainError> {
        let epochs = config.epochs;
        let work = self.work(&spec);
        let (sender, receiver) = std::sync::mpsc::channel();
        let run = match self.keeps(spec) {
            true => Some(RunDir::create(&run_dir(folder, spec), &config, &self.environment, true)?),
            false => None,
        };
        let training = Training::with_data(config, self.dataset.clone(), self.device.clone())?;
        let training = match run {
            Some(run) => training.in_dir(run),
            None => training,
        };
        let training = training.with_stop(self.stop.clone()).with_observer(move |event| {
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

/// The loss of every batch of a training, if its file is there and of this training.
pub(crate) fn stored_curve(folder: &Path, run: &RunResult) -> Option<Vec<f32>> {
    let stored: Stored = files::read_json(&run_path(folder, run.spec)).ok()?;
    let same = (stored.result.spec, stored.result.train_error, stored.result.iterations)
        == (run.spec, run.train_error, run.iterations);
    same.then_some(stored.result.curve)
}

fn run_path(folder: &Path, spec: RunSpec) -> PathBuf {
    folder.join("runs").join(format!("{spec}.json"))
}

/// The run directory of a training whose network is kept.
pub(crate) fn run_dir(folder: &Path, spec: RunSpec) -> PathBuf {
    folder.join("runs").join(spec.to_string())
}

/// A word as a shell takes it for one, in quotes if need be.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=+:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn to_json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
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
    fn deep_sweeps_clip_gradients_of_all_nets_alike() {
        let mut config = SweepConfig::default();
        assert_eq!([Family::Dense, Family::Conv].map(|f| (config.epochs(f), config.lr(f))), [(20, 0.02), (7, 0.05)]);
        assert!(config.plan().iter().all(|spec| config.training(*spec).unwrap().optimizer.clip.is_none()));
        config.depths = Some(vec![20, 1202]);
        assert!(config.plan().iter().all(|spec| config.training(*spec).unwrap().optimizer.clip == Some(2.0)));
        config.clip = Some(7.0);
        assert!(config.plan().iter().all(|spec| config.training(*spec).unwrap().optimizer.clip == Some(7.0)));
    }

    #[test]
    fn a_command_says_what_differs() {
        let mut environment = Environment::here(Backend::Flex, &Backend::Flex.probe().unwrap());
        environment.kernels = Kernels::Fused;
        assert_eq!(SweepConfig::default().command(&environment), "residual sweep");
        let config = SweepConfig {
            families: vec![Family::Conv],
            depths: Some(vec![8, 20]),
            alphas: vec![0.0, 0.25],
            seeds: 1,
            first_seed: 7,
            data: DataConfig {
                dir: Some("it's here".into()),
                samples: Some(500),
                validation: 50,
                normalize: residual_data::Normalize::Pixel,
                ..DataName::Mnist.into()
            },
            epochs: Some(2),
            batch_size: 32,
            lr: Some(1e-3),
            clip: Some(0.5),
            norm: Norm::None,
            branch_scale: Some(BranchScale::One),
            conv_width: 16,
            ..SweepConfig::default()
        };
        (environment.backend, environment.kernels) = ("ndarray".into(), Kernels::Reference);
        assert_eq!(
            config.command(&environment),
            "residual sweep --family conv --depths 8,20 --alpha 0,0.25 --seeds 1 --seed 7 --data mnist \
             --data-dir 'it'\\''s here' --samples 500 --validation 50 --normalize pixel --epochs 2 --batch-size 32 \
             --lr 0.001 --clip 0.5 --norm none --branch-scale one --width 16 --backend ndarray --kernels reference"
        );
        (environment.backend, environment.kernels) = ("wgpu".into(), Kernels::Reference);
        assert!(config.command(&environment).ends_with("--backend wgpu"));
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
