//! Decodes image files, in bounded memory whatever they claim.

use crate::{DataError, Preprocessing, files::retry, shown};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, metadata::Orientation};
use residual_fetch::read_regular;
use std::{io::Cursor, path::Path};

/// The most pixels of an image file unless more are allowed: 2^30 / 12, above which Pillow warns of a decompression
/// bomb (`Image.MAX_IMAGE_PIXELS`).
pub const DEFAULT_MAX_PIXELS: u64 = 89_478_485;

/// The largest size of an image file, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// The most bytes that a decoder may use for metadata, such as a compressed colour profile, and for its own buffers.
const MAX_METADATA: u64 = 64 << 20;

/// The bytes per pixel that are allowed if an image has the largest number of pixels: four channels of 16 bits.
const BYTES_PER_PIXEL: u64 = 8;

/// The maximum number of pixels per byte of a JPEG file: a block of 8x8 values takes at least one bit, and stands for up to four times
/// as many pixels if its component is subsampled.
const JPEG_PIXELS_PER_BYTE: u64 = 8 * 64 * 4;

/// The largest ratio of the longer side to the shorter side.
const MAX_RATIO: u32 = 50;

impl Preprocessing {
    /// Reads and decodes an image file of at most `max_pixels` pixels.
    pub(crate) fn decode(&self, path: &Path, max_pixels: u64) -> Result<DynamicImage, DataError> {
        let bad = |reason: String| DataError::Image { path: path.into(), reason };
        let content =
            retry(|| read_regular(path, MAX_FILE)).map_err(|error| bad(format!("cannot be read: {error}")))?;
        self.decode_content(path, &content, max_pixels)
    }

    /// Decodes the content of an image file. Errors name the file as `path`.
    pub(crate) fn decode_content(
        &self,
        path: &Path,
        content: &[u8],
        max_pixels: u64,
    ) -> Result<DynamicImage, DataError> {
        let bad = |reason: String| DataError::Image { path: path.into(), reason };
        // The file extension may be wrong, so the format is detected from the content.
        let reader = ImageReader::new(Cursor::new(content)).with_guessed_format();
        let mut reader = reader.map_err(|error| bad(format!("cannot be read: {error}")))?;
        let format = reader.format().filter(|format| FORMATS.contains(format)).ok_or_else(|| bad(unread(content)))?;
        // The decoders do not report these: they fill in missing pixels, or reserve memory for what is missing.
        match format {
            ImageFormat::Jpeg if is_truncated(content) => {
                return Err(bad("is truncated: it has no end-of-image marker".into()));
            }
            ImageFormat::WebP => check_riff(content).map_err(bad)?,
            _ => {}
        }
        let invalid = |error: ImageError| {
            let text = shown(&error.to_string());
            bad(match error {
                ImageError::Unsupported(_) => format!("is an unsupported kind of image: {text}"),
                _ => format!("is not a valid image: {text}"),
            })
        };
        let mut limits = Limits::default();
        limits.max_image_width = Some(1 << 16);
        limits.max_image_height = Some(1 << 16);
        limits.max_alloc = Some(MAX_METADATA);
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().map_err(invalid)?;
        let (width, height) = decoder.dimensions();
        self.check_size(path, (width, height), max_pixels)?;
        let (bytes, pixels) = (content.len() as u64, u64::from(width) * u64::from(height));
        if format == ImageFormat::Jpeg && bytes.saturating_mul(JPEG_PIXELS_PER_BYTE) < pixels {
            return Err(bad(format!("is truncated: {bytes} bytes are too few for {width}x{height} pixels")));
        }
        let (needed, most) = (decoder.total_bytes(), max_pixels.saturating_mul(BYTES_PER_PIXEL));
        if needed > most {
            return Err(bad(format!("needs {needed} bytes of memory, more than the limit of {most}")));
        }
        // Some decoders hold the pixels twice.
        limits.max_alloc = Some(2 * needed + MAX_METADATA);
        decoder.set_limits(limits).map_err(invalid)?;
        // Damaged metadata does not damage the pixels.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(invalid)?;
        if !self.ignore_exif {
            image.apply_orientation(orientation);
        }
        Ok(image)
    }

