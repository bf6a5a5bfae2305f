use crate::{
    Augmentation, DataError, Fingerprint, Normalization, Normalize, Preprocessing, hash::Hasher,
    normalization::mean_and_std,
};
use rand::rngs::ChaCha8Rng;
use std::{fmt, sync::Arc};

/// A set of labelled images that a [`Loader`](crate::Loader) can read.
pub trait Source: Send + Sync {
    /// `[channels, height, width]` of every image.
    fn shape(&self) -> [usize; 3];

    /// The number of classes.
    fn classes(&self) -> usize;

    /// The names of the classes, if the dataset has them.
    fn class_names(&self) -> Option<Vec<String>> {
        None
    }

    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the image of a sample, `[channels, height, width]`, into `pixels` and returns its label.
    ///
    /// # Errors
    /// If the sample cannot be read.
    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError>;

    /// The name of a sample, if it has one: for a file, its path within the dataset's folder, separated by `/`.
    fn name(&self, _index: usize) -> Option<String> {
        None
    }

    /// A hash by which [`Dataset::fingerprint`] notices that a sample changed: of the label and the pixels, or, for a
    /// file, of its class, name and size.
    ///
    /// # Errors
    /// If the sample cannot be read.
    fn identity(&self, index: usize) -> Result<u64, DataError> {
        let mut pixels = vec![0.0; self.shape().iter().product()];
        let label = self.read(index, &mut pixels)?;
        let mut hasher = Hasher::default();
        hasher.write(&(label as u64).to_le_bytes());
        pixels.iter().for_each(|x| hasher.write(&x.to_le_bytes()));
        Ok(hasher.finish())
    }

    /// Like [`Self::read`], but also augments the image. Mixup and label smoothing are left to the loader.
    ///
    /// # Errors
    /// If the sample cannot be read.
    fn read_augmented(
        &self,
        index: usize,
        augmentation: &Augmentation,
        rng: &mut ChaCha8Rng,
        pixels: &mut [f32],
    ) -> Result<usize, DataError> {
        let label = self.read(index, pixels)?;
        augmentation.apply(self.shape(), pixels, rng);
        Ok(label)
    }
}

/// Images and labels held in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    shape: [usize; 3],
    classes: usize,
    pixels: Pixels,
    labels: Vec<u16>,
    class_names: Option<Vec<String>>,
    normalization: Option<Normalization>,
}

#[derive(Clone, Debug, PartialEq)]
enum Pixels {
    /// Bytes from 0 to 255, which represent pixel values from 0 to 1.
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Pixels {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Floats(floats) => floats.len(),
        }
    }

    fn get(&self, index: usize) -> f32 {
        match self {
            Self::Bytes(bytes) => f32::from(bytes[index]) / 255.0,
            Self::Floats(floats) => floats[index],
        }
    }
}

impl Images {
    /// Creates a set of images `[samples, channels, height, width]` with one label per image. The `shape` of an image
    /// is `[channels, height, width]`.
    ///
    /// # Errors
    /// If a label is not below `classes`.
    ///
    /// # Panics
    /// If the number of images differs from the number of labels.
    pub fn new(shape: [usize; 3], classes: usize, pixels: Vec<f32>, labels: Vec<u16>) -> Result<Self, DataError> {
        Self::from_pixels(shape, classes, Pixels::Floats(pixels), labels)
    }

    /// Like [`Self::new`], but from bytes. Bytes from 0 to 255 represent pixel values from 0 to 1.
    ///
    /// # Errors
    /// If a label is not below `classes`.
    ///
    /// # Panics
    /// If the number of images differs from the number of labels.
    pub fn from_bytes(shape: [usize; 3], classes: usize, pixels: Vec<u8>, labels: Vec<u16>) -> Result<Self, DataError> {
        Self::from_pixels(shape, classes, Pixels::Bytes(pixels), labels)
    }

    fn from_pixels(shape: [usize; 3], classes: usize, pixels: Pixels, labels: Vec<u16>) -> Result<Self, DataError> {
        let values = shape.iter().product::<usize>();
        assert_eq!(pixels.len(), labels.len() * values, "the number of labels must equal the number of images");
        match labels.iter().position(|&label| usize::from(label) >= classes) {
            Some(index) => Err(DataError::Label { index, label: labels[index].into(), classes }),
            None => Ok(Self { shape, classes, pixels, labels, class_names: None, normalization: None }),
        }
    }

    /// The mean and standard deviation of these pixels, before any normalisation.
    pub fn statistics(&self, by: Normalize) -> Normalization {
        match (&self.pixels, by) {
            (Pixels::Bytes(bytes), Normalize::All | Normalize::Channel) => self.byte_statistics(bytes, by),
            _ => self.value_statistics(by),
        }
    }

