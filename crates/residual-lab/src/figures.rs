//! The lecture's figure and the loss curves, out of results.

use crate::{
    Results, RunResult, RunStatus, Series,
    chart::{Axis, Figure, Line, Marker, Panel, Scale},
    table::cell,
};
use residual_model::{BlockKind, Family};

/// Okabe and Ito's palette, told apart with any colour vision.
const PLAIN: [&str; 3] = ["#d55e00", "#e69f00", "#cc79a7"];
const RESIDUAL: [&str; 3] = ["#0072b2", "#56b4e9", "#009e73"];
const BETWEEN: [&str; 4] = ["#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The colour of the index-th line of a kind.
pub(crate) fn color(kind: BlockKind, index: usize) -> String {
    let colors = match kind {
        BlockKind::Plain => PLAIN,
        BlockKind::Residual => RESIDUAL,
    };
    colors[index % colors.len()].into()
}

/// Training error against the number of layers: He et al. 2015, Fig. 1 and 6 in one.
pub(crate) fn depth(results: &Results) -> Figure {
    let config = &results.config;
    let panel = |&family: &Family| {
        let series: Vec<&Series> = results.series.iter().filter(|s| s.family == family).collect();
        let depths: Vec<f64> = series.iter().flat_map(|s| &s.points).map(|p| p.depth as f64).collect();
        let mut ticks = depths.clone();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let deepest = ticks.last().copied().unwrap_or(1.0);
        let highest =
            series.iter().flat_map(|s| &s.points).flat_map(|p| &p.train_errors).fold(0.0f64, |a, &b| a.max(b));
        Panel {
            title: format!("{} blocks, {}", word(family), counted(config.epochs(family), "epoch")),
            x: Axis { label: "number of layers".into(), range: (0.0, 1.03 * deepest), ticks, scale: Scale::Linear },
            y: Axis::from_zero("training error, %", 100.0 * highest),
            lines: series.iter().enumerate().map(|(i, s)| error_line(s, i, config.first_seed)).collect(),
            field: None,
        }
    };
    let families: Vec<Family> = results.config.families.clone();
    Figure {
        title: "Training error against depth".into(),
        subtitle: match config.seeds {
            1 => format!("{}, 1 seed", config.data),
            n => format!("{}, {n} seeds; mean ± standard deviation, small dots are single seeds", config.data),
        },
        description: description(results),
        columns: 2,
        panels: families.iter().map(panel).collect(),
    }
}

fn error_line(series: &Series, index: usize, first_seed: u64) -> Line {
    let (color, marker) = match (series.kind, series.alpha) {
        (BlockKind::Plain, _) => (color(series.kind, 0), Marker::Circle),
        (BlockKind::Residual, 1.0) => (color(series.kind, 0), Marker::Square),
        _ => (BETWEEN[index % BETWEEN.len()].into(), Marker::Triangle),
    };
    Line {
        label: series.label(),
        color,
        marker: Some(marker),
        points: series.points.iter().map(|p| (p.depth as f64, 100.0 * p.train.mean)).collect(),
        spread: series.points.iter().map(|p| 100.0 * p.train.std).collect(),
        dots: series.points.iter().flat_map(|p| p.train_errors.iter().map(|e| (p.depth as f64, 100.0 * e))).collect(),
        tips: series.points.iter().map(|p| error_tip(p, first_seed)).collect(),
    }
}

/// A point's error, and that of each seed.
fn error_tip(point: &crate::Point, first_seed: u64) -> String {
    let seeds = point.train_errors.iter().zip(first_seed..);
    let seeds: Vec<String> = seeds.map(|(error, seed)| format!("seed {seed}: {:.2} %", 100.0 * error)).collect();
    let unit = if point.diverged > 0 { "" } else { " %" };
    format!("{} layers\n{}{unit}\n{}", point.depth, cell(point, point.train), seeds.join("\n"))
}

/// Training loss against the iteration, one panel a family and kind: He et al. 2015, Fig. 6.
pub(crate) fn curves(results: &Results) -> Figure {
    let losses = results.series.iter().flat_map(|s| curve_lines(results, s)).flat_map(|line| line.points);
    let highest = losses.map(|(_, loss)| loss).fold(0.0, f64::max);
    let shown = highest.min(HIGHEST_LOSS);
    let panel = |series: &Series| {
        let lines = curve_lines(results, series);
        let last = lines.iter().flat_map(|l| l.points.last()).map(|p| p.0).fold(1.0, f64::max);
        let title = format!("{} blocks, {}", word(series.family), series.label());
        Panel::new(title, Axis::until("iteration", last), Axis::from_zero("training loss", shown), lines)
    };
    Figure {
        title: "Training loss, by number of layers".into(),
        subtitle: format!(
            "mean of {}, moving average of {} iterations; darker is deeper{}",
            counted(results.config.seeds as usize, "seed"),
            2 * HALF_WINDOW + 1,
            if highest > shown { format!("; above {HIGHEST_LOSS} drawn at {HIGHEST_LOSS}") } else { String::new() }
        ),
        description: "Training loss against the iteration for plain and residual nets of each depth.".into(),
        columns: 2,
        panels: results.series.iter().map(panel).collect(),
    }
}

const HALF_WINDOW: usize = 6;
/// More than a guess among ten classes costs.
const HIGHEST_LOSS: f64 = 3.0;

fn curve_lines(results: &Results, series: &Series) -> Vec<Line> {
    let line = |(i, point): (usize, &crate::Point)| {
        let belongs = |r: &&RunResult| {
            let spec = r.spec;
            (spec.family, spec.kind, spec.alpha, spec.depth) == (series.family, series.kind, series.alpha, point.depth)
                && r.status == RunStatus::Finished
        };
        let curves: Vec<&[f32]> = results.runs.iter().filter(belongs).map(|r| &r.curve[..]).collect();
        let shade = i as f64 / (series.points.len().max(2) - 1) as f64;
        Line {
            label: format!("{} layers", point.depth),
            color: shaded(series.kind, shade),
            points: thin(smooth(&mean(&curves))),
            ..Line::default()
        }
    };
    series.points.iter().enumerate().map(line).collect()
}

/// The mean of curves of one length.
fn mean(curves: &[&[f32]]) -> Vec<f64> {
    let length = curves.iter().map(|c| c.len()).min().unwrap_or(0);
    let sum = |i| curves.iter().map(|c| f64::from(c[i])).sum::<f64>();
    (0..length).map(|i| sum(i) / curves.len() as f64).collect()
}

/// A centred moving average, with its iteration from 1.
fn smooth(values: &[f64]) -> Vec<(f64, f64)> {
    let average = |i: usize| {
        let window = &values[i.saturating_sub(HALF_WINDOW)..(i + HALF_WINDOW + 1).min(values.len())];
        window.iter().sum::<f64>() / window.len() as f64
    };
    (0..values.len()).map(|i| ((i + 1) as f64, average(i))).collect()
}

/// As many of the points as a picture can show, among them the last.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    const MOST: usize = 160;
    let (step, last) = (points.len().div_ceil(MOST).max(1), points.len().saturating_sub(1));
    points.into_iter().enumerate().filter(|(i, _)| (last - i) % step == 0).map(|(_, point)| point).collect()
}

