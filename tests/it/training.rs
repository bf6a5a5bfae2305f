//! Complete training runs.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData, activation::softmax},
};
use residual::{
    backend::Backend,
    data::{Augmentation, DataError, DataName, Dataset, Source},
    model::{BlockOptions, Kernels, Network, Norm, Part, parameters::for_each_parameter},
    train::{
        Algorithm, Decay, Device, Environment, Event, Existing, OnNan, OptimizerKind, Row, RunDir, Schedule, Split,
        Status, StopFlag, TrainConfig, TrainError, Training, Warmup,
    },
    weights::tensors,
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

fn config(net: &str) -> TrainConfig {
    TrainConfig::new(net.parse().unwrap(), DataName::Synthetic).unwrap().with_epochs(3)
}

fn create(path: &Path, config: &TrainConfig, force: bool) -> Result<RunDir, TrainError> {
    let hardware = Backend::Flex.probe().unwrap();
    let existing = if force { Existing::Replace(&|_| {}) } else { Existing::Keep };
    RunDir::create(path, config, &Environment::here(Backend::Flex, &hardware), existing)
}

fn train(path: &Path, config: &TrainConfig) -> RunDir {
    let run = create(path, config, false).unwrap();
    Training::new(config.clone(), Device::flex()).unwrap().in_dir(run.clone()).run().unwrap();
    run
}

#[test]
fn a_run_learns_and_writes_a_complete_directory() {
    let dir = tempfile::tempdir().unwrap();
    let run = train(dir.path(), &config("resnet8"));
    let names =
        ["config.json", "environment.json", "metrics.csv", "summary.json", "model.bpk", "best.bpk", "checkpoint"];
    for name in names {
        assert!(dir.path().join(name).exists(), "{name}");
    }
    let rows = run.metrics().unwrap();
    assert_eq!(rows.len(), 9);
    let last = rows.iter().rfind(|row| row.split == Split::Train).unwrap();
    assert!(last.error < 0.05, "{last:?}");
    assert!(run.is_finished());
    // The metrics were measured with the saved weights.
    let network = run.network(&Device::flex()).unwrap();
    let dataset = DataName::Synthetic.load().unwrap();
    let again = residual::train::evaluate(&network, &dataset.train, 64, &Device::flex()).unwrap();
    assert_eq!((again.error, again.loss), (last.error, last.loss));
    let kept = fs::read_dir(dir.path().join("checkpoint")).unwrap().map(|entry| entry.unwrap().path());
    let (checkpoints, times): (Vec<_>, Vec<_>) = kept.partition(|path| path.extension().is_some_and(|e| e == "ckpt"));
    assert_eq!((checkpoints.len(), times.len()), (2, 2));
}

#[test]
fn the_mean_loss_is_over_samples_not_over_batches() {
    let dataset = DataName::Synthetic.load().unwrap();
    let network = config("dense-plain4").init(&Device::flex());
    let by = |batch| residual::train::evaluate(&network, &dataset.test, batch, &Device::flex()).unwrap();
    let (whole, short_last) = (by(80), by(33));
    assert!((whole.loss - short_last.loss).abs() < 1e-6, "{} {}", whole.loss, short_last.loss);
    assert_eq!(whole.error, short_last.error);
}

#[test]
fn a_stopped_run_resumes_with_the_same_metrics() {
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

    let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
    assert_eq!(checkpoint.iteration(), outcome.iterations);
    let resumed = Training::new(config, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(run.clone());
    resumed.run().unwrap();
    let strip = |run: &RunDir| -> Vec<_> {
        run.metrics().unwrap().into_iter().map(|r| (r.epoch, r.split, r.loss, r.error, r.lr)).collect()
    };
    assert_eq!(strip(&run), strip(&whole));
}

#[test]
fn a_run_stops_early_without_improvement() {
    let config = TrainConfig { patience: Some(2), ..config("dense-plain4").with_epochs(50) };
    // At this learning rate and without norms, the weights do not change, so the first epoch remains the best.
    let blocks = BlockOptions { norm: Norm::None, ..config.network.blocks };
    let network = config.network.clone().with_blocks(blocks);
    let config =
        config.with_network(network).with_schedule(Schedule { decay: Decay::Constant, ..Schedule::cosine(1e-30) });
    let outcome = Training::new(config, Device::flex()).unwrap().run().unwrap();
    assert_eq!((outcome.status, outcome.epochs), (Status::StoppedEarly, 3));
    assert_eq!(outcome.rows.len(), 9);
}

#[test]
fn a_run_killed_after_its_last_checkpoint_finishes_with_the_same_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-plain4");
    let run = train(&dir.path().join("run"), &config);
    let metrics = run.metrics().unwrap();
    fs::remove_file(run.path().join("summary.json")).unwrap();
    let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
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
    assert!(error.ends_with("holds a finished training run; choose another directory"), "{error}");
    assert!(create(&path, &config, true).is_ok());
    let error = create(&path, &config, false).unwrap_err().to_string();
    assert!(error.ends_with("holds an unfinished training run; choose another directory"), "{error}");
    fs::write(dir.path().join("precious.txt"), "x").unwrap();
    let error = create(dir.path(), &config, true).unwrap_err().to_string();
    assert!(error.contains("holds no training"), "{error}");
    assert!(dir.path().join("precious.txt").exists());
    // A `config.json` alone does not make a directory a run directory.
    let dataset = tempfile::tempdir().unwrap();
    fs::write(dataset.path().join("config.json"), "{\"labels\": 10}").unwrap();
    fs::create_dir(dataset.path().join("train")).unwrap();
    let error = create(dataset.path(), &config, true).unwrap_err().to_string();
    assert!(error.contains("holds no training") && dataset.path().join("train").is_dir(), "{error}");
}

#[test]
fn damaged_and_mismatched_weights_are_named() {
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
}

#[test]
fn an_older_checkpoint_replaces_a_damaged_one_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-plain4");
    let run = train(&dir.path().join("a"), &config);
    let newest = dir.path().join("a/checkpoint/00000015.ckpt");
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() / 2]).unwrap();
    let error = run.latest(&Device::flex(), false).unwrap_err().to_string();
    assert!(error.contains("00000015.ckpt is damaged") && !error.contains('\n'), "{error}");
    let older = run.latest(&Device::flex(), true).unwrap().unwrap();
    assert_eq!((older.epoch(), older.iteration()), (2, 10));

    train(&dir.path().join("b"), &self::config("dense-plain8"));
    fs::copy(dir.path().join("b/checkpoint/00000015.ckpt"), &newest).unwrap();
    let error = run.latest(&Device::flex(), false).unwrap_err().to_string();
    assert!(error.contains("belongs to another network: dense-plain8, not dense-plain4"), "{error}");
    fs::remove_file(dir.path().join("a/checkpoint/00000010.ckpt")).unwrap();
    assert!(run.latest(&Device::flex(), true).unwrap_err().to_string().contains("another network"));
}

