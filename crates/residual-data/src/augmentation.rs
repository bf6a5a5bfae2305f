use crate::DataError;
use rand::{RngExt, rngs::ChaCha8Rng};
use rand_distr::{Beta, Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// How training images are changed at random, after their normalisation: 0 is the mean. Test images stay as they are.
///
/// What is drawn for a sample is a function of (seed, epoch, sample) alone. Mixup's other image is the one at the same
/// place from the batch's end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// The image with this many zeros around it is cropped to its size at a random place (He et al. 2015, section
    /// 4.2: 4); 0 leaves it.
    pub crop: usize,
    /// Mirrored left to right, every other time.
    pub flip: bool,
    /// A part of the image, of this fraction of its area at least and with sides of 3:4 to 4:3, is resized to its
    /// size (Szegedy et al. 2015, section 6: 0.08).
    pub resized_crop: Option<f64>,
    /// A square of this side around a random pixel becomes 0 (DeVries & Taylor 2017); 0 leaves it.
    pub cutout: usize,
    /// The probability that a rectangle of 2 to 33 % of the area, with sides of 3:10 to 10:3, becomes normal noise
    /// (Zhong et al. 2020).
    pub erase: f64,
    /// Images and labels are mixed with another of the batch by a fraction drawn from Beta(α, α) (Zhang et al. 2018);
    /// 0 leaves them.
    pub mixup: f64,
    /// ε: the label has the probability 1 - ε, and every class ε / classes more (Szegedy et al. 2016, section 7).
    pub label_smoothing: f64,
}

impl Augmentation {
    /// Fails unless images of this height and width can be changed so.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check(&self, [height, width]: [usize; 2]) -> Result<(), DataError> {
        let setting = |name: &'static str, expected: &'static str, value: String| {
            Err(DataError::Setting { name, expected: expected.into(), value })
        };
        let side = height.min(width);
        if self.crop > side || self.cutout > side {
            let (name, value) =
                if self.crop > side { ("the crop's padding", self.crop) } else { ("the cutout's side", self.cutout) };
            return Err(DataError::Setting {
                name,
                expected: format!("at most the image's side, {side}"),
                value: value.to_string(),
            });
        }
        let fraction = |x: f64| (0.0..=1.0).contains(&x);
        match () {
            () if self.resized_crop.is_some_and(|x| !(fraction(x) && x > 0.0)) => setting(
                "the resized crop's least area",
                "above 0 and at most 1",
                self.resized_crop.unwrap_or_default().to_string(),
            ),
            () if !fraction(self.erase) => setting("the probability to erase", "0 to 1", self.erase.to_string()),
            () if !(self.mixup.is_finite() && self.mixup >= 0.0) => {
                setting("mixup", "a number that is not negative", self.mixup.to_string())
            }
            () if !(0.0..1.0).contains(&self.label_smoothing) => {
                setting("the label smoothing", "at least 0 and below 1", self.label_smoothing.to_string())
            }
            () => Ok(()),
        }
    }

    /// Whether a label becomes probabilities of classes.
    pub(crate) fn is_soft(&self) -> bool {
        self.mixup > 0.0 || self.label_smoothing > 0.0
    }

    /// Changes an image `[channels, height, width]`.
    pub(crate) fn apply(&self, shape: [usize; 3], pixels: &mut [f32], rng: &mut ChaCha8Rng) {
        if let Some(least) = self.resized_crop {
            let part = random_part([shape[1], shape[2]], least, rng);
            resize_part(shape, pixels, part);
        }
        self.apply_after_resizing(shape, pixels, rng);
    }

    /// All but the resized crop.
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

    /// The fraction of a sample that mixup keeps.
    pub(crate) fn kept(&self, rng: &mut ChaCha8Rng) -> f32 {
        match Beta::new(self.mixup, self.mixup) {
            Ok(beta) => beta.sample(rng) as f32,
            Err(_) => 1.0,
        }
    }
}

/// A rectangle of an image: top, left, height, width.
pub(crate) type Part = [usize; 4];

/// A part of a random area and shape at a random place; the middle if ten draws do not fit.
pub(crate) fn random_part([height, width]: [usize; 2], least: f64, rng: &mut ChaCha8Rng) -> Part {
    let area = (height * width) as f64;
    for _ in 0..10 {
        let sides = sides(area * rng.random_range(least..=1.0), 3.0 / 4.0, rng);
        if let Some(part) = place([height, width], sides, rng) {
            return part;
        }
    }
    let sides = [height.min((width * 4).div_ceil(3)), width.min((height * 4).div_ceil(3))];
    [(height - sides[0]) / 2, (width - sides[1]) / 2, sides[0], sides[1]]
}

