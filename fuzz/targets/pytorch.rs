//! PyTorch files. Each input is also tried as the pickles of a file of the layout before PyTorch 1.6, because a fuzzer
//! can change neither an archive nor the magic number of that layout.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

/// The pickles of the magic number, the version and the system.
const START: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";

fuzz_target!(|bytes: &[u8]| {
    common::read(bytes);
    common::read(&[START, bytes].concat());
});
