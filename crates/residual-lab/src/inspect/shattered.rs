//! How gradients at neighbouring inputs agree (Balduzzi et al. 2017, "The Shattered Gradients Problem").
//!
//! Inputs lie on a line through two training images, which are at t = -1 and t = 1; f is the score of the second one's
//! class.

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{colors, each, labels, listed, norm, values},
};
use crate::{
    LabError,
    chart::{Axis, Figure, Line, Panel},
    figures,
    statistics::Spread,
};
use burn::{
    module::Module,
    tensor::{Tensor, s},
};
use residual_data::Batch;
use residual_model::Network;

/// Inputs on a line.
const POINTS: usize = 256;
/// t runs from -2 to 2.
const REACH: f64 = 2.0;
/// The largest distance of two inputs whose gradients are compared, in points.
const LAGS: usize = 64;
/// Of neighbouring points, in t.
const SPACING: f64 = 2.0 * REACH / (POINTS - 1) as f64;

/// `df/dt` at the points of a line from one image to another. The network is in inference mode, on a device that
/// records gradients.
fn derivative(network: &Network, batch: &Batch, from: usize, to: usize) -> Vec<f64> {
    let image = |i: usize| batch.images.clone().slice(s![i..i + 1]);
    let [_, channels, height, width] = batch.images.dims();
    let (middle, half) = ((image(from) + image(to)).div_scalar(2), (image(to) - image(from)).div_scalar(2));
    let t: Vec<f32> = (0..POINTS).map(|i| position(i) as f32).collect();
    let t = Tensor::<1>::from_data(&t[..], &batch.images.device()).reshape([POINTS, 1, 1, 1]);
    let line = middle.expand([POINTS, channels, height, width])
        + half.clone().expand([POINTS, channels, height, width]) * t.expand([POINTS, channels, height, width]);
    let line = line.detach().require_grad();
    let class = values(batch.labels.clone().float())[to] as usize;
    let scores = network.forward(line.clone()).slice(s![.., class..class + 1]).sum();
    let Some(gradient) = line.grad(&scores.backward()) else { return vec![0.0; POINTS] };
    let (gradient, direction) = (values(gradient), values(half));
    let along = |gradient: &[f64]| gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
    gradient.chunks(direction.len()).map(along).collect()
}

fn position(point: usize) -> f64 {
    REACH * (2.0 * point as f64 / (POINTS - 1) as f64 - 1.0)
}

/// `Σ (xᵢ - m)(xᵢ₊ₖ - m) / Σ (xᵢ - m)²` for the lags k from 0, m the mean; `None` if all values are alike.
pub(super) fn autocorrelation(values: &[f64], lags: usize) -> Option<Vec<f64>> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let power = centred.iter().map(|c| c * c).sum::<f64>();
    if !power.is_finite() || power <= f64::EPSILON * norm(values).powi(2) {
        return None;
    }
    let at = |lag: usize| centred.iter().zip(&centred[lag..]).map(|(a, b)| a * b).sum::<f64>() / power;
    Some((0..=lags.min(values.len() - 1)).map(at).collect())
}