#[test]
fn only_one_process_can_lock_a_run_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-plain4");
    let held = create(dir.path(), &config, false).unwrap();
    let refused = |result: Result<RunDir, TrainError>| {
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with("is locked by another process"), "{error}");
    };
    refused(RunDir::open(dir.path()).unwrap().locked());
    refused(create(dir.path(), &config, true));
    assert!(held.config().is_ok());
    drop(held);
    assert!(RunDir::open(dir.path()).unwrap().locked().is_ok());
}

/// A configuration that uses every kind of state that a checkpoint holds.
fn all_features() -> TrainConfig {
    let mut config = config("resnet8").with_epochs(3);
    config.data.validation = 20;
    config.batch_size = 20;
    config.accumulate = 2;
    config.ema = Some(0.9);
    config.optimizer.clip = Some(1.0);
    config.optimizer.algorithm = Algorithm::Sgd { momentum: 0.9, nesterov: true };
    config.augmentation =
        Augmentation { crop: 1, flip: true, cutout: 2, mixup: 0.2, label_smoothing: 0.1, ..Augmentation::default() };
    config.schedule.warmup = Warmup::UntilError { lr: 0.01, threshold: 0.8 };
    config.patience = Some(2);
    config
}

#[test]
fn repeated_resumes_are_bit_exact() {
    let config = all_features();
    let whole = Training::new(config.clone(), Device::flex()).unwrap().run().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), &config, false).unwrap();
    let mut stops = 0;
    let parts = loop {
        let stop = StopFlag::default();
        let flag = stop.clone();
        let mut training = Training::new(config.clone(), Device::flex()).unwrap().with_stop(stop).in_dir(run.clone());
        if let Some(checkpoint) = run.latest(&Device::flex(), false).unwrap() {
            training = training.from_checkpoint(checkpoint);
        }
        // With a checkpoint after every step, the run can stop after any step.
        let mut steps = 0;
        let training = training.with_checkpoint_every(Some(Duration::ZERO)).with_observer(move |event| {
            steps += usize::from(matches!(event, Event::Step { .. }));
            if steps > 2 {
                flag.set();
            }
        });
        let outcome = training.run().unwrap();
        match outcome.status {
            Status::Interrupted => stops += 1,
            _ => break outcome,
        }
    };
    assert!(stops > 5, "{stops}");
    assert_eq!(values(&parts.network), values(&whole.network));
    let strip = |rows: &[Row]| -> Vec<_> { rows.iter().map(|r| (r.epoch, r.split, r.loss, r.error, r.lr)).collect() };
    assert_eq!(strip(&parts.rows), strip(&whole.rows));
}

