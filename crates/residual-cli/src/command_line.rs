//! Builds command lines to print: a user can paste them into a shell.

use residual_backend::Backend;
use residual_data::DataConfig;
use residual_lab::{Measurement, SweepConfig};
use residual_model::Kernels;
use residual_train::Environment;
use std::path::{Path, PathBuf};

/// Quotes a word for a POSIX shell if necessary.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=+:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The command that runs a sweep on this backend. It names the settings that differ from the defaults.
pub(crate) fn sweep(config: &SweepConfig, environment: &Environment, explain: bool) -> String {
    let usual = SweepConfig::default();
    let list = |values: Vec<String>| values.join(",");
    let mut command = String::from("residual sweep");
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            command.push_str(&format!(" --{flag} {}", quoted(&value)));
        }
    };
    let DataConfig { name, dir, side, samples, validation, normalize, ignore_exif, skip_broken, max_pixels, group_by } =
        &config.data;
    let Environment { backend, kernels, .. } = environment;
    if let [family] = config.families[..] {
        add("family", Some(family.to_string()));
    }
    add("depths", config.depths.as_ref().map(|depths| list(depths.iter().map(usize::to_string).collect())));
    let alphas = list(config.alphas.iter().map(f64::to_string).collect());
    add("alpha", (config.alphas != usual.alphas).then_some(alphas));
    add("seeds", (config.seeds != usual.seeds).then(|| config.seeds.to_string()));
    add("seed", (config.first_seed != usual.first_seed).then(|| config.first_seed.to_string()));
    add("data", (*name != usual.data.name).then(|| name.to_string()));
    add("data-dir", dir.as_ref().map(|dir| dir.display().to_string()));
    add("side", side.map(|side| side.to_string()));
    add("samples", samples.map(|samples| samples.to_string()));
    add("validation", (*validation != usual.data.validation).then(|| validation.to_string()));
    add("skip-broken", (*skip_broken > 0).then(|| skip_broken.to_string()));
    add("max-pixels", max_pixels.map(|pixels| pixels.to_string()));
    add("group-by", group_by.clone());
    add("normalize", (*normalize != usual.data.normalize).then(|| normalize.to_string()));
    add("epochs", config.epochs.map(|epochs| epochs.to_string()));
    add("batch-size", (config.batch_size != usual.batch_size).then(|| config.batch_size.to_string()));
    add("lr", config.lr.map(|lr| lr.to_string()));
    add("clip", config.clip.map(|clip| clip.to_string()));
    add("norm", (config.norm != usual.norm).then(|| config.norm.to_string()));
    add("branch-scale", config.branch_scale.map(|scale| scale.to_string()));
    add("width", (config.conv_width != usual.conv_width).then(|| config.conv_width.to_string()));
    add("backend", (*backend != Backend::Flex.to_string()).then(|| backend.clone()));
    // Other backends have reference kernels only.
    let has_kernels = [Backend::Flex, Backend::NdArray].iter().any(|known| known.to_string() == *backend);
    add("kernels", (has_kernels && *kernels == Kernels::Reference).then(|| kernels.to_string()));
    if *ignore_exif {
        command.push_str(" --no-exif");
    }
    if *kernels == Kernels::Recompute {
        command.push_str(" --recompute");
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
    use residual_data::{DataName, Normalize};
    use residual_model::{BranchScale, Family, Norm};

    fn environment() -> Environment {
        let mut environment = Environment::here(Backend::Flex, &Backend::Flex.probe().unwrap());
        environment.kernels = Kernels::Fused;
        environment
    }

    /// A configuration in which every setting that has a flag differs from its default; `--side` is for folders only.
    fn changed(dir: PathBuf) -> SweepConfig {
        SweepConfig {
            families: vec![Family::Conv],
            depths: Some(vec![8, 20]),
            alphas: vec![0.0, 0.25],
            seeds: 1,
            first_seed: 7,
            data: DataConfig {
                name: DataName::Mnist,
                dir: Some(dir),
                side: None,
                samples: Some(500),
                validation: 50,
                normalize: Normalize::Pixel,
                ignore_exif: false,
                skip_broken: 0,
                max_pixels: None,
                group_by: None,
            },
            epochs: Some(2),
            batch_size: 32,
            lr: Some(1e-3),
            clip: Some(0.5),
            norm: Norm::None,
            branch_scale: Some(BranchScale::One),
            conv_width: 16,
            // Has no flag.
            dense_width: SweepConfig::default().dense_width,
        }
    }

    /// The sweep that clap parses from a command line: its configuration, and the words for the backend.
    fn parsed(line: &str) -> (SweepConfig, Option<String>, Option<Kernels>, bool) {
        let args = Args::try_parse_from(split(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
        let Command::Sweep(args) = args.command else { panic!("{line} is not a sweep") };
        (args.config().unwrap(), args.backend.backend.clone(), args.backend.kernels, args.backend.recompute)
    }

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain", "", "a b", "it's", "'", "back\\slash", "$HOME", "*", "tab\there", "é"] {
            assert_eq!(split(&format!("echo {} x", quoted(word))), ["echo", word, "x"]);
        }
        assert_eq!(quoted("runs/a-1_b.c"), "runs/a-1_b.c");
    }

    #[test]
    fn a_sweep_command_names_the_settings_that_differ() {
        let mut environment = environment();
        assert_eq!(sweep(&SweepConfig::default(), &environment, false), "residual sweep");
        let config = changed("it's here".into());
        (environment.backend, environment.kernels) = ("ndarray".into(), Kernels::Reference);
        assert_eq!(
            sweep(&config, &environment, false),
            "residual sweep --family conv --depths 8,20 --alpha 0,0.25 --seeds 1 --seed 7 --data mnist \
             --data-dir 'it'\\''s here' --samples 500 --validation 50 --normalize pixel --epochs 2 --batch-size 32 \
             --lr 0.001 --clip 0.5 --norm none --branch-scale one --width 16 --backend ndarray --kernels reference"
        );
        (environment.backend, environment.kernels) = ("wgpu".into(), Kernels::Reference);
        assert!(sweep(&config, &environment, true).ends_with("--backend wgpu --explain"));
    }

    #[test]
    fn clap_parses_a_sweep_command_into_the_same_configuration() {
        let dir = |name: &str| std::path::absolute(Path::new(name)).unwrap();
        let folder = DataConfig {
            dir: Some(dir("a b")),
            side: Some(48),
            samples: Some(9),
            ignore_exif: true,
            skip_broken: 3,
            max_pixels: Some(200_000_000),
            group_by: Some("scene[0-9]+".into()),
            ..DataName::Folder.into()
        };
        let mut environment = environment();
        for config in [
            SweepConfig::default(),
            changed(dir("it's here")),
            SweepConfig { families: vec![Family::Dense], data: folder, ..SweepConfig::default() },
        ] {
            for (backend, kernels, flags) in [
                ("flex", Kernels::Fused, (None, None, false)),
                ("flex", Kernels::Recompute, (None, None, true)),
                ("ndarray", Kernels::Reference, (Some("ndarray"), Some(Kernels::Reference), false)),
                ("wgpu", Kernels::Reference, (Some("wgpu"), None, false)),
            ] {
                (environment.backend, environment.kernels) = (backend.into(), kernels);
                let line = sweep(&config, &environment, true);
                let (backend, kernels, recompute) = flags;
                assert_eq!(parsed(&line), (config.clone(), backend.map(String::from), kernels, recompute), "{line}");
            }
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
