//! Optimizers: their settings, their usual values, and how they are built.

mod adadelta;
mod algorithm;
mod muon;
mod sgd;

pub use algorithm::{AdjustLr, Algorithm, OptimizerKind, OptimizerOverrides};

use crate::{TrainError, ids, ranges::within};
use adadelta::Adadelta;
use burn::{
    module::ParamGroup,
    optim::{
        self, AdaGradConfig, AdamConfig, AdamWConfig, AdanConfig, LambConfig, LionConfig, ModuleOptimizer,
        RmsPropConfig, decay::WeightDecayConfig,
    },
};
use muon::{Muon, Scaled};
use residual_model::{Network, Part};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::{Map, Value};
use sgd::Sgd;

/// The optimizer: an update rule, and what applies to every rule.
///
/// In JSON, the settings of the rule stand beside the others: `{"name": "adam", "beta1": 0.9, …, "weight_decay": 0.0,
/// …}`. Without a `name`, the rule is SGD.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimizer {
    /// The update rule.
    #[serde(flatten)]
    pub algorithm: Algorithm,
    /// The maximum norm of the gradient over all parameters. A gradient with a larger norm is scaled down to this norm
    /// (Pascanu et al. 2013).
    pub clip: Option<f64>,
    /// The weight decay λ. [`Algorithm`] says how each rule applies it.
    pub weight_decay: f64,
    /// Whether weight decay also applies to the parameters of norms and to biases, as in He et al. 2015.
    pub decay_all: bool,
    /// Parts with their own learning rates. Each factor multiplies the schedule's rate. If a part occurs more than
    /// once, its last factor applies.
    pub rates: Vec<(Part, f64)>,
}

impl Default for Optimizer {
    /// SGD with momentum 0.9, and weight decay 1e-4 on every parameter (He et al. 2015, section 4.2).
    fn default() -> Self {
        Self::new(OptimizerKind::Sgd)
    }
}

impl From<Algorithm> for Optimizer {
    /// The update rule with its [usual weight decay](OptimizerKind::weight_decay) on every parameter, without clipping.
    fn from(algorithm: Algorithm) -> Self {
        let weight_decay = OptimizerKind::from(&algorithm).weight_decay();
        Self { algorithm, clip: None, weight_decay, decay_all: true, rates: Vec::new() }
    }
}

impl Optimizer {
    /// The optimizer of this kind with its usual settings.
    pub fn new(kind: OptimizerKind) -> Self {
        Algorithm::new(kind).into()
    }

    /// The kind of the update rule.
    pub fn kind(&self) -> OptimizerKind {
        (&self.algorithm).into()
    }

