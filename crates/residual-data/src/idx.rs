//! The IDX format of the MNIST files (LeCun, Cortes & Burges), gzipped.

use crate::DataError;
use flate2::read::GzDecoder;
use std::io::Read;

/// Bytes with up to three dimensions.
pub(crate) struct Idx {
    pub(crate) dims: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Reads a gzipped IDX file of unsigned bytes; `file` names it in errors.
pub(crate) fn read(file: &str, gzipped: &[u8]) -> Result<Idx, DataError> {
    let corrupt = |reason: &str| DataError::Corrupt { file: file.into(), reason: reason.into() };
    let mut data = Vec::new();
    GzDecoder::new(gzipped).read_to_end(&mut data).map_err(|e| corrupt(&e.to_string()))?;
    let [0, 0, 8, rank @ 1..=4] = data[..].first_chunk::<4>().copied().unwrap_or_default() else {
        return Err(corrupt("not an IDX file of unsigned bytes"));
    };
    let header = 4 + 4 * usize::from(rank);
    let dims: Vec<usize> = data
        .get(4..header)
        .ok_or_else(|| corrupt("the header is cut off"))?
        .chunks_exact(4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    let bytes = data.split_off(header);
    let expected = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    if expected != Some(bytes.len()) {
        return Err(corrupt(&format!("{dims:?} values are announced, {} are there", bytes.len())));
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
    }

    #[test]
    fn broken_files_are_refused_by_name() {
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        let cases: [&[u8]; 5] =
            [&[], &[0, 0, 13, 1, 0, 0, 0, 0], &[0, 0, 8, 2, 0], &[0, 0, 8, 1, 0, 0, 0, 3, 1], &huge];
        for data in cases {
            let error = read("some-file.gz", &gzip(data)).err().unwrap().to_string();
            assert!(error.starts_with("some-file.gz is not usable: "), "{error}");
        }
        assert!(read("x", b"not gzip").is_err());
        let whole = gzip(&[0, 0, 8, 1, 0, 0, 0, 1, 5]);
        assert!(read("x", &whole[..whole.len() - 9]).is_err());
    }
}
