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
    pub(super) removed: Vec<Vec<f64>>,
    /// After k random swaps of two blocks of one shape.
    pub(super) swapped: Vec<Vec<f64>>,
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

    /// The error of the network with its blocks in this order, those bypassed that are not to be there.
    fn error(&self, order: &[(usize, bool)]) -> f64 {
        let same = order.iter().enumerate().take_while(|(place, block)| **block == (*place, true)).count();
        let a = order[same..].iter().fold(self.inputs[same].clone(), |a, &(i, there)| match there {
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

/// A way to damage a network.
struct Plan {
    damage: What,
    /// The blocks in order, and whether they are there.
    order: Vec<(usize, bool)>,
}

enum What {
    Without,
    Removed(usize),
    Swapped(usize),
}

impl Bench<'_> {
    /// What is tried; random choices depend on the seed alone.
    fn plans(&self, draws: usize, seed: u64) -> Vec<Plan> {
        let count = self.blocks.len();
        let without = |gone: &[usize]| (0..count).map(|block| (block, !gone.contains(&block))).collect();
        let mut plans: Vec<Plan> =
            (0..count).map(|block| Plan { damage: What::Without, order: without(&[block]) }).collect();
        let mut rng = parameter_rng(seed, "lesion");
        let mut blocks: Vec<usize> = (0..count).collect();
        for k in 1..=MOST.min(count) {
            for _ in 0..draws {
                let (gone, _) = blocks.partial_shuffle(&mut rng, k);
                plans.push(Plan { damage: What::Removed(k), order: without(gone) });
            }
        }
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for group in self.interchangeable() {
            for (at, &i) in group.iter().enumerate() {
                pairs.extend(group[at + 1..].iter().map(|&j| (i, j)));
            }
        }
        for k in 1..=MOST.min(pairs.len()) {
            for _ in 0..draws {
                let mut order: Vec<usize> = (0..count).collect();
                let (swaps, _) = pairs.partial_shuffle(&mut rng, k);
                swaps.iter().for_each(|&(i, j)| order.swap(i, j));
                let order = order.into_iter().map(|block| (block, true)).collect();
                plans.push(Plan { damage: What::Swapped(k), order });
            }
        }
        plans
    }
}

/// Damages a trained network in inference mode.
pub(super) fn damage(
    network: &Network,
    batch: Batch,
    config: &InspectConfig,
    seed: u64,
    watch: Watch<'_>,
) -> Result<Damage, LabError> {
    let bench = Bench::new(network, batch);
    let plans = bench.plans(config.draws, seed);
    let errors = each(plans.len(), config, watch, |i| Ok(bench.error(&plans[i].order)))?;
    let whole: Vec<(usize, bool)> = (0..bench.blocks.len()).map(|block| (block, true)).collect();
    let mut damage =
        Damage { whole: bench.error(&whole), without: Vec::new(), removed: Vec::new(), swapped: Vec::new() };
    for (plan, error) in plans.iter().zip(errors) {
        let (several, k) = match plan.damage {
            What::Without => {
                let name = bench.blocks[damage.without.len()].name.clone();
                damage.without.push((name, error));
                continue;
            }
            What::Removed(k) => (&mut damage.removed, k),
            What::Swapped(k) => (&mut damage.swapped, k),
        };
        several.resize_with(several.len().max(k), Vec::new);
        several[k - 1].push(error);
    }
    Ok(damage)
}

/// Fails unless the subject is trained.
pub(super) fn check(subject: &Subject) -> Result<(), LabError> {
    if subject.is_trained() {
        return Ok(());
    }
    Err(LabError::Untrained { network: subject.name().to_string() })
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    let mut damages = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let batch = subject.test_images(config.samples, &subject.device)?;
        let network = subject.network(&batch.images);
        // Parts of a thousand: how many ways there are is known of this network alone.
        let watch = |done: usize, of: usize| watch(1000 * i + 1000 * done / of.max(1), 1000 * subjects.len());
        damages.push(damage(&network, batch, config, subject.config.seed, &watch)?);
    }

    let (labels, colors) = (labels(subjects), colors(subjects));
    let lines = |points: &dyn Fn(&Damage) -> Vec<Found>| -> Vec<Line> {
        let line = |i: usize| {
            let found = points(&damages[i]);
            let tip = |(_, error, what): &Found| {
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
    let some = |several: &[Vec<f64>], whole: f64, what: &str| -> Vec<Found> {
        if several.is_empty() {
            return Vec::new();
        }
        let none = (0.0, Spread { mean: whole, std: 0.0 }, "undamaged".to_string());
        let points = several.iter().enumerate();
        let points = points.map(|(k, errors)| (k as f64 + 1.0, Spread::of(errors), format!("{} {what}", k + 1)));
        std::iter::once(none).chain(points).collect()
    };
    let one = |damage: &Damage| -> Vec<Found> {
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
    let finding = format!(
        "Without one block the error on {} goes on average {}.",
        test_images(subjects, config.samples),
        listed((0..subjects.len()).map(rise))
    );
    let figure = Figure {
        title: "Test error of a damaged network".into(),
        subtitle: format!("{}; means over {} random choices", test_images(subjects, config.samples), config.draws),
        description: finding.clone(),
        columns: 2,
        panels,
    };
    Ok(Measurement { finding, details, figure, table: table(&labels, &damages) })
}

/// How many blocks or which, the error, and words for it.
type Found = (f64, Spread, String);

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
