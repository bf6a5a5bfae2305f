//! Lesion studies: a trained network without some of its blocks, or with blocks swapped (Veit et al. 2016, section 4).

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

/// The most blocks that are removed, or pairs that are swapped, at once.
const MOST: usize = 20;

/// Test errors of trained networks after blocks are removed or swapped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lesion {
    /// Test images.
    pub images: usize,
    /// Random choices per number of blocks.
    pub draws: usize,
    /// The errors of each network.
    pub networks: Vec<LesionErrors>,
}

/// Test errors of one network, as fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LesionErrors {
    /// The error of the intact network.
    pub intact: f64,
    /// The error without each single block.
    pub without_block: Vec<BlockError>,
    /// The errors without k random blocks, one per draw, for k from 1.
    #[serde(with = "numbers")]
    pub removed: Vec<Vec<f64>>,
    /// The errors after k random swaps of two blocks of one shape, one per draw, for k from 1.
    #[serde(with = "numbers")]
    pub swapped: Vec<Vec<f64>>,
}

/// The error without one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockError {
    /// The block's path.
    pub block: String,
    /// The test error, as a fraction.
    pub error: f64,
}

/// Runs a network in inference mode with its blocks in any order.
struct Harness<'a> {
    network: &'a Network,
    blocks: Vec<BlockView<'a>>,
    /// The input of each block in the intact network, and the output of the last.
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

    /// The error of the network with its blocks in this order; a block that is not present is bypassed.
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

    /// Groups of blocks that may swap places: in each group, all inputs and outputs have one shape.
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

/// One lesion.
struct Plan {
    kind: LesionKind,
    /// The blocks in their order, and whether each is present.
    order: Vec<(usize, bool)>,
}

enum LesionKind {
    WithoutBlock,
    Removed(usize),
    Swapped(usize),
}

impl Harness<'_> {
    /// All lesions. Random choices depend on the seed alone.
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

/// Fails unless the subject is trained.
pub(super) fn check(subject: &Subject) -> Result<(), LabError> {
    if subject.is_trained() {
        return Ok(());
    }
    Err(LabError::Untrained { network: subject.name() })
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, on_step: OnStep<'_>) -> Result<Lesion, LabError> {
    let mut networks = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let batch = subject.test_images(config.samples, &subject.device)?;
        let network = subject.network(&batch.images);
        // Progress in thousandths of a network: the number of lesions is known for the present network only.
        let on_step = |done: usize, of: usize| on_step(1000 * i + 1000 * done / of.max(1), 1000 * subjects.len());
        networks.push(errors(&network, batch, config, subject.config.seed, &on_step)?);
    }
    Ok(Lesion { images: test_count(subjects, config.samples), draws: config.draws, networks })
}
