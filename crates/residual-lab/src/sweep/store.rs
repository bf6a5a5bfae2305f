//! The folder of a sweep.
//!
//! - `sweep.json`: the settings, and the names of all trainings planned so far
//! - `.lock`: a lock file, locked by the process that writes into the folder
//! - `runs/NAME/`: the run directory of a training
//! - `results.json`, `curves.csv`: the results
//! - `inspect/FAMILY/MEASUREMENT.json`: measurements inside networks
//!
//! A training is recognised by its configuration, not by its name. So a sweep can grow: it keeps every finished training
//! that it still needs.

use super::{
    RunResult, RunSpec, Setting, SweepConfig, SweepFamily, SweepResults, Tuned, explain,
    results::{Places, Recorded},
    series::LossCurve,
};
use crate::{LabError, Measurement};
use residual_data::shown;
use residual_model::BlockKind;
use residual_train::{
    Environment, RunDir, TrainConfig, TrainError,
    files::{self, Lock},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

const SWEEP: &str = "sweep.json";
const RUNS: &str = "runs";
const INSPECT: &str = "inspect";

/// The data, tables and figures in the folder itself.
const DRAWN: [&str; 8] =
    ["results.json", "results.csv", "curves.csv", "table.md", "depth.svg", "depth.png", "curves.svg", "index.html"];

/// `sweep.json`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: SweepConfig,
    #[serde(default)]
    command: String,
    /// The names of all trainings planned so far.
    trainings: Vec<String>,
}

/// A row of `curves.csv`.
#[derive(Serialize, Deserialize)]
struct CurveRow {
    family: SweepFamily,
    kind: BlockKind,
    depth: usize,
    alpha: f64,
    #[serde(default)]
    optimizer: Option<residual_train::OptimizerKind>,
    #[serde(default)]
    lr: Option<f64>,
    #[serde(default)]
    batch_size: Option<usize>,
    #[serde(default)]
    norm: Option<residual_model::Norm>,
    iteration: usize,
    loss: f64,
}

/// The machine of this process.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) environment: &'a Environment,
    /// Whether trainings that were interrupted elsewhere may go on with other rounding.
    pub(super) mixed: bool,
}

/// A sweep's folder.
pub(super) struct Store {
    folder: PathBuf,
    /// The lock by which this process alone may write into the folder itself. Without it, other processes may run trainings
    /// of the same sweep.
    lock: Option<Lock>,
    known: Known,
    /// The names of all trainings planned so far. Their positions are the numbers of tasks.
    trainings: Vec<String>,
    command: String,
}

/// The run directories in a sweep's folder, by their configurations.
#[derive(Default)]
struct Known {
    /// Those of trainings that a sweep planned.
    own: BTreeMap<String, PathBuf>,
    /// Others that are finished. Nothing is written into them.
    others: BTreeMap<String, PathBuf>,
}

impl Known {
    fn of(folder: &Path, trainings: &[String]) -> Self {
        let trainings: BTreeSet<&str> = trainings.iter().map(String::as_str).collect();
        let mut known = Self::default();
        let entries = fs::read_dir(folder.join(RUNS)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(run) = RunDir::open(&path) else { continue };
            let Ok(config) = run.config() else { continue };
            let is_own = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| trainings.contains(name));
            if is_own {
                known.own.entry(text_of(&config)).or_insert(path);
            } else if run.is_finished() {
                known.others.entry(text_of(&config)).or_insert(path);
            }
        }
        known
    }

    fn get(&self, config: &TrainConfig) -> Option<&PathBuf> {
        if self.own.is_empty() && self.others.is_empty() {
            return None;
        }
        let text = text_of(config);
        self.own.get(&text).or_else(|| self.others.get(&text))
    }
}