/// The contents, by name, of the files that depend only on the configuration.
fn files(run: &RunDir) -> BTreeMap<String, Vec<u8>> {
    let kept = fs::read_dir(run.path().join("checkpoint")).unwrap().map(|entry| entry.unwrap().path());
    let checkpoints = kept.filter(|path| path.extension().is_some_and(|e| e == "ckpt"));
    let weights = ["model.bpk", "best.bpk"].map(|name| run.path().join(name));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    weights.into_iter().chain(checkpoints).map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_resumed_run_writes_the_same_bytes() {
    let mut config = config("resnet8");
    (config.ema, config.optimizer.decay_all) = (Some(0.9), false);
    config.optimizer.rates = vec![(Part::Stem, 0.5)];
    writes_the_same_bytes(config);
}

#[test]
fn a_resumed_run_writes_the_same_bytes_with_every_optimizer() {
    let config = config("resnet8").with_epochs(2);
    for &kind in OptimizerKind::ALL {
        let mut config = config.clone().with_optimizer(kind);
        (config.optimizer.decay_all, config.optimizer.weight_decay) = (false, 0.01);
        config.optimizer.clip = Some(1.0);
        config.optimizer.rates = vec![(Part::Stem, 0.5)];
        if let Algorithm::RmsProp { momentum, centered, .. } = &mut config.optimizer.algorithm {
            (*momentum, *centered) = (0.5, true);
        }
        if let Algorithm::Adam { amsgrad, .. } = &mut config.optimizer.algorithm {
            *amsgrad = true;
        }
        writes_the_same_bytes(config);
    }
}

/// A finished run that is extended ends like one that was as long from the start.
#[test]
fn an_extended_run_ends_with_the_same_weights_as_a_longer_one() {
    let schedule = Schedule {
        decay: Decay::Step { milestones: vec![7], factor: 0.1 },
        warmup: Warmup::Linear { iterations: 3 },
        ..Schedule::cosine(0.05)
    };
    let config = config("resnet8").with_epochs(2).with_schedule(schedule);
    let dir = tempfile::tempdir().unwrap();
    let long = train(&dir.path().join("long"), &config.clone().with_epochs(3));
    let short = train(&dir.path().join("short"), &config);
    let first = fs::read(short.model().unwrap()).unwrap();
    let refused = short.extend(2).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("it already has 2 epochs"), "{refused}");
    let extended = short.extend(3).unwrap();
    assert!(!short.is_finished() && fs::read(short.model().unwrap()).unwrap() == first);
    let checkpoint = short.latest(&Device::flex(), false).unwrap().unwrap();
    let resumed = Training::new(extended, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(short.clone());
    assert_eq!(resumed.run().unwrap().status, Status::Finished);
    assert!(files(&short) == files(&long), "the extended run differs");
    assert_eq!(short.losses().unwrap(), long.losses().unwrap());

    let cosine = train(&dir.path().join("cosine"), &self::config("dense-resnet4").with_epochs(1));
    let refused = cosine.extend(2).unwrap_err().to_string();
    assert!(refused.contains("its cosine schedule falls to 0 at the end of epoch 1"), "{refused}");
    assert!(cosine.is_finished());
}

/// Asserts that two runs, and a run that is interrupted within its second epoch and resumed, write the same bytes.
fn writes_the_same_bytes(config: TrainConfig) {
    let optimizer = config.optimizer.kind();
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| files(&train(&dir.path().join(name), &config)));
    assert_eq!(first.len(), 4, "{:?}", first.keys());
    assert!(first == second, "two runs with {optimizer} and the same configuration differ");
    let run = create(&dir.path().join("resumed"), &config, false).unwrap();
    let stopped = Training::new(config.clone(), Device::flex()).unwrap().with_stop_after(7).in_dir(run.clone());
    assert_eq!(stopped.run().unwrap().status, Status::Interrupted);
    let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
    let resumed = Training::new(config, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(run.clone());
    assert_eq!(resumed.run().unwrap().status, Status::Finished);
    assert!(files(&run) == first, "the resumed run with {optimizer} differs");
}

/// PyTorch averages the unbiased variance of each batch. Burn averages the biased one, which is smaller by the factor
/// (n - 1) / n for n values per channel. The network with PyTorch's variances makes the same errors.
#[test]
fn pytorchs_running_variance_hardly_changes_a_trained_network() {
    /// Multiplies the running variances by n / (n - 1), for batches of 64 images.
    #[derive(Default)]
    struct Unbiased {
        path: Vec<String>,
        norms: usize,
    }
    impl ModuleMapper for Unbiased {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.path.last().is_none_or(|name| name != "running_var") {
                return param;
            }
            self.norms += 1;
            let pixels = match self.path.iter().find_map(|name| name.strip_prefix("layer")) {
                Some("2") => 16,
                Some("3") => 4,
                _ => 64,
            };
            let n = f64::from(64 * pixels);
            param.map(|variance| variance.mul_scalar(n / (n - 1.0)))
        }
    }
    let config = TrainConfig::new("resnet8".parse().unwrap(), DataName::Digits).unwrap().with_epochs(3);
    let network = Training::new(config, Device::flex()).unwrap().run().unwrap().network;
    let test = DataName::Digits.load().unwrap().test;
    let mut pixels = vec![0.0; 360 * 64];
    for (i, image) in pixels.chunks_exact_mut(64).enumerate() {
        test.read(i, image).unwrap();
    }
    let images = Tensor::from_data(TensorData::new(pixels, [360, 1, 8, 8]), &Device::flex());
    let classify = |network: &Network| {
        let probabilities = softmax(network.forward(images.clone()), 1);
        let classes: Vec<i64> = probabilities.clone().argmax(1).into_data().iter::<i64>().collect();
        (probabilities, classes)
    };
    // Clones share the running statistics.
    let (biased, classes) = classify(&network);
    let mut unbiased = Unbiased::default();
    let network = network.map(&mut unbiased);
    assert_eq!(unbiased.norms, 7);
    let (unbiased, same) = classify(&network);
    assert_eq!(classes, same);
    let moved = (biased - unbiased).abs();
    let value = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().next().unwrap();
    let (largest, mean) = (value(moved.clone().max()), value(moved.mean()));
    assert!(largest > 0.0 && largest < 0.01 && mean < 1e-3, "largest {largest}, mean {mean}");
}

/// A source that cannot read one of its samples while the flag is set.
struct Failing {
    inner: Arc<dyn Source>,
    sample: usize,
    fails: Arc<AtomicBool>,
}

impl Source for Failing {
    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }
    fn classes(&self) -> usize {
        self.inner.classes()
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError> {
        if index == self.sample && self.fails.load(Ordering::SeqCst) {
            return Err(DataError::Corrupt { file: "a.png".into(), reason: "the disk was away".into() });
        }
        self.inner.read(index, pixels)
    }
}

