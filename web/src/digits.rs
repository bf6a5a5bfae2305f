//! The digits that `residual-data` embeds, split as it splits them.

use flate2::read::GzDecoder;
use std::io::Read;

/// The number of pixels of an image, which is 8x8.
pub const PIXELS: usize = 64;

/// The number of training images; the rest is for tests.
const TRAIN: usize = 1437;

const IMAGES: &[u8] = include_bytes!("../../crates/residual-data/data/digits/images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../crates/residual-data/data/digits/labels-idx1-ubyte.gz");

/// Images and their labels.
pub struct Digits {
    /// The normalised pixels, row by row, image by image.
    pub pixels: Vec<f32>,
    /// The digit in each image.
    pub labels: Vec<usize>,
    mean: f32,
    deviation: f32,
}

impl Digits {
    /// The training images.
    pub fn training() -> Self {
        // The headers of the IDX format: four numbers of four bytes, and two.
        let (images, labels) = (unpack(IMAGES), unpack(LABELS));
        let pixels: Vec<f32> = images[16..][..TRAIN * PIXELS].iter().map(|&byte| f32::from(byte) / 16.0).collect();
        let labels = labels[8..][..TRAIN].iter().map(|&byte| byte.into()).collect();
        let average = |f: &dyn Fn(f64) -> f64| pixels.iter().map(|&x| f(x.into())).sum::<f64>() / pixels.len() as f64;
        let mean = average(&|x| x);
        let deviation = average(&|x| (x - mean).powi(2)).sqrt();
        let mut digits = Self { pixels: Vec::new(), labels, mean: mean as f32, deviation: deviation as f32 };
        digits.pixels = digits.normalized(&pixels);
        digits
    }

    /// Pixels from 0 to 1, normalised to the mean 0 and the standard deviation 1 of all training images, as `residual train`
    /// does.
    pub fn normalized(&self, pixels: &[f32]) -> Vec<f32> {
        pixels.iter().map(|x| (x - self.mean) / self.deviation).collect()
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut unpacked).expect("the embedded file is intact");
    unpacked
}
