use crate::{
    Checkpoint, Device, Environment, Outcome, Row, Status, TrainConfig, TrainError,
    checkpoint::{burn_bytes, encode_network},
    files, ids,
    learner::Classifier,
};
use burn::{
    module::Module,
    optim::{OptimizerRecord, lr_scheduler::LrSchedulerRecord},
    store::ModuleRecord,
};
use residual_data::{DataConfig, Dataset, Fingerprint, Preprocessing};
use residual_fetch::{is_unfinished, remove_unfinished};
use residual_model::{Network, summary::thousands};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The directory of a training run.
///
/// | file | content |
/// |---|---|
/// | `config.json` | the resolved [`TrainConfig`] |
/// | `environment.json` | the [`Environment`] in which the run started |
/// | `metrics.csv` | one [`Row`] per measurement |
/// | `summary.json` | the results, and how the run ended |
/// | `model.bpk` | the final weights in Burn's format |
/// | `best.bpk` | the weights of the epoch with the lowest test error |
/// | `preprocessing.json` | the preprocessing that turns an image file into an input of the network |
/// | `classes.json` | the names of the classes, if the dataset has them |
/// | `dataset.json` | the [`Fingerprint`] of the dataset |
/// | `checkpoint/` | the two newest [`Checkpoint`]s, each with a file of measured times |
/// | `.lock` | a lock file, locked by the process that is training |
///
/// Each file is written under a temporary name and then renamed, so it is either complete or missing. On a given
/// instruction set, the bytes of weights and checkpoints depend only on the configuration. Measured times are in
/// separate files.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Released when the last clone is dropped.
    lock: Option<Arc<File>>,
}

/// The content of `summary.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Summary {
    status: Status,
    network: String,
    parameters: u64,
    epochs: usize,
    iterations: usize,
    train_loss: Option<f64>,
    train_error: Option<f64>,
    test_loss: Option<f64>,
    test_error: Option<f64>,
    seconds: f64,
    error: Option<String>,
}

const MODEL: &str = "model.bpk";
const CONFIG: &str = "config.json";
const ENVIRONMENT: &str = "environment.json";
const SUMMARY: &str = "summary.json";
const METRICS: &str = "metrics.csv";
const CHECKPOINT: &str = "checkpoint";
const BEST: &str = "best.bpk";
const PREPROCESSING: &str = "preprocessing.json";
const CLASSES: &str = "classes.json";
const DATASET: &str = "dataset.json";
const LOCK: &str = ".lock";

/// The extension of the file with a checkpoint's measured times.
const TIMES: &str = "times.csv";

/// The most tensors that burn-pack reads from a file.
const MAX_TENSORS: u64 = 100_000;

/// The number of checkpoints that are kept.
const KEPT: usize = 2;

impl RunDir {
    /// Creates the directory of a new run and writes its configuration and environment.
    ///
    /// With `force`, a run that is already in the directory is removed first, whether it is finished or not.
    ///
    /// # Errors
    /// If the directory holds a run and `force` is not set, if it holds anything else, or if it cannot be written. If
    /// the network has more than 100,000 tensors, which Burn's format for weights cannot hold.
    pub fn create(
        path: &Path,
        config: &TrainConfig,
        environment: &Environment,
        force: bool,
    ) -> Result<Self, TrainError> {
        let tensors = config.network.summary().tensors();
        if tensors > MAX_TENSORS {
            let (name, tensors) = (config.network.name(), thousands(tensors));
            return Err(TrainError::Conflict(format!(
                "the weights of {name} cannot be written: a file in Burn's format holds at most {} tensors, not {tensors}",
                thousands(MAX_TENSORS)
            )));
        }
        let run = Self { path: path.into(), lock: None };
        if path.exists() {
            run.check_vacant(force)?;
        }
        files::create_dir(path)?;
        let run = run.locked()?;
        // Another process may have created a run before this one held the lock.
        run.check_vacant(force)?;
        // The environment is removed last, because a directory that contains nothing else counts as empty.
        let names = [
            SUMMARY,
            MODEL,
            BEST,
            METRICS,
            CHECKPOINT,
            PREPROCESSING,
            CLASSES,
            DATASET,
            "train",
            "valid",
            CONFIG,
            ENVIRONMENT,
        ];
        names.iter().try_for_each(|name| files::remove(&run.file(name)))?;
        // The configuration is written last, because a directory that contains it counts as a run.
        files::write_json(&run.file(ENVIRONMENT), environment)?;
        files::write_json(&run.file(CONFIG), config)?;
        Ok(run)
    }