/// The step that the error interrupts is repeated, although some of its gradients were already accumulated.
#[test]
fn an_unreadable_sample_leaves_a_checkpoint_that_resumes_bit_exactly() {
    let mut config = config("resnet8");
    (config.batch_size, config.accumulate) = (10, 3);
    let dir = tempfile::tempdir().unwrap();
    let whole = files(&train(&dir.path().join("whole"), &config));
    for (name, in_test) in [("train", false), ("test", true)] {
        let run = create(&dir.path().join(name), &config, false).unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let dataset = || {
            let dataset = DataName::Synthetic.load().unwrap();
            let failing = |inner: Arc<dyn Source>| -> Arc<dyn Source> {
                Arc::new(Failing { inner, sample: 17, fails: fails.clone() })
            };
            if in_test {
                Dataset { test: failing(dataset.test), ..dataset }
            } else {
                Dataset { train: failing(dataset.train), ..dataset }
            }
        };
        let flag = fails.clone();
        let training = Training::with_data(config.clone(), dataset(), Device::flex()).unwrap().in_dir(run.clone());
        let training = training.with_observer(move |event| {
            if matches!(event, Event::Epoch(_)) {
                flag.store(true, Ordering::SeqCst);
            }
        });
        let error = training.run().unwrap_err();
        assert!(error.to_string().contains("a.png") && !error.is_usage(), "{error}");
        assert_eq!(run.status(), Some(Status::Failed));
        fails.store(false, Ordering::SeqCst);
        let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
        assert_eq!(checkpoint.epoch(), 1);
        let resumed = Training::with_data(config.clone(), dataset(), Device::flex()).unwrap();
        let resumed = resumed.from_checkpoint(checkpoint).in_dir(run.clone()).run().unwrap();
        assert_eq!(resumed.status, Status::Finished);
        assert!(files(&run) == whole, "{name}: the resumed run differs");
    }
}

/// Two networks loaded from a run directory and a network returned by a run share no parameter ids, so all three can be
/// parts of one module.
#[test]
fn loaded_and_returned_networks_have_unique_parameter_ids() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-resnet4").with_epochs(1);
    let run = train(&dir.path().join("run"), &config);
    let returned = Training::new(config, Device::flex()).unwrap().run().unwrap().network;
    let [teacher, student] = [(); 2].map(|()| run.network(&Device::flex()).unwrap());
    let mut ids = Vec::new();
    for network in [&teacher, &student, &returned] {
        for_each_parameter(network, |parameter| ids.push(parameter.id.val()));
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn an_error_based_warm_up_resumes_bit_exactly() {
    let mut config = config("dense-resnet4").with_epochs(1);
    config.batch_size = 20;
    config.schedule.warmup = Warmup::UntilError { lr: 0.001, threshold: 1.0 };
    let whole = Training::new(config.clone(), Device::flex()).unwrap().run().unwrap();
    assert_eq!(whole.iterations, 16);
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), &config, false).unwrap();
    let stop = StopFlag::default();
    let flag = stop.clone();
    // With a checkpoint after every step, the run can stop in the middle of a window of batches.
    let first = Training::new(config.clone(), Device::flex()).unwrap().with_stop(stop).in_dir(run.clone());
    let first = first.with_checkpoint_every(Some(Duration::ZERO)).with_observer(move |event| {
        if matches!(event, Event::Step { batch: 6, .. }) {
            flag.set();
        }
    });
    assert_eq!(first.run().unwrap().iterations, 6);
    let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
    let rest = Training::new(config, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(run);
    assert!(values(&rest.run().unwrap().network) == values(&whole.network), "the weights differ");
}

#[test]
fn accumulation_equals_one_large_batch() {
    let step = |batch_size, accumulate| {
        let mut config = config("dense-plain4").with_epochs(1);
        let blocks = BlockOptions { norm: Norm::None, ..config.network.blocks };
        config = config.clone().with_network(config.network.with_blocks(blocks));
        (config.batch_size, config.accumulate) = (batch_size, accumulate);
        let outcome = Training::new(config, Device::flex()).unwrap().run().unwrap();
        (outcome.iterations, values(&outcome.network))
    };
    let ((one, whole), (steps, parts)) = (step(320, 1), step(48, 99));
    assert_eq!((one, steps), (1, 1));
    for (name, values) in whole {
        assert!(values.iter().zip(&parts[&name]).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
}

#[test]
fn a_run_ends_after_its_iterations_and_saves_the_best_weights() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrainConfig { iterations: Some(12), ..config("dense-resnet4") };
    let run = create(dir.path(), &config, false).unwrap();
    let outcome = Training::new(config, Device::flex()).unwrap().in_dir(run.clone()).run().unwrap();
    assert_eq!((outcome.status, outcome.iterations, outcome.epochs), (Status::Finished, 12, 3));
    assert_eq!(outcome.curve.len(), 12);
    assert!(dir.path().join("best.bpk").is_file() && run.is_finished());
}

#[test]
fn a_diverging_run_rewinds_and_halves_the_learning_rate() {
    let dir = tempfile::tempdir().unwrap();
    let schedule = Schedule { lr: 1e30, decay: Decay::Constant, warmup: Warmup::Constant { lr: 0.02, iterations: 7 } };
    let config = TrainConfig { on_nan: OnNan::Rewind, ..config("dense-resnet4").with_schedule(schedule) };
    let run = create(dir.path(), &config, false).unwrap();
    let error = Training::new(config.clone(), Device::flex()).unwrap().in_dir(run.clone()).run().unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    let rows = run.metrics().unwrap();
    let rewinds: Vec<f64> = rows.iter().filter(|row| row.split == Split::Rewind).map(|row| row.lr).collect();
    assert_eq!(rewinds.len(), 8);
    assert!(rewinds.windows(2).all(|pair| pair[1] == pair[0] / 2.0) && rewinds[0] == 0.01, "{rewinds:?}");

    // Without norms, a learning rate of 2 is too high, but a few halvings make it low enough.
    let schedule = Schedule { lr: 2.0, decay: Decay::Constant, warmup: Warmup::Constant { lr: 1e-4, iterations: 5 } };
    let blocks = BlockOptions { norm: Norm::None, ..config.network.blocks };
    let config = config.clone().with_network(config.network.with_blocks(blocks));
    let config = config.with_schedule(schedule);
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), &config, false).unwrap();
    let outcome = Training::new(config, Device::flex()).unwrap().in_dir(run).run().unwrap();
    let rewinds = outcome.rows.iter().filter(|row| row.split == Split::Rewind).count();
    assert!((1..8).contains(&rewinds), "{rewinds}");
}

