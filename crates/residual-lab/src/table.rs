use crate::{Point, Series, Spread};
use residual_model::Family;
use std::fmt::Write;

/// Mean ± standard deviation of the training error, and of the test error, in per cent: one table a
/// family, one row a depth.
pub fn markdown_table(series: &[Series]) -> String {
    let mut text = String::new();
    for family in [Family::Dense, Family::Conv] {
        let columns: Vec<&Series> = series.iter().filter(|s| s.family == family).collect();
        let Some(first) = columns.first() else { continue };
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
        for (i, point) in first.points.iter().enumerate() {
            let points = || columns.iter().filter_map(|s| s.points.get(i));
            let train = points().map(|p| cell(p, p.train));
            let test = points().map(|p| cell(p, p.test));
            let cells: Vec<String> = train.chain(test).collect();
            let _ = writeln!(text, "| {} | {} |", point.depth, cells.join(" | "));
        }
    }
    text
}

/// A point's error in per cent.
pub(crate) fn cell(point: &Point, error: Spread) -> String {
    let seeds = point.train_errors.len();
    let (mean, std) = (100.0 * error.mean, 100.0 * error.std);
    match (seeds, point.diverged) {
        (1, 0) => format!("{mean:.2}"),
        (_, 0) => format!("{mean:.2} ± {std:.2}"),
        (_, diverged) => format!("{diverged} of {seeds} diverged"),
    }
}
