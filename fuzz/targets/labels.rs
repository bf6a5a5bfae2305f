//! Small text files beside weights and runs: lists of class names, `classes.json`, `preprocessing.json` and
//! `data.json`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_data::{Fingerprint, Preprocessing, class_list, match_classes, shown};

/// An image to preprocess.
const IMAGE: &[u8] = include_bytes!("../inputs/image/bmp");

fuzz_target!(|text: &str| {
    for names in [Some(class_list(text)), serde_json::from_str(text).ok()].into_iter().flatten() {
        let names: Vec<String> = names;
        assert_eq!(match_classes(&names, &names).unwrap().len(), names.len());
        let shown: Vec<String> = names.iter().map(|name| shown(name)).collect();
        assert!(shown.iter().all(|name| name.chars().all(|c| !c.is_control())));
        if let Err(error) = match_classes(&names, &[]) {
            assert!(!error.to_string().contains(char::is_control));
        }
    }
    if let Ok(preprocessing) = serde_json::from_str::<Preprocessing>(text)
        && preprocessing.validate().is_ok()
        && preprocessing.resize <= 256
    {
        let pixels = preprocessing.read_content("input", IMAGE, 1 << 20).unwrap();
        assert_eq!(pixels.len(), preprocessing.shape().iter().product::<usize>());
    }
    if let Ok(fingerprint) = serde_json::from_str::<Fingerprint>(text) {
        assert_eq!(fingerprint.changes(&fingerprint), None);
    }
});
