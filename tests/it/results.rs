//! Checks that every table and figure in `results/` is exactly what this program draws from the data next to it.

use residual::{
    burn::tensor::{Device, Tensor},
    lab::Comparison,
    report::{Drawn, comparison, draw},
    train::{Environment, Split},
    weights::{Card, Checkpoint, LoadOptions, load},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

/// Every file under a directory that has one of these extensions.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|ending| endings.iter().any(|e| ending == *e)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn recorded_sweeps_are_drawn_from_their_data() {
    let sweeps: Vec<PathBuf> = fs::read_dir(results())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("results.json").exists())
        .collect();
    assert!(sweeps.len() >= 4);
    for sweep in sweeps {
        let drawn = draw(&sweep).unwrap();
        for Drawn { path, content } in &drawn {
            let recorded = fs::read(sweep.join(path)).unwrap();
            let name = sweep.join(path);
            assert!(recorded == *content, "{} differs: run `residual report --redraw`", name.display());
        }
        for picture in files(&sweep, &["svg", "png", "html", "md"]) {
            let relative = picture.strip_prefix(&sweep).unwrap();
            assert!(drawn.iter().any(|drawn| drawn.path == relative), "{} is not drawn", picture.display());
        }
    }
}

#[test]
fn comparisons_of_recorded_runs_are_drawn_from_their_data() {
    for (data, nets) in [("cifar10", &["plain20", "resnet20"][..]), ("fashion-mnist", &["resnet20"])] {
        let runs: Vec<PathBuf> = nets.iter().map(|net| results().join(data).join(net)).collect();
        let svg = comparison::svg(&Comparison::read(&runs).unwrap());
        assert!(svg == fs::read_to_string(results().join(data).join("error.svg")).unwrap(), "results/{data}/error.svg");
    }
    let runs = ["cifar10/resnet20", "cifar10/plain20", "fashion-mnist/resnet20"].map(|run| results().join(run));
    let table = comparison::markdown(&Comparison::read(&runs).unwrap());
    assert_eq!(table, fs::read_to_string(results().join("training.md")).unwrap());
}

/// The networks of the sweep on CIFAR-10 load, as twins with their preprocessing, and tell images apart.
#[test]
fn the_recorded_networks_can_be_used() {
    let device = Device::flex();
    let networks = files(&results().join("cifar10-depth/networks"), &["safetensors"]);
    let names: Vec<_> = networks.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["plain20", "plain56", "resnet20", "resnet56"]);
    for (path, name) in networks.iter().zip(names) {
        let card = Card::of(path).unwrap().unwrap();
        assert_eq!(card.network.name().to_string(), name);
        assert_eq!((card.preprocessing.unwrap().shape(), card.labels.unwrap().len()), ([3, 32, 32], 10));
        let mut network = card.network.init(&device);
        load(&mut network, &Checkpoint::read(path).unwrap(), &LoadOptions::default()).unwrap();
        let images =
            Tensor::cat(vec![Tensor::zeros([1, 3, 32, 32], &device), Tensor::ones([1, 3, 32, 32], &device)], 0);
        let logits: Vec<f32> = network.forward(images).into_data().iter().collect();
        assert!(logits.iter().all(|logit| logit.is_finite()) && logits[..10] != logits[10..], "{name}: {logits:?}");
    }
}

/// A rate in `results/backends/table.md` is the median over the epochs of the training images per second.
#[test]
fn the_table_of_backends_is_computed_from_its_runs() {
    let rate = |backend: &str, kernels: &str| {
        let comparison = Comparison::read(&[results().join(format!("backends/{backend}-{kernels}"))]).unwrap();
        let rows = comparison.runs[0].rows.iter().filter(|row| row.split == Split::Running);
        let mut rates: Vec<f64> = rows.map(|row| row.images_per_second).collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let table = fs::read_to_string(results().join("backends/table.md")).unwrap();
    for backend in ["flex", "ndarray"] {
        let row = format!("| {backend} | {:.0} | {:.0} |\n", rate(backend, "fused"), rate(backend, "reference"));
        assert!(table.contains(&row), "{row}{table}");
    }
    let path = results().join("backends/flex-fused/environment.json");
    let environment: Environment = residual::train::files::read_json(&path).unwrap();
    let machine = format!("Measured on {}, {} cores.\n", environment.processor.unwrap(), environment.cores);
    assert!(table.ends_with(&machine), "{machine}{table}");
}
