//! Directories that are cut short, used by two processes at once, or hold files of others.

use super::{command, refuses, succeeds, wait_for};
#[cfg(unix)]
use super::{send, text, with_small_files};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

const TRAIN: &[&str] = &["train", "dense-resnet4", "--data", "synthetic", "--epochs", "1", "--on-nan", "rewind"];
const SWEEP: &[&str] =
    &["sweep", "--family", "dense", "--depths", "4", "--seeds", "1", "--epochs", "1", "--data", "synthetic", "--json"];

/// The files of [`TRAIN`], in the order in which they are written.
const WRITTEN: [&str; 14] = [
    ".lock",
    "environment.json",
    "config.json",
    "dataset.json",
    "preprocessing.json",
    "checkpoint/00000000.times.csv",
    "checkpoint/00000000.ckpt",
    "best.bpk",
    "checkpoint/00000005.times.csv",
    "checkpoint/00000005.ckpt",
    "metrics.csv",
    "loss.csv",
    "model.bpk",
    "summary.json",
];

/// The files in a directory, relative to it, in the order in which they were last written.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { collect(&path, files) } else { files.push(path) }
        }
    }
    let mut all = Vec::new();
    collect(folder, &mut all);
    // Times are not fine enough to tell a training's first files apart.
    let rank = |path: &Path| WRITTEN.iter().position(|name| path.ends_with(name));
    all.sort_by_key(|path| (fs::metadata(path).unwrap().modified().unwrap(), rank(path)));
    all.into_iter().map(|path| path.strip_prefix(folder).unwrap().to_path_buf()).collect()
}

fn copy(from: &Path, to: &Path, names: &[PathBuf]) {
    fs::create_dir_all(to).unwrap();
    for name in names {
        fs::create_dir_all(to.join(name).parent().unwrap()).unwrap();
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// The results without measured times.
fn results(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("results.json")).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("\"seconds\"")).collect::<Vec<_>>().join("\n")
}

/// Continues or begins again a training in a directory that may have been cut short anywhere.
fn train_to_the_end(run: &Path) {
    let path = run.to_str().unwrap();
    if run.join("config.json").exists() {
        succeeds(&["train", "--resume", path]);
    } else {
        succeeds(&[TRAIN, &["--out", path]].concat());
    }
}

#[test]
fn a_training_cut_after_any_file_is_resumed_or_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeeds(&[TRAIN, &["--out", whole.to_str().unwrap()]].concat());
    let mut found = files(&whole);
    let mut written = WRITTEN.map(PathBuf::from).to_vec();
    for count in 0..=written.len() {
        let cut = dir.path().join("cut");
        copy(&whole, &cut, &written[..count]);
        train_to_the_end(&cut);
        for name in ["model.bpk", "best.bpk"] {
            assert!(fs::read(cut.join(name)).unwrap() == fs::read(whole.join(name)).unwrap(), "{count}: {name}");
        }
        fs::remove_dir_all(&cut).unwrap();
    }
    found.sort();
    written.sort();
    assert_eq!(found, written);
}

#[test]
fn a_sweep_cut_after_any_file_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeeds(&[SWEEP, &["--out", whole.to_str().unwrap()]].concat());
    let written = files(&whole);
    assert!(written.len() >= 12, "{written:?}");
    for count in 0..=written.len() {
        let cut = dir.path().join("cut");
        copy(&whole, &cut, &written[..count]);
        fs::write(cut.join("sweep.json.0123456789abcdef.tmp"), "{").unwrap();
        succeeds(&[SWEEP, &["--out", cut.to_str().unwrap()]].concat());
        assert_eq!(results(&cut), results(&whole), "{count}");
        assert_eq!(files(&cut).len(), written.len(), "{count}: {:?}", files(&cut));
        fs::remove_dir_all(&cut).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn after_any_full_disk_a_training_is_resumed_or_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeeds(&[TRAIN, &["--out", whole.to_str().unwrap()]].concat());
    // Just too small for each of the files.
    let blocks = |name: &PathBuf| fs::metadata(whole.join(name)).unwrap().len().div_ceil(512).saturating_sub(1);
    let mut limits: Vec<u64> = files(&whole).iter().map(blocks).collect();
    limits.sort_unstable();
    limits.dedup();
    assert!(limits.len() >= 5, "{limits:?}");
    for limit in limits {
        let run = dir.path().join(limit.to_string());
        let output = with_small_files(limit, &[TRAIN, &["--out", run.to_str().unwrap()]].concat());
        let (code, stderr) = (output.status.code(), text(&output.stderr));
        assert!(code == Some(1) && stderr.contains("error: cannot write"), "{limit}: {code:?} {stderr}");
        assert!(!stderr.contains("panicked"), "{limit}: {stderr}");
        train_to_the_end(&run);
        for name in ["model.bpk", "best.bpk"] {
            assert!(fs::read(run.join(name)).unwrap() == fs::read(whole.join(name)).unwrap(), "{limit}: {name}");
        }
    }
}

