//! The scale of what blocks and layers hand on.

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{each, labels, listed, test_images},
};
use crate::{
    LabError,
    chart::{Axis, Figure, Line, Panel},
    figures,
};
use burn::tensor::Tensor;
use residual_model::Network;

/// What a block does to its input.
pub(super) struct BlockScale {
    name: String,
    /// Standard deviation of the output, over images, channels and places.
    pub(super) output: f64,
    /// `‖F(a)‖ / ‖a‖`: the main path, with its factor, against the input.
    pub(super) ratio: f64,
    /// Standard deviation of each layer's response (He et al. 2015, Fig. 7).
    pub(super) responses: Vec<f64>,
}

/// All blocks of a network in inference mode.
pub(super) fn by_block(network: &Network, images: &Tensor<4>) -> Vec<BlockScale> {
    let mut a = network.stem(images.clone());
    let mut scales = Vec::new();
    for block in network.blocks() {
        let branches = block.branches(a.clone());
        let ratio = moments(branches.main_path.clone()).norm() / moments(a.clone()).norm();
        let responses = block.responses(a).into_iter().map(|z| moments(z).deviation()).collect();
        a = block.join(branches);
        scales.push(BlockScale { name: block.name.clone(), output: moments(a.clone()).deviation(), ratio, responses });
    }
    scales
}

/// Sums over a tensor's values, which may be many.
struct Moments {
    count: f64,
    sum: f64,
    squares: f64,
}

fn moments(tensor: Tensor<4>) -> Moments {
    let data = tensor.into_data();
    let zero = Moments { count: 0.0, sum: 0.0, squares: 0.0 };
    data.iter::<f64>().fold(zero, |m, x| Moments { count: m.count + 1.0, sum: m.sum + x, squares: m.squares + x * x })
}

impl Moments {
    /// `‖x‖₂`
    fn norm(&self) -> f64 {
        self.squares.sqrt()
    }

    fn deviation(&self) -> f64 {
        let mean = self.sum / self.count;
        (self.squares / self.count - mean * mean).max(0.0).sqrt()
    }
}

/// A subject as it starts, or trained.
struct State {
    subject: usize,
    trained: bool,
    blocks: Vec<BlockScale>,
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    let mut jobs = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        jobs.push((i, false));
        jobs.extend(subject.is_trained().then_some((i, true)));
    }
    let blocks = each(jobs.len(), config, watch, |i| {
        let (subject, trained) = (&subjects[jobs[i].0], jobs[i].1);
        let images = subject.test_images(config.samples, &subject.device)?.images;
        let network = if trained { subject.network(&images) } else { subject.initial(&images) };
        Ok(by_block(&network, &images))
    })?;
    let states: Vec<State> =
        jobs.into_iter().zip(blocks).map(|((subject, trained), blocks)| State { subject, trained, blocks }).collect();

    let labels = labels(subjects);
    let panels = vec![
        panel(subjects, &labels, &states, "Output of each block", "standard deviation", "block", |b| vec![b.output]),
        panel(subjects, &labels, &states, "Response of each layer", "standard deviation", "layer", |b| {
            b.responses.clone()
        }),
        panel(subjects, &labels, &states, "Main path against input", "‖F(a)‖ / ‖a‖", "block", |b| {
            vec![b.ratio]
        }),
    ];
    let details = (0..subjects.len()).map(|i| sentence(&labels[i], i, &states)).collect();
    let ratio = |i: usize| {
        let state = states.iter().rfind(|state| state.subject == i)?;
        let ratio = median(state.blocks.iter().map(|block| block.ratio).collect());
        let fresh = if state.trained { "" } else { " (fresh)" };
        Some(format!("{:.0} % in {}{fresh}", 100.0 * ratio, labels[i]))
    };
    let finding = format!(
        "What a block computes has, in the median, this part of its input's norm: {}.",
        listed((0..subjects.len()).filter_map(ratio))
    );
    let figure = Figure {
        title: "Scale of activations".into(),
        subtitle: format!("{}; initial norms have these images' statistics", test_images(subjects, config.samples)),
        description: finding.clone(),
        columns: 2,
        panels,
    };
    Ok(Measurement { finding, details, figure, table: table(&labels, &states) })
}

fn panel(
    subjects: &[Subject],
    labels: &[String],
    states: &[State],
    title: &str,
    unit: &str,
    place: &str,
    quantity: impl Fn(&BlockScale) -> Vec<f64>,
) -> Panel {
    let line = |state: &State| {
        let subject = &subjects[state.subject];
        let word = if state.trained { "trained" } else { "initial" };
        let label = format!("{}, {word}", labels[state.subject]);
        let color = figures::shaded(subject.kind(), if state.trained { 0.8 } else { 0.1 });
        let named = state.blocks.iter().flat_map(|b| quantity(b).into_iter().map(|value| (&b.name, value)));
        let (points, tips) = named
            .enumerate()
            .map(|(x, (name, value))| {
                ((x as f64 + 1.0, value), format!("{label}, {place} {} ({name}): {value:.3}", x + 1))
            })
            .unzip();
        Line { points, tips, ..Line::new(&label, &color) }
    };
    let lines: Vec<Line> = states.iter().map(line).collect();
    let points = || lines.iter().flat_map(|line| &line.points).filter(|p| p.1.is_finite());
    let (last, most) = points().fold((1.0f64, 0.0f64), |(x, y), p| (x.max(p.0), y.max(p.1)));
    let least = points().map(|p| p.1).filter(|&y| y > 0.0).fold(f64::MAX, f64::min);
    // Scales that span decades are read on a logarithmic axis.
    let y = if most > 100.0 * least { Axis::log(unit, least, most) } else { Axis::from_zero(unit, most) };
    Panel::new(title.into(), Axis::until(place, last), y, lines)
}

/// `resnet56: trained, a block adds 0.31 of its input's norm (median), and layers respond with a deviation of 0.4 …`
fn sentence(label: &str, i: usize, states: &[State]) -> String {
    let say = |state: &State| {
        let word = if state.trained { "trained" } else { "at initialisation" };
        let ratio = median(state.blocks.iter().map(|b| b.ratio).collect());
        let response = median(state.blocks.iter().flat_map(|b| b.responses.clone()).collect());
        let (first, last) =
            (state.blocks.first().map_or(0.0, |b| b.output), state.blocks.last().map_or(0.0, |b| b.output));
        format!(
            "{word} a block's main path has {ratio:.2} of its input's norm, its layers respond with a deviation of \
             {response:.2} (medians), and the blocks' outputs deviate by {first:.2} at the first to {last:.2} at the last"
        )
    };
    let said: Vec<String> = states.iter().filter(|state| state.subject == i).map(say).collect();
    format!("{label}: {}.", said.join("; "))
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
    }
}

fn table(labels: &[String], states: &[State]) -> Vec<Vec<String>> {
    let header = ["network", "state", "block", "name", "output_std", "main_path_over_input", "response_stds"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for state in states {
        for (b, block) in state.blocks.iter().enumerate() {
            rows.push(vec![
                labels[state.subject].clone(),
                if state.trained { "trained" } else { "initial" }.into(),
                (b + 1).to_string(),
                block.name.clone(),
                format!("{:e}", block.output),
                format!("{:e}", block.ratio),
                block.responses.iter().map(|r| format!("{r:e}")).collect::<Vec<_>>().join(" "),
            ]);
        }
    }
    rows
}
