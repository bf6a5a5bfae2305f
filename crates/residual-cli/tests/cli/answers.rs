//! Results that users can trust: classes matched by name, whole splits, changed data.

use super::{refuses, succeeds};
use image::{Rgb, RgbImage};
use std::{fs, path::Path, sync::OnceLock};
use tempfile::TempDir;

const COLOURS: [(&str, [u8; 3]); 3] = [("berry", [250, 10, 10]), ("grass", [10, 250, 10]), ("sea", [10, 10, 250])];

/// Writes `count` images of one colour.
fn paint(folder: &Path, colour: [u8; 3], count: usize) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let shade = |value: u8| value.saturating_sub(i as u8);
        RgbImage::from_pixel(8, 8, Rgb(colour.map(shade))).save(folder.join(format!("{i}.png"))).unwrap();
    }
}

/// A run whose network classifies three colours without error.
fn run() -> String {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let dir = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        for (name, colour) in COLOURS {
            paint(&dir.path().join("data/train").join(name), colour, 12);
            paint(&dir.path().join("data/val").join(name), colour, 3);
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let data = path("data");
        let settings = ["--width", "4", "--side", "8", "--epochs", "8", "--batch-size", "12", "--lr", "0.1"];
        let out = path("run");
        succeeds(
            &[&["train", "resnet8", "--data", "folder", "--data-dir", &data, "--out", &out], &settings[..]].concat(),
        );
        dir
    });
    dir.path().join("run").display().to_string()
}

fn eval(data: &Path, more: &[&str]) -> (serde_json::Value, String) {
    let data = data.display().to_string();
    let (stdout, stderr) = succeeds(&[&["eval", "--weights", &run(), "--data-dir", &data, "--json"], more].concat());
    (serde_json::from_str(&stdout).unwrap(), stderr)
}

/// Without the folder `berry`, every other folder moves down by one.
#[test]
fn classes_are_matched_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for split in ["train", "val"] {
        for (name, colour) in &COLOURS[1..] {
            paint(&dir.path().join(split).join(name), *colour, 2);
        }
    }
    let (report, said) = eval(dir.path(), &[]);
    assert_eq!((report["error"].as_f64(), report["samples"].as_u64()), (Some(0.0), Some(4)));
    assert!(said.contains("no samples of 1 of the network's 3 classes: berry"), "{said}");
    for split in ["train", "val"] {
        fs::rename(dir.path().join(split).join("sea"), dir.path().join(split).join("ocean")).unwrap();
    }
    let data = dir.path().display().to_string();
    refuses(
        &["eval", "--weights", &run(), "--data-dir", &data],
        2,
        "the network does not know these classes of the dataset: ocean; classes of the network without a match: berry, sea",
    );
}

/// For weights without class names, folders are numbered in their order, with a note. A missing folder is an error.
#[test]
fn classes_without_names_must_be_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let weights = path("net.safetensors");
    succeeds(&["convert", &run(), &weights]);
    let card: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(format!("{weights}.json")).unwrap()).unwrap();
    let mut card = card.as_object().unwrap().clone();
    card.remove("labels");
    fs::write(format!("{weights}.json"), serde_json::to_string(&card).unwrap()).unwrap();
    for split in ["train", "val"] {
        for (name, colour) in &COLOURS[1..] {
            paint(&dir.path().join("data").join(split).join(name), *colour, 2);
        }
    }
    let args = ["eval", "--weights", &weights, "--data", "folder", "--data-dir", &path("data")];
    refuses(&args, 2, "the folder has 2 classes, the network 3, and the names of the network's classes are unknown");
    fs::write(path("labels.txt"), "\u{feff}berry\r\ngrass\r\nsea\r\n").unwrap();
    let (text, _) = succeeds(&[&args[..], &["--labels", &path("labels.txt")]].concat());
    assert!(text.starts_with("test error 0.00 %\nloss"), "{text}");
    assert!(text.contains("  0 berry   0   0   0\n  1 grass   0   2   0\n  2 sea     0   0   2\n"), "{text}");
}

