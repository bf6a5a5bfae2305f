//! CIFAR's files for Python.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_data::formats::cifar::{PIXELS, read_python};

fuzz_target!(|bytes: &[u8]| {
    for (labels, classes) in [("labels", 10), ("fine_labels", 100)] {
        if let Ok(records) = read_python("input", bytes, labels, classes) {
            assert_eq!(records.pixels.len(), records.labels.len() * PIXELS);
            assert!(records.labels.iter().all(|&label| usize::from(label) < classes));
        }
    }
});
