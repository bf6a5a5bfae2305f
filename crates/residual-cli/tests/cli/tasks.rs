//! Sweeps whose trainings run in several processes.

use crate::{command, refuses, succeeds, text};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

const SETTINGS: [&str; 8] = ["--family", "dense", "--seeds", "2", "--epochs", "1", "--data", "synthetic"];

/// The tasks that `--plan` prints.
fn planned(out: &str, more: &[&str]) -> Vec<Value> {
    let (stdout, _) = succeeds(&[&["sweep", "--out", out, "--plan"], &SETTINGS[..], more].concat());
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn start(out: &str, tasks: &str) -> Child {
    let mut command = command(&["sweep", "--out", out, "--task", tasks]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The files of a training that do not depend on the time.
fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut runs: Vec<_> = fs::read_dir(folder.join("runs")).unwrap().map(|run| run.unwrap().path()).collect();
    runs.sort();
    let files = |run: &Path| {
        let name = run.file_name().unwrap().to_string_lossy().into_owned();
        ["config.json", "loss.csv", "model.bpk"]
            .map(|file| (format!("{name}/{file}"), fs::read(run.join(file)).unwrap()))
    };
    runs.iter().flat_map(|run| files(run)).collect()
}

#[test]
fn processes_share_a_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (local, out) = (path("local"), path("sweep"));
    succeeds(&[&["sweep", "--out", &local], &SETTINGS[..], &["--depths", "4,6"]].concat());

    refuses(&["sweep", "--out", &out, "--task", "0"], 1, "sweep.json");
    let tasks = planned(&out, &["--depths", "4,6"]);
    assert_eq!(tasks.len(), 8);
    let work = |task: &Value| task["work"].as_u64().unwrap();
    assert!(tasks.is_sorted_by(|a, b| work(a) >= work(b)) && work(&tasks[0]) > work(&tasks[7]));
    assert!(!Path::new(&out).join("index.html").exists());
    let jobs = planned(&out, &["--depths", "4,6", "--tasks-per-job", "3"]);
    assert_eq!(jobs.len(), 3);
    assert!(jobs.iter().all(|job| (2..=3).contains(&job["tasks"].as_array().unwrap().len())));

    let (stdout, stderr) = {
        let output = command(&["sweep", "--out", &out, "--collect"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        (text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(stdout, "--array=0,1,2,3,4,5,6,7\n");
    assert!(stderr.contains("error: 8 trainings are not finished"), "{stderr}");
    refuses(&["sweep", "--out", &out, "--task", "8"], 2, "has no task 8; --plan lists its tasks");
    refuses(&["sweep", "--out", &out, "--task", "0", "--epochs", "2"], 2, "take the settings of");

    // All at once, and each training in two processes: one of them trains it, the other finds it finished or locked.
    let twice = ["0,1,2", "3,4", "5", "6,7"].into_iter().flat_map(|tasks| [tasks; 2]);
    let processes: Vec<Child> = twice.map(|tasks| start(&out, tasks)).collect();
    for output in processes.into_iter().map(|child| child.wait_with_output().unwrap()) {
        let stderr = text(&output.stderr);
        assert!(output.status.success() || stderr.contains("is locked by another process"), "{stderr}");
    }
    finish(start(&out, "0,1,2,3,4,5,6,7"));
    let (stdout, _) = succeeds(&["sweep", "--out", &out, "--collect"]);
    assert_eq!(results(Path::new(&out)), results(Path::new(&local)));
    let table = |folder: &str| {
        let results: Value =
            serde_json::from_slice(&fs::read(Path::new(folder).join("results.json")).unwrap()).unwrap();
        (results["runs"].as_array().unwrap().len(), results["verdicts"].clone())
    };
    assert_eq!(table(&out), table(&local));
    assert!(stdout.contains("dense nets:") && Path::new(&out).join("index.html").exists());
    // The command that repeats the sweep is the one that planned it, without its own flags.
    let command = |folder: &str| {
        let sweep: Value = serde_json::from_slice(&fs::read(Path::new(folder).join("sweep.json")).unwrap()).unwrap();
        sweep["command"].as_str().unwrap().to_string()
    };
    assert_eq!(command(&out), command(&local));
    assert!(planned(&out, &["--depths", "4,6"]).is_empty());

    // It grows: the numbers stay.
    let more = planned(&out, &["--depths", "4,6,8"]);
    assert_eq!(more.iter().map(|task| task["task"].as_u64().unwrap()).collect::<Vec<_>>(), [8, 9, 10, 11]);
}

#[test]
fn a_collected_sweep_can_be_explained() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sweep").display().to_string();
    assert_eq!(planned(&out, &["--depths", "4", "--explain"]).len(), 4);
    finish(start(&out, "0,1,2,3"));
    assert!(!Path::new(&out).join("inspect").exists());
    succeeds(&["sweep", "--out", &out, "--collect", "--explain"]);
    assert!(Path::new(&out).join("inspect/dense").is_dir());
    let page = fs::read_to_string(Path::new(&out).join("index.html")).unwrap();
    assert!(page.contains("Gradients by layer") && page.contains("Loss around the weights"));
}

#[test]
fn a_plan_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sweep").display().to_string();
    planned(&out, &["--depths", "4"]);
    let plan = Path::new(&out).join("sweep.json");
    let other = fs::read_to_string(&plan).unwrap().replace("\"version\": 2", "\"version\": 99");
    fs::write(&plan, other).unwrap();
    refuses(
        &["sweep", "--out", &out, "--task", "0"],
        1,
        "is a configuration of version 99; this program reads version 2",
    );
}

#[test]
fn rates_are_chosen_before_the_rest_is_planned() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sweep").display().to_string();
    let grid = ["--optimizer", "sgd,adam", "--depths", "4"];
    let tasks = |planned: &[Value]| -> String {
        let numbers: Vec<String> = planned.iter().map(|task| task["task"].to_string()).collect();
        numbers.join(",")
    };
    // Two kinds of nets, two optimizers, four rates.
    let first = planned(&out, &grid);
    assert_eq!(first.len(), 16);
    finish(start(&out, &tasks(&first)));
    // The second seed at the chosen rates.
    let second = planned(&out, &grid);
    assert_eq!(second.len(), 4);
    finish(start(&out, &tasks(&second)));
    let (stdout, _) = succeeds(&["sweep", "--out", &out, "--collect"]);
    assert!(stdout.contains("adam"), "{stdout}");
}

/// Changes what is recorded about the machine of a training.
fn moved(run: &Path, changes: &[(&str, &str)]) {
    let path = run.join("environment.json");
    let mut environment: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in changes {
        environment[key] = (*value).into();
    }
    fs::write(path, environment.to_string()).unwrap();
}

#[test]
fn machines_are_counted_and_instruction_sets_are_not_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sweep");
    let out = folder.display().to_string();
    assert_eq!(planned(&out, &["--depths", "4"]).len(), 4);
    finish(start(&out, "0,1,2,3"));
    let results = || -> Value { serde_json::from_slice(&fs::read(folder.join("results.json")).unwrap()).unwrap() };
    let runs = |name: &str| folder.join("runs").join(name);

    let (stdout, _) = succeeds(&["sweep", "--out", &out, "--collect"]);
    assert_eq!(results()["machines"], 1);
    assert!(stdout.contains("4 trainings on flex ("), "{stdout}");
    let hosts = fs::read_to_string(folder.join("results.json")).unwrap();
    assert!(!hosts.contains("\"host\""), "{hosts}");

    moved(&runs("dense-plain-4-seed0"), &[("host", "beta")]);
    let (stdout, _) = succeeds(&["sweep", "--out", &out, "--collect"]);
    assert_eq!(results()["machines"], 2);
    assert!(stdout.contains("4 trainings on 2 machines: flex ("), "{stdout}");
    let page = fs::read_to_string(folder.join("index.html")).unwrap();
    assert!(page.contains("4 trainings ran on 2 machines."));

    moved(&runs("dense-plain-4-seed0"), &[("instructions", "abacus")]);
    let line = "processors that round differently: ";
    refuses(&["sweep", "--out", &out, "--collect"], 1, line);
    refuses(&["sweep", "--out", &out, "--collect"], 1, "abacus instructions (1, on beta)");
    let (stdout, _) = succeeds(&["sweep", "--out", &out, "--collect", "--mixed-processors"]);
    assert!(stdout.contains("2 machines"), "{stdout}");
    // A local sweep does not add trainings to others of another processor either.
    let local = [&["sweep", "--out", &out, "--depths", "4,6"], &SETTINGS[..]].concat();
    refuses(&local, 1, line);
    succeeds(&[&local[..], &["--mixed-processors"]].concat());
}
