//! Lesion studies: trained networks with blocks removed or swapped (Veit et al. 2016, section 4).

use super::{
    config::{InspectConfig, OnStep},
    subject::{Subject, each, test_count, values},
};
use crate::{LabError, numbers};
use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use residual_data::Batch;
use residual_model::{BlockView, Network, init::parameter_rng};
use serde::{Deserialize, Serialize};

/// The largest number of blocks removed, or of pairs swapped, at once.
const MOST: usize = 20;

/// Test errors of trained networks with blocks removed or swapped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lesion {
    /// Test images.
    pub images: usize,
    /// Random choices for each number of blocks or pairs.
    pub draws: usize,
    /// The errors of each network.
    pub networks: Vec<LesionErrors>,
}

/// Test errors of one network, as fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LesionErrors {
    /// The error of the intact network.
    pub intact: f64,
    /// The error with each single block removed.
    pub without_block: Vec<BlockError>,
    /// For each k from 1, the errors with k random blocks removed: one error per draw.
    #[serde(with = "numbers")]
    pub removed: Vec<Vec<f64>>,
    /// For each k from 1, the errors after k random swaps of two blocks of the same shape: one error per draw.
    #[serde(with = "numbers")]
    pub swapped: Vec<Vec<f64>>,
}

/// The error of a network with one block removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockError {
    /// The path of the removed block.
    pub block: String,
    /// The test error, as a fraction.
    pub error: f64,
}

/// Runs a network in inference mode, with its blocks in any order.
struct Harness<'a> {
    network: &'a Network,
    blocks: Vec<BlockView<'a>>,
    /// The input of each block in the intact network, followed by the output of the last block.
    inputs: Vec<Tensor<4>>,
    labels: Vec<usize>,
}

impl<'a> Harness<'a> {
    fn new(network: &'a Network, batch: Batch) -> Self {
        let blocks = network.blocks();
        let mut inputs = vec![network.stem(batch.images)];
        for block in &blocks {
            inputs.push(block.forward(inputs[inputs.len() - 1].clone()));
        }
        let labels = values(batch.labels.float()).into_iter().map(|label| label as usize).collect();
        Self { network, blocks, inputs, labels }
    }

    /// The error of the network with its blocks in this order. Blocks that are not present are bypassed.
    fn error(&self, order: &[(usize, bool)]) -> f64 {
        let same = order.iter().enumerate().take_while(|(place, block)| **block == (*place, true)).count();
        let a = order[same..].iter().fold(self.inputs[same].clone(), |a, &(i, present)| {
            if present { self.blocks[i].forward(a) } else { self.blocks[i].bypass(a) }
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

    /// Groups of blocks that can swap places: within a group, all inputs and outputs have the same shape.
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

/// A lesion to measure.
struct Plan {
    kind: LesionKind,
    /// The blocks in order, and whether each is present.
    order: Vec<(usize, bool)>,
}

enum LesionKind {
    WithoutBlock,
    Removed(usize),
    Swapped(usize),
}

impl Harness<'_> {
    /// All lesions. The random choices depend only on the seed.
    fn plans(&self, draws: usize, seed: u64) -> Vec<Plan> {
        let count = self.blocks.len();
        let without = |gone: &[usize]| (0..count).map(|block| (block, !gone.contains(&block))).collect();
        let mut plans: Vec<Plan> =
            (0..count).map(|block| Plan { kind: LesionKind::WithoutBlock, order: without(&[block]) }).collect();
        let mut rng = parameter_rng(seed, "lesion");
        let mut blocks: Vec<usize> = (0..count).collect();
        for k in 1..=MOST.min(count) {
            for _ in 0..draws {
                let (gone, _) = blocks.partial_shuffle(&mut rng, k);
                plans.push(Plan { kind: LesionKind::Removed(k), order: without(gone) });
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
                plans.push(Plan { kind: LesionKind::Swapped(k), order });
            }
        }
        plans
    }
}

/// The errors of a network in inference mode.
pub(super) fn errors(
    network: &Network,
    batch: Batch,
    config: &InspectConfig,
    seed: u64,
    on_step: OnStep<'_>,
) -> Result<LesionErrors, LabError> {
    let harness = Harness::new(network, batch);
    let plans = harness.plans(config.draws, seed);
    let errors = each(plans.len(), config, on_step, |i| Ok(harness.error(&plans[i].order)))?;
    let intact: Vec<(usize, bool)> = (0..harness.blocks.len()).map(|block| (block, true)).collect();
    let (mut without_block, mut removed, mut swapped) = (Vec::new(), Vec::new(), Vec::new());
    for (plan, error) in plans.iter().zip(errors) {
        let (several, k) = match plan.kind {
            LesionKind::WithoutBlock => {
                let block = harness.blocks[without_block.len()].name.clone();
                without_block.push(BlockError { block, error });
                continue;
            }
            LesionKind::Removed(k) => (&mut removed, k),
            LesionKind::Swapped(k) => (&mut swapped, k),
        };
        several.resize_with(several.len().max(k), Vec::new);
        several[k - 1].push(error);
    }
    Ok(LesionErrors { intact: harness.error(&intact), without_block, removed, swapped })
}

/// Fails if the subject is untrained.
pub(super) fn check(subject: &Subject) -> Result<(), LabError> {
    if subject.is_trained() { Ok(()) } else { Err(LabError::Untrained { network: subject.name() }) }
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, on_step: OnStep<'_>) -> Result<Lesion, LabError> {
    let mut networks = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let batch = subject.test_images(config.samples, &subject.device)?;
        let network = subject.network(&batch.images);
        // Steps are thousandths of a network, because the number of lesions of the next networks is not known yet.
        let on_step = |done: usize, of: usize| on_step(1000 * i + 1000 * done / of.max(1), 1000 * subjects.len());
        networks.push(errors(&network, batch, config, subject.config.seed, &on_step)?);
    }
    Ok(Lesion { images: test_count(subjects, config.samples), draws: config.draws, networks })
}
