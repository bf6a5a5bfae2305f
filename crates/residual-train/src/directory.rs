use crate::{
    Checkpoint, Device, Environment, Outcome, Row, Status, TrainConfig, TrainError, files, ids,
    learner::{Classifier, burn_bytes, file},
    metrics,
};
use burn::{
    module::Module,
    optim::{OptimizerRecord, lr_scheduler::LrSchedulerRecord},
    store::ModuleRecord,
};
use residual_data::{Dataset, Preprocessing};
use residual_fetch::{is_unfinished, remove_unfinished};
use residual_model::Network;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A folder that holds one training.
///
/// | file | holds |
/// |---|---|
/// | `config.json` | the resolved [`TrainConfig`] |
/// | `environment.json` | the [`Environment`] it started in |
/// | `metrics.csv` | one [`Row`] a measurement |
/// | `summary.json` | how it ended |
/// | `model.bpk` | the final weights, Burn's format |
/// | `best.bpk` | the weights of the epoch with the lowest test error |
/// | `preprocessing.json` | what makes an image file like the images it was trained on |
/// | `classes.json` | the classes' names, where the data have them |
/// | `checkpoint/` | the two newest [`Checkpoint`]s, each with the times it took beside it |
/// | `.lock` | held by the process that trains |
///
/// Files appear by rename, so each is whole or missing. The bytes of weights and checkpoints are a function of the
/// configuration, for one instruction set; times are in files of their own.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Held until the last clone is gone.
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
const LOCK: &str = ".lock";

/// The ending of the file with a checkpoint's times.
const TIMES: &str = "times.csv";

/// Checkpoints that are kept.
const KEPT: usize = 2;

impl RunDir {
    /// Makes a folder for a new training, with its configuration in it.
    ///
    /// With `force` a training that is already there is removed, finished or not.
    ///
    /// # Errors
    /// If the folder holds a training or anything else, or cannot be written.
    pub fn create(
        path: &Path,
        config: &TrainConfig,
        environment: &Environment,
        force: bool,
    ) -> Result<Self, TrainError> {
        let run = Self { path: path.into(), lock: None };
        if path.exists() {
            run.check_room(force)?;
        }
        files::create_dir(path)?;
        let run = run.locked()?;
        // Whoever held the lock before may have made a training of it.
        run.check_room(force)?;
        // An environment alone is no training, so it goes last.
        let names =
            [SUMMARY, MODEL, BEST, METRICS, CHECKPOINT, PREPROCESSING, CLASSES, "train", "valid", CONFIG, ENVIRONMENT];
        names.iter().try_for_each(|name| files::remove(&run.file(name)))?;
        // The last makes it a training.
        files::write_json(&run.file(ENVIRONMENT), environment)?;
        files::write_json(&run.file(CONFIG), config)?;
        Ok(run)
    }

    /// The same folder, held against other processes that would train in it until the last clone of the result is gone.
    /// A file system without locks lets everyone in.
    ///
    /// # Errors
    /// If another process holds it, or the lock cannot be made.
    pub fn locked(mut self) -> Result<Self, TrainError> {
        let path = self.file(LOCK);
        let io = |action| {
            let path = path.clone();
            move |source| TrainError::Io { action, path, source }
        };
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(io("create"))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::bad_file(&self.path, "is being trained in by another process"));
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

