//! The scale of activations: the outputs of blocks, the responses of layers, and the ratio of main path to input.

use super::{
    config::{InspectConfig, OnStep},
    subject::{Subject, each, test_count},
};
use crate::{LabError, numbers, statistics::median};
use burn::tensor::Tensor;
use residual_model::Network;
use serde::{Deserialize, Serialize};

/// The scale of activations in networks, at their initial weights and after training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activations {
    /// Test images in the measured batch.
    pub images: usize,
    /// For each network, its initial state, followed by its trained state if it is trained.
    pub states: Vec<ActivationState>,
}

/// The blocks of a network in one state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivationState {
    /// Index of the network.
    pub network: usize,
    /// Whether the network has its trained weights. With its initial weights, the norms use the batch's statistics.
    pub trained: bool,
    /// The blocks, from the input to the output.
    pub blocks: Vec<BlockScale>,
}

/// The scale of one block's activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockScale {
    /// The block's path.
    pub name: String,
    /// Standard deviation of the output, over images, channels and pixels.
    #[serde(with = "numbers")]
    pub output: f64,
    /// `‖F(a)‖ / ‖a‖`: the norm of the scaled output of the main path, over the norm of the block's input.
    #[serde(with = "numbers")]
    pub ratio: f64,
    /// Standard deviation of the response of each layer (He et al. 2015, Fig. 7).
    #[serde(with = "numbers")]
    pub responses: Vec<f64>,
}

impl ActivationState {
    /// The median of `‖F(a)‖ / ‖a‖` over the blocks.
    pub fn median_ratio(&self) -> f64 {
        median(self.blocks.iter().map(|block| block.ratio).collect())
    }

    /// The median standard deviation of the response over all layers.
    pub fn median_response(&self) -> f64 {
        median(self.blocks.iter().flat_map(|block| block.responses.clone()).collect())
    }
}

/// Measures all blocks of a network in inference mode.
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

/// Sums over the values of a tensor, in f64.
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

pub(super) fn measure(
    subjects: &[Subject],
    config: &InspectConfig,
    on_step: OnStep<'_>,
) -> Result<Activations, LabError> {
    let mut jobs = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        jobs.push((i, false));
        jobs.extend(subject.is_trained().then_some((i, true)));
    }
    let blocks = each(jobs.len(), config, on_step, |job| {
        let (i, trained) = jobs[job];
        let subject = &subjects[i];
        let images = subject.test_images(config.samples, &subject.device)?.images;
        let network = if trained { subject.network(&images) } else { subject.initial(&images) };
        Ok(by_block(&network, &images))
    })?;
    let states = jobs.into_iter().zip(blocks);
    let states = states.map(|((network, trained), blocks)| ActivationState { network, trained, blocks }).collect();
    Ok(Activations { images: test_count(subjects, config.samples), states })
}
