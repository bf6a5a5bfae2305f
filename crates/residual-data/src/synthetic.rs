use crate::{DataError, Dataset, Images};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// A seeded synthetic dataset. Each class has a random prototype, and each sample is the prototype of its class plus
/// Gaussian noise.
///
/// Sample `i` has label `i mod classes`. With the default noise, a linear classifier can separate the classes, so a
/// test can tell learning from guessing within a few steps.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// `[channels, height, width]`.
    pub shape: [usize; 3],
    /// The number of classes.
    pub classes: usize,
    /// The number of training samples.
    pub train: usize,
    /// The number of test samples.
    pub test: usize,
    /// The standard deviation of the noise. The prototypes have a standard deviation of 1.
    pub noise: f32,
    /// The seed of all random numbers.
    pub seed: u64,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { shape: [1, 8, 8], classes: 10, train: 320, test: 80, noise: 0.5, seed: 0 }
    }
}

impl Synthetic {
    /// Draws the dataset and normalises it with the mean and standard deviation of its training pixels.
    ///
    /// # Errors
    /// If there are no classes, or more classes than training samples.
    pub fn load(&self) -> Result<Dataset, DataError> {
        let (train, test) = self.images()?;
        Ok(Dataset::standardized(train, test))
    }

    /// Draws the training images and the test images.
    ///
    /// # Errors
    /// If there are no classes, or more classes than training samples.
    pub fn images(&self) -> Result<(Images, Images), DataError> {
        if self.classes == 0 || self.classes > self.train {
            return Err(DataError::Classes { samples: self.train, classes: self.classes });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut normal = move || -> f32 { StandardNormal.sample(&mut rng) };
        let values = self.shape.iter().product::<usize>();
        let prototypes: Vec<Vec<f32>> = (0..self.classes).map(|_| (0..values).map(|_| normal()).collect()).collect();
        let mut split = |samples: usize| {
            let labels: Vec<u16> = (0..samples).map(|i| (i % self.classes) as u16).collect();
            let mut pixels = Vec::with_capacity(samples * values);
            for &label in &labels {
                pixels.extend(prototypes[usize::from(label)].iter().map(|x| x + self.noise * normal()));
            }
            Images::new(self.shape, self.classes, pixels, labels)
        };
        Ok((split(self.train)?, split(self.test)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_depend_on_the_seed() {
        let draw = |seed| {
            let mut pixels = vec![0.0; 64];
            let label = Synthetic { seed, ..Synthetic::default() }.load().unwrap().train.read(7, &mut pixels).unwrap();
            (label, pixels)
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1).1, draw(2).1);
    }

    #[test]
    fn more_classes_than_samples_are_rejected() {
        let error = Synthetic { classes: 321, ..Synthetic::default() }.load().unwrap_err();
        assert!(error.to_string().contains("320 samples cannot have 321 classes"));
    }
}