impl Store {
    /// Claims a folder for a sweep: locks it and writes `sweep.json`. With `force`, the files of another sweep are removed;
    /// `announce` is called with them first.
    ///
    /// # Errors
    /// If the folder holds other files, a sweep whose trainings have other settings under the same names, or something
    /// that no sweep wrote under the name of one of its files, or if another process uses it.
    pub(super) fn claim(
        folder: &Path,
        config: &SweepConfig,
        command: &str,
        here: Here<'_>,
        force: bool,
        announce: &dyn Fn(&[PathBuf]),
    ) -> Result<Self, LabError> {
        let candidates = config.candidates();
        // No lock file is left in a folder that is not used.
        conflict(folder, config, &candidates, here, force)?;
        files::create_dir(folder)?;
        let lock = files::lock_directory(folder)?;
        let (mut trainings, recorded) = match conflict(folder, config, &candidates, here, force)? {
            Some(other) => {
                remove(folder, &other, announce)?;
                (Vec::new(), String::new())
            }
            None => header(folder)?.map(|header| (header.trainings, header.command)).unwrap_or_default(),
        };
        let command = if command.is_empty() { recorded } else { command.into() };
        let known: BTreeSet<String> = trainings.iter().cloned().collect();
        trainings.extend(candidates.iter().map(RunSpec::to_string).filter(|name| !known.contains(name)));
        let known = Known::of(folder, &trainings);
        // This file is written first, because a folder that contains it counts as a sweep.
        let header = Header { config: config.clone(), command, trainings };
        files::write_json(&folder.join(SWEEP), &header)?;
        files::create_dir(&folder.join(RUNS))?;
        let folders = config.families.iter().map(|family| inspect_dir(folder, family.family));
        folders.chain([folder.into()]).for_each(|folder| files::remove_unfinished(&folder));
        let Header { command, trainings, .. } = header;
        Ok(Self { folder: folder.into(), lock: Some(lock), known, trainings, command })
    }

    /// Opens the folder of a sweep without locking it.
    ///
    /// # Errors
    /// If it holds no sweep, or one with other settings.
    pub(super) fn shared(folder: &Path, config: &SweepConfig) -> Result<Self, LabError> {
        let Some(Header { config: recorded, command, trainings }) = header(folder)? else {
            let reason = "holds no sweep; plan it first".into();
            return Err(LabError::Folder { path: folder.into(), reason });
        };
        if recorded != *config {
            let difference = differences("", &to_json(&recorded), &to_json(config)).join(", ");
            return Err(LabError::Occupied { path: folder.into(), difference });
        }
        let known = Known::of(folder, &trainings);
        Ok(Self { folder: folder.into(), lock: None, known, trainings, command })
    }

    /// The training with this number.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn spec(&self, config: &SweepConfig, task: usize) -> Result<RunSpec, LabError> {
        let name = self.trainings.get(task);
        let found = name.and_then(|name| config.candidates().into_iter().find(|spec| spec.to_string() == *name));
        found.ok_or_else(|| {
            let folder = self.folder.display();
            LabError::Setting(format!("the sweep in {folder} has no task {task}; --plan lists its tasks"))
        })
    }

    /// The number of a training.
    pub(super) fn task(&self, name: &str) -> Option<usize> {
        self.trainings.iter().position(|training| training == name)
    }

    /// The command that runs the sweep.
    pub(super) fn command(&self) -> &str {
        &self.command
    }

    /// Fails if what is there of these trainings cannot be used.
    pub(super) fn check_settings(
        &self,
        config: &SweepConfig,
        specs: &[RunSpec],
        here: Here<'_>,
    ) -> Result<(), LabError> {
        match other_settings(&self.folder, config, &self.trainings, specs, here)? {
            Some(difference) => Err(LabError::Occupied { path: self.folder.clone(), difference }),
            None => Ok(()),
        }
    }

    /// Fails if the folder was removed or renamed, so that nothing may be written into it.
    pub(super) fn check_in_place(&self) -> Result<(), LabError> {
        match &self.lock {
            Some(lock) => Ok(files::check_in_place(lock, &self.folder)?),
            None if self.folder.join(SWEEP).is_file() => Ok(()),
            None => Err(LabError::Folder { path: self.folder.clone(), reason: "holds no sweep any more".into() }),
        }
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run directory of a training, which may not exist yet.
    pub(super) fn run_dir(&self, spec: RunSpec, config: &TrainConfig) -> PathBuf {
        self.known.get(config).cloned().unwrap_or_else(|| run_dir(&self.folder, spec))
    }

    /// The run directory of a training into which the sweep may write.
    pub(super) fn own_dir(&self, spec: RunSpec, config: &TrainConfig) -> PathBuf {
        self.known.own.get(&text_of(config)).cloned().unwrap_or_else(|| run_dir(&self.folder, spec))
    }

    /// Whether the sweep may write into a run directory.
    pub(super) fn is_own(&self, path: &Path) -> bool {
        !self.known.others.values().any(|other| other == path)
    }
}

