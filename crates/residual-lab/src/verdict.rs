use crate::{Series, statistics::Point};
use residual_model::{BlockKind, Family};
use serde::Serialize;
use std::fmt;

/// What the data say of the lecture's claim, for one family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The family.
    pub family: Family,
    /// The answer.
    pub finding: Finding,
    /// The plain nets' rise.
    pub plain: Rise,
    /// The residual nets' rise.
    pub residual: Rise,
    /// Seeds at each depth.
    pub seeds: usize,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// Plain nets get worse with depth, residual nets do not.
    Shown,
    /// Plain nets get worse with depth; residual nets do too, or do on some seeds, by less than half
    /// as much.
    ShownInPart,
    /// Anything else.
    NotShown,
}

/// From the depth with the lowest training error to the deepest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rise {
    /// The depth with the lowest mean.
    pub best_depth: usize,
    /// Its mean training error, as a fraction.
    pub best: f64,
    /// The greatest depth.
    pub deepest_depth: usize,
    /// Its mean training error.
    pub deepest: f64,
    /// Standard deviation of the difference: the root of the sum of both variances.
    pub std: f64,
    /// Whether the difference is more than two of these and more than two percentage points.
    pub significant: bool,
}

/// Where none can be given.
pub(crate) const NO_VERDICT: &str = "No verdict: it takes plain and residual nets at two depths or more.";

/// The rule, in words.
pub(crate) const RULE: &str = "A family's training error rises with depth if the deepest net's mean over \
the seeds exceeds that of the best depth by more than two standard deviations of the difference and by \
more than two percentage points. The effect is shown if the plain nets' rises, the residual nets' does not, \
and the difference of the residual means is less than a tenth of that of the plain ones, so that a wide spread \
cannot hide a failing seed. It is shown in part if the plain nets' rises and the residual difference is less than \
half as much. A run that diverges counts as an error of 100 %.";

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

    fn rise(&self) -> f64 {
        self.deepest - self.best
    }
}

impl Verdict {
    /// One for each family that has plain and residual nets at two depths or more.
    pub(crate) fn all(series: &[Series]) -> Vec<Self> {
        let find =
            |family, kind, alpha: f64| series.iter().find(|s| s.family == family && s.kind == kind && s.alpha == alpha);
        let verdict = |family| {
            let plain = find(family, BlockKind::Plain, 0.0)?;
            let residual = find(family, BlockKind::Residual, 1.0)?;
            (plain.points.len() > 1).then_some(())?;
            let seeds = plain.points[0].train_errors.len();
            let (plain, residual) = (Rise::of(&plain.points)?, Rise::of(&residual.points)?);
            let finding = match residual.rise() / plain.rise() {
                _ if !plain.significant => Finding::NotShown,
                share if share < 0.1 && !residual.significant => Finding::Shown,
                share if share < 0.5 => Finding::ShownInPart,
                _ => Finding::NotShown,
            };
            Some(Self { family, finding, plain, residual, seeds })
        };
        [Family::Dense, Family::Conv].into_iter().filter_map(verdict).collect()
    }
}

impl fmt::Display for Rise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |x: f64| format!("{:.1} %", 100.0 * x);
        if self.best_depth == self.deepest_depth {
            return write!(
                f,
                "lowest at the greatest depth, {} layers ({})",
                self.deepest_depth,
                percent(self.deepest)
            );
        }
        write!(
            f,
            "{} at {} layers, {} at {} (difference {:.1} ± {:.1} points)",
            percent(self.best),
            self.best_depth,
            percent(self.deepest),
            self.deepest_depth,
            100.0 * self.rise(),
            100.0 * self.std,
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Shown => "shown: plain nets get worse with depth, residual nets do not",
            Self::ShownInPart => {
                "shown in part: plain nets get worse with depth, residual nets by less than half as much"
            }
            Self::NotShown => "not shown by these data",
        })
    }
}

impl Verdict {
    /// Both rises.
    pub(crate) fn detail(&self) -> String {
        let seeds = match self.seeds {
            1 => " One seed, so no spread is known.",
            _ => "",
        };
        format!("Plain: {}. Residual: {}.{seeds}", self.plain, self.residual)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nets: {}. {}", self.family, self.finding, self.detail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Spread;

    fn line(kind: BlockKind, errors: &[(usize, f64, f64)]) -> Series {
        let point = |&(depth, mean, std): &(usize, f64, f64)| Point {
            depth,
            train_errors: vec![mean; 3],
            train: Spread { mean, std },
            test: Spread::default(),
            diverged: 0,
        };
        let alpha = if kind == BlockKind::Plain { 0.0 } else { 1.0 };
        Series { family: Family::Conv, kind, alpha, points: errors.iter().map(point).collect() }
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
    fn the_rule_tells_the_cases_apart() {
        assert_eq!(finding(RISING, FLAT), Finding::Shown);
        assert_eq!(finding(RISING, SLOW), Finding::ShownInPart);
        assert_eq!(finding(RISING, RISING), Finding::NotShown);
        assert_eq!(finding(FLAT, FLAT), Finding::NotShown);
        assert_eq!(finding(FLAT, RISING), Finding::NotShown);
        assert_eq!(finding(NOISY, FLAT), Finding::NotShown);
        assert_eq!(finding(RISING, ONE_SEED_FAILED), Finding::ShownInPart);
    }

    #[test]
    fn one_kind_or_one_depth_allows_no_verdict() {
        assert!(Verdict::all(&[line(BlockKind::Plain, RISING)]).is_empty());
        let short = &RISING[..1];
        assert!(Verdict::all(&[line(BlockKind::Plain, short), line(BlockKind::Residual, short)]).is_empty());
    }

    #[test]
    fn the_sentence_has_the_numbers() {
        let verdicts = Verdict::all(&[line(BlockKind::Plain, RISING), line(BlockKind::Residual, FLAT)]);
        let text = verdicts[0].to_string();
        assert!(text.contains("Plain: 1.0 % at 20 layers, 50.0 % at 56 (difference 49.0 ± 10.0 points)"), "{text}");
    }
}
