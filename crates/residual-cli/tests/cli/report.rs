//! `report` and `inspect`.

use super::{refuses, succeeds};
use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn report_writes_a_page_of_a_recorded_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/digits");
    let recorded = recorded.to_str().unwrap();
    let before = fs::read_dir(recorded).unwrap().count();
    let (stdout, _) = succeeds(&["report", recorded, "--out", &path("page.html")]);
    assert_eq!(stdout, format!("Report: {}\n", path("page.html")));
    assert_eq!(fs::read_dir(recorded).unwrap().count(), before);
    let page = fs::read_to_string(path("page.html")).unwrap();
    assert!(page.contains("Does a deeper net train better?") && page.contains("Dense nets: shown"), "{page}");
    assert!(page.contains("<code>residual sweep --explain</code>") && page.ends_with("</html>\n"));
    refuses(&["report", recorded, "--out", &path("page.pdf")], 2, "expected a name that ends in .html");
    refuses(&["report", &path("missing"), "--out", &path("b.html")], 1, "missing is not a ");
    refuses(&["report", &path(""), "--out", &path("b.html")], 1, "holds neither a sweep nor an inspection");
    refuses(&["report"], 2, "DIR");
    assert!(!dir.path().join("b.html").exists());
}

/// The path, content and modification time of every file in a directory.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            let written = fs::metadata(&path).unwrap().modified().unwrap();
            files.push((path.clone(), fs::read(&path).unwrap(), written));
        }
    }
    files.sort();
    files
}

#[test]
fn inspect_does_not_change_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (plain, residual, out) = (path("plain"), path("residual"), path("found"));
    for (net, run) in [("plain8", &plain), ("resnet8", &residual)] {
        succeeds(&["train", "--net", net, "--data", "synthetic", "--epochs", "1", "--out", run]);
    }
    let before = [snapshot(plain.as_ref()), snapshot(residual.as_ref())];
    let what = "gradients,activations,lesion,alpha,paths,landscape,shattered";
    let small = ["--images", "32", "--inits", "2", "--draws", "2", "--points", "3", "--seeds", "1", "--steps", "1"];
    let inspect = [&["inspect", &plain, &residual, "--what", what, "--out", &out][..], &small].concat();
    let findings = succeeds(&inspect).0;
    assert!([snapshot(plain.as_ref()), snapshot(residual.as_ref())] == before);
    for what in what.split(',') {
        assert!(findings.contains(&format!("{what}.svg")), "{findings}");
        for ending in ["csv", "svg", "json"] {
            assert!(Path::new(&out).join(format!("{what}.{ending}")).exists());
        }
    }
    refuses(&["inspect", &plain, "--what", "lesion", "--norm", "none"], 2, "a run has its own settings");
    // A second inspection finds the same. A report shows it and does not change it.
    assert_eq!(succeeds(&inspect).0, findings);
    let page = path("page.html");
    succeeds(&["report", &out, "--out", &page]);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("--what gradients,activations") && html.contains("Blocks removed"));
    let found = snapshot(out.as_ref());
    succeeds(&["report", &out, "--out", &page]);
    assert!(snapshot(out.as_ref()) == found);
}

#[test]
fn invalid_inspections_are_refused() {
    refuses(&["inspect", "resnet20", "--what", "colour"], 2, "colour");
    refuses(
        &["inspect", "nothing-here", "--what", "paths"],
        2,
        "is neither a run directory, nor a file of weights, nor a network",
    );
    refuses(&["inspect", "plain20", "--what", "lesion"], 2, "needs a trained network");
    refuses(&["inspect", "plain20", "--what", "paths"], 2, "plain20 has a single path");
    refuses(&["inspect", "resnet20", "--what", "paths", "--draws", "0"], 2, "draws must be at least 1, not 0");
    refuses(&["inspect", "resnet20", "--what", "landscape", "--points", "9999"], 2, "points must be at most 1001");
    refuses(&["inspect", "resnet8", "--what", "gradients", "--steps", "9999", "--epochs", "1"], 2, "has 23 steps");
}

#[test]
fn the_networks_of_a_sweep_can_be_used_like_those_of_any_training() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (sweep, run) = (path("sweep"), path("sweep/runs/dense-residual-4-seed0"));
    let flags = ["sweep", "--family", "dense", "--depths", "4,6,8", "--seeds", "1", "--epochs", "1", "--out", &sweep];
    let (stdout, _) = succeeds(&flags);
    let config = format!("{sweep}/runs/dense-plain-4-seed0/config.json");
    assert!(stdout.contains(&format!("One training alone: residual train --config {config}")), "{stdout}");
    let (stdout, stderr) = succeeds(&["inspect", &sweep, "--what", "lesion", "--out", &path("lesion")]);
    assert!(stderr.contains("the dense nets of ") && stderr.contains("dense-residual-8-seed0"), "{stderr}");
    assert!(!stderr.contains("dense-plain-6-seed0") && stdout.contains("lesion.svg"), "{stdout}");
    succeeds(&["eval", "--weights", &run]);
    succeeds(&["train", "--config", &format!("{run}/config.json"), "--out", &path("alone")]);
    let [whole, alone] = [run.clone(), path("alone")].map(|run| fs::read(format!("{run}/model.bpk")).unwrap());
    assert!(whole == alone, "the training alone differs");
    // Its trainings are summarised like those of anybody.
    let runs = ["plain-4", "plain-6", "plain-8", "residual-4", "residual-6", "residual-8"];
    let runs: Vec<String> = runs.iter().rev().map(|net| format!("{sweep}/runs/dense-{net}-seed0")).collect();
    let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
    succeeds(&[&["report"], &runs[..], &["--out", &path("own.html")]].concat());
    succeeds(&["report", &sweep, "--out", &path("whole.html")]);
    let figure = |name: &str| {
        let page = fs::read_to_string(path(name)).unwrap();
        let (start, end) = (page.find("<figure").unwrap(), page.find("<h3>Loss").unwrap());
        page[start..end].to_string()
    };
    assert_eq!(figure("own.html"), figure("whole.html"));
    refuses(&["report", runs[0], runs[0]], 1, "holds a second training of dense-residual-8-seed0");
    succeeds(&[
        "train",
        "dense-plain8",
        "--epochs",
        "1",
        "--lr",
        "0.3",
        "--evaluate",
        "at-end",
        "--out",
        &path("other"),
    ]);
    refuses(&["report", runs[0], &path("other")], 1, "differs from the first dense net: ");
    // An unfinished sweep has an interim page.
    fs::remove_file(format!("{sweep}/results.json")).unwrap();
    fs::remove_file(format!("{run}/summary.json")).unwrap();
    succeeds(&["report", &sweep, "--out", &path("page.html")]);
    let page = fs::read_to_string(path("page.html")).unwrap();
    assert!(page.contains("No verdict yet: 5 of 6 trainings have finished"), "{page}");
    // A sweep can be described by a file.
    let (again, _) = succeeds(&["sweep", "--config", &format!("{sweep}/sweep.json"), "--print-config"]);
    let (flags, _) = succeeds(&[&flags[..9], &["--print-config"]].concat());
    assert_eq!(again, flags);
}
