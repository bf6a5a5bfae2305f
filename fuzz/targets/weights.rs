//! Files of weights in any format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_weights::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("residual-fuzz-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::read(&path) {
        for (name, _) in checkpoint.entries() {
            let _ = checkpoint.values(name);
        }
    }
});
