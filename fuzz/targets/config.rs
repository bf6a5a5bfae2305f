//! Training configurations. A configuration that parses must not cause a panic when it is used, and must survive a
//! round trip through JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_train::TrainConfig;

fuzz_target!(|text: &str| {
    if let Ok(config) = TrainConfig::parse(text) {
        if config.validate().is_ok() {
            let _ = config.network.summary().parameters();
        }
        let _ = (config.steps(10), config.schedule.rate(3, 10, false));
        let written = serde_json::to_string(&config).unwrap();
        let _ = TrainConfig::parse(&written).unwrap();
    }
});
