//! A small sweep from start to end.

use residual::{
    backend::Backend,
    data::DataName,
    lab::{Finding, LabError, Progress, RunSpec, Setting, Sweep, SweepConfig, SweepFamily, SweepResults},
    report::redraw,
    train::{OptimizerKind, Schedule, StopFlag},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

fn config() -> SweepConfig {
    usual(&[4, 56], 4)
}

/// Dense nets of these depths, trained with two seeds for this many epochs.
fn usual(depths: &[usize], epochs: usize) -> SweepConfig {
    let usual = SweepConfig::usual(&[SweepFamily::Dense], DataName::Digits).unwrap().with_depths(depths);
    SweepConfig { seeds: 2, ..usual.with_training(|training| training.epochs = epochs) }
}

fn sweep(config: SweepConfig) -> Sweep {
    Sweep::new(config, Backend::Flex, Backend::Flex.probe().unwrap()).unwrap()
}

/// `results.csv` without the column of seconds.
fn table(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("results.csv")).unwrap();
    let row = |line: &str| line.split(',').enumerate().filter(|(i, _)| *i != 8).map(|(_, c)| c.to_string()).collect();
    text.lines().map(row).collect()
}

#[test]
fn a_sweep_shows_the_effect_and_writes_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    let results = sweep(config()).with_jobs(2).run(&first, &|_| {}).unwrap();
    assert_ne!(results.verdicts[0].finding, Finding::NotShown, "{:?}", results.verdicts[0]);
    // The folder holds all of it but the loss of every batch, which stays in `runs/`.
    let mut stored = SweepResults::read(&first).unwrap();
    assert_eq!(stored.curves, results.curves);
    for (stored, run) in stored.runs.iter_mut().zip(&results.runs) {
        stored.curve = run.curve.clone();
    }
    assert_eq!(stored, results);
    redraw(&first).unwrap();
    for name in ["results.csv", "results.json", "table.md", "depth.svg", "depth.png", "curves.svg", "index.html"] {
        assert!(first.join(name).metadata().unwrap().len() > 100, "{name}");
    }
    let header = "family,kind,depth,alpha,seed,train_error,test_error,train_loss,seconds,status";
    assert!(fs::read_to_string(first.join("results.csv")).unwrap().starts_with(header));
    // The same command writes the same table for any number of jobs.
    sweep(config()).with_jobs(1).run(&second, &|_| {}).unwrap();
    redraw(&second).unwrap();
    assert_eq!(table(&first), table(&second));
    assert_eq!(table(&first).len(), 1 + 8);
}

