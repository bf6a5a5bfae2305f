use super::{Point, Series, Setting, SweepFamily};
use residual_model::BlockKind;
use serde::Serialize;

/// Whether the results of one family with one setting show the effect of the lecture: plain nets get worse with depth, but residual nets
/// do not. The rule is [`Verdict::RULE`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The family.
    pub family: SweepFamily,
    /// What the axes vary.
    #[serde(flatten)]
    pub setting: Setting,
    /// The finding.
    pub finding: Finding,
    /// How the plain nets' error rises with depth.
    pub plain: Rise,
    /// How the residual nets' error rises with depth.
    pub residual: Rise,
    /// Seeds per depth.
    pub seeds: usize,
}

/// Whether the results show the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// Plain nets get worse with depth; residual nets do not.
    Shown,
    /// Plain nets get worse with depth. Residual nets do too, at least for some seeds, but by less than half as much.
    ShownInPart,
    /// Anything else.
    NotShown,
}

/// The rise of the mean training error from the best depth to the deepest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rise {
    /// The depth with the lowest mean training error.
    pub best_depth: usize,
    /// The mean training error at that depth, as a fraction.
    pub best: f64,
    /// The greatest depth.
    pub deepest_depth: usize,
    /// The mean training error at the greatest depth, as a fraction.
    pub deepest: f64,
    /// Standard deviation of the difference of the two means: `√(σ₁² + σ₂²)`.
    pub std: f64,
    /// Whether the difference exceeds two standard deviations and two percentage points.
    pub significant: bool,
}

impl Rise {
    fn of(points: &[Point]) -> Option<Self> {
        let best = points.iter().min_by(|a, b| a.train.mean.total_cmp(&b.train.mean))?;
        let deepest = points.last()?;
        let std = best.train.std.hypot(deepest.train.std);
        let rise = deepest.train.mean - best.train.mean;
        Some(Self {
            best_depth: best.depth,
            best: best.train.mean,
            deepest_depth: deepest.depth,
            deepest: deepest.train.mean,
            std,
            significant: rise > 2.0 * std && rise > 0.02,
        })
    }

    /// The mean training error at the greatest depth minus the lowest one.
    pub fn difference(&self) -> f64 {
        self.deepest - self.best
    }
}

impl Verdict {
    /// The rule for verdicts, in words.
    pub const RULE: &str = "A family's training error rises with depth if the deepest net's mean over the seeds exceeds \
        that of the best depth by more than two standard deviations of the difference and by more than two percentage \
        points. The effect is shown if the plain nets' error rises, the residual nets' error does not, and the difference \
        of the residual means is less than a tenth of that of the plain means, so that a wide spread cannot hide a failing \
        seed. It is shown in part if the plain nets' error rises and the residual difference is less than half as large. A \
        run that diverges counts as an error of 100 %.";

    /// One verdict for each family and setting with plain and residual nets at two or more depths.
    pub(super) fn all(series: &[Series]) -> Vec<Self> {
        let verdict = |plain: &Series| {
            let Series { family, setting, .. } = *plain;
            let twin = Series { kind: BlockKind::Residual, alpha: 1.0, points: Vec::new(), ..*plain };
            let residual = series.iter().find(|other| other.is_like(&twin))?;
            if plain.points.len() < 2 {
                return None;
            }
            let seeds = plain.points[0].train_errors.len();
            let (plain, residual) = (Rise::of(&plain.points)?, Rise::of(&residual.points)?);
            let share = residual.difference() / plain.difference();
            let finding = if plain.significant && !residual.significant && share < 0.1 {
                Finding::Shown
            } else if plain.significant && share < 0.5 {
                Finding::ShownInPart
            } else {
                Finding::NotShown
            };
            Some(Self { family, setting, finding, plain, residual, seeds })
        };
        series.iter().filter(|series| series.kind == BlockKind::Plain).filter_map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spread;

    fn line(kind: BlockKind, errors: &[(usize, f64, f64)]) -> Series {
        let point = |&(depth, mean, std): &(usize, f64, f64)| Point {
            depth,
            train_errors: vec![mean; 3],
            train: Spread { mean, std },
            test: Spread::default(),
            diverged: 0,
        };
        let alpha = if kind == BlockKind::Plain { 0.0 } else { 1.0 };
        let (family, setting) = (SweepFamily::Conv, Setting::default());
        Series { family, kind, alpha, setting, points: errors.iter().map(point).collect() }
    }

    fn finding(plain: &[(usize, f64, f64)], residual: &[(usize, f64, f64)]) -> Finding {
        let verdicts = Verdict::all(&[line(BlockKind::Plain, plain), line(BlockKind::Residual, residual)]);
        assert_eq!(verdicts.len(), 1);
        verdicts[0].finding
    }

    const FLAT: &[(usize, f64, f64)] = &[(8, 0.01, 0.0), (20, 0.0, 0.0), (56, 0.005, 0.0)];
    const RISING: &[(usize, f64, f64)] = &[(8, 0.02, 0.01), (20, 0.01, 0.01), (56, 0.5, 0.1)];
    const NOISY: &[(usize, f64, f64)] = &[(8, 0.02, 0.01), (20, 0.01, 0.01), (56, 0.2, 0.1)];
    const ONE_SEED_FAILED: &[(usize, f64, f64)] = &[(8, 0.0, 0.0), (20, 0.0, 0.0), (56, 0.2, 0.35)];
    const SLOW: &[(usize, f64, f64)] = &[(8, 0.0, 0.0), (20, 0.0, 0.0), (56, 0.04, 0.01)];

    #[test]
    fn each_case_gets_its_finding() {
        assert_eq!(finding(RISING, FLAT), Finding::Shown);
        assert_eq!(finding(RISING, SLOW), Finding::ShownInPart);
        assert_eq!(finding(RISING, RISING), Finding::NotShown);
        assert_eq!(finding(FLAT, FLAT), Finding::NotShown);
        assert_eq!(finding(FLAT, RISING), Finding::NotShown);
        assert_eq!(finding(NOISY, FLAT), Finding::NotShown);
        assert_eq!(finding(RISING, ONE_SEED_FAILED), Finding::ShownInPart);
    }

    #[test]
    fn a_verdict_needs_both_kinds_at_two_depths() {
        assert!(Verdict::all(&[line(BlockKind::Plain, RISING)]).is_empty());
        let short = &RISING[..1];
        assert!(Verdict::all(&[line(BlockKind::Plain, short), line(BlockKind::Residual, short)]).is_empty());
    }
}