    /// Checks the ranges of all settings.
    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        self.algorithm.validate()?;
        if let Some(clip) = self.clip {
            within("the maximum gradient norm", clip, "a positive number", |x| x > 0.0)?;
        }
        within("weight decay", self.weight_decay, "at least 0", |x| x >= 0.0)?;
        let mut factors = self.rates.iter().map(|(_, factor)| *factor);
        factors.try_for_each(|factor| {
            within("the learning-rate factor of a part", factor, "a positive number", |x| x > 0.0)
        })
    }

    /// Builds the optimizer for a network. The caller has to apply the learning rates of parts ([`Optimizer::rates`])
    /// and gradient clipping ([`Optimizer::clip`]).
    pub fn init(&self, network: &Network) -> ModuleOptimizer {
        let penalty = |decay: f64| Some(WeightDecayConfig::new(decay as f32));
        match self.algorithm {
            Algorithm::Sgd { momentum, nesterov } => {
                self.build(network, |decay| Sgd { momentum, nesterov, weight_decay: decay })
            }
            Algorithm::Adam { beta1, beta2, eps, amsgrad } => self.build(network, |decay| {
                let config = AdamConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
                config.with_epsilon(eps as f32).with_amsgrad(amsgrad).with_weight_decay(penalty(decay)).build()
            }),
            Algorithm::AdamW { beta1, beta2, eps, amsgrad } => {
                self.build(network, |decay| adamw(beta1, beta2, eps, decay).with_amsgrad(amsgrad).build())
            }
            Algorithm::RmsProp { rho, momentum, eps, centered } => self.build(network, |decay| {
                let config = RmsPropConfig::new().with_alpha(rho as f32).with_momentum(momentum as f32);
                config.with_epsilon(eps as f32).with_centered(centered).with_weight_decay(penalty(decay)).build()
            }),
            Algorithm::Adagrad { eps, lr_decay } => self.build(network, |decay| {
                let config = AdaGradConfig::new().with_lr_decay(lr_decay).with_epsilon(eps as f32);
                config.with_weight_decay(penalty(decay)).build()
            }),
            Algorithm::Adadelta { rho, eps } => self.build(network, |decay| Adadelta { rho, eps, weight_decay: decay }),
            Algorithm::Adan { beta1, beta2, beta3, eps } => self.build(network, |decay| {
                let config = AdanConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
                config.with_beta_3(beta3 as f32).with_epsilon(eps as f32).with_weight_decay(decay as f32).build()
            }),
            Algorithm::Lion { beta1, beta2 } => self.build(network, |decay| {
                let config = LionConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
                config.with_weight_decay(decay as f32).build()
            }),
            Algorithm::Lamb { beta1, beta2, eps } => self.build(network, |decay| {
                let config = LambConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
                config.with_epsilon(eps as f32).with_weight_decay(decay as f32).build()
            }),
            Algorithm::Muon { momentum, nesterov, ns_steps, adjust_lr, beta1, beta2, eps, adamw_lr } => {
                let rest = self.build(network, |decay| Scaled {
                    optimizer: adamw(beta1, beta2, eps, decay).build(),
                    factor: adamw_lr,
                });
                let muon = Muon::new(momentum, nesterov, ns_steps, adjust_lr, self.weight_decay);
                rest.with_group(hidden_weights(network), muon, None)
            }
        }
    }

    /// Builds an optimizer that decays all parameters, or all but those of norms and biases.
    fn build<O: optim::Optimizer>(&self, network: &Network, with_decay: impl Fn(f64) -> O) -> ModuleOptimizer {
        let optimizer = ModuleOptimizer::from(with_decay(self.weight_decay));
        if self.decay_all {
            return optimizer;
        }
        let norms_and_biases =
            ids::group(network, |path| [".gamma", ".beta", ".bias"].iter().any(|end| path.ends_with(end)));
        optimizer.with_group(norms_and_biases, with_decay(0.0), None)
    }
}

fn adamw(beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> AdamWConfig {
    let config = AdamWConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
    config.with_epsilon(eps as f32).with_weight_decay(weight_decay as f32)
}

/// The weights of all convolutions and dense layers between the stem and the head.
fn hidden_weights(network: &Network) -> ParamGroup {
    ids::group(network, |path| path.ends_with(".weight") && !Part::Stem.contains(path) && !Part::Head.contains(path))
}

/// The settings that apply to every rule.
#[derive(Deserialize)]
struct Common {
    #[serde(default)]
    clip: Option<f64>,
    weight_decay: f64,
    decay_all: bool,
    rates: Vec<(Part, f64)>,
}

impl<'de> Deserialize<'de> for Optimizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let common = ["clip", "weight_decay", "decay_all", "rates"];
        let common: Map<String, Value> =
            common.iter().filter_map(|&name| Some((name.into(), fields.remove(name)?))).collect();
        fields.entry("name").or_insert_with(|| "sgd".into());
        if fields["name"] == "sgd" {
            // Configurations that name no optimizer may leave it out.
            fields.entry("nesterov").or_insert(false.into());
        }
        let Common { clip, weight_decay, decay_all, rates } =
            serde_json::from_value(Value::Object(common)).map_err(D::Error::custom)?;
        let algorithm = serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(Self { algorithm, clip, weight_decay, decay_all, rates })
    }
}

#[cfg(test)]
mod tests;
