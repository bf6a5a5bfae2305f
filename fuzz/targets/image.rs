//! Image files of every format, through the path that loads a folder's images, with its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_data::Preprocessing;

fuzz_target!(|bytes: &[u8]| {
    let preprocessing = Preprocessing::imagenet(9, 8);
    // Decoding a few million pixels takes a fraction of a second.
    if let Ok(pixels) = preprocessing.read_content("input", bytes, 1 << 22) {
        assert_eq!(pixels.len(), 3 * 8 * 8);
        assert!(pixels.iter().all(|x| x.is_finite()));
    }
});
