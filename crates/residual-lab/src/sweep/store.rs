//! The folder of a sweep.
//!
//! - `sweep.json`: the settings and the backend, which identify the sweep
//! - `.lock`: a lock file, locked by the process that writes into the folder
//! - `environment.json`: the machine and the backend
//! - `runs/NAME.json`: a finished training; `runs/NAME/`: its run directory, if its network is kept
//! - `results.json`, `curves.csv`: the results, once all trainings have finished
//! - `inspect/FAMILY/MEASUREMENT.json`: measurements inside networks

use super::{RunResult, RunSpec, SweepConfig, SweepResults};
use crate::{LabError, LossCurve, Measurement};
use residual_data::shown;
use residual_model::{BlockKind, Family};
use residual_train::{
    Environment, RunDir, TrainConfig, TrainError,
    files::{self, Lock},
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const SWEEP: &str = "sweep.json";
const ENVIRONMENT: &str = "environment.json";
const RUNS: &str = "runs";
const INSPECT: &str = "inspect";

/// The data, tables and figures in the folder itself.
const DRAWN: [&str; 8] =
    ["results.json", "results.csv", "curves.csv", "table.md", "depth.svg", "depth.png", "curves.svg", "index.html"];

/// `sweep.json`
#[derive(Serialize, Deserialize)]
struct Header {
    backend: String,
    #[serde(flatten)]
    config: SweepConfig,
}

/// `runs/NAME.json`
#[derive(Serialize, Deserialize)]
struct StoredRun {
    backend: String,
    config: serde_json::Value,
    result: RunResult,
}

/// A row of `curves.csv`.
#[derive(Serialize, Deserialize)]
struct CurveRow {
    family: Family,
    kind: BlockKind,
    depth: usize,
    alpha: f64,
    iteration: usize,
    loss: f64,
}

/// Claims a folder for a sweep: locks it and writes `sweep.json`. With `force`, the files of another sweep are removed;
/// `announce` is called with them first.
///
/// # Errors
/// If the folder holds other files, another sweep that is not to be replaced, or something that no sweep wrote under
/// the name of one of its files, or if another process uses it.
pub(super) fn claim(
    folder: &Path,
    config: &SweepConfig,
    environment: &Environment,
    force: bool,
    announce: &dyn Fn(&[PathBuf]),
) -> Result<Lock, LabError> {
    let header = Header { backend: environment.backend.clone(), config: config.clone() };
    // No lock file is left in a folder that holds no sweep.
    other_sweep(folder, &header, force)?;
    files::create_dir(folder)?;
    let lock = files::lock_directory(folder)?;
    if let Some(other) = other_sweep(folder, &header, force)? {
        remove(folder, &other.config, announce)?;
    }
    // This file is written first, because a folder that contains it counts as a sweep.
    files::write_json(&folder.join(SWEEP), &header)?;
    files::create_dir(&folder.join(RUNS))?;
    files::write_json(&folder.join(ENVIRONMENT), environment)?;
    let folders = config.families.iter().map(|&family| inspect_dir(folder, family));
    folders.chain([folder.into(), folder.join(RUNS)]).for_each(|folder| files::remove_unfinished(&folder));
    Ok(lock)
}

/// The settings of another sweep in a folder, which is to be replaced.
fn other_sweep(folder: &Path, header: &Header, force: bool) -> Result<Option<Header>, LabError> {
    let wrong = |reason: String| {
        Err(LabError::Folder { path: folder.into(), reason: format!("{reason}; choose another directory") })
    };
    let path = folder.join(SWEEP);
    if !path.exists() {
        return match foreign(folder)? {
            Some(name) => wrong(format!("is not empty and holds no sweep, but {}", shown(&name))),
            None => Ok(None),
        };
    }
    let text = files::read(&path)?;
    // Only the files of settings that are understood are known, so no others are replaced.
    let other = match serde_json::from_slice::<Header>(&text) {
        Ok(other) => other,
        Err(error) => {
            return wrong(format!(
                "holds a {SWEEP} that no sweep of this version wrote ({})",
                shown(&error.to_string())
            ));
        }
    };
    if text_of(&other) == text_of(header) {
        return Ok(None);
    }
    if !force {
        return Err(LabError::Occupied { path: folder.into() });
    }
    match other.config.validate() {
        Ok(()) => Ok(Some(other)),
        Err(error) => wrong(format!("holds a {SWEEP} with wrong settings ({})", shown(&error.to_string()))),
    }
}

/// The name of something in a folder without `sweep.json`, other than what is left if a sweep is killed at its start.
fn foreign(folder: &Path) -> Result<Option<String>, LabError> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(TrainError::Io { action: "read", path: folder.into(), source }.into()),
    };
    let is_left = |path: &Path| {
        files::is_lock(path)
            || files::is_unfinished(path)
            || (path.ends_with(ENVIRONMENT) && files::read_json::<Environment>(path).is_ok())
            || (path.ends_with(RUNS) && path.read_dir().is_ok_and(|mut entries| entries.next().is_none()))
    };
    let mut paths = entries.flatten().map(|entry| entry.path());
    let other = paths.find(|path| !is_left(path));
    Ok(other.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()))
}