#[test]
fn a_rewind_discards_the_diverged_state() {
    // With norms, a network tolerates weights of almost any magnitude, until sums overflow.
    let schedule = Schedule { lr: 1e5, decay: Decay::Constant, warmup: Warmup::None };
    let mut config = TrainConfig { on_nan: OnNan::Rewind, ..config("resnet8").with_schedule(schedule) };
    config.optimizer.weight_decay = 0.0;
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("run"), dir.path().join("copy"));
    let run = create(&path, &config, false).unwrap();
    // Copy the run directory as a process would leave it if it were killed right after the rewind.
    let (from, to) = (path.clone(), copy.clone());
    let training = Training::new(config.clone(), Device::flex()).unwrap().in_dir(run).with_observer(move |event| {
        if matches!(event, Event::Rewind { .. }) && !to.exists() {
            fs::create_dir_all(to.join("checkpoint")).unwrap();
            for name in ["config.json", "environment.json", "metrics.csv"] {
                fs::copy(from.join(name), to.join(name)).unwrap();
            }
            for entry in fs::read_dir(from.join("checkpoint")).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, to.join("checkpoint").join(path.file_name().unwrap())).unwrap();
            }
        }
    });
    let outcome = training.run().unwrap();
    let rewinds = outcome.rows.iter().filter(|row| row.split == Split::Rewind).count();
    assert!((1..8).contains(&rewinds), "{rewinds}");
    assert!(outcome.test.loss.is_finite());

    let run = RunDir::open(&copy).unwrap().locked().unwrap();
    let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
    let resumed = Training::new(config, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(run);
    let resumed = resumed.run().unwrap();
    assert!(values(&resumed.network) == values(&outcome.network), "the weights differ");
    let lr = |rows: &[Row]| rows.iter().map(|row| (row.epoch, row.split, row.lr)).collect::<Vec<_>>();
    assert_eq!(lr(&resumed.rows), lr(&outcome.rows));
}

/// A run rewinds to the ends of epochs alone, so where it is interrupted changes nothing.
#[test]
fn an_interrupted_run_rewinds_to_the_same_state() {
    let schedule = Schedule { lr: 1e5, decay: Decay::Constant, warmup: Warmup::None };
    let mut config = TrainConfig { on_nan: OnNan::Rewind, ..config("resnet8").with_schedule(schedule) };
    config.optimizer.weight_decay = 0.0;
    let dir = tempfile::tempdir().unwrap();
    let training = |config: &TrainConfig| Training::new(config.clone(), Device::flex()).unwrap();
    let run = create(&dir.path().join("whole"), &config, false).unwrap();
    let whole = training(&config).in_dir(run).run().unwrap();
    let rewinds = |rows: &[Row]| rows.iter().filter(|row| row.split == Split::Rewind).count();
    assert!((1..8).contains(&rewinds(&whole.rows)), "{:?}", whole.rows);
    let lr = |rows: &[Row]| rows.iter().map(|row| (row.epoch, row.split, row.lr.to_bits())).collect::<Vec<_>>();
    // An epoch has 5 steps. Stops after each step of the first two epochs, and after two steps in one run.
    let mut after_rewinds = 0;
    for stops in [vec![1], vec![2], vec![3], vec![4], vec![5], vec![6], vec![8], vec![2, 3], vec![6, 7]] {
        let path = dir.path().join(format!("{stops:?}"));
        let run = create(&path, &config, false).unwrap();
        let first = training(&config).with_stop_after(stops[0]).in_dir(run.clone());
        assert_eq!(first.run().unwrap().status, Status::Interrupted);
        let resume = || {
            let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
            training(&config).from_checkpoint(checkpoint).in_dir(run.clone())
        };
        for &stop in &stops[1..] {
            assert_eq!(resume().with_stop_after(stop).run().unwrap().status, Status::Interrupted);
        }
        after_rewinds += rewinds(&run.metrics().unwrap());
        let resumed = resume().run().unwrap();
        assert!(values(&resumed.network) == values(&whole.network), "the weights differ: {stops:?}");
        assert_eq!(lr(&resumed.rows), lr(&whole.rows), "{stops:?}");
        let checkpoints = |path: &Path| {
            let files = fs::read_dir(path.join("checkpoint")).unwrap().map(|entry| entry.unwrap().path());
            let files = files.filter(|path| path.extension().is_some_and(|end| end == "ckpt"));
            files
                .map(|path| (path.file_name().unwrap().to_owned(), fs::read(&path).unwrap()))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(checkpoints(&path) == checkpoints(&dir.path().join("whole")), "the checkpoints differ: {stops:?}");
    }
    assert!(after_rewinds > 0, "no run was stopped after a rewind");
}

#[test]
fn a_checkpoint_within_an_epoch_takes_the_place_of_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-resnet4");
    let run = create(dir.path(), &config, false).unwrap();
    let names = || {
        let names = fs::read_dir(dir.path().join("checkpoint")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".ckpt")).collect();
        names.sort();
        names
    };
    let training = Training::new(config.clone(), Device::flex()).unwrap();
    training.with_stop_after(12).in_dir(run.clone()).run().unwrap();
    assert_eq!(names(), ["00000005.ckpt", "00000010.ckpt", "00000012-within-epoch.ckpt"]);
    let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
    assert_eq!((checkpoint.epoch(), checkpoint.iteration()), (2, 12));
    let training = Training::new(config.clone(), Device::flex()).unwrap().from_checkpoint(checkpoint);
    training.in_dir(run).run().unwrap();
    assert_eq!(names(), ["00000010.ckpt", "00000015.ckpt"]);
}

