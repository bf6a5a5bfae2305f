//! Burn's files of weights. Each input is also tried as the metadata of a file, with the right length before it.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    common::read(bytes);
    let length = (bytes.len() as u32).to_le_bytes();
    let mut file = [b"NRUB\x01\0", &length[..], bytes].concat();
    file.resize(file.len().next_multiple_of(256) + 1024, 1);
    common::read(&file);
});
