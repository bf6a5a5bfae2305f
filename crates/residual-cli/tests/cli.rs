//! The binary as its users meet it.

use assert_cmd::Command;
use predicates::{prelude::*, str::contains};
use std::fs;

fn residual(args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("residual").unwrap();
    command.env_remove("BURN_DEVICE").args(args).assert()
}

/// Fails with this code and one line on stderr that contains the text.
fn refuses(args: &[&str], code: i32, text: &str) {
    let assert = residual(args).code(code).stderr(contains(text)).stdout("");
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn wrong_requests_exit_with_2_and_say_what_would_be_right() {
    let cases: [(&[&str], &str); 16] = [
        (&["train", "--net", "resnet21"], "the nearest are 20 and 26"),
        (&["train", "--net", "resnet50"], "write `cifar-resnet50`"),
        (&["train", "--net", "vgg16"], "unknown network `vgg16`"),
        (&["train", "--net", "resnet20", "--classes", "0"], "classes must be at least 1"),
        (&["train", "--net", "resnet20", "--classes", "5"], "the data have 10 classes, the network only 5"),
        (&["train", "--net", "resnet20", "--width", "0"], "width must be at least 1"),
        (&["train", "--net", "resnet20", "--data", "cifar11"], "unknown dataset `cifar11`; expected one of digits"),
        (&["train", "--net", "resnet20", "--epochs", "0"], "epochs must be at least 1, not 0"),
        (&["train", "--net", "resnet20", "--lr", "nan"], "the learning rate must be a positive number, not NaN"),
        (&["train", "--net", "resnet20", "--backend", "wpgu"], "unknown backend `wpgu`; expected one of flex"),
        (&["train", "--net", "resnet20", "--backend", "rocm"], "rebuild with `--features rocm`"),
        (&["sweep", "--depths", "8,21"], "no dense network has depth 21"),
        (&["sweep", "--epochs", "0"], "epochs must be at least 1"),
        (&["sweep", "--jobs", "0"], "--jobs must be at least 1"),
        (&["summary", "resnet20", "--image", "32"], "unknown image size `32`"),
        (&["train"], "--net"),
    ];
    for (args, text) in cases {
        refuses(args, 2, text);
    }
}

#[test]
fn failures_exit_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    refuses(&["train", "--resume", &path("missing")], 1, "holds no training");
    refuses(&["train", "--config", &path("missing.json")], 1, "cannot read");
    fs::write(path("broken.json"), "{").unwrap();
    refuses(&["train", "--config", &path("broken.json")], 1, "broken.json is not usable");
    fs::write(path("foreign.json"), "{\"version\": 9}").unwrap();
    refuses(&["train", "--config", &path("foreign.json")], 1, "is a configuration of version 9");
    // A file where a folder should be.
    refuses(&["train", "--net", "dense-plain4", "--out", &path("broken.json/run")], 1, "cannot create");
    refuses(&["sweep", "--out", &path("broken.json/sweep")], 1, "cannot create");
}

#[test]
fn burn_device_is_read_and_the_flag_beats_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("residual").unwrap();
    command.env("BURN_DEVICE", "nonsense").current_dir(dir.path());
    command.args(["train", "--net", "dense-plain4"]).assert().code(2).stderr(contains("`nonsense` in BURN_DEVICE"));
    let mut command = Command::cargo_bin("residual").unwrap();
    command.env("BURN_DEVICE", "nonsense").current_dir(dir.path());
    command.args(["train", "--net", "dense-plain4", "--data", "synthetic", "--epochs", "1", "--backend", "flex"]);
    command.assert().success();
}

#[test]
fn a_training_runs_reports_and_reads_its_own_config_back() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let out = run.to_str().unwrap();
    residual(&["train", "--net", "dense-resnet4", "--data", "synthetic", "--epochs", "2", "--out", out])
        .success()
        .stdout(contains("dense-resnet4: training error"))
        .stderr(contains("epoch   2/2"));
    refuses(&["train", "--net", "dense-resnet4", "--out", out], 1, "holds a finished training");
    residual(&["train", "--resume", out]).success().stdout(contains("is finished"));
    let config = run.join("config.json");
    let again = dir.path().join("again");
    let args =
        ["train", "--config", config.to_str().unwrap(), "--seed", "1", "--out", again.to_str().unwrap(), "--json"];
    residual(&args).success().stdout(contains("\"status\": \"finished\""));
    assert!(fs::read_to_string(again.join("config.json")).unwrap().contains("\"seed\": 1"));
}

#[test]
fn a_diverging_training_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args =
        ["train", "--net", "dense-plain4", "--lr", "1e30", "--schedule", "constant", "--out", out.to_str().unwrap()];
    residual(&args).code(1).stderr(contains("error: the loss became"));
}

#[test]
fn summaries_print_published_numbers() {
    residual(&["summary", "resnet20"]).success().stdout(contains("269,722").and(contains("40,551,040")));
    residual(&["summary", "cifar-resnet50", "--shortcut", "B", "--json"]).success().stdout(contains("\"parameters\""));
}

#[test]
fn devices_lists_every_backend_and_the_default() {
    residual(&["devices"]).success().stdout(contains("* flex").and(contains("cuda")));
}

#[test]
fn help_exists_for_every_command() {
    for command in ["sweep", "train", "summary", "devices"] {
        residual(&[command, "--help"]).success().stdout(contains("Usage: residual"));
    }
}
