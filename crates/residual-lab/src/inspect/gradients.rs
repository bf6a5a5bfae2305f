//! `‖∂L/∂W‖` by layer: the norm of the gradient of the loss with respect to each layer's weights.
//!
//! With batch norm, the gradients of plain nets at initialisation explode towards the input: for wide dense layers with
//! ReLUs, the covariance of the gradients grows by `π/(π-1)` per layer (Yang et al. 2019, "A Mean Field Theory of Batch
//! Normalization", section 4).

use super::{
    config::{InspectConfig, OnStep},
    subject::{Subject, cross_entropies, each, norm, training_count, values},
};
use crate::{LabError, Spread, numbers};
use burn::{module::Module, optim::GradientsParams};
use residual_data::{Batch, shown};
use residual_model::{BlockOptions, BranchScale, Network, NetworkConfig, Norm, parameters::for_each_parameter};
use residual_train::{Evaluate, StopFlag, TrainConfig, TrainError, Training};
use serde::{Deserialize, Serialize};

/// Norms of the gradients with respect to the weights of each layer, at initialisation and during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gradients {
    /// Training images over which the loss is averaged.
    pub images: usize,
    /// Initialisations per network and norm.
    pub inits: u64,
    /// The paths of each network's layers, from input to output.
    pub layers: Vec<Vec<String>>,
    /// The gradient norms.
    pub norms: Vec<LayerGradients>,
}

/// The gradient norms of one network in one state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerGradients {
    /// Index of the network.
    pub network: usize,
    /// The state of its weights.
    pub state: GradientState,
    /// `‖∂L/∂W‖` of each layer, from input to output.
    #[serde(with = "numbers")]
    pub norms: Vec<f64>,
}

/// The weights at which gradients are measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientState {
    /// Initial weights, with a norm and a seed that may differ from the network's own. Main paths are unscaled.
    Initial {
        /// The norm after each layer.
        norm: Norm,
        /// The seed of the weights.
        seed: u64,
    },
    /// The weights after this many optimizer steps of the network's training.
    Step(usize),
    /// The weights at the end of the training.
    Trained,
}

/// The growth of the gradient norm towards the input, at initialisation. The values may be NaN or infinite if gradients
/// are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// The factor by which the norm grows per layer of the blocks: the mean over initialisations.
    pub factor: f64,
    /// Half the width of the factor's 95 % confidence interval; `None` for a single initialisation.
    pub half_width: Option<f64>,
    /// The gradient norm of the blocks' first layer, divided by the gradient norm of their last layer: the geometric
    /// mean over initialisations.
    pub ratio: f64,
}

impl Gradients {
    /// Whether every network has layers, and every state one norm per layer.
    pub(super) fn is_consistent(&self, networks: usize) -> bool {
        let complete = |of: &LayerGradients| self.layers.get(of.network).is_some_and(|l| l.len() == of.norms.len());
        self.layers.len() == networks && self.norms.iter().all(complete)
    }

    /// The names of the layers on the blocks' main paths, such as `layer1.0.conv1`.
    pub fn block_layers(&self, network: usize) -> Vec<String> {
        let layers = self.layers[network].iter().filter(|path| is_on_main_path(path));
        layers.map(|path| shown(&path.replace(".main_path", ""))).collect()
    }

    /// The gradient norms of the layers on the blocks' main paths.
    pub fn block_norms(&self, measured: &LayerGradients) -> Vec<f64> {
        let layers = self.layers[measured.network].iter().zip(&measured.norms);
        layers.filter(|(path, _)| is_on_main_path(path)).map(|(_, &norm)| norm).collect()
    }

    /// [`Self::block_norms`] of a network for each initialisation with this norm.
    pub fn at_initialisation(&self, network: usize, wanted: Norm) -> impl Iterator<Item = Vec<f64>> + '_ {
        self.norms.iter().filter_map(move |measured| match measured.state {
            GradientState::Initial { norm, .. } if norm == wanted && measured.network == network => {
                Some(self.block_norms(measured))
            }
            _ => None,
        })
    }

    /// The growth of a network's gradients towards the input, at initialisation with this norm.
    pub fn growth(&self, network: usize, norm: Norm) -> Growth {
        let inits: Vec<Vec<f64>> = self.at_initialisation(network, norm).collect();
        let factors: Vec<f64> = inits.iter().map(|norms| growth(norms)).collect();
        let ratio =
            |norms: &Vec<f64>| norms.first().zip(norms.last()).map_or(f64::NAN, |(first, last)| (first / last).ln());
        let ratios: Vec<f64> = inits.iter().map(ratio).collect();
        Growth {
            factor: Spread::of(&factors).mean,
            half_width: Spread::half_width(&factors),
            ratio: Spread::of(&ratios).mean.exp(),
        }
    }
}

fn is_on_main_path(path: &str) -> bool {
    path.contains(".main_path.")
}

/// The factor by which norms grow from a layer to the layer before it: `exp(-slope)`, with the slope of the
/// least-squares line through the logarithms of the norms.
pub(super) fn growth(norms: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> = norms
        .iter()
        .enumerate()
        .filter(|(_, norm)| norm.is_finite() && **norm > 0.0)
        .map(|(i, norm)| (i as f64, norm.ln()))
        .collect();
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (covariance, variance) =
        points.iter().fold((0.0, 0.0), |(c, v), p| (c + (p.0 - x) * (p.1 - y), v + (p.0 - x) * (p.0 - x)));
    (-covariance / variance).exp()
}

