//! Trainings from start to end.

use residual::{
    backend::Backend,
    data::DataName,
    model::{BlockOptions, Norm},
    train::{
        Decay, Device, Environment, RunDir, Schedule, Split, Status, StopFlag, TrainConfig, TrainError, Training,
        Warmup,
    },
};
use std::{cell::Cell, fs, path::Path, rc::Rc};

fn config(net: &str) -> TrainConfig {
    TrainConfig::new(net.parse().unwrap(), DataName::Synthetic).unwrap().with_epochs(3)
}

fn create(path: &Path, config: &TrainConfig, force: bool) -> Result<RunDir, TrainError> {
    let hardware = Backend::Flex.probe().unwrap();
    RunDir::create(path, config, &Environment::here(Backend::Flex, &hardware), force)
}

fn train(path: &Path, config: &TrainConfig) -> RunDir {
    let run = create(path, config, false).unwrap();
    Training::new(config.clone(), Device::flex()).unwrap().in_dir(run.clone()).run().unwrap();
    run
}

#[test]
fn training_learns_and_writes_a_whole_directory() {
    let dir = tempfile::tempdir().unwrap();
    let run = train(dir.path(), &config("resnet8"));
    let names = ["config.json", "environment.json", "metrics.csv", "summary.json", "model.bpk", "checkpoint", "train"];
    for name in names {
        assert!(dir.path().join(name).exists(), "{name}");
    }
    let rows = run.metrics().unwrap();
    assert_eq!(rows.len(), 9);
    let last = rows.iter().rfind(|row| row.split == Split::Train).unwrap();
    assert!(last.error < 0.05, "{last:?}");
    assert!(run.is_finished());
    // The weights on disk are those that were measured.
    let network = run.network(&Device::flex()).unwrap();
    let dataset = DataName::Synthetic.load().unwrap();
    let again = residual::train::evaluate(&network, &dataset.train, 64, &Device::flex()).unwrap();
    assert_eq!((again.error, again.loss), (last.error, last.loss));
    // Two checkpoints, each a triple with its progress.
    assert_eq!(fs::read_dir(dir.path().join("checkpoint")).unwrap().count(), 8);
}

#[test]
fn the_mean_loss_weighs_samples_and_not_batches() {
    let dataset = DataName::Synthetic.load().unwrap();
    let network = config("dense-plain4").init(&Device::flex());
    let by = |batch| residual::train::evaluate(&network, &dataset.test, batch, &Device::flex()).unwrap();
    let (whole, short_last) = (by(80), by(33));
    assert!((whole.loss - short_last.loss).abs() < 1e-6, "{} {}", whole.loss, short_last.loss);
    assert_eq!(whole.error, short_last.error);
}

#[test]
fn a_stopped_training_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-resnet4");
    let whole = train(&dir.path().join("whole"), &config);

    let run = create(&dir.path().join("parts"), &config, false).unwrap();
    let stop = StopFlag::default();
    let flag = stop.clone();
    let steps = Rc::new(Cell::new(0));
    let training = Training::new(config.clone(), Device::flex()).unwrap().with_stop(stop).in_dir(run.clone());
    let outcome = training
        .with_observer(move |event| {
            if matches!(event, residual::train::Event::Step { .. }) {
                steps.set(steps.get() + 1);
                if steps.get() == 2 {
                    flag.set();
                }
            }
        })
        .run()
        .unwrap();
    assert_eq!(outcome.status, Status::Interrupted);
    assert!(!run.is_finished());

    let checkpoint = run.latest(&Device::flex()).unwrap().unwrap();
    assert_eq!(checkpoint.iteration(), outcome.iterations);
    let resumed = Training::new(config, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(run.clone());
    resumed.run().unwrap();
    let strip = |run: &RunDir| -> Vec<_> {
        run.metrics().unwrap().into_iter().map(|r| (r.epoch, r.split, r.loss, r.error, r.lr)).collect()
    };
    assert_eq!(strip(&run), strip(&whole));
}

#[test]
fn a_training_that_no_longer_improves_stops_early() {
    let config = TrainConfig { patience: Some(2), ..config("dense-plain4").with_epochs(50) };
    // Without a norm and at this rate nothing moves, so the first epoch stays the best.
    let blocks = BlockOptions { norm: Norm::None, ..*config.network.blocks() };
    let network = config.network.clone().with_blocks(blocks);
    let config =
        config.with_network(network).with_schedule(Schedule { decay: Decay::Constant, ..Schedule::cosine(1e-30) });
    let outcome = Training::new(config, Device::flex()).unwrap().run().unwrap();
    assert_eq!((outcome.status, outcome.epochs), (Status::StoppedEarly, 3));
    assert_eq!(outcome.rows.len(), 9);
}