/// Removes the files that a sweep with these settings writes, except for the two that the next one replaces, and then
/// the directories that are empty.
fn remove(folder: &Path, config: &SweepConfig, announce: &dyn Fn(&[PathBuf])) -> Result<(), LabError> {
    let mut paths: Vec<PathBuf> = DRAWN.iter().map(|name| folder.join(name)).collect();
    let (runs, inspect) = (folder.join(RUNS), folder.join(INSPECT));
    let plan = if files::is_written_dir(&runs)? { config.plan() } else { Vec::new() };
    paths.extend(plan.iter().map(|&spec| run_file(folder, spec)));
    let mut run_dirs = Vec::new();
    for &spec in &plan {
        let path = run_dir(folder, spec);
        if files::is_written_dir(&path)? {
            // No other process may train in it.
            run_dirs.push(RunDir::lock(&path)?);
            paths.extend(RunDir::files(&path)?);
        }
    }
    let mut inspect_dirs = Vec::new();
    if files::is_written_dir(&inspect)? {
        inspect_dirs.extend(config.families.iter().map(|&family| inspect_dir(folder, family)));
    }
    let mut locks = Vec::new();
    for path in &inspect_dirs {
        if files::is_written_dir(path)? {
            // No other process may measure into it.
            locks.push(files::lock_directory(path)?);
            let drawn = Measurement::ALL.iter().flat_map(|m| ["json", "csv", "svg"].map(|end| format!("{m}.{end}")));
            paths.extend(drawn.chain(["findings.md".into()]).map(|name| path.join(name)));
        }
    }
    let found = files::written(paths)?;
    announce(&found);
    run_dirs.into_iter().try_for_each(RunDir::remove)?;
    files::remove(&found)?;
    locks.into_iter().for_each(files::Lock::remove);
    for path in inspect_dirs.iter().chain([&inspect]) {
        let _ = fs::remove_dir(path);
    }
    Ok(())
}

/// The run directory of a training whose network is kept.
pub(super) fn run_dir(folder: &Path, spec: RunSpec) -> PathBuf {
    folder.join(RUNS).join(spec.to_string())
}

fn run_file(folder: &Path, spec: RunSpec) -> PathBuf {
    folder.join(RUNS).join(format!("{spec}.json"))
}

/// Whether the folder holds a result of a training. Its configuration may differ.
pub(super) fn has_run(folder: &Path, spec: RunSpec) -> bool {
    run_file(folder, spec).exists()
}

/// Whether the run directory of a training holds its network.
pub(super) fn has_network(folder: &Path, spec: RunSpec) -> bool {
    RunDir::open(&run_dir(folder, spec)).is_ok_and(|run| run.model().is_ok())
}

/// Writes the result of a training.
pub(super) fn write_run(
    folder: &Path,
    backend: &str,
    config: &TrainConfig,
    result: &RunResult,
) -> Result<(), LabError> {
    let stored = StoredRun { backend: backend.into(), config: to_json(config), result: result.clone() };
    Ok(files::write_json(&run_file(folder, result.spec), &stored)?)
}

/// Reads the result of a training with this configuration on this backend. Returns `None` if there is none, or if its
/// file is damaged, for example by a power failure; the training is then repeated.
pub(super) fn read_run(folder: &Path, backend: &str, config: &TrainConfig, spec: RunSpec) -> Option<RunResult> {
    let stored: StoredRun = files::read_json(&run_file(folder, spec)).ok()?;
    let same = text_of(&stored.config) == text_of(config);
    (same && stored.backend == backend).then_some(stored.result)
}

/// JSON as text, in which numbers are compared by their bits.
fn text_of<T: Serialize>(value: &T) -> String {
    to_json(value).to_string()
}

fn to_json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// `inspect/FAMILY`
pub(super) fn inspect_dir(folder: &Path, family: Family) -> PathBuf {
    folder.join(INSPECT).join(family.to_string())
}

impl SweepResults {
    /// Writes `results.json` and `curves.csv` into a sweep's folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        let rows = self.curves.iter().flat_map(|curve| {
            let &LossCurve { family, kind, depth, alpha, .. } = curve;
            curve.points.iter().map(move |&(iteration, loss)| CurveRow { family, kind, depth, alpha, iteration, loss })
        });
        files::write_csv(&folder.join("curves.csv"), rows)?;
        Ok(files::write_json(&folder.join("results.json"), self)?)
    }

    /// Reads the results of a finished sweep from its folder.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(folder: &Path) -> Result<Self, LabError> {
        let mut results: Self = files::read_json(&folder.join("results.json"))?;
        let path = folder.join("curves.csv");
        if !path.exists() {
            return Ok(results);
        }
        for row in files::read_csv(&path)? {
            let CurveRow { family, kind, depth, alpha, iteration, loss } = row;
            let spec = |c: &LossCurve| (c.family, c.kind, c.depth, c.alpha);
            match results.curves.last_mut() {
                Some(curve) if spec(curve) == (family, kind, depth, alpha) => curve.points.push((iteration, loss)),
                _ => results.curves.push(LossCurve { family, kind, depth, alpha, points: vec![(iteration, loss)] }),
            }
        }
        Ok(results)
    }
}
