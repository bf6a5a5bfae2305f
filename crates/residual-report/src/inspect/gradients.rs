use super::{InspectionView, rows};
use crate::{
    chart::{Axis, Figure, Line, Panel, positive_range},
    palette,
    words::{counted, labels, listed},
};
use residual_lab::{GradientState, Gradients, Growth, LayerGradients, Spread, SubjectInfo};
use residual_model::{BlockKind, Family, Norm};
use residual_train::shown;

pub(super) fn view(subjects: &[SubjectInfo], gradients: &Gradients) -> InspectionView {
    let labels = labels(subjects);
    let finding = finding(&labels, gradients);
    let detail =
        |i: usize| detail(&subjects[i], &labels[i], [Norm::Batch, Norm::None].map(|norm| gradients.growth(i, norm)));
    InspectionView {
        details: (0..subjects.len()).map(detail).collect(),
        figure: figure(subjects, &labels, gradients, &finding),
        table: table(&labels, gradients),
        finding,
    }
}

fn finding(labels: &[String], gradients: &Gradients) -> String {
    let ratios = (0..labels.len()).map(|i| rounded(gradients.growth(i, Norm::Batch).ratio)).collect::<Vec<_>>();
    let first = ratios.iter().position(Option::is_some);
    let words = |(i, (label, ratio)): (usize, (&String, &Option<String>))| match ratio {
        Some(ratio) if Some(i) == first => format!("{ratio} times that of the last in {label}"),
        Some(ratio) => format!("{ratio} times in {label}"),
        None => format!("NaN or infinite in {label}"),
    };
    format!(
        "At initialisation with batch norm, the gradient norm of the blocks' first layer is {}.",
        listed(labels.iter().zip(&ratios).enumerate().map(words))
    )
}

/// `3.2`, `718` or `4e6`; `None` if the ratio is NaN or infinite.
fn rounded(ratio: f64) -> Option<String> {
    match ratio {
        r if !r.is_finite() => None,
        r if (0.1..10.0).contains(&r) => Some(format!("{r:.1}")),
        r if (10.0..10_000.0).contains(&r) => Some(format!("{r:.0}")),
        r => Some(format!("{r:.0e}")),
    }
}

/// `plain56: towards the input, the gradient grows by a factor of 1.133 ± 0.006 per layer with batch norm …`
fn detail(subject: &SubjectInfo, label: &str, [normed, bare]: [Growth; 2]) -> String {
    let plain = subject.kind == BlockKind::Plain;
    let theory = if plain && subject.family == Family::Dense {
        format!(
            " (covariance: {:.3}; theory for wide layers: π/(π-1) = {:.3})",
            normed.factor * normed.factor,
            std::f64::consts::PI / (std::f64::consts::PI - 1.0)
        )
    } else {
        String::new()
    };
    let interval = if normed.half_width.is_some() { " (95 % confidence intervals)" } else { "" };
    let explodes = normed.half_width.is_some_and(|half| normed.factor - half > 1.0) && normed.ratio > 10.0;
    let explodes = if plain && explodes { " The gradient explodes; it does not vanish." } else { "" };
    format!(
        "{label}: towards the input, the gradient grows {} per layer with batch norm{theory} and {} per layer without \
         batch norm{interval}.{explodes}",
        factor(normed),
        factor(bare)
    )
}

/// `by a factor of 1.133 ± 0.006`
fn factor(Growth { factor, half_width, .. }: Growth) -> String {
    match half_width {
        Some(half) if factor.is_finite() => format!("by a factor of {factor:.3} ± {half:.3}"),
        None if factor.is_finite() => format!("by a factor of {factor:.3}"),
        _ => "by a factor that is NaN or infinite".into(),
    }
}

fn figure(subjects: &[SubjectInfo], labels: &[String], gradients: &Gradients, finding: &str) -> Figure {
    let mut panels: Vec<Panel> = [(Norm::Batch, "with batch norm"), (Norm::None, "without batch norm")]
        .iter()
        .map(|(norm, words)| initial_panel(subjects, labels, gradients, *norm, words))
        .collect();
    panels.extend((0..subjects.len()).filter_map(|i| training_panel(&subjects[i], &labels[i], gradients, i)));
    Figure {
        title: "Gradient norm by layer".into(),
        subtitle: format!(
            "geometric mean over {}, {} training images; layers from input to output, main paths unscaled",
            counted(gradients.inits as usize, "initialisation"),
            gradients.images
        ),
        description: finding.into(),
        panels,
    }
}

