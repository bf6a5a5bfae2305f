//! CIFAR's binary files, with one label byte per image (CIFAR-10) and with two (CIFAR-100).
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_data::formats::cifar::{PIXELS, read};

fuzz_target!(|bytes: &[u8]| {
    for (labels, classes) in [(1, 10), (2, 100)] {
        if let Ok(records) = read("input", bytes, labels, classes) {
            assert_eq!(records.pixels.len(), records.labels.len() * PIXELS);
            assert!(records.labels.iter().all(|&label| usize::from(label) < classes));
        }
    }
});
