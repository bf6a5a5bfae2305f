use crate::{DEFAULT_MAX_PIXELS, DataError, Normalization};
use image::{DynamicImage, imageops::FilterType};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The preprocessing that turns an image file into a network's input. It turns a photo upright, resizes its shorter
/// side, crops a square from the centre, and normalises each pixel value x of channel c, which is between 0 and 1, to
/// `(x - mean[c]) / std[c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// The shorter side after resizing, in pixels.
    pub resize: usize,
    /// The side of the square crop, in pixels.
    pub crop: usize,
    /// The mean of each channel (three for colour, one for greyscale), or of each value `[channels, crop, crop]`.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel: three for colour, one for greyscale.
    pub std: Vec<f32>,
    /// Whether to ignore the EXIF orientation, as torchvision does. Cameras use it to say how to turn a photo upright.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_exif: bool,
}

impl Preprocessing {
    /// Preprocessing with ImageNet's mean and standard deviation.
    pub fn imagenet(resize: usize, crop: usize) -> Self {
        Self { resize, crop, mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225], ignore_exif: false }
    }

    /// The number of colour channels.
    pub fn channels(&self) -> usize {
        self.std.len()
    }

    /// The shape of the output, `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels(), self.crop, self.crop]
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If `resize` is not between 1 and 8192, `crop` is not between 1 and `resize`, the number of means or standard
    /// deviations is wrong, a mean is not finite, or a standard deviation is not finite and positive.
    pub fn validate(&self) -> Result<(), String> {
        const MAX_RESIZE: usize = 8192;
        if !(1..=MAX_RESIZE).contains(&self.resize) || self.crop == 0 || self.crop > self.resize {
            return Err(format!(
                "an image resized to {} cannot be cropped to {}; expected 1 <= crop <= resize <= {MAX_RESIZE}",
                self.resize, self.crop
            ));
        }
        let values = self.std.len() * self.crop * self.crop;
        if ![1, 3].contains(&self.std.len()) || ![self.std.len(), values].contains(&self.mean.len()) {
            let (means, stds) = (self.mean.len(), self.std.len());
            return Err(format!("mean and std must have 3 values each, or 1 for greyscale, not {means} and {stds}"));
        }
        if !self.mean.iter().all(|x| x.is_finite()) || !self.std.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Err("mean must be finite and std positive".into());
        }
        Ok(())
    }

    /// Reads and preprocesses a PNG, JPEG, WebP, BMP, GIF or TIFF file. If the file has several images, the first is
    /// used. Returns the values of an image `[channels, crop, crop]`.
    ///
    /// Resizing is bilinear and antialiased, transparency is ignored, and grey is `0.299 R + 0.587 G + 0.114 B` (ITU-R
    /// BT.601), as in Pillow and torchvision. Photos are turned upright, as by Pillow's `ImageOps.exif_transpose`,
    /// unless [`ignore_exif`](Self::ignore_exif) is set.
    ///
    /// # Errors
    /// If the file is not a regular file or has more than 1 GiB, is not a complete image in one of these formats, has
    /// more than [`DEFAULT_MAX_PIXELS`] pixels before or after resizing, or its longer side is more than 50 times its
    /// shorter side.
    pub fn read(&self, path: &Path) -> Result<Vec<f32>, DataError> {
        self.read_up_to(path, DEFAULT_MAX_PIXELS)
    }

    /// Like [`Self::read`], but allows this number of pixels. Decoding may need 8 bytes of memory for each of them, and
    /// for some formats as much again.
    ///
    /// # Errors
    /// The same as for [`Self::read`], with this number of pixels.
    pub fn read_up_to(&self, path: &Path, max_pixels: u64) -> Result<Vec<f32>, DataError> {
        self.decode(path, max_pixels).map(|image| self.transform(&image))
    }

    /// Like [`Self::read_up_to`], for the content of a file. Errors name the file as `file`.
    ///
    /// # Errors
    /// The same as for [`Self::read`], with this number of pixels.
    pub fn read_content(&self, file: &str, content: &[u8], max_pixels: u64) -> Result<Vec<f32>, DataError> {
        self.decode_content(file.as_ref(), content, max_pixels).map(|image| self.transform(&image))
    }

    /// Resizes, crops and normalises an image.
    fn transform(&self, image: &DynamicImage) -> Vec<f32> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (new_width, new_height) = self.resized(width, height);
        let resized = if (width, height) == (new_width, new_height) {
            image.clone()
        } else {
            image.resize_exact(new_width as u32, new_height as u32, FilterType::Triangle)
        };
        let offset = |side: usize| ((side - self.crop) as f64 / 2.0).round_ties_even() as usize;
        let (left, top) = (offset(new_width), offset(new_height));
        self.values(&resized.crop_imm(left as u32, top as u32, self.crop as u32, self.crop as u32))
    }

    /// The width and height of an image after its shorter side is resized.
    pub(crate) fn resized(&self, width: usize, height: usize) -> (usize, usize) {
        let short = width.min(height).max(1);
        let scaled = |side: usize| ((side * self.resize) as f64 / short as f64) as usize;
        if width <= height { (self.resize, scaled(height)) } else { (scaled(width), self.resize) }
    }

    /// The normalised pixels of an image that already has its final size.
    pub(crate) fn values(&self, image: &DynamicImage) -> Vec<f32> {
        let channels = self.channels();
        let pixels = if channels == 1 { grey(image) } else { image.to_rgb8().into_raw() };
        let plane = pixels.len() / channels;
        let mut values: Vec<f32> =
            (0..pixels.len()).map(|at| f32::from(pixels[at % plane * channels + at / plane]) / 255.0).collect();
        Normalization { mean: self.mean.clone(), std: self.std.clone() }.apply(channels, &mut values);
        values
    }
}