/// `eval` measures the whole split even if the training used a part of the data.
#[test]
fn eval_measures_the_whole_split() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    succeeds(&["train", "dense-resnet4", "--epochs", "1", "--samples", "200", "--validation", "137", "--out", &out]);
    let samples = |split: &[&str]| {
        let (text, _) = succeeds(&[&["eval", "--weights", &out, "--json"], split].concat());
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        (report["split"].as_str().unwrap().to_string(), report["samples"].as_u64().unwrap())
    };
    assert_eq!(samples(&[]), ("test".into(), 360));
    assert_eq!(samples(&["--split", "validation"]), ("validation".into(), 137));
    assert_eq!(samples(&["--split", "train"]), ("training".into(), 1300));
    assert_eq!(samples(&["--samples", "50"]), ("test".into(), 50));
    let whole = dir.path().join("whole").display().to_string();
    succeeds(&["train", "dense-resnet4", "--epochs", "1", "--out", &whole]);
    refuses(&["eval", "--weights", &whole, "--split", "validation"], 2, "held out no samples");
}

/// All images of another folder without splits are measured, but only the held-out ones of the training's own folder.
#[test]
fn a_folder_without_splits_is_measured_whole() {
    let dir = tempfile::tempdir().unwrap();
    for (name, colour) in COLOURS {
        paint(&dir.path().join("mine").join(name), colour, 10);
    }
    let mine = dir.path().join("mine");
    let (report, _) = eval(&mine, &[]);
    assert_eq!((report["split"].as_str(), report["samples"].as_u64()), (Some("all"), Some(30)));
    assert_eq!(report["error"].as_f64(), Some(0.0));
    assert!(report.get("top5_error").is_none(), "three classes have no top-5 error");
    let (held_out, _) = eval(&mine, &["--split", "test"]);
    assert!((1..30).contains(&held_out["samples"].as_u64().unwrap()));
    let csv = dir.path().join("predicted.csv").display().to_string();
    eval(&mine, &["--predictions", &csv]);
    let csv = fs::read_to_string(csv).unwrap();
    assert!(csv.starts_with("sample,true,predicted\n") && csv.contains("grass/3.png,grass,grass\n"), "{csv}");
    assert_eq!(csv.lines().count(), 31);
    // A single image per class cannot be split, but it can be measured.
    for (name, colour) in COLOURS {
        paint(&dir.path().join("few").join(name), colour, 1);
    }
    assert_eq!(eval(&dir.path().join("few"), &[]).0["samples"].as_u64(), Some(3));
}

