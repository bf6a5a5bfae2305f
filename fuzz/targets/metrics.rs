//! The rows of `metrics.csv`, and the table and figure that `residual compare` draws from them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_lab::{ComparedRun, Comparison};
use residual_model::{BlockKind, Kernels};
use residual_report::comparison;
use residual_train::{Environment, Row, Split, files};

fuzz_target!(|bytes: &[u8]| {
    let Ok(rows) = files::parse_csv::<Row>(bytes) else { return };
    let error = |split| rows.iter().rfind(|row| row.split == split).map(|row| row.error);
    let environment = Environment {
        residual: String::new(),
        burn: String::new(),
        backend: "flex".into(),
        device: String::new(),
        processor: None,
        cores: 1,
        instructions: None,
        kernels: Kernels::Fused,
        system: String::new(),
    };
    let run = ComparedRun {
        path: "run".into(),
        label: "resnet20".into(),
        data: "digits".into(),
        parameters: 1,
        epochs: rows.last().map_or(0, |row| row.epoch),
        train_error: error(Split::Train),
        test_error: error(Split::Test),
        best: error(Split::Test).zip(Some(1)),
        seconds: rows.iter().map(|row| row.seconds).sum(),
        environment,
        kind: BlockKind::Residual,
        rows,
    };
    let comparison = Comparison { runs: vec![run], by_seed: Vec::new(), verdicts: Vec::new() };
    let _ = comparison::markdown(&comparison);
    let svg = comparison::svg(&comparison);
    assert!(!svg.contains("NaN") && svg.len() < 100_000 + 1000 * bytes.len());
});
