//! A table and a figure that compare trainings.

use crate::{
    chart::{Axis, Figure, Line, Panel},
    palette,
    verdict::verdict,
    words::markdown as markdown_text,
};
use residual_lab::{ComparedRun, Comparison, SeedMeans, Spread};
use residual_model::summary::thousands;
use residual_train::Split;
use std::fmt::Write;

/// A Markdown table of errors in per cent, parameters and training times, followed by a table of means over seeds and the
/// verdicts, if there are any, and by the machines.
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = String::from(
        "| network | data | parameters | epochs | training error, % | test error, % | lowest test error, % | minutes |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    let percent = |error: Option<f64>| error.map_or_else(|| "-".into(), |error| format!("{:.2}", 100.0 * error));
    for run in &comparison.runs {
        let best =
            run.best.map_or_else(|| "-".into(), |(error, epoch)| format!("{:.2} (epoch {epoch})", 100.0 * error));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {best} | {:.1} |",
            markdown_text(&run.label),
            markdown_text(&run.data),
            thousands(run.parameters),
            run.epochs,
            percent(run.train_error),
            percent(run.test_error),
            run.seconds / 60.0
        );
    }
    if !comparison.by_seed.is_empty() {
        text += &format!("\nMean ± standard deviation over seeds:\n\n{}", means(&comparison.by_seed));
    }
    for of_family in &comparison.verdicts {
        let _ = writeln!(text, "\n{}", verdict(of_family));
    }
    let machines = distinct(comparison.runs.iter().map(|run| markdown_text(&run.environment.to_string())));
    let _ = writeln!(text, "\nMeasured on {}.", machines.join("; "));
    text
}

fn means(by_seed: &[SeedMeans]) -> String {
    let mut text =
        String::from("| network | data | seeds | training error, % | test error, % |\n|---|---|---|--:|--:|\n");
    let percent = |error: Option<Spread>| {
        error.map_or_else(|| "-".into(), |Spread { mean, std }| format!("{:.2} ± {:.2}", 100.0 * mean, 100.0 * std))
    };
    for SeedMeans { label, data, seeds, train_error, test_error } in by_seed {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            markdown_text(label),
            markdown_text(data),
            seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
            percent(*train_error),
            percent(*test_error)
        );
    }
    text
}

/// The running training error and the test error against the epoch, as SVG.
pub fn svg(comparison: &Comparison) -> String {
    let colors = palette::colors_of_kinds(&comparison.runs.iter().map(|run| run.kind).collect::<Vec<_>>());
    let panel = |title: &str, split: Split| {
        let lines: Vec<Line> =
            comparison.runs.iter().zip(&colors).map(|(run, color)| line(run, color, split)).collect();
        let points = || lines.iter().flat_map(|line| &line.points);
        let last = points().map(|point| point.0).fold(1.0, f64::max);
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        Panel::new(title.into(), Axis::until("epoch", last), Axis::from_zero("error, %", highest), lines)
    };
    let sentences = comparison.runs.iter().map(|run| {
        let error = run
            .test_error
            .filter(|error| error.is_finite())
            .map_or_else(|| "unknown".into(), |error| format!("{:.1} %", 100.0 * error));
        format!("{}: test error {error} after {} epochs.", run.label, run.epochs)
    });
    let data = distinct(comparison.runs.iter().map(|run| run.data.clone()));
    Figure {
        title: "Error against epoch".into(),
        subtitle: data.join(", "),
        description: format!("Error against epoch. {}", sentences.collect::<Vec<_>>().join(" ")),
        panels: vec![panel("Training batches during the epoch", Split::Running), panel("Test set", Split::Test)],
    }
    .to_svg()
}

/// Each word once, in the order of its first occurrence.
fn distinct(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for word in words {
        if !distinct.contains(&word) {
            distinct.push(word);
        }
    }
    distinct
}

fn line(run: &ComparedRun, color: &str, split: Split) -> Line {
    let rows = run.rows.iter().filter(|row| row.split == split);
    Line { points: rows.map(|row| (row.epoch as f64, 100.0 * row.error)).collect(), ..Line::new(&run.label, color) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_model::BlockKind;
    use residual_train::{Environment, Row};

    fn run(label: &str, kind: BlockKind, errors: [f64; 2]) -> ComparedRun {
        let row = |epoch, split, error| Row {
            epoch,
            split,
            loss: 1.0,
            error,
            lr: 0.1,
            seconds: 30.0,
            images_per_second: 9.0,
        };
        let rows = vec![
            row(1, Split::Running, 0.5),
            row(1, Split::Test, errors[0]),
            row(2, Split::Running, 0.4),
            row(2, Split::Test, errors[1]),
        ];
        ComparedRun {
            path: label.into(),
            label: label.into(),
            data: "digits".into(),
            parameters: 12_345,
            epochs: 2,
            train_error: None,
            test_error: Some(errors[1]),
            best: Some((errors[0].min(errors[1]), if errors[0] < errors[1] { 1 } else { 2 })),
            seconds: 120.0,
            environment: crate::tests::environment(),
            kind,
            rows,
        }
    }

    #[test]
    fn the_table_and_the_figure_include_every_run() {
        let runs = vec![
            run("plain8", BlockKind::Plain, [0.25, 0.5]),
            run("resnet8", BlockKind::Residual, [0.25, 0.125]),
            run("resnet8, seed 1", BlockKind::Residual, [0.5, 0.25]),
        ];
        let by_seed = vec![SeedMeans {
            label: "resnet8".into(),
            data: "digits".into(),
            seeds: vec![0, 1],
            train_error: None,
            test_error: Some(Spread { mean: 0.1875, std: 0.125 }),
        }];
        let comparison = Comparison { runs, by_seed, verdicts: Vec::new() };
        let table = markdown(&comparison);
        assert!(table.contains("| plain8 | digits | 12,345 | 2 | - | 50.00 | 25.00 (epoch 1) | 2.0 |"), "{table}");
        assert!(table.contains("| resnet8 | digits | 0, 1 | - | 18.75 ± 12.50 |"), "{table}");
        assert_eq!(table.lines().count(), 2 + 3 + 6 + 2);
        let Environment { backend, .. } = crate::tests::environment();
        assert_eq!(table.matches(&backend).count(), 1, "each machine is named once");
        let svg = svg(&comparison);
        assert_eq!(svg.matches("<polyline").count(), 6);
        assert!(svg.contains("plain8: test error 50.0 %"));
        assert!(["#d55e00", "#0072b2", "#56b4e9"].iter().all(|color| svg.contains(color)));
    }

    #[test]
    fn an_error_that_is_not_a_number_is_not_drawn() {
        let run = run("a", BlockKind::Plain, [0.5, f64::NAN]);
        let runs = vec![ComparedRun { test_error: Some(f64::NAN), ..run }];
        let comparison = Comparison { runs, by_seed: Vec::new(), verdicts: Vec::new() };
        assert!(svg(&comparison).contains("test error unknown") && !svg(&comparison).contains("NaN"));
    }
}