/// The matrix of many classes would be a page of zeros: JSON lists the confusions, and text those that fit.
#[test]
fn the_confusions_of_many_classes_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    succeeds(&["train", "dense-resnet4", "--classes", "30", "--epochs", "1", "--out", &out]);
    let (text, _) = succeeds(&["eval", "--weights", &out, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(report.get("confusion").is_none() && report["top5_error"].is_number());
    let counts: Vec<u64> =
        report["confusions"].as_array().unwrap().iter().map(|pair| pair["count"].as_u64().unwrap()).collect();
    assert!(counts.iter().rev().is_sorted() && counts.iter().all(|count| *count > 0), "{counts:?}");
    let wrong = (report["error"].as_f64().unwrap() * 360.0).round() as u64;
    assert_eq!(counts.iter().sum::<u64>(), wrong);
    let (text, _) = succeeds(&["eval", "--weights", &out]);
    assert!(text.contains("confusions: count, true class, predicted class"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn folders_of_images_are_classified() {
    let dir = tempfile::tempdir().unwrap();
    for (name, colour) in COLOURS {
        paint(&dir.path().join("mixed").join(name), colour, 2);
    }
    let mixed = dir.path().join("mixed").display().to_string();
    let (text, _) = succeeds(&["predict", "--weights", &run(), "--top", "1", "--json", &mixed]);
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 6);
    for row in rows.as_array().unwrap() {
        assert!(row["image"].as_str().unwrap().contains(row["top"][0]["label"].as_str().unwrap()), "{row}");
    }
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refuses(&["predict", "--weights", &run(), &empty.display().to_string()], 2, "contains no image files");
}

/// Otherwise a training whose data changed would continue with other samples, or with shifted labels.
#[test]
fn a_resumed_training_notices_changed_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (name, colour) in COLOURS {
        paint(&dir.path().join("data").join(name), colour, 10);
    }
    fs::write(path("data/sea/3.png"), "not an image").unwrap();
    let out = path("run");
    let train = ["train", "resnet8", "--width", "4", "--side", "8", "--batch-size", "6", "--data", "folder"];
    let said = "`residual data check DIR` lists all broken images, and --skip-broken N";
    refuses(&[&train[..], &["--data-dir", &path("data"), "--out", &out, "--epochs", "2"]].concat(), 1, said);
    // The file is repaired, but has another size.
    paint(&dir.path().join("data/sea"), [10, 10, 250], 10);
    refuses(&["train", "--resume", &out], 1, "samples were replaced, renamed or changed in size");
    fs::write(path("data/sea/3.png"), "not an image").unwrap();
    fs::rename(path("data/berry"), path("berry")).unwrap();
    refuses(&["train", "--resume", &out], 1, "began: class berry is gone, ");
    fs::rename(path("berry"), path("data/berry")).unwrap();
    // The same data in another place. An image of the same size replaces the broken one.
    fs::rename(path("data"), path("moved")).unwrap();
    refuses(&["train", "--resume", &out], 1, "does not exist; if the dataset moved, add --data-dir");
    refuses(&["train", "--resume", &out, "--data-dir", &path("moved")], 1, "3.png");
    let (config, _) = (fs::read_to_string(path("run/config.json")).unwrap(), ());
    assert!(config.contains(&path("moved")), "{config}");
}

/// Training from weights whose head has other classes would mix up the classes.
#[test]
fn a_head_with_other_classes_is_not_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (name, colour) in [("apple", [250, 10, 10]), ("leaf", [10, 250, 10]), ("sky", [10, 10, 250])] {
        paint(&dir.path().join("data/train").join(name), colour, 2);
        paint(&dir.path().join("data/val").join(name), colour, 1);
    }
    let (run, data, out) = (run(), path("data"), path("out"));
    let args =
        ["train", "resnet8", "--width", "4", "--side", "8", "--epochs", "1", "--weights", &run, "--data", "folder"];
    let args = [&args[..], &["--data-dir", &data, "--out", &out]].concat();
    refuses(&args, 1, "the classes of the weights' head differ from the dataset's");
    succeeds(&[&args[..], &["--ignore-head"]].concat());
}

#[test]
fn data_that_cannot_be_learned_from_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for split in ["train", "val"] {
        paint(&data.join(split).join("only"), [9, 9, 9], 3);
    }
    let (data, out) = (data.display().to_string(), dir.path().join("run").display().to_string());
    let args = ["train", "resnet8", "--data", "folder", "--data-dir", &data, "--side", "8", "--out", &out];
    refuses(&args, 2, "the dataset has only one class, only; a classifier needs at least two");
    paint(&Path::new(&data).join("train/other"), [200, 9, 9], 2);
    let args = ["train", "resnet18", "--width", "4", "--batch-size", "4", "--data", "folder", "--data-dir", &data];
    let args = [&args[..], &["--side", "32", "--epochs", "1", "--out", &out]].concat();
    refuses(&args, 2, "the last batch of 5 images in batches of 4 has one image");
    let args: Vec<&str> = args.iter().map(|word| if *word == "4" { "8" } else { word }).collect();
    let (_, said) = succeeds(&args);
    assert!(said.contains("note: the training set has only 5 samples, less than the batch size of 8"), "{said}");
    assert!(said.contains("1x1 are left after the last stage; try --stem small"), "{said}");
    // A training with soft targets for more classes than the data has.
    succeeds(&[
        "train",
        "dense-resnet4",
        "--classes",
        "20",
        "--label-smoothing",
        "0.1",
        "--epochs",
        "1",
        "--out",
        &out,
        "--force",
    ]);
}