#[test]
fn a_stopped_sweep_keeps_finished_trainings() {
    let dir = tempfile::tempdir().unwrap();
    let config = usual(&[4], 1);
    let stop = StopFlag::default();
    let stopped = sweep(config.clone()).with_jobs(1).with_stop(stop.clone()).run(dir.path(), &|event| {
        if matches!(event, Progress::Finished(_)) {
            stop.set();
        }
    });
    assert!(matches!(stopped, Err(LabError::Stopped { done: 1, total: 4 })), "{stopped:?}");
    let trained = AtomicUsize::new(0);
    let results = sweep(config.clone()).run(dir.path(), &|event| {
        if matches!(event, Progress::Finished(_)) {
            trained.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert_eq!((results.unwrap().runs.len(), trained.into_inner()), (4, 3));
    // A training whose file is damaged is repeated.
    let path = dir.path().join("runs/dense-plain-4-seed0/loss.csv");
    let whole = fs::read_to_string(&path).unwrap();
    // Cut after the number of a batch.
    let cut = whole.rfind(',').unwrap();
    fs::write(&path, &whole[..cut]).unwrap();
    fs::write(dir.path().join("runs/dense-plain-4-seed1/summary.json"), "{").unwrap();
    sweep(config.clone()).run(dir.path(), &|_| {}).unwrap();
    assert!(fs::read_to_string(dir.path().join("runs/dense-plain-4-seed1/summary.json")).unwrap().len() > 9);
    assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    let other = config.clone().with_training(|training| training.epochs = 2);
    let error = sweep(other.clone()).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("holds another sweep: dense-plain-4-seed0 has epochs 1, not 2; choose"), "{error}");
    // A sweep that replaces another removes its results, even if it is stopped at once.
    redraw(dir.path()).unwrap();
    let stop = StopFlag::default();
    stop.set();
    assert!(sweep(other.clone()).with_force(true).with_stop(stop).run(dir.path(), &|_| {}).is_err());
    assert!(
        ["results.csv", "results.json", "curves.csv", "index.html"].iter().all(|name| !dir.path().join(name).exists())
    );
    assert!(sweep(other).with_force(true).run(dir.path(), &|_| {}).is_ok());
}

#[test]
fn an_explained_sweep_measures_the_ends_of_the_figure() {
    let dir = tempfile::tempdir().unwrap();
    let config = usual(&[4, 6, 8], 1);
    let run = |explain| {
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let sweep = sweep(config.clone()).with_explain(explain).unwrap();
        let watch = |event: Progress<'_>| match event {
            Progress::Finished(_) => _ = counts[0].fetch_add(1, Ordering::SeqCst),
            Progress::Measuring { .. } => _ = counts[1].fetch_add(1, Ordering::SeqCst),
            _ => {}
        };
        sweep.run(dir.path(), &watch).unwrap();
        if explain {
            let command = |measurement, runs: &[PathBuf], out: &Path| {
                format!("measure {measurement} of {} into {}", runs.len(), out.display())
            };
            sweep.explain(dir.path(), &command, &watch).unwrap();
        }
        redraw(dir.path()).unwrap();
        counts.map(AtomicUsize::into_inner)
    };
    let page = || fs::read_to_string(dir.path().join("index.html")).unwrap();
    assert_eq!(run(false), [12, 0]);
    let (results, plain_page) = (table(dir.path()), page());
    // The networks of four trainings are needed. They are kept; the table does not change.
    assert_eq!(run(true), [0, 4]);
    assert_eq!(table(dir.path()), results);
    assert!(!plain_page.contains("Blocks removed") && page().contains("Blocks removed"));
    assert!(page().contains("dense-plain4, dense-resnet4, dense-plain8 and dense-resnet8 on digits, seed 0, trained"));
    for measurement in ["gradients", "activations", "lesion", "landscape"] {
        let json = fs::read_to_string(dir.path().join(format!("inspect/dense/{measurement}.json"))).unwrap();
        assert!(json.contains(&format!("measure {measurement} of 4 into")), "{json}");
    }
    // Everything is done.
    assert_eq!(run(true), [0, 0]);
    let one_kind = SweepConfig { alphas: vec![1.0], ..config.clone() };
    assert!(sweep(one_kind).with_explain(true).is_err());
}

#[test]
fn a_folder_without_a_sweep_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = sweep(config()).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("is not empty and holds no sweep"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Some numbers change in their last bit if they are written as JSON and read back carelessly.
#[test]
fn the_same_numbers_are_the_same_sweep_and_a_resumed_sweep_has_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, resumed] = ["whole", "resumed"].map(|name| dir.path().join(name));
    let config = usual(&[4], 1).with_training(|training| {
        training.schedule = Schedule::cosine(0.003_452_583_015_134_158_6);
        training.optimizer.clip = Some(0.003_452_583_015_134_158_6 * 1e3);
    });
    let config = SweepConfig { alphas: vec![0.0, 0.003_452_583_015_134_158_6, 1.0], ..config };
    sweep(config.clone()).run(&whole, &|_| {}).unwrap();
    let stop = StopFlag::default();
    let stopped = sweep(config.clone()).with_jobs(1).with_stop(stop.clone()).run(&resumed, &|event| {
        if matches!(event, Progress::Finished(_)) {
            stop.set();
        }
    });
    assert!(stopped.is_err());
    let kept = std::sync::Mutex::new(0);
    sweep(config.clone())
        .run(&resumed, &|event| {
            if let Progress::Planned { kept: found, .. } = event {
                *kept.lock().unwrap() = found;
            }
        })
        .unwrap();
    assert_eq!(kept.into_inner().unwrap(), 1);
    // All but the measured times.
    let bytes = |folder: &Path, name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with("\"seconds\"")).collect::<Vec<_>>().join("\n")
    };
    for name in ["results.json", "sweep.json", "curves.csv"] {
        assert_eq!(bytes(&whole, name), bytes(&resumed, name), "{name}");
    }
    let other = config.with_training(|training| training.schedule.lr = 0.003_452_583_015_134_158_6f64.next_up());
    assert!(matches!(sweep(other).run(&resumed, &|_| {}), Err(LabError::Occupied { .. })));
}

