//! The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): records of one or two labels and an image.

use crate::DataError;

/// Values of an image, `[3, 32, 32]`.
pub const PIXELS: usize = 3 * 32 * 32;

/// A file's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The images, one after the other, `[3, 32, 32]` each.
    pub pixels: Vec<u8>,
    /// Their labels.
    pub labels: Vec<u16>,
}

/// Reads records of `labels` label bytes, of which the last counts: 1 in CIFAR-10, 2 in CIFAR-100 (coarse, fine). `file`
/// names them in errors.
///
/// # Errors
/// If they are none, not whole, or have a label without a class.
pub fn read(file: &str, bytes: &[u8], labels: usize, classes: usize) -> Result<Records, DataError> {
    let corrupt = |reason: String| DataError::Corrupt { file: file.into(), reason };
    let record = labels + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        return Err(corrupt(format!("{} bytes are not whole records of {record}", bytes.len())));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_label_counts_and_planes_stay_in_order() {
        let record = |labels: &[u8], first: u8| [labels, &[first], &[7; PIXELS - 1]].concat();
        let records = read("x", &[record(&[19, 3], 8), record(&[0, 99], 9)].concat(), 2, 100).unwrap();
        assert_eq!(records.labels, [3, 99]);
        assert_eq!((records.pixels[0], records.pixels[1], records.pixels[PIXELS]), (8, 7, 9));
    }

    #[test]
    fn broken_files_are_refused_by_name() {
        let error = |bytes: &[u8]| read("data.bin", bytes, 1, 10).unwrap_err().to_string();
        assert_eq!(error(&[]), "data.bin is not usable: 0 bytes are not whole records of 3073");
        assert_eq!(error(&[0; 3074]), "data.bin is not usable: 3074 bytes are not whole records of 3073");
        assert_eq!(error(&[10; 3073]), "data.bin is not usable: record 0 has label 10, but there are 10 classes");
    }
}
