//! The figures of a sweep.

use crate::{
    chart::{Axis, Figure, Line, Marker, Panel, Scale},
    palette,
    sweep::{blocks, panels, with_setting},
    table::cell,
    words::{capital, counted},
};
use residual_lab::{LossCurve, Point, Series, Setting, SweepFamily, SweepResults};
use residual_model::BlockKind;

/// Training error after the last epoch against the number of layers (He et al. 2015, Fig. 1 and 6).
pub(crate) fn depth(results: &SweepResults) -> Figure {
    let config = &results.config;
    let epochs = |family| config.family(family).map_or(0, |settings| settings.training.epochs);
    let data = crate::sweep::data(config);
    let panel = |(family, setting): (SweepFamily, Setting)| {
        let series: Vec<&Series> =
            results.series.iter().filter(|s| (s.family, s.setting) == (family, setting)).collect();
        let mut ticks: Vec<f64> = series.iter().flat_map(|s| &s.points).map(|p| p.depth as f64).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let deepest = ticks.last().copied().unwrap_or(1.0);
        let highest =
            series.iter().flat_map(|s| &s.points).flat_map(|p| &p.train_errors).fold(0.0f64, |a, &b| a.max(b));
        Panel {
            title: with_setting(&format!("{}, {}", capital(blocks(family)), counted(epochs(family), "epoch")), setting),
            x: Axis { label: "number of layers".into(), range: (0.0, 1.03 * deepest), ticks, scale: Scale::Linear },
            y: Axis::from_zero("training error, %", 100.0 * highest),
            lines: series.iter().enumerate().map(|(i, s)| error_line(s, i, config.first_seed)).collect(),
            field: None,
        }
    };
    Figure {
        title: "Training error against depth".into(),
        subtitle: match config.seeds {
            1 => format!("{data}, 1 seed"),
            n => format!("{data}, {n} seeds; mean ± standard deviation, small dots: single seeds"),
        },
        description: description(results),
        panels: panels(results).into_iter().map(panel).collect(),
    }
}

fn error_line(series: &Series, index: usize, first_seed: u64) -> Line {
    let (color, marker) = match (series.kind, series.alpha) {
        (BlockKind::Plain, _) => (palette::color(series.kind, 0), Marker::Circle),
        (BlockKind::Residual, 1.0) => (palette::color(series.kind, 0), Marker::Square),
        _ => (palette::between(index), Marker::Triangle),
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

/// The tooltip of a point: the mean error and the error of each seed.
fn error_tip(point: &Point, first_seed: u64) -> String {
    let seeds = point.train_errors.iter().zip(0..);
    let seed = |i: u64| first_seed.wrapping_add(i);
    let seeds: Vec<String> = seeds.map(|(error, i)| format!("seed {}: {:.2} %", seed(i), 100.0 * error)).collect();
    let unit = if point.diverged > 0 { "" } else { " %" };
    format!("{} layers\n{}{unit}\n{}", point.depth, cell(point, point.train), seeds.join("\n"))
}

/// Training loss against the iteration, with one panel per family and kind (He et al. 2015, Fig. 6).
pub(crate) fn curves(results: &SweepResults) -> Figure {
    let highest = results.curves.iter().flat_map(|curve| &curve.points).map(|point| point.1).fold(0.0, f64::max);
    let shown = highest.min(HIGHEST_LOSS);
    let panel = |series: &Series| {
        let lines = curve_lines(results, series);
        let last = lines.iter().filter_map(|l| l.points.last()).map(|p| p.0).fold(1.0, f64::max);
        let title = format!("{}, {}", capital(blocks(series.family)), series.label());
        let title = with_setting(&title, series.setting);
        Panel::new(title, Axis::until("iteration", last), Axis::from_zero("training loss", shown), lines)
    };
    Figure {
        title: "Training loss, by number of layers".into(),
        subtitle: format!(
            "mean of {}, moving average of {} iterations; darker is deeper{}",
            counted(results.config.seeds as usize, "seed"),
            LossCurve::WINDOW,
            if highest > shown {
                format!("; losses above {HIGHEST_LOSS} drawn at {HIGHEST_LOSS}")
            } else {
                String::new()
            }
        ),
        description: "Training loss against the iteration for plain and residual nets of each depth.".into(),
        panels: results.series.iter().map(panel).collect(),
    }
}

/// Larger losses are drawn at this value, which is above the loss of guessing among ten classes, `ln 10 = 2.30`.
const HIGHEST_LOSS: f64 = 3.0;

fn curve_lines(results: &SweepResults, series: &Series) -> Vec<Line> {
    let last = (series.points.len().max(2) - 1) as f64;
    let line = |(i, point): (usize, &Point)| {
        let belongs = |curve: &&LossCurve| (curve.line(), curve.depth) == (series.line(), point.depth);
        let curve = results.curves.iter().find(belongs);
        Line {
            label: format!("{} layers", point.depth),
            color: palette::shaded(series.kind, i as f64 / last),
            points: curve.map_or_else(Vec::new, |curve| curve.points.iter().map(|&(x, y)| (x as f64, y)).collect()),
            ..Line::default()
        }
    };
    series.points.iter().enumerate().map(line).collect()
}

fn description(results: &SweepResults) -> String {
    let sentence = |s: &Series| {
        let points: Vec<String> =
            s.points.iter().map(|p| format!("{} layers {:.1} %", p.depth, 100.0 * p.train.mean)).collect();
        let line = format!("{}, {}", capital(blocks(s.family)), s.label());
        format!("{}: {}.", with_setting(&line, s.setting), points.join(", "))
    };
    let sentences: Vec<String> = results.series.iter().map(sentence).collect();
    format!("Training error against the number of layers. {}", sentences.join(" "))
}