#[test]
fn a_replaced_run_loses_its_own_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let config = config("dense-resnet4").with_epochs(1);
    train(&path, &config);
    for name in ["train", "valid", "checkpoint/mine", "notes"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    let own =
        ["train/a.png", "valid/b.png", "checkpoint/best.ckpt", "checkpoint/mine/c", "notes/2024.tmp", "a.2024.tmp"];
    own.iter().for_each(|name| fs::write(path.join(name), "x").unwrap());
    let told = std::cell::RefCell::new(Vec::new());
    let tell = |files: &[std::path::PathBuf]| {
        assert!(files.iter().all(|file| file.exists()), "told before they go");
        told.borrow_mut().extend(files.iter().map(|file| file.file_name().unwrap().to_owned()));
    };
    let hardware = Backend::Flex.probe().unwrap();
    let environment = Environment::here(Backend::Flex, &hardware);
    let run = RunDir::create(&path, &config, &environment, Existing::Replace(&tell)).unwrap();
    assert!(own.iter().all(|name| path.join(name).exists()));
    assert!(["model.bpk", "metrics.csv", "summary.json"].iter().all(|name| !path.join(name).exists()));
    assert!(!path.join("checkpoint/00000005.ckpt").exists() && run.status().is_none());
    let told = told.into_inner();
    assert!(told.iter().any(|name| name == "model.bpk") && told.iter().any(|name| name == "00000005.ckpt"));
    drop(run);
    assert!(
        create(&dir.path().join("run/notes"), &config, true)
            .unwrap_err()
            .to_string()
            .contains("no training run, but 2024.tmp")
    );
}

/// Removing what a link leads to would remove something that no training wrote.
#[cfg(unix)]
#[test]
fn links_are_not_followed_when_a_run_is_replaced() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-resnet4").with_epochs(1);
    let (path, other) = (dir.path().join("run"), dir.path().join("other"));
    train(&path, &config);
    train(&other, &config);
    fs::remove_dir_all(path.join("checkpoint")).unwrap();
    symlink(other.join("checkpoint"), path.join("checkpoint")).unwrap();
    let error = create(&path, &config, true).unwrap_err().to_string();
    assert!(error.contains("checkpoint is in the way: it is a symbolic link"), "{error}");
    fs::remove_file(path.join("checkpoint")).unwrap();
    fs::remove_file(path.join("best.bpk")).unwrap();
    symlink(other.join("best.bpk"), path.join("best.bpk")).unwrap();
    let error = create(&path, &config, true).unwrap_err().to_string();
    assert!(error.contains("best.bpk is in the way: it is a symbolic link"), "{error}");
    assert!(path.join("model.bpk").exists() && other.join("best.bpk").exists());
    assert!(fs::read_dir(other.join("checkpoint")).unwrap().count() >= 2);
}

/// A training whose directory disappears must not go on in a directory without a configuration.
#[cfg(unix)]
#[test]
fn a_training_stops_once_its_directory_is_removed_renamed_or_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("dense-resnet4").with_epochs(1000);
    let [run, away] = ["run", "away"].map(|name| dir.path().join(name));
    for what in ["removed", "renamed", "replaced"] {
        let (path, to) = (run.clone(), away.clone());
        let mut steps = 0;
        let training = Training::new(config.clone(), Device::flex()).unwrap();
        let training = training.in_dir(create(&run, &config, false).unwrap()).with_observer(move |event| {
            if matches!(event, Event::Epoch(_)) {
                steps += 1;
                match what {
                    _ if steps != 2 => {}
                    "removed" => fs::remove_dir_all(&path).unwrap(),
                    _ => fs::rename(&path, &to).unwrap(),
                }
                if what == "replaced" && steps == 2 {
                    fs::create_dir(&path).unwrap();
                    fs::write(path.join(".lock"), "").unwrap();
                    fs::write(path.join("config.json"), "of another run").unwrap();
                }
            }
        });
        let error = training.run().unwrap_err().to_string();
        assert!(error.ends_with("was removed or renamed while this process was writing into it"), "{error}");
        match what {
            "replaced" => {
                assert_eq!(fs::read_dir(&run).unwrap().count(), 2, "nothing is written into another directory");
            }
            _ => assert!(!run.exists(), "the directory is not created again"),
        }
        for path in [&run, &away].into_iter().filter(|path| path.exists()) {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

#[test]
fn a_diverged_run_leaves_a_readable_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        config("dense-resnet4").with_schedule(Schedule { lr: 1e30, decay: Decay::Constant, warmup: Warmup::None });
    let run = create(dir.path(), &config, false).unwrap();
    let error = Training::new(config, Device::flex()).unwrap().in_dir(run.clone()).run().unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(fs::read_to_string(dir.path().join("summary.json")).unwrap().contains("\"diverged\""));
    assert!(!dir.path().join("model.bpk").exists() && run.config().is_ok() && run.metrics().is_ok());
}

#[test]
fn other_configuration_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let json = serde_json::to_string(&config("resnet8")).unwrap();
    fs::write(&path, json.replace("\"version\":2", "\"version\":1")).unwrap();
    let error = TrainConfig::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("is a configuration of version 1; this program reads version 2"), "{error}");
}