/// The path and the gradient norm of every layer, where the loss is the mean cross-entropy of a batch. The network must
/// be in training mode.
pub(super) fn by_layer(network: &Network, batch: &Batch) -> Vec<(String, f64)> {
    let loss = cross_entropies(network.forward(batch.images.clone()), batch.labels.clone()).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), network);
    let mut norms = Vec::new();
    for_each_parameter(network, |parameter| {
        let Some(layer) = parameter.path.strip_suffix(".weight") else { return };
        let gradient = match parameter.shape.len() {
            2 => gradients.get::<2>(parameter.id).map(values),
            _ => gradients.get::<4>(parameter.id).map(values),
        };
        norms.push((layer.to_string(), norm(&gradient.unwrap_or_default())));
    });
    norms
}

/// Fails if gradients at steps of the subject's training are requested, but it cannot be repeated or has fewer steps.
pub(super) fn check(subject: &Subject, config: &InspectConfig) -> Result<(), LabError> {
    if config.steps.is_empty() {
        return Ok(());
    }
    subject.check_start()?;
    let training = &subject.config;
    let steps = training.steps(subject.dataset.train.len().div_ceil(training.batch_size));
    match config.steps.iter().find(|&&step| step > steps) {
        Some(step) => {
            let name = subject.name();
            Err(LabError::Setting(format!("the training of {name} has {steps} steps; there is no step {step}")))
        }
        None => Ok(()),
    }
}

pub(super) fn measure(
    subjects: &[Subject],
    config: &InspectConfig,
    on_step: OnStep<'_>,
) -> Result<Gradients, LabError> {
    let mut jobs = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let first = subject.config.network.init.seed;
        for norm in [Norm::Batch, Norm::None] {
            let seeds = (0..config.inits).map(|k| first.wrapping_add(k));
            jobs.extend(seeds.map(|seed| (i, GradientState::Initial { norm, seed })));
        }
        if !config.steps.is_empty() || (subject.is_trained() && subject.check_start().is_ok()) {
            jobs.push((i, GradientState::Step(0)));
        }
        jobs.extend(config.steps.iter().filter(|&&steps| steps > 0).map(|&steps| (i, GradientState::Step(steps))));
        jobs.extend(subject.is_trained().then_some((i, GradientState::Trained)));
    }
    let read = |subject: &Subject| subject.training_images(config.samples, &subject.device.clone().autodiff());
    let batches = subjects.iter().map(read).collect::<Result<Vec<Batch>, LabError>>()?;
    let measured = each(jobs.len(), config, on_step, |job| {
        let (i, state) = jobs[job];
        let network = network(&subjects[i], state, &config.stop)?;
        Ok(network.map(|network| by_layer(&network, &batches[i])))
    })?;

    let mut layers = vec![Vec::new(); subjects.len()];
    let mut norms = Vec::new();
    for ((network, state), measured) in jobs.into_iter().zip(measured) {
        let Some(measured) = measured else { continue };
        let (names, values) = measured.into_iter().unzip();
        layers[network] = names;
        norms.push(LayerGradients { network, state, norms: values });
    }
    Ok(Gradients { images: training_count(subjects, config.samples), inits: config.inits, layers, norms })
}

/// The subject's network in a state, in training mode, or `None` if the training diverged before reaching it.
fn network(subject: &Subject, state: GradientState, stop: &StopFlag) -> Result<Option<Network>, LabError> {
    let device = subject.device.clone().autodiff();
    let network = match state {
        GradientState::Initial { norm, seed } => initial(subject, norm, seed).init(&device),
        GradientState::Step(steps) => match after(subject, steps, stop) {
            Err(LabError::Train(TrainError::Diverged { .. })) => return Ok(None),
            network => network?,
        },
        GradientState::Trained => subject.trained().expect("the subject is trained"),
    };
    Ok(Some(network.train()))
}

/// The subject's network with this norm and seed and unscaled main paths.
fn initial(subject: &Subject, norm: Norm, seed: u64) -> NetworkConfig {
    let config = subject.config.clone().with_seed(seed).network;
    let blocks = BlockOptions { norm, branch_scale: BranchScale::One, ..config.blocks };
    config.with_blocks(blocks)
}

/// The network after this many optimizer steps of the subject's training.
pub(super) fn after(subject: &Subject, steps: usize, stop: &StopFlag) -> Result<Network, LabError> {
    let device = subject.device.clone().autodiff();
    if steps == 0 {
        return Ok(subject.config.init(&device).valid());
    }
    let config = TrainConfig { evaluate: Evaluate::AtEnd, patience: None, ema: None, ..subject.config.clone() };
    let training = Training::with_data(config, subject.dataset.clone(), device)?;
    let outcome = training.with_stop_after(steps).with_stop(stop.clone()).run()?;
    if outcome.iterations < steps { Err(TrainError::Stopped.into()) } else { Ok(outcome.network) }
}