fn put(folder: &Path, files: &[&str]) {
    for name in files {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), "mine").unwrap();
    }
}

#[test]
fn a_replaced_sweep_loses_its_own_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    let first = sweep(config.clone()).with_explain(true).unwrap();
    first.run(dir.path(), &|_| {}).unwrap();
    first.explain(dir.path(), &|_, _, _| String::new(), &|_| {}).unwrap();
    drop(first);
    redraw(dir.path()).unwrap();
    let own = [
        "thesis.tex",
        "data/a.png",
        "runs/my-training/model.bpk",
        "runs/dense-plain-4-seed9/notes.txt",
        "runs/dense-plain-4-seed0/notes.txt",
        "inspect/mine/gradients.json",
        "inspect/dense/notes.2024.tmp",
    ];
    put(dir.path(), &own);
    let other = config.clone().with_training(|training| training.epochs = 2);
    assert!(sweep(other.clone()).run(dir.path(), &|_| {}).is_err());
    let told = std::sync::Mutex::new(Vec::new());
    let stop = StopFlag::default();
    stop.set();
    let stopped = sweep(other).with_force(true).with_stop(stop).run(dir.path(), &|event| {
        if let Progress::Replacing(files) = event {
            assert!(files.iter().all(|file| file.exists()), "told before they go");
            told.lock().unwrap().extend(files.iter().map(|file| file.strip_prefix(dir.path()).unwrap().to_owned()));
        }
    });
    assert!(matches!(stopped, Err(LabError::Stopped { done: 0, .. })), "{stopped:?}");
    let told = told.into_inner().unwrap();
    for name in [
        "results.json",
        "runs/dense-plain-4-seed0/config.json",
        "runs/dense-plain-4-seed0/model.bpk",
        "inspect/dense/lesion.svg",
    ] {
        assert!(told.iter().any(|path| path == Path::new(name)), "{name}: {told:?}");
    }
    assert!(told.iter().all(|path| !dir.path().join(path).exists()));
    for name in own {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "mine", "{name}");
    }
    let mut left: Vec<_> =
        fs::read_dir(dir.path().join("runs/dense-plain-4-seed0")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["notes.txt"]);
}

#[test]
fn a_folder_that_another_program_wrote_is_not_replaced() {
    for text in ["{}", "[1, 2]", "not JSON", r#"{"method": "bayes", "parameters": {}}"#] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sweep.json"), text).unwrap();
        put(dir.path(), &["runs/mine/model.bpk", "inspect/a"]);
        for force in [false, true] {
            let error = sweep(config()).with_force(force).run(dir.path(), &|_| {}).unwrap_err().to_string();
            assert!(error.contains("holds a sweep.json that no sweep of this version wrote"), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "not even a lock file");
        assert!(dir.path().join("runs/mine/model.bpk").exists());
    }
}

#[cfg(unix)]
#[test]
fn links_are_not_followed_when_a_sweep_is_replaced() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let (folder, away) = (dir.path().join("sweep"), dir.path().join("away"));
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    sweep(config.clone()).run(&folder, &|_| {}).unwrap();
    fs::rename(folder.join("runs"), &away).unwrap();
    symlink(&away, folder.join("runs")).unwrap();
    // The same sweep uses the folder as it is.
    sweep(config.clone()).run(&folder, &|_| {}).unwrap();
    let other = || sweep(config.clone().with_training(|training| training.epochs = 2)).with_force(true);
    let error = other().run(&folder, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("runs is in the way: it is a symbolic link"), "{error}");
    assert!(away.join("dense-plain-4-seed0/config.json").exists() && folder.join("results.json").exists());
}

