//! The formats of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the binary one, in which a record is one or two label bytes
//! and an image, and the one for Python.

pub(crate) mod python;

use crate::DataError;
use python::Dictionary;

/// The number of values of an image `[3, 32, 32]`.
pub const PIXELS: usize = 3 * 32 * 32;

/// The records of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The images, `[records, 3, 32, 32]`.
    pub pixels: Vec<u8>,
    /// The labels, `[records]`.
    pub labels: Vec<u16>,
}

/// Reads records that begin with `labels` label bytes, and keeps the last label byte. CIFAR-10 has 1 label byte per
/// record; CIFAR-100 has 2, the coarse and the fine label. Errors name the file as `file`.
///
/// # Errors
/// If `bytes` is empty or not a whole number of records, or a label is not below `classes`.
pub fn read(file: &str, bytes: &[u8], labels: usize, classes: usize) -> Result<Records, DataError> {
    let corrupt = |reason: String| DataError::Corrupt { file: file.into(), reason };
    let record = labels + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        return Err(corrupt(format!("expected a positive multiple of {record} bytes, found {}", bytes.len())));
    }
    let mut records = Records { pixels: Vec::with_capacity(bytes.len()), labels: Vec::new() };
    for (index, record) in bytes.chunks_exact(record).enumerate() {
        let label = record[labels - 1];
        if usize::from(label) >= classes {
            return Err(corrupt(format!("record {index} has label {label}, but there are {classes} classes")));
        }
        records.labels.push(label.into());
        records.pixels.extend_from_slice(&record[labels..]);
    }
    Ok(records)
}

/// Reads a file for Python: a pickled dictionary of the images, a NumPy array `[images, 3 · 32 · 32]` of bytes, and the
/// labels, a list under the key `labels`. Errors name the file as `file`.
///
/// # Errors
/// If the file is damaged or has no such entries, the numbers of images and labels differ, or a label is not below
/// `classes`.
pub fn read_python(file: &str, bytes: &[u8], labels: &str, classes: usize) -> Result<Records, DataError> {
    let corrupt = |reason: String| DataError::Corrupt { file: file.into(), reason };
    let dictionary = Dictionary::read(bytes).map_err(|error| corrupt(error.to_string()))?;
    let Some((pixels, [images, PIXELS])) = dictionary.array("data") else {
        return Err(corrupt(format!("expected an array `data` of images of {PIXELS} bytes")));
    };
    let numbers =
        dictionary.numbers(labels).ok_or_else(|| corrupt(format!("expected a list `{labels}` of numbers")))?;
    if images == 0 || Some(pixels.len()) != images.checked_mul(PIXELS) || numbers.len() != images {
        let (bytes, labels) = (pixels.len(), numbers.len());
        return Err(corrupt(format!("it has {images} images, {bytes} bytes of pixels and {labels} labels")));
    }
    let label = |(index, &label): (usize, &i64)| {
        let valid = u16::try_from(label).ok().filter(|label| usize::from(*label) < classes);
        valid.ok_or_else(|| corrupt(format!("image {index} has label {label}, but there are {classes} classes")))
    };
    let labels = numbers.iter().enumerate().map(label).collect::<Result<_, _>>()?;
    Ok(Records { pixels: pixels.to_vec(), labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::cifar::python::tests::batch;

    #[test]
    fn a_python_file_has_the_same_records() {
        let pixels: Vec<u8> = (0..2 * PIXELS).map(|i| (i % 251) as u8).collect();
        let read = |pixels: &[u8], labels: &[u8]| {
            read_python("batch", &batch(pixels, PIXELS as u16, "labels", labels), "labels", 10)
        };
        let records = read(&pixels, &[3, 9]).unwrap();
        assert_eq!((records.pixels, records.labels), (pixels.clone(), vec![3, 9]));
        let error = |pixels: &[u8], labels: &[u8]| read(pixels, labels).unwrap_err().to_string();
        assert_eq!(error(&pixels, &[3, 10]), "batch is invalid: image 1 has label 10, but there are 10 classes");
        let counts = "batch is invalid: it has 2 images, 6143 bytes of pixels and 2 labels";
        assert_eq!(error(&pixels[1..], &[3, 9]), counts);
        let other = read_python("batch", &batch(&[0; 6], 3, "labels", &[1, 2]), "labels", 10).unwrap_err().to_string();
        assert_eq!(other, "batch is invalid: expected an array `data` of images of 3072 bytes");
        let other = read_python("batch", &batch(&pixels, PIXELS as u16, "x", &[1, 2]), "labels", 10).unwrap_err();
        assert!(other.to_string().ends_with("expected a list `labels` of numbers"));
    }

    #[test]
    fn the_last_label_is_kept_and_pixels_stay_in_order() {
        let record = |labels: &[u8], first: u8| [labels, &[first], &[7; PIXELS - 1]].concat();
        let records = read("x", &[record(&[19, 3], 8), record(&[0, 99], 9)].concat(), 2, 100).unwrap();
        assert_eq!(records.labels, [3, 99]);
        assert_eq!((records.pixels[0], records.pixels[1], records.pixels[PIXELS]), (8, 7, 9));
    }

    #[test]
    fn errors_name_the_file() {
        let error = |bytes: &[u8]| read("data.bin", bytes, 1, 10).unwrap_err().to_string();
        assert_eq!(error(&[]), "data.bin is invalid: expected a positive multiple of 3073 bytes, found 0");
        assert_eq!(error(&[0; 3074]), "data.bin is invalid: expected a positive multiple of 3073 bytes, found 3074");
        assert_eq!(error(&[10; 3073]), "data.bin is invalid: record 0 has label 10, but there are 10 classes");
    }
}
