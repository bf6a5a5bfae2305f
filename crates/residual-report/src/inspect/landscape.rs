use super::{InspectionView, rows};
use crate::{
    chart::{Axis, Field, Figure, Line, Panel, positive_range},
    palette,
    words::{counted, labels, listed},
};
use residual_lab::{Landscape, SubjectInfo};

pub(super) fn view(subjects: &[SubjectInfo], landscape: &Landscape) -> InspectionView {
    let labels = labels(subjects);
    let finding = finding(subjects, &labels, landscape);
    InspectionView {
        details: (0..subjects.len()).map(|i| detail(&subjects[i], &labels[i], i, landscape)).collect(),
        figure: figure(subjects, &labels, landscape, &finding),
        table: table(&labels, landscape),
        finding,
    }
}

/// The loss of random guessing: `ln C` for C classes.
fn guessing(subject: &SubjectInfo) -> f64 {
    (subject.classes as f64).ln()
}

fn finding(subjects: &[SubjectInfo], labels: &[String], landscape: &Landscape) -> String {
    let share = |i: usize| {
        let percent = 100.0 * landscape.share_below(i, guessing(&subjects[i]));
        let area = if i == 0 { " of the square around the weights" } else { "" };
        format!("{percent:.0} %{area} in {}", labels[i])
    };
    format!("The loss is below that of random guessing on {}.", listed((0..subjects.len()).map(share)))
}

fn detail(subject: &SubjectInfo, label: &str, i: usize, landscape: &Landscape) -> String {
    let losses = &landscape.losses[i];
    let most = losses.iter().copied().filter(|loss| loss.is_finite()).fold(0.0, f64::max);
    let most = if most < 1e4 { format!("{most:.1}") } else { format!("{most:.0e}") };
    let unknown = match losses.iter().filter(|loss| !loss.is_finite()).count() {
        0 => String::new(),
        n => format!(" (NaN or infinite at {})", counted(n, "point")),
    };
    format!(
        "{label}: the loss is {:.3} at the weights and at most {most} in the square{unknown}; random guessing has a loss of \
         {:.2}.",
        landscape.at_weights(i),
        guessing(subject)
    )
}

/// Raises a loss to at least `least`. NaN stays NaN.
fn at_least(loss: f64, least: f64) -> f64 {
    if loss < least { least } else { loss }
}

fn figure(subjects: &[SubjectInfo], labels: &[String], landscape: &Landscape, finding: &str) -> Figure {
    let offsets = &landscape.offsets;
    let radius = offsets.last().copied().unwrap_or(1.0);
    let colors = palette::colors(subjects);
    let (least, most) = positive_range(landscape.losses.iter().flatten().copied());
    let (least, most) = (least.max(1e-4), most.clamp(1e-3, 1e4));
    let axis = |label: &str| Axis { range: (-radius, radius), ..Axis::covering(label, -radius, radius) };
    let line = |i: usize| {
        let points = || offsets.iter().zip(landscape.first_direction(i));
        let tip = |(x, loss): (&f64, &f64)| format!("{}, {x:.2} along the first direction: loss {loss:.3}", labels[i]);
        Line {
            points: points().map(|(x, loss)| (*x, at_least(*loss, least))).collect(),
            tips: points().map(tip).collect(),
            ..Line::new(&labels[i], &colors[i])
        }
    };
    let lines = Panel::new(
        "Along one direction".into(),
        axis("distance, in filter norms"),
        Axis::log("training loss", least, most),
        (0..subjects.len()).map(line).collect(),
    );
    let field = |i: usize| Panel {
        field: Some(Field {
            xs: offsets.clone(),
            ys: offsets.clone(),
            values: landscape.losses[i].iter().map(|loss| at_least(*loss, least).log10()).collect(),
            range: (least.log10(), most.log10()),
            label: "log₁₀ of the loss".into(),
        }),
        ..Panel::new(labels[i].clone(), axis("first direction"), axis("second direction"), Vec::new())
    };
    let points = offsets.len();
    Figure {
        title: "Loss around the weights".into(),
        subtitle: format!(
            "{} training images, {points} by {points} points, the same colour scale for all nets",
            landscape.images
        ),
        description: finding.into(),
        panels: (0..subjects.len()).map(field).chain([lines]).collect(),
    }
}

fn table(labels: &[String], landscape: &Landscape) -> Vec<Vec<String>> {
    let points = landscape.offsets.len();
    let offset = |i: usize| format!("{:.5}", landscape.offsets[i]);
    let of = |(label, losses): (&String, &Vec<f64>)| {
        let losses = losses.iter().enumerate();
        let row =
            |(k, loss): (usize, &f64)| [label.clone(), offset(k % points), offset(k / points), format!("{loss:e}")];
        losses.map(row).collect::<Vec<_>>()
    };
    rows(["network", "x", "y", "loss"], labels.iter().zip(&landscape.losses).flat_map(of))
}