/// A sweep that is killed at its very start leaves some of these files.
#[test]
fn a_sweep_that_was_killed_at_its_start_can_be_run() {
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    let whole = tempfile::tempdir().unwrap();
    sweep(config.clone()).run(whole.path(), &|_| {}).unwrap();
    let temporary = "sweep.json.0123456789abcdef.tmp";
    for files in [&[][..], &[".lock"], &[".lock", temporary]] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("runs")).unwrap();
        files.iter().for_each(|name| fs::write(dir.path().join(name), "{").unwrap());
        sweep(config.clone()).run(dir.path(), &|_| {}).unwrap();
        assert!(!dir.path().join(temporary).exists());
    }
}

#[test]
fn two_sweeps_cannot_use_a_folder_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    let first = sweep(config.clone());
    first.run(dir.path(), &|_| {}).unwrap();
    let other = config.clone().with_training(|training| training.epochs = 2);
    for second in [sweep(config.clone()), sweep(other).with_force(true)] {
        let error = second.run(dir.path(), &|_| {}).unwrap_err().to_string();
        assert!(error.ends_with("is locked by another process"), "{error}");
    }
    assert!(dir.path().join("results.json").exists());
    drop(first);
    sweep(config).run(dir.path(), &|_| {}).unwrap();
}

#[cfg(unix)]
#[test]
fn a_sweep_stops_once_its_folder_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sweep");
    let config = usual(&[4], 1);
    let trained = AtomicUsize::new(0);
    let result = sweep(config).with_explain(true).unwrap().with_jobs(1).run(&folder, &|event| {
        if matches!(event, Progress::Finished(_)) && trained.fetch_add(1, Ordering::SeqCst) == 1 {
            fs::remove_dir_all(&folder).unwrap();
        }
    });
    let error = result.unwrap_err().to_string();
    assert!(error.ends_with("was removed or renamed while this process was writing into it"), "{error}");
    assert!(!folder.exists() && trained.into_inner() == 2);
}

#[test]
fn a_stopped_explanation_keeps_its_measurements() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    let stop = StopFlag::default();
    let explained = sweep(config.clone()).with_explain(true).unwrap().with_stop(stop.clone());
    explained.run(dir.path(), &|_| {}).unwrap();
    let command = |_, _: &[PathBuf], _: &Path| String::new();
    let measured = AtomicUsize::new(0);
    let stopped = explained.explain(dir.path(), &command, &|event| {
        // The second measurement has begun.
        if matches!(event, Progress::Measuring { .. }) && measured.fetch_add(1, Ordering::SeqCst) == 1 {
            stop.set();
        }
    });
    assert!(matches!(stopped, Err(LabError::Stopped { done: 2, total: 2 })), "{stopped:?}");
    let inspect = dir.path().join("inspect/dense");
    assert!(inspect.join("gradients.json").exists() && !inspect.join("activations.json").exists());
    drop(explained);
    let again = sweep(config).with_explain(true).unwrap();
    again.explain(dir.path(), &command, &|_| {}).unwrap();
    assert!(inspect.join("landscape.json").exists());
}

