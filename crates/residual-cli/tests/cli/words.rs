//! The texts of the program: names, flags, tips, tables, and file names in any encoding.

use super::{command, refuses, succeeds, text};
use std::fs;

#[test]
fn misspelled_names_and_flags_get_a_tip() {
    refuses(&["train", "--net", "resent20"], 2, "did you mean resnet20?");
    refuses(&["summary", "ResNet50"], 2, "did you mean resnet50?");
    refuses(&["train", "resnet20", "--momentun", "0"], 2, "'--momentum'");
    refuses(&["train", "resnet20", "--what", "paths"], 2, "`residual inspect` has the flag --what");
}

/// `mpirun` sets these variables. Each of its processes would train the same network.
#[test]
#[cfg(not(feature = "mpi"))]
fn one_of_several_processes_refuses_to_train_without_mpi() {
    for variable in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let output = command(&["train", "resnet8", "--print-config"]).env(variable, "4").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).contains("one of 4 processes") && text(&output.stderr).contains("--features mpi"));
    }
}

#[test]
fn a_network_is_an_argument_or_a_flag() {
    for command in ["train", "summary", "bench"] {
        let rest: &[&str] = match command {
            "train" => &["--print-config"],
            "summary" => &[],
            _ => &["--batch-size", "2", "--steps", "1", "--inference"],
        };
        let (argument, _) = succeeds(&[&[command, "dense-resnet4"], rest].concat());
        let (flag, _) = succeeds(&[&[command, "--net", "dense-resnet4"], rest].concat());
        let first = |text: &str| text.lines().next().map(str::to_string);
        assert_eq!(first(&argument), first(&flag));
        refuses(&[command, "dense-resnet4", "--net", "resnet20"], 2, "cannot be used with");
    }
    // The spelling of earlier versions.
    succeeds(&["bench", "dense-resnet4", "--batch", "2", "--steps", "1", "--inference"]);
}

#[test]
fn settings_of_a_recipe_or_a_file_can_be_unset() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json").display().to_string();
    let set = ["--ema", "0.9", "--clip", "1", "--iterations", "9", "--patience", "3", "--freeze", "stem"];
    let more = ["--part-lr", "head=2", "--resized-crop", "0.5", "--zero-init"];
    let (config, _) = succeeds(&[&["train", "resnet8", "--print-config"], &set[..], &more].concat());
    fs::write(&file, config).unwrap();
    let none = ["--ema", "--clip", "--iterations", "--patience", "--freeze", "--part-lr", "--resized-crop"];
    let none: Vec<&str> = none.iter().flat_map(|flag| [*flag, "none"]).collect();
    let (config, _) =
        succeeds(&[&["train", "--config", &file, "--zero-init=false", "--print-config"], &none[..]].concat());
    let (usual, _) = succeeds(&["train", "resnet8", "--print-config"]);
    assert_eq!(config, usual);
}

#[test]
fn directories_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    refuses(&["train", "--resume", &path("missing")], 1, "does not exist; expected the directory of a training run");
    fs::create_dir(path("sweep")).unwrap();
    fs::write(path("sweep/sweep.json"), "{}").unwrap();
    refuses(&["train", "--resume", &path("sweep")], 1, "holds a sweep; its training runs are in");
    fs::write(path("file"), "").unwrap();
    refuses(&["train", "--resume", &path("file")], 1, "is a file; expected the directory of a training run");
    let run = path("run");
    succeeds(&["train", "dense-resnet4", "--epochs", "1", "--out", &run]);
    refuses(&["report", "--redraw", &run], 1, "holds a training run, not a sweep or an inspection; `residual compare`");
}

/// Two trainings with other settings and no `--out` do not collide; the same one again does.
#[test]
fn the_default_directory_is_numbered_if_it_holds_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let train = |lr: &str| {
        let args = ["train", "dense-resnet4", "--data", "synthetic", "--epochs", "1", "--lr", lr];
        command(&args).current_dir(&dir).output().unwrap()
    };
    assert!(text(&train("0.1").stdout).ends_with("written to runs/dense-resnet4-synthetic-0\n"));
    assert!(text(&train("0.2").stdout).ends_with("written to runs/dense-resnet4-synthetic-0-2\n"));
    let again = train("0.2");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("runs/dense-resnet4-synthetic-0-2 holds a finished training run"));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (script, _) = succeeds(&["completions", shell]);
        assert!(script.contains("sweep") && script.contains("batch-size"), "{shell}");
    }
}

#[cfg(unix)]
#[test]
fn directory_names_need_not_be_utf8() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let dir = tempfile::tempdir().unwrap();
    let odd = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
    let run = odd(b"run\xe9");
    let ends = |args: &[&str], paths: &[&OsStr]| {
        let output = command(args).args(paths).output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{args:?}");
        output.status.code()
    };
    assert_eq!(ends(&["train", "dense-resnet4", "--epochs", "1", "--out"], &[run.as_os_str()]), Some(0));
    assert_eq!(ends(&["eval", "--weights"], &[run.as_os_str()]), Some(0));
    assert_eq!(ends(&["compare"], &[run.as_os_str()]), Some(0));
    let out = odd(b"caf\xe9");
    let paths = [OsStr::new("--out"), out.as_os_str(), run.as_os_str()];
    assert_eq!(ends(&["inspect", "--inits", "1", "--images", "64"], &paths), Some(0));
    assert!(out.join("gradients.svg").is_file() && out.join("activations.svg").is_file());
    let sweep = odd(b"sweep\xe9");
    let sweep = [OsStr::new("--out"), sweep.as_os_str()];
    assert_eq!(
        ends(&["sweep", "--depths", "4", "--family", "dense", "--seeds", "1", "--epochs", "1"], &sweep),
        Some(0)
    );
    // Configurations are JSON, which cannot hold this path.
    let data = odd(b"data\xe9");
    let export = ["data", "export", "digits", "--samples", "40"];
    assert_eq!(ends(&export, &[data.as_os_str()]), Some(0));
    let paths = [OsStr::new("--data-dir"), data.as_os_str()];
    assert_eq!(ends(&["eval", "--weights"], &[&[run.as_os_str()], &paths[..]].concat()), Some(0));
    let out = odd(b"never");
    let paths = [&paths[..], &[OsStr::new("--out"), out.as_os_str()]].concat();
    assert_eq!(ends(&["train", "resnet8", "--data", "folder", "--side", "8"], &paths), Some(2));
    assert!(!out.exists());
}
