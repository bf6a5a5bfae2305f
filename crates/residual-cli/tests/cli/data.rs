//! Datasets, recipes, and checks before a training starts.

use super::{command, refuses, succeeds, text};
use image::{Rgb, RgbImage};
use std::{fs, path::Path};

/// Writes two classes of five images, and a sixth file that is not an image if `broken`.
fn folder(dir: &Path, broken: bool) {
    for (class, color) in [("dark", 40), ("light", 200)] {
        fs::create_dir_all(dir.join(class)).unwrap();
        for i in 0..5 {
            let image = RgbImage::from_pixel(20, 16, Rgb([color, color + 2 * i, color]));
            image.save(dir.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    if broken {
        fs::write(dir.join("dark/broken.jpg"), "no image").unwrap();
    }
}

#[test]
fn a_directory_of_images_is_checked_and_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images");
    folder(&path, false);
    let path = path.to_str().unwrap();
    let (report, _) = succeeds(&["data", "check", path]);
    assert!(report.contains("folder, 2 classes") && report.contains("        4  dark"), "{report}");
    assert!(report.contains("0 groups of identical images"), "{report}");

    let run = dir.path().join("run");
    let run = run.to_str().unwrap();
    let train = ["train", "--net", "resnet8", "--data", "folder", "--data-dir", path, "--side", "8", "--epochs", "20"];
    let (_, _) = succeeds(&[&train[..], &["--width", "4", "--lr", "0.02", "--out", run]].concat());
    let (table, _) = succeeds(&["compare", run]);
    assert!(table.contains("| resnet8 | folder |") && table.contains("| 20 | 0.00 | 0.00 |"), "{table}");
    let image = format!("{path}/light/0.png");
    let (prediction, _) = succeeds(&["predict", "--weights", run, &image, "--json"]);
    assert!(prediction.contains("\"class\": 1") && prediction.contains("\"light\""), "{prediction}");
    // `eval` finds the network of the best weights in the run directory.
    succeeds(&["eval", "--weights", &format!("{run}/best.bpk")]);
    refuses(&["compare", run, "--figure", &format!("{run}/config.json")], 2, "expected a name that ends in .svg");
}

#[test]
fn broken_images_are_listed_and_make_the_check_fail() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), true);
    let output = command(&["data", "check", dir.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("broken.jpg is neither PNG, JPEG"));
    assert!(text(&output.stderr).contains("error: 1 unusable file"));
}

#[test]
fn exported_images_are_recognised_by_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("digits");
    let path = path.to_str().unwrap();
    let (written, _) = succeeds(&["data", "export", "digits", path, "--samples", "40"]);
    assert!(written.ends_with("digits: 40 training images and 40 test images\n"), "{written}");
    refuses(&["data", "export", "digits", path], 2, "is not empty; give a new or an empty folder");
    let (report, _) = succeeds(&["data", "check", path]);
    let took = "digits: using train as the training split and test as the held-out split";
    assert!(report.contains("folder, 10 classes") && report.contains(took), "{report}");
    assert!(report.lines().skip(1).all(|line| line.len() <= 80), "{report}");

    let (config, log) = succeeds(&["train", "--net", "resnet8", "--data-dir", path, "--print-config"]);
    assert!(log.contains("as --data folder"), "{log}");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["data"]["name"], &config["network"]["classes"]), (&"folder".into(), &10.into()));
}

#[test]
fn broken_images_are_skipped_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images");
    folder(&path, true);
    let (path, run) = (path.to_str().unwrap(), dir.path().join("run"));
    let train = ["train", "--net", "resnet8", "--data", "folder", "--data-dir", path, "--side", "8", "--epochs", "1"];
    let train = [&train[..], &["--width", "4", "--out", run.to_str().unwrap()]].concat();
    refuses(&train, 1, "broken.jpg is neither PNG, JPEG");
    succeeds(&[&train[..], &["--force", "--skip-broken", "1"]].concat());
}

