use crate::DataError;
use rand::{RngExt, rngs::ChaCha8Rng};
use rand_distr::{Beta, Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// The random augmentation of training images. It is applied after normalisation, so pixels filled with 0 have the mean
/// value. Test images are not augmented.
///
/// The random numbers for a sample depend only on (seed, epoch, sample). Mixup pairs the first image of a batch with
/// the last, the second with the last but one, and so on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Padding of the random crop, in pixels: the image is padded with zeros on each side and cropped to its original
    /// size at a random position (He et al. 2015, section 4.2: 4). 0 turns it off.
    pub crop: usize,
    /// Flips the image left to right with probability ½.
    pub flip: bool,
    /// Minimum area of the random resized crop, as a fraction of the image's area: a random rectangle with an aspect
    /// ratio of 3:4 to 4:3 is resized to the original size (Szegedy et al. 2015, section 6: 0.08).
    pub resized_crop: Option<f64>,
    /// Side of the square around a random pixel that cutout sets to 0, in pixels (DeVries & Taylor 2017). 0 turns it
    /// off.
    pub cutout: usize,
    /// Probability of random erasing, which fills a rectangle of 2 to 33 % of the area, with an aspect ratio of 3:10 to
    /// 10:3, with standard normal noise (Zhong et al. 2020).
    pub erase: f64,
    /// α of mixup, which averages each image and its label with another image and label of the batch. The weight λ is
    /// drawn from Beta(α, α) (Zhang et al. 2018). 0 turns it off.
    pub mixup: f64,
    /// ε of label smoothing: the target is `(1 - ε) · one_hot(label) + ε / classes` (Szegedy et al. 2016, section 7).
    pub label_smoothing: f64,
}

impl Augmentation {
    /// Checks the settings for images of this height and width.
    ///
    /// # Errors
    /// If a setting is out of range. The error names the setting and its range.
    pub fn check(&self, [height, width]: [usize; 2]) -> Result<(), DataError> {
        let setting = |name: &'static str, expected: &str, value: &dyn Display| {
            Err(DataError::Setting { name, expected: expected.into(), value: value.to_string() })
        };
        let side = height.min(width);
        let at_most_the_side = format!("at most the image's side, {side}");
        let is_fraction = |x: f64| (0.0..=1.0).contains(&x);
        if self.crop > side {
            setting("the crop padding", &at_most_the_side, &self.crop)
        } else if self.cutout > side {
            setting("the cutout size", &at_most_the_side, &self.cutout)
        } else if let Some(area) = self.resized_crop.filter(|area| !(is_fraction(*area) && *area > 0.0)) {
            setting("the minimum area of the resized crop", "above 0 and at most 1", &area)
        } else if !is_fraction(self.erase) {
            setting("the erasing probability", "between 0 and 1", &self.erase)
        } else if !(self.mixup.is_finite() && self.mixup >= 0.0) {
            setting("the mixup alpha", "finite and at least 0", &self.mixup)
        } else if !(0.0..1.0).contains(&self.label_smoothing) {
            setting("the label smoothing", "at least 0 and below 1", &self.label_smoothing)
        } else {
            Ok(())
        }
    }

    /// Whether the targets are class probabilities rather than labels.
    pub(crate) fn has_soft_targets(&self) -> bool {
        self.mixup > 0.0 || self.label_smoothing > 0.0
    }

    /// Augments an image `[channels, height, width]` in place.
    pub(crate) fn apply(&self, shape: [usize; 3], pixels: &mut [f32], rng: &mut ChaCha8Rng) {
        if let Some(min_area) = self.resized_crop {
            let rect = random_rect([shape[1], shape[2]], min_area, rng);
            resize_crop(shape, pixels, rect);
        }
        self.apply_after_resizing(shape, pixels, rng);
    }

    /// Applies every augmentation except the resized crop to an image in place.
    pub(crate) fn apply_after_resizing(&self, shape: [usize; 3], pixels: &mut [f32], rng: &mut ChaCha8Rng) {
        let [_, height, width] = shape;
        if self.crop > 0 {
            let [down, right] = [0; 2].map(|_| rng.random_range(0..=2 * self.crop) as isize - self.crop as isize);
            shift(shape, pixels, down, right);
        }
        if self.flip && rng.random::<bool>() {
            pixels.chunks_exact_mut(width).for_each(<[f32]>::reverse);
        }
        if self.cutout > 0 {
            let (y, x) = (rng.random_range(0..height), rng.random_range(0..width));
            let span = |at: usize, side: usize| {
                let from = at as isize - (self.cutout / 2) as isize;
                from.max(0) as usize..(from + self.cutout as isize).min(side as isize) as usize
            };
            let (rows, columns) = (span(y, height), span(x, width));
            for plane in pixels.chunks_exact_mut(height * width) {
                rows.clone().for_each(|y| plane[y * width..][columns.clone()].fill(0.0));
            }
        }
        if self.erase > 0.0 && rng.random::<f64>() < self.erase {
            erase(shape, pixels, rng);
        }
    }

    /// Draws the mixup weight λ of a sample.
    pub(crate) fn mixup_weight(&self, rng: &mut ChaCha8Rng) -> f32 {
        match Beta::new(self.mixup, self.mixup) {
            Ok(beta) => beta.sample(rng) as f32,
            Err(_) => 1.0,
        }
    }
}

