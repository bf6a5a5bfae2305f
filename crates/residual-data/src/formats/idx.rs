//! The IDX format of the MNIST files (LeCun, Cortes & Burges), uncompressed or gzipped.

use crate::DataError;
use flate2::read::GzDecoder;
use std::io::Read;

/// An array of bytes with one to four dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The dimensions, slowest-varying first.
    pub dims: Vec<usize>,
    /// The values, in row-major order.
    pub bytes: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes, uncompressed or gzipped. Errors name the file as `file`.
///
/// # Errors
/// If the content is not an IDX file of unsigned bytes, the number of values differs from the header, or the header
/// declares more than 2^30 values (1 GiB).
pub fn read(file: &str, content: &[u8]) -> Result<Idx, DataError> {
    if content.starts_with(&[0x1f, 0x8b]) { decode(file, GzDecoder::new(content)) } else { decode(file, content) }
}

/// The maximum number of values in a file. Without this limit, a small gzipped file could be unpacked to any size.
const MAX_VALUES: usize = 1 << 30;

fn decode(file: &str, mut reader: impl Read) -> Result<Idx, DataError> {
    let corrupt = |reason: String| DataError::Corrupt { file: file.into(), reason };
    let mut take = |count: usize| {
        // The buffer grows with the bytes that are read, so a wrong header cannot cause a large allocation.
        let mut bytes = Vec::new();
        let read = reader.by_ref().take(count as u64).read_to_end(&mut bytes);
        read.map(|_| bytes).map_err(|error| corrupt(error.to_string()))
    };
    let [0, 0, 8, rank @ 1..=4] = take(4)?[..] else {
        return Err(corrupt("not an IDX file of unsigned bytes".into()));
    };
    let header = take(4 * usize::from(rank))?;
    if header.len() < 4 * usize::from(rank) {
        return Err(corrupt("the header is truncated".into()));
    }
    let dims: Vec<usize> =
        header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    let declared = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let Some(declared) = declared.filter(|count| *count <= MAX_VALUES) else {
        return Err(corrupt(format!("the header declares {dims:?} values; expected at most {MAX_VALUES}")));
    };
    let bytes = take(declared + 1)?;
    if declared != bytes.len() {
        let found = if bytes.len() > declared { "more".into() } else { bytes.len().to_string() };
        return Err(corrupt(format!("the header declares {dims:?} values, but the file has {found}")));
    }
    Ok(Idx { dims, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_dimensions_and_bytes() {
        let idx = read("x", &gzip(&[0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 1, 7, 9])).unwrap();
        assert_eq!((idx.dims, idx.bytes), (vec![2, 1], vec![7, 9]));
        assert_eq!(read("x", &[0, 0, 8, 1, 0, 0, 0, 2, 5, 6]).unwrap().bytes, [5, 6]);
    }

    #[test]
    fn invalid_files_are_rejected() {
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        let cases: [&[u8]; 5] =
            [&[], &[0, 0, 13, 1, 0, 0, 0, 0], &[0, 0, 8, 2, 0], &[0, 0, 8, 1, 0, 0, 0, 3, 1], &huge];
        for data in cases {
            let error = read("some-file.gz", &gzip(data)).err().unwrap().to_string();
            assert!(error.starts_with("some-file.gz is invalid: "), "{error}");
        }
        assert!(read("x", b"not gzip").is_err());
        let bomb = gzip(&[&[0u8, 0, 8, 1, 0, 0, 0, 1][..], &vec![0; 1 << 24]].concat());
        assert!(read("x", &bomb).unwrap_err().to_string().contains("declares [1] values, but the file has more"));
        let whole = gzip(&[0, 0, 8, 1, 0, 0, 0, 1, 5]);
        assert!(read("x", &whole[..whole.len() - 9]).is_err());
    }
}
