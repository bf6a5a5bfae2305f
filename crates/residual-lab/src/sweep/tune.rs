//! The choice of each optimizer's learning rate.

use super::{RunResult, Setting, SweepConfig, SweepFamily};

use serde::{Deserialize, Serialize};

/// The learning rate chosen for one optimizer and one family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// The family.
    pub family: SweepFamily,
    /// What the axes vary, apart from the learning rate.
    pub setting: Setting,
    /// The rates of the grid, in ascending order.
    pub rates: Vec<Rate>,
    /// The chosen rate.
    pub lr: f64,
}

/// A learning rate of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The learning rate.
    pub lr: f64,
    /// The mean training error over all kinds and depths, as a fraction; 1 for each training that diverged.
    pub train_error: f64,
    /// The mean training loss of the trainings that did not diverge, in nats.
    pub train_loss: Option<f64>,
}

impl Tuned {
    /// The rates of all families and settings, if they are chosen from a grid.
    pub(super) fn all(config: &SweepConfig, grid: &[RunResult]) -> Vec<Self> {
        if !config.is_tuned() {
            return Vec::new();
        }
        let families = config.families.iter().map(|settings| settings.family);
        let of = |family| config.settings().into_iter().map(move |setting| Self::choose(config, family, setting, grid));
        families.flat_map(of).collect()
    }

    /// The rule for learning rates, in words.
    pub const RULE: &str = "The learning rate of each optimizer is chosen from a grid of factors of its usual rate. For each \
        rate, the nets of every kind and depth train once, with the first seed. The rate with the lowest mean training error \
        over all these nets, plain and residual alike, is used for both kinds and all seeds; among equal errors, the one with \
        the lowest mean training loss. A training that diverges counts as an error of 100 %.";

    /// Whether the chosen rate is the lowest or the highest of several, so that a rate beyond the grid may be better.
    pub fn is_at_the_edge(&self) -> bool {
        let ends = [self.rates.first(), self.rates.last()];
        self.rates.len() > 1 && ends.into_iter().flatten().any(|rate| rate.lr == self.lr)
    }

    /// Chooses the rate for a family and a setting from the trainings of the grid.
    pub(super) fn choose(config: &SweepConfig, family: SweepFamily, setting: Setting, grid: &[RunResult]) -> Self {
        let rates: Vec<Rate> =
            config.rates(family, setting).into_iter().map(|lr| Rate::of(grid, family, setting, lr)).collect();
        let order = |a: &&Rate, b: &&Rate| {
            let loss = |rate: &Rate| rate.train_loss.unwrap_or(f64::INFINITY);
            a.train_error.total_cmp(&b.train_error).then(loss(a).total_cmp(&loss(b)))
        };
        let lr = rates.iter().min_by(order).map_or(f64::NAN, |rate| rate.lr);
        Self { family, setting, rates, lr }
    }
}

impl Rate {
    fn of(grid: &[RunResult], family: SweepFamily, setting: Setting, lr: f64) -> Self {
        let setting = Setting { lr: Some(lr), ..setting };
        let runs: Vec<&RunResult> =
            grid.iter().filter(|run| (run.spec.family, run.spec.setting) == (family, setting)).collect();
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let losses: Vec<f64> = runs.iter().filter_map(|run| run.train_loss).collect();
        Self {
            lr,
            train_error: mean(runs.iter().map(|run| run.train_error).collect()),
            train_loss: (!losses.is_empty()).then(|| mean(losses)),
        }
    }
}

impl SweepConfig {
    /// The rates of the grid for a family and a setting, in ascending order.
    pub(super) fn rates(&self, family: SweepFamily, setting: Setting) -> Vec<f64> {
        let Some(own) = self.family(family).map(|settings| &settings.training) else { return Vec::new() };
        let usual = match setting.optimizer {
            Some(kind) if kind != own.optimizer.kind() => kind.lr(),
            _ => own.schedule.lr,
        };
        let mut rates: Vec<f64> = self.lr_grid.iter().map(|factor| rounded(factor * usual)).collect();
        rates.sort_by(f64::total_cmp);
        rates
    }
}

/// Rounds to six significant digits, so that 0.3 times 0.001 is 0.0003.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.5e}").parse().unwrap_or(rate)
}
