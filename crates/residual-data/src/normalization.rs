use crate::DataError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What the pixels of a training set are normalised by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// The mean and standard deviation of all pixels.
    #[default]
    All,
    /// Those of each channel.
    Channel,
    /// The mean of each pixel over the images (Krizhevsky et al. 2012, section 2), and one standard deviation,
    /// that of all differences from these means.
    Pixel,
}

impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Channel => "channel",
            Self::Pixel => "pixel",
        })
    }
}

impl FromStr for Normalize {
    type Err = DataError;

    fn from_str(word: &str) -> Result<Self, DataError> {
        [Self::All, Self::Channel, Self::Pixel].into_iter().find(|kind| kind.to_string() == word).ok_or_else(|| {
            DataError::UnknownWord { what: "normalisation", word: word.into(), expected: "all, channel or pixel" }
        })
    }
}

/// `(x - mean) / std`, by one value for all pixels, one for each channel or one for each value of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The means.
    pub mean: Vec<f32>,
    /// The standard deviations.
    pub std: Vec<f32>,
}

impl Normalization {
    /// Fails unless images `[channels, height, width]` can be normalised so.
    ///
    /// # Errors
    /// If there is neither one value nor as many as channels or as values of an image, or one makes no sense.
    pub fn check(&self, shape: [usize; 3]) -> Result<(), DataError> {
        for values in [&self.mean, &self.std] {
            if ![1, shape[0], shape.iter().product()].contains(&values.len()) {
                return Err(DataError::Channels { channels: shape[0], values: values.len() });
            }
        }
        if !self.mean.iter().all(|x| x.is_finite()) || !self.std.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Err(DataError::Statistics);
        }
        Ok(())
    }

    /// Normalises an image of `channels` channels, in place.
    ///
    /// # Panics
    /// If [`Self::check`] fails for such images.
    pub fn apply(&self, channels: usize, pixels: &mut [f32]) {
        let plane = (pixels.len() / channels).max(1);
        if self.mean.len() > channels || self.std.len() > channels {
            let of = |values: &[f32], i: usize| {
                if values.len() > channels { values[i] } else { values[i / plane % values.len()] }
            };
            for (i, x) in pixels.iter_mut().enumerate() {
                *x = (*x - of(&self.mean, i)) / of(&self.std, i);
            }
            return;
        }
        for (c, pixels) in pixels.chunks_exact_mut(plane).enumerate() {
            let (mean, std) = (self.mean[c % self.mean.len()], self.std[c % self.std.len()]);
            pixels.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
    }
}

/// Mean and standard deviation of some values.
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
    fn one_value_serves_all_and_others_their_channel_or_pixel() {
        let by = |mean: &[f32], std: &[f32]| {
            let mut pixels = [1.0, 2.0, 3.0, 4.0];
            let normalization = Normalization { mean: mean.into(), std: std.into() };
            normalization.check([2, 1, 2]).unwrap();
            normalization.apply(2, &mut pixels);
            pixels
        };
        assert_eq!(by(&[1.0], &[2.0]), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(by(&[1.0, 3.0], &[1.0, 2.0]), [0.0, 1.0, 0.0, 0.5]);
        assert_eq!(by(&[1.0, 2.0, 3.0, 6.0], &[2.0]), [0.0, 0.0, 0.0, -1.0]);
        let check = |mean: &[f32], std: &[f32]| Normalization { mean: mean.into(), std: std.into() }.check([2, 1, 2]);
        assert!(
            check(&[0.0; 3], &[1.0]).is_err() && check(&[0.0], &[0.0]).is_err() && check(&[f32::NAN], &[1.0]).is_err()
        );
    }
}
