use crate::{DataError, Images, formats::idx, mnist::digit_names};

const TRAIN: usize = 1437;
const CLASSES: usize = 10;

/// The training and test images of the embedded dataset [`crate::DataName::Digits`].
pub(crate) fn images() -> Result<(Images, Images), DataError> {
    let images = idx::read("digits/images", include_bytes!("../data/digits/images-idx3-ubyte.gz"))?;
    let labels = idx::read("digits/labels", include_bytes!("../data/digits/labels-idx1-ubyte.gz"))?;
    let shape = [1, images.dims[1], images.dims[2]];
    let values = shape.iter().product::<usize>();
    let split = |from: usize, to: usize| {
        let pixels = images.bytes[from * values..to * values].iter().map(|&x| f32::from(x) / 16.0).collect();
        let labels = labels.bytes[from..to].iter().map(|&x| x.into()).collect();
        let images = Images::new(shape, CLASSES, pixels, labels);
        images.map(|images| images.with_class_names(digit_names()))
    };
    Ok((split(0, TRAIN)?, split(TRAIN, labels.dims[0])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataName, Source};

    fn labels(source: &dyn Source) -> Vec<usize> {
        let mut pixels = [0.0; 64];
        (0..source.len()).map(|i| source.read(i, &mut pixels).unwrap()).collect()
    }

    #[test]
    fn class_counts_match_scikit_learn() {
        let digits = DataName::Digits.load().unwrap();
        assert_eq!((digits.train.len(), digits.test.len(), digits.shape()), (1437, 360, [1, 8, 8]));
        let all = [labels(&*digits.train), labels(&*digits.test)].concat();
        let counts: Vec<usize> = (0..10).map(|c| all.iter().filter(|&&l| l == c).count()).collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!(all[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn pixels_match_scikit_learn() {
        let idx = idx::read("images", include_bytes!("../data/digits/images-idx3-ubyte.gz")).unwrap();
        assert_eq!(idx.bytes[..16], [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0]);
        assert_eq!(idx.bytes.iter().map(|&x| u64::from(x)).sum::<u64>(), SUM);
    }

    /// `load_digits().images.sum()`.
    const SUM: u64 = 561_718;
}