    /// Computes the statistics from the histogram of the bytes.
    fn byte_statistics(&self, bytes: &[u8], by: Normalize) -> Normalization {
        let [channels, height, width] = self.shape;
        let mut counts = vec![[0u64; 256]; if by == Normalize::All { 1 } else { channels }];
        for (i, plane) in bytes.chunks_exact((height * width).max(1)).enumerate() {
            let count = counts.len();
            let counts = &mut counts[i % count];
            plane.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        }
        let moments = |counts: &[u64; 256]| {
            let n = counts.iter().sum::<u64>().max(1) as f64;
            let sum = |f: &dyn Fn(f64) -> f64| -> f64 {
                counts.iter().enumerate().map(|(byte, &count)| count as f64 * f(byte as f64 / 255.0)).sum::<f64>() / n
            };
            let mean = sum(&|x| x);
            (mean as f32, sum(&|x| (x - mean).powi(2)).sqrt() as f32)
        };
        let (mean, std) = counts.iter().map(moments).unzip();
        Normalization { mean, std }
    }

    fn value_statistics(&self, by: Normalize) -> Normalization {
        let [channels, height, width] = self.shape;
        let (plane, values) = (height * width, channels * height * width);
        let pixel = |i: usize| self.pixels.get(i);
        let count = self.pixels.len();
        match by {
            Normalize::All => {
                let (mean, std) = mean_and_std((0..count).map(pixel));
                Normalization { mean: vec![mean], std: vec![std] }
            }
            Normalize::Channel => {
                let channel = |c: usize| {
                    let images = (0..count).step_by(values.max(1));
                    mean_and_std(images.flat_map(move |image| image + c * plane..image + (c + 1) * plane).map(pixel))
                };
                let (mean, std) = (0..channels).map(channel).unzip();
                Normalization { mean, std }
            }
            Normalize::Pixel => {
                let mut mean = vec![0.0f64; values];
                (0..count).for_each(|i| mean[i % values] += f64::from(pixel(i)));
                let mean: Vec<f32> =
                    mean.iter().map(|sum| (sum * values as f64 / count.max(1) as f64) as f32).collect();
                let (_, std) = mean_and_std((0..count).map(|i| pixel(i) - mean[i % values]));
                Normalization { mean, std: vec![std] }
            }
        }
    }

    /// The same images, to be normalised whenever they are read.
    ///
    /// # Errors
    /// The same as for [`Normalization::check`] with the shape of these images.
    pub fn normalized(self, normalization: Normalization) -> Result<Self, DataError> {
        normalization.check(self.shape)?;
        Ok(Self { normalization: Some(normalization), ..self })
    }

    /// The same images with class names.
    ///
    /// # Panics
    /// If the number of names differs from the number of classes.
    #[must_use]
    pub fn with_class_names(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        assert_eq!(names.len(), self.classes, "the number of names must equal the number of classes");
        Self { class_names: Some(names), ..self }
    }

    /// The labels.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// The smallest and the largest pixel value, before any normalisation. Bytes represent values from 0 to 1.
    pub(crate) fn range(&self) -> [f32; 2] {
        match &self.pixels {
            Pixels::Bytes(_) => [0.0, 1.0],
            Pixels::Floats(floats) => {
                floats.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &x| [low.min(x), high.max(x)])
            }
        }
    }

    /// The bytes of a sample's image, if the images are stored as bytes.
    pub(crate) fn bytes(&self, index: usize) -> Option<&[u8]> {
        let values = self.shape.iter().product::<usize>();
        match &self.pixels {
            Pixels::Bytes(bytes) => Some(&bytes[index * values..][..values]),
            Pixels::Floats(_) => None,
        }
    }
}

