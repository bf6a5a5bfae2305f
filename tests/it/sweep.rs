//! A small sweep from start to end.

use residual::{
    backend::Backend,
    lab::{Finding, LabError, Progress, Sweep, SweepConfig, SweepResults},
    model::Family,
    report::redraw,
    train::StopFlag,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

fn config() -> SweepConfig {
    SweepConfig {
        families: vec![Family::Dense],
        depths: Some(vec![4, 56]),
        seeds: 2,
        epochs: Some(4),
        ..SweepConfig::default()
    }
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
    let config = SweepConfig { depths: Some(vec![4]), epochs: Some(1), ..config() };
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
    let path = dir.path().join("runs/dense-plain-4-seed0.json");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    sweep(config.clone()).run(dir.path(), &|_| {}).unwrap();
    assert!(fs::read_to_string(&path).unwrap().len() > whole.len() / 2);
    let other = SweepConfig { epochs: Some(2), ..config };
    let error = sweep(other.clone()).run(dir.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("holds another sweep"), "{error}");
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
    let config = SweepConfig { depths: Some(vec![4, 6, 8]), epochs: Some(1), ..config() };
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
    // The networks of four trainings are needed, so these are repeated; the table does not change.
    assert_eq!(run(true), [4, 4]);
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
    let config = SweepConfig {
        depths: Some(vec![4]),
        epochs: Some(1),
        lr: Some(0.003_452_583_015_134_158_6),
        clip: Some(0.003_452_583_015_134_158_6 * 1e3),
        alphas: vec![0.0, 0.003_452_583_015_134_158_6, 1.0],
        ..config()
    };
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
    for name in ["results.json", "sweep.json", "curves.csv", "environment.json"] {
        assert_eq!(bytes(&whole, name), bytes(&resumed, name), "{name}");
    }
    let other = SweepConfig { lr: Some(0.003_452_583_015_134_158_6f64.next_up()), ..config };
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
    let config = SweepConfig { depths: Some(vec![4]), epochs: Some(1), seeds: 1, ..config() };
    let first = sweep(config.clone()).with_explain(true).unwrap();
    first.run(dir.path(), &|_| {}).unwrap();
    first.explain(dir.path(), &|_, _, _| String::new(), &|_| {}).unwrap();
    drop(first);
    redraw(dir.path()).unwrap();
    let own = [
        "thesis.tex",
        "data/a.png",
        "runs/my-training/model.bpk",
        "runs/dense-plain-4-seed9.json",
        "runs/dense-plain-4-seed0/notes.txt",
        "inspect/mine/gradients.json",
        "inspect/dense/notes.2024.tmp",
    ];
    put(dir.path(), &own);
    let other = SweepConfig { epochs: Some(2), ..config };
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
        "runs/dense-plain-4-seed0.json",
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
    let config = SweepConfig { depths: Some(vec![4]), epochs: Some(1), seeds: 1, ..config() };
    sweep(config.clone()).run(&folder, &|_| {}).unwrap();
    fs::rename(folder.join("runs"), &away).unwrap();
    symlink(&away, folder.join("runs")).unwrap();
    // The same sweep uses the folder as it is.
    sweep(config.clone()).run(&folder, &|_| {}).unwrap();
    let other = || sweep(SweepConfig { epochs: Some(2), ..config.clone() }).with_force(true);
    let error = other().run(&folder, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("runs is in the way: it is a symbolic link"), "{error}");
    assert!(away.join("dense-plain-4-seed0.json").exists() && folder.join("results.json").exists());
}

/// A sweep that is killed at its very start leaves some of these files.
#[test]
fn a_sweep_that_was_killed_at_its_start_can_be_run() {
    let config = SweepConfig { depths: Some(vec![4]), epochs: Some(1), seeds: 1, ..config() };
    let whole = tempfile::tempdir().unwrap();
    sweep(config.clone()).run(whole.path(), &|_| {}).unwrap();
    let environment = fs::read_to_string(whole.path().join("environment.json")).unwrap();
    let temporary = "sweep.json.0123456789abcdef.tmp";
    for files in [&[][..], &[".lock"], &[".lock", temporary], &["environment.json"], &["environment.json", temporary]] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("runs")).unwrap();
        files.iter().for_each(|name| fs::write(dir.path().join(name), &environment).unwrap());
        sweep(config.clone()).run(dir.path(), &|_| {}).unwrap();
        assert!(!dir.path().join(temporary).exists());
    }
}

#[test]
fn two_sweeps_cannot_use_a_folder_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { depths: Some(vec![4]), epochs: Some(1), seeds: 1, ..config() };
    let first = sweep(config.clone());
    first.run(dir.path(), &|_| {}).unwrap();
    let other = SweepConfig { epochs: Some(2), ..config.clone() };
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
    let config = SweepConfig { depths: Some(vec![4]), epochs: Some(1), ..config() };
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
    let config = SweepConfig { depths: Some(vec![4]), epochs: Some(1), seeds: 1, ..config() };
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
    assert!(error(&|c| c.epochs = Some(usize::MAX)).contains("epochs must be"));
    let conv = |c: &mut SweepConfig| (c.families, c.depths) = (vec![Family::Conv], Some(vec![8]));
    for width in [1 << 20, 1 << 40, usize::MAX] {
        let error = error(&|c| {
            conv(c);
            c.conv_width = width;
        });
        let named = ["width", "parameters", "GiB of memory"];
        assert!(named.iter().any(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn divergence_is_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let config = SweepConfig { depths: Some(vec![4]), seeds: 1, alphas: vec![1.0], lr: Some(1e30), ..config() };
    let results = sweep(config).run(dir.path(), &|_| {}).unwrap();
    assert_eq!(results.series[0].points[0].diverged, 1);
    redraw(dir.path()).unwrap();
    assert!(fs::read_to_string(dir.path().join("results.csv")).unwrap().contains(",diverged,"));
    assert!(fs::read_to_string(dir.path().join("table.md")).unwrap().contains("1 of 1 diverged"));
}
