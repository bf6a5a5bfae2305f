//! The gradient by the length of the path it takes (Veit et al. 2016, section 5).
//!
//! A residual net of n blocks is a sum over 2ⁿ paths, each through some of the blocks' main paths and around the others.
//! The forward pass is the usual one; in the backward pass the gradient is let through the main paths of k random blocks
//! and through the shortcuts of all others.

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{colors, cross_entropies, each, labels, listed, norm, training_images, values},
};
use crate::{
    LabError,
    chart::{Axis, Figure, Line, Panel},
    statistics::Spread,
};
use burn::module::Module;
use rand::seq::SliceRandom;
use residual_data::Batch;
use residual_model::{BlockKind, Branches, Network, init::parameter_rng};

/// The most lengths that are measured; between them magnitudes are interpolated.
const MOST_LENGTHS: usize = 60;

/// `‖∂L/∂x‖`, averaged over images, along the paths through the main paths of these blocks alone. The network is in
/// inference mode, on a device that records gradients.
pub(super) fn gradient_along(network: &Network, batch: &Batch, through: &[bool]) -> f64 {
    let images = batch.images.clone().require_grad();
    let blocks = network.blocks();
    let a = blocks.iter().zip(through).fold(network.stem(images.clone()), |a, (block, through)| {
        let Branches { main_path, shortcut } = block.branches(a);
        let Some(shortcut) = shortcut else { return block.join(Branches { main_path, shortcut: None }) };
        block.join(match through {
            true => Branches { main_path, shortcut: Some(shortcut.detach()) },
            false => Branches { main_path: main_path.detach(), shortcut: Some(shortcut) },
        })
    });
    // The sum: each image's gradient is its own loss's.
    let loss = cross_entropies(network.head(a), batch.labels.clone()).sum();
    let samples = batch.images.dims()[0];
    let Some(gradient) = images.grad(&loss.backward()) else { return 0.0 };
    let gradient = values(gradient);
    gradient.chunks(gradient.len() / samples).map(norm).sum::<f64>() / samples as f64
}

/// The lengths that are measured: all, or some at equal distances.
fn lengths(blocks: usize) -> Vec<usize> {
    let count = MOST_LENGTHS.min(blocks);
    (0..=count).map(|i| i * blocks / count.max(1)).collect()
}

/// The share of the gradient by path length: `C(n, k)` times the mean magnitude at length k, over the sum of these.
/// Magnitudes are given at some lengths, in order, the first and the last among them.
pub(super) fn shares(blocks: usize, magnitudes: &[(usize, f64)]) -> Vec<f64> {
    let magnitude = |k: usize| {
        let after = magnitudes.iter().position(|(length, _)| *length >= k).unwrap_or(0);
        let (to, high) = magnitudes[after];
        let (from, low) = magnitudes[after.saturating_sub(1)];
        let part = (k - from) as f64 / (to - from).max(1) as f64;
        match (low.ln(), high.ln()) {
            _ if to == from => high,
            // Paths multiply: their magnitudes change by factors.
            (a, b) if a.is_finite() && b.is_finite() => (a + (b - a) * part).exp(),
            _ => low + (high - low) * part,
        }
    };
    let mut ln_choose = 0.0;
    let mut logs = Vec::new();
    for k in 0..=blocks {
        if k > 0 {
            ln_choose += ((blocks - k + 1) as f64 / k as f64).ln();
        }
        logs.push(ln_choose + magnitude(k).ln());
    }
    let highest = logs.iter().copied().filter(|log| log.is_finite()).fold(f64::MIN, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - highest).exp()).collect();
    let sum = weights.iter().sum::<f64>();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The mean length, and the lengths between which 95 % of the gradient lies.
pub(super) fn effective(shares: &[f64]) -> (f64, usize, usize) {
    let mean = shares.iter().enumerate().map(|(k, share)| k as f64 * share).sum();
    let quantile = |q: f64| {
        let mut sum = 0.0;
        let found = shares.iter().position(|share| {
            sum += share;
            sum >= q
        });
        found.unwrap_or(shares.len() - 1)
    };
    (mean, quantile(0.025), quantile(0.975))
}

