use super::{
    LossCurve, RunResult, Series, SweepConfig, Tuned, Verdict,
    plan::MOST_TRAININGS,
    series::{loss_curves, series},
};
use residual_train::Environment;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The results of a sweep, stored in `results.json`, with the loss curves in `curves.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepResults {
    /// The settings.
    pub config: SweepConfig,
    /// The command that runs the same sweep.
    pub command: String,
    /// The machines and versions on which the trainings ran.
    pub environments: Vec<Environment>,
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
    pub(super) environments: Vec<Environment>,
    pub(super) planned: usize,
    #[serde(default)]
    pub(super) tuned: Vec<Tuned>,
    pub(super) runs: Vec<RunResult>,
    #[serde(default)]
    pub(super) grid: Vec<RunResult>,
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
    fn from(Recorded { config, command, environments, planned, tuned, runs, grid }: Recorded) -> Self {
        let series = series(&runs);
        let is_finished = runs.len() >= planned;
        let verdicts = if is_finished { Verdict::all(&series) } else { Vec::new() };
        let curves = loss_curves(&series, &runs);
        Self {
            verdicts,
            config,
            command,
            environments,
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
        let (environments, planned) = (vec![environment], runs.len());
        Recorded { config, command, environments, planned, tuned: Vec::new(), runs, grid: Vec::new() }.into()
    }

    /// Whether all trainings of the plan have finished.
    pub fn is_finished(&self) -> bool {
        self.runs.len() >= self.planned
    }
}