impl Source for Images {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn class_names(&self) -> Option<Vec<String>> {
        self.class_names.clone()
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    /// A hash of the label and the pixels, before any normalisation.
    fn identity(&self, index: usize) -> Result<u64, DataError> {
        let values = self.shape.iter().product::<usize>();
        let mut hasher = Hasher::default();
        hasher.write(&self.labels[index].to_le_bytes());
        match &self.pixels {
            Pixels::Bytes(bytes) => hasher.write(&bytes[index * values..][..values]),
            Pixels::Floats(floats) => {
                floats[index * values..][..values].iter().for_each(|x| hasher.write(&x.to_le_bytes()));
            }
        }
        Ok(hasher.finish())
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError> {
        let values = pixels.len();
        match &self.pixels {
            Pixels::Bytes(bytes) => {
                let bytes = &bytes[index * values..][..values];
                pixels.iter_mut().zip(bytes).for_each(|(x, byte)| *x = f32::from(*byte) / 255.0);
            }
            Pixels::Floats(floats) => pixels.copy_from_slice(&floats[index * values..][..values]),
        }
        if let Some(normalization) = &self.normalization {
            normalization.apply(self.shape[0], pixels);
        }
        Ok(self.labels[index].into())
    }
}

/// Some samples of one source, or the samples of several sources.
#[derive(Clone)]
pub struct Subset {
    sources: Vec<Arc<dyn Source>>,
    /// The source of each sample and the sample's index in it.
    samples: Vec<(usize, usize)>,
}

impl Subset {
    /// The samples with these indices.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn new(source: Arc<dyn Source>, indices: Vec<usize>) -> Self {
        assert!(indices.iter().all(|&index| index < source.len()), "an index is out of range");
        Self { sources: vec![source], samples: indices.into_iter().map(|index| (0, index)).collect() }
    }

    /// `count` evenly spaced samples, or all samples if the source has fewer.
    pub fn evenly(source: Arc<dyn Source>, count: usize) -> Self {
        let len = source.len();
        let count = count.min(len);
        Self::new(source, (0..count).map(|i| i * len / count).collect())
    }

    /// All samples of sources that have the same image shape and the same classes, one source after the other.
    fn joined(sources: Vec<Arc<dyn Source>>) -> Self {
        let samples = sources.iter().enumerate().flat_map(|(i, source)| (0..source.len()).map(move |index| (i, index)));
        Self { samples: samples.collect(), sources }
    }

    fn at(&self, index: usize) -> (&dyn Source, usize) {
        let (source, index) = self.samples[index];
        (&*self.sources[source], index)
    }
}

impl Source for Subset {
    fn shape(&self) -> [usize; 3] {
        self.sources[0].shape()
    }

    fn classes(&self) -> usize {
        self.sources[0].classes()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        self.sources[0].class_names()
    }

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError> {
        let (source, index) = self.at(index);
        source.read(index, pixels)
    }

    fn name(&self, index: usize) -> Option<String> {
        let (source, index) = self.at(index);
        source.name(index)
    }

    fn identity(&self, index: usize) -> Result<u64, DataError> {
        let (source, index) = self.at(index);
        source.identity(index)
    }

    fn read_augmented(
        &self,
        index: usize,
        augmentation: &Augmentation,
        rng: &mut ChaCha8Rng,
        pixels: &mut [f32],
    ) -> Result<usize, DataError> {
        let (source, index) = self.at(index);
        source.read_augmented(index, augmentation, rng, pixels)
    }
}

/// A training split and a test split with the same image shape and the same classes.
#[derive(Clone)]
pub struct Dataset {
    /// The samples to train on.
    pub train: Arc<dyn Source>,
    /// The held-out samples.
    pub test: Arc<dyn Source>,
    /// The preprocessing that turns an image file into an image like those in the splits.
    pub preprocessing: Preprocessing,
    /// What the user should know about the dataset, such as which folders are splits and which files were left out.
    /// Each note is a sentence without a full stop.
    pub notes: Vec<String>,
    /// Where the held-out samples come from.
    pub held_out: HeldOut,
}

/// Where the held-out samples of a dataset come from, unless they are training samples held out for validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldOut {
    /// The dataset has a held-out split.
    Given,
    /// The dataset has no held-out split, so they were chosen from all samples.
    Chosen,
}

impl Dataset {
    /// Normalises both splits with the mean and standard deviation of all training pixels.
    ///
    /// # Panics
    /// If all training pixels have the same value.
    pub fn standardized(train: Images, test: Images) -> Self {
        Self::normalized(train, test, Normalize::All).expect("the training pixels must not all have the same value")
    }

    /// Normalises both splits with the statistics of the training pixels.
    ///
    /// # Errors
    /// If a standard deviation is zero, because all the pixels it is computed from have the same value.
    pub fn normalized(train: Images, test: Images, by: Normalize) -> Result<Self, DataError> {
        let statistics = train.statistics(by);
        Self::normalized_by(train, test, statistics)
    }

    /// Normalises both splits with the given means and standard deviations.
    ///
    /// # Errors
    /// The same as for [`Normalization::check`] with the shape of the images.
    pub fn normalized_by(train: Images, test: Images, by: Normalization) -> Result<Self, DataError> {
        let [channels, side, _] = train.shape();
        let spread = |values: &[f32]| match values {
            [value] => vec![*value; channels],
            values => values.to_vec(),
        };
        let preprocessing = Preprocessing {
            resize: side,
            crop: side,
            mean: spread(&by.mean),
            std: spread(&by.std),
            ignore_exif: false,
        };
        let (train, test) = (train.normalized(by.clone())?, test.normalized(by)?);
        Ok(Self {
            train: Arc::new(train),
            test: Arc::new(test),
            preprocessing,
            notes: Vec::new(),
            held_out: HeldOut::Given,
        })
    }