#[test]
fn flags_undo_what_a_configuration_sets() {
    let dir = tempfile::tempdir().unwrap();
    folder(&dir.path().join("images"), false);
    let (images, file) = (dir.path().join("images"), dir.path().join("config.json"));
    let data = ["train", "--net", "resnet8", "--data", "folder", "--data-dir", images.to_str().unwrap()];
    let set = ["--samples", "3", "--validation", "2", "--no-exif", "--group-by", "[0-9]", "--skip-broken", "4"];
    let set = [&set[..], &["--max-pixels", "5000"]].concat();
    let (config, _) = succeeds(&[&data[..], &set, &["--print-config"]].concat());
    fs::write(&file, &config).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["data"]["group_by"], &config["data"]["skip_broken"]), (&"[0-9]".into(), &4.into()));
    assert_eq!(config["data"]["max_pixels"], 5000);
    let undo =
        ["--samples", "all", "--validation", "0", "--no-exif", "false", "--group-by", "none", "--skip-broken", "0"];
    let undo = [&undo[..], &["--max-pixels", "default"]].concat();
    let with = ["train", "--config", file.to_str().unwrap(), "--print-config"];
    let (config, _) = succeeds(&[&with[..], &undo].concat());
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let (plain, _) = succeeds(&[&data[..], &["--print-config"]].concat());
    let plain: serde_json::Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(config["data"], plain["data"]);
}

#[test]
fn missing_data_and_invalid_settings_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let at = |args: &[&str], mirror: &str| {
        let mut command = command(args);
        let output = command.env("RESIDUAL_CACHE", dir.path()).env("RESIDUAL_MIRROR", mirror).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, error) = at(&["data", "fetch", "mnist"], "http://127.0.0.1:9/");
    assert!(
        code == Some(1) && error.contains("cannot reach http://127.0.0.1:9/mnist/train-images-idx3-ubyte.gz"),
        "{error}"
    );
    let (code, error) = at(&["data", "fetch", "mnist"], "nowhere");
    assert!(code == Some(2) && error.contains("RESIDUAL_MIRROR is `nowhere`"), "{error}");
    let (code, error) = at(&["train", "--net", "resnet8", "--data", "cifar10"], "");
    assert!(
        code == Some(2) && error.contains("cifar10 not found: ") && error.contains("`residual data fetch cifar10`"),
        "{error}"
    );
    refuses(&["data", "fetch", "digits"], 2, "digits is built in; there is nothing to fetch");
    refuses(&["data", "check", "/nowhere"], 2, "/nowhere does not exist");
    refuses(
        &["train", "--net", "resnet8", "--data", "folder"],
        2,
        "the dataset `folder` needs the path to its images; give it with --data-dir",
    );
    refuses(&["train", "--net", "resnet8", "--recipe", "he2017"], 2, "[possible values: digits, he2015-cifar");
    refuses(&["train", "--net", "resnet8", "--crop-padding", "9"], 2, "must be at most the image's side, 8, not 9");
    refuses(
        &["train", "--net", "resnet8", "--checkpoint-every", "soon"],
        2,
        "invalid time `soon`; expected a number and s, m or h",
    );
    refuses(&["train", "--net", "resnet8", "--ema", "1"], 2, "must be at least 0 and below 1, not 1");
    refuses(&["compare", dir.path().to_str().unwrap()], 1, "holds no training");
}

#[test]
fn recipes_are_listed_and_flags_override_them() {
    let (list, _) = succeeds(&["recipes"]);
    for name in ["digits", "he2015-cifar", "he2016-preact", "imagenet-90", "quick-cifar"] {
        assert!(list.contains(name), "{list}");
    }
    let recipe = ["train", "--recipe", "he2015-cifar", "--net", "resnet110", "--lr", "0.05", "--crop-padding", "2"];
    let (config, _) = succeeds(&[&recipe[..], &["--print-config"]].concat());
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["iterations"], 64_000);
    assert_eq!(config["schedule"]["decay"]["milestones"], serde_json::json!([32_000, 48_000]));
    assert_eq!(config["schedule"]["warmup"]["threshold"], 0.8);
    assert_eq!((&config["schedule"]["lr"], &config["augmentation"]["crop"]), (&0.05.into(), &2.into()));
    assert_eq!(config["data"]["normalize"], "pixel");
    let print = |args: &[&str]| -> serde_json::Value {
        let recipe = ["train", "--recipe", "he2015-cifar", "--net", "resnet20", "--print-config"];
        serde_json::from_str(&succeeds(&[&recipe[..], args].concat()).0).unwrap()
    };
    let config = print(&["--factor", "0.2", "--data", "cifar100", "--batch-size", "256"]);
    let decay = &config["schedule"]["decay"];
    assert_eq!((&decay["factor"], &decay["milestones"][1]), (&0.2.into(), &48_000.into()));
    assert_eq!((&config["data"]["normalize"], &config["epochs"]), (&"pixel".into(), &327.into()));
    assert_eq!(print(&["--milestones", "5,9"])["schedule"]["decay"]["factor"], 0.1);
    let warmup = |args: &[&str]| print(args)["schedule"]["warmup"].clone();
    let constant = serde_json::json!({"kind": "constant", "lr": 0.02, "iterations": 9});
    assert_eq!(warmup(&["--warmup", "9", "--warmup-lr", "0.02"]), constant);
    let until = serde_json::json!({"kind": "until-error", "lr": 0.01, "threshold": 0.5});
    assert_eq!(warmup(&["--warmup-error", "0.5"]), until);
    assert_eq!(warmup(&["--warmup", "0"]), serde_json::json!({"kind": "none"}));
}

