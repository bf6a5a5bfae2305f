use crate::{
    Device, Environment, Outcome, Row, Status, TrainConfig, TrainError, evaluate::Sums, files, learner::Classifier,
    metrics,
};
use burn::{
    module::Module,
    optim::{OptimizerRecord, lr_scheduler::LrSchedulerRecord},
    store::ModuleRecord,
};
use residual_model::Network;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
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
/// | `checkpoint/` | the two newest checkpoints |
/// | `train/`, `valid/` | Burn's metric logs |
///
/// Files appear by rename, so each is whole or missing.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// How far a training has come.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epochs finished.
    pub(crate) epoch: usize,
    /// Batches of the next epoch that are done.
    pub(crate) batch: usize,
    /// Optimizer steps taken.
    pub(crate) iteration: usize,
    /// What those batches measured.
    pub(crate) running: Sums,
    /// The time they took.
    pub(crate) seconds: f64,
}

impl Progress {
    pub(crate) fn next_epoch(&mut self) {
        *self = Self { epoch: self.epoch + 1, iteration: self.iteration, ..Self::default() };
    }
}

/// A checkpoint that a training can go on from.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(crate) progress: Progress,
    pub(crate) rows: Vec<Row>,
}

impl Checkpoint {
    /// Epochs finished.
    pub fn epoch(&self) -> usize {
        self.progress.epoch
    }

    /// Optimizer steps taken.
    pub fn iteration(&self) -> usize {
        self.progress.iteration
    }
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
const RECORDS: [&str; 3] = ["model", "optim", "scheduler"];

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
        let run = Self { path: path.into() };
        run.make_room(force)?;
        files::create_dir(path)?;
        files::write_json(&run.file(CONFIG), config)?;
        files::write_json(&run.file(ENVIRONMENT), environment)?;
        Ok(run)
    }

    fn make_room(&self, force: bool) -> Result<(), TrainError> {
        let io = |source| TrainError::Io { action: "read", path: self.path.clone(), source };
        if !self.path.exists() || fs::read_dir(&self.path).map_err(io)?.next().is_none() {
            return Ok(());
        }
        if !self.is_training() {
            return Err(TrainError::bad_file(&self.path, "is not empty and holds no training; choose another folder"));
        }
        if !force {
            let reason = match self.summary().map(|s| s.status) {
                Ok(Status::Finished | Status::StoppedEarly) => {
                    "holds a finished training; choose another folder, or replace it with --force"
                }
                _ => "holds an unfinished training; go on with --resume, or replace it with --force",
            };
            return Err(TrainError::bad_file(&self.path, reason));
        }
        let names = [SUMMARY, MODEL, METRICS, CHECKPOINT, "train", "valid", ENVIRONMENT, CONFIG];
        names.iter().try_for_each(|name| files::remove(&self.file(name)))
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
        let run = Self { path: path.into() };
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

    /// Whether the training came to its end.
    pub fn is_finished(&self) -> bool {
        let status = self.summary().map(|summary| summary.status);
        matches!(status, Ok(Status::Finished | Status::StoppedEarly))
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
            false => Err(TrainError::bad_file(&self.path, format!("holds no finished training: {MODEL} is missing"))),
        }
    }

    /// The network with its final weights, in inference mode.
    ///
    /// # Errors
    /// If the weights are missing, damaged or another network's.
    pub fn network(&self, device: &Device) -> Result<Network, TrainError> {
        load(self.config()?.init(&device.clone().inner()), &self.file(MODEL))
    }

    /// The newest checkpoint, whole and of this network, or `None` if there is none yet.
    ///
    /// # Errors
    /// If it is damaged or another network's: the error names the file.
    pub fn latest(&self, device: &Device) -> Result<Option<Checkpoint>, TrainError> {
        let Some(&iteration) = self.checkpoints().first() else { return Ok(None) };
        let [model, optim, scheduler] = RECORDS.map(|name| self.record(name, iteration));
        let config = self.config()?;
        let network = config.init(&device.clone().autodiff());
        load(Classifier { network, seed: config.seed }, &model)?;
        OptimizerRecord::load(&optim).map_err(|e| unusable(&optim, &e))?;
        LrSchedulerRecord::load(&scheduler).map_err(|e| unusable(&scheduler, &e))?;
        let progress: Progress = files::read_json(&self.progress(iteration))?;
        let mut rows = self.metrics()?;
        rows.retain(|row| row.epoch <= progress.epoch);
        Ok(Some(Checkpoint { progress, rows }))
    }

    /// The iterations of which there is a whole checkpoint, newest first.
    pub(crate) fn checkpoints(&self) -> Vec<usize> {
        let entries = fs::read_dir(self.file(CHECKPOINT)).into_iter().flatten().flatten();
        let iteration = |name: &str| name.strip_prefix("progress-")?.strip_suffix(".json")?.parse().ok();
        let mut found: Vec<usize> = entries.filter_map(|e| iteration(e.file_name().to_str()?)).collect();
        found.retain(|&i| RECORDS.iter().all(|name| self.record(name, i).is_file()));
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
    }

    pub(crate) fn write_progress(&self, progress: &Progress) -> Result<(), TrainError> {
        files::create_dir(&self.file(CHECKPOINT))?;
        files::write_json(&self.progress(progress.iteration), progress)
    }

    pub(crate) fn forget_progress(&self, iteration: usize) {
        let _ = fs::remove_file(self.progress(iteration));
    }

    pub(crate) fn write_metrics(&self, rows: &[Row]) -> Result<(), TrainError> {
        metrics::write(&self.file(METRICS), rows)
    }

    /// Writes the final weights and the summary.
    pub(crate) fn finish(
        &self,
        outcome: &Outcome,
        parameters: u64,
        error: Option<&TrainError>,
    ) -> Result<(), TrainError> {
        self.write_metrics(&outcome.rows)?;
        if outcome.status != Status::Failed {
            let path = self.file(MODEL);
            let record = outcome.network.clone().into_record();
            record.save(&path).map_err(|e| TrainError::bad_file(&path, format!("cannot be written: {e}")))?;
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

    fn record(&self, name: &str, iteration: usize) -> PathBuf {
        self.file(CHECKPOINT).join(format!("{name}-{iteration}.bpk"))
    }

    fn progress(&self, iteration: usize) -> PathBuf {
        self.file(CHECKPOINT).join(format!("progress-{iteration}.json"))
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