/// The derivative along each line, over initialisations or of the trained network.
fn lines(subject: &Subject, config: &InspectConfig, draw: usize) -> Result<Vec<f64>, LabError> {
    let device = subject.device.clone().autodiff();
    let network = match subject.trained() {
        Some(trained) => trained,
        None => {
            let images = subject.training_images(config.samples, &subject.device)?.images;
            let seed = subject.config.network.init.seed.wrapping_add(draw as u64);
            subject.config.clone().with_seed(seed).init(&device).calibrated(images)
        }
    };
    let batch = subject.training_images(config.samples, &device)?;
    // Pairs of images far apart in the file.
    let count = batch.images.dims()[0];
    let (from, to) = (draw % count, (draw * 7 + count / 2) % count);
    let to = if to == from { (to + 1) % count } else { to };
    Ok(derivative(&network.train().freeze(), &batch, from, to))
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    let draws = config.draws;
    let traces = each(subjects.len() * draws, config, watch, |job| lines(&subjects[job / draws], config, job % draws))?;
    let (labels, colors) = (labels(subjects), colors(subjects));
    let mut panels = Vec::new();
    let (mut correlations, mut near, mut details) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..subjects.len() {
        let traces = &traces[i * draws..(i + 1) * draws];
        let found: Vec<Vec<f64>> = traces.iter().filter_map(|trace| autocorrelation(trace, LAGS)).collect();
        let mean = |lag: usize| match found.is_empty() {
            true => f64::NAN,
            false => Spread::of(&found.iter().map(|r| r[lag]).collect::<Vec<_>>()).mean,
        };
        let points: Vec<(f64, f64)> = (0..=LAGS).map(|lag| (lag as f64 * SPACING, mean(lag))).collect();
        if found.is_empty() {
            details.push(format!("{}: the gradient is the same everywhere on a line, or no number.", labels[i]));
        } else {
            let first: Vec<f64> = found.iter().map(|r| r[1]).collect();
            let reach =
                points.iter().find(|(_, r)| *r < 0.5).map(|(d, _)| format!("falls below 1/2 at a distance of {d:.2}"));
            // Rounded here, so that no zero is negative.
            let mean = (100.0 * Spread::of(&first).mean).round() / 100.0 + 0.0;
            near.push(format!("{mean:.2} in {}", labels[i]));
            details.push(format!(
                "{}: the correlation of neighbours is {mean:.2} ± {:.2} (95 %), and {}.",
                labels[i],
                Spread::half_width(&first),
                reach.unwrap_or_else(|| format!("stays above 1/2 up to a distance of {:.2}", LAGS as f64 * SPACING)),
            ));
        }
        let tips = points.iter().map(|(d, r)| format!("{}, {d:.2} apart: {r:.2}", labels[i])).collect();
        correlations.push(Line { points, tips, ..Line::new(&labels[i], &colors[i]) });
        panels.push(trace_panel(&labels[i], &colors[i], &traces[0]));
    }
    let correlations = Panel::new(
        "Autocorrelation".into(),
        Axis::until("distance of inputs, in t", LAGS as f64 * SPACING),
        Axis::covering("correlation of gradients", -0.2, 1.0),
        correlations,
    );
    panels.insert(0, correlations);
    let finding = match near.is_empty() {
        true => "The gradient is the same at all inputs of a line, or no number.".into(),
        false => format!(
            "The correlation of gradients at neighbouring inputs, {:.3} apart, is {}.",
            SPACING,
            listed(near.into_iter())
        ),
    };
    let figure = Figure {
        title: "Gradients along a line of inputs".into(),
        subtitle: format!(
            "{POINTS} inputs on a line through two images, which lie at t = -1 and 1; {}, each of another initialisation if \
             fresh",
            figures::counted(draws, "line")
        ),
        description: finding.clone(),
        columns: 2,
        panels,
    };
    let mut table = vec![["network", "line", "t", "derivative"].map(String::from).to_vec()];
    for (job, trace) in traces.iter().enumerate() {
        for (point, value) in trace.iter().enumerate() {
            let t = format!("{:.5}", position(point));
            table.push(vec![labels[job / draws].clone(), (job % draws + 1).to_string(), t, format!("{value:e}")]);
        }
    }
    Ok(Measurement { finding, details, figure, table })
}

/// The first line's derivative, in units of its standard deviation.
fn trace_panel(label: &str, color: &str, trace: &[f64]) -> Panel {
    let Spread { mean, std } = Spread::of(trace);
    let scale = if std > 0.0 { std } else { 1.0 };
    let points: Vec<(f64, f64)> =
        trace.iter().enumerate().map(|(i, value)| (position(i), (value - mean) / scale)).collect();
    let tips = points.iter().map(|(t, y)| format!("{label}, t = {t:.2}: {y:.2} deviations")).collect();
    let (least, most) = points.iter().fold((-1.0f64, 1.0f64), |(a, b), p| (a.min(p.1), b.max(p.1)));
    let line = Line { points, tips, ..Line::new(label, color) };
    let x = Axis { range: (-REACH, REACH), ..Axis::covering("t", -REACH, REACH) };
    Panel::new(format!("df/dt, {label}"), x, Axis::covering("standard deviations", least, most), vec![line])
}
