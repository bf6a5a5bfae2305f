use super::{InspectionView, rows};
use crate::{
    chart::{Axis, Figure, Line, Panel},
    palette,
    words::{labels, listed},
};
use residual_lab::{ActivationState, Activations, BlockScale, SubjectInfo};
use residual_train::shown;

pub(super) fn view(subjects: &[SubjectInfo], activations: &Activations) -> InspectionView {
    let labels = labels(subjects);
    let finding = finding(&labels, activations);
    InspectionView {
        details: (0..subjects.len()).map(|i| detail(&labels[i], i, activations)).collect(),
        figure: figure(subjects, &labels, activations, &finding),
        table: table(&labels, activations),
        finding,
    }
}

fn finding(labels: &[String], activations: &Activations) -> String {
    let ratio = |(i, label): (usize, &String)| {
        let state = activations.states.iter().rfind(|state| state.network == i)?;
        let initial = if state.trained { "" } else { " at initialisation" };
        Some(format!("{:.2} in {label}{initial}", state.median_ratio()))
    };
    let ratios = listed(labels.iter().enumerate().filter_map(ratio));
    format!("The median ratio of a block's main-path norm to its input norm is {ratios}.")
}

/// `resnet56: at initialisation, the median ratio of main path to input is 0.55, …; after training, the median ratio …`
fn detail(label: &str, i: usize, activations: &Activations) -> String {
    let of = |state: &ActivationState| {
        let word = if state.trained { "after training" } else { "at initialisation" };
        let output = |block: Option<&BlockScale>| block.map_or(0.0, |block| block.output);
        format!(
            "{word}, the median ratio of main path to input is {:.2}, the median standard deviation of the layers' \
             responses is {:.2}, and the standard deviation of the blocks' outputs is {:.2} in the first block and {:.2} in \
             the last",
            state.median_ratio(),
            state.median_response(),
            output(state.blocks.first()),
            output(state.blocks.last())
        )
    };
    let states = activations.states.iter().filter(|state| state.network == i).map(of);
    format!("{label}: {}.", states.collect::<Vec<_>>().join("; "))
}

fn figure(subjects: &[SubjectInfo], labels: &[String], activations: &Activations, finding: &str) -> Figure {
    let panel = |title: &str, unit: &str, place: &str, quantity: fn(&BlockScale) -> Vec<f64>| {
        panel(subjects, labels, activations, (title, unit, place), quantity)
    };
    Figure {
        title: "Scale of activations".into(),
        subtitle: format!(
            "{} test images; at initialisation, norms use the statistics of these images",
            activations.images
        ),
        description: finding.into(),
        panels: vec![
            panel("Output of each block", "standard deviation", "block", |block| vec![block.output]),
            panel("Response of each layer", "standard deviation", "layer", |block| block.responses.clone()),
            panel("Main path over input", "‖F(a)‖ / ‖a‖", "block", |block| vec![block.ratio]),
        ],
    }
}

fn panel(
    subjects: &[SubjectInfo],
    labels: &[String],
    activations: &Activations,
    (title, unit, place): (&str, &str, &str),
    quantity: fn(&BlockScale) -> Vec<f64>,
) -> Panel {
    let line = |state: &ActivationState| {
        let word = if state.trained { "trained" } else { "initial" };
        let label = format!("{}, {word}", labels[state.network]);
        let color = palette::shaded(subjects[state.network].kind, if state.trained { 0.8 } else { 0.1 });
        let named = state.blocks.iter().flat_map(|b| quantity(b).into_iter().map(|value| (&b.name, value)));
        let (points, tips) = named
            .enumerate()
            .map(|(x, (name, value))| {
                ((x as f64 + 1.0, value), format!("{label}, {place} {} ({}): {value:.3}", x + 1, shown(name)))
            })
            .unzip();
        Line { points, tips, ..Line::new(&label, &color) }
    };
    let lines: Vec<Line> = activations.states.iter().map(line).collect();
    let points = || lines.iter().flat_map(|line| &line.points).filter(|p| p.1.is_finite());
    let (last, most) = points().fold((1.0f64, 0.0f64), |(x, y), p| (x.max(p.0), y.max(p.1)));
    let least = points().map(|p| p.1).filter(|&y| y > 0.0).fold(f64::MAX, f64::min);
    let y = if most > 100.0 * least { Axis::log(unit, least, most) } else { Axis::from_zero(unit, most) };
    Panel::new(title.into(), Axis::until(place, last), y, lines)
}

fn table(labels: &[String], activations: &Activations) -> Vec<Vec<String>> {
    let of = |state: &ActivationState| {
        let (label, trained) = (labels[state.network].clone(), state.trained);
        let row = move |(b, block): (usize, &BlockScale)| {
            [
                label.clone(),
                if trained { "trained" } else { "initial" }.into(),
                (b + 1).to_string(),
                shown(&block.name),
                format!("{:e}", block.output),
                format!("{:e}", block.ratio),
                block.responses.iter().map(|r| format!("{r:e}")).collect::<Vec<_>>().join(" "),
            ]
        };
        state.blocks.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    let header = ["network", "state", "block", "name", "output_std", "main_path_over_input", "response_stds"];
    rows(header, activations.states.iter().flat_map(of))
}
