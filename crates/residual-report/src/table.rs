//! Tables as Markdown and CSV.

use crate::{
    sweep::{at_the_edge, no_verdict, panels_of, with_setting},
    verdict::{across, verdict},
    words::{counted, listed, markdown},
};
use residual_lab::{Point, Rate, RunResult, RunSpec, Series, Setting, Spread, SweepResults};
use residual_train::Environment;
use std::fmt::Write;

/// The tables of errors, the learning rates, the verdicts and the machines of a sweep, as Markdown.
pub fn sweep_markdown(results: &SweepResults) -> String {
    let spread = match results.config.seeds {
        1 => "1 seed".into(),
        seeds => format!("mean ± standard deviation over {seeds} seeds"),
    };
    let mut text = format!("Error in per cent, {spread}:\n\n{}\n", markdown_table(&results.series));
    if !results.tuned.is_empty() {
        text += &format!(
            "Mean training error over all depths and kinds at each learning rate, in per cent, with the first seed; the chosen \
             rate is bold.{}\n\n{}\n",
            at_the_edge(&results.tuned),
            rates(results)
        );
    }
    for sentence in across(&results.verdicts) {
        let _ = writeln!(text, "{sentence}\n");
    }
    for v in &results.verdicts {
        let _ = writeln!(text, "{}\n", verdict(v));
    }
    if results.verdicts.is_empty() {
        let _ = writeln!(text, "{}\n", no_verdict(results));
    }
    let several = results.environments.len() > 1;
    let environment = |e: &Environment| {
        if !several {
            return e.to_string();
        }
        let instructions = e.instructions.as_ref().map_or_else(String::new, |name| format!("{name} instructions, "));
        format!("{e}, {instructions}{} kernels, version {}", e.kernels, e.residual)
    };
    let environments: Vec<String> = results.environments.iter().map(|e| markdown(&environment(e))).collect();
    let machines = if results.machines > 1 { format!("{} machines: ", results.machines) } else { String::new() };
    text + &format!("{} on {machines}{}.\n", counted(results.runs.len(), "training"), listed(environments))
}

/// The learning rates of the grid: a row for each family and setting. The chosen rates are bold.
fn rates(results: &SweepResults) -> String {
    let mut text = String::from("| nets | learning rate: error |\n|---|---|\n");
    for tuned in &results.tuned {
        let rate = |rate: &Rate| {
            let cell = format!("{}: {:.2}", rate.lr, 100.0 * rate.train_error);
            if rate.lr == tuned.lr { format!("**{cell}**") } else { cell }
        };
        let cells: Vec<String> = tuned.rates.iter().map(rate).collect();
        let _ = writeln!(text, "| {} | {} |", with_setting(&tuned.family.to_string(), tuned.setting), cells.join(", "));
    }
    text
}

/// Mean ± standard deviation of the training error and of the test error, in per cent: one table per family and
/// setting, one row per depth.
pub fn markdown_table(series: &[Series]) -> String {
    let mut text = String::new();
    for (family, setting) in panels_of(series) {
        let columns: Vec<&Series> = series.iter().filter(|s| (s.family, s.setting) == (family, setting)).collect();
        let labels: Vec<String> = columns.iter().map(|s| s.label()).collect();
        let header: Vec<String> = labels
            .iter()
            .map(|l| format!("{l}, training"))
            .chain(labels.iter().map(|l| format!("{l}, test")))
            .collect();
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "| {} | {} |", with_setting(&format!("{family} layers"), setting), header.join(" | "));
        let _ = writeln!(text, "|--:|{}", "--:|".repeat(header.len()));
        for (depth, cells) in error_rows(&columns) {
            let _ = writeln!(text, "| {depth} | {} |", cells.join(" | "));
        }
    }
    text
}

/// Each depth with its cells: the training errors of all series, followed by their test errors. The cell of a net that
/// has not been trained yet is empty.
pub(crate) fn error_rows(columns: &[&Series]) -> Vec<(usize, Vec<String>)> {
    let mut depths: Vec<usize> = columns.iter().flat_map(|series| &series.points).map(|point| point.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    let row = |depth: usize| {
        let points = || columns.iter().map(move |series| series.points.iter().find(|point| point.depth == depth));
        let text = |point: Option<&Point>, error: fn(&Point) -> Spread| {
            point.map(|point| cell(point, error(point))).unwrap_or_default()
        };
        let train = points().map(|point| text(point, |point| point.train));
        let test = points().map(|point| text(point, |point| point.test));
        (depth, train.chain(test).collect())
    };
    depths.into_iter().map(row).collect()
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

/// What an axis varies, as the cell of a table.
type Column = fn(&Setting) -> Option<String>;

/// A header, followed by one row per training. What the axes vary has a column each.
pub(crate) fn sweep_rows(results: &SweepResults) -> Vec<Vec<String>> {
    let is_tried = |run: &&RunResult| results.runs.iter().all(|other| other.spec != run.spec);
    let runs = || results.runs.iter().chain(results.grid.iter().filter(is_tried));
    let varied = |column: &Column| runs().any(|run| column(&run.spec.setting).is_some());
    let all: [(&str, Column); 4] = [
        ("optimizer", |setting| setting.optimizer.map(|optimizer| optimizer.to_string())),
        ("lr", |setting| setting.lr.map(|lr| lr.to_string())),
        ("batch_size", |setting| setting.batch_size.map(|size| size.to_string())),
        ("norm", |setting| setting.norm.map(|norm| norm.to_string())),
    ];
    let axes: Vec<_> = all.into_iter().filter(|(_, column)| varied(column)).collect();
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
    let header = header.into_iter().chain(axes.iter().map(|(name, _)| *name));
    let mut rows = vec![header.map(String::from).collect::<Vec<_>>()];
    let loss = |loss: Option<f64>| loss.map(|l| format!("{l:.6}")).unwrap_or_default();
    for run in runs() {
        let RunSpec { family, kind, depth, alpha, seed, setting } = run.spec;
        let mut row = vec![
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
        ];
        row.extend(axes.iter().map(|(_, column)| column(&setting).unwrap_or_default()));
        rows.push(row);
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