/// Sides of a rectangle of this area, whose ratio is drawn from `flattest` to its inverse, evenly in its logarithm.
fn sides(area: f64, flattest: f64, rng: &mut ChaCha8Rng) -> [usize; 2] {
    let ratio = rng.random_range(flattest.ln()..=-flattest.ln()).exp();
    [(area / ratio).sqrt().round() as usize, (area * ratio).sqrt().round() as usize]
}

fn place([height, width]: [usize; 2], [rows, columns]: [usize; 2], rng: &mut ChaCha8Rng) -> Option<Part> {
    let fits = (1..=height).contains(&rows) && (1..=width).contains(&columns);
    fits.then(|| [rng.random_range(0..=height - rows), rng.random_range(0..=width - columns), rows, columns])
}

/// Moves the image; what comes in is 0.
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

/// A part of the image in its full size, bilinear between the middles of pixels.
fn resize_part([_, height, width]: [usize; 3], pixels: &mut [f32], [top, left, rows, columns]: Part) {
    let taps = |from: usize, count: usize, side: usize| -> Vec<(usize, usize, f32)> {
        let tap = |i: usize| {
            let at = ((i as f32 + 0.5) * count as f32 / side as f32 - 0.5).clamp(0.0, (count - 1) as f32);
            let low = at as usize;
            (from + low, from + (low + 1).min(count - 1), at - low as f32)
        };
        (0..side).map(tap).collect()
    };
    let (vertical, horizontal) = (taps(top, rows, height), taps(left, columns, width));
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

fn erase([_, height, width]: [usize; 3], pixels: &mut [f32], rng: &mut ChaCha8Rng) {
    let area = (height * width) as f64;
    for _ in 0..10 {
        let sides = sides(area * rng.random_range(0.02..=0.33), 0.3, rng);
        if let Some([top, left, rows, columns]) = place([height, width], sides, rng) {
            for plane in pixels.chunks_exact_mut(height * width) {
                for y in top..top + rows {
                    plane[y * width + left..][..columns].iter_mut().for_each(|x| *x = StandardNormal.sample(rng));
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
        fn without_noise_pixels_stay_in_their_range_and_zero(
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
        fn a_random_part_lies_in_the_image(height in 1usize..300, width in 1usize..300, least in 0.01f64..=1.0, seed: u64) {
            let [top, left, rows, columns] = random_part([height, width], least, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert!(rows >= 1 && columns >= 1 && top + rows <= height && left + columns <= width);
        }
    }

    fn numbered() -> Vec<f32> {
        (1..=9).map(|i| i as f32).collect()
    }

    #[test]
    fn a_crop_moves_the_image_and_zeros_come_in() {
        let mut image = numbered();
        shift([1, 3, 3], &mut image, 1, -1);
        assert_eq!(image, [0.0, 0.0, 0.0, 2.0, 3.0, 0.0, 5.0, 6.0, 0.0]);
    }

    #[test]
    fn every_crop_and_both_sides_are_drawn() {
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
    fn the_whole_resized_is_itself_and_a_half_is_interpolated() {
        let mut image = numbered();
        resize_part([1, 3, 3], &mut image, [0, 0, 3, 3]);
        assert_eq!(image, numbered());
        let mut row = [0.0, 4.0, 8.0, 12.0];
        resize_part([1, 1, 4], &mut row, [0, 1, 1, 2]);
        assert_eq!(row, [4.0, 5.0, 7.0, 8.0]);
    }

    #[test]
    fn a_cutout_is_a_square_cut_off_at_the_border() {
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
    fn erasing_happens_as_often_as_said_and_leaves_two_thirds() {
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
    fn mixups_fraction_has_betas_moments() {
        let augmentation = Augmentation { mixup: 0.4, ..Augmentation::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let drawn: Vec<f64> = (0..20_000).map(|_| f64::from(augmentation.kept(&mut rng))).collect();
        let mean = drawn.iter().sum::<f64>() / 2e4;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2e4;
        // Beta(α, α): mean ½, variance 1 / (4 (2α + 1)).
        assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 7.2).abs() < 0.005, "{mean} {variance}");
    }

    #[test]
    fn impossible_settings_are_named() {
        let error = |augmentation: Augmentation| augmentation.check([8, 8]).unwrap_err().to_string();
        let none = Augmentation::default;
        assert_eq!(
            error(Augmentation { crop: 9, ..none() }),
            "the crop's padding must be at most the image's side, 8, not 9"
        );
        assert_eq!(error(Augmentation { erase: 1.5, ..none() }), "the probability to erase must be 0 to 1, not 1.5");
        assert_eq!(
            error(Augmentation { resized_crop: Some(0.0), ..none() }),
            "the resized crop's least area must be above 0 and at most 1, not 0"
        );
        assert_eq!(
            error(Augmentation { label_smoothing: 1.0, ..none() }),
            "the label smoothing must be at least 0 and below 1, not 1"
        );
        assert!(none().check([1, 1]).is_ok());
    }
}