#[cfg(unix)]
#[test]
fn after_any_full_disk_a_sweep_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeeds(&[SWEEP, &["--out", whole.to_str().unwrap()]].concat());
    for limit in [0, 1, 2, 4, 8, 16, 32, 64] {
        let folder = dir.path().join(limit.to_string());
        let args = [SWEEP, &["--out", folder.to_str().unwrap()]].concat();
        let output = with_small_files(limit, &args);
        let (code, stderr) = (output.status.code(), text(&output.stderr));
        assert!(matches!(code, Some(0 | 1)) && !stderr.contains("panicked"), "{limit}: {code:?} {stderr}");
        succeeds(&args);
        assert_eq!(results(&folder), results(&whole), "{limit}");
    }
}

/// A process that is killed and waited for when the test ends, even if it fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program and waits until a file exists.
fn start(args: &[&str], until: &Path) -> Running {
    let mut running = Running(command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    wait_for(&mut running.0, until);
    running
}

#[test]
fn a_second_sweep_in_a_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sweep");
    let path = folder.to_str().unwrap();
    let long = ["sweep", "--family", "dense", "--depths", "4", "--epochs", "100000", "--out", path];
    let _first = start(&long, &folder.join("sweep.json"));
    refuses(&long, 1, "is locked by another process");
    refuses(&[&long[..], &["--explain"]].concat(), 1, "is locked by another process");
    refuses(&[SWEEP, &["--out", path, "--force"]].concat(), 1, "is locked by another process");
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/digits/results.json"),
        folder.join("results.json"),
    )
    .unwrap();
    refuses(&["report", "--redraw", path], 1, "is locked by another process");
    assert!(!folder.join("index.html").exists());
}

#[cfg(unix)]
#[test]
fn a_training_ends_with_one_line_once_its_directory_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let path = run.to_str().unwrap();
    let mut training = start(&["train", "dense-resnet4", "--epochs", "100000", "--out", path], &run.join("checkpoint"));
    fs::rename(&run, dir.path().join("away")).unwrap();
    assert_eq!(training.0.wait().unwrap().code(), Some(1));
    let mut stderr = String::new();
    std::io::Read::read_to_string(training.0.stderr.as_mut().unwrap(), &mut stderr).unwrap();
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors, [format!("error: {path} was removed or renamed while this process was writing into it")]);
    assert!(!run.exists());
}

#[cfg(unix)]
#[test]
fn a_terminated_measurement_ends_with_130() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = ["inspect", "dense-resnet32", "--what", "activations,landscape", "--points", "1001", "--out"];
    let mut measuring = start(&[&args[..], &[out.to_str().unwrap()]].concat(), &out.join("activations.svg"));
    send(&measuring.0, "TERM");
    assert_eq!(measuring.0.wait().unwrap().code(), Some(130));
    assert!(out.join("activations.json").exists() && !out.join("landscape.json").exists());
}

#[test]
fn files_of_others_are_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let mine = |name: &str| fs::write(dir.path().join(name), "mine").unwrap();
    let is_mine = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap() == "mine";
    let (out, page) = (path(""), path("page.html"));
    let inspect = ["inspect", "dense-resnet4", "--data", "synthetic", "--images", "8", "--inits", "1", "--out", &out];
    for name in ["gradients.csv", "activations.svg", "gradients.json"] {
        mine(name);
        refuses(&inspect, 1, &format!("{name} was not written by an inspection"));
        assert!(is_mine(name) && fs::read_dir(dir.path()).unwrap().count() == 1);
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    mine("page.html");
    mine("findings.md");
    succeeds(&inspect);
    succeeds(&inspect);
    refuses(&["report", "--redraw", &out], 1, "findings.md has other findings");
    refuses(&["report", &out, "--out", &page], 1, "page.html was not written by `residual report`");
    assert!(is_mine("findings.md") && is_mine("page.html"));
    fs::remove_file(dir.path().join("findings.md")).unwrap();
    fs::remove_file(&page).unwrap();
    succeeds(&["report", "--redraw", &out]);
    succeeds(&["report", "--redraw", &out]);
    succeeds(&["report", &out, "--out", &page]);
    succeeds(&["report", &out, "--out", &page]);
    assert!(!dir.path().join(".lock").exists());
}

#[test]
fn force_says_what_it_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (run, folder) = (path("run"), path("sweep"));
    let train = [TRAIN, &["--out", &run, "--force"]].concat();
    let sweep = [SWEEP, &["--out", &folder, "--force"]].concat();
    for args in [&train, &sweep] {
        let (_, stderr) = succeeds(args);
        assert!(!stderr.contains("removing"), "{stderr}");
    }
    fs::create_dir(dir.path().join("run/valid")).unwrap();
    fs::write(dir.path().join("run/valid/a.png"), "mine").unwrap();
    let (_, stderr) = succeeds(&train);
    assert!(
        stderr.contains("removing ") && stderr.contains("model.bpk, ") && stderr.contains("checkpoint/ ("),
        "{stderr}"
    );
    assert!(dir.path().join("run/valid/a.png").exists());
    // Another seed is not in the way.
    let (_, stderr) = succeeds(&[&sweep[..], &["--seed", "1"]].concat());
    assert!(!stderr.contains("removing"), "{stderr}");
    let (_, stderr) = succeeds(&[SWEEP, &["--lr", "0.5", "--out", &folder, "--force"]].concat());
    assert!(
        stderr.contains("index.html, runs/ (") && !dir.path().join("sweep/runs/dense-plain-4-seed1").exists(),
        "{stderr}"
    );
}
