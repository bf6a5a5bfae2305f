use crate::{
    LabError, Report, RunSpec, Series, SweepConfig, Verdict, figures, series, sweep,
    table::markdown_table,
    verdict::{NO_VERDICT, RULE},
};
use residual_train::{Environment, TrainError, files};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;

/// What one training came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Which training.
    #[serde(flatten)]
    pub spec: RunSpec,
    /// Fraction of the training set misclassified, by a clean pass; 1 if it diverged.
    pub train_error: f64,
    /// Fraction of the test set misclassified; 1 if it diverged.
    pub test_error: f64,
    /// Mean cross-entropy over the training set, in nats.
    pub train_loss: Option<f64>,
    /// Mean cross-entropy over the test set.
    pub test_loss: Option<f64>,
    /// Trainable parameters.
    pub parameters: u64,
    /// Optimizer steps.
    pub iterations: usize,
    /// Time taken.
    pub seconds: f64,
    /// How it ended.
    pub status: RunStatus,
    /// The loss of every batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<f32>,
}

/// How a training of a sweep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// With its last epoch.
    Finished,
    /// With a loss that is not finite.
    Diverged,
}

/// Everything a sweep found.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What was trained.
    pub config: SweepConfig,
    /// On which machine and backend.
    pub environment: Environment,
    /// One answer a family.
    pub verdicts: Vec<Verdict>,
    /// How the answers were found.
    pub rule: &'static str,
    /// The lines of the figure.
    pub series: Vec<Series>,
    /// Every training, in the order of the plan.
    #[serde(serialize_with = "without_curves")]
    pub runs: Vec<RunResult>,
}

impl<'de> Deserialize<'de> for Results {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What the rest follows from.
        #[derive(Deserialize)]
        struct Measured {
            config: SweepConfig,
            environment: Environment,
            runs: Vec<RunResult>,
        }
        let Measured { config, environment, runs } = Measured::deserialize(deserializer)?;
        Ok(Self::new(config, environment, runs))
    }
}

/// The curves stay in `runs/`; the rest of each training is one row.
fn without_curves<S: Serializer>(runs: &[RunResult], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.iter().map(|run| RunResult { curve: Vec::new(), ..run.clone() }))
}

impl Results {
    /// What [`Results::write`] writes.
    pub(crate) const FILES: [&str; 7] =
        ["results.csv", "results.json", "table.md", "depth.svg", "depth.png", "curves.svg", "index.html"];

    pub(crate) fn new(config: SweepConfig, environment: Environment, runs: Vec<RunResult>) -> Self {
        let series = series(&runs);
        Self { verdicts: Verdict::all(&series), config, environment, rule: RULE, series, runs }
    }

    /// Writes tables, pictures and the page into the folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), LabError> {
        files::write(&folder.join("results.csv"), &self.csv()?)?;
        files::write_json(&folder.join("results.json"), self)?;
        files::write(&folder.join("table.md"), self.report().as_bytes())?;
        let depth = figures::depth(self);
        let curves = figures::curves(self);
        files::write(&folder.join("depth.svg"), depth.to_svg().as_bytes())?;
        files::write(&folder.join("depth.png"), &depth.to_png()?)?;
        files::write(&folder.join("curves.svg"), curves.to_svg().as_bytes())?;
        files::write(&folder.join("index.html"), Report::of_sweep(self, folder)?.html().as_bytes())?;
        Ok(())
    }

    /// Reads what a sweep wrote into its folder, with the loss curves if the trainings' files are still there.
    ///
    /// # Errors
    /// If `results.json` cannot be read.
    pub fn read(folder: &Path) -> Result<Self, LabError> {
        let mut results: Self = files::read_json(&folder.join("results.json"))?;
        for run in &mut results.runs {
            run.curve = sweep::stored_curve(folder, run).unwrap_or_default();
        }
        Ok(results)
    }

    /// The tables, the verdicts and the machine, as Markdown.
    pub fn report(&self) -> String {
        let mut text = format!("Error in per cent, mean ± standard deviation:\n\n{}\n", markdown_table(&self.series));
        for verdict in &self.verdicts {
            text.push_str(&format!("{verdict}\n\n"));
        }
        if self.verdicts.is_empty() {
            text.push_str(&format!("{NO_VERDICT}\n\n"));
        }
        text + &format!("{} trainings on {}.\n", self.runs.len(), self.environment)
    }

    /// One row a training.
    fn csv(&self) -> Result<Vec<u8>, LabError> {
        let failed = |e: String| TrainError::Learner(format!("cannot write CSV: {e}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = [
            "family",
            "kind",
            "depth",
            "alpha",
            "seed",
            "train_error",
            "test_error",
            "train_loss",
            "seconds",
            "status",
            "test_loss",
            "parameters",
            "iterations",
        ];
        writer.write_record(header).map_err(|e| failed(e.to_string()))?;
        let loss = |loss: Option<f64>| loss.map(|l| format!("{l:.6}")).unwrap_or_default();
        for run in &self.runs {
            let RunSpec { family, kind, depth, alpha, seed } = run.spec;
            let status = match run.status {
                RunStatus::Finished => "finished",
                RunStatus::Diverged => "diverged",
            };
            let row = [
                family.to_string(),
                kind.to_string(),
                depth.to_string(),
                alpha.to_string(),
                seed.to_string(),
                format!("{:.6}", run.train_error),
                format!("{:.6}", run.test_error),
                loss(run.train_loss),
                format!("{:.2}", run.seconds),
                status.into(),
                loss(run.test_loss),
                run.parameters.to_string(),
                run.iterations.to_string(),
            ];
            writer.write_record(row).map_err(|e| failed(e.to_string()))?;
        }
        Ok(writer.into_inner().map_err(|e| failed(e.to_string()))?)
    }
}
