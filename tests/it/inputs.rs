//! Runs the parsers of the fuzz targets on the inputs in `fuzz/inputs` and on modified copies. None may panic.

use residual::{
    data::{
        Fingerprint, Preprocessing, class_list,
        formats::{cifar, idx},
        match_classes, shown,
    },
    lab::{Inspection, SweepResults},
    report::{InspectionView, Report, sweep_markdown},
    train::{Checkpoint, Row, TrainConfig, files},
    weights::{self, Card, NameMap},
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
            let _ = map.apply("module.layer1.0.conv1.weight");
            read += 1;
        }
    }
    assert!(read > 0);
}

/// Reads a file of weights with this content. Errors must be short and on one line.
fn read_weights(path: &Path, content: &[u8]) -> bool {
    fs::write(path, content).unwrap();
    let check = |error: weights::WeightsError| {
        let text = error.to_string();
        assert!(text.len() < 4000 && !text.contains(char::is_control), "{text}");
    };
    let checkpoint = weights::Checkpoint::read(path);
    if let Ok(checkpoint) = &checkpoint {
        for (name, entry) in checkpoint.entries() {
            match checkpoint.values(name) {
                Ok(values) => assert_eq!(values.len(), entry.shape().iter().product::<usize>()),
                Err(error) => check(error),
            }
        }
    }
    checkpoint.map_err(check).is_ok()
}

/// A fuzz target, and what makes a file of an input that is a part of one.
type AsPart<'a> = (&'a str, &'a dyn Fn(&[u8]) -> Vec<u8>);

#[test]
fn the_readers_of_weights_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    // As in the targets, an input is also tried as a part of a file.
    let legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    let pickles = |input: &[u8]| [legacy, input].concat();
    let metadata = |input: &[u8]| {
        let mut file = [b"NRUB\x01\0", &(input.len() as u32).to_le_bytes()[..], input].concat();
        file.resize(file.len().next_multiple_of(256) + 1024, 1);
        file
    };
    let header = |input: &[u8]| [&(input.len() as u64).to_le_bytes(), input, &[1; 16]].concat();
    let as_part: [AsPart<'_>; 3] = [("pytorch", &pickles), ("burnpack", &metadata), ("safetensors", &header)];
    for (target, as_part) in as_part {
        let (mut whole, mut parts) = (0, 0);
        for input in inputs(target) {
            whole += usize::from(read_weights(&path, &input));
            parts += usize::from(read_weights(&path, &as_part(&input)));
        }
        assert!(whole > 0 && parts > 0, "{target}");
    }
    let mut cards = 0;
    for text in texts("safetensors") {
        if let Ok(card) = Card::parse(&text, "card".as_ref()) {
            let json = card.to_json();
            assert_eq!(Card::parse(&json, "card".as_ref()).unwrap().to_json(), json);
            cards += 1;
        }
    }
    assert!(cards > 0);
}

#[test]
fn the_image_decoders_never_panic() {
    let (preprocessing, mut read, mut refused) = (Preprocessing::imagenet(9, 8), 0, 0);
    for input in inputs("image") {
        match preprocessing.read_content("input", &input, 1 << 22) {
            Ok(pixels) => {
                assert!(pixels.len() == 3 * 8 * 8 && pixels.iter().all(|x| x.is_finite()));
                read += 1;
            }
            Err(error) => {
                assert!(!error.to_string().contains(char::is_control), "{error}");
                refused += 1;
            }
        }
    }
    assert!(read > 0 && refused > 0);
}

#[test]
fn the_readers_of_names_and_preprocessing_never_panic() {
    let image = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/inputs/image/bmp")).unwrap();
    let mut read = [0; 3];
    for text in texts("labels") {
        for names in [Some(class_list(&text)), serde_json::from_str(&text).ok()].into_iter().flatten() {
            let names: Vec<String> = names;
            assert_eq!(match_classes(&names, &names).unwrap().len(), names.len());
            assert!(names.iter().all(|name| !shown(name).contains(char::is_control)));
            read[0] += 1;
        }
        if let Ok(preprocessing) = serde_json::from_str::<Preprocessing>(&text)
            && preprocessing.validate().is_ok()
            && preprocessing.resize <= 256
        {
            let pixels = preprocessing.read_content("input", &image, 1 << 20).unwrap();
            assert_eq!(pixels.len(), preprocessing.shape().iter().product::<usize>());
            read[1] += 1;
        }
        if let Ok(fingerprint) = serde_json::from_str::<Fingerprint>(&text) {
            assert_eq!(fingerprint.changes(&fingerprint), None);
            read[2] += 1;
        }
    }
    assert!(read.iter().all(|read| *read > 0), "{read:?}");
}