/// A rectangle of pixels in an image.
#[derive(Clone, Copy)]
pub(crate) struct Rect {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// A random rectangle at a random position. Its area is at least the fraction `min_area` of the image's area, and its
/// aspect ratio is between 3:4 and 4:3. If ten random rectangles do not fit into the image, returns the largest centred
/// rectangle with an aspect ratio in this range.
pub(crate) fn random_rect([height, width]: [usize; 2], min_area: f64, rng: &mut ChaCha8Rng) -> Rect {
    let area = (height * width) as f64;
    for _ in 0..10 {
        let size = random_size(area * rng.random_range(min_area..=1.0), 3.0 / 4.0, rng);
        if let Some(rect) = random_position([height, width], size, rng) {
            return rect;
        }
    }
    let [rows, columns] = [height.min((width * 4).div_ceil(3)), width.min((height * 4).div_ceil(3))];
    Rect { top: (height - rows) / 2, left: (width - columns) / 2, height: rows, width: columns }
}

/// The height and width of a random rectangle with this area. Its aspect ratio is drawn log-uniformly from `min_aspect`
/// to `1 / min_aspect`.
fn random_size(area: f64, min_aspect: f64, rng: &mut ChaCha8Rng) -> [usize; 2] {
    let aspect = rng.random_range(min_aspect.ln()..=-min_aspect.ln()).exp();
    [(area / aspect).sqrt().round() as usize, (area * aspect).sqrt().round() as usize]
}

/// A rectangle of `rows` by `columns` pixels at a random position, or `None` if it does not fit into the image.
fn random_position([height, width]: [usize; 2], [rows, columns]: [usize; 2], rng: &mut ChaCha8Rng) -> Option<Rect> {
    let fits = (1..=height).contains(&rows) && (1..=width).contains(&columns);
    fits.then(|| Rect {
        top: rng.random_range(0..=height - rows),
        left: rng.random_range(0..=width - columns),
        height: rows,
        width: columns,
    })
}

/// Shifts the image and fills the uncovered pixels with 0.
fn shift([_, height, width]: [usize; 3], pixels: &mut [f32], down: isize, right: isize) {
    let inside = |at: isize, side: usize| usize::try_from(at).ok().filter(|&at| at < side);
    let mut moved = vec![0.0; height * width];
    for plane in pixels.chunks_exact_mut(height * width) {
        moved.fill(0.0);
        for y in 0..height {
            let Some(from) = inside(y as isize - down, height) else { continue };
            for x in 0..width {
                if let Some(x_from) = inside(x as isize - right, width) {
                    moved[y * width + x] = plane[from * width + x_from];
                }
            }
        }
        plane.copy_from_slice(&moved);
    }
}

/// Crops the image to a rectangle and resizes the crop to the original size by bilinear interpolation with half-pixel
/// centres.
fn resize_crop([_, height, width]: [usize; 3], pixels: &mut [f32], rect: Rect) {
    let taps = |from: usize, count: usize, side: usize| -> Vec<(usize, usize, f32)> {
        let tap = |i: usize| {
            let at = ((i as f32 + 0.5) * count as f32 / side as f32 - 0.5).clamp(0.0, (count - 1) as f32);
            let low = at as usize;
            (from + low, from + (low + 1).min(count - 1), at - low as f32)
        };
        (0..side).map(tap).collect()
    };
    let (vertical, horizontal) = (taps(rect.top, rect.height, height), taps(rect.left, rect.width, width));
    for plane in pixels.chunks_exact_mut(height * width) {
        let image = plane.to_vec();
        for (row, &(above, below, v)) in plane.chunks_exact_mut(width).zip(&vertical) {
            for (pixel, &(before, after, u)) in row.iter_mut().zip(&horizontal) {
                let between = |y: usize| image[y * width + before] * (1.0 - u) + image[y * width + after] * u;
                *pixel = between(above) * (1.0 - v) + between(below) * v;
            }
        }
    }
}

/// Fills a random rectangle with standard normal noise. If ten random rectangles do not fit into the image, leaves it
/// unchanged.
fn erase([_, height, width]: [usize; 3], pixels: &mut [f32], rng: &mut ChaCha8Rng) {
    let area = (height * width) as f64;
    for _ in 0..10 {
        let size = random_size(area * rng.random_range(0.02..=0.33), 0.3, rng);
        if let Some(rect) = random_position([height, width], size, rng) {
            for plane in pixels.chunks_exact_mut(height * width) {
                for y in rect.top..rect.top + rect.height {
                    plane[y * width + rect.left..][..rect.width]
                        .iter_mut()
                        .for_each(|x| *x = StandardNormal.sample(rng));
                }
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn augmentation() -> impl Strategy<Value = Augmentation> {
        (0usize..4, any::<bool>(), proptest::option::of(0.05f64..1.0), 0usize..4, 0.0f64..=1.0).prop_map(
            |(crop, flip, resized_crop, cutout, erase)| Augmentation {
                crop,
                flip,
                resized_crop,
                cutout,
                erase,
                ..Augmentation::default()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pixels_stay_in_range_and_repeat_for_a_seed(
            augmentation in augmentation(), channels in 1usize..4, height in 4usize..12, width in 4usize..12, seed: u64,
        ) {
            let augmentation = Augmentation { erase: 0.0, ..augmentation };
            augmentation.check([height, width]).unwrap();
            let image: Vec<f32> = (0..channels * height * width).map(|i| 1.0 + (i % 7) as f32).collect();
            let mut changed = image.clone();
            augmentation.apply([channels, height, width], &mut changed, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert!(changed.iter().all(|x| *x == 0.0 || (0.999..7.001).contains(x)));
            let mut again = image.clone();
            augmentation.apply([channels, height, width], &mut again, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(changed, again);
        }

        #[test]
        fn a_random_rect_lies_in_the_image(
            height in 1usize..300, width in 1usize..300, min_area in 0.01f64..=1.0, seed: u64,
        ) {
            let rect = random_rect([height, width], min_area, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert!(rect.height >= 1 && rect.width >= 1);
            prop_assert!(rect.top + rect.height <= height && rect.left + rect.width <= width);
        }
    }

    fn numbered() -> Vec<f32> {
        (1..=9).map(|i| i as f32).collect()
    }

    #[test]
    fn a_shift_fills_with_zeros() {
        let mut image = numbered();
        shift([1, 3, 3], &mut image, 1, -1);
        assert_eq!(image, [0.0, 0.0, 0.0, 2.0, 3.0, 0.0, 5.0, 6.0, 0.0]);
    }

    #[test]
    fn all_crops_and_flips_are_drawn() {
        let augmentation = Augmentation { crop: 1, flip: true, ..Augmentation::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let mut image = numbered();
            augmentation.apply([1, 3, 3], &mut image, &mut rng);
            seen.insert(image.iter().map(|x| *x as u8).collect::<Vec<_>>());
        }
        assert_eq!(seen.len(), 2 * 9);
    }

    #[test]
    fn resizing_is_bilinear_and_keeps_a_full_crop() {
        let mut image = numbered();
        resize_crop([1, 3, 3], &mut image, Rect { top: 0, left: 0, height: 3, width: 3 });
        assert_eq!(image, numbered());
        let mut row = [0.0, 4.0, 8.0, 12.0];
        resize_crop([1, 1, 4], &mut row, Rect { top: 0, left: 1, height: 1, width: 2 });
        assert_eq!(row, [4.0, 5.0, 7.0, 8.0]);
    }

    #[test]
    fn cutout_is_a_square_clipped_at_the_border() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let augmentation = Augmentation { cutout: 2, ..Augmentation::default() };
        let mut counts = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut image = vec![1.0; 2 * 16];
            augmentation.apply([2, 4, 4], &mut image, &mut rng);
            let zeros = |plane: &[f32]| plane.iter().filter(|x| **x == 0.0).count();
            assert_eq!(zeros(&image[..16]), zeros(&image[16..]));
            counts.insert(zeros(&image[..16]));
        }
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[test]
    fn erasing_has_its_probability_and_maximum_area() {
        let augmentation = Augmentation { erase: 0.25, ..Augmentation::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut erased = 0;
        for _ in 0..2000 {
            let mut image = vec![9.0; 400];
            augmentation.apply([1, 20, 20], &mut image, &mut rng);
            let changed = image.iter().filter(|x| **x != 9.0).count();
            erased += usize::from(changed > 0);
            assert!(changed <= 400 * 36 / 100, "{changed}");
        }
        assert!((440..560).contains(&erased), "{erased}");
    }

    #[test]
    fn mixup_weights_have_the_moments_of_beta() {
        let augmentation = Augmentation { mixup: 0.4, ..Augmentation::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let drawn: Vec<f64> = (0..20_000).map(|_| f64::from(augmentation.mixup_weight(&mut rng))).collect();
        let mean = drawn.iter().sum::<f64>() / 2e4;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2e4;
        // Beta(α, α): mean ½, variance 1 / (4 (2α + 1)).
        assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 7.2).abs() < 0.005, "{mean} {variance}");
    }

    #[test]
    fn invalid_settings_are_rejected() {
        let error = |augmentation: Augmentation| augmentation.check([8, 8]).unwrap_err().to_string();
        let none = Augmentation::default;
        assert_eq!(
            error(Augmentation { crop: 9, ..none() }),
            "the crop padding must be at most the image's side, 8, not 9"
        );
        assert_eq!(
            error(Augmentation { erase: 1.5, ..none() }),
            "the erasing probability must be between 0 and 1, not 1.5"
        );
        assert_eq!(
            error(Augmentation { resized_crop: Some(0.0), ..none() }),
            "the minimum area of the resized crop must be above 0 and at most 1, not 0"
        );
        assert_eq!(
            error(Augmentation { label_smoothing: 1.0, ..none() }),
            "the label smoothing must be at least 0 and below 1, not 1"
        );
        assert!(none().check([1, 1]).is_ok());
    }
}
