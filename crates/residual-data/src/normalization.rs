use crate::DataError;
use serde::{Deserialize, Serialize};

/// The statistics with which images are normalised, computed on the training pixels.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = DataError, parse_err_fn = unknown_normalisation)]
pub enum Normalize {
    /// The mean and standard deviation of all pixels.
    #[default]
    All,
    /// The mean and standard deviation of each channel.
    Channel,
    /// The mean of each pixel over the images (Krizhevsky et al. 2012, section 2), and one standard deviation over all
    /// differences from these means.
    Pixel,
}

fn unknown_normalisation(word: &str) -> DataError {
    DataError::UnknownWord { what: "normalisation", word: word.into(), expected: "all, channel or pixel" }
}

/// The normalisation `(x - mean) / std`, with one mean and one standard deviation for all pixels, one per channel, or
/// one per value of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The means: 1, `channels`, or `channels · height · width` of them.
    pub mean: Vec<f32>,
    /// The standard deviations: 1, `channels`, or `channels · height · width` of them.
    pub std: Vec<f32>,
}

impl Normalization {
    /// Checks that this normalisation can be applied to images `[channels, height, width]`.
    ///
    /// # Errors
    /// If the number of means or standard deviations is not 1, `channels` or `channels · height · width`, a mean is not
    /// finite, or a standard deviation is not finite and positive.
    pub fn check(&self, shape: [usize; 3]) -> Result<(), DataError> {
        for values in [&self.mean, &self.std] {
            if ![1, shape[0], shape.iter().product()].contains(&values.len()) {
                return Err(DataError::Channels { channels: shape[0], values: values.len() });
            }
        }
        if !self.mean.iter().all(|x| x.is_finite()) || !self.std.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Err(DataError::InvalidStatistics);
        }
        Ok(())
    }

    /// Normalises an image of `channels` channels in place.
    ///
    /// # Panics
    /// If [`Self::check`] fails for images of this shape.
    pub fn apply(&self, channels: usize, pixels: &mut [f32]) {
        let plane = (pixels.len() / channels).max(1);
        if self.mean.len() > channels || self.std.len() > channels {
            let value = |values: &[f32], i: usize| {
                if values.len() > channels { values[i] } else { values[i / plane % values.len()] }
            };
            for (i, x) in pixels.iter_mut().enumerate() {
                *x = (*x - value(&self.mean, i)) / value(&self.std, i);
            }
            return;
        }
        for (c, pixels) in pixels.chunks_exact_mut(plane).enumerate() {
            let (mean, std) = (self.mean[c % self.mean.len()], self.std[c % self.std.len()]);
            pixels.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
    }
}

/// The mean and standard deviation of the values.
pub(crate) fn mean_and_std(values: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / n;
    let variance = values.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, variance.sqrt() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_apply_to_all_pixels_per_channel_or_per_value() {
        let normalized = |mean: &[f32], std: &[f32]| {
            let mut pixels = [1.0, 2.0, 3.0, 4.0];
            let normalization = Normalization { mean: mean.into(), std: std.into() };
            normalization.check([2, 1, 2]).unwrap();
            normalization.apply(2, &mut pixels);
            pixels
        };
        assert_eq!(normalized(&[1.0], &[2.0]), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(normalized(&[1.0, 3.0], &[1.0, 2.0]), [0.0, 1.0, 0.0, 0.5]);
        assert_eq!(normalized(&[1.0, 2.0, 3.0, 6.0], &[2.0]), [0.0, 0.0, 0.0, -1.0]);
        let check = |mean: &[f32], std: &[f32]| Normalization { mean: mean.into(), std: std.into() }.check([2, 1, 2]);
        assert!(
            check(&[0.0; 3], &[1.0]).is_err() && check(&[0.0], &[0.0]).is_err() && check(&[f32::NAN], &[1.0]).is_err()
        );
    }
}
