use super::{
    LossCurve, RunResult, Series, SweepConfig, Tuned, Verdict,
    plan::MOST_TRAININGS,
    series::{loss_curves, series},
};
use residual_train::{Environment, RunDir};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::collections::BTreeSet;

/// The results of a sweep, stored in `results.json`, with the loss curves in `curves.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepResults {
    /// The settings.
    pub config: SweepConfig,
    /// The command that runs the same sweep.
    pub command: String,
    /// The machines and versions on which the trainings ran.
    pub environments: Vec<Environment>,
    /// The number of machines, told apart by their host names.
    pub machines: usize,
    /// The number of trainings in the plan; more than in [`Self::runs`] if the sweep is not finished.
    pub planned: usize,
    /// The learning rates chosen for each family and optimizer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tuned: Vec<Tuned>,
    /// One verdict per family and setting; none if the sweep is not finished.
    pub verdicts: Vec<Verdict>,
    /// The rule for the verdicts: [`Verdict::RULE`].
    pub rule: &'static str,
    /// Errors by depth, one series per line of the figure.
    pub series: Vec<Series>,
    /// Every finished training of the plan, in its order.
    #[serde(serialize_with = "without_curves")]
    pub runs: Vec<RunResult>,
    /// The trainings by which learning rates were chosen. Those with a chosen rate are also in [`Self::runs`].
    #[serde(serialize_with = "without_curves", skip_serializing_if = "Vec::is_empty")]
    pub grid: Vec<RunResult>,
    /// Training loss against iteration, one curve per network.
    #[serde(skip)]
    pub curves: Vec<LossCurve>,
}

/// Omits the loss of every batch, which `runs/` holds.
fn without_curves<S: Serializer>(runs: &[RunResult], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.iter().map(|run| RunResult { curve: Vec::new(), ..run.clone() }))
}

/// What a sweep recorded, from which its results are computed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Recorded {
    pub(super) config: SweepConfig,
    #[serde(default)]
    pub(super) command: String,
    #[serde(flatten)]
    pub(super) places: Places,
    pub(super) planned: usize,
    #[serde(default)]
    pub(super) tuned: Vec<Tuned>,
    pub(super) runs: Vec<RunResult>,
    #[serde(default)]
    pub(super) grid: Vec<RunResult>,
}

/// Where trainings ran.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Places {
    /// Each environment once, in order of appearance.
    pub(super) environments: Vec<Environment>,
    /// The number of different host names.
    #[serde(default = "one")]
    pub(super) machines: usize,
}

fn one() -> usize {
    1
}

impl Places {
    /// Where the trainings in these run directories ran.
    pub(super) fn of<'a>(runs: impl IntoIterator<Item = &'a RunDir>) -> Self {
        let (mut environments, mut hosts) = (Vec::new(), BTreeSet::new());
        for run in runs {
            environments.extend(run.environment());
            hosts.insert(run.host());
        }
        Self { environments: distinct(environments), machines: hosts.len() }
    }
}

/// Each environment once, in order of appearance.
pub(super) fn distinct(environments: Vec<Environment>) -> Vec<Environment> {
    let mut distinct: Vec<Environment> = Vec::new();
    for environment in environments {
        if !distinct.contains(&environment) {
            distinct.push(environment);
        }
    }
    distinct
}

impl<'de> Deserialize<'de> for SweepResults {
    /// Recomputes the series and the verdicts from the runs.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let recorded = Recorded::deserialize(deserializer)?;
        recorded.config.check_plan().map_err(D::Error::custom)?;
        if recorded.runs.len().max(recorded.grid.len()) > MOST_TRAININGS {
            return Err(D::Error::custom(format!("a sweep has at most {MOST_TRAININGS} trainings")));
        }
        Ok(Self::from(recorded))
    }
}

impl From<Recorded> for SweepResults {
    fn from(Recorded { config, command, places, planned, tuned, runs, grid }: Recorded) -> Self {
        let series = series(&runs);
        let is_finished = runs.len() >= planned;
        let verdicts = if is_finished { Verdict::all(&series) } else { Vec::new() };
        let curves = loss_curves(&series, &runs);
        Self {
            verdicts,
            config,
            command,
            environments: places.environments,
            machines: places.machines,
            planned,
            tuned,
            rule: Verdict::RULE,
            series,
            runs,
            grid,
            curves,
        }
    }
}

impl SweepResults {
    /// Summarises all trainings of a sweep that ran on one machine.
    pub fn new(config: SweepConfig, command: String, environment: Environment, runs: Vec<RunResult>) -> Self {
        let (places, planned) = (Places { environments: vec![environment], machines: 1 }, runs.len());
        Recorded { config, command, places, planned, tuned: Vec::new(), runs, grid: Vec::new() }.into()
    }

    /// Whether all trainings of the plan have finished.
    pub fn is_finished(&self) -> bool {
        self.runs.len() >= self.planned
    }
}
