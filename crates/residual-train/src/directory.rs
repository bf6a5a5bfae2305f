use crate::{
    Checkpoint, Device, Environment, Outcome, Row, Status, TrainConfig, TrainError,
    checkpoint::{burn_bytes, encode_network},
    environment::host,
    files, ids,
    learner::Classifier,
    tensorboard::{EventFile, is_event_file},
};
use burn::{
    module::Module,
    optim::{OptimizerRecord, lr_scheduler::LrSchedulerRecord},
    store::ModuleRecord,
};
use residual_data::{DataConfig, Dataset, Fingerprint, Preprocessing};
use residual_fetch::{LOCK, Lock, is_unfinished, remove_unfinished};
use residual_model::{Network, summary::thousands};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The directory of a training run.
///
/// | file | content |
/// |---|---|
/// | `config.json` | the resolved [`TrainConfig`] |
/// | `environment.json` | the [`Environment`] in which the run started, and the machine's host name |
/// | `metrics.csv` | one [`Row`] per measurement |
/// | `summary.json` | the [`RunSummary`]: the results, and how the run ended |
/// | `loss.csv` | the training loss of every batch, once the run is finished |
/// | `model.bpk` | the final weights in Burn's format |
/// | `best.bpk` | the weights of the epoch with the lowest test error |
/// | `preprocessing.json` | the preprocessing that turns an image file into an input of the network |
/// | `classes.json` | the names of the classes, if the dataset has them |
/// | `dataset.json` | the [`Fingerprint`] of the dataset |
/// | `checkpoint/` | by default, the [`Checkpoint`]s of the last two epochs and, while it is the newest, one from within an epoch, each with a file of measured times |
/// | `events.out.tfevents.*` | event files for TensorBoard, if they were asked for |
/// | `.lock` | a lock file, locked by the process that is training |
///
/// Each file is written under a temporary name and then renamed, so it is either complete or missing. On a given
/// instruction set, the bytes of weights and checkpoints depend only on the configuration. Measured times are in
/// separate files.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Released when the last clone is dropped.
    lock: Option<Arc<Lock>>,
}

/// What [`RunDir::create`] does if the directory already holds a run.
pub enum Existing<'a> {
    /// It fails.
    Keep,
    /// It removes the run, whether it is finished or not. The function is called with the files before they are
    /// removed.
    Replace(&'a dyn Fn(&[PathBuf])),
    /// It removes the run, too. If there is none, it creates one beside files of other names.
    Beside,
}

/// The content of `summary.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSummary {
    /// How the run last ended.
    pub status: Status,
    /// The name of the network.
    pub network: String,
    /// The number of trainable parameters.
    pub parameters: u64,
    /// The number of finished epochs.
    pub epochs: usize,
    /// The number of optimizer steps taken.
    pub iterations: usize,
    /// The mean cross-entropy over the training set after the last epoch, in nats.
    pub train_loss: Option<f64>,
    /// The fraction of the training set that is misclassified after the last epoch.
    pub train_error: Option<f64>,
    /// The mean cross-entropy over the test set after the last epoch, in nats.
    pub test_loss: Option<f64>,
    /// The fraction of the test set that is misclassified after the last epoch.
    pub test_error: Option<f64>,
    /// The time spent on training and evaluation, in seconds.
    pub seconds: f64,
    /// The error with which the run failed.
    pub error: Option<String>,
}

/// A row of `loss.csv`.
#[derive(Serialize, Deserialize)]
struct BatchLoss {
    /// The number of the batch, from 1.
    batch: usize,
    /// The mean cross-entropy over the batch, in nats.
    loss: f32,
}

const MODEL: &str = "model.bpk";
const CONFIG: &str = "config.json";
const ENVIRONMENT: &str = "environment.json";
const SUMMARY: &str = "summary.json";
const METRICS: &str = "metrics.csv";
const LOSS: &str = "loss.csv";
const CHECKPOINT: &str = "checkpoint";
const BEST: &str = "best.bpk";
const PREPROCESSING: &str = "preprocessing.json";
const CLASSES: &str = "classes.json";
const DATASET: &str = "dataset.json";

/// All files of a run except the lock and the checkpoints.
const FILES: [&str; 10] = [SUMMARY, MODEL, BEST, METRICS, LOSS, PREPROCESSING, CLASSES, DATASET, CONFIG, ENVIRONMENT];

