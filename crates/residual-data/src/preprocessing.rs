use crate::{DataError, Normalization, files::retry};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, imageops::FilterType, metadata::Orientation,
};
use serde::{Deserialize, Serialize};
use std::{fs, io::Cursor, path::Path};

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
    /// If the file cannot be read, is not a complete image in one of these formats, or its longer side is more than 50
    /// times its shorter side.
    pub fn read(&self, path: &Path) -> Result<Vec<f32>, DataError> {
        self.decode(path).map(|image| self.transform(&image))
    }

    /// Decodes an image file.
    pub(crate) fn decode(&self, path: &Path) -> Result<DynamicImage, DataError> {
        let bad = |reason: String| DataError::Image { path: path.into(), reason };
        // The file extension may be wrong, so the format is detected from the content.
        let bytes = retry(|| fs::read(path)).map_err(|error| bad(format!("cannot be read: {error}")))?;
        let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
        let mut reader = reader.map_err(|error| bad(format!("cannot be read: {error}")))?;
        if !reader.format().is_some_and(|format| FORMATS.contains(&format)) {
            return Err(bad(unread(&bytes)));
        }
        // The decoders do not report these: they fill in missing pixels, or ignore missing data.
        match reader.format() {
            Some(ImageFormat::Jpeg) if is_truncated(&bytes) => {
                return Err(bad("is truncated: it has no end-of-image marker".into()));
            }
            Some(ImageFormat::WebP) if riff_bytes(&bytes) > bytes.len() as u64 => {
                return Err(bad(format!("is truncated: it has {} of {} bytes", bytes.len(), riff_bytes(&bytes))));
            }
            _ => {}
        }
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(1 << 16);
        limits.max_image_height = Some(1 << 16);
        reader.limits(limits.clone());
        let invalid = |error: ImageError| match error {
            ImageError::Unsupported(_) => bad(format!("is an unsupported kind of image: {error}")),
            error => bad(format!("is not a valid image: {error}")),
        };
        let mut decoder = reader.into_decoder().map_err(invalid)?;
        limits.reserve(decoder.total_bytes()).map_err(invalid)?;
        // Damaged metadata does not damage the pixels.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(invalid)?;
        if !self.ignore_exif {
            image.apply_orientation(orientation);
        }
        let (long, short) = (image.width().max(image.height()), image.width().min(image.height()).max(1));
        if long / short > 50 {
            let (width, height) = (image.width(), image.height());
            return Err(bad(format!(
                "is {width}x{height} pixels; the longer side must be at most 50 times the shorter"
            )));
        }
        Ok(image)
    }

    /// Resizes, crops and normalises an image.
    fn transform(&self, image: &DynamicImage) -> Vec<f32> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let short = width.min(height).max(1);
        let scaled = |side: usize| ((side * self.resize) as f64 / short as f64) as usize;
        let (new_width, new_height) =
            if width <= height { (self.resize, scaled(height)) } else { (scaled(width), self.resize) };
        let resized = if (width, height) == (new_width, new_height) {
            image.clone()
        } else {
            image.resize_exact(new_width as u32, new_height as u32, FilterType::Triangle)
        };
        let offset = |side: usize| ((side - self.crop) as f64 / 2.0).round_ties_even() as usize;
        let (left, top) = (offset(new_width), offset(new_height));
        self.values(&resized.crop_imm(left as u32, top as u32, self.crop as u32, self.crop as u32))
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

/// The formats that are read.
const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Tiff];

/// Why a file in another format is not read.
fn unread(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "is empty".into();
    }
    // An ISO base media file (ISO/IEC 14496-12) begins with the length and the kind of its first box, and the brand.
    let name = match (bytes.get(4..8), bytes.get(8..12)) {
        (Some(b"ftyp"), Some(b"avif" | b"avis")) => "an AVIF image",
        (Some(b"ftyp"), Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1")) => "a HEIC image",
        _ => return "is neither PNG, JPEG, WebP, BMP, GIF nor TIFF".into(),
    };
    format!("is {name}; supported formats are PNG, JPEG, WebP, BMP, GIF and TIFF")
}