#[test]
fn a_training_killed_after_its_last_checkpoint_ends_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-plain4");
    let run = train(&dir.path().join("run"), &config);
    let metrics = run.metrics().unwrap();
    fs::remove_file(run.path().join("summary.json")).unwrap();
    let checkpoint = run.latest(&Device::flex()).unwrap().unwrap();
    let resumed = Training::new(config, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(run.clone());
    assert_eq!(resumed.run().unwrap().status, Status::Finished);
    assert_eq!(run.metrics().unwrap(), metrics);
    assert!(run.is_finished());
}

#[test]
fn a_run_is_not_overwritten_without_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let config = config("dense-plain4").with_epochs(1);
    train(&path, &config);
    let error = create(&path, &config, false).unwrap_err().to_string();
    assert!(error.contains("holds a finished training") && error.contains("--force"), "{error}");
    assert!(create(&path, &config, true).is_ok());
    let error = create(&path, &config, false).unwrap_err().to_string();
    assert!(error.contains("unfinished") && error.contains("--resume"), "{error}");
    fs::write(dir.path().join("precious.txt"), "x").unwrap();
    let error = create(dir.path(), &config, true).unwrap_err().to_string();
    assert!(error.contains("holds no training"), "{error}");
    assert!(dir.path().join("precious.txt").exists());
    // Nor is a folder ours because it has a file of the same name.
    let dataset = tempfile::tempdir().unwrap();
    fs::write(dataset.path().join("config.json"), "{\"labels\": 10}").unwrap();
    fs::create_dir(dataset.path().join("train")).unwrap();
    let error = create(dataset.path(), &config, true).unwrap_err().to_string();
    assert!(error.contains("holds no training") && dataset.path().join("train").is_dir(), "{error}");
}

#[test]
fn damaged_and_foreign_checkpoints_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-plain4").with_epochs(1);
    let run = train(&dir.path().join("a"), &config);
    let other = train(&dir.path().join("b"), &self::config("dense-plain8").with_epochs(1));
    let model = dir.path().join("a/model.bpk");
    fs::copy(other.path().join("model.bpk"), &model).unwrap();
    let error = run.network(&Device::flex()).unwrap_err().to_string();
    assert!(error.contains("model.bpk belongs to another network"), "{error}");
    for content in [&b""[..], b"not a checkpoint", &[0xff; 4096]] {
        fs::write(&model, content).unwrap();
        let error = run.network(&Device::flex()).unwrap_err().to_string();
        assert!(error.contains("model.bpk is damaged") && !error.contains('\n'), "{error}");
    }
    let checkpoint = dir.path().join("a/checkpoint/optim-5.bpk");
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &whole[..whole.len() / 2]).unwrap();
    let error = run.latest(&Device::flex()).unwrap_err().to_string();
    assert!(error.contains("optim-5.bpk is damaged"), "{error}");
}

#[test]
fn a_diverging_training_stops_and_leaves_a_usable_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        config("dense-resnet4").with_schedule(Schedule { lr: 1e30, decay: Decay::Constant, warmup: Warmup::None });
    let run = create(dir.path(), &config, false).unwrap();
    let error = Training::new(config, Device::flex()).unwrap().in_dir(run.clone()).run().unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(fs::read_to_string(dir.path().join("summary.json")).unwrap().contains("\"failed\""));
    assert!(!dir.path().join("model.bpk").exists() && run.config().is_ok() && run.metrics().is_ok());
}

#[test]
fn configurations_of_another_version_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let json = serde_json::to_string(&config("resnet8")).unwrap();
    fs::write(&path, json.replace("\"version\":1", "\"version\":2")).unwrap();
    let error = TrainConfig::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("is a configuration of version 2; this program reads version 1"), "{error}");
}

#[test]
fn fewer_classes_than_the_data_have_are_refused() {
    let mut config = config("resnet8");
    config.network = config.network.with_classes(5);
    let error = Training::new(config, Device::flex()).err().unwrap().to_string();
    assert!(error.contains("the data have 10 classes, the network only 5"), "{error}");
}
