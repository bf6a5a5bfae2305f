//! The folder of a sweep.
//!
//! - `sweep.json`: the settings and the backend, which identify the sweep
//! - `environment.json`: the machine and the backend
//! - `runs/NAME.json`: a finished training; `runs/NAME/`: its run directory, if its network is kept
//! - `results.json`, `curves.csv`: the results, once all trainings have finished
//! - `inspect/FAMILY/MEASUREMENT.json`: measurements inside networks

use super::{RunResult, RunSpec, SweepConfig, SweepResults};
use crate::{LabError, LossCurve};
use residual_model::{BlockKind, Family};
use residual_train::{Environment, RunDir, TrainConfig, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The data, tables and figures that a sweep removes when it replaces another one.
const REPLACED: [&str; 10] = [
    "runs",
    "inspect",
    "results.json",
    "results.csv",
    "curves.csv",
    "table.md",
    "depth.svg",
    "depth.png",
    "curves.svg",
    "index.html",
];

/// `sweep.json`
#[derive(PartialEq, Serialize, Deserialize)]
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

/// Claims a folder for a sweep by writing `sweep.json`. Fails if the folder holds other files or another sweep; with
/// `force`, it removes the results of another sweep instead.
pub(super) fn claim(
    folder: &Path,
    config: &SweepConfig,
    environment: &Environment,
    force: bool,
) -> Result<(), LabError> {
    let path = folder.join("sweep.json");
    let header = Header { backend: environment.backend.clone(), config: config.clone() };
    if path.exists() {
        let same = files::read_json(&path).is_ok_and(|old: Header| old == header);
        if !same && !force {
            return Err(LabError::Occupied { path: folder.into() });
        }
        if !same {
            REPLACED.iter().try_for_each(|name| files::remove(&folder.join(name)))?;
        }
    } else if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let reason = "is not empty and holds no sweep; choose another directory";
        return Err(LabError::Folder { path: folder.into(), reason: reason.into() });
    }
    files::create_dir(&folder.join("runs"))?;
    files::write_json(&folder.join("environment.json"), environment)?;
    Ok(files::write_json(&path, &header)?)
}

/// The run directory of a training whose network is kept.
pub(super) fn run_dir(folder: &Path, spec: RunSpec) -> PathBuf {
    folder.join("runs").join(spec.to_string())
}

fn run_file(folder: &Path, spec: RunSpec) -> PathBuf {
    folder.join("runs").join(format!("{spec}.json"))
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
    (stored.config == to_json(config) && stored.backend == backend).then_some(stored.result)
}

fn to_json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// `inspect/FAMILY`
pub(super) fn inspect_dir(folder: &Path, family: Family) -> PathBuf {
    folder.join("inspect").join(family.to_string())
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
