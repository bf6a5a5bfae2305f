//! The loss around the weights, along filter-normalised random directions (Li et al. 2018, "Visualizing the Loss
//! Landscape of Neural Nets", section 4).
//!
//! Each filter of a direction is drawn from N(0, 1) and brought to the norm of the filter it moves; norms and biases
//! stay. Losses are those of training images in inference mode.

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{colors, cross_entropies, each, labels, listed, norm, training_images, values},
};
use crate::{
    LabError,
    chart::{Axis, Field, Figure, Line, Panel},
    figures,
};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData, s},
};
use rand_distr::{Distribution, StandardNormal};
use residual_data::Batch;
use residual_model::{Network, init::parameter_rng, parameters::for_each_parameter};
use std::collections::HashMap;

/// How far from the weights, in units of each filter's norm.
const RADIUS: f64 = 1.0;

/// Images that go through the network at once.
const CHUNK: usize = 256;

/// A network, and two directions from its weights.
pub(super) struct Plane {
    network: Network,
    /// By a weight's path: its values, and how it moves along each direction.
    weights: HashMap<String, [Vec<f32>; 3]>,
}

impl Plane {
    /// Draws the directions by a seed.
    pub(super) fn new(network: Network, seed: u64) -> Self {
        let mut weights = HashMap::new();
        for_each_parameter(&network, |parameter| {
            if parameter.path.ends_with(".weight") {
                let values: Vec<f32> = parameter.data().iter::<f32>().collect();
                let directions = [1, 2].map(|k| direction(&values, &parameter.shape, seed, parameter.path, k));
                let [first, second] = directions;
                weights.insert(parameter.path.to_string(), [values, first, second]);
            }
        });
        Self { network, weights }
    }

    /// The network at `weights + x · first + y · second`.
    pub(super) fn at(&self, x: f64, y: f64) -> Network {
        self.network.clone().map(&mut Move { weights: &self.weights, x: x as f32, y: y as f32, path: Vec::new() })
    }
}

/// A random direction of a weight's, each filter as long as the weight's own. A filter is all that one output takes: a
/// row of a convolution's `[out, in, height, width]`, a column of a linear layer's `[in, out]`.
fn direction(weight: &[f32], shape: &[usize], seed: u64, path: &str, number: u32) -> Vec<f32> {
    let mut rng = parameter_rng(seed, &format!("direction {number} of {path}"));
    let mut drawn: Vec<f32> = weight.iter().map(|_| StandardNormal.sample(&mut rng)).collect();
    let filters = if shape.len() == 2 { shape[1] } else { shape[0] };
    let size = weight.len() / filters.max(1);
    for filter in 0..filters {
        let place = |k: usize| if shape.len() == 2 { k * filters + filter } else { filter * size + k };
        let length = |values: &[f32]| norm(&(0..size).map(|k| f64::from(values[place(k)])).collect::<Vec<_>>());
        let factor = (length(weight) / length(&drawn).max(f64::MIN_POSITIVE)) as f32;
        (0..size).for_each(|k| drawn[place(k)] *= factor);
    }
    drawn
}

struct Move<'a> {
    weights: &'a HashMap<String, [Vec<f32>; 3]>,
    x: f32,
    y: f32,
    path: Vec<String>,
}

impl ModuleMapper for Move<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some([weight, first, second]) = self.weights.get(&self.path.join(".")) else { return param };
        let moved = weight.iter().zip(first).zip(second).map(|((w, a), b)| w + self.x * a + self.y * b);
        let moved: Vec<f32> = moved.collect();
        param.map(|tensor| Tensor::from_data(TensorData::new(moved, tensor.dims()), &tensor.device()))
    }
}

/// Mean cross-entropy of a batch, in nats.
fn loss(network: &Network, batch: &Batch) -> f64 {
    let samples = batch.images.dims()[0];
    let mut sum = 0.0;
    for start in (0..samples).step_by(CHUNK) {
        let end = (start + CHUNK).min(samples);
        let logits = network.forward(batch.images.clone().slice(s![start..end]));
        sum += values(cross_entropies(logits, batch.labels.clone().slice(s![start..end]))).iter().sum::<f64>();
    }
    sum / samples as f64
}

/// A function over the square of `points` by `points` around the weights, row by row, y outer.
pub(super) fn scan(
    plane: &Plane,
    points: usize,
    config: &InspectConfig,
    watch: Watch<'_>,
    f: impl Fn(&Network) -> f64 + Sync,
) -> Result<Vec<f64>, LabError> {
    let at = |i: usize| offset(i, points);
    each(points * points, config, watch, |job| Ok(f(&plane.at(at(job % points), at(job / points)))))
}

