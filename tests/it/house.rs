//! The rules of ARCHITECTURE.md.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every Rust file under a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn library_sources() -> Vec<(PathBuf, String)> {
    let crates = ["kernels", "model", "backend", "data", "fetch", "weights", "train", "lab"];
    let folders = crates.map(|c| root().join(format!("crates/residual-{c}/src")));
    folders.iter().flat_map(|f| sources(f)).map(|p| (p.clone(), fs::read_to_string(p).unwrap())).collect()
}

/// The `residual-*` crates in a manifest's `[dependencies]`.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = read(format!("crates/residual-{name}/Cargo.toml"));
    let section = manifest.split("[dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let mut found: Vec<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("residual")?.split(['.', ' ']).next())
        .map(|name| name.trim_start_matches('-').to_string())
        .collect();
    found.sort();
    found
}

#[test]
fn crates_depend_in_one_direction() {
    let none: [&str; 0] = [];
    assert_eq!(dependencies("kernels"), none);
    assert_eq!(dependencies("model"), ["kernels"]);
    assert_eq!(dependencies("backend"), ["kernels"]);
    assert_eq!(dependencies("data"), ["fetch"]);
    assert_eq!(dependencies("fetch"), none);
    assert_eq!(dependencies("weights"), ["data", "fetch", "model"]);
    assert_eq!(dependencies("train"), ["backend", "data", "fetch", "kernels", "model"]);
    assert_eq!(dependencies("lab"), ["backend", "data", "model", "train"]);
    assert_eq!(dependencies("cli"), ["backend", "data", "fetch", "lab", "model", "train", "weights"]);
}

#[test]
fn backends_are_named_where_they_are_chosen_and_where_kernels_reach_them() {
    for (path, text) in library_sources() {
        let name = path.to_string_lossy();
        if name.contains("residual-backend") || name.contains("residual-kernels") {
            continue;
        }
        for line in text.lines() {
            let code = line.split("//").next().unwrap();
            let features = code.matches("feature = \"").count();
            assert_eq!(features, code.matches("feature = \"std\"").count(), "{}: {line}", path.display());
        }
    }
}

#[test]
fn libraries_neither_print_nor_exit_nor_pick_a_device() {
    for (path, text) in library_sources().into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in ["println!", "eprint", "process::exit", "Device::default()", ".seed("] {
                assert!(!line.contains(word), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn burn_train_traits_are_implemented_in_one_module() {
    for (path, text) in library_sources() {
        if !path.ends_with("residual-train/src/learner.rs") {
            for word in ["burn::train", "    train::{", "SupervisedTraining<", "MetricLogger", "CheckpointingStrategy"]
            {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
        }
    }
}

#[test]
fn the_recorded_burn_version_is_the_locked_one() {
    let lock = read("Cargo.lock");
    let burn = lock.split("[[package]]").find(|package| package.contains("\nname = \"burn\"\n")).unwrap();
    let version = burn.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    assert!(read("crates/residual-train/src/environment.rs").contains(&format!("burn: {version}")));
}

#[test]
fn the_changelog_has_the_current_version() {
    assert!(read("CHANGELOG.md").contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_readme_shows_the_recorded_results() {
    let readme = read("README.md");
    assert!(!readme.contains("BUILD_"));
    let mut blocks = 0;
    for block in readme.split("<!-- results/").skip(1) {
        let (path, rest) = block.split_once(" -->\n").unwrap();
        let shown = rest.split_once("<!-- end -->").unwrap().0;
        assert_eq!(shown, read(format!("results/{path}")), "run scripts/update-readme");
        blocks += 1;
    }
    assert_eq!(blocks, 7);
}
