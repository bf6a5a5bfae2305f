use crate::{LabError, Spread, SweepResults, Verdict};
use residual_model::BlockKind;
use residual_train::{Environment, Row, RunDir, Split, TrainConfig, TrainError};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Several training runs side by side, finished or not.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The runs, in the order of their directories.
    pub runs: Vec<ComparedRun>,
    /// The means of runs that differ in their seeds alone.
    pub by_seed: Vec<SeedMeans>,
    /// The verdicts, if the runs have all finished and differ as those of a sweep do: in depth, kind, skip strength and
    /// seed alone, with the same seeds for each network ([`SweepResults::of_runs`]).
    pub verdicts: Vec<Verdict>,
}

/// The errors of two or more runs that differ in their seeds alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedMeans {
    /// The network's name, followed by the directory of the first run if the name alone does not identify the group.
    pub label: String,
    /// The dataset.
    pub data: String,
    /// The seeds, in the order of the runs.
    pub seeds: Vec<u64>,
    /// The last training error over the seeds, as a fraction. `None` if a run lacks it.
    pub train_error: Option<Spread>,
    /// The last test error over the seeds, as a fraction. `None` if a run lacks it.
    pub test_error: Option<Spread>,
}

/// A training run in a [`Comparison`].
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRun {
    /// The run directory.
    pub path: PathBuf,
    /// The network's name. The seed or the directory is appended if the name alone does not identify the run.
    pub label: String,
    /// The dataset.
    pub data: String,
    /// The number of parameters of the network.
    pub parameters: u64,
    /// The number of epochs in the metrics.
    pub epochs: usize,
    /// The last training error measured by a clean pass, as a fraction.
    pub train_error: Option<f64>,
    /// The last test error, as a fraction.
    pub test_error: Option<f64>,
    /// The lowest test error, as a fraction, and its epoch.
    pub best: Option<(f64, usize)>,
    /// The time spent on training and evaluation, in seconds.
    pub seconds: f64,
    /// The environment in which the run started.
    pub environment: Environment,
    /// Whether the network is plain or residual.
    #[serde(skip)]
    pub kind: BlockKind,
    /// All measurements.
    #[serde(skip)]
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Reads run directories.
    ///
    /// # Errors
    /// If a directory does not hold a run, or its files are invalid.
    pub fn read<P: AsRef<Path>>(directories: &[P]) -> Result<Self, LabError> {
        let mut runs = Vec::new();
        let mut configs = Vec::new();
        for directory in directories {
            let run = RunDir::open(directory.as_ref())?;
            let config = run.config()?;
            runs.push(ComparedRun::read(directory.as_ref(), &run, &config)?);
            configs.push(config);
        }
        for (run, config) in runs.iter_mut().zip(&configs) {
            let same_network =
                |other: &&TrainConfig| other.network.name() == config.network.name() && other.data == config.data;
            if configs.iter().filter(same_network).count() > 1 {
                run.label = format!("{}, seed {}", run.label, config.seed);
            }
        }
        let labels: Vec<_> = runs.iter().map(|run| (run.label.clone(), run.data.clone())).collect();
        for run in &mut runs {
            if labels.iter().filter(|(label, data)| *label == run.label && *data == run.data).count() > 1 {
                run.label = format!("{} ({})", run.label, run.path.display());
            }
        }
        let by_seed = by_seed(&runs, &configs);
        let verdicts = SweepResults::of_runs(directories).map(|results| results.verdicts).unwrap_or_default();
        Ok(Self { runs, by_seed, verdicts })
    }
}

fn by_seed(runs: &[ComparedRun], configs: &[TrainConfig]) -> Vec<SeedMeans> {
    let mut groups: Vec<(TrainConfig, Vec<usize>)> = Vec::new();
    for (i, config) in configs.iter().enumerate() {
        let shared = config.clone().with_seed(0);
        match groups.iter_mut().find(|(other, _)| *other == shared) {
            Some((_, group)) if group.iter().any(|&j| configs[j].seed == config.seed) => {}
            Some((_, group)) => group.push(i),
            None => groups.push((shared, vec![i])),
        }
    }
    groups.retain(|(_, group)| group.len() > 1);
    let name = |config: &TrainConfig| (config.network.name(), config.data.clone());
    let means = |(config, group): &(TrainConfig, Vec<usize>)| {
        let spread = |error: fn(&ComparedRun) -> Option<f64>| {
            let errors: Option<Vec<f64>> = group.iter().map(|&i| error(&runs[i])).collect();
            errors.map(|errors| Spread::of(&errors))
        };
        let is_unique = groups.iter().filter(|(other, _)| name(other) == name(config)).count() == 1;
        let first = if is_unique { String::new() } else { format!(" ({}, ...)", runs[group[0]].path.display()) };
        SeedMeans {
            label: format!("{}{first}", config.network.name()),
            data: config.data.to_string(),
            seeds: group.iter().map(|&i| configs[i].seed).collect(),
            train_error: spread(|run| run.train_error),
            test_error: spread(|run| run.test_error),
        }
    };
    groups.iter().map(means).collect()
}

