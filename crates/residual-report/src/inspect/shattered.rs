use super::{InspectionView, rows};
use crate::{
    chart::{Axis, Figure, Line, Panel},
    palette,
    words::{counted, labels, listed},
};
use residual_lab::{Shattered, Spread, SubjectInfo};

const SPACING: f64 = Shattered::SPACING;

pub(super) fn view(subjects: &[SubjectInfo], shattered: &Shattered) -> InspectionView {
    let labels = labels(subjects);
    let correlations: Vec<Vec<Vec<f64>>> = (0..subjects.len()).map(|i| shattered.autocorrelations(i)).collect();
    let finding = finding(&labels, &correlations);
    InspectionView {
        details: labels.iter().zip(&correlations).map(|(label, lines)| detail(label, lines)).collect(),
        figure: figure(subjects, &labels, shattered, &correlations, &finding),
        table: table(&labels, shattered),
        finding,
    }
}

/// The mean correlation over lines at each lag; NaN if there are no lines.
fn mean(lines: &[Vec<f64>]) -> Vec<f64> {
    let at = |lag: usize| {
        let values: Vec<f64> = lines.iter().map(|line| line[lag]).collect();
        if values.is_empty() { f64::NAN } else { Spread::of(&values).mean }
    };
    (0..=Shattered::LAGS).map(at).collect()
}

/// `0.87`, and `0.00` instead of `-0.00`.
fn rounded(correlation: f64) -> String {
    format!("{:.2}", (100.0 * correlation).round() / 100.0 + 0.0)
}

fn finding(labels: &[String], correlations: &[Vec<Vec<f64>>]) -> String {
    let near = labels.iter().zip(correlations).filter(|(_, lines)| !lines.is_empty());
    let near = listed(near.map(|(label, lines)| format!("{} in {label}", rounded(mean(lines)[1]))));
    if near.is_empty() {
        return "Along every line, the gradient is constant, NaN or infinite.".into();
    }
    format!("The correlation of the gradients at neighbouring inputs, {SPACING:.3} apart, is {near}.")
}

fn detail(label: &str, lines: &[Vec<f64>]) -> String {
    if lines.is_empty() {
        return format!("{label}: along every line, the gradient is constant, NaN or infinite.");
    }
    let mean = mean(lines);
    let neighbours: Vec<f64> = lines.iter().map(|line| line[1]).collect();
    let interval = Spread::half_width(&neighbours).map(|half| format!(" ± {half:.2} (95 % confidence interval)"));
    let interval = interval.unwrap_or_default();
    let reach = match mean.iter().position(|r| *r < 0.5) {
        Some(lag) => format!("falls below 1/2 at a distance of {:.2}", lag as f64 * SPACING),
        None => format!("stays above 1/2 up to a distance of {:.2}", Shattered::LAGS as f64 * SPACING),
    };
    format!("{label}: the correlation of neighbours is {}{interval}; it {reach}.", rounded(mean[1]))
}

fn figure(
    subjects: &[SubjectInfo],
    labels: &[String],
    shattered: &Shattered,
    correlations: &[Vec<Vec<f64>>],
    finding: &str,
) -> Figure {
    let colors = palette::colors(subjects);
    let line = |i: usize| {
        let points: Vec<(f64, f64)> =
            mean(&correlations[i]).into_iter().enumerate().map(|(lag, r)| (lag as f64 * SPACING, r)).collect();
        let tips = points.iter().map(|(d, r)| format!("{}, distance {d:.2}: {r:.2}", labels[i])).collect();
        Line { points, tips, ..Line::new(&labels[i], &colors[i]) }
    };
    let mut panels = vec![Panel::new(
        "Autocorrelation".into(),
        Axis::until("distance between inputs, in t", Shattered::LAGS as f64 * SPACING),
        Axis::covering("correlation of gradients", -0.2, 1.0),
        (0..subjects.len()).map(line).collect(),
    )];
    let first = |i: usize| derivative_panel(&labels[i], &colors[i], &shattered.derivatives[i][0]);
    panels.extend((0..subjects.len()).map(first));
    Figure {
        title: "Gradients along a line of inputs".into(),
        subtitle: format!(
            "{} inputs on a line through two images at t = -1 and t = 1; {} per network, each with a new initialisation \
             if the network is untrained",
            Shattered::POINTS,
            counted(shattered.lines, "line")
        ),
        description: finding.into(),
        panels,
    }
}

/// The derivative along one line, in units of its standard deviation.
fn derivative_panel(label: &str, color: &str, derivative: &[f64]) -> Panel {
    let Spread { mean, std } = Spread::of(derivative);
    let scale = if std > 0.0 { std } else { 1.0 };
    let points = derivative.iter().enumerate().map(|(i, value)| (Shattered::position(i), (value - mean) / scale));
    let points: Vec<(f64, f64)> = points.collect();
    let tips = points.iter().map(|(t, y)| format!("{label}, t = {t:.2}: {y:.2} standard deviations")).collect();
    let (least, most) = points.iter().fold((-1.0f64, 1.0f64), |(a, b), p| (a.min(p.1), b.max(p.1)));
    let line = Line { points, tips, ..Line::new(label, color) };
    let reach = Shattered::REACH;
    let x = Axis { range: (-reach, reach), ..Axis::covering("t", -reach, reach) };
    Panel::new(format!("df/dt, {label}"), x, Axis::covering("standard deviations", least, most), vec![line])
}

fn table(labels: &[String], shattered: &Shattered) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (label, lines) in labels.iter().zip(&shattered.derivatives) {
        for (i, line) in lines.iter().enumerate() {
            for (point, value) in line.iter().enumerate() {
                let t = format!("{:.5}", Shattered::position(point));
                all.push([label.clone(), (i + 1).to_string(), t, format!("{value:e}")]);
            }
        }
    }
    rows(["network", "line", "t", "derivative"], all)
}