fn initial_panel(subjects: &[SubjectInfo], labels: &[String], gradients: &Gradients, norm: Norm, words: &str) -> Panel {
    let colors = palette::colors(subjects);
    let line = |i: usize| {
        let inits: Vec<Vec<f64>> = gradients.at_initialisation(i, norm).collect();
        let layers = gradients.block_layers(i);
        let point = |layer: usize| {
            let logs: Vec<f64> = inits.iter().map(|norms| norms[layer].ln()).collect();
            let Spread { mean, std } = Spread::of(&logs);
            let tip = format!("{}, {}: {:.2e} ×/÷ {:.2}", labels[i], layers[layer], mean.exp(), std.exp());
            ((layer as f64 + 1.0, mean.exp()), tip)
        };
        let (points, tips) = (0..layers.len()).map(point).unzip();
        Line { points, tips, ..Line::new(&labels[i], &colors[i]) }
    };
    panel(format!("At initialisation, {words}"), (0..subjects.len()).map(line).collect())
}

/// One network with its own norm, at several steps of its training. `None` if there are fewer than two.
fn training_panel(subject: &SubjectInfo, label: &str, gradients: &Gradients, i: usize) -> Option<Panel> {
    let state = |measured: &LayerGradients| match measured.state {
        GradientState::Step(steps) => Some(format!("step {steps}")),
        GradientState::Trained => Some("trained".to_string()),
        GradientState::Initial { .. } => None,
    };
    let measured = gradients.norms.iter().filter(|measured| measured.network == i);
    let states: Vec<(String, &LayerGradients)> = measured.filter_map(|m| Some((state(m)?, m))).collect();
    let last = states.len().checked_sub(1).filter(|&last| last > 0)?;
    let layers = gradients.block_layers(i);
    let line = |(k, (state, measured)): (usize, &(String, &LayerGradients))| {
        let norms = gradients.block_norms(measured);
        let tip = |(layer, norm): (&String, &f64)| format!("{state}, {layer}: {norm:.2e}");
        Line {
            points: norms.iter().enumerate().map(|(l, norm)| (l as f64 + 1.0, *norm)).collect(),
            tips: layers.iter().zip(&norms).map(tip).collect(),
            ..Line::new(state, &palette::shaded(subject.kind, k as f64 / last as f64))
        }
    };
    Some(panel(format!("{label} during training"), states.iter().enumerate().map(line).collect()))
}

fn panel(title: String, lines: Vec<Line>) -> Panel {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (least, most) = positive_range(points().map(|p| p.1));
    let last = points().fold(1.0f64, |last, p| last.max(p.0));
    let y = Axis::log("gradient norm", least, most);
    Panel::new(title, Axis::until("layer of the blocks", last), y, lines)
}

fn table(labels: &[String], gradients: &Gradients) -> Vec<Vec<String>> {
    let of = |measured: &LayerGradients| {
        let (norm, seed, stage) = match measured.state {
            GradientState::Initial { norm, seed } => (norm.to_string(), seed.to_string(), "initial".to_string()),
            GradientState::Step(steps) => (String::new(), String::new(), format!("step {steps}")),
            GradientState::Trained => (String::new(), String::new(), "trained".to_string()),
        };
        let network = measured.network;
        let layers = gradients.layers[network].iter().zip(&measured.norms).enumerate();
        let row = move |(l, (layer, value)): (usize, (&String, &f64))| {
            let position = (l + 1).to_string();
            [
                labels[network].clone(),
                norm.clone(),
                seed.clone(),
                stage.clone(),
                position,
                shown(layer),
                format!("{value:e}"),
            ]
        };
        layers.map(row).collect::<Vec<_>>()
    };
    let header = ["network", "norm", "seed", "stage", "layer", "name", "gradient_norm"];
    rows(header, gradients.norms.iter().flat_map(of))
}