#[test]
fn impossible_sweeps_are_refused() {
    let error = |change: &dyn Fn(&mut SweepConfig)| {
        let mut config = config();
        change(&mut config);
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sweep");
        let hardware = Backend::Flex.probe().unwrap();
        let result = Sweep::new(config, Backend::Flex, hardware).and_then(|sweep| sweep.run(&folder, &|_| {}));
        assert!(!folder.exists(), "nothing is written");
        result.unwrap_err().to_string()
    };
    assert!(error(&|c| c.seeds = u64::MAX).contains("seeds must be at most 1000"));
    assert!(error(&|c| c.first_seed = u64::MAX).contains("the last seed must be below 2^64"));
    assert!(error(&|c| c.alphas = (0..9999).map(f64::from).collect()).contains("at most 10000 trainings"));
    assert!(error(&|c| c.families[0].training.epochs = usize::MAX).contains("epochs must be"));
    for width in [1 << 20, 1 << 40, usize::MAX] {
        let error = error(&|c| {
            *c = SweepConfig::usual(&[SweepFamily::Conv], DataName::Digits).unwrap().with_depths(&[8]);
            c.families[0].training.network.width = width;
        });
        let named = ["width", "parameters", "GiB of memory"];
        assert!(named.iter().any(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn divergence_is_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let config = usual(&[4], 4).with_training(|training| training.schedule.lr = 1e30);
    let config = SweepConfig { seeds: 1, alphas: vec![1.0], ..config };
    let results = sweep(config).run(dir.path(), &|_| {}).unwrap();
    assert_eq!(results.series[0].points[0].diverged, 1);
    redraw(dir.path()).unwrap();
    assert!(fs::read_to_string(dir.path().join("results.csv")).unwrap().contains(",diverged,"));
    assert!(fs::read_to_string(dir.path().join("table.md")).unwrap().contains("1 of 1 diverged"));
}

/// The number of trainings that a sweep finds finished, and the number that it trains.
fn kept_and_trained(config: SweepConfig, folder: &Path) -> (usize, usize) {
    let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let results = sweep(config).run(folder, &|event| match event {
        Progress::Planned { kept, .. } => counts[0].store(kept, Ordering::SeqCst),
        Progress::Finished(_) => _ = counts[1].fetch_add(1, Ordering::SeqCst),
        _ => {}
    });
    results.unwrap();
    let [kept, trained] = counts;
    (kept.into_inner(), trained.into_inner())
}

#[test]
fn a_sweep_grows_and_keeps_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let small = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    assert_eq!(kept_and_trained(small.clone(), dir.path()), (0, 2));
    assert_eq!(kept_and_trained(SweepConfig { seeds: 2, ..small.clone() }, dir.path()), (2, 2));
    // More depths, in another order, and fewer seeds.
    assert_eq!(kept_and_trained(small.clone().with_depths(&[6, 4]), dir.path()), (2, 2));
    // The learning rate of the trainings so far becomes one of an axis.
    let lr = small.families[0].training.schedule.lr;
    let rates = SweepConfig { lrs: vec![0.5 * lr, lr], ..small.clone() };
    assert_eq!(kept_and_trained(rates.clone(), dir.path()), (2, 2));
    assert_eq!(kept_and_trained(SweepConfig { lrs: vec![lr, 0.5 * lr], ..rates }, dir.path()), (4, 0));
    let results = SweepResults::read(dir.path()).unwrap();
    assert_eq!((results.series.len(), results.runs.len(), results.is_finished()), (4, 4, true));
    // Nothing was trained twice, and nothing was deleted.
    assert_eq!(fs::read_dir(dir.path().join("runs")).unwrap().count(), 8);
    assert_eq!(kept_and_trained(SweepConfig { seeds: 2, ..small }, dir.path()), (4, 0));
}

#[test]
fn an_interrupted_training_goes_on_and_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    let config = SweepConfig { seeds: 1, alphas: vec![1.0], ..usual(&[20], 2) };
    sweep(config.clone()).run(&whole, &|_| {}).unwrap();
    let stop = StopFlag::default();
    let stopped = sweep(config.clone()).with_stop(stop.clone()).run(&parts, &|event| {
        if matches!(event, Progress::Work(work) if work > 0) {
            stop.set();
        }
    });
    assert!(matches!(stopped, Err(LabError::Stopped { done: 0, total: 1 })), "{stopped:?}");
    let results = SweepResults::read(&parts).unwrap();
    assert_eq!((results.runs.len(), results.planned, results.verdicts.len()), (0, 1, 0));
    redraw(&parts).unwrap();
    assert!(fs::read_to_string(parts.join("index.html")).unwrap().contains("No verdict yet: 0 of 1 trainings have"));
    let resumed = AtomicUsize::new(0);
    let results = sweep(config).run(&parts, &|event| {
        if let Progress::Resumed { iteration, .. } = event {
            resumed.store(iteration, Ordering::SeqCst);
        }
    });
    assert_eq!(results.unwrap().runs.len(), 1);
    assert!(resumed.into_inner() > 0);
    let run = |folder: &Path| folder.join("runs/dense-residual-20-seed0");
    for name in ["model.bpk", "loss.csv", "config.json"] {
        let [whole, parts] = [&whole, &parts].map(|folder| fs::read(run(folder).join(name)).unwrap());
        assert!(whole == parts, "{name} differs");
    }
    assert!(!run(&parts).join("checkpoint").exists() && !run(&parts).join("best.bpk").exists());
}

#[test]
fn weights_are_kept_unless_told_not_to() {
    let dir = tempfile::tempdir().unwrap();
    let [with, without] = ["with", "without"].map(|name| dir.path().join(name));
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    sweep(config.clone()).run(&with, &|_| {}).unwrap();
    sweep(config.clone()).with_weights(false).run(&without, &|_| {}).unwrap();
    let model = |folder: &Path| folder.join("runs/dense-plain-4-seed0/model.bpk").exists();
    assert!(model(&with) && !model(&without));
    // A sweep without weights is finished.
    assert_eq!(kept_and_trained(config, &without), (2, 0));
}

#[test]
fn each_optimizer_has_a_rate_of_its_own_a_panel_and_a_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig {
        optimizers: vec![OptimizerKind::Sgd, OptimizerKind::Adam],
        lr_grid: vec![0.001, 1.0],
        ..usual(&[4, 6], 2)
    };
    let total = config.trainings();
    // Two rates for each optimizer, kind and depth with the first seed, and the second seed at the chosen rate.
    assert_eq!(total, 2 * 2 * 2 * (2 + 1));
    let stop = StopFlag::default();
    let stopped = sweep(config.clone()).with_jobs(1).with_stop(stop.clone()).run(dir.path(), &|event| {
        if matches!(event, Progress::Finished(_)) {
            stop.set();
        }
    });
    assert!(matches!(stopped, Err(LabError::Stopped { done: 1, total: 24 })), "{stopped:?}");
    assert_eq!(kept_and_trained(config.clone(), dir.path()), (1, total - 1));
    assert_eq!(kept_and_trained(config, dir.path()), (total, 0));
    let results = SweepResults::read(dir.path()).unwrap();
    assert_eq!((results.grid.len(), results.runs.len(), results.verdicts.len()), (16, 16, 2));
    // At a thousandth of its usual rate, an optimizer learns nothing in two epochs.
    let chosen: Vec<f64> = results.tuned.iter().map(|tuned| tuned.lr).collect();
    assert_eq!(chosen, [0.02, 0.001]);
    assert!(results.tuned.iter().all(|tuned| tuned.rates[0].train_error > tuned.rates[1].train_error));
    let settings: Vec<Setting> = results.verdicts.iter().map(|verdict| verdict.setting).collect();
    assert_eq!(settings[1], Setting { optimizer: Some(OptimizerKind::Adam), lr: Some(0.001), ..Setting::default() });
    redraw(dir.path()).unwrap();
    let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
    assert!(page.contains("Dense blocks, 2 epochs, adam, learning rate 0.001") && page.contains("Learning rates"));
    // A row for each training, those of the grid included, with a column for each axis.
    let csv = fs::read_to_string(dir.path().join("results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + total);
    assert!(csv.lines().next().unwrap().ends_with(",iterations,optimizer,lr"), "{csv}");
    let spec = RunSpec { seed: 1, ..results.runs[0].spec };
    assert!(results.runs.iter().any(|run| run.spec == spec));
}

#[test]
fn trainings_of_another_version_are_kept_and_named_and_those_of_another_backend_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    sweep(config.clone()).run(dir.path(), &|_| {}).unwrap();
    let path = dir.path().join("runs/dense-plain-4-seed0/environment.json");
    let change = |from: &str, to: &str| {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replace(from, to)).unwrap();
    };
    change("\"kernels\": \"fused\"", "\"kernels\": \"reference\"");
    let told = std::sync::Mutex::new(Vec::new());
    let results = sweep(config.clone()).run(dir.path(), &|event| match event {
        Progress::Other { trainings, environment } => told.lock().unwrap().push((trainings, environment.kernels)),
        Progress::Finished(result) => panic!("{} is repeated", result.spec),
        _ => {}
    });
    assert_eq!(told.into_inner().unwrap(), [(1, residual::model::Kernels::Reference)]);
    assert_eq!(results.unwrap().environments.len(), 2);
    change("\"backend\": \"flex\"", "\"backend\": \"wgpu\"");
    let error = sweep(config).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("dense-plain-4-seed0 ran on wgpu, not on flex"), "{error}");
}