#[test]
fn too_few_classes_are_refused() {
    let mut config = config("resnet8");
    config.network = config.network.with_classes(5);
    let error = Training::new(config, Device::flex()).err().unwrap().to_string();
    assert!(error.contains("the dataset has 10 classes, but the network has only 5"), "{error}");
}

/// The values of every tensor of a network, by torchvision's name.
fn values(network: &Network) -> BTreeMap<String, Vec<f32>> {
    tensors(network).into_iter().map(|(name, (_, values))| (name, values)).collect()
}

fn start(config: &TrainConfig) -> Network {
    config.init(&Device::flex().autodiff())
}

#[test]
fn frozen_parts_do_not_change_and_can_be_trained_later() {
    let mut phase = config("resnet8").with_epochs(1);
    phase.freeze = vec![Part::Stem, Part::Stage(1), Part::Stage(2)];
    let run = |config: &TrainConfig, network| {
        Training::new(config.clone(), Device::flex()).unwrap().with_network(network).run().unwrap().network
    };
    let before = values(&start(&phase));
    let network = run(&phase, start(&phase));
    let after = values(&network);
    let moved = |a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>| -> Vec<String> {
        a.keys().filter(|name| a[*name] != b[*name]).cloned().collect()
    };
    let free = moved(&before, &after);
    assert!(free.iter().all(|name| name.starts_with("layer3") || name.starts_with("fc")), "{free:?}");
    assert!(free.contains(&"layer3.0.conv1.weight".into()) && free.contains(&"layer3.0.bn1.running_mean".into()));
    phase.freeze.clear();
    let all = moved(&after, &values(&run(&phase, network)));
    assert_eq!(all.len(), after.len());
}

/// The first step of SGD changes a parameter by `-lr · factor · (g + decay · w)`.
#[test]
fn parts_have_their_own_learning_rates_and_norms_can_skip_weight_decay() {
    let mut base = config("dense-plain4").with_epochs(1).with_schedule(Schedule::cosine(0.01));
    base.batch_size = 320;
    let step =
        |config: &TrainConfig| values(&Training::new(config.clone(), Device::flex()).unwrap().run().unwrap().network);
    let before = values(&start(&base));
    let moves = |config: &TrainConfig, name: &str| -> Vec<f32> {
        step(config)[name].iter().zip(&before[name]).map(|(after, before)| after - before).collect()
    };
    let close = |a: Vec<f32>, b: Vec<f32>| {
        let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(largest > 0.0 && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 2e-3 * largest), "{a:?} {b:?}");
    };
    let mut fast = base.clone();
    fast.optimizer.rates = vec![(Part::Head, 3.0)];
    close(moves(&fast, "fc.weight"), moves(&base, "fc.weight").iter().map(|x| 3.0 * x).collect());
    assert_eq!(moves(&fast, "linear1.weight"), moves(&base, "linear1.weight"));

    let (mut without, mut some, mut all) = (base.clone(), base.clone(), base.clone());
    without.optimizer.weight_decay = 0.0;
    (some.optimizer.weight_decay, all.optimizer.weight_decay) = (0.5, 0.5);
    some.optimizer.decay_all = false;
    for norm in ["bn1.weight", "blocks.0.bn2.weight"] {
        assert_eq!(moves(&some, norm), moves(&without, norm));
        assert_ne!(moves(&all, norm), moves(&without, norm));
    }
    let decay: Vec<f32> = before["fc.weight"].iter().map(|w| -0.01 * 0.5 * w).collect();
    let moved = moves(&some, "fc.weight").into_iter().zip(moves(&without, "fc.weight")).map(|(a, b)| a - b);
    close(moved.collect(), decay);
}

#[test]
fn stochastic_depth_is_reproducible_and_resumes() {
    let mut config = config("resnet14");
    let blocks = BlockOptions { last_survival: 0.5, ..config.network.blocks };
    config = config.clone().with_network(config.network.with_blocks(blocks));
    let whole = |config: &TrainConfig| Training::new(config.clone(), Device::flex()).unwrap().run().unwrap();
    let (first, again) = (whole(&config), whole(&config));
    assert_eq!(first.curve, again.curve);
    assert_ne!(first.curve, whole(&config.clone().with_seed(1)).curve);

    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), &config, false).unwrap();
    let stop = StopFlag::default();
    let handle = stop.clone();
    let training = Training::new(config.clone(), Device::flex()).unwrap().with_stop(stop).in_dir(run.clone());
    let steps = Cell::new(0);
    let stopped = training.with_observer(move |event| {
        steps.set(steps.get() + usize::from(matches!(event, residual::train::Event::Epoch(_))));
        if steps.get() == 1 {
            handle.set();
        }
    });
    assert_eq!(stopped.run().unwrap().status, Status::Interrupted);
    let checkpoint = run.latest(&Device::flex(), false).unwrap().unwrap();
    let resumed = Training::new(config, Device::flex()).unwrap().from_checkpoint(checkpoint).in_dir(run).run().unwrap();
    assert_eq!(resumed.curve[..], first.curve[first.curve.len() - resumed.curve.len()..]);
    assert_eq!(values(&resumed.network), values(&first.network));
}