    /// Locks the directory, so that no other process can train in it. The lock is released when the last clone of the
    /// returned value is dropped. On a file system without support for locks, this does nothing.
    ///
    /// # Errors
    /// If another process holds the lock, or the lock file cannot be created.
    pub fn locked(mut self) -> Result<Self, TrainError> {
        let path = self.file(LOCK);
        let io = |action| {
            let path = path.clone();
            move |source| TrainError::Io { action, path, source }
        };
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(io("create"))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::bad_file(&self.path, "is locked by another training process"));
            }
            Err(TryLockError::Error(error)) if error.kind() != std::io::ErrorKind::Unsupported => {
                return Err(io("lock")(error));
            }
            _ => self.lock = Some(Arc::new(file)),
        }
        remove_unfinished(&self.path);
        remove_unfinished(&self.file(CHECKPOINT));
        Ok(self)
    }

    /// Fails unless the directory is empty, or holds a run and `force` is set.
    fn check_vacant(&self, force: bool) -> Result<(), TrainError> {
        let io = |source| TrainError::Io { action: "read", path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(io)?;
        // If a process is killed while it creates a run, only these files are left.
        let is_leftover =
            |path: PathBuf| is_unfinished(&path) || [LOCK, ENVIRONMENT].iter().any(|name| path.ends_with(name));
        if entries.flatten().all(|entry| is_leftover(entry.path())) {
            return Ok(());
        }
        if !self.is_run() {
            let reason = "is not empty and holds no training run; choose another directory";
            return Err(TrainError::bad_file(&self.path, reason));
        }
        if force {
            return Ok(());
        }
        Err(TrainError::Occupied { path: self.path.clone(), finished: self.is_finished() })
    }

    /// Whether the directory was created by [`RunDir::create`]. Only such a directory may be emptied with `force`.
    fn is_run(&self) -> bool {
        let config: Result<serde_json::Value, TrainError> = files::read_json(&self.file(CONFIG));
        config.is_ok_and(|config| config["version"].is_u64() && config["network"].is_object())
            && self.file(ENVIRONMENT).is_file()
    }

    /// Opens the directory of a run.
    ///
    /// # Errors
    /// If the directory does not hold a run.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let run = Self { path: path.into(), lock: None };
        if run.file(CONFIG).is_file() {
            return Ok(run);
        }
        let reason = if !path.exists() {
            "does not exist; expected the directory of a training run".into()
        } else if !path.is_dir() {
            "is a file; expected the directory of a training run".into()
        } else if path.join("sweep.json").is_file() {
            format!("holds a sweep; its training runs are in {}", path.join("runs").display())
        } else {
            format!("holds no training run: {CONFIG} is missing")
        };
        Err(TrainError::bad_file(path, reason))
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration of the run.
    ///
    /// # Errors
    /// If the file is missing, invalid or of another version.
    pub fn config(&self) -> Result<TrainConfig, TrainError> {
        TrainConfig::read(&self.file(CONFIG))
    }

    /// The environment in which the run started.
    ///
    /// # Errors
    /// If the file is missing or invalid.
    pub fn environment(&self) -> Result<Environment, TrainError> {
        files::read_json(&self.file(ENVIRONMENT))
    }

    /// How the run last ended. `None` if it is still running or was killed.
    pub fn status(&self) -> Option<Status> {
        self.summary().ok().map(|summary| summary.status)
    }

    /// Whether the run is finished: it has reached its last epoch or has stopped early.
    pub fn is_finished(&self) -> bool {
        matches!(self.status(), Some(Status::Finished | Status::StoppedEarly))
    }

    /// All measurements so far.
    ///
    /// # Errors
    /// If the file is invalid.
    pub fn metrics(&self) -> Result<Vec<Row>, TrainError> {
        let path = self.file(METRICS);
        if path.exists() { files::read_csv(&path) } else { Ok(Vec::new()) }
    }

    /// The path of the final weights.
    ///
    /// # Errors
    /// If the run is not finished.
    pub fn model(&self) -> Result<PathBuf, TrainError> {
        let path = self.file(MODEL);
        if path.is_file() {
            return Ok(path);
        }
        let best = if self.file(BEST).is_file() { "; best.bpk has the best weights so far" } else { "" };
        Err(TrainError::bad_file(&self.path, format!("holds no finished training run: {MODEL} is missing{best}")))
    }

    /// The network with its final weights, in inference mode.
    ///
    /// # Errors
    /// If the weights are missing or damaged, or belong to another network.
    pub fn network(&self, device: &Device) -> Result<Network, TrainError> {
        // Files written by earlier versions contain parameter ids that are the same in every run of a network.
        load(self.config()?.init(&device.clone().inner()), &self.file(MODEL)).map(ids::assign_unique)
    }

    /// The preprocessing that turns an image file into an input of the network.
    ///
    /// # Errors
    /// If the file is invalid, or if it is missing and the dataset cannot be loaded.
    pub fn preprocessing(&self) -> Result<Preprocessing, TrainError> {
        let path = self.file(PREPROCESSING);
        if path.exists() { files::read_json(&path) } else { Ok(self.config()?.data.load()?.preprocessing) }
    }

    /// The names of the classes, if the dataset has them.
    ///
    /// # Errors
    /// If the file is invalid.
    pub fn class_names(&self) -> Result<Option<Vec<String>>, TrainError> {
        let path = self.file(CLASSES);
        path.exists().then(|| files::read_json(&path)).transpose()
    }

    /// Checks that the dataset is the one with which the run began. A run that has not begun, or that is from an
    /// earlier version, accepts any dataset.
    ///
    /// # Errors
    /// If the dataset changed, or a file cannot be read. The error says what changed.
    pub fn check_data(&self, dataset: &Dataset) -> Result<(), TrainError> {
        let path = self.file(DATASET);
        if !path.exists() {
            return Ok(());
        }
        let began: Fingerprint = files::read_json(&path)?;
        match began.changes(&dataset.fingerprint()?) {
            Some(changes) => Err(TrainError::ChangedData { path: self.path.clone(), changes }),
            None => Ok(()),
        }
    }

    /// Writes the preprocessing, the class names and the fingerprint of the dataset. Updates its directory if it moved.
    ///
    /// # Errors
    /// The same as for [`Self::check_data`], and if a file cannot be written.
    pub(crate) fn write_data(&self, config: &DataConfig, dataset: &Dataset) -> Result<(), TrainError> {
        self.check_data(dataset)?;
        if !self.file(DATASET).exists() {
            files::write_json(&self.file(DATASET), &dataset.fingerprint()?)?;
        }
        let mut own = self.config()?;
        if own.data.dir != config.dir {
            own.data.dir.clone_from(&config.dir);
            files::write_json(&self.file(CONFIG), &own)?;
        }
        files::write_json(&self.file(PREPROCESSING), &dataset.preprocessing)?;
        dataset.train.class_names().map_or(Ok(()), |names| files::write_json(&self.file(CLASSES), &names))
    }

    /// Reads the newest checkpoint. Returns `None` if there is none yet. With `older`, checkpoints that cannot be used
    /// are skipped, and the newest usable one is read.
    ///
    /// # Errors
    /// If the newest checkpoint is damaged or belongs to another network; with `older`, if this holds for all
    /// checkpoints. The error names the file.
    pub fn latest(&self, device: &Device, older: bool) -> Result<Option<Checkpoint>, TrainError> {
        self.newest(usize::MAX, device, older)
    }

    /// Reads the newest usable checkpoint with fewer than `iteration` iterations.
    pub(crate) fn before(&self, iteration: usize, device: &Device) -> Result<Option<Checkpoint>, TrainError> {
        self.newest(iteration, device, true).or(Ok(None))
    }

    fn newest(&self, below: usize, device: &Device, older: bool) -> Result<Option<Checkpoint>, TrainError> {
        let mut first = None;
        for (_, path) in self.checkpoints().into_iter().filter(|(iteration, _)| *iteration < below) {
            match self.read_checkpoint(&path, device) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) if older => first = first.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match first {
            None => Ok(None),
            Some(first) => {
                Err(TrainError::bad_file(&self.file(CHECKPOINT), format!("contains no usable checkpoint: {first}")))
            }
        }
    }

    fn read_checkpoint(&self, path: &Path, device: &Device) -> Result<Checkpoint, TrainError> {
        let bytes = fs::read(path).map_err(|source| TrainError::Io { action: "read", path: path.into(), source })?;
        let mut checkpoint = Checkpoint::from_bytes(&bytes).map_err(|reason| TrainError::bad_file(path, reason))?;
        if let Ok(times) = files::read_csv(&path.with_extension(TIMES)) {
            checkpoint.set_times(&times);
        }
        let config = self.config()?;
        if checkpoint.network != config.network {
            let (name, own) = (checkpoint.network.name(), config.network.name());
            return Err(TrainError::bad_file(path, format!("belongs to another network: {name}, not {own}")));
        }
        // All records are decoded here, so that the training loop can decode them without errors.
        let records = &checkpoint.records;
        let network = config.init(&device.clone().autodiff());
        let read = |bytes: &[u8]| ModuleRecord::from_bytes(burn_bytes(bytes));
        let record = read(&records.model).map_err(|e| unusable(path, &e))?;
        let fits = Classifier { network, seed: config.seed }.try_load_record(record);
        fits.map_err(|e| {
            TrainError::bad_file(path, format!("belongs to another network: {}", one_line(&e.to_string())))
        })?;
        OptimizerRecord::from_bytes(burn_bytes(&records.optimizer)).map_err(|e| unusable(path, &e))?;
        LrSchedulerRecord::from_bytes(burn_bytes(&records.scheduler)).map_err(|e| unusable(path, &e))?;
        if records.ema.is_some() != config.ema.is_some() {
            let reason = "does not match config.json: only one of them has a moving average";
            return Err(TrainError::bad_file(path, reason));
        }
        for record in [&records.ema, &records.best].into_iter().flatten() {
            let record = read(record).map_err(|e| unusable(path, &e))?;
            let network = config.init(&device.clone().inner());
            network.try_load_record(record).map_err(|e| unusable(path, &e))?;
        }
        Ok(checkpoint)
    }

    /// The iterations and paths of the checkpoints, newest first.
    fn checkpoints(&self) -> Vec<(usize, PathBuf)> {
        let entries = fs::read_dir(self.file(CHECKPOINT)).into_iter().flatten().flatten();
        let numbered = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(".ckpt")?;
            Some((name.parse().ok()?, path))
        };
        let mut found: Vec<_> = entries.filter_map(|entry| numbered(entry.path())).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
    }

    /// Writes a checkpoint, the metrics and the best weights, and removes old checkpoints.
    pub(crate) fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let directory = self.file(CHECKPOINT);
        files::create_dir(&directory)?;
        // The best weights are written first, because a run resumed from this checkpoint may not evaluate again.
        if let Some(best) = &checkpoint.records.best {
            files::write(&self.file(BEST), best)?;
        }
        let own = checkpoint.iteration();
        let path = directory.join(format!("{own:08}.ckpt"));
        let times = path.with_extension(TIMES);
        files::write_csv(&times, checkpoint.times())?;
        if let Err(error) = checkpoint.to_bytes().and_then(|bytes| files::write(&path, &bytes)) {
            let _ = fs::remove_file(times);
            return Err(error);
        }
        self.write_metrics(&checkpoint.rows)?;
        // Checkpoints with more iterations were written before a rewind and are obsolete.
        let (later, earlier): (Vec<_>, Vec<_>) = self.checkpoints().into_iter().partition(|(i, _)| *i > own);
        for (_, path) in later.iter().chain(earlier.iter().skip(KEPT)) {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(path.with_extension(TIMES));
        }
        Ok(())
    }

    pub(crate) fn write_metrics(&self, rows: &[Row]) -> Result<(), TrainError> {
        files::write_csv(&self.file(METRICS), rows)
    }

    /// Writes the metrics and the summary and, if the run is finished, the weights.
    pub(crate) fn finish(
        &self,
        outcome: &Outcome,
        parameters: u64,
        error: Option<&TrainError>,
    ) -> Result<(), TrainError> {
        self.write_metrics(&outcome.rows)?;
        if matches!(outcome.status, Status::Finished | Status::StoppedEarly) {
            files::write(&self.file(MODEL), &encode_network(&outcome.network)?)?;
        }
        let (train, test) = outcome.evaluations().unzip();
        let summary = Summary {
            status: outcome.status,
            network: self.config()?.network.name().to_string(),
            parameters,
            epochs: outcome.epochs,
            iterations: outcome.iterations,
            train_loss: train.map(|evaluation| evaluation.loss),
            train_error: train.map(|evaluation| evaluation.error),
            test_loss: test.map(|evaluation| evaluation.loss),
            test_error: test.map(|evaluation| evaluation.error),
            seconds: outcome.seconds,
            error: error.map(ToString::to_string),
        };
        files::write_json(&self.file(SUMMARY), &summary)
    }

    fn summary(&self) -> Result<Summary, TrainError> {
        files::read_json(&self.file(SUMMARY))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Loads a record from a file into a module.
fn load<M: Module>(module: M, path: &Path) -> Result<M, TrainError> {
    if !path.is_file() {
        return Err(TrainError::bad_file(path, "is missing"));
    }
    let record = ModuleRecord::load(path).map_err(|e| unusable(path, &e))?;
    module
        .try_load_record(record)
        .map_err(|e| TrainError::bad_file(path, format!("belongs to another network: {}", one_line(&e.to_string()))))
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> TrainError {
    TrainError::bad_file(path, format!("is damaged or has the wrong format: {}", one_line(&error.to_string())))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
