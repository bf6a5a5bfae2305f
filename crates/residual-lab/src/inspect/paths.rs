//! The gradient at the input by the length of its path (Veit et al. 2016, section 5).
//!
//! A residual net of n blocks is a sum over 2ⁿ paths, each through some of the blocks' main paths and the shortcuts of the
//! others. The forward pass is unchanged; in the backward pass, the gradient flows through the main paths of k random
//! blocks and through the shortcuts of all others.

use super::{
    config::{InspectConfig, OnStep},
    subject::{Subject, cross_entropies, each, norm, training_count, values},
};
use crate::{LabError, Spread, numbers};
use burn::module::Module;
use rand::seq::SliceRandom;
use residual_data::Batch;
use residual_model::{BlockKind, Branches, Network, init::parameter_rng};
use serde::{Deserialize, Serialize};

/// The most path lengths that are measured. Between them, norms are interpolated.
const MOST_LENGTHS: usize = 60;

/// The most images: the graph of each path is kept for its backward pass.
const MOST_IMAGES: usize = 128;

/// Norms of the gradient at the input along paths of each length, in residual nets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paths {
    /// Training images over which norms are averaged.
    pub images: usize,
    /// Random paths per length.
    pub draws: usize,
    /// The residual nets.
    pub networks: Vec<PathGradients>,
}

/// The gradients of one residual net.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathGradients {
    /// Index of the network.
    pub network: usize,
    /// The lengths measured: numbers of blocks whose main path the path takes, from 0 to all.
    pub lengths: Vec<usize>,
    /// `‖∂L/∂x‖` along single random paths, averaged over images: one list per length, one value per draw.
    #[serde(with = "numbers")]
    pub norms: Vec<Vec<f64>>,
}

impl PathGradients {
    /// The number of blocks.
    pub fn blocks(&self) -> usize {
        self.lengths.last().copied().unwrap_or(0)
    }

    /// Each length measured and the mean norm along one path of that length.
    pub fn means(&self) -> Vec<(usize, f64)> {
        self.lengths.iter().zip(&self.norms).map(|(&length, norms)| (length, Spread::of(norms).mean)).collect()
    }

    /// The share of all paths of each length, from 0 to the number of blocks, in the gradient at the input:
    /// `C(n, k) · mₖ / Σⱼ C(n, j) · mⱼ`, where `mₖ` is the mean norm along one path through k of n blocks. NaN if no
    /// gradient reaches the input.
    pub fn shares(&self) -> Vec<f64> {
        shares(self.blocks(), &self.means())
    }

    /// The mean path length weighted by these shares, and the lengths between which 95 % of the gradient lies.
    pub fn effective_length(&self) -> (f64, usize, usize) {
        effective_length(&self.shares())
    }
}

/// `‖∂L/∂x‖`, averaged over images, along the path through the main paths of these blocks and the shortcuts of all others.
/// The network is in inference mode, on a device that records gradients.
pub(super) fn gradient_along(network: &Network, batch: &Batch, through: &[bool]) -> f64 {
    let images = batch.images.clone().require_grad();
    let blocks = network.blocks();
    let a = blocks.iter().zip(through).fold(network.stem(images.clone()), |a, (block, through)| {
        let Branches { main_path, shortcut } = block.branches(a);
        let Some(shortcut) = shortcut else { return block.join(Branches { main_path, shortcut: None }) };
        block.join(if *through {
            Branches { main_path, shortcut: Some(shortcut.detach()) }
        } else {
            Branches { main_path: main_path.detach(), shortcut: Some(shortcut) }
        })
    });
    // The sum, so that the gradient at an image is that of its own loss.
    let loss = cross_entropies(network.head(a), batch.labels.clone()).sum();
    let samples = batch.images.dims()[0];
    let Some(gradient) = images.grad(&loss.backward()) else { return 0.0 };
    let gradient = values(gradient);
    gradient.chunks(gradient.len() / samples).map(norm).sum::<f64>() / samples as f64
}

/// The lengths that are measured: all, or [`MOST_LENGTHS`] at equal distances.
fn lengths(blocks: usize) -> Vec<usize> {
    let count = MOST_LENGTHS.min(blocks);
    (0..=count).map(|i| i * blocks / count.max(1)).collect()
}

/// [`PathGradients::shares`] from the mean norms at some lengths in ascending order, the first and the last included.
pub(super) fn shares(blocks: usize, means: &[(usize, f64)]) -> Vec<f64> {
    let norm = |k: usize| {
        let after = means.iter().position(|(length, _)| *length >= k).unwrap_or(0);
        let (to, high) = means[after];
        let (from, low) = means[after.saturating_sub(1)];
        let part = (k - from) as f64 / (to - from).max(1) as f64;
        match (low.ln(), high.ln()) {
            _ if to == from => high,
            // Paths multiply: their means change by factors.
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
        logs.push(ln_choose + norm(k).ln());
    }
    let highest = logs.iter().copied().filter(|log| log.is_finite()).fold(f64::MIN, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - highest).exp()).collect();
    let sum = weights.iter().sum::<f64>();
    weights.iter().map(|weight| weight / sum).collect()
}

/// [`PathGradients::effective_length`] from the shares.
pub(super) fn effective_length(shares: &[f64]) -> (f64, usize, usize) {
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

/// Fails unless one of the subjects is a residual net.
pub(super) fn check(subjects: &[Subject]) -> Result<(), LabError> {
    if subjects.iter().any(|subject| subject.kind() == BlockKind::Residual) {
        return Ok(());
    }
    let name = subjects[0].name();
    Err(LabError::Setting(format!("{name} has a single path; name a residual net")))
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, on_step: OnStep<'_>) -> Result<Paths, LabError> {
    let samples = config.samples.min(MOST_IMAGES);
    let mut jobs = Vec::new();
    let mut networks = Vec::new();
    for (i, subject) in subjects.iter().enumerate().filter(|(_, subject)| subject.kind() == BlockKind::Residual) {
        let network = subject.network(&subject.training_images(config.samples, &subject.device)?.images);
        let batch = subject.training_images(samples, &subject.device.clone().autodiff())?;
        let lengths = lengths(subject.config.network.block_count());
        jobs.extend(lengths.iter().map(|&length| (networks.len(), length)));
        networks.push((i, network.train().freeze(), batch, lengths));
    }
    let mut norms = each(jobs.len(), config, on_step, |job| {
        let (network, length) = jobs[job];
        let (i, network, batch, _) = &networks[network];
        let blocks = subjects[*i].config.network.block_count();
        let mut rng = parameter_rng(subjects[*i].config.seed, &format!("paths of length {length}"));
        let mut through: Vec<bool> = (0..blocks).map(|block| block < length).collect();
        let mut draw = || {
            through.shuffle(&mut rng);
            gradient_along(network, batch, &through)
        };
        // There is one path through no block, and one through all.
        let draws = if length == 0 || length == blocks { 1 } else { config.draws };
        Ok((0..draws).map(|_| draw()).collect::<Vec<f64>>())
    })?
    .into_iter();
    let networks = networks.into_iter().map(|(network, _, _, lengths)| {
        let norms = norms.by_ref().take(lengths.len()).collect();
        PathGradients { network, lengths, norms }
    });
    Ok(Paths { images: training_count(subjects, samples), draws: config.draws, networks: networks.collect() })
}
