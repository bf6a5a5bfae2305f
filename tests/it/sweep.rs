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