/// The grey values of an image: `0.299 R + 0.587 G + 0.114 B`, in the integer arithmetic of Pillow's `convert("L")`.
fn grey(image: &DynamicImage) -> Vec<u8> {
    if !image.color().has_color() {
        return image.to_luma8().into_raw();
    }
    let grey =
        |[r, g, b]: [u8; 3]| (19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000) >> 16;
    image.to_rgb8().pixels().map(|pixel| grey(pixel.0) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, ImageEncoder, Luma, Rgb, RgbImage, codecs::jpeg::JpegEncoder};
    use std::fs;

    #[test]
    fn the_centre_is_cropped_and_each_channel_normalised() {
        let image = RgbImage::from_fn(6, 4, |x, y| Rgb([x as u8 * 10, y as u8 * 10, 255]));
        let preprocessing = Preprocessing {
            resize: 4,
            crop: 2,
            mean: vec![0.0, 0.1, 0.5],
            std: vec![1.0, 1.0, 0.5],
            ignore_exif: false,
        };
        let values = preprocessing.transform(&DynamicImage::ImageRgb8(image));
        let byte = |x: f32| x / 255.0;
        let expected = [
            [byte(20.0), byte(30.0), byte(20.0), byte(30.0)],
            [byte(10.0) - 0.1, byte(10.0) - 0.1, byte(20.0) - 0.1, byte(20.0) - 0.1],
            [1.0; 4],
        ];
        assert!(values.iter().zip(expected.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
    }

    #[test]
    fn resizing_keeps_a_constant_image_constant() {
        let image = GrayImage::from_pixel(30, 90, Luma([51]));
        let preprocessing = Preprocessing { resize: 10, crop: 10, mean: vec![0.0], std: vec![1.0], ignore_exif: false };
        let values = preprocessing.transform(&DynamicImage::ImageLuma8(image));
        assert_eq!(values.len(), 100);
        assert!(values.iter().all(|x| (x - 0.2).abs() < 1e-6));
    }

    /// Values of Pillow 13's `Image.convert("L")`.
    #[test]
    fn grey_is_that_of_pillow() {
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 30, 60], [1, 2, 3], [255, 255, 255]];
        let image = RgbImage::from_fn(6, 1, |x, _| Rgb(colours[x as usize]));
        assert_eq!(grey(&DynamicImage::ImageRgb8(image)), [76, 150, 29, 84, 2, 255]);
    }

    /// A big-endian EXIF block with one entry: the orientation, tag 0x0112.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        exif
    }

    #[test]
    fn photos_are_turned_upright() {
        let dir = tempfile::tempdir().unwrap();
        // Brighter to the right and darker to the bottom, so that the eight orientations differ.
        let upright = GrayImage::from_fn(24, 16, |x, y| Luma([(100 + 6 * x - 4 * y) as u8]));
        let upright = DynamicImage::ImageLuma8(upright);
        let read = |name: &str, ignore_exif| {
            let preprocessing = Preprocessing { resize: 16, crop: 16, mean: vec![0.0], std: vec![1.0], ignore_exif };
            preprocessing.read(&dir.path().join(name)).unwrap()
        };
        let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 0.03);
        // How a camera stores the upright image for each orientation (Exif 2.32, section 4.6.4).
        let stored = [
            upright.clone(),
            upright.fliph(),
            upright.rotate180(),
            upright.flipv(),
            upright.rotate90().fliph(),
            upright.rotate270(),
            upright.rotate270().fliph(),
            upright.rotate90(),
        ];
        for (orientation, image) in (1u8..).zip(stored) {
            let mut jpeg = Vec::new();
            let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
            encoder.set_exif_metadata(exif(orientation)).unwrap();
            encoder.encode_image(&image.to_luma8()).unwrap();
            fs::write(dir.path().join("photo.jpg"), jpeg).unwrap();
            let (turned, stored) = (read("photo.jpg", false), read("photo.jpg", true));
            upright.save(dir.path().join("upright.png")).unwrap();
            let expected = read("upright.png", false);
            assert!(!differ(&turned, &expected), "orientation {orientation}");
            assert_eq!(differ(&stored, &expected), orientation != 1, "orientation {orientation}");
        }
    }

    #[test]
    fn invalid_settings_are_rejected() {
        let with = |resize, crop, mean: &[f32], std: &[f32]| {
            Preprocessing { resize, crop, mean: mean.into(), std: std.into(), ignore_exif: false }.validate()
        };
        assert!(with(8, 8, &[0.0], &[1.0]).is_ok());
        assert!(with(8, 9, &[0.0], &[1.0]).unwrap_err().contains("cannot be cropped to 9"));
        assert!(with(8, 8, &[0.0; 2], &[1.0; 2]).unwrap_err().contains("not 2 and 2"));
        assert!(with(8, 8, &[0.0], &[0.0]).unwrap_err().contains("std positive"));
    }
}
