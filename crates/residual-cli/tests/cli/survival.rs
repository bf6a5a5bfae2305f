//! Trainings that are killed, locked, or run out of disk space.

use super::{command, refuses, wait_for};
#[cfg(unix)]
use super::{send, with_small_files};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const TRAIN: &[&str] = &[
    "train",
    "--net",
    "resnet8",
    "--epochs",
    "8",
    "--samples",
    "400",
    "--batch-size",
    "40",
    "--flip",
    "--crop-padding",
    "1",
    "--ema",
    "0.9",
    "--checkpoint-every",
    "0.02s",
];

fn start(args: &[&str], path: &Path) -> Child {
    let flag = if path.join("config.json").exists() { "--resume" } else { "--out" };
    let args = if flag == "--out" { args } else { &["train", "--checkpoint-every", "0.02s"] };
    command(args).arg(flag).arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The bytes of the final weights by tensor name.
fn weights(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = run.with_extension("safetensors");
    assert!(
        command(&["convert", run.to_str().unwrap(), file.to_str().unwrap(), "--force"])
            .output()
            .unwrap()
            .status
            .success()
    );
    let bytes = fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    tensors.iter().map(|(name, tensor)| (name.to_string(), tensor.data().to_vec())).collect()
}

/// The rows of metrics.csv without the columns that depend on time.
fn metrics(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
    text.lines().map(|line| line.split(',').take(5).collect::<Vec<_>>().join(",")).collect()
}

#[test]
fn a_training_killed_twenty_times_ends_with_the_same_bytes() {
    kill_twenty_times("sgd");
}

/// Muon has two kinds of state: its own, and that of AdamW.
#[test]
fn a_training_with_muon_killed_twenty_times_ends_with_the_same_bytes() {
    kill_twenty_times("muon");
}

#[test]
#[ignore = "takes minutes"]
fn a_training_with_any_optimizer_killed_twenty_times_ends_with_the_same_bytes() {
    for optimizer in ["adam", "adamw", "rmsprop", "adagrad", "adadelta", "adan", "lion", "lamb"] {
        kill_twenty_times(optimizer);
    }
}

/// Asserts that a training with this optimizer ends with the same bytes whether or not it is killed.
fn kill_twenty_times(optimizer: &str) {
    let args = [TRAIN, &["--optimizer", optimizer]].concat();
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let begin = Instant::now();
    assert!(start(&args, &whole).wait().unwrap().success());
    let length = begin.elapsed();

    let mut kills = 0;
    // Pseudo-random times, the same in every test run. Each is long enough for some progress.
    let mut state = 7u64;
    while kills < 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let fraction = (state >> 33) as f64 / f64::from(1u32 << 31);
        if killed.join("model.bpk").exists() {
            assert_same(&killed, &whole);
            fs::remove_dir_all(&killed).unwrap();
        }
        let mut child = start(&args, &killed);
        std::thread::sleep(length.mul_f64(0.1 + 0.4 * fraction));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    while !killed.join("model.bpk").exists() {
        assert!(start(&args, &killed).wait().unwrap().success());
    }
    assert_same(&killed, &whole);
}

/// Asserts that two trainings left the same last and best weights, checkpoint and metrics.
fn assert_same(a: &Path, b: &Path) {
    assert_eq!(metrics(a), metrics(b));
    for name in ["model.bpk", "best.bpk"] {
        assert!(fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap(), "{name} differs");
    }
    let newest = |run: &Path| {
        let files = fs::read_dir(run.join("checkpoint")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|e| e == "ckpt")).max().unwrap()
    };
    assert!(fs::read(newest(a)).unwrap() == fs::read(newest(b)).unwrap(), "the newest checkpoint differs");
    assert!(weights(a) == weights(b), "the weights differ");
    // The tensors of the best weights, by way of a run directory that has them as its last weights.
    let best = |run: &Path| {
        let path = run.with_extension("best");
        fs::create_dir_all(&path).unwrap();
        for (from, to) in
            [("config.json", "config.json"), ("preprocessing.json", "preprocessing.json"), ("best.bpk", "model.bpk")]
        {
            fs::copy(run.join(from), path.join(to)).unwrap();
        }
        weights(&path)
    };
    assert!(best(a) == best(b), "the best weights differ");
}