    /// Fails unless the folder is empty, or a training is there that may be removed.
    fn check_room(&self, force: bool) -> Result<(), TrainError> {
        let io = |source| TrainError::Io { action: "read", path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(io)?;
        // What a process leaves that is killed before there is a training is nothing.
        let nothing =
            |path: PathBuf| is_unfinished(&path) || [LOCK, ENVIRONMENT].iter().any(|name| path.ends_with(name));
        if entries.flatten().all(|entry| nothing(entry.path())) {
            return Ok(());
        }
        if !self.is_training() {
            return Err(TrainError::bad_file(&self.path, "is not empty and holds no training; choose another folder"));
        }
        if force {
            return Ok(());
        }
        Err(TrainError::Occupied { path: self.path.clone(), finished: self.is_finished() })
    }

    /// Whether the folder is one that [`RunDir::create`] made, so that `force` may empty it.
    fn is_training(&self) -> bool {
        let config: Result<serde_json::Value, TrainError> = files::read_json(&self.file(CONFIG));
        config.is_ok_and(|config| config["version"].is_u64() && config["network"].is_object())
            && self.file(ENVIRONMENT).is_file()
    }

    /// Opens a folder that holds a training.
    ///
    /// # Errors
    /// If it holds none.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let run = Self { path: path.into(), lock: None };
        match run.file(CONFIG).is_file() {
            true => Ok(run),
            false => Err(TrainError::bad_file(path, format!("holds no training: {CONFIG} is missing"))),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration the training started with.
    ///
    /// # Errors
    /// If the file is missing, damaged or of another version.
    pub fn config(&self) -> Result<TrainConfig, TrainError> {
        TrainConfig::read(&self.file(CONFIG))
    }

    /// What the training started on.
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub fn environment(&self) -> Result<Environment, TrainError> {
        files::read_json(&self.file(ENVIRONMENT))
    }

    /// How the training ended last, if it did and not by a kill.
    pub fn status(&self) -> Option<Status> {
        self.summary().ok().map(|summary| summary.status)
    }

    /// Whether the training came to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.status(), Some(Status::Finished | Status::StoppedEarly))
    }

    /// Everything measured so far.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn metrics(&self) -> Result<Vec<Row>, TrainError> {
        match self.file(METRICS).exists() {
            true => metrics::read(&self.file(METRICS)),
            false => Ok(Vec::new()),
        }
    }

    /// The file of the final weights.
    ///
    /// # Errors
    /// If the training has not come to its end.
    pub fn model(&self) -> Result<PathBuf, TrainError> {
        let path = self.file(MODEL);
        match path.is_file() {
            true => Ok(path),
            false => {
                let best = if self.file(BEST).is_file() { "; best.bpk has the best weights so far" } else { "" };
                Err(TrainError::bad_file(&self.path, format!("holds no finished training: {MODEL} is missing{best}")))
            }
        }
    }

    /// The network with its final weights, in inference mode.
    ///
    /// # Errors
    /// If the weights are missing, damaged or another network's.
    pub fn network(&self, device: &Device) -> Result<Network, TrainError> {
        // Files of earlier versions hold ids, equal ones for equal networks.
        load(self.config()?.init(&device.clone().inner()), &self.file(MODEL)).map(ids::unique)
    }

    /// What makes an image file like the images it was trained on.
    ///
    /// # Errors
    /// If the file is damaged; or if there is none, and the dataset cannot be loaded.
    pub fn preprocessing(&self) -> Result<Preprocessing, TrainError> {
        let path = self.file(PREPROCESSING);
        if path.exists() { files::read_json(&path) } else { Ok(self.config()?.data.load()?.preprocessing) }
    }