/// The extension of the file with a checkpoint's measured times.
const TIMES: &str = "times.csv";

/// The most tensors that burn-pack reads from a file.
const MAX_TENSORS: u64 = 100_000;

/// The extension of a checkpoint.
const CKPT: &str = "ckpt";

/// The end of the name of a checkpoint that was written within an epoch.
const WITHIN: &str = "-within-epoch";

/// The number of checkpoints from the ends of epochs that are kept.
const KEPT: usize = 2;

/// `environment.json`
#[derive(Serialize, Deserialize)]
struct Began {
    #[serde(flatten)]
    environment: Environment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
}

/// A checkpoint, or the file with its measured times: `00000042.ckpt` or, within an epoch,
/// `00000042-within-epoch.ckpt`.
struct CheckpointFile {
    path: PathBuf,
    iteration: usize,
    within_epoch: bool,
}

impl CheckpointFile {
    /// Returns `None` if the file is neither.
    fn of(path: &Path) -> Option<Self> {
        let (name, extension) = path.file_name()?.to_str()?.split_once('.')?;
        let number = name.strip_suffix(WITHIN).unwrap_or(name);
        let is_number = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_own = is_number && [CKPT, TIMES].contains(&extension);
        is_own.then_some(Self { path: path.into(), iteration: number.parse().ok()?, within_epoch: number != name })
    }
}

