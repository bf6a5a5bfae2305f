//! A trained network without some of its blocks, or with blocks swapped (Veit et al. 2016, section 4).

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{colors, each, labels, listed, test_images, values},
};
use crate::{
    LabError,
    chart::{Axis, Figure, Line, Panel},
    statistics::Spread,
};
use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use residual_data::Batch;
use residual_model::{BlockView, Network, init::parameter_rng};

/// The most blocks that are removed or swapped at once.
const MOST: usize = 20;

/// Test errors of a damaged network, as fractions.
pub(super) struct Damage {
    /// Undamaged.
    pub(super) whole: f64,
    /// Without one block.
    pub(super) without: Vec<(String, f64)>,
    /// Without k random blocks, for k from 1.
    removed: Vec<Vec<f64>>,
    /// After k random swaps of two blocks of one shape.
    swapped: Vec<Vec<f64>>,
}

/// Runs a network in inference mode in any order of its blocks.
struct Bench<'a> {
    network: &'a Network,
    blocks: Vec<BlockView<'a>>,
    /// What each block takes in the undamaged network.
    inputs: Vec<Tensor<4>>,
    labels: Vec<usize>,
}

impl<'a> Bench<'a> {
    fn new(network: &'a Network, batch: Batch) -> Self {
        let blocks = network.blocks();
        let mut inputs = vec![network.stem(batch.images)];
        for block in &blocks {
            inputs.push(block.forward(inputs[inputs.len() - 1].clone()));
        }
        let labels = values(batch.labels.float()).into_iter().map(|label| label as usize).collect();
        Self { network, blocks, inputs, labels }
    }

    /// The error of the network from a block on, which are taken in this order, some of them bypassed.
    fn error(&self, from: usize, rest: impl Iterator<Item = (usize, bool)>) -> f64 {
        let a = rest.fold(self.inputs[from].clone(), |a, (i, there)| match there {
            true => self.blocks[i].forward(a),
            false => self.blocks[i].bypass(a),
        });
        let scores = self.network.head(a);
        let [samples, classes] = scores.dims();
        let scores = values(scores);
        let wrong = scores.chunks(classes).zip(&self.labels).filter(|(scores, label)| {
            let best = (0..classes).fold(0, |best, c| if scores[c] > scores[best] { c } else { best });
            best != **label
        });
        wrong.count() as f64 / samples as f64
    }

    /// Groups of blocks that may swap places: those whose input and output have the same shape, by that shape.
    fn interchangeable(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<([usize; 4], Vec<usize>)> = Vec::new();
        for i in 0..self.blocks.len() {
            let (shape, after) = (self.inputs[i].dims(), self.inputs[i + 1].dims());
            if shape != after {
                continue;
            }
            match groups.iter_mut().find(|(other, _)| *other == shape) {
                Some((_, group)) => group.push(i),
                None => groups.push((shape, vec![i])),
            }
        }
        groups.into_iter().map(|(_, group)| group).filter(|group| group.len() > 1).collect()
    }
}