/// A training on this many CPU devices.
fn on_devices(config: &TrainConfig, devices: usize) -> Training {
    let training = Training::new(config.clone(), Device::flex()).unwrap();
    training.with_more_devices(vec![Device::flex(); devices - 1]).unwrap()
}

#[test]
fn several_devices_take_the_steps_of_one_to_the_bit() {
    // 180 samples in batches of 20, so the last step of an epoch has fewer batches than the others, or devices without one.
    let cases =
        [("resnet8", 2, 2), ("resnet8", 4, 2), ("plain8", 3, 3), ("preact_resnet8", 4, 4), ("dense-resnet4", 2, 2)];
    for (net, accumulate, devices) in cases {
        let mut config = all_features();
        config.network = TrainConfig::new(net.parse().unwrap(), DataName::Synthetic).unwrap().network;
        config.accumulate = accumulate;
        let dir = tempfile::tempdir().unwrap();
        let one = train(&dir.path().join("one"), &config);
        let several = create(&dir.path().join("several"), &config, false).unwrap();
        let outcome = on_devices(&config, devices).in_dir(several.clone()).run().unwrap();
        assert!(outcome.iterations > 0);
        assert!(files(&several) == files(&one), "{net}: {devices} devices differ from one");
        let measured = |run: &RunDir| -> Vec<(usize, Split, f64, f64)> {
            run.metrics().unwrap().iter().map(|row| (row.epoch, row.split, row.loss, row.error)).collect()
        };
        assert_eq!(measured(&several), measured(&one), "{net}");
    }
}

#[test]
fn frozen_norms_and_burns_operations_on_several_devices_agree_with_one() {
    let mut config = config("resnet8");
    (config.batch_size, config.accumulate) = (30, 2);
    config.freeze = vec![Part::Stem];
    for kernels in [Kernels::Fused, Kernels::Reference] {
        kernels.scope(|| agree(&config, &[2]));
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_devices() {
    let mut config = all_features();
    config.accumulate = 6;
    let dir = tempfile::tempdir().unwrap();
    let whole = train(&dir.path().join("whole"), &config);
    let run = create(&dir.path().join("parts"), &config, false).unwrap();
    for (devices, stop) in [(2, 1), (3, 3), (1, 4), (6, usize::MAX)] {
        let mut training = on_devices(&config, devices).with_stop_after(stop).in_dir(run.clone());
        if let Some(checkpoint) = run.latest(&Device::flex(), false).unwrap() {
            training = training.from_checkpoint(checkpoint);
        }
        let outcome = training.run().unwrap();
        assert_eq!(outcome.iterations, stop.min(outcome.iterations));
    }
    assert!(files(&run) == files(&whole));
}

/// Asserts that these numbers of devices write the files that one device writes, and returns the metrics of that one.
fn agree(config: &TrainConfig, numbers: &[usize]) -> Vec<Row> {
    let dir = tempfile::tempdir().unwrap();
    let one = train(&dir.path().join("one"), config);
    for &devices in numbers {
        let several = create(&dir.path().join(devices.to_string()), config, false).unwrap();
        on_devices(config, devices).in_dir(several.clone()).run().unwrap();
        assert!(files(&several) == files(&one), "{devices} devices differ from one");
    }
    one.metrics().unwrap()
}

/// A batch has no gradient of a block that it skips.
#[test]
fn stochastic_depth_with_accumulated_gradients_on_one_device_and_several() {
    let mut config = config("resnet14");
    (config.accumulate, config.batch_size) = (4, 20);
    config.network = config.network.with_last_survival(0.2);
    agree(&config, &[2, 4]);
}

#[test]
fn several_devices_rewind_together() {
    let schedule = Schedule { lr: 1e5, decay: Decay::Constant, warmup: Warmup::None };
    let mut config = TrainConfig { on_nan: OnNan::Rewind, ..config("resnet8").with_schedule(schedule) };
    (config.accumulate, config.batch_size, config.optimizer.weight_decay) = (6, 12, 0.0);
    let rewinds = agree(&config, &[2, 3]).iter().filter(|row| row.split == Split::Rewind).count();
    assert!((1..8).contains(&rewinds), "{rewinds}");
}

#[test]
fn errors_end_the_training_on_all_devices() {
    let mut config = config("resnet8");
    (config.batch_size, config.accumulate) = (10, 3);
    let training = Training::new(config.clone(), Device::flex()).unwrap();
    let error = training.with_more_devices(vec![Device::flex()]).err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("must be a multiple of 2, not 3"), "{error}");
    // Without a run directory, no device has a checkpoint to go back to.
    let mut rewinding = TrainConfig { on_nan: OnNan::Rewind, ..config.clone() };
    rewinding.schedule.lr = 1e30;
    let error = on_devices(&rewinding, 3).run().unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");

    let mut diverging = config.clone();
    diverging.schedule.lr = 1e30;
    let [one, three] = [1, 3].map(|devices| on_devices(&diverging, devices).run().unwrap_err().to_string());
    assert!(one.contains("NaN") || one.contains("inf"), "{one}");
    assert_eq!(one, three);

    // Whichever device has to read it.
    for sample in 0..6 {
        let dataset = DataName::Synthetic.load().unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let train: Arc<dyn Source> = Arc::new(Failing { inner: dataset.train, sample, fails: fails.clone() });
        let training = Training::with_data(config.clone(), Dataset { train, ..dataset }, Device::flex()).unwrap();
        fails.store(true, Ordering::SeqCst);
        let error = training.with_more_devices(vec![Device::flex(); 2]).unwrap().run().unwrap_err();
        assert!(error.to_string().contains("a.png"), "{error}");
    }
}
