//! Safetensors files and cards. Each input is also tried as the header of a file, with the right length before it.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use residual_weights::Card;

fuzz_target!(|bytes: &[u8]| {
    common::read(bytes);
    let length = (bytes.len() as u64).to_le_bytes();
    common::read(&[&length, bytes, &[1; 16]].concat());
    if let Ok(text) = std::str::from_utf8(bytes) {
        match Card::parse(text, "card".as_ref()) {
            Ok(card) => {
                let json = card.to_json();
                assert_eq!(Card::parse(&json, "card".as_ref()).unwrap().to_json(), json);
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.len() < 4000 && !text.contains(char::is_control), "{text}");
            }
        }
    }
});