impl ComparedRun {
    /// Reads a run and labels it with the network's name.
    fn read(path: &Path, run: &RunDir, config: &TrainConfig) -> Result<Self, TrainError> {
        let rows = run.metrics()?;
        let of = |split| rows.iter().filter(move |row| row.split == split);
        let lowest = of(Split::Test).min_by(|a, b| a.error.total_cmp(&b.error));
        Ok(Self {
            path: path.into(),
            label: config.network.name().to_string(),
            data: config.data.to_string(),
            parameters: config.network.summary().parameters(),
            epochs: of(Split::Running).next_back().map_or(0, |row| row.epoch),
            train_error: of(Split::Train).next_back().map(|row| row.error),
            test_error: of(Split::Test).next_back().map(|row| row.error),
            best: lowest.map(|row| (row.error, row.epoch)),
            seconds: rows.iter().fold(0.0, |sum, row| sum + row.seconds),
            environment: run.environment()?,
            kind: config.network.blocks.kind,
            rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_backend::Backend;
    use residual_train::{DataName, Existing, Training};

    #[test]
    fn runs_are_labelled_and_compared_by_their_last_errors() {
        let dir = tempfile::tempdir().unwrap();
        let hardware = Backend::Flex.probe().unwrap();
        let train = |nets: &[(&str, u64)]| -> Vec<PathBuf> {
            let run = |(net, seed): &(&str, u64)| {
                let config = TrainConfig::new(net.parse().unwrap(), DataName::Synthetic).unwrap();
                let config = config.with_epochs(2).with_seed(*seed);
                let path = dir.path().join(format!("{net}-{seed}"));
                let environment = Environment::here(Backend::Flex, &hardware);
                let run = RunDir::create(&path, &config, &environment, Existing::Keep).unwrap();
                Training::new(config, hardware.device.clone()).unwrap().in_dir(run).run().unwrap();
                path
            };
            nets.iter().map(run).collect()
        };
        let directories = train(&[("dense-plain4", 0), ("dense-resnet4", 0), ("dense-resnet4", 1)]);
        let comparison = Comparison::read(&directories).unwrap();
        let labels: Vec<&str> = comparison.runs.iter().map(|run| &*run.label).collect();
        assert_eq!(labels, ["dense-plain4", "dense-resnet4, seed 0", "dense-resnet4, seed 1"]);
        let kinds = comparison.runs.iter().map(|run| run.kind).collect::<Vec<_>>();
        assert_eq!(kinds, [BlockKind::Plain, BlockKind::Residual, BlockKind::Residual]);
        let run = &comparison.runs[1];
        assert_eq!(run.rows, RunDir::open(&directories[1]).unwrap().metrics().unwrap());
        let last = |split| run.rows.iter().rfind(|row| row.split == split).map(|row| row.error);
        assert_eq!((run.epochs, run.train_error, run.test_error), (2, last(Split::Train), last(Split::Test)));
        let lowest = run.rows.iter().filter(|row| row.split == Split::Test).map(|row| row.error).fold(1.0, f64::min);
        assert_eq!(run.best.unwrap().0, lowest);

        let [means] = &comparison.by_seed[..] else { panic!("{:?}", comparison.by_seed) };
        assert_eq!((&*means.label, &means.seeds[..]), ("dense-resnet4", &[0, 1][..]));
        let errors: Vec<f64> = comparison.runs[1..].iter().map(|run| run.test_error.unwrap()).collect();
        assert_eq!(means.test_error, Some(Spread::of(&errors)));
        assert!(comparison.verdicts.is_empty(), "the plain net has one seed");

        let others = train(&[
            ("dense-plain4", 1),
            ("dense-plain8", 0),
            ("dense-plain8", 1),
            ("dense-resnet8", 0),
            ("dense-resnet8", 1),
        ]);
        let all = Comparison::read(&[&directories[..], &others].concat()).unwrap();
        let seeds = all.verdicts.iter().map(|verdict| (verdict.plain.deepest_depth, verdict.seeds)).collect::<Vec<_>>();
        assert_eq!((seeds, all.by_seed.len()), (vec![(8, 2)], 4));

        let twice = Comparison::read(&[&directories[0], &directories[0]]).unwrap();
        assert!(twice.by_seed.is_empty());
        assert!(twice.runs[1].label.starts_with("dense-plain4, seed 0 ("), "{}", twice.runs[1].label);
        assert!(Comparison::read(&[dir.path()]).unwrap_err().to_string().contains("holds no training run"));
    }
}
