use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean and sample standard deviation (n - 1 in the denominator; 0 for a single value).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

impl Spread {
    /// The mean and the standard deviation of values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        Self { mean, std: if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
    }

    /// Half the width of the 95 % confidence interval of the mean, by Student's t distribution: `t · s / √n`, where t is
    /// the 97.5 % quantile with n - 1 degrees of freedom (Student 1908). `None` for fewer than two values, whose spread is
    /// unknown.
    pub fn half_width(values: &[f64]) -> Option<f64> {
        let n = values.len();
        let student = StudentsT::new(0.0, 1.0, n.checked_sub(1)? as f64).ok()?;
        Some(student.inverse_cdf(0.975) * Self::of(values).std / (n as f64).sqrt())
    }
}

/// The p-value of the exact one-sided permutation test of two samples (Fisher 1935; Pitman 1937): the share of all ways
/// to divide the values into samples of these sizes for which the mean of the second, minus that of the first, is at
/// least as large as observed.
///
/// If there are more than 200,000 ways, it is estimated from as many random ones, the observed one included (Dwass 1957).
pub fn permutation_test(first: &[f64], second: &[f64]) -> f64 {
    const MOST: u64 = 200_000;
    let all: Vec<f64> = first.iter().chain(second).copied().collect();
    let (n, k) = (all.len(), second.len());
    let observed: f64 = second.iter().sum();
    // Sums of the same values in another order may differ in their last bits.
    let margin = 1e-12 * all.iter().map(|value| value.abs()).sum::<f64>();
    let is_as_large = |sum: f64| sum >= observed - margin;
    let ways = (0..k as u64).try_fold(1u64, |ways, i| Some(ways.checked_mul(n as u64 - i)? / (i + 1)));
    if let Some(ways) = ways.filter(|&ways| ways <= MOST) {
        return count_subsets(&all, k, 0.0, &is_as_large) as f64 / ways as f64;
    }
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut all = all;
    let draw = |_| {
        let (chosen, _) = all.partial_shuffle(&mut random, k);
        is_as_large(chosen.iter().sum())
    };
    let found = (1..MOST).map(draw).filter(|as_large| *as_large).count();
    (found + 1) as f64 / MOST as f64
}

/// The number of ways to choose k values whose sum, plus `sum`, satisfies a condition.
fn count_subsets(values: &[f64], k: usize, sum: f64, holds: &dyn Fn(f64) -> bool) -> u64 {
    match values {
        _ if k == 0 => u64::from(holds(sum)),
        [value, rest @ ..] if values.len() >= k => {
            count_subsets(rest, k - 1, sum + value, holds) + count_subsets(rest, k, sum, holds)
        }
        _ => 0,
    }
}

/// The median; NaN if there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        assert_eq!(Spread::of(&[2.0, 4.0, 6.0]), Spread { mean: 4.0, std: 2.0 });
        assert_eq!(Spread::of(&[5.0]), Spread { mean: 5.0, std: 0.0 });
    }

    /// The quantiles are those of published tables.
    #[test]
    fn confidence_intervals_use_students_quantiles() {
        for (n, quantile) in [(2, 12.706), (3, 4.303), (11, 2.228), (31, 2.042), (61, 2.000), (121, 1.980)] {
            // Half of the values are -1 and half 1, and one may be 0.
            let values: Vec<f64> =
                (0..n).map(|i| if i < n / 2 { -1.0 } else { f64::from(u8::from(i >= n - n / 2)) }).collect();
            let half = Spread::half_width(&values).unwrap();
            let expected = quantile * Spread::of(&values).std / (n as f64).sqrt();
            assert!((half / expected - 1.0).abs() < 3e-4, "{n}: {half}, not {expected}");
        }
        assert_eq!(Spread::half_width(&[5.0]), None);
        assert_eq!(Spread::half_width(&[]), None);
    }

    #[test]
    fn the_permutation_test_counts_all_divisions() {
        // The observed division is the most extreme of C(6, 3) = 20.
        assert_eq!(permutation_test(&[0.0, 0.1, 0.2], &[0.3, 0.4, 0.5]), 1.0 / 20.0);
        assert_eq!(permutation_test(&[0.3, 0.4, 0.5], &[0.0, 0.1, 0.2]), 1.0);
        // Two of the six divisions have a second sum of at least 7: {3, 4} and {4, 3}'s twin with the other 3.
        assert_eq!(permutation_test(&[1.0, 3.0], &[3.0, 4.0]), 2.0 / 6.0);
        assert_eq!(permutation_test(&[0.7; 3], &[0.7; 3]), 1.0);
        assert_eq!(permutation_test(&[0.0], &[1.0]), 0.5);
    }

    #[test]
    fn large_samples_are_tested_by_random_divisions() {
        let low: Vec<f64> = (0..12).map(f64::from).collect();
        let high: Vec<f64> = low.iter().map(|value| value + 100.0).collect();
        assert_eq!(permutation_test(&low, &high), 1.0 / 200_000.0);
        let same = permutation_test(&low, &low);
        // Half of the other divisions, and all with the same sum.
        assert!((0.5..0.54).contains(&same), "{same}");
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
