//! IDX files, uncompressed and gzipped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_data::formats::idx::read;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(idx) = read("input", bytes) {
        assert_eq!(idx.bytes.len(), idx.dims.iter().product::<usize>());
    }
});
