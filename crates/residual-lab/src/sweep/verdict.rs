use super::{Point, Series, Setting, SweepFamily};
use crate::statistics::{Spread, permutation_test};
use residual_model::BlockKind;
use serde::Serialize;

/// Whether the results of one family with one setting show the effect of the lecture: the training error of plain nets
/// falls with depth and then rises again, but that of residual nets does not rise. The rule is [`Verdict::RULE`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The family.
    pub family: SweepFamily,
    /// What the axes vary.
    #[serde(flatten)]
    pub setting: Setting,
    /// The finding.
    pub finding: Finding,
    /// Whether the plain nets' error falls before it rises.
    pub fall: Fall,
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

/// Whether the error falls from the shallowest depth to the best one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Fall {
    /// It falls, by more than half a percentage point.
    Seen {
        /// The shallowest depth.
        depth: usize,
        /// The mean training error there, as a fraction.
        error: f64,
    },
    /// It cannot fall by that much: at the shallowest depth, it is at most half a percentage point.
    TooLow {
        /// The shallowest depth.
        depth: usize,
        /// The mean training error there, as a fraction.
        error: f64,
    },
    /// It does not fall.
    NotSeen,
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
    /// Half the width of the 95 % confidence interval of the difference, paired by seed ([`Spread::half_width`]). `None`
    /// for one seed.
    pub half_width: Option<f64>,
    /// The p-value of the exact one-sided permutation test ([`permutation_test`]). `None` for fewer than three seeds, for
    /// which it cannot be as low as 5 %.
    pub p: Option<f64>,
    /// Whether the error rises, by [`Verdict::RULE`].
    pub rises: bool,
}

/// The least rise that counts, as a fraction.
const LEAST_RISE: f64 = 0.02;

/// The least fall that counts, as a fraction.
const LEAST_FALL: f64 = 0.005;

impl Rise {
    fn of(points: &[Point]) -> Option<Self> {
        let best = points.iter().min_by(|a, b| a.train.mean.total_cmp(&b.train.mean))?;
        let deepest = points.last()?;
        let differences: Vec<f64> =
            best.train_errors.iter().zip(&deepest.train_errors).map(|(best, deepest)| deepest - best).collect();
        let difference = deepest.train.mean - best.train.mean;
        let p = (differences.len() >= 3).then(|| permutation_test(&best.train_errors, &deepest.train_errors));
        let holds = match p {
            Some(p) => p <= 0.05,
            None => differences.iter().all(|&difference| difference > LEAST_RISE),
        };
        Some(Self {
            best_depth: best.depth,
            best: best.train.mean,
            deepest_depth: deepest.depth,
            deepest: deepest.train.mean,
            half_width: Spread::half_width(&differences),
            p,
            rises: difference > LEAST_RISE && holds,
        })
    }

    /// The mean training error at the greatest depth minus the lowest one.
    pub fn difference(&self) -> f64 {
        self.deepest - self.best
    }
}

impl Fall {
    fn of(points: &[Point], rise: &Rise) -> Self {
        match points.first() {
            Some(first) if first.train.mean <= LEAST_FALL => {
                Self::TooLow { depth: first.depth, error: first.train.mean }
            }
            Some(first) if first.train.mean - rise.best > LEAST_FALL => {
                Self::Seen { depth: first.depth, error: first.train.mean }
            }
            _ => Self::NotSeen,
        }
    }
}

impl Verdict {
    /// The rule for verdicts, in words.
    pub const RULE: &str = "A family's training error rises with depth if the deepest net's mean over the seeds exceeds \
        that of the best depth by more than two percentage points, and if the exact one-sided permutation test of the two \
        depths' errors (Fisher 1935; Pitman 1937) has a p-value of at most 5 %. This takes three seeds or more; with one or \
        two, the error of every seed must rise by more than two points, and the finding holds for these seeds only. The \
        effect is shown if the plain nets' error rises, the residual nets' error does not, and the difference of the residual \
        means is less than a tenth of that of the plain means, so that a wide spread cannot hide a failing seed. It is shown \
        in part if the plain nets' error rises and the residual difference is less than half as large. The plain nets' error \
        falls first if the shallowest net's mean exceeds that of the best depth by more than half a point. Confidence \
        intervals are those of Student's t distribution for differences paired by seed. A run that diverges counts as an \
        error of 100 %.";