impl RunDir {
    /// Creates the directory of a new run and writes its configuration and environment.
    ///
    /// If a run in the directory is replaced, the files of [`RunDir::files`] are removed first, and no others.
    ///
    /// # Errors
    /// If the directory holds a run that is not to be replaced, if it holds anything else, if something that no training
    /// wrote has the name of a run's file, if the directory cannot be written, or if the network has more than 100,000
    /// tensors, which Burn's format for weights cannot hold.
    pub fn create(
        path: &Path,
        config: &TrainConfig,
        environment: &Environment,
        existing: Existing<'_>,
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
            run.check_vacant(&existing)?;
        }
        files::create_dir(path)?;
        let run = run.locked()?;
        // Another process may have created a run before this one held the lock.
        run.check_vacant(&existing)?;
        if !matches!(existing, Existing::Keep) && run.file(CONFIG).exists() {
            let mut old = Self::files(path)?;
            old.retain(|file| !file.ends_with(LOCK));
            if let Existing::Replace(announce) = existing {
                announce(&old);
            }
            // Without the last two the directory would not count as a run, so they are replaced below.
            old.retain(|file| !file.ends_with(CONFIG) && !file.ends_with(ENVIRONMENT));
            files::remove(&old)?;
            let _ = fs::remove_dir(run.file(CHECKPOINT));
        }
        // The configuration is written last, because a directory that contains it counts as a run.
        files::write_json(&run.file(ENVIRONMENT), &Began { environment: environment.clone(), host: host() })?;
        files::write_json(&run.file(CONFIG), config)?;
        Ok(run)
    }

    /// The files in a directory that belong to a run: those with the names of a run's files.
    ///
    /// # Errors
    /// If anything but a file has such a name, or anything but a directory is called `checkpoint`: no training wrote it.
    pub fn files(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let checkpoint = path.join(CHECKPOINT);
        let mut paths: Vec<PathBuf> = FILES.iter().map(|name| path.join(name)).collect();
        if files::is_written_dir(&checkpoint)? {
            let entries = fs::read_dir(&checkpoint).into_iter().flatten().flatten().map(|entry| entry.path());
            paths.extend(entries.filter(|path| CheckpointFile::of(path).is_some()));
        }
        paths.extend(event_files(path));
        paths.push(path.join(LOCK));
        files::written(paths)
    }

    /// Locks a directory that may hold a run, or what is left of one.
    ///
    /// # Errors
    /// As for [`Self::locked`].
    pub fn lock(path: &Path) -> Result<Self, TrainError> {
        Self { path: path.into(), lock: None }.locked()
    }

    /// Removes the files of [`Self::files`] and then, if nothing else is left, the directories.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn remove(self) -> Result<(), TrainError> {
        files::remove(&Self::files(&self.path)?)?;
        let _ = fs::remove_dir(self.file(CHECKPOINT));
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    /// Locks the directory, so that no other process can train in it. The lock is released when the last clone of the
    /// returned value is dropped. On a file system without support for locks, this does nothing.
    ///
    /// # Errors
    /// If another process holds the lock, or the lock file cannot be created.
    pub fn locked(mut self) -> Result<Self, TrainError> {
        self.lock = Some(Arc::new(files::lock_directory(&self.path)?));
        remove_unfinished(&self.path);
        if files::is_written_dir(&self.file(CHECKPOINT))? {
            remove_unfinished(&self.file(CHECKPOINT));
        }
        Ok(self)
    }

    /// Fails if the directory is no longer the one that was created or opened, so that nothing may be written into it.
    pub(crate) fn check_in_place(&self) -> Result<(), TrainError> {
        match &self.lock {
            Some(lock) => files::check_in_place(lock, &self.path),
            None if self.file(CONFIG).is_file() => Ok(()),
            None => Err(TrainError::bad_file(&self.path, "holds no training run any more")),
        }
    }

    /// Fails unless the directory is empty, or holds a run that is to be replaced.
    fn check_vacant(&self, existing: &Existing<'_>) -> Result<(), TrainError> {
        let io = |source| TrainError::Io { action: "read", path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(io)?;
        // If a process is killed while it creates a run, only these files are left.
        let is_leftover = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_new = is_unfinished(path) && [ENVIRONMENT, CONFIG].iter().any(|own| name.starts_with(own));
            let is_environment = || files::read_json::<Environment>(path).is_ok();
            is_new || name == LOCK || (name == ENVIRONMENT && is_environment())
        };
        let is_other = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            let is_of_run = FILES.iter().chain([&CHECKPOINT]).any(|own| name == *own);
            !is_leftover(path) && (is_of_run || !matches!(existing, Existing::Beside))
        };
        let Some(other) = entries.flatten().map(|entry| entry.path()).find(is_other) else {
            return Ok(());
        };
        if !self.is_run() {
            let other = other.file_name().unwrap_or_default().to_string_lossy();
            let reason = format!(
                "is not empty and holds no training run, but {}; choose another directory",
                residual_data::shown(&other)
            );
            return Err(TrainError::bad_file(&self.path, reason));
        }
        match existing {
            Existing::Replace(_) | Existing::Beside => Ok(()),
            Existing::Keep => Err(TrainError::Occupied { path: self.path.clone(), finished: self.is_finished() }),
        }
    }

    /// Whether the directory was created by [`RunDir::create`]. Only in such a directory may files be replaced.
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

    /// Extends the run to more epochs. A finished run is then an interrupted one, which can be resumed; it keeps its weights
    /// until it is finished again.
    ///
    /// # Errors
    /// As for [`TrainConfig::extended`], or if the run stopped early, has no checkpoint, or cannot be written.
    pub fn extend(&self, epochs: usize) -> Result<TrainConfig, TrainError> {
        let config = self.config()?.extended(epochs)?;
        let refused = |reason: &str| Err(TrainError::Conflict(format!("the training cannot be extended: {reason}")));
        let finished = self.summary().ok().filter(|summary| summary.status == Status::Finished);
        if self.status() == Some(Status::StoppedEarly) {
            return refused("it stopped early, because the test loss no longer improved");
        }
        if finished.is_some() && self.checkpoints().is_empty() {
            return refused("its checkpoints were removed");
        }
        self.check_in_place()?;
        // First, so that a process killed in between leaves a run that finishes as it did before.
        if let Some(summary) = finished {
            files::write_json(&self.file(SUMMARY), &RunSummary { status: Status::Interrupted, ..summary })?;
        }
        files::write_json(&self.file(CONFIG), &config)?;
        Ok(config)
    }

    /// The environment in which the run started.
    ///
    /// # Errors
    /// If the file is missing or invalid.
    pub fn environment(&self) -> Result<Environment, TrainError> {
        files::read_json(&self.file(ENVIRONMENT))
    }

    /// The host name of the machine on which the run started. `None` if it was not recorded.
    pub fn host(&self) -> Option<String> {
        files::read_json::<Began>(&self.file(ENVIRONMENT)).ok()?.host
    }

    /// How the run last ended. `None` if it is still running or was killed.
    pub fn status(&self) -> Option<Status> {
        self.summary().ok().map(|summary| summary.status)
    }

    /// Whether the run is finished: it has reached its last epoch or has stopped early.
    pub fn is_finished(&self) -> bool {
        matches!(self.status(), Some(Status::Finished | Status::StoppedEarly))
    }

    /// Whether the run has a checkpoint from which it can be resumed, and is not finished.
    pub fn is_interrupted(&self) -> bool {
        !self.is_finished() && !self.checkpoints().is_empty()
    }

    /// All measurements so far.
    ///
    /// # Errors
    /// If the file is invalid.
    pub fn metrics(&self) -> Result<Vec<Row>, TrainError> {
        let path = self.file(METRICS);
        if path.exists() { files::read_csv(&path) } else { Ok(Vec::new()) }
    }

    /// The training loss of every batch. It is empty if the run is not finished, or was resumed from a checkpoint that
    /// lacks the losses before it.
    ///
    /// # Errors
    /// If the file is invalid.
    pub fn losses(&self) -> Result<Vec<f32>, TrainError> {
        if !self.file(LOSS).exists() {
            return Ok(Vec::new());
        }
        Ok(files::read_csv::<BatchLoss>(&self.file(LOSS))?.into_iter().map(|row| row.loss).collect())
    }

    /// Removes the checkpoints and the best weights of a finished run, and unless `weights`, also its final weights.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn compact(&self, weights: bool) -> Result<(), TrainError> {
        let mut removed = Self::files(&self.path)?;
        removed.retain(|path| {
            path.ends_with(BEST) || (path.ends_with(MODEL) && !weights) || path.starts_with(self.file(CHECKPOINT))
        });
        files::remove(&removed)?;
        let _ = fs::remove_dir(self.file(CHECKPOINT));
        Ok(())
    }

    /// The path of the final weights. Those of an extended run stay until it is finished again.
    ///
    /// # Errors
    /// If the run has never been finished.
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
        if self.file(DATASET).exists() { self.check_fingerprint(&dataset.fingerprint()?) } else { Ok(()) }
    }

    /// Like [`Self::check_data`], with the fingerprint of the dataset, which takes a pass over it.
    ///
    /// # Errors
    /// The same as for [`Self::check_data`].
    pub fn check_fingerprint(&self, fingerprint: &Fingerprint) -> Result<(), TrainError> {
        let path = self.file(DATASET);
        if !path.exists() {
            return Ok(());
        }
        let began: Fingerprint = files::read_json(&path)?;
        match began.changes(fingerprint) {
            Some(changes) => Err(TrainError::ChangedData { path: self.path.clone(), changes }),
            None => Ok(()),
        }
    }

    /// Writes the preprocessing, the class names and the fingerprint of the dataset. Updates its directory if it moved.
    ///
    /// # Errors
    /// The same as for [`Self::check_data`], and if a file cannot be written.
    pub(crate) fn write_data(&self, config: &DataConfig, dataset: &Dataset) -> Result<(), TrainError> {
        self.check_in_place()?;
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
        self.newest(device, older)
    }

    /// Reads the newest usable checkpoint from the end of an epoch, or from before the first one, with fewer than
    /// `below` iterations.
    pub(crate) fn epoch_end(&self, below: usize, device: &Device) -> Option<Checkpoint> {
        let ends = self.checkpoints().into_iter().filter(|file| !file.within_epoch && file.iteration < below);
        // A checkpoint of an earlier version may be from within an epoch in spite of its name.
        ends.filter_map(|file| self.read_checkpoint(&file.path, device).ok()).find(Checkpoint::is_between_epochs)
    }

    fn newest(&self, device: &Device, older: bool) -> Result<Option<Checkpoint>, TrainError> {
        let mut first = None;
        for CheckpointFile { path, .. } in self.checkpoints() {
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
        let bytes = files::read(path)?;
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

    /// The checkpoints, newest first.
    fn checkpoints(&self) -> Vec<CheckpointFile> {
        let entries = fs::read_dir(self.file(CHECKPOINT)).into_iter().flatten().flatten();
        let is_checkpoint = |path: &PathBuf| path.extension().is_some_and(|extension| extension == CKPT);
        let paths = entries.map(|entry| entry.path()).filter(is_checkpoint);
        let mut found: Vec<_> = paths.filter_map(|path| CheckpointFile::of(&path)).collect();
        // At the same iteration, the end of an epoch is later than its last batch.
        found.sort_unstable_by_key(|file| (Reverse(file.iteration), file.within_epoch));
        found
    }

    /// Opens a file for TensorBoard's events after this many optimizer steps, if they are asked for or the run already has
    /// such files.
    pub(crate) fn events(&self, wanted: bool, iteration: usize) -> Result<Option<EventFile>, TrainError> {
        if !wanted && event_files(&self.path).is_empty() {
            return Ok(None);
        }
        let io = |source| TrainError::Io { action: "write into", path: self.path.clone(), source };
        // TensorBoard drops what was written after the checkpoint, at its own step too.
        let first_step = if iteration == 0 { 0 } else { iteration + 1 };
        let mut events = EventFile::create(&self.path, first_step).map_err(io)?;
        if let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(self.config()?) {
            events.hparams(&settings).map_err(io)?;
        }
        Ok(Some(events))
    }

    /// Writes a checkpoint, the metrics and the best weights, and removes old checkpoints.
    pub(crate) fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.check_in_place()?;
        let directory = self.file(CHECKPOINT);
        // Not its parents: a run directory is never created again.
        if !files::is_written_dir(&directory)? {
            let io = |source| TrainError::Io { action: "create", path: directory.clone(), source };
            fs::create_dir(&directory).map_err(io)?;
        }
        // The best weights are written first, because a run resumed from this checkpoint may not evaluate again.
        if let Some(best) = &checkpoint.records.best {
            files::write(&self.file(BEST), best)?;
        }
        let own = checkpoint.iteration();
        // Checkpoints with more iterations were written before a rewind. They are removed first: a run that is killed
        // before it writes this one rewinds again.
        remove_checkpoints(self.checkpoints().into_iter().filter(|file| file.iteration > own));
        let within = if checkpoint.is_between_epochs() { "" } else { WITHIN };
        let path = directory.join(format!("{own:08}{within}.{CKPT}"));
        let times = path.with_extension(TIMES);
        files::write_csv(&times, checkpoint.times())?;
        if let Err(error) = checkpoint.to_bytes().and_then(|bytes| files::write(&path, &bytes)) {
            let _ = fs::remove_file(times);
            return Err(error);
        }
        self.write_metrics(&checkpoint.rows)?;
        // One from within an epoch is there to resume from while it is the newest. It never replaces another one, so that
        // an interrupted run can rewind to the same checkpoints as one that is never interrupted.
        let is_obsolete = |file: &CheckpointFile| file.path != path && file.within_epoch;
        let (obsolete, kept): (Vec<_>, Vec<_>) = self.checkpoints().into_iter().partition(is_obsolete);
        let ends = kept.into_iter().filter(|file| !file.within_epoch);
        remove_checkpoints(obsolete.into_iter().chain(ends.skip(KEPT)));
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
        self.check_in_place()?;
        let has_ended = matches!(outcome.status, Status::Finished | Status::StoppedEarly);
        if has_ended {
            self.write_metrics(&outcome.rows)?;
            // A checkpoint of format 1 has no losses, so that those before it are unknown.
            if outcome.curve.len() >= outcome.iterations {
                let losses = outcome.curve.iter().zip(1..).map(|(&loss, batch)| BatchLoss { batch, loss });
                files::write_csv(&self.file(LOSS), losses)?;
            }
            files::write(&self.file(MODEL), &encode_network(&outcome.network)?)?;
        }
        let (train, test) = outcome.evaluations().unzip();
        let summary = RunSummary {
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
        files::write_json(&self.file(SUMMARY), &summary)?;
        // A run that failed may have no checkpoint. Metrics without a checkpoint are only resumed over if the summary
        // says that the run failed, so it is written before them.
        if has_ended { Ok(()) } else { self.write_metrics(&outcome.rows) }
    }

    /// The results, and how the run last ended.
    ///
    /// # Errors
    /// If the file is missing or invalid, for example because the run is still going on or was killed.
    pub fn summary(&self) -> Result<RunSummary, TrainError> {
        files::read_json(&self.file(SUMMARY))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// The files in a run directory that TensorBoard reads.
fn event_files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| is_event_file(path)).collect()
}

fn remove_checkpoints(files: impl Iterator<Item = CheckpointFile>) {
    for CheckpointFile { path, .. } in files {
        let _ = fs::remove_file(path.with_extension(TIMES));
        let _ = fs::remove_file(path);
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
