use super::{RunResult, RunStatus, Setting, SweepFamily};
use crate::Spread;
use residual_model::BlockKind;
use serde::Serialize;

/// The errors of one network over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Weighted layers.
    pub depth: usize,
    /// Training error of each seed, as a fraction; 1 if the training diverged.
    pub train_errors: Vec<f64>,
    /// Training error over the seeds.
    pub train: Spread,
    /// Test error over the seeds.
    pub test: Spread,
    /// Number of seeds that diverged.
    pub diverged: usize,
}

/// What distinguishes the lines of a sweep's figure: the family, the kind, the skip strength, and what the axes vary.
pub type Line = (SweepFamily, BlockKind, f64, Setting);

/// The errors of one kind of network at each depth: one line of the figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// The family.
    pub family: SweepFamily,
    /// Plain or residual.
    pub kind: BlockKind,
    /// The skip strength.
    pub alpha: f64,
    /// What the axes vary.
    #[serde(flatten)]
    pub setting: Setting,
    /// One point per depth, in ascending order.
    pub points: Vec<Point>,
}

impl Series {
    /// `plain` or `residual`, followed by α if it is neither 0 nor 1.
    pub fn label(&self) -> String {
        match self.alpha {
            0.0 | 1.0 => self.kind.to_string(),
            alpha => format!("{}, α = {alpha}", self.kind),
        }
    }

    /// What distinguishes the lines of a figure.
    pub fn line(&self) -> Line {
        (self.family, self.kind, self.alpha, self.setting)
    }
}

/// Groups results by family, setting, kind and skip strength.
pub(super) fn series(results: &[RunResult]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for result in results {
        let line = result.spec.line();
        if !all.iter().any(|series| series.line() == line) {
            let runs: Vec<&RunResult> = results.iter().filter(|run| run.spec.line() == line).collect();
            let (family, kind, alpha, setting) = line;
            all.push(Series { family, kind, alpha, setting, points: points(&runs) });
        }
    }
    all
}

fn points(results: &[&RunResult]) -> Vec<Point> {
    let mut depths: Vec<usize> = results.iter().map(|r| r.spec.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    let point = |depth| {
        let runs: Vec<&&RunResult> = results.iter().filter(|r| r.spec.depth == depth).collect();
        let train_errors: Vec<f64> = runs.iter().map(|r| r.train_error).collect();
        let test_errors: Vec<f64> = runs.iter().map(|r| r.test_error).collect();
        Point {
            depth,
            train: Spread::of(&train_errors),
            test: Spread::of(&test_errors),
            train_errors,
            diverged: runs.iter().filter(|r| r.status == RunStatus::Diverged).count(),
        }
    };
    depths.into_iter().map(point).collect()
}

/// Training loss of one network against the iteration: the mean over the seeds that did not diverge, smoothed by a
/// centred moving average over [`LossCurve::WINDOW`] iterations and thinned to at most 160 points.
#[derive(Clone, Debug, PartialEq)]
pub struct LossCurve {
    /// The family.
    pub family: SweepFamily,
    /// Plain or residual.
    pub kind: BlockKind,
    /// Weighted layers.
    pub depth: usize,
    /// The skip strength.
    pub alpha: f64,
    /// What the axes vary.
    pub setting: Setting,
    /// Pairs of an iteration, counted from 1, and the loss in nats.
    pub points: Vec<(usize, f64)>,
}

impl LossCurve {
    /// The width of the moving average, in iterations.
    pub const WINDOW: usize = 2 * HALF_WINDOW + 1;

    /// The line of the figure to which it belongs.
    pub fn line(&self) -> Line {
        (self.family, self.kind, self.alpha, self.setting)
    }
}

const HALF_WINDOW: usize = 6;

/// The loss curves of all networks for which at least one training did not diverge.
pub(super) fn loss_curves(series: &[Series], runs: &[RunResult]) -> Vec<LossCurve> {
    let curve = |s: &Series, depth: usize| {
        let belongs = |run: &&RunResult| {
            (run.spec.line(), run.spec.depth) == (s.line(), depth) && run.status == RunStatus::Finished
        };
        let curves: Vec<&[f32]> = runs.iter().filter(belongs).map(|run| &run.curve[..]).collect();
        let points = thin(smooth(&mean(&curves)));
        LossCurve { family: s.family, kind: s.kind, depth, alpha: s.alpha, setting: s.setting, points }
    };
    let networks = series.iter().flat_map(|s| s.points.iter().map(move |point| (s, point.depth)));
    networks.map(|(s, depth)| curve(s, depth)).filter(|curve| !curve.points.is_empty()).collect()
}

/// The mean of the curves, up to the end of the shortest one.
fn mean(curves: &[&[f32]]) -> Vec<f64> {
    let length = curves.iter().map(|c| c.len()).min().unwrap_or(0);
    let sum = |i| curves.iter().map(|c| f64::from(c[i])).sum::<f64>();
    (0..length).map(|i| sum(i) / curves.len() as f64).collect()
}

/// A centred moving average, with each iteration counted from 1.
fn smooth(values: &[f64]) -> Vec<(usize, f64)> {
    let average = |i: usize| {
        let window = &values[i.saturating_sub(HALF_WINDOW)..(i + HALF_WINDOW + 1).min(values.len())];
        window.iter().sum::<f64>() / window.len() as f64
    };
    (0..values.len()).map(|i| (i + 1, average(i))).collect()
}

/// Keeps at most 160 evenly spaced points, including the last one.
fn thin(points: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    const MOST: usize = 160;
    let (step, last) = (points.len().div_ceil(MOST).max(1), points.len().saturating_sub(1));
    points.into_iter().enumerate().filter(|(i, _)| (last - i).is_multiple_of(step)).map(|(_, point)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_averages_a_step() {
        assert!(smooth(&[2.0; 40]).iter().all(|&(_, y)| y == 2.0));
        let step: Vec<f64> = (0..40).map(|i| f64::from(u8::from(i >= 20))).collect();
        let smoothed = smooth(&step);
        assert_eq!(smoothed[0], (1, 0.0));
        assert_eq!(smoothed[20].1, 7.0 / 13.0);
    }

    #[test]
    fn the_mean_is_taken_over_seeds() {
        assert_eq!(mean(&[&[1.0, 2.0, 9.0], &[3.0, 6.0]]), [2.0, 4.0]);
        assert!(mean(&[]).is_empty());
    }

    #[test]
    fn thinning_keeps_the_last_point() {
        let thinned = thin((1..=1000).map(|i| (i, 0.0)).collect());
        assert!(thinned.len() <= 160 && thinned.last() == Some(&(1000, 0.0)));
        assert_eq!(thin(vec![(1, 0.5)]), [(1, 0.5)]);
    }
}