    /// One verdict for each family and setting with plain and residual nets at two or more depths.
    pub(super) fn all(series: &[Series]) -> Vec<Self> {
        let verdict = |plain: &Series| {
            let Series { family, setting, .. } = *plain;
            let twin = (family, BlockKind::Residual, 1.0, setting);
            let residual = series.iter().find(|other| other.line() == twin)?;
            if plain.points.len() < 2 {
                return None;
            }
            let seeds = plain.points[0].train_errors.len();
            let (plain, residual, points) = (Rise::of(&plain.points)?, Rise::of(&residual.points)?, &plain.points);
            let share = residual.difference() / plain.difference();
            let finding = if plain.rises && !residual.rises && share < 0.1 {
                Finding::Shown
            } else if plain.rises && share < 0.5 {
                Finding::ShownInPart
            } else {
                Finding::NotShown
            };
            let fall = Fall::of(points, &plain);
            Some(Self { family, setting, finding, fall, plain, residual, seeds })
        };
        series.iter().filter(|series| series.kind == BlockKind::Plain).filter_map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of depths, each with the errors of its seeds.
    fn line(kind: BlockKind, errors: &[(usize, &[f64])]) -> Series {
        let point = |&(depth, errors): &(usize, &[f64])| Point {
            depth,
            train_errors: errors.to_vec(),
            train: Spread::of(errors),
            test: Spread::default(),
            diverged: 0,
        };
        let alpha = if kind == BlockKind::Plain { 0.0 } else { 1.0 };
        let (family, setting) = (SweepFamily::Conv, Setting::default());
        Series { family, kind, alpha, setting, points: errors.iter().map(point).collect() }
    }

    fn verdict(plain: &[(usize, &[f64])], residual: &[(usize, &[f64])]) -> Verdict {
        let mut verdicts = Verdict::all(&[line(BlockKind::Plain, plain), line(BlockKind::Residual, residual)]);
        assert_eq!(verdicts.len(), 1);
        verdicts.remove(0)
    }

    const FLAT: &[(usize, &[f64])] = &[(8, &[0.01, 0.01, 0.01]), (20, &[0.0, 0.0, 0.0]), (56, &[0.005, 0.005, 0.005])];
    const RISING: &[(usize, &[f64])] = &[(8, &[0.02, 0.03, 0.01]), (20, &[0.01, 0.02, 0.0]), (56, &[0.5, 0.4, 0.6])];
    const NOISY: &[(usize, &[f64])] = &[(8, &[0.02, 0.03, 0.01]), (20, &[0.01, 0.02, 0.0]), (56, &[0.5, 0.4, 0.015])];
    const ONE_SEED_FAILED: &[(usize, &[f64])] = &[(8, &[0.0; 3]), (20, &[0.0; 3]), (56, &[0.0, 0.0, 0.6])];
    const SLOW: &[(usize, &[f64])] = &[(8, &[0.0; 3]), (20, &[0.0; 3]), (56, &[0.03, 0.04, 0.05])];

    #[test]
    fn each_case_gets_its_finding() {
        let finding = |plain, residual| verdict(plain, residual).finding;
        assert_eq!(finding(RISING, FLAT), Finding::Shown);
        assert_eq!(finding(RISING, SLOW), Finding::ShownInPart);
        assert_eq!(finding(RISING, RISING), Finding::NotShown);
        assert_eq!(finding(FLAT, FLAT), Finding::NotShown);
        assert_eq!(finding(FLAT, RISING), Finding::NotShown);
        assert_eq!(finding(NOISY, FLAT), Finding::NotShown);
        assert_eq!(finding(RISING, ONE_SEED_FAILED), Finding::ShownInPart);
    }

    #[test]
    fn a_rise_has_a_p_value_and_an_interval_paired_by_seed() {
        let Rise { p, half_width, best_depth, rises, .. } = verdict(RISING, FLAT).plain;
        assert_eq!((p, best_depth, rises), (Some(1.0 / 20.0), 20, true));
        // The differences are 0.49, 0.38 and 0.6.
        let expected = Spread::half_width(&[0.49, 0.38, 0.6]).unwrap();
        assert!((half_width.unwrap() - expected).abs() < 1e-12);
        // One of the twenty divisions is more extreme than the observed one.
        assert!(verdict(NOISY, FLAT).plain.p.unwrap() > 0.05);
    }

    #[test]
    fn with_few_seeds_every_one_must_rise() {
        let one = verdict(&[(8, &[0.01]), (56, &[0.5])], &[(8, &[0.01]), (56, &[0.0])]);
        assert_eq!((one.finding, one.seeds, one.plain.p, one.plain.half_width), (Finding::Shown, 1, None, None));
        let two = verdict(&[(8, &[0.01, 0.0]), (56, &[0.5, 0.015])], &[(8, &[0.0; 2]), (56, &[0.0; 2])]);
        assert_eq!((two.finding, two.plain.p), (Finding::NotShown, None));
    }

    #[test]
    fn a_fall_before_the_rise_is_looked_for() {
        let fall = |errors| verdict(errors, FLAT).fall;
        assert_eq!(fall(RISING), Fall::Seen { depth: 8, error: 0.02 });
        assert_eq!(fall(ONE_SEED_FAILED), Fall::TooLow { depth: 8, error: 0.0 });
        assert_eq!(fall(&[(8, &[0.1; 3]), (20, &[0.1; 3]), (56, &[0.9; 3])]), Fall::NotSeen);
    }

    #[test]
    fn a_verdict_needs_both_kinds_at_two_depths() {
        assert!(Verdict::all(&[line(BlockKind::Plain, RISING)]).is_empty());
        let short = &RISING[..1];
        assert!(Verdict::all(&[line(BlockKind::Plain, short), line(BlockKind::Residual, short)]).is_empty());
    }
}
