//! Builds command lines to print: a user can paste them into a shell.

use residual_backend::Backend;
use residual_lab::Measurement;
use std::path::{Path, PathBuf};

/// Quotes a word for a POSIX shell if necessary.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=+:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Flags of `residual sweep` that do not affect its result, and whether they take a value.
const LOCAL: [(&str, bool); 13] = [
    ("--out", true),
    ("--jobs", true),
    ("--threads", true),
    ("--checkpoint-every", true),
    ("--force", false),
    ("--json", false),
    ("--explain", false),
    ("--no-weights", false),
    ("--tensorboard", false),
    ("--plan", false),
    ("--tasks-per-job", true),
    ("--help", false),
    ("-h", false),
];

/// The command that runs the same sweep again: the arguments of this process without those that do not affect its result,
/// and with the backend if an environment variable chose it.
pub(crate) fn sweep(args: impl IntoIterator<Item = String>, backend: Backend, explain: bool) -> String {
    let mut command = String::from("residual");
    let mut args = args.into_iter();
    let mut names_backend = false;
    while let Some(arg) = args.next() {
        let flag = arg.split('=').next().unwrap_or_default();
        names_backend |= flag == "--backend";
        match LOCAL.iter().find(|(name, _)| *name == flag) {
            Some((_, true)) if !arg.contains('=') => _ = args.next(),
            Some(_) => {}
            None => command.push_str(&format!(" {}", quoted(&arg))),
        }
    }
    if !names_backend && backend != Backend::Flex {
        command.push_str(&format!(" --backend {backend}"));
    }
    if explain {
        command.push_str(" --explain");
    }
    command
}

/// The command that measures inside the networks of run directories.
pub(crate) fn inspect(measurement: Measurement, runs: &[PathBuf], out: &Path) -> String {
    let runs: Vec<String> = runs.iter().map(|run| quoted(&run.to_string_lossy())).collect();
    format!("residual inspect {} --what {measurement} --out {}", runs.join(" "), quoted(&out.to_string_lossy()))
}

/// Splits a command line into words as a POSIX shell does, for tests. Knows spaces, single quotes and backslashes
/// outside quotes, which is all that [`quoted`] and the examples in `--help` use.
#[cfg(test)]
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut in_quotes = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' if !in_quotes => words.extend(word.take()),
            '\'' => {
                in_quotes = !in_quotes;
                word = Some(word.unwrap_or_default());
            }
            '\\' if !in_quotes => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(!in_quotes, "unbalanced quotes in {line}");
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Args, Command};
    use clap::Parser;

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain", "", "a b", "it's", "'", "back\\slash", "$HOME", "*", "tab\there", "é"] {
            assert_eq!(split(&format!("echo {} x", quoted(word))), ["echo", word, "x"]);
        }
        assert_eq!(quoted("runs/a-1_b.c"), "runs/a-1_b.c");
    }

    #[test]
    fn a_sweep_command_repeats_the_flags_that_affect_its_result() {
        let again = |line: &str, backend, explain| sweep(split(line).into_iter().skip(1), backend, explain);
        assert_eq!(again("residual sweep", Backend::Flex, false), "residual sweep");
        let line = "residual sweep --out 'a b' --depths 4,8 --jobs=3 --data-dir 'it'\\''s here' --force --threads 1 --alpha -1 --json";
        assert_eq!(
            again(line, Backend::NdArray, true),
            "residual sweep --depths 4,8 --data-dir 'it'\\''s here' --alpha -1 --backend ndarray --explain"
        );
        let line = "residual sweep --backend wgpu --explain";
        assert_eq!(again(line, Backend::Wgpu, true), line);
        for line in [line, "residual sweep --recipe quick-cifar --optimizer sgd,adam --lr-grid 0.1,1 --family preact"] {
            assert!(matches!(Args::try_parse_from(split(line)).unwrap().command, Command::Sweep(_)), "{line}");
        }
    }

    #[test]
    fn clap_parses_an_inspect_command() {
        let runs = ["sweep/runs/it's one".into(), "b".into()];
        let line = inspect(Measurement::Lesion, &runs, Path::new("sweep/inspect/dense"));
        let Command::Inspect(args) = Args::try_parse_from(split(&line)).unwrap().command else { panic!("{line}") };
        assert_eq!(args.subjects, ["sweep/runs/it's one", "b"].map(PathBuf::from));
        assert_eq!((args.what, args.out), (vec![Measurement::Lesion], Some("sweep/inspect/dense".into())));
    }
}