impl SweepConfig {
    /// All trainings that the sweep may have, for every learning rate that may be chosen.
    fn candidates(&self) -> Vec<RunSpec> {
        let seeds = self.first_seed..self.first_seed + self.seeds;
        match self.grid() {
            grid if grid.is_empty() => self.plan(&[]),
            grid => grid.iter().flat_map(|&spec| seeds.clone().map(move |seed| RunSpec { seed, ..spec })).collect(),
        }
    }
}

/// The other sweep in a folder that is to be replaced. `None` if there is none, or if this sweep can use what is there.
fn conflict(
    folder: &Path,
    config: &SweepConfig,
    candidates: &[RunSpec],
    here: Here<'_>,
    force: bool,
) -> Result<Option<Header>, LabError> {
    let wrong = |reason: String| {
        Err(LabError::Folder { path: folder.into(), reason: format!("{reason}; choose another directory") })
    };
    let Some(header) = header(folder)? else {
        return match foreign(folder)? {
            Some(name) => wrong(format!("is not empty and holds no sweep, but {}", shown(&name))),
            None => Ok(None),
        };
    };
    match other_settings(folder, config, &header.trainings, candidates, here)? {
        None => Ok(None),
        Some(_) if force => match header.config.validate() {
            Ok(()) => Ok(Some(header)),
            Err(error) => wrong(format!("holds a {SWEEP} with wrong settings ({})", shown(&error.to_string()))),
        },
        Some(difference) => Err(LabError::Occupied { path: folder.into(), difference }),
    }
}

/// Reads `sweep.json`, if there is one.
fn header(folder: &Path) -> Result<Option<Header>, LabError> {
    let path = folder.join(SWEEP);
    if !path.exists() {
        return Ok(None);
    }
    // Only the files of settings that are understood are known, so no others are replaced.
    let refused = |error: &dyn std::fmt::Display| LabError::Folder {
        path: folder.into(),
        reason: format!(
            "holds a {SWEEP} that no sweep of this version wrote ({}); choose another directory",
            shown(&error.to_string())
        ),
    };
    let header: Header = match files::read_json(&path) {
        Err(error @ TrainError::BadFile { .. }) => return Err(refused(&error)),
        header => header?,
    };
    header.config.check_plan().map_err(|error| refused(&error))?;
    Ok(Some(header))
}

/// What makes a training in the folder unusable for this sweep, although it has the name of one of its trainings.
fn other_settings(
    folder: &Path,
    config: &SweepConfig,
    trainings: &[String],
    candidates: &[RunSpec],
    here: Here<'_>,
) -> Result<Option<String>, LabError> {
    let known = Known::of(folder, trainings);
    for &spec in candidates {
        let own = config.training(spec)?;
        let path = known.get(&own).cloned().unwrap_or_else(|| run_dir(folder, spec));
        let Ok(run) = RunDir::open(&path) else { continue };
        if let Ok(began) = run.environment() {
            let Here { environment, mixed } = here;
            if began.backend != environment.backend {
                return Ok(Some(format!("{spec} ran on {}, not on {}", shown(&began.backend), environment.backend)));
            }
            if let (Some(theirs), Some(ours)) = (began.arithmetic(), environment.arithmetic())
                && theirs != ours
                && !mixed
                && run.is_interrupted()
            {
                let theirs = shown(&theirs);
                return Ok(Some(format!(
                    "{spec} was interrupted with {theirs}, and would go on with {ours} and other rounding, which \
                     --mixed-processors allows"
                )));
            }
            let (theirs, ours) = (began.kernels, environment.kernels);
            if theirs != ours && run.is_interrupted() {
                let text = format!("{spec} was interrupted with {theirs} kernels, and would go on with {ours} ones");
                return Ok(Some(text));
            }
        }
        let theirs = match run.config() {
            Ok(theirs) => theirs,
            Err(error) => return Ok(Some(shown(&error.to_string()))),
        };
        if text_of(&theirs) != text_of(&own) {
            let differences = differences("", &to_json(&theirs), &to_json(&own));
            return Ok(Some(format!("{spec} has {}", differences.join(", "))));
        }
    }
    Ok(None)
}