#[test]
fn a_resumed_training_uses_the_kernels_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, killed, fused] = ["whole", "killed", "fused"].map(|name| dir.path().join(name));
    let reference = [TRAIN, &["--kernels", "reference"]].concat();
    assert!(start(&reference, &whole).wait().unwrap().success());
    assert!(start(TRAIN, &fused).wait().unwrap().success());
    assert!(weights(&whole) != weights(&fused));
    let mut child = start(&reference, &killed);
    wait_for(&mut child, &killed.join("checkpoint"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.join("model.bpk").exists());
    assert!(start(&[], &killed).wait().unwrap().success());
    assert_same(&killed, &whole);
}

#[test]
fn a_second_process_in_a_run_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut first = start(&["train", "--net", "resnet20", "--epochs", "1000"], &run);
    wait_for(&mut first, &run.join("config.json"));
    let path = run.to_str().unwrap();
    refuses(&["train", "--resume", path], 1, "is locked by another process");
    refuses(&["train", "--net", "resnet8", "--out", path, "--force"], 1, "is locked by another process");
    first.kill().unwrap();
    first.wait().unwrap();
}

/// A limit on file sizes simulates a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_partial_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    assert!(start(&["train", "--net", "dense-resnet4", "--epochs", "1"], &run).wait().unwrap().success());
    let other = dir.path().join("full");
    // Enough for the best weights, too few for a checkpoint.
    let train = ["train", "--net", "dense-resnet4", "--epochs", "1", "--out", other.to_str().unwrap()];
    let output = with_small_files(200, &train);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("error: cannot write") && error.contains(".ckpt"), "{error}");
    let left: Vec<_> = fs::read_dir(other.join("checkpoint")).unwrap().collect();
    assert!(left.is_empty(), "partial files: {left:?}");
    assert!(start(&[], &other).wait().unwrap().success());
    assert!(other.join("model.bpk").exists());
}

/// SIGTERM stops a training after the current step.
#[cfg(unix)]
#[test]
fn a_terminated_training_leaves_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = start(&["train", "--net", "resnet20", "--epochs", "1000"], &run);
    wait_for(&mut child, &run.join("checkpoint"));
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(fs::read_to_string(run.join("summary.json")).unwrap().contains("\"interrupted\""));
    assert!(fs::read_dir(run.join("checkpoint")).unwrap().count() >= 1);
    // A resume without a checkpoint would overwrite the metrics.
    fs::remove_dir_all(run.join("checkpoint")).unwrap();
    fs::write(
        run.join("metrics.csv"),
        "epoch,split,loss,error,lr,seconds,images_per_second\n1,running,1,0.5,0.1,1,9\n",
    )
    .unwrap();
    refuses(&["train", "--resume", run.to_str().unwrap()], 1, "has metrics but no checkpoint to resume from");
}

/// Waits for a process to end and returns its peak resident memory in bytes.
#[cfg(target_os = "linux")]
fn peak(mut child: Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    peak << 10
}

#[cfg(target_os = "linux")]
#[test]
fn expected_memory_is_within_fifteen_per_cent_of_measured_memory() {
    let dir = tempfile::tempdir().unwrap();
    let conv = &["--width", "64", "--batch-size", "256", "--samples", "512"][..];
    let dense = &["--width", "1000", "--batch-size", "64", "--samples", "128"][..];
    for (net, kernels, settings) in [
        ("resnet20", &["--recompute"][..], conv),
        ("resnet20", &[], conv),
        ("resnet56", &[], conv),
        // Weights and the optimizer's state take most of the memory.
        ("dense-resnet12", &["--optimizer", "lion"], dense),
        ("dense-resnet12", &["--optimizer", "adam"], dense),
        ("dense-resnet12", &["--optimizer", "rmsprop", "--momentum", "0.9", "--centered"], dense),
    ] {
        let args = [&["train", "--net", net, "--epochs", "1"][..], settings, kernels].concat();
        let dry = command(&[&args[..], &["--dry-run", "--json"]].concat()).output().unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&dry.stdout).unwrap();
        let expected = expected["total"].as_f64().unwrap();
        let run = dir.path().join(format!("{net}{}", kernels.join("")));
        let measured = peak(start(&args, &run)) as f64;
        let ratio = expected / measured;
        assert!(
            (0.85..1.15).contains(&ratio),
            "{net} {kernels:?}: {expected} expected, {measured} measured: {ratio:.2}"
        );
    }
}
