use crate::{Augmentation, DataError, Source};
use rand::rngs::ChaCha8Rng;
use std::sync::Arc;

/// The samples of one source followed by those of another.
pub(crate) struct Chain {
    first: Arc<dyn Source>,
    second: Arc<dyn Source>,
}

impl Chain {
    /// The two sources have the same image shape and the same classes.
    pub(crate) fn new(first: Arc<dyn Source>, second: Arc<dyn Source>) -> Self {
        Self { first, second }
    }

    fn at(&self, index: usize) -> (&dyn Source, usize) {
        match index.checked_sub(self.first.len()) {
            None => (&*self.first, index),
            Some(index) => (&*self.second, index),
        }
    }
}

impl Source for Chain {
    fn shape(&self) -> [usize; 3] {
        self.first.shape()
    }

    fn classes(&self) -> usize {
        self.first.classes()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        self.first.class_names()
    }

    fn len(&self) -> usize {
        self.first.len() + self.second.len()
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

#[cfg(test)]
mod tests {
    use crate::DataName;

    #[test]
    fn all_samples_are_the_training_samples_and_then_the_test_samples() {
        let digits = DataName::Digits.load().unwrap();
        let all = digits.all();
        assert_eq!(all.len(), 1797);
        let read = |source: &dyn crate::Source, index| {
            let mut pixels = [0.0; 64];
            (source.read(index, &mut pixels).unwrap(), pixels)
        };
        assert_eq!(read(&*all, 0), read(&*digits.train, 0));
        assert_eq!(read(&*all, 1436), read(&*digits.train, 1436));
        assert_eq!(read(&*all, 1437), read(&*digits.test, 0));
        assert_eq!(read(&*all, 1796), read(&*digits.test, 359));
        assert_eq!((all.classes(), all.shape(), all.class_names()), (10, [1, 8, 8], digits.test.class_names()));
    }
}