/// The settings in which two configurations differ: `epochs 7, not 20`.
pub(super) fn differences(name: &str, theirs: &Value, own: &Value) -> Vec<String> {
    match (theirs, own) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort();
            names.dedup();
            let full = |key: &str| if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
            let of = |key: &String| {
                differences(&full(key), a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
            };
            names.into_iter().flat_map(of).collect()
        }
        _ if theirs == own => Vec::new(),
        _ => vec![format!("{name} {}, not {}", shown(&theirs.to_string()), shown(&own.to_string()))],
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
            || (path.ends_with(RUNS) && path.read_dir().is_ok_and(|mut entries| entries.next().is_none()))
    };
    let mut paths = entries.flatten().map(|entry| entry.path());
    let other = paths.find(|path| !is_left(path));
    Ok(other.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()))
}

/// Removes the files that a sweep wrote, except for `sweep.json`, which the next one replaces, and then the directories
/// that are empty.
fn remove(folder: &Path, header: &Header, announce: &dyn Fn(&[PathBuf])) -> Result<(), LabError> {
    let mut paths: Vec<PathBuf> = DRAWN.iter().map(|name| folder.join(name)).collect();
    let (runs, inspect) = (folder.join(RUNS), folder.join(INSPECT));
    let trainings = if files::is_written_dir(&runs)? { &header.trainings[..] } else { &[] };
    let mut run_dirs = Vec::new();
    for name in trainings {
        let path = runs.join(name);
        // A name is a file name, whatever the file says.
        if Path::new(name).file_name().is_some_and(|file| file == name.as_str()) && files::is_written_dir(&path)? {
            // No other process may train in it.
            run_dirs.push(RunDir::lock(&path)?);
            paths.extend(RunDir::files(&path)?);
        }
    }
    let mut inspect_dirs = Vec::new();
    if files::is_written_dir(&inspect)? {
        inspect_dirs.extend(SweepFamily::ALL.iter().map(|&family| inspect_dir(folder, family)));
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

fn run_dir(folder: &Path, spec: RunSpec) -> PathBuf {
    folder.join(RUNS).join(spec.to_string())
}

/// JSON as text, in which numbers are compared by their bits.
fn text_of<T: Serialize>(value: &T) -> String {
    to_json(value).to_string()
}

fn to_json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// `inspect/FAMILY`
pub(super) fn inspect_dir(folder: &Path, family: SweepFamily) -> PathBuf {
    folder.join(INSPECT).join(family.to_string())
}

impl SweepConfig {
    /// Reads the settings of a sweep from its `sweep.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let value: Value = files::read_json(path)?;
        if value.get("version").is_some() && value.get("network").is_some() {
            let text = format!(
                "{} is the configuration of one training; a sweep reads the {SWEEP} of a sweep, or takes settings as flags",
                path.display()
            );
            return Err(LabError::Setting(text));
        }
        Ok(files::read_json::<Header>(path)?.config)
    }
}

impl SweepResults {
    /// Writes `results.json` and `curves.csv` into a sweep's folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        let rows = self.curves.iter().flat_map(|curve| {
            let &LossCurve { family, kind, depth, alpha, setting, .. } = curve;
            let Setting { optimizer, lr, batch_size, norm } = setting;
            curve.points.iter().map(move |&(iteration, loss)| CurveRow {
                family,
                kind,
                depth,
                alpha,
                optimizer,
                lr,
                batch_size,
                norm,
                iteration,
                loss,
            })
        });
        files::write_csv(&folder.join("curves.csv"), rows)?;
        Ok(files::write_json(&folder.join("results.json"), self)?)
    }

    /// Reads the results of a sweep from its folder, as [`Self::write`] wrote them. If there are none of the settings in
    /// `sweep.json`, because the sweep is not finished, they are computed from its finished trainings.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(folder: &Path) -> Result<Self, LabError> {
        let path = folder.join("results.json");
        if !path.exists() {
            return Self::interim(folder);
        }
        let mut results: Self = files::read_json(&path)?;
        // The sweep has more trainings than these, or has grown since.
        let has_grown = |header: Option<Header>| header.is_some_and(|header| header.config != results.config);
        if folder.join(RUNS).is_dir() && (!results.is_finished() || header(folder).is_ok_and(has_grown)) {
            return Self::interim(folder);
        }
        let path = folder.join("curves.csv");
        if !path.exists() {
            return Ok(results);
        }
        for row in files::read_csv(&path)? {
            let CurveRow { family, kind, depth, alpha, optimizer, lr, batch_size, norm, iteration, loss } = row;
            let setting = Setting { optimizer, lr, batch_size, norm };
            let next = LossCurve { family, kind, depth, alpha, setting, points: vec![(iteration, loss)] };
            match results.curves.last_mut() {
                Some(curve) if (curve.line(), curve.depth) == (next.line(), depth) => curve.points.extend(next.points),
                _ => results.curves.push(next),
            }
        }
        Ok(results)
    }

    /// The run directories of each family's networks to measure, of the first seed and setting: the plain and residual nets
    /// of the least and the greatest depth, and of the greatest depth at which the training errors of both are equal
    /// ([`is_equal_error`](crate::is_equal_error)); if there is none, of the depth at which they differ least. Networks
    /// without weights are left out.
    ///
    /// # Errors
    /// If the folder does not hold a sweep, or a file cannot be read.
    pub fn networks(folder: &Path) -> Result<Vec<(SweepFamily, Vec<PathBuf>)>, LabError> {
        let Self { config, tuned, runs: results, .. } = Self::read(folder)?;
        let known = Known::of(folder, &header(folder)?.map(|header| header.trainings).unwrap_or_default());
        let run = |spec: RunSpec| -> Result<Option<PathBuf>, LabError> {
            let path = known.get(&config.training(spec)?);
            Ok(path.filter(|path| RunDir::open(path).is_ok_and(|run| run.model().is_ok())).cloned())
        };
        let of = |family: SweepFamily| {
            let mut specs = config.explained(family, &tuned);
            let depths = explain::depths(&specs, &results);
            specs.retain(|spec| depths.contains(&spec.depth));
            Ok((family, specs.into_iter().filter_map(|spec| run(spec).transpose()).collect::<Result<_, LabError>>()?))
        };
        config.families.iter().map(|settings| of(settings.family)).collect()
    }

    /// The results of the trainings in a folder that have finished so far.
    fn interim(folder: &Path) -> Result<Self, LabError> {
        let Some(Header { config, command, trainings }) = header(folder)? else {
            let reason = "holds no sweep".into();
            return Err(LabError::Folder { path: folder.into(), reason });
        };
        let known = Known::of(folder, &trainings);
        let mut directories = Vec::new();
        let mut finished = |specs: Vec<RunSpec>| -> Result<Vec<RunResult>, LabError> {
            let mut results = Vec::new();
            for spec in specs {
                let Some(run) = known.get(&config.training(spec)?) else { continue };
                let run = RunDir::open(run)?;
                if let Some(result) = RunResult::of_run(spec, &run)? {
                    results.push(result);
                    directories.push(run);
                }
            }
            Ok(results)
        };
        let specs = config.grid();
        let grid = finished(specs.clone())?;
        let tuned = if grid.len() == specs.len() { Tuned::all(&config, &grid) } else { Vec::new() };
        let plan = config.plan(&tuned);
        // While learning rates are being chosen, the trainings for that are all there is.
        let (planned, runs) = if config.is_tuned() && tuned.is_empty() {
            (config.trainings(), grid.clone())
        } else {
            (plan.len(), finished(plan)?)
        };
        let places = Places::of(&directories);
        Ok(Recorded { config, command, places, planned, tuned, runs, grid }.into())
    }
}
