//! Checkpoints of training runs. The target also tries each input with the correct checksum appended, which a fuzzer
//! cannot guess.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_train::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let _ = Checkpoint::from_bytes(bytes);
    let sealed = Checkpoint::seal(bytes.to_vec());
    if let Ok(checkpoint) = Checkpoint::from_bytes(&sealed) {
        let written = checkpoint.to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&written).unwrap().to_bytes().unwrap(), written);
    }
});