    /// `[channels, height, width]` of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.train.shape()
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.train.classes()
    }

    /// The training samples followed by the held-out samples.
    pub fn all(&self) -> Arc<dyn Source> {
        Arc::new(Subset::joined(vec![self.train.clone(), self.test.clone()]))
    }

    /// The fingerprint of the dataset, to be compared with a later one.
    ///
    /// # Errors
    /// If a sample cannot be read. Files are not opened; only their sizes are read.
    pub fn fingerprint(&self) -> Result<Fingerprint, DataError> {
        Fingerprint::of(self)
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({} train, {} test, {:?})", self.train.len(), self.test.len(), self.shape())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_samples_are_the_training_samples_and_then_the_test_samples() {
        let digits = crate::DataName::Digits.load().unwrap();
        let all = digits.all();
        assert_eq!(all.len(), 1797);
        let read = |source: &dyn Source, index| {
            let mut pixels = [0.0; 64];
            (source.read(index, &mut pixels).unwrap(), pixels)
        };
        assert_eq!(read(&*all, 0), read(&*digits.train, 0));
        assert_eq!(read(&*all, 1436), read(&*digits.train, 1436));
        assert_eq!(read(&*all, 1437), read(&*digits.test, 0));
        assert_eq!(read(&*all, 1796), read(&*digits.test, 359));
        assert_eq!((all.classes(), all.shape(), all.class_names()), (10, [1, 8, 8], digits.test.class_names()));
    }

    #[test]
    fn an_out_of_range_label_is_rejected() {
        let error = Images::new([1, 1, 1], 2, vec![0.0; 3], vec![0, 1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "sample 2 has label 2, but there are 2 classes");
    }

    #[test]
    fn statistics_are_computed_over_all_pixels_per_channel_or_per_pixel() {
        let images = Images::new([2, 1, 2], 1, vec![1.0, 2.0, 3.0, 6.0, 3.0, 2.0, 1.0, 6.0], vec![0, 0]).unwrap();
        let by = |kind| images.statistics(kind);
        let close = |a: &[f32], b: &[f32]| {
            assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
        };
        close(&by(Normalize::All).mean, &[3.0]);
        close(&by(Normalize::All).std, &[3.5f32.sqrt()]);
        close(&by(Normalize::Channel).mean, &[2.0, 4.0]);
        close(&by(Normalize::Channel).std, &[0.5f32.sqrt(), 4.5f32.sqrt()]);
        close(&by(Normalize::Pixel).mean, &[2.0, 2.0, 2.0, 6.0]);
        close(&by(Normalize::Pixel).std, &[0.5f32.sqrt()]);
        let bytes: Vec<u8> = (0..240).map(|i| (i * 37 % 251) as u8).collect();
        let floats = bytes.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let labels = vec![0; 10];
        let floats = Images::new([2, 3, 4], 1, floats, labels.clone()).unwrap();
        let bytes = Images::from_bytes([2, 3, 4], 1, bytes, labels).unwrap();
        for kind in [Normalize::All, Normalize::Channel, Normalize::Pixel] {
            let (a, b) = (bytes.statistics(kind), floats.statistics(kind));
            close(&a.mean, &b.mean);
            close(&a.std, &b.std);
        }
    }

    #[test]
    fn bytes_are_scaled_to_one_and_normalised() {
        let images = Images::from_bytes([1, 1, 2], 1, vec![0, 255, 51, 102], vec![0, 0]).unwrap();
        let images = images.normalized(Normalization { mean: vec![0.2], std: vec![0.5] }).unwrap();
        let mut pixels = [0.0; 2];
        images.read(1, &mut pixels).unwrap();
        assert!(pixels[0].abs() < 1e-6 && (pixels[1] - 0.4).abs() < 1e-6);
    }

    #[test]
    fn a_subset_is_evenly_spaced() {
        let images = Images::new([1, 1, 1], 10, (0..10).map(|i| i as f32).collect(), (0..10).collect()).unwrap();
        let labels = |count| {
            let subset = Subset::evenly(Arc::new(images.clone()), count);
            (0..subset.len()).map(|i| subset.read(i, &mut [0.0]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(labels(4), [0, 2, 5, 7]);
        assert_eq!(labels(99).len(), 10);
    }
}
