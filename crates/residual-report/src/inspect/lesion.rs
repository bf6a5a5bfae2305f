use super::{InspectionView, rows};
use crate::{
    chart::{Axis, Figure, Line, Panel},
    palette,
    words::{counted, labels, listed, percent},
};
use residual_lab::{Lesion, LesionErrors, Spread, SubjectInfo};
use residual_train::shown;

pub(super) fn view(subjects: &[SubjectInfo], lesion: &Lesion) -> InspectionView {
    let labels = labels(subjects);
    let finding = finding(&labels, lesion);
    InspectionView {
        details: labels.iter().zip(&lesion.networks).map(|(label, errors)| detail(label, errors)).collect(),
        figure: figure(subjects, &labels, lesion, &finding),
        table: table(&labels, lesion),
        finding,
    }
}

fn without_one(errors: &LesionErrors) -> Spread {
    Spread::of(&errors.without_block.iter().map(|without| without.error).collect::<Vec<_>>())
}

fn finding(labels: &[String], lesion: &Lesion) -> String {
    let change = |(label, errors): (&String, &LesionErrors)| {
        format!("from {:.1} to {} in {label}", 100.0 * errors.intact, percent(without_one(errors).mean))
    };
    format!(
        "On average, removing one block changes the error on {} test images {}.",
        lesion.images,
        listed(labels.iter().zip(&lesion.networks).map(change))
    )
}

/// `resnet56: the test error is 5.0 % intact, 6.1 % on average without one block (at most 40.0 %, without layer2.0), …`
fn detail(label: &str, errors: &LesionErrors) -> String {
    let mut parts = vec![format!("{} intact", percent(errors.intact))];
    if let Some(worst) = errors.without_block.iter().max_by(|a, b| a.error.total_cmp(&b.error)) {
        let (mean, most) = (percent(without_one(errors).mean), percent(worst.error));
        parts.push(format!("{mean} on average without one block (at most {most}, without {})", shown(&worst.block)));
    }
    let several = errors.removed.len().min(5);
    if several > 1 {
        let mean = percent(Spread::of(&errors.removed[several - 1]).mean);
        parts.push(format!("{mean} without {several} of {} blocks", errors.without_block.len()));
    }
    if let Some(draws) = errors.swapped.first() {
        parts.push(format!("{} with two blocks swapped", percent(Spread::of(draws).mean)));
    }
    format!("{label}: the test error is {}.", listed(parts))
}

/// A point of a line: the number of blocks or the position of one, the error, and the text of the tooltip.
type LesionPoint = (f64, Spread, String);

fn figure(subjects: &[SubjectInfo], labels: &[String], lesion: &Lesion, finding: &str) -> Figure {
    let colors = palette::colors(subjects);
    let panel = |title: &str, x: &str, points: fn(&LesionErrors) -> Vec<LesionPoint>| {
        let lines = lesion.networks.iter().enumerate().map(|(i, errors)| line(&points(errors), &labels[i], &colors[i]));
        let lines: Vec<Line> = lines.filter(|line| !line.points.is_empty()).collect();
        let points = || lines.iter().flat_map(|line| &line.points);
        let (last, most) = points().fold((1.0f64, 0.0f64), |(x, y), p| (x.max(p.0), y.max(p.1)));
        Panel::new(title.into(), Axis::until(x, last), Axis::from_zero("test error, %", most), lines)
    };
    Figure {
        title: "Test error with blocks removed or swapped".into(),
        subtitle: format!("{} test images; means over {}", lesion.images, counted(lesion.draws, "random choice")),
        description: finding.into(),
        panels: vec![
            panel("One block removed", "block removed", without_each),
            panel("Several blocks removed", "random blocks removed", |errors| {
                several(&errors.removed, errors.intact, "blocks removed")
            }),
            panel("Blocks swapped", "random pairs swapped", |errors| {
                several(&errors.swapped, errors.intact, "pairs swapped")
            }),
        ],
    }
}

fn line(points: &[LesionPoint], label: &str, color: &str) -> Line {
    let tip = |(_, error, lesion): &LesionPoint| {
        let spread = if error.std > 0.0 { format!(" ± {:.1}", 100.0 * error.std) } else { String::new() };
        format!("{label}, {lesion}: {:.1}{spread} %", 100.0 * error.mean)
    };
    Line {
        points: points.iter().map(|(x, error, _)| (*x, 100.0 * error.mean)).collect(),
        tips: points.iter().map(tip).collect(),
        ..Line::new(label, color)
    }
}

fn without_each(errors: &LesionErrors) -> Vec<LesionPoint> {
    let blocks = errors.without_block.iter().enumerate();
    let point = |(i, without): (usize, &residual_lab::BlockError)| {
        let tip = format!("without block {} ({})", i + 1, shown(&without.block));
        (i as f64 + 1.0, Spread { mean: without.error, std: 0.0 }, tip)
    };
    blocks.map(point).collect()
}

fn several(errors: &[Vec<f64>], intact: f64, lesion: &str) -> Vec<LesionPoint> {
    if errors.is_empty() {
        return Vec::new();
    }
    let none = (0.0, Spread { mean: intact, std: 0.0 }, "intact".to_string());
    let points = errors.iter().enumerate();
    let points = points.map(|(k, draws)| (k as f64 + 1.0, Spread::of(draws), format!("{} {lesion}", k + 1)));
    std::iter::once(none).chain(points).collect()
}

fn table(labels: &[String], lesion: &Lesion) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (label, errors) in labels.iter().zip(&lesion.networks) {
        let mut row = |lesion: &str, count: usize, block: &str, draw: String, error: f64| {
            all.push([label.clone(), lesion.into(), count.to_string(), block.into(), draw, format!("{error:.6}")]);
        };
        row("none", 0, "", String::new(), errors.intact);
        for without in &errors.without_block {
            row("one removed", 1, &shown(&without.block), String::new(), without.error);
        }
        for (lesion, several) in [("removed", &errors.removed), ("swapped", &errors.swapped)] {
            for (k, draws) in several.iter().enumerate() {
                draws.iter().enumerate().for_each(|(d, error)| row(lesion, k + 1, "", (d + 1).to_string(), *error));
            }
        }
    }
    rows(["network", "damage", "count", "block", "draw", "test_error"], all)
}