/// A recorded training with a linear schedule.
const EXTENDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/cifar10/resnet20");

#[test]
fn flags_without_effect_are_refused() {
    let train = |args: &[&'static str]| [&["train", "--net", "resnet8"][..], args].concat();
    refuses(&train(&["--optimizer", "adma"]), 2, "a similar value exists: 'adam'");
    refuses(&train(&["--beta3", "0.5"]), 2, "beta3 is a setting of adan, but the optimizer is sgd");
    refuses(&train(&["--optimizer", "adam", "--momentum", "0"]), 2, "momentum is a setting of sgd, rmsprop, muon, but");
    refuses(&train(&["--optimizer", "adam", "--beta1", "1"]), 2, "beta1 must be at least 0 and below 1, not 1");
    refuses(&train(&["--optimizer", "adam", "--beta2", "-0.5"]), 2, "beta2 must be at least 0 and below 1, not -0.5");
    refuses(&train(&["--optimizer", "adam", "--eps", "nan"]), 2, "eps must be a finite number");
    refuses(&train(&["--schedule", "step"]), 2, "a step schedule needs --milestones");
    refuses(&train(&["--schedule", "cosine", "--factor", "0.5"]), 2, "--milestones and --factor need --schedule step");
    refuses(&train(&["--warmup-lr", "0.5"]), 2, "--warmup-lr needs --warmup or --warmup-error");
    refuses(&train(&["--data-dir", "photos"]), 2, "photos does not exist");
    refuses(&train(&["--side", "32"]), 2, "--side is for --data folder, but the dataset is digits");
    let normalize = ["--data", "folder", "--data-dir", "x", "--normalize", "pixel"];
    refuses(&train(&normalize), 2, "--normalize is for datasets other than --data folder");
    refuses(
        &["train", "--resume", EXTENDED, "--epochs", "99"],
        2,
        "its linear schedule falls to 0 at the end of epoch 15",
    );
    refuses(&train(&["--older-checkpoint"]), 2, "--older-checkpoint needs --resume");
    refuses(&train(&["--workers", "60000"]), 2, "invalid number of threads `60000`; expected 1 to 256");
}

#[test]
fn a_dry_run_prints_the_memory_and_too_much_is_refused() {
    let (report, _) = succeeds(&["train", "--net", "resnet20", "--recipe", "quick-cifar", "--dry-run"]);
    assert!(report.contains("resnet20 on cifar10, batch size 128, flex") && report.contains("activations"), "{report}");
    // A batch has at most as many samples as the training set.
    let (report, _) = succeeds(&["train", "--net", "resnet8", "--batch-size", "1000000", "--dry-run", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["total"].as_u64().unwrap() < 1 << 30, "{report}");
    // Three devices hold three networks, but one dataset.
    let several = ["train", "resnet8", "--accumulate", "3", "--devices", "flex,flex,flex", "--dry-run"];
    assert!(succeeds(&several).0.contains("\n3 devices"));
    let (report, _) = succeeds(&[&several[..], &["--json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let [total, all] = ["total", "in_all"].map(|key| report[key].as_u64().unwrap());
    assert!(total < all && all < 3 * total && report["devices"] == 3, "{report}");
    let processes =
        command(&["train", "resnet8", "--dry-run"]).env("OMPI_COMM_WORLD_LOCAL_SIZE", "2").output().unwrap();
    assert!(text(&processes.stdout).contains("\n2 processes"), "{processes:?}");
    let huge = ["train", "--net", "resnet1202", "--data", "cifar10", "--batch-size", "60000"];
    refuses(&huge, 2, "resnet1202 with batch size 60000 needs about");
}

#[test]
fn images_have_a_limit_on_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let (images, run) = (dir.path().join("images"), dir.path().join("run"));
    folder(&images, false);
    RgbImage::new(50, 40).save(images.join("dark/large.png")).unwrap();
    let large = images.join("dark/large.png");
    let (images, run, large) = (images.to_str().unwrap(), run.to_str().unwrap(), large.to_str().unwrap());
    let few = ["--max-pixels", "1999"];
    let expected = "large.png is 50x40 pixels, more than the limit of 1999";
    let output = command(&[&["data", "check", images][..], &few].concat()).output().unwrap();
    assert!(text(&output.stdout).contains(expected), "{output:?}");
    succeeds(&["data", "check", images, "--max-pixels", "2000"]);

    let train = ["train", "--net", "resnet8", "--data", "folder", "--data-dir", images, "--side", "8", "--epochs", "1"];
    let train = [&train[..], &["--width", "4", "--out", run]].concat();
    refuses(&[&train[..], &few].concat(), 1, expected);
    succeeds(&[&train[..], &["--force"]].concat());
    let output = command(&[&["predict", "--weights", run, large][..], &few].concat()).output().unwrap();
    assert!(text(&output.stderr).contains(&format!("{expected}; allow more with --max-pixels")), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    refuses(&[&["eval", "--weights", run, "--split", "all"][..], &few].concat(), 1, expected);
    succeeds(&["eval", "--weights", run, "--split", "all"]);
}

/// Reading any of these would never end.
#[cfg(unix)]
#[test]
fn files_that_never_end_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (images, run) = (dir.path().join("images"), dir.path().join("run"));
    folder(&images, false);
    let (fifo, zero) = (dir.path().join("fifo"), images.join("dark/zero.png"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
    let (images, run) = (images.to_str().unwrap(), run.to_str().unwrap());
    let (fifo, zero) = (fifo.to_str().unwrap(), zero.to_str().unwrap());
    let train = ["train", "--net", "resnet8", "--data", "folder", "--data-dir", images, "--side", "8", "--epochs", "1"];
    let left_out = "left out 1 irregular file, such as a FIFO or a device";
    let (_, log) = succeeds(&[&train[..], &["--width", "4", "--out", run]].concat());
    assert!(log.contains(left_out), "{log}");

    let irregular = "it is not a regular file";
    let output = command(&["predict", "--weights", run, zero, fifo]).output().unwrap();
    let error = text(&output.stderr);
    assert!(error.matches(irregular).count() == 2 && output.status.code() == Some(1), "{error}");
    refuses(&["predict", "--weights", run, &format!("{images}/light/0.png"), "--labels", fifo], 1, irregular);
    refuses(&["eval", "--weights", run, "--labels", fifo], 1, irregular);
    refuses(&["train", "--config", fifo], 1, irregular);
    let (report, _) = succeeds(&["data", "check", images]);
    assert!(report.contains(left_out), "{report}");
    let mnist = dir.path().join("mnist");
    fs::create_dir(&mnist).unwrap();
    for file in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"] {
        std::os::unix::fs::symlink("/dev/zero", mnist.join(file)).unwrap();
    }
    refuses(&["data", "check", mnist.to_str().unwrap(), "--data", "mnist"], 2, "not found");
}

/// Names of folders, as an archive may hold them.
#[cfg(unix)]
#[test]
fn names_cannot_control_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (images, run) = (dir.path().join("images"), dir.path().join("run"));
    folder(&images, true);
    let hostile = |name: &str| format!("{name}\u{1b}]0;owned\u{7}\nerror: {}", "x".repeat(150));
    fs::rename(images.join("dark"), images.join(hostile("dark"))).unwrap();
    fs::copy(images.join("light/0.png"), images.join(hostile("light/0")).with_extension("png")).unwrap();
    let (images, run) = (images.to_str().unwrap(), run.to_str().unwrap());
    let train = ["train", "--net", "resnet8", "--data", "folder", "--data-dir", images, "--side", "8", "--epochs", "1"];
    for args in [
        &["data", "check", images][..],
        &[&train[..], &["--width", "4", "--out", run]].concat(),
        &[&train[..], &["--width", "4", "--out", run, "--force", "--skip-broken", "1"]].concat(),
        &["predict", "--weights", run, images],
        &["eval", "--weights", run, "--skip-broken", "1"],
        &["eval", "--weights", run],
    ] {
        let output = command(args).output().unwrap();
        for bytes in [&output.stdout, &output.stderr] {
            let printed = text(bytes);
            assert!(!printed.contains(['\u{1b}', '\u{7}']) && !printed.contains("\nerror: x"), "{args:?}: {printed}");
        }
    }
}
