//! Trainings with weakened shortcuts (He et al. 2016, "Identity Mappings in Deep Residual Networks", Table 1).

use super::{
    config::{InspectConfig, OnStep},
    subject::{Subject, each},
};
use crate::LabError;
use residual_model::{BlockKind, BlockOptions};
use residual_train::{Evaluate, Status, StopFlag, TrainConfig, TrainError, Training};
use serde::{Deserialize, Serialize};

/// The skip strengths: 0 is the plain net, 1 the residual net.
const ALPHAS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// Errors of trainings with skip strengths from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipStrength {
    /// Trainings per skip strength.
    pub seeds: u64,
    /// The skip strengths.
    pub alphas: Vec<f64>,
    /// The names of the networks at α = 1. The network at α = 0 is the plain twin, so a plain net and its residual twin
    /// share one series of trainings.
    pub networks: Vec<String>,
    /// The trainings.
    pub runs: Vec<SkipStrengthRun>,
}

/// The outcome of one training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipStrengthRun {
    /// Index of the residual net in [`SkipStrength::networks`].
    pub network: usize,
    /// The skip strength.
    pub alpha: f64,
    /// The seed.
    pub seed: u64,
    /// Training error, as a fraction; 1 if the training diverged.
    pub train_error: f64,
    /// Test error, as a fraction; 1 if the training diverged.
    pub test_error: f64,
    /// Whether the loss became NaN or infinite.
    pub diverged: bool,
}

impl SkipStrength {
    /// The trainings of a network at this skip strength.
    pub fn runs(&self, network: usize, alpha: f64) -> impl Iterator<Item = &SkipStrengthRun> {
        self.runs.iter().filter(move |run| run.network == network && run.alpha == alpha)
    }
}

/// The subject's training with another skip strength and seed.
fn training(subject: &Subject, alpha: f64, seed: u64) -> TrainConfig {
    let config = subject.config.clone().with_seed(seed);
    let blocks = config.network.blocks;
    let blocks = match alpha {
        // A plain net has no shortcuts, so stochastic depth cannot drop its blocks.
        0.0 => BlockOptions { kind: BlockKind::Plain, last_survival: 1.0, ..blocks },
        _ => BlockOptions { kind: BlockKind::Residual, skip_strength: alpha, ..blocks },
    };
    let network = config.network.clone().with_blocks(blocks);
    TrainConfig { evaluate: Evaluate::AtEnd, patience: None, ..config.with_network(network) }
}

/// Trains the subject with this skip strength and seed. Returns the training error, the test error and whether the
/// training diverged.
pub(super) fn errors(subject: &Subject, alpha: f64, seed: u64, stop: &StopFlag) -> Result<(f64, f64, bool), LabError> {
    let config = training(subject, alpha, seed);
    let training = Training::with_data(config, subject.dataset.clone(), subject.device.clone())?;
    match training.with_stop(stop.clone()).run() {
        Ok(outcome) if outcome.status == Status::Interrupted => Err(TrainError::Stopped.into()),
        Ok(outcome) => Ok((outcome.train.error, outcome.test.error, false)),
        Err(TrainError::Diverged { .. }) => Ok((1.0, 1.0, true)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn measure(
    subjects: &[Subject],
    config: &InspectConfig,
    on_step: OnStep<'_>,
) -> Result<SkipStrength, LabError> {
    let same = |a: &Subject, b: &Subject| {
        let json = |s: &Subject| serde_json::to_value(training(s, 1.0, 0)).ok();
        json(a) == json(b)
    };
    let distinct: Vec<&Subject> = (0..subjects.len())
        .filter(|&i| !subjects[..i].iter().any(|other| same(other, &subjects[i])))
        .map(|i| &subjects[i])
        .collect();
    let mut jobs = Vec::new();
    for (i, subject) in distinct.iter().enumerate() {
        let first = subject.config.seed;
        for alpha in ALPHAS {
            jobs.extend((0..config.seeds).map(|k| (i, alpha, first.wrapping_add(k))));
        }
    }
    let runs = each(jobs.len(), config, on_step, |job| {
        let (network, alpha, seed) = jobs[job];
        let (train_error, test_error, diverged) = errors(distinct[network], alpha, seed, &config.stop)?;
        Ok(SkipStrengthRun { network, alpha, seed, train_error, test_error, diverged })
    })?;
    let networks = distinct.iter().map(|subject| training(subject, 1.0, 0).network.name().to_string()).collect();
    Ok(SkipStrength { seeds: config.seeds, alphas: ALPHAS.to_vec(), networks, runs })
}
