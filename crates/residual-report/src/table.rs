//! Tables as Markdown and CSV.

use crate::{
    verdict::{NO_VERDICT, verdict},
    words::markdown,
};
use residual_lab::{Point, RunSpec, Series, Spread, SweepResults};
use residual_model::Family;
use std::fmt::Write;

/// The tables of errors, the verdicts and the machine of a sweep, as Markdown.
pub fn sweep_markdown(results: &SweepResults) -> String {
    let mut text = format!("Error in per cent, mean ± standard deviation:\n\n{}\n", markdown_table(&results.series));
    for v in &results.verdicts {
        let _ = writeln!(text, "{}\n", verdict(v));
    }
    if results.verdicts.is_empty() {
        let _ = writeln!(text, "{NO_VERDICT}\n");
    }
    text + &format!("{} trainings on {}.\n", results.runs.len(), markdown(&results.environment.to_string()))
}

/// Mean ± standard deviation of the training error and of the test error, in per cent: one table per family, one row
/// per depth.
pub fn markdown_table(series: &[Series]) -> String {
    let mut text = String::new();
    for family in [Family::Dense, Family::Conv] {
        let columns: Vec<&Series> = series.iter().filter(|s| s.family == family).collect();
        if columns.is_empty() {
            continue;
        }
        let labels: Vec<String> = columns.iter().map(|s| s.label()).collect();
        let header: Vec<String> = labels
            .iter()
            .map(|l| format!("{l}, training"))
            .chain(labels.iter().map(|l| format!("{l}, test")))
            .collect();
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "| {family} layers | {} |", header.join(" | "));
        let _ = writeln!(text, "|--:|{}", "--:|".repeat(header.len()));
        for (depth, cells) in error_rows(&columns) {
            let _ = writeln!(text, "| {depth} | {} |", cells.join(" | "));
        }
    }
    text
}

/// Each depth with its cells: the training errors of all series, followed by their test errors.
pub(crate) fn error_rows(columns: &[&Series]) -> Vec<(usize, Vec<String>)> {
    let row = |(i, point): (usize, &Point)| {
        let points = || columns.iter().filter_map(|s| s.points.get(i));
        let train = points().map(|p| cell(p, p.train));
        let test = points().map(|p| cell(p, p.test));
        (point.depth, train.chain(test).collect())
    };
    columns.first().map_or_else(Vec::new, |first| first.points.iter().enumerate().map(row).collect())
}

/// An error in per cent, or the number of seeds that diverged.
pub(crate) fn cell(point: &Point, error: Spread) -> String {
    let seeds = point.train_errors.len();
    let (mean, std) = (100.0 * error.mean, 100.0 * error.std);
    match (seeds, point.diverged) {
        (1, 0) => format!("{mean:.2}"),
        (_, 0) => format!("{mean:.2} ± {std:.2}"),
        (_, diverged) => format!("{diverged} of {seeds} diverged"),
    }
}

/// A header, followed by one row per training.
pub(crate) fn sweep_rows(results: &SweepResults) -> Vec<Vec<String>> {
    let header = [
        "family",
        "kind",
        "depth",
        "alpha",
        "seed",
        "train_error",
        "test_error",
        "train_loss",
        "seconds",
        "status",
        "test_loss",
        "parameters",
        "iterations",
    ];
    let mut rows = vec![header.map(String::from).to_vec()];
    let loss = |loss: Option<f64>| loss.map(|l| format!("{l:.6}")).unwrap_or_default();
    for run in &results.runs {
        let RunSpec { family, kind, depth, alpha, seed } = run.spec;
        rows.push(vec![
            family.to_string(),
            kind.to_string(),
            depth.to_string(),
            alpha.to_string(),
            seed.to_string(),
            format!("{:.6}", run.train_error),
            format!("{:.6}", run.test_error),
            loss(run.train_loss),
            format!("{:.2}", run.seconds),
            run.status.to_string(),
            loss(run.test_loss),
            run.parameters.to_string(),
            run.iterations.to_string(),
        ]);
    }
    rows
}

/// Rows as CSV.
pub(crate) fn csv(rows: &[Vec<String>]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).expect("all rows have the same length, and writing to memory does not fail");
    }
    writer.into_inner().expect("writing to memory does not fail")
}