/// The size of a RIFF file, such as a WebP image, as its header declares it (RFC 9649, section 2.3).
fn riff_bytes(bytes: &[u8]) -> u64 {
    bytes.get(4..8).map_or(0, |size| 8 + u64::from(u32::from_le_bytes([size[0], size[1], size[2], size[3]])))
}

/// Whether a JPEG file ends before its end-of-image marker (ITU T.81, annex B).
fn is_truncated(bytes: &[u8]) -> bool {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        // Within the data of a scan, the byte FF is followed by 00 or belongs to a restart marker.
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0xd0..=0xd7);
        let Some(found) = rest.windows(2).position(is_marker) else { return true };
        at += found + 2;
        match (rest[found + 1], bytes.get(at..at + 2)) {
            (0xd9, _) => return false,
            // Markers without a segment: start of image, and TEM.
            (0xd8 | 0x01, _) => {}
            (_, Some(length)) => at += usize::from(u16::from_be_bytes([length[0], length[1]])),
            (_, None) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, ImageEncoder, Luma, Rgb, RgbImage, codecs::jpeg::JpegEncoder};

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
    fn only_a_jpeg_without_its_end_marker_is_truncated() {
        let mut jpeg = Vec::new();
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([(7 * x) as u8, (9 * y) as u8, (x * y) as u8]));
        image.write_to(&mut Cursor::new(&mut jpeg), ImageFormat::Jpeg).unwrap();
        assert!(!is_truncated(&jpeg));
        for length in 0..jpeg.len() {
            assert!(is_truncated(&jpeg[..length]), "{length} of {}", jpeg.len());
        }
        // Some phones append a video to a photo.
        jpeg.extend([0x00, 0xff, 0xda, 0x12]);
        assert!(!is_truncated(&jpeg));
    }

    /// A little-endian TIFF file of 2x2 pixels in one strip (TIFF 6.0, sections 2 and 8).
    fn tiff(photometric: u32, bits: u32, samples: u32, pixels: &[u8]) -> Vec<u8> {
        const SHORT: u16 = 3;
        let entries: [(u16, u32); 9] = [
            (256, 2),
            (257, 2),
            (258, bits),
            (259, 1),
            (262, photometric),
            (273, 256),
            (277, samples),
            (278, 2),
            (279, pixels.len() as u32),
        ];
        let mut file = b"II\x2a\0\x08\0\0\0\x09\0".to_vec();
        for (tag, value) in entries {
            // The bits of several samples are four numbers that follow the directory.
            let (count, value) = if tag == 258 && samples > 1 { (samples, 240) } else { (1, value) };
            file.extend([tag.to_le_bytes(), SHORT.to_le_bytes()].concat());
            file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
        }
        file.resize(240, 0);
        file.extend([bits as u8, 0].repeat(8));
        [file, pixels.into()].concat()
    }

    /// A BMP file of 2x2 pixels with a palette (BITMAPINFOHEADER): the rows from the bottom, in 4 bytes each.
    fn bmp(bits: u8, palette: &[[u8; 3]], rows: [[u8; 4]; 2]) -> Vec<u8> {
        let start = 54 + 4 * palette.len() as u8;
        let mut file = vec![b'B', b'M', start + 8, 0, 0, 0, 0, 0, 0, 0, start, 0, 0, 0];
        file.extend([40, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, bits, 0]);
        file.resize(46, 0);
        file.extend([palette.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
        palette.iter().for_each(|[red, green, blue]| file.extend([*blue, *green, *red, 0]));
        [file, rows.concat()].concat()
    }

    /// The pixels of a file `x.png` with this content, row by row, or the error.
    fn decode(content: &[u8]) -> Result<Vec<[u8; 3]>, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.png"), content).unwrap();
        let image = Preprocessing::imagenet(8, 8).decode(&dir.path().join("x.png")).map_err(|error| match error {
            DataError::Image { reason, .. } => reason,
            error => panic!("{error}"),
        })?;
        Ok(image.to_rgb8().pixels().map(|pixel| pixel.0).collect())
    }

    const RED: [u8; 3] = [255, 0, 0];
    const GREEN: [u8; 3] = [0, 255, 0];
    const BLUE: [u8; 3] = [0, 0, 255];

    #[test]
    fn bilevel_and_palette_images_are_read() {
        let (black, white) = ([0; 3], [255; 3]);
        assert_eq!(decode(&bmp(1, &[RED, GREEN], [[0b1000_0000, 0, 0, 0], [0; 4]])).unwrap(), [RED, RED, GREEN, RED]);
        let four = decode(&bmp(8, &[RED, GREEN, BLUE], [[2, 0, 0, 0], [0, 1, 0, 0]])).unwrap();
        assert_eq!(four, [RED, GREEN, BLUE, RED]);
        assert_eq!(decode(&tiff(1, 1, 1, &[0b0100_0000, 0b1000_0000])).unwrap(), [black, white, white, black]);
        assert_eq!(decode(&tiff(0, 1, 1, &[0b0100_0000, 0b1000_0000])).unwrap(), [white, black, black, white]);
    }

    /// As in Pillow's `convert("RGB")`, each ink leaves (255 - ink)(255 - black) / 255.
    #[test]
    fn cmyk_and_16_bits_of_tiff_are_read() {
        let inks = [[0; 4], [255, 0, 0, 0], [0, 255, 255, 0], [51, 0, 102, 51]].concat();
        let cmyk = decode(&tiff(5, 8, 4, &inks)).unwrap();
        assert_eq!(cmyk, [[255; 3], [0, 255, 255], RED, [163, 204, 122]]);
        let words: Vec<u8> = [0u16, 51 * 257, 128 * 257, 65535].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(decode(&tiff(1, 16, 1, &words)).unwrap(), [[0; 3], [51; 3], [128; 3], [255; 3]]);
        let error = decode(&tiff(3, 8, 1, &[0; 4])).unwrap_err();
        assert!(error.starts_with("is an unsupported kind of image: ") && error.contains("Palette"), "{error}");
    }

    /// The colour under transparent pixels counts, as in Pillow's `convert("RGB")`.
    #[test]
    fn the_first_frame_of_a_gif_and_transparent_pixels_are_read() {
        let image =
            |colors: [[u8; 4]; 4]| image::RgbaImage::from_fn(2, 2, |x, y| image::Rgba(colors[(x + 2 * y) as usize]));
        let opaque = |[r, g, b]: [u8; 3]| [r, g, b, 255];
        let (first, second) = ([RED, BLUE, BLUE, GREEN].map(opaque), [GREEN; 4].map(opaque));
        let mut gif = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
        encoder.encode_frames([first, second].map(|colors| image::Frame::new(image(colors)))).unwrap();
        drop(encoder);
        assert_eq!(decode(&gif).unwrap(), [RED, BLUE, BLUE, GREEN]);

        let mut webp = Vec::new();
        let faded = image([[255, 0, 0, 255], [0, 0, 255, 128], [0, 255, 0, 1], [255, 0, 0, 77]]);
        faded.write_to(&mut Cursor::new(&mut webp), ImageFormat::WebP).unwrap();
        assert_eq!(decode(&webp).unwrap(), [RED, BLUE, GREEN, RED]);
    }

    #[test]
    fn truncated_images_of_every_format_are_refused() {
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([(7 * x) as u8, (9 * y) as u8, (x * y) as u8]));
        for format in FORMATS {
            let mut whole = Vec::new();
            image.write_to(&mut Cursor::new(&mut whole), format).unwrap();
            assert_eq!(decode(&whole).unwrap().len(), 1200, "{format:?}");
            for part in 1..20 {
                assert!(decode(&whole[..whole.len() * part / 20]).is_err(), "{part}/20 of a {format:?}");
            }
        }
        assert_eq!(decode(b"").unwrap_err(), "is empty");
        assert_eq!(decode(b"text").unwrap_err(), "is neither PNG, JPEG, WebP, BMP, GIF nor TIFF");
        let heic = decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap_err();
        assert!(heic.starts_with("is a HEIC image; supported formats are PNG"), "{heic}");
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
