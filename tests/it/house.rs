//! The invariants of ARCHITECTURE.md that a scan of the source can check.

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

/// Every Rust file under a directory.
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

const LIBRARIES: [&str; 9] = ["kernels", "model", "backend", "data", "fetch", "weights", "train", "lab", "report"];

fn library_sources() -> Vec<(PathBuf, String)> {
    let folders = LIBRARIES.map(|name| root().join(format!("crates/residual-{name}/src")));
    folders.iter().flat_map(|f| sources(f)).map(|p| (p.clone(), fs::read_to_string(p).unwrap())).collect()
}

/// The lines of a source file without comments and without items under `#[cfg(test)]`.
fn code(text: &str) -> Vec<&str> {
    let mut lines = text.lines();
    let mut code = Vec::new();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed == "#[cfg(test)]" {
            let item = lines.find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
            if item.ends_with('{') {
                let end = format!("{}}}", " ".repeat(item.len() - item.trim_start().len()));
                lines.find(|line| *line == end).expect("the item ends");
            }
        } else if !trimmed.starts_with("//") {
            code.push(line);
        }
    }
    code
}

#[test]
fn the_scan_skips_only_comments_and_tests() {
    let text = "use a;\n#[cfg(test)]\nmod tests;\nfn b() {}\n#[cfg(test)]\nmod tests {\n    fn c() {\n    }\n}\n// d\nfn e() {}";
    assert_eq!(code(text), ["use a;", "fn b() {}", "fn e() {}"]);
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
    assert_eq!(dependencies("report"), ["lab", "model", "train"]);
    assert_eq!(dependencies("cli"), ["backend", "data", "fetch", "lab", "model", "report", "train", "weights"]);
}

#[test]
fn the_report_does_not_use_tensors() {
    assert!(!read("crates/residual-report/Cargo.toml").contains("burn"));
    for path in sources(&root().join("crates/residual-report/src")) {
        let text = fs::read_to_string(&path).unwrap();
        for word in ["burn::", "Tensor<", "Device::", "Device}"] {
            assert!(!code(&text).iter().any(|line| line.contains(word)), "{}: {word}", path.display());
        }
    }
}

#[test]
fn backend_features_are_used_in_two_crates_only() {
    for (path, text) in library_sources() {
        let name = path.to_string_lossy();
        if name.contains("residual-backend") || name.contains("residual-kernels") {
            continue;
        }
        for line in code(&text) {
            let features = line.matches("feature = \"").count();
            let others = ["std", "mpi"].map(|name| line.matches(&format!("feature = \"{name}\"")).count());
            assert_eq!(features, others.iter().sum::<usize>(), "{}: {line}", path.display());
        }
    }
}

#[test]
fn libraries_neither_print_nor_exit_nor_pick_a_device() {
    for (path, text) in library_sources().into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        for line in code(&text) {
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
fn the_recorded_burn_version_matches_the_lock_file() {
    let lock = read("Cargo.lock");
    let burn = lock.split("[[package]]").find(|package| package.contains("\nname = \"burn\"\n")).unwrap();
    let version = burn.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    assert!(read("crates/residual-train/src/environment.rs").contains(&format!("burn: {version}")));
}

#[test]
fn the_changelog_has_the_current_version() {
    assert!(read("CHANGELOG.md").contains(env!("CARGO_PKG_VERSION")));
}

/// README.md and every page of docs/.
fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    std::iter::once(root().join("README.md"))
        .chain(docs.filter(|path| path.extension().is_some_and(|e| e == "md")))
        .collect()
}

#[test]
fn documents_show_the_recorded_results() {
    let mut shown = Vec::new();
    for document in documents() {
        for block in fs::read_to_string(&document).unwrap().split("<!-- results/").skip(1) {
            let (path, rest) = block.split_once(" -->\n").unwrap();
            let table = rest.split_once("<!-- end -->").unwrap().0;
            assert_eq!(table, read(format!("results/{path}")), "{}: run scripts/update-docs", document.display());
            shown.push(path.to_string());
        }
    }
    for table in ["digits/table.md", "beyond-a-thousand/table.md", "training.md", "backends/table.md"] {
        assert!(shown.iter().any(|path| path == table), "no document shows results/{table}");
    }
}

#[test]
fn links_between_documents_are_not_broken() {
    for document in documents().into_iter().chain(["ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)))
    {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") {
                assert!(document.parent().unwrap().join(path).exists(), "{}: {link}", document.display());
            }
        }
    }
}

#[test]
fn the_readme_is_short() {
    assert!(read("README.md").lines().count() <= 150);
}
