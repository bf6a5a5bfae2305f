//! Name maps, and the conversion of the renamed tensors to torchvision's names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_weights::NameMap;

fuzz_target!(|text: &str| {
    if let Ok(map) = NameMap::parse(text, "input".as_ref()) {
        if let Ok(name) = map.apply("module.layer1.0.conv1.weight") {
            let _ = residual_weights::names::canonical(&name);
        }
    }
});
