use super::{
    LossCurve, RunResult, Series, SweepConfig, Verdict,
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
    /// The machine and the backend.
    pub environment: Environment,
    /// One verdict per family.
    pub verdicts: Vec<Verdict>,
    /// The rule for the verdicts: [`Verdict::RULE`].
    pub rule: &'static str,
    /// Errors by depth, one series per line of the figure.
    pub series: Vec<Series>,
    /// Every training, in the order of the plan.
    #[serde(serialize_with = "without_curves")]
    pub runs: Vec<RunResult>,
    /// Training loss against iteration, one curve per network.
    #[serde(skip)]
    pub curves: Vec<LossCurve>,
}

/// Omits the loss of every batch, which `runs/` holds.
fn without_curves<S: Serializer>(runs: &[RunResult], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.iter().map(|run| RunResult { curve: Vec::new(), ..run.clone() }))
}

impl<'de> Deserialize<'de> for SweepResults {
    /// Recomputes the series and the verdicts from the runs.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Recorded {
            config: SweepConfig,
            #[serde(default)]
            command: String,
            environment: Environment,
            runs: Vec<RunResult>,
        }
        let Recorded { config, command, environment, runs } = Recorded::deserialize(deserializer)?;
        config.check_plan().map_err(D::Error::custom)?;
        if runs.len() > MOST_TRAININGS {
            return Err(D::Error::custom(format!("a sweep has at most {MOST_TRAININGS} trainings")));
        }
        Ok(Self::new(config, command, environment, runs))
    }
}

impl SweepResults {
    /// Summarises the trainings of a sweep.
    pub fn new(config: SweepConfig, command: String, environment: Environment, runs: Vec<RunResult>) -> Self {
        let series = series(&runs);
        let (verdicts, curves) = (Verdict::all(&series), loss_curves(&series, &runs));
        Self { verdicts, config, command, environment, rule: Verdict::RULE, series, runs, curves }
    }
}
