use crate::{RunResult, RunStatus};
use residual_model::{BlockKind, Family};
use serde::Serialize;

/// Mean and sample standard deviation (n - 1 in the denominator; 0 for a single value).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

impl Spread {
    /// Of these values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        Self { mean, std: if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
    }

    /// Half the width of the mean's 95 % confidence interval, by Student's distribution; 0 for a single value.
    pub fn half_width(values: &[f64]) -> f64 {
        // The 97.5 % quantile for 1 to 30 degrees of freedom.
        const STUDENT: [f64; 30] = [
            12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
            2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
        ];
        match values.len() {
            0 | 1 => 0.0,
            n => STUDENT.get(n - 2).unwrap_or(&1.96) * Self::of(values).std / (n as f64).sqrt(),
        }
    }
}

/// All seeds of one network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Weighted layers.
    pub depth: usize,
    /// Training error of each seed, as a fraction; 1 where it diverged.
    pub train_errors: Vec<f64>,
    /// Training error.
    pub train: Spread,
    /// Test error.
    pub test: Spread,
    /// Seeds that diverged.
    pub diverged: usize,
}

/// One line of the figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// The family.
    pub family: Family,
    /// Plain or residual.
    pub kind: BlockKind,
    /// The skip strength.
    pub alpha: f64,
    /// By depth, rising.
    pub points: Vec<Point>,
}

impl Series {
    /// `plain`, `residual`, or the latter with its α.
    pub fn label(&self) -> String {
        match self.alpha {
            0.0 | 1.0 => self.kind.to_string(),
            alpha => format!("{}, α = {alpha}", self.kind),
        }
    }
}

/// Groups results into lines.
pub fn series(results: &[RunResult]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for result in results {
        let spec = result.spec;
        let same = |s: &Series| (s.family, s.kind, s.alpha) == (spec.family, spec.kind, spec.alpha);
        if !all.iter().any(same) {
            let points =
                points(results, |r| (r.spec.family, r.spec.kind, r.spec.alpha) == (spec.family, spec.kind, spec.alpha));
            all.push(Series { family: spec.family, kind: spec.kind, alpha: spec.alpha, points });
        }
    }
    all
}

fn points(results: &[RunResult], belongs: impl Fn(&RunResult) -> bool) -> Vec<Point> {
    let of_series: Vec<&RunResult> = results.iter().filter(|r| belongs(r)).collect();
    let mut depths: Vec<usize> = of_series.iter().map(|r| r.spec.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    let point = |depth| {
        let runs: Vec<&&RunResult> = of_series.iter().filter(|r| r.spec.depth == depth).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        assert_eq!(Spread::of(&[2.0, 4.0, 6.0]), Spread { mean: 4.0, std: 2.0 });
        assert_eq!(Spread::of(&[5.0]), Spread { mean: 5.0, std: 0.0 });
        assert_eq!(Spread::half_width(&[2.0, 4.0, 6.0]), 4.303 * 2.0 / 3f64.sqrt());
        assert_eq!(Spread::half_width(&[5.0]), 0.0);
    }
}