/// From a light to a dark shade of the kind's colour.
pub(crate) fn shaded(kind: BlockKind, t: f64) -> String {
    let (light, dark) = match kind {
        BlockKind::Plain => ([0xf4, 0xa9, 0x6a], [0x7a, 0x2a, 0x00]),
        BlockKind::Residual => ([0x86, 0xbd, 0xea], [0x06, 0x33, 0x5c]),
    };
    let mix = |i: usize| (f64::from(light[i]) * (1.0 - t) + f64::from(dark[i]) * t).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Dense => "Dense",
        _ => "Convolutional",
    }
}

/// `1 seed`, `3 seeds`
pub(crate) fn counted(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

fn description(results: &Results) -> String {
    let sentence = |s: &Series| {
        let points: Vec<String> =
            s.points.iter().map(|p| format!("{} layers {:.1} %", p.depth, 100.0 * p.train.mean)).collect();
        format!("{} blocks, {}: {}.", word(s.family), s.label(), points.join(", "))
    };
    let sentences: Vec<String> = results.series.iter().map(sentence).collect();
    format!("Training error against number of layers. {}", sentences.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_averages_a_step() {
        assert!(smooth(&[2.0; 40]).iter().all(|&(_, y)| y == 2.0));
        let step: Vec<f64> = (0..40).map(|i| f64::from(u8::from(i >= 20))).collect();
        let smoothed = smooth(&step);
        assert_eq!(smoothed[0], (1.0, 0.0));
        assert_eq!(smoothed[20].1, 7.0 / 13.0);
    }

    #[test]
    fn the_mean_runs_over_seeds() {
        assert_eq!(mean(&[&[1.0, 2.0, 9.0], &[3.0, 6.0]]), [2.0, 4.0]);
        assert!(mean(&[]).is_empty());
    }
}
