//! The gradient at the input, by path length (Veit et al. 2016, section 5).
//!
//! A residual net of n blocks is a sum over 2ⁿ paths. Each path takes the main path of some blocks and the shortcut of
//! the others. To measure paths of length k, the forward pass is unchanged, and in the backward pass the gradient flows
//! only through the main paths of k random blocks and the shortcuts of all others.

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

/// The largest number of positive path lengths to measure. Norms at the lengths between them are interpolated.
const MOST_LENGTHS: usize = 60;

/// The largest number of images, as the graph of each path stays in memory until its backward pass.
const MOST_IMAGES: usize = 128;

/// More blocks than the residual nets of an inspection have together.
const MAX_BLOCKS: usize = 1 << 17;

/// Norms of the gradient at the input of residual nets, along paths of each length.
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
    /// The measured lengths, in ascending order from 0 to the number of blocks. The length of a path is the number of
    /// blocks whose main path it takes.
    pub lengths: Vec<usize>,
    /// `‖∂L/∂x‖` along random paths, averaged over images: one list per length, with one value per path.
    #[serde(with = "numbers")]
    pub norms: Vec<Vec<f64>>,
}

impl Paths {
    /// Whether the networks exist and have complete norms.
    pub(super) fn is_consistent(&self, networks: usize) -> bool {
        self.networks.len() <= networks
            && self.networks.iter().all(|of| of.is_consistent(networks))
            && self.networks.iter().map(PathGradients::blocks).sum::<usize>() <= MAX_BLOCKS
    }
}

impl PathGradients {
    /// Whether the network exists, and the lengths ascend from 0 with norms for each.
    fn is_consistent(&self, networks: usize) -> bool {
        let ascend = self.lengths.first() == Some(&0) && self.lengths.windows(2).all(|pair| pair[0] < pair[1]);
        let norms = self.norms.len() == self.lengths.len() && self.norms.iter().all(|norms| !norms.is_empty());
        let few = self.lengths.len() <= MOST_LENGTHS + 1 && self.blocks() <= MAX_BLOCKS;
        self.network < networks && ascend && norms && few
    }

    /// The number of blocks.
    pub fn blocks(&self) -> usize {
        self.lengths.last().copied().unwrap_or(0)
    }

    /// Each measured length, with the mean norm along a single path of that length.
    pub fn means(&self) -> Vec<(usize, f64)> {
        self.lengths.iter().zip(&self.norms).map(|(&length, norms)| (length, Spread::of(norms).mean)).collect()
    }

    /// The share that the paths of each length, from 0 to the number of blocks, have in the gradient at the input:
    /// `C(n, k) · mₖ / Σⱼ C(n, j) · mⱼ`, where `mₖ` is the mean norm along a single path through k of n blocks. The
    /// shares are NaN if no gradient reaches the input.
    pub fn shares(&self) -> Vec<f64> {
        shares(self.blocks(), &self.means())
    }

    /// The mean path length, weighted by [`Self::shares`], and the shortest and the longest of the lengths that carry
    /// the central 95 % of the gradient.
    pub fn effective_length(&self) -> (f64, usize, usize) {
        effective_length(&self.shares())
    }
}

/// `‖∂L/∂x‖`, averaged over images, along the path that takes the main paths of the blocks in `through` and the
/// shortcuts of all others. The network must be in inference mode, on a device that records gradients.
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
    // A sum, so that the gradient at each image is the gradient of its own loss.
    let loss = cross_entropies(network.head(a), batch.labels.clone()).sum();
    let samples = batch.images.dims()[0];
    let Some(gradient) = images.grad(&loss.backward()) else { return 0.0 };
    let gradient = values(gradient);
    gradient.chunks(gradient.len() / samples).map(norm).sum::<f64>() / samples as f64
}

/// The lengths to measure: 0, and all positive lengths or [`MOST_LENGTHS`] evenly spaced ones.
fn lengths(blocks: usize) -> Vec<usize> {
    let count = MOST_LENGTHS.min(blocks);
    (0..=count).map(|i| i * blocks / count.max(1)).collect()
}

/// [`PathGradients::shares`], computed from the mean norms at some lengths. The lengths ascend from 0 to the number of
/// blocks.
pub(super) fn shares(blocks: usize, means: &[(usize, f64)]) -> Vec<f64> {
    let norm = |k: usize| {
        let after = means.iter().position(|(length, _)| *length >= k).unwrap_or(0);
        let (to, high) = means[after];
        let (from, low) = means[after.saturating_sub(1)];
        let part = (k - from) as f64 / (to - from).max(1) as f64;
        match (low.ln(), high.ln()) {
            _ if to == from => high,
            // Each block multiplies the gradient by a factor, so the logarithms are interpolated.
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

/// [`PathGradients::effective_length`], computed from the shares.
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

/// Fails if none of the subjects is a residual net.
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
        // Only one path takes no main path, and only one takes all of them.
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
