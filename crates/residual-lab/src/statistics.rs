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
    /// The mean and the standard deviation of values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        Self { mean, std: if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
    }

    /// Half the width of the 95 % confidence interval of the mean, by Student's t distribution; 0 for a single value.
    pub fn half_width(values: &[f64]) -> f64 {
        // The 97.5 % quantiles of Student's t distribution with 1 to 30 degrees of freedom.
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
        assert_eq!(Spread::half_width(&[2.0, 4.0, 6.0]), 4.303 * 2.0 / 3f64.sqrt());
        assert_eq!(Spread::half_width(&[5.0]), 0.0);
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