    /// The names of the classes, where the data had them.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn class_names(&self) -> Result<Option<Vec<String>>, TrainError> {
        let path = self.file(CLASSES);
        path.exists().then(|| files::read_json(&path)).transpose()
    }

    /// Writes what is to be known of the data later.
    pub(crate) fn write_data(&self, dataset: &Dataset) -> Result<(), TrainError> {
        files::write_json(&self.file(PREPROCESSING), &dataset.preprocessing)?;
        dataset.train.class_names().map_or(Ok(()), |names| files::write_json(&self.file(CLASSES), &names))
    }

    /// The newest checkpoint, whole and of this network, or `None` if there is none yet. With `older` a damaged one
    /// gives way to the one before it.
    ///
    /// # Errors
    /// If it is damaged or another network's: the error names the file.
    pub fn latest(&self, device: &Device, older: bool) -> Result<Option<Checkpoint>, TrainError> {
        self.newest(usize::MAX, device, older)
    }

    /// The newest checkpoint of fewer iterations, damaged ones left out.
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
                Err(TrainError::bad_file(&self.file(CHECKPOINT), format!("has none that is whole: {first}")))
            }
        }
    }

    fn read_checkpoint(&self, path: &Path, device: &Device) -> Result<Checkpoint, TrainError> {
        let bytes = fs::read(path).map_err(|source| TrainError::Io { action: "read", path: path.into(), source })?;
        let mut checkpoint = Checkpoint::from_bytes(&bytes).map_err(|reason| TrainError::bad_file(path, reason))?;
        if let Ok(times) = metrics::read(&path.with_extension(TIMES)) {
            checkpoint.set_times(&times);
        }
        let config = self.config()?;
        if checkpoint.network != config.network {
            let (name, own) = (checkpoint.network.name(), config.network.name());
            return Err(TrainError::bad_file(path, format!("belongs to another network: a {name}, not this {own}")));
        }
        // What can be read now cannot fail when the training goes on.
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
            return Err(TrainError::bad_file(path, "and config.json differ in whether there is a moving average"));
        }
        for record in [&records.ema, &records.best].into_iter().flatten() {
            let record = read(record).map_err(|e| unusable(path, &e))?;
            let network = config.init(&device.clone().inner());
            network.try_load_record(record).map_err(|e| unusable(path, &e))?;
        }
        Ok(checkpoint)
    }

    /// The files of checkpoints by their iterations, newest first.
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

    /// Writes a checkpoint, and with it the metrics and the best weights; forgets all but the newest.
    pub(crate) fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let folder = self.file(CHECKPOINT);
        files::create_dir(&folder)?;
        // The best weights come first: a training that goes on from the checkpoint may be at its end.
        if let Some(best) = &checkpoint.records.best {
            files::write(&self.file(BEST), best)?;
        }
        let own = checkpoint.iteration();
        let path = folder.join(format!("{own:08}.ckpt"));
        let times = path.with_extension(TIMES);
        metrics::write(&times, &checkpoint.times())?;
        if let Err(error) = checkpoint.to_bytes().and_then(|bytes| files::write(&path, &bytes)) {
            let _ = fs::remove_file(times);
            return Err(error);
        }
        self.write_metrics(&checkpoint.rows)?;
        // Those of later iterations are of a time that the training went back from.
        let (later, earlier): (Vec<_>, Vec<_>) = self.checkpoints().into_iter().partition(|(i, _)| *i > own);
        for (_, path) in later.iter().chain(earlier.iter().skip(KEPT)) {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(path.with_extension(TIMES));
        }
        Ok(())
    }

    pub(crate) fn write_metrics(&self, rows: &[Row]) -> Result<(), TrainError> {
        metrics::write(&self.file(METRICS), rows)
    }

    /// Writes the summary, and the weights if the training came to its end.
    pub(crate) fn finish(
        &self,
        outcome: &Outcome,
        parameters: u64,
        error: Option<&TrainError>,
    ) -> Result<(), TrainError> {
        self.write_metrics(&outcome.rows)?;
        if matches!(outcome.status, Status::Finished | Status::StoppedEarly) {
            files::write(&self.file(MODEL), &file(&outcome.network)?)?;
        }
        let summary = Summary {
            status: outcome.status,
            network: self.config()?.network.name().to_string(),
            parameters,
            epochs: outcome.epochs,
            iterations: outcome.iterations,
            train_loss: outcome.measured().map(|(train, _)| train.loss),
            train_error: outcome.measured().map(|(train, _)| train.error),
            test_loss: outcome.measured().map(|(_, test)| test.loss),
            test_error: outcome.measured().map(|(_, test)| test.error),
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

/// Loads a record into a freshly built module, which is given up if the record does not fit.
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
    TrainError::bad_file(path, format!("is damaged or no checkpoint: {}", one_line(&error.to_string())))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
