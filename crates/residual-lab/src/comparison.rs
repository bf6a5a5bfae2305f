use crate::{
    LabError,
    chart::{Axis, Figure, Line, Panel},
    figures,
};
use residual_model::{BlockKind, summary::thousands};
use residual_train::{Environment, Row, RunDir, Split, TrainConfig};
use serde::Serialize;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// Trainings side by side, finished or not.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The trainings, in the order they were named.
    pub runs: Vec<ComparedRun>,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRun {
    /// Its folder.
    pub path: PathBuf,
    /// The network's name, and the seed where that tells trainings apart.
    pub label: String,
    /// The dataset.
    pub data: String,
    /// Parameters of the network.
    pub parameters: u64,
    /// Epochs measured.
    pub epochs: usize,
    /// The last clean training error, as a fraction.
    pub train_error: Option<f64>,
    /// The last test error.
    pub test_error: Option<f64>,
    /// The lowest test error, and its epoch.
    pub best: Option<(f64, usize)>,
    /// Time of training and evaluation.
    pub seconds: f64,
    /// What it ran on.
    pub environment: Environment,
    #[serde(skip)]
    kind: BlockKind,
    #[serde(skip)]
    rows: Vec<Row>,
}

impl Comparison {
    /// Reads the folders of trainings.
    ///
    /// # Errors
    /// If a folder holds none, or its files are damaged.
    pub fn read<P: AsRef<Path>>(folders: &[P]) -> Result<Self, LabError> {
        let mut runs = Vec::new();
        let mut configs: Vec<TrainConfig> = Vec::new();
        for folder in folders {
            let run = RunDir::open(folder.as_ref())?;
            let (config, rows) = (run.config()?, run.metrics()?);
            let of = |split| rows.iter().filter(move |row| row.split == split);
            let lowest = of(Split::Test).min_by(|a, b| a.error.total_cmp(&b.error));
            runs.push(ComparedRun {
                path: folder.as_ref().into(),
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
            });
            configs.push(config);
        }
        for (run, config) in runs.iter_mut().zip(&configs) {
            let twin =
                |other: &&TrainConfig| other.network.name() == config.network.name() && other.data == config.data;
            if configs.iter().filter(twin).count() > 1 {
                run.label = format!("{}, seed {}", run.label, config.seed);
            }
        }
        // Where that does not tell trainings apart, their folders do.
        let labels: Vec<_> = runs.iter().map(|run| (run.label.clone(), run.data.clone())).collect();
        for run in &mut runs {
            if labels.iter().filter(|(label, data)| *label == run.label && *data == run.data).count() > 1 {
                run.label = format!("{} ({})", run.label, run.path.display());
            }
        }
        Ok(Self { runs })
    }

    /// Errors in per cent, parameters and time as a table, and below it the machines.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| network | data | parameters | epochs | training error, % | test error, % | lowest test error, % | minutes |\n\
             |---|---|--:|--:|--:|--:|--:|--:|\n",
        );
        let percent = |error: Option<f64>| error.map_or_else(|| "-".into(), |error| format!("{:.2}", 100.0 * error));
        for run in &self.runs {
            let best =
                run.best.map_or_else(|| "-".into(), |(error, epoch)| format!("{:.2} (epoch {epoch})", 100.0 * error));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {best} | {:.1} |",
                run.label,
                run.data,
                thousands(run.parameters),
                run.epochs,
                percent(run.train_error),
                percent(run.test_error),
                run.seconds / 60.0
            );
        }
        let machines = distinct(self.runs.iter().map(|run| run.environment.to_string()));
        let _ = writeln!(text, "\nMeasured on {}.", machines.join("; "));
        text
    }

    /// Error of the passing training batches, and test error, against the epoch: SVG.
    pub fn svg(&self) -> String {
        let panel = |title: &str, split: Split| {
            let before = |i: usize| self.runs[..i].iter().filter(|run| run.kind == self.runs[i].kind).count();
            let lines: Vec<Line> = (0..self.runs.len()).map(|i| line(&self.runs[i], before(i), split)).collect();
            let points = || lines.iter().flat_map(|line| &line.points);
            let last = points().map(|point| point.0).fold(1.0, f64::max);
            let highest = points().map(|point| point.1).fold(0.0, f64::max);
            Panel::new(title.into(), Axis::until("epoch", last), Axis::from_zero("error, %", highest), lines)
        };
        let sentences = self.runs.iter().map(|run| {
            let error = run.test_error.map_or_else(|| "unknown".into(), |error| format!("{:.1} %", 100.0 * error));
            format!("{}: test error {error} after {} epochs.", run.label, run.epochs)
        });
        let data = distinct(self.runs.iter().map(|run| run.data.clone()));
        Figure {
            title: "Error against epoch".into(),
            subtitle: data.join(", "),
            description: format!("Error against epoch. {}", sentences.collect::<Vec<_>>().join(" ")),
            columns: 2,
            panels: vec![panel("Training batches as they pass", Split::Running), panel("Test set", Split::Test)],
        }
        .to_svg()
    }
}

/// Each of the words once, in the order of their first.
fn distinct(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    words.for_each(|word| {
        if !distinct.contains(&word) {
            distinct.push(word)
        }
    });
    distinct
}

/// The line of a run, which is the index-th of its kind.
fn line(run: &ComparedRun, index: usize, split: Split) -> Line {
    let rows = run.rows.iter().filter(|row| row.split == split);
    Line {
        label: run.label.clone(),
        color: figures::color(run.kind, index),
        points: rows.map(|row| (row.epoch as f64, 100.0 * row.error)).collect(),
        ..Line::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_backend::Backend;
    use residual_train::{DataName, Training};

    #[test]
    fn trainings_are_compared_by_what_they_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let hardware = Backend::Flex.probe().unwrap();
        let folders: Vec<PathBuf> = [("dense-plain4", 0), ("dense-resnet4", 0), ("dense-resnet4", 1)]
            .iter()
            .map(|(net, seed)| {
                let config = TrainConfig::new(net.parse().unwrap(), DataName::Synthetic).unwrap();
                let config = config.with_epochs(2).with_seed(*seed);
                let path = dir.path().join(format!("{net}-{seed}"));
                let run = RunDir::create(&path, &config, &Environment::here(Backend::Flex, &hardware), false).unwrap();
                Training::new(config, hardware.device.clone()).unwrap().in_dir(run).run().unwrap();
                path
            })
            .collect();
        let comparison = Comparison::read(&folders).unwrap();
        let labels: Vec<&str> = comparison.runs.iter().map(|run| &*run.label).collect();
        assert_eq!(labels, ["dense-plain4", "dense-resnet4, seed 0", "dense-resnet4, seed 1"]);
        let table = comparison.markdown();
        let rows = RunDir::open(&folders[1]).unwrap().metrics().unwrap();
        let test = rows.iter().rfind(|row| row.split == Split::Test).unwrap();
        assert!(table.contains(&format!("| {:.2} |", 100.0 * test.error)), "{table}");
        assert_eq!(table.lines().count(), 2 + 3 + 2);
        let svg = comparison.svg();
        assert_eq!(svg.matches("<polyline").count(), 6);
        assert!(svg.contains("dense-plain4: test error"));
        assert!(["#d55e00", "#0072b2", "#56b4e9"].iter().all(|color| svg.contains(color)));
        let twice = Comparison::read(&[&folders[0], &folders[0]]).unwrap();
        assert!(twice.runs[1].label.starts_with("dense-plain4, seed 0 ("), "{}", twice.runs[1].label);
        assert!(Comparison::read(&[dir.path()]).unwrap_err().to_string().contains("holds no training"));
    }
}