#[test]
fn what_is_in_the_way_is_never_deleted_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    sweep(config.clone()).run(dir.path(), &|_| {}).unwrap();
    let run = dir.path().join("runs/dense-plain-4-seed0");
    // A configuration of another version.
    let text = fs::read_to_string(run.join("config.json")).unwrap();
    fs::write(run.join("config.json"), text.replace("\"version\": 2", "\"version\": 1")).unwrap();
    let error = sweep(config.clone()).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("is a configuration of version 1"), "{error}");
    assert!(run.join("model.bpk").exists());
    fs::write(run.join("config.json"), text).unwrap();

    // A finished training under another name is used, but nothing is written into it.
    let other = dir.path().join("runs/mine");
    fs::rename(&run, &other).unwrap();
    fs::create_dir(other.join("checkpoint")).unwrap();
    fs::write(other.join("checkpoint/00000001.ckpt"), "mine").unwrap();
    assert_eq!(kept_and_trained(config.clone(), dir.path()), (2, 0));
    assert!(other.join("checkpoint/00000001.ckpt").exists() && !run.exists());

    // A file of somebody else in a run directory stays, and the sweep trains beside it.
    let residual = dir.path().join("runs/dense-residual-4-seed0");
    fs::write(residual.join("notes.txt"), "mine").unwrap();
    let changed = config.clone().with_training(|training| training.epochs = 2);
    sweep(changed).with_force(true).run(dir.path(), &|_| {}).unwrap();
    assert!(residual.join("model.bpk").exists() && residual.join("notes.txt").exists());
    sweep(config.clone()).with_force(true).run(dir.path(), &|_| {}).unwrap();
    // Without its configuration, a training is neither used nor replaced.
    fs::rename(residual.join("config.json"), residual.join("config.bak")).unwrap();
    let error = sweep(config.clone()).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("is not empty and holds no training run"), "{error}");
    fs::rename(residual.join("config.bak"), residual.join("config.json")).unwrap();

    // A training that was interrupted with other kernels does not start again in silence.
    fs::create_dir(residual.join("checkpoint")).unwrap();
    fs::write(residual.join("checkpoint/00000001.ckpt"), "a checkpoint").unwrap();
    fs::remove_file(residual.join("summary.json")).unwrap();
    let path = residual.join("environment.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"fused\"", "\"reference\"");
    fs::write(path, text).unwrap();
    let error = sweep(config).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("dense-residual-4-seed0 was interrupted with reference kernels"), "{error}");
}

#[test]
fn a_sweep_does_not_mix_datasets() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { seeds: 1, ..usual(&[4], 1) };
    sweep(config.clone()).run(dir.path(), &|_| {}).unwrap();
    let path = dir.path().join("runs/dense-plain-4-seed0/dataset.json");
    let text = fs::read_to_string(&path).unwrap();
    let other = text.replace("1437", "1436");
    assert_ne!(other, text);
    fs::write(path, other).unwrap();
    let error = sweep(config).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("the dataset changed since"), "{error}");
}