/// Fails unless there is a residual net among them.
pub(super) fn check(subjects: &[Subject]) -> Result<(), LabError> {
    if subjects.iter().any(|subject| subject.kind() == BlockKind::Residual) {
        return Ok(());
    }
    let name = subjects[0].name();
    Err(LabError::Setting(format!("{name} has a single path; paths are measured in residual nets")))
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    let residual: Vec<usize> = (0..subjects.len()).filter(|&i| subjects[i].kind() == BlockKind::Residual).collect();
    let samples = config.samples.min(128);
    let mut jobs = Vec::new();
    let mut networks = Vec::new();
    for &i in &residual {
        let subject = &subjects[i];
        let network = subject.network(&subject.training_images(config.samples, &subject.device)?.images);
        let batch = subject.training_images(samples, &subject.device.clone().autodiff())?;
        networks.push((i, network.train().freeze(), batch));
        let blocks = subjects[i].config.network.block_count();
        jobs.extend(lengths(blocks).into_iter().map(|length| (i, blocks, length)));
    }
    let magnitudes = each(jobs.len(), config, watch, |job| {
        let (i, blocks, length) = jobs[job];
        let (_, network, batch) = networks.iter().find(|(of, ..)| *of == i).expect("of each residual net");
        let mut rng = parameter_rng(subjects[i].config.seed, &format!("paths of length {length}"));
        let mut through: Vec<bool> = (0..blocks).map(|block| block < length).collect();
        let mut draw = || {
            through.shuffle(&mut rng);
            gradient_along(network, batch, &through)
        };
        // There is one path through no block, and one through all.
        let draws = if length == 0 || length == blocks { 1 } else { config.draws };
        Ok((0..draws).map(|_| draw()).collect::<Vec<f64>>())
    })?;

    let (labels, colors) = (labels(subjects), colors(subjects));
    let mut panels = [Vec::new(), Vec::new()];
    let (mut found, mut details) = (Vec::new(), Vec::new());
    for &i in &residual {
        let of: Vec<(usize, f64)> = jobs
            .iter()
            .zip(&magnitudes)
            .filter(|(job, _)| job.0 == i)
            .map(|(job, found)| (job.2, Spread::of(found).mean))
            .collect();
        let blocks = of.last().map_or(0, |(length, _)| *length);
        let shares = shares(blocks, &of);
        let line = |points: Vec<(f64, f64)>, unit: &str| Line {
            tips: points
                .iter()
                .map(|(k, y)| format!("{}, paths through {k} blocks: {}", labels[i], tip(*y, unit)))
                .collect(),
            points,
            ..Line::new(&labels[i], &colors[i])
        };
        panels[0].push(line(of.iter().map(|(k, g)| (*k as f64, *g)).collect(), ""));
        panels[1].push(line(shares.iter().enumerate().map(|(k, s)| (k as f64, 100.0 * s)).collect(), " %"));
        let (mean, from, to) = effective(&shares);
        if !mean.is_finite() {
            details.push(format!("{}: no gradient reaches the input.", labels[i]));
            continue;
        }
        found.push(format!("{from} to {to} of the {blocks} blocks in {}", labels[i]));
        details.push(format!(
            "{}: the mean path has {mean:.1} of {blocks} blocks, an effective depth of {:.0} layers out of {}.",
            labels[i],
            2.0 + mean * layers_of_a_block(&subjects[i], blocks),
            subjects[i].config.network.name().depth
        ));
    }
    if residual.len() < subjects.len() {
        details.push("A plain net has one path, through all of its blocks.".into());
    }
    let finding = match found.is_empty() {
        true => "No gradient reaches the input.".into(),
        false => format!("95 % of the gradient at the input comes through paths of {}.", listed(found.into_iter())),
    };
    let [single, share] = panels;
    let positive = || single.iter().flat_map(|line| &line.points).map(|p| p.1).filter(|y| *y > 0.0 && y.is_finite());
    let (least, most) = positive().fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), y| (a.min(y), b.max(y)));
    let longest = single.iter().flat_map(|line| &line.points).fold(1.0f64, |x, p| x.max(p.0));
    let highest = share.iter().flat_map(|line| &line.points).fold(0.0f64, |y, p| y.max(p.1));
    let x = || Axis::until("blocks on the path", longest);
    let table = table(&labels, &jobs, &magnitudes);
    let figure = Figure {
        title: "Gradient at the input by length of path".into(),
        subtitle: format!("{}; {} random paths of each length", training_images(subjects, samples), config.draws),
        description: finding.clone(),
        columns: 2,
        panels: vec![
            Panel::new("Along one path".into(), x(), Axis::log("gradient norm", least.min(most), most), single),
            Panel::new(
                "All paths of a length".into(),
                x(),
                Axis::from_zero("share of the gradient, %", highest),
                share,
            ),
        ],
    };
    Ok(Measurement { finding, details, figure, table })
}

fn tip(y: f64, unit: &str) -> String {
    if unit.is_empty() { format!("{y:.2e}") } else { format!("{y:.2}{unit}") }
}

/// Weighted layers of a block's main path.
fn layers_of_a_block(subject: &Subject, blocks: usize) -> f64 {
    (subject.config.network.name().depth as f64 - 2.0) / blocks.max(1) as f64
}

fn table(labels: &[String], jobs: &[(usize, usize, usize)], magnitudes: &[Vec<f64>]) -> Vec<Vec<String>> {
    let mut rows = vec![["network", "blocks", "length", "draw", "gradient_norm"].map(String::from).to_vec()];
    for ((i, blocks, length), found) in jobs.iter().zip(magnitudes) {
        for (draw, value) in found.iter().enumerate() {
            rows.push(vec![
                labels[*i].clone(),
                blocks.to_string(),
                length.to_string(),
                (draw + 1).to_string(),
                format!("{value:e}"),
            ]);
        }
    }
    rows
}
