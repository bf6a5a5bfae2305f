//! Runs the parsers of the fuzz targets on the inputs in `fuzz/inputs` and on modified copies. None may panic.

use residual::{
    data::formats::{cifar, idx},
    lab::{Inspection, SweepResults},
    report::{InspectionView, Report, sweep_markdown},
    train::{Checkpoint, Row, TrainConfig, files},
    weights::NameMap,
};
use std::{fs, path::Path};

/// The inputs of a fuzz target: each one complete, truncated, and with single bytes changed.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/inputs").join(target);
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let whole = fs::read(entry.unwrap().path()).unwrap();
        let step = (whole.len() / 64).max(1);
        for at in (0..whole.len()).step_by(step) {
            inputs.push(whole[..at].to_vec());
            for change in [0x00, 0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = if change == 0 { 0 } else { changed[at] ^ change };
                inputs.push(changed);
            }
        }
        inputs.push(whole);
    }
    assert!(inputs.len() > 1, "no inputs for {target}");
    inputs
}

/// The inputs that are valid UTF-8.
fn texts(target: &str) -> Vec<String> {
    inputs(target).into_iter().filter_map(|input| String::from_utf8(input).ok()).collect()
}

#[test]
fn dataset_readers_never_panic() {
    let (mut read, mut refused) = (0, 0);
    for input in inputs("cifar") {
        for (labels, classes) in [(1, 10), (2, 100)] {
            match cifar::read("input", &input, labels, classes) {
                Ok(records) => {
                    assert_eq!(records.pixels.len(), records.labels.len() * cifar::PIXELS);
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    let mut read_pickles = 0;
    for input in inputs("cifar_python") {
        for (labels, classes) in [("labels", 10), ("fine_labels", 100)] {
            match cifar::read_python("input", &input, labels, classes) {
                Ok(records) => {
                    assert_eq!(records.pixels.len(), records.labels.len() * cifar::PIXELS);
                    assert!(records.labels.iter().all(|label| usize::from(*label) < classes));
                    read_pickles += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    for input in inputs("idx") {
        match idx::read("input", &input) {
            Ok(idx) => {
                assert_eq!(idx.bytes.len(), idx.dims.iter().product::<usize>());
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 0 && read_pickles > 0 && refused > 0);
}

#[test]
fn the_configuration_parser_never_panics() {
    let mut read = 0;
    for text in texts("config") {
        if let Ok(config) = TrainConfig::parse(&text) {
            let written = serde_json::to_string(&config).unwrap();
            let again = TrainConfig::parse(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
            assert_eq!(serde_json::to_string(&again).unwrap(), written, "a configuration round-trips");
            if config.validate().is_ok() {
                config.network.summary();
            }
            let _ = (config.steps(10), config.schedule.rate(3, 10, false));
            read += 1;
        }
    }
    assert!(read > 0);
}

#[test]
fn the_checkpoint_reader_never_panics() {
    let mut read = 0;
    for input in inputs("checkpoint") {
        let _ = Checkpoint::from_bytes(&input);
        if let Ok(checkpoint) = Checkpoint::from_bytes(&Checkpoint::seal(input)) {
            let written = checkpoint.to_bytes().unwrap();
            assert_eq!(Checkpoint::from_bytes(&written).unwrap().to_bytes().unwrap(), written);
            read += 1;
        }
    }
    assert!(read > 0);
}

#[test]
fn the_metrics_reader_never_panics() {
    let (mut read, mut refused) = (0, 0);
    for input in inputs("metrics") {
        match files::parse_csv::<Row>(&input) {
            Ok(rows) => read += rows.len(),
            Err(error) => {
                assert!(error.chars().all(|c| !c.is_control()) && error.chars().count() < 1000, "{error}");
                refused += 1;
            }
        }
    }
    assert!(read > 0 && refused > 0);
}

/// What was read is drawn too.
#[test]
fn the_readers_of_results_never_panic() {
    let (mut sweeps, mut inspections, mut refused) = (0, 0, 0);
    for input in inputs("results") {
        if let Ok(results) = serde_json::from_slice::<SweepResults>(&input) {
            sweep_markdown(&results);
            check_page(&Report::of(vec![results], Vec::new()).html());
            sweeps += 1;
        } else if let Ok(inspection) = serde_json::from_slice::<Inspection>(&input)
            && inspection.is_complete()
        {
            InspectionView::of(&inspection).csv();
            check_page(&Report::of(Vec::new(), vec![inspection]).html());
            inspections += 1;
        } else {
            refused += 1;
        }
    }
    assert!(sweeps > 0 && inspections > 0 && refused > 0);
}

fn check_page(html: &str) {
    assert_eq!(html.matches("<script").count(), 1, "no script from a file");
    assert!(html.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn the_name_map_parser_never_panics() {
    let mut read = 0;
    for text in texts("name_map") {
        if let Ok(map) = NameMap::parse(&text, "input".as_ref()) {
            map.apply("module.layer1.0.conv1.weight");
            read += 1;
        }
    }
    assert!(read > 0);
}