    /// Checks the size of an image, as its file claims it, before and after resizing.
    fn check_size(&self, path: &Path, (width, height): (u32, u32), max_pixels: u64) -> Result<(), DataError> {
        let bad = |reason: String| Err(DataError::Image { path: path.into(), reason });
        let pixels = |width: usize, height: usize| width as u64 * height as u64;
        let (wide, high) = (width as usize, height as usize);
        if pixels(wide, high) > max_pixels {
            return Err(DataError::Pixels { path: path.into(), width, height, most: max_pixels });
        }
        if width.max(height) / width.min(height).max(1) > MAX_RATIO {
            return bad(format!(
                "is {width}x{height} pixels; the longer side must be at most {MAX_RATIO} times the shorter"
            ));
        }
        let (new_width, new_height) = self.resized(wide, high);
        let most = max_pixels.max(DEFAULT_MAX_PIXELS);
        if pixels(new_width, new_height) > most {
            return bad(format!(
                "is {width}x{height} pixels and would be resized to {new_width}x{new_height}, more than the limit of \
                 {most} pixels"
            ));
        }
        Ok(())
    }
}

/// The formats that are read.
const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Tiff];

/// Why a file in another format is not read.
fn unread(content: &[u8]) -> String {
    if content.is_empty() {
        return "is empty".into();
    }
    // An ISO base media file (ISO/IEC 14496-12) begins with the length and the kind of its first box, and the brand.
    let name = match (content.get(4..8), content.get(8..12)) {
        (Some(b"ftyp"), Some(b"avif" | b"avis")) => "an AVIF image",
        (Some(b"ftyp"), Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1")) => "a HEIC image",
        _ => return "is neither PNG, JPEG, WebP, BMP, GIF nor TIFF".into(),
    };
    format!("is {name}; supported formats are PNG, JPEG, WebP, BMP, GIF and TIFF")
}

/// Checks that a RIFF file, such as a WebP image, and the chunks in it end within the file (RFC 9649, section 2.3).
fn check_riff(content: &[u8]) -> Result<(), String> {
    let size = |at: usize| -> Option<usize> {
        let bytes = content.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let truncated = |end: usize| format!("is truncated: it has {} of {end} bytes", content.len());
    let end = size(4).unwrap_or_default().saturating_add(8);
    if end > content.len() {
        return Err(truncated(end));
    }
    // After `RIFF`, the size and `WEBP`, each chunk has a name, a size, and data that is padded to an even size.
    let mut at = 12;
    while let Some(size) = size(at + 4).filter(|_| at + 8 <= end) {
        at += 8 + size;
        if at > end {
            return Err(truncated(at));
        }
        at += size % 2;
    }
    Ok(())
}

/// Whether a JPEG file ends before its end-of-image marker (ITU T.81, annex B).
fn is_truncated(content: &[u8]) -> bool {
    let mut at = 0;
    loop {
        let rest = content.get(at..).unwrap_or_default();
        // Within the data of a scan, the byte FF is followed by 00 or belongs to a restart marker.
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0xd0..=0xd7);
        let Some(found) = rest.windows(2).position(is_marker) else { return true };
        at += found + 2;
        match (rest[found + 1], content.get(at..at + 2)) {
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
    use image::{Rgb, RgbImage};
    use std::{fs, io::Write};

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
        let path = dir.path().join("x.png");
        let image = Preprocessing::imagenet(8, 8).decode(&path, DEFAULT_MAX_PIXELS).map_err(|error| match error {
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

    /// A grey PNG file of this size with this compressed image data, and other chunks before it.
    fn png([width, height]: [u32; 2], chunks: &[(&[u8; 4], &[u8])], data: &[u8]) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
        let all =
            [(b"IHDR", &header[..])].into_iter().chain(chunks.iter().copied()).chain([(b"IDAT", data), (b"IEND", b"")]);
        for (name, content) in all {
            let mut sum = flate2::Crc::new();
            sum.update(name);
            sum.update(content);
            file.extend((content.len() as u32).to_be_bytes());
            file.extend([name, content].concat());
            file.extend(sum.sum().to_be_bytes());
        }
        file
    }

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn more_pixels_than_the_limit_are_refused_before_they_are_decoded() {
        let refused = |content: &[u8], max_pixels| {
            let error = Preprocessing::imagenet(8, 8).decode_content("x".as_ref(), content, max_pixels).unwrap_err();
            assert!(matches!(error, DataError::Pixels { .. }), "{error}");
            error.to_string()
        };
        // Its data is missing, which would be found after the memory was reserved.
        let claims = png([13_000, 13_000], &[], b"");
        let expected = "x is 13000x13000 pixels, more than the limit of 89478485";
        assert_eq!(refused(&claims, DEFAULT_MAX_PIXELS), expected);
        let image = RgbImage::new(40, 30);
        for format in FORMATS {
            let mut whole = Vec::new();
            image.write_to(&mut Cursor::new(&mut whole), format).unwrap();
            assert_eq!(refused(&whole, 1199), "x is 40x30 pixels, more than the limit of 1199", "{format:?}");
            Preprocessing::imagenet(8, 8).decode_content("x".as_ref(), &whole, 1200).unwrap();
        }
    }

    #[test]
    fn a_jpeg_that_claims_more_pixels_than_it_can_hold_is_refused() {
        let mut jpeg = Vec::new();
        RgbImage::new(16, 16).write_to(&mut Cursor::new(&mut jpeg), ImageFormat::Jpeg).unwrap();
        assert!(decode(&jpeg).is_ok());
        // The height and the width follow the start of the frame, its length and the precision.
        let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x20, 0, 0x20, 0]);
        let expected = format!("is truncated: {} bytes are too few for 8192x8192 pixels", jpeg.len());
        assert_eq!(decode(&jpeg).unwrap_err(), expected);
    }

    /// An image whose pixels alone are within the limit, but not as many bytes.
    #[test]
    fn memory_is_limited_as_well_as_pixels() {
        let mut tiff = Vec::new();
        let floats = image::Rgb32FImage::new(40, 30);
        DynamicImage::ImageRgb32F(floats).write_to(&mut Cursor::new(&mut tiff), ImageFormat::Tiff).unwrap();
        let decode = |max_pixels| Preprocessing::imagenet(8, 8).decode_content("x".as_ref(), &tiff, max_pixels);
        let error = decode(1200).unwrap_err().to_string();
        assert_eq!(error, "x needs 14400 bytes of memory, more than the limit of 9600");
        assert!(decode(2400).is_ok());
        // Resized to 8192 pixels, its longer side would have 8192 * 49.
        let mut long = Vec::new();
        RgbImage::new(98, 2).write_to(&mut Cursor::new(&mut long), ImageFormat::Png).unwrap();
        let error = Preprocessing::imagenet(8192, 8).decode_content("x".as_ref(), &long, DEFAULT_MAX_PIXELS);
        let expected = "x is 98x2 pixels and would be resized to 401408x8192, more than the limit of 89478485 pixels";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }

    #[test]
    fn metadata_cannot_fill_the_memory() {
        let pixels = zlib(&[0, 7]);
        // 300 MB of zeros are 300 kB.
        let profile = [&b"a\0\0"[..], &zlib(&vec![0; 300 << 20])].concat();
        let image = decode(&png([1, 1], &[(b"iCCP", &profile)], &pixels));
        assert!(image.is_ok_and(|pixels| pixels == [[7; 3]]), "the profile is left out");
        let text = decode(&png([1, 1], &[(b"zTXt", &profile)], &pixels));
        assert!(text.is_ok_and(|pixels| pixels == [[7; 3]]), "text is not unpacked");
    }

    #[test]
    fn chunks_of_a_webp_image_must_end_within_the_file() {
        let mut webp = Vec::new();
        RgbImage::new(8, 8).write_to(&mut Cursor::new(&mut webp), ImageFormat::WebP).unwrap();
        assert!(decode(&webp).is_ok());
        // Cameras append data of their own.
        assert!(decode(&[&webp[..], b"Samsung trailer"].concat()).is_ok());
        webp.extend(b"EXIF\xf0\xff\xff\xff");
        let size = (webp.len() - 8) as u32;
        webp[4..8].copy_from_slice(&size.to_le_bytes());
        let error = decode(&webp).unwrap_err();
        assert!(error.starts_with("is truncated: it has "), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_named_like_an_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.png");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = Preprocessing::imagenet(8, 8).read(&path).unwrap_err().to_string();
        assert!(error.ends_with("x.png cannot be read: it is not a regular file"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = Preprocessing::imagenet(8, 8).read(&path).unwrap_err().to_string();
        assert!(error.contains("x.png cannot be read: it is larger than the limit of 1073741824 bytes"), "{error}");
    }
}