/// Damages a trained network. The random choices depend on the seed alone.
pub(super) fn damage(network: &Network, batch: Batch, draws: usize, seed: u64) -> Damage {
    let bench = Bench::new(network, batch);
    let count = bench.blocks.len();
    let whole = bench.error(count, std::iter::empty());
    let without =
        |i: usize| (bench.blocks[i].name.clone(), bench.error(i, (i..count).map(|block| (block, block != i))));
    let mut order: Vec<usize> = (0..count).collect();

    let mut rng = parameter_rng(seed, "lesion");
    let mut removed = Vec::new();
    for k in 1..=MOST.min(count) {
        let mut errors = Vec::new();
        for _ in 0..draws {
            order.shuffle(&mut rng);
            let gone = &order[..k];
            let first = gone.iter().min().copied().unwrap_or(0);
            errors.push(bench.error(first, (first..count).map(|block| (block, !gone.contains(&block)))));
        }
        removed.push(errors);
    }
    let groups = bench.interchangeable();
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for group in &groups {
        for (at, &i) in group.iter().enumerate() {
            pairs.extend(group[at + 1..].iter().map(|&j| (i, j)));
        }
    }
    let mut swapped = Vec::new();
    for k in 1..=MOST.min(pairs.len()) {
        let mut errors = Vec::new();
        for _ in 0..draws {
            let mut order: Vec<usize> = (0..count).collect();
            for _ in 0..k {
                pairs.shuffle(&mut rng);
                order.swap(pairs[0].0, pairs[0].1);
            }
            errors.push(bench.error(0, order.into_iter().map(|block| (block, true))));
        }
        swapped.push(errors);
    }
    Damage { whole, without: (0..count).map(without).collect(), removed, swapped }
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    if let Some(fresh) = subjects.iter().find(|subject| !subject.is_trained()) {
        let name = fresh.name();
        return Err(LabError::Setting(format!(
            "lesions need a trained network; train {name} with `residual train --net {name}` and name its folder"
        )));
    }
    let damages = each(subjects.len(), config, watch, |i| {
        let subject = &subjects[i];
        let batch = subject.test_images(config.samples, &subject.device)?;
        let network = subject.network(&batch.images);
        Ok(damage(&network, batch, config.draws, subject.config.seed))
    })?;

    let (labels, colors) = (labels(subjects), colors(subjects));
    let lines = |points: &dyn Fn(&Damage) -> Vec<(f64, Spread, String)>| -> Vec<Line> {
        let line = |i: usize| {
            let found = points(&damages[i]);
            let tip = |(_, error, what): &(f64, Spread, String)| {
                let spread = if error.std > 0.0 { format!(" ± {:.1}", 100.0 * error.std) } else { String::new() };
                format!("{}, {what}: {:.1}{spread} %", labels[i], 100.0 * error.mean)
            };
            Line {
                points: found.iter().map(|(x, error, _)| (*x, 100.0 * error.mean)).collect(),
                tips: found.iter().map(tip).collect(),
                ..Line::new(&labels[i], &colors[i])
            }
        };
        (0..subjects.len()).map(line).filter(|line| !line.points.is_empty()).collect()
    };
    let some = |several: &[Vec<f64>], whole: f64, what: &str| -> Vec<(f64, Spread, String)> {
        if several.is_empty() {
            return Vec::new();
        }
        let none = (0.0, Spread { mean: whole, std: 0.0 }, "undamaged".to_string());
        let points = several.iter().enumerate();
        let points = points.map(|(k, errors)| (k as f64 + 1.0, Spread::of(errors), format!("{} {what}", k + 1)));
        std::iter::once(none).chain(points).collect()
    };
    let one = |damage: &Damage| -> Vec<(f64, Spread, String)> {
        let blocks = damage.without.iter().enumerate();
        let point = |(i, (name, error)): (usize, &(String, f64))| {
            (i as f64 + 1.0, Spread { mean: *error, std: 0.0 }, format!("without block {} ({name})", i + 1))
        };
        blocks.map(point).collect()
    };
    let panels = vec![
        panel("Without one block", "block removed", lines(&one)),
        panel("Without several", "random blocks removed", lines(&|d| some(&d.removed, d.whole, "blocks removed"))),
        panel("In another order", "random pairs swapped", lines(&|d| some(&d.swapped, d.whole, "pairs swapped"))),
    ];
    let details = (0..subjects.len()).map(|i| sentence(&labels[i], &damages[i])).collect();
    let rise = |i: usize| {
        let errors: Vec<f64> = damages[i].without.iter().map(|(_, error)| *error).collect();
        let (whole, without) = (100.0 * damages[i].whole, 100.0 * Spread::of(&errors).mean);
        format!("from {whole:.1} to {without:.1} % in {}", labels[i])
    };
    let finding =
        format!("Without one block the test error goes on average {}.", listed((0..subjects.len()).map(rise)));
    let figure = Figure {
        title: "Test error of a damaged network".into(),
        subtitle: format!("{}; means over {} random choices", test_images(subjects, config.samples), config.draws),
        description: finding.clone(),
        columns: 2,
        panels,
    };
    Ok(Measurement { finding, details, figure, table: table(&labels, &damages) })
}

fn panel(title: &str, x: &str, lines: Vec<Line>) -> Panel {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (last, most) = points().fold((1.0f64, 0.0f64), |(x, y), p| (x.max(p.0), y.max(p.1)));
    Panel::new(title.into(), Axis::until(x, last), Axis::from_zero("test error, %", most), lines)
}

/// `resnet56: 5.0 % whole; without one block 6.1 % on average and 40.0 % at worst (layer2.0) …`
fn sentence(label: &str, damage: &Damage) -> String {
    let percent = |error: f64| format!("{:.1} %", 100.0 * error);
    let errors: Vec<f64> = damage.without.iter().map(|(_, error)| *error).collect();
    let mean = Spread::of(&errors).mean;
    let worst = damage.without.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let worst = worst.map(|(name, error)| format!("{} at worst ({name})", percent(*error))).unwrap_or_default();
    let several = damage.removed.len().min(5);
    let removed = damage.removed.get(several.saturating_sub(1)).map(|errors| percent(Spread::of(errors).mean));
    let removed = removed.map(|error| format!("; without {several} of {} blocks {error}", errors.len()));
    let swapped =
        damage.swapped.first().map(|errors| format!("; with two blocks swapped {}", percent(Spread::of(errors).mean)));
    format!(
        "{label}: test error {} whole; without one block {} on average and {worst}{}{}.",
        percent(damage.whole),
        percent(mean),
        removed.unwrap_or_default(),
        swapped.unwrap_or_default()
    )
}

fn table(labels: &[String], damages: &[Damage]) -> Vec<Vec<String>> {
    let mut rows = vec![["network", "damage", "count", "block", "draw", "test_error"].map(String::from).to_vec()];
    for (label, damage) in labels.iter().zip(damages) {
        let mut row = |what: &str, count: usize, block: &str, draw: String, error: f64| {
            rows.push(vec![label.clone(), what.into(), count.to_string(), block.into(), draw, format!("{error:.6}")]);
        };
        row("none", 0, "", String::new(), damage.whole);
        damage.without.iter().for_each(|(name, error)| row("one removed", 1, name, String::new(), *error));
        for (what, several) in [("removed", &damage.removed), ("swapped", &damage.swapped)] {
            for (k, errors) in several.iter().enumerate() {
                errors.iter().enumerate().for_each(|(d, error)| row(what, k + 1, "", (d + 1).to_string(), *error));
            }
        }
    }
    rows
}
