use crate::{DataError, Preprocessing, Synthetic, digits};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// Samples that a [`Loader`](crate::Loader) can read.
pub trait Source: Send + Sync {
    /// `[channels, height, width]` of every image.
    fn shape(&self) -> [usize; 3];

    /// The number of classes.
    fn classes(&self) -> usize;

    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the image of a sample, `channels · height · width` values in that order, and returns
    /// its label.
    ///
    /// # Errors
    /// If the sample cannot be read.
    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError>;
}

/// Images and labels held in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    shape: [usize; 3],
    classes: usize,
    pixels: Vec<f32>,
    labels: Vec<u16>,
}

impl Images {
    /// Images `[sample, channel, height, width]` in that order, with a label each.
    ///
    /// # Errors
    /// If a label has no class.
    ///
    /// # Panics
    /// If there are not as many images as labels.
    pub fn new(shape: [usize; 3], classes: usize, pixels: Vec<f32>, labels: Vec<u16>) -> Result<Self, DataError> {
        let values = shape.iter().product::<usize>();
        assert_eq!(pixels.len(), labels.len() * values, "as many images as labels");
        match labels.iter().position(|&label| usize::from(label) >= classes) {
            Some(index) => Err(DataError::Label { index, label: labels[index].into(), classes }),
            None => Ok(Self { shape, classes, pixels, labels }),
        }
    }

    /// Mean and standard deviation of all pixels.
    pub fn mean_and_std(&self) -> (f32, f32) {
        let n = self.pixels.len() as f64;
        let mean = self.pixels.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = self.pixels.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean as f32, variance.sqrt() as f32)
    }

    /// `(x - mean) / std` for every pixel.
    pub fn standardized(self, (mean, std): (f32, f32)) -> Self {
        self.scaled(&[mean], &[std])
    }

    /// `(x - mean[c]) / std[c]` for every pixel of channel c; one value serves all channels.
    ///
    /// # Errors
    /// If there are neither as many values as channels nor one, or a value makes no sense.
    pub fn normalized(self, mean: &[f32], std: &[f32]) -> Result<Self, DataError> {
        let channels = self.shape[0];
        for values in [mean, std] {
            if values.len() != channels && values.len() != 1 {
                return Err(DataError::Channels { channels, values: values.len() });
            }
        }
        if !mean.iter().all(|x| x.is_finite()) || !std.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Err(DataError::Statistics);
        }
        Ok(self.scaled(mean, std))
    }

    /// By one value for each channel, or one for all.
    fn scaled(mut self, mean: &[f32], std: &[f32]) -> Self {
        let [channels, height, width] = self.shape;
        for (i, plane) in self.pixels.chunks_exact_mut((height * width).max(1)).enumerate() {
            let c = i % channels;
            let (mean, std) = (mean[c % mean.len()], std[c % std.len()]);
            plane.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
        self
    }

    /// The labels.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }
}

impl Source for Images {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError> {
        let values = pixels.len();
        pixels.copy_from_slice(&self.pixels[index * values..][..values]);
        Ok(self.labels[index].into())
    }
}

/// A training and a test split of the same shape and classes.
#[derive(Clone)]
pub struct Dataset {
    /// The samples to train on.
    pub train: Arc<dyn Source>,
    /// The samples held out.
    pub test: Arc<dyn Source>,
}

impl Dataset {
    /// Both splits, with the mean and standard deviation of the training pixels taken out.
    pub fn standardized(train: Images, test: Images) -> Self {
        let statistics = train.mean_and_std();
        Self { train: Arc::new(train.standardized(statistics)), test: Arc::new(test.standardized(statistics)) }
    }

    /// `[channels, height, width]` of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.train.shape()
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.train.classes()
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({} train, {} test, {:?})", self.train.len(), self.test.len(), self.shape())
    }
}

/// A dataset by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataName {
    /// 1,797 handwritten digits of 8x8 pixels, embedded: 1,437 to train on, 360 to test, in file
    /// order (Alpaydin & Kaynak 1998, CC BY 4.0).
    #[default]
    Digits,
    /// Noisy class prototypes, for tests: see [`Synthetic`].
    Synthetic,
}

impl DataName {
    /// Every dataset there is.
    pub const ALL: &[Self] = &[Self::Digits, Self::Synthetic];

    /// Loads the dataset, standardised by its training pixels.
    ///
    /// # Errors
    /// If its files are not usable.
    pub fn load(self) -> Result<Dataset, DataError> {
        let (train, test) = self.images()?;
        Ok(Dataset::standardized(train, test))
    }

    /// Loads the dataset, its pixels normalised by this mean and standard deviation of each channel.
    ///
    /// # Errors
    /// If its files are not usable, or it has another number of channels.
    pub fn load_normalized(self, mean: &[f32], std: &[f32]) -> Result<Dataset, DataError> {
        let (train, test) = self.images()?;
        Ok(Dataset { train: Arc::new(train.normalized(mean, std)?), test: Arc::new(test.normalized(mean, std)?) })
    }

    /// The images to train on and those held out, pixels as they are: 0 to 1 in files of images.
    ///
    /// # Errors
    /// If its files are not usable.
    pub fn images(self) -> Result<(Images, Images), DataError> {
        match self {
            Self::Digits => digits::images(),
            Self::Synthetic => Synthetic::default().images(),
        }
    }

    /// What makes an image file like the images that [`Self::load`] gives.
    ///
    /// # Errors
    /// If the dataset's files are not usable.
    pub fn preprocessing(self) -> Result<Preprocessing, DataError> {
        let (train, _) = self.images()?;
        let ([channels, side, _], (mean, std)) = (train.shape(), train.mean_and_std());
        Ok(Preprocessing { resize: side, crop: side, mean: vec![mean; channels], std: vec![std; channels] })
    }
}

impl fmt::Display for DataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digits => "digits",
            Self::Synthetic => "synthetic",
        })
    }
}

impl FromStr for DataName {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL.iter().copied().find(|data| data.to_string() == name).ok_or_else(|| {
            let expected = Self::ALL.iter().map(Self::to_string).collect::<Vec<_>>().join(", ");
            DataError::UnknownDataset { name: name.into(), expected }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_a_class_is_named() {
        let error = Images::new([1, 1, 1], 2, vec![0.0; 3], vec![0, 1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "sample 2 has label 2, but there are 2 classes");
    }

    #[test]
    fn standardised_pixels_have_mean_zero_and_std_one() {
        let images = Images::new([1, 2, 2], 1, vec![1.0, 2.0, 3.0, 6.0], vec![0]).unwrap();
        let (mean, std) = images.mean_and_std();
        assert_eq!((mean, std), (3.0, 3.5f32.sqrt()));
        let (mean, std) = images.standardized((mean, std)).mean_and_std();
        assert!(mean.abs() < 1e-6 && (std - 1.0).abs() < 1e-6);
    }

    #[test]
    fn an_unknown_dataset_lists_the_known_ones() {
        let error = "cifar11".parse::<DataName>().unwrap_err();
        assert_eq!(error.to_string(), "unknown dataset `cifar11`; expected one of digits, synthetic");
    }
}
