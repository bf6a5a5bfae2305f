//! What the targets of files of weights share.

use residual_weights::Checkpoint;

/// Reads a file of weights with this content and values of its tensors. Errors must be short and on one line.
pub fn read(content: &[u8]) {
    let path = std::env::temp_dir().join(format!("residual-fuzz-{}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    let check = |error: residual_weights::WeightsError| {
        let text = error.to_string();
        assert!(text.len() < 4000 && !text.contains(char::is_control), "{text}");
    };
    match Checkpoint::read(&path) {
        Ok(checkpoint) => {
            for (name, entry) in checkpoint.entries().take(100) {
                match checkpoint.values(name) {
                    Ok(values) => assert_eq!(values.len(), entry.shape().iter().product::<usize>()),
                    Err(error) => check(error),
                }
                residual_weights::names::canonical(name);
            }
        }
        Err(error) => check(error),
    }
}