/// What is not a number stays so.
fn at_least(loss: f64, least: f64) -> f64 {
    if loss < least { least } else { loss }
}

/// From -RADIUS to RADIUS.
pub(super) fn offset(i: usize, points: usize) -> f64 {
    RADIUS * (2.0 * i as f64 / (points - 1) as f64 - 1.0)
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    // With a point in the middle.
    let points = config.points | 1;
    let mut fields = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let batch = subject.training_images(config.samples, &subject.device)?;
        let plane = Plane::new(subject.network(&batch.images), subject.config.seed);
        let all = subjects.len() * points * points;
        let watch = |done: usize, of: usize| watch(i * of + done, all);
        fields.push(scan(&plane, points, config, &watch, |network| loss(network, &batch))?);
    }

    let (labels, colors) = (labels(subjects), colors(subjects));
    let places: Vec<f64> = (0..points).map(|i| offset(i, points)).collect();
    let guessing = |i: usize| (subjects[i].config.network.classes as f64).ln();
    let finite = || fields.iter().flatten().filter(|loss| loss.is_finite() && **loss > 0.0);
    let (least, most) = finite().fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), &loss| (a.min(loss), b.max(loss)));
    let (least, most) = (least.min(most).max(1e-4), most.clamp(1e-3, 1e4));
    let lines = (0..subjects.len()).map(|i| {
        let row = &fields[i][points / 2 * points..(points / 2 + 1) * points];
        let tip = |(x, loss): (&f64, &f64)| format!("{}, {x:.2} along the first direction: loss {loss:.3}", labels[i]);
        Line {
            points: places.iter().zip(row).map(|(x, loss)| (*x, at_least(*loss, least))).collect(),
            tips: places.iter().zip(row).map(tip).collect(),
            ..Line::new(&labels[i], &colors[i])
        }
    });
    let axis = |label: &str| Axis { range: (-RADIUS, RADIUS), ..Axis::covering(label, -RADIUS, RADIUS) };
    let line = Panel::new(
        "Along one direction".into(),
        axis("distance, in filters' norms"),
        Axis::log("training loss", least, most),
        lines.collect(),
    );
    let field = |i: usize| Panel {
        field: Some(Field {
            xs: places.clone(),
            ys: places.clone(),
            values: fields[i].iter().map(|loss| at_least(*loss, least).log10()).collect(),
            range: (least.log10(), most.log10()),
            label: "log₁₀ of the loss".into(),
        }),
        ..Panel::new(labels[i].clone(), axis("first direction"), axis("second direction"), Vec::new())
    };
    let basin = |i: usize| {
        let below = fields[i].iter().filter(|loss| **loss < guessing(i)).count();
        format!("{:.0} % in {}", 100.0 * below as f64 / fields[i].len() as f64, labels[i])
    };
    let finding = format!(
        "The loss is below that of guessing in this part of the square around the weights: {}.",
        listed((0..subjects.len()).map(basin))
    );
    let sentence = |i: usize| {
        let centre = fields[i][fields[i].len() / 2];
        let farthest = fields[i].iter().copied().filter(|loss| loss.is_finite()).fold(0.0, f64::max);
        let farthest = if farthest < 1e4 { format!("{farthest:.1}") } else { format!("{farthest:.0e}") };
        let lost = match fields[i].iter().filter(|loss| !loss.is_finite()).count() {
            0 => String::new(),
            n => format!("; at {} it is no number", figures::counted(n, "point")),
        };
        format!(
            "{}: the loss is {centre:.3} at the weights and up to {farthest} in the square{lost}; that of guessing is {:.2}.",
            labels[i],
            guessing(i)
        )
    };
    let details = (0..subjects.len()).map(sentence).collect();
    let mut table = vec![["network", "x", "y", "loss"].map(String::from).to_vec()];
    for (label, field) in labels.iter().zip(&fields) {
        for (k, loss) in field.iter().enumerate() {
            let place = |i: usize| format!("{:.5}", places[i]);
            table.push(vec![label.clone(), place(k % points), place(k / points), format!("{loss:e}")]);
        }
    }
    let figure = Figure {
        title: "The loss around the weights".into(),
        subtitle: format!(
            "{}, {points} by {points} points, one colour scale",
            training_images(subjects, config.samples)
        ),
        description: finding.clone(),
        columns: 2,
        panels: (0..subjects.len()).map(field).chain([line]).collect(),
    };
    Ok(Measurement { finding, details, figure, table })
}
