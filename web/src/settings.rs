//! What the page sets.

use burn::optim::{
    AdamConfig, ModuleOptimizer, RmsPropConfig, SgdConfig, decay::WeightDecayConfig, momentum::MomentumConfig,
};
use residual_model::{BlockKind, Family, NetName, NetworkConfig, Norm};
use serde::Deserialize;

/// The settings of a training. All of them but the kind of the blocks are the same for both twins.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether blocks are plain or residual.
    pub kind: Kind,
    /// Dense or convolutional layers.
    pub family: Layers,
    /// The number of layers with weights.
    pub depth: usize,
    /// The number of features, or of channels in the first stage.
    pub width: usize,
    /// The skip strength α of residual blocks: 0 makes them plain.
    pub alpha: f64,
    /// Whether there is batch normalisation.
    pub norm: bool,
    /// The update rule.
    pub optimizer: Rule,
    /// The learning rate of the first step. It falls to 0 like a cosine.
    pub lr: f64,
    /// The seed of the initial weights and of the order of the images.
    pub seed: u32,
    /// The number of passes through the training images.
    pub epochs: usize,
}

/// Whether blocks are plain or residual.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Without shortcuts.
    Plain,
    /// With a shortcut around every two layers.
    Residual,
}

/// The layers of a network.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layers {
    /// Dense layers.
    Dense,
    /// 3x3 convolutions in three stages.
    Conv,
}

/// An optimizer, with its usual settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Gradient descent, with weight decay 1e-4.
    Sgd,
    /// The same with momentum 0.9.
    Momentum,
    /// Adam (Kingma & Ba 2015).
    Adam,
    /// `RMSprop` (Tieleman & Hinton 2012).
    RmsProp,
}

impl Settings {
    /// Reads settings from JSON and checks their ranges.
    ///
    /// # Errors
    /// If a setting is missing or out of range.
    pub fn read(json: &str) -> Result<Self, String> {
        let settings: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let Self { depth, width, alpha, lr, epochs, .. } = settings;
        let within =
            |what: &str, holds: bool, range: &str| if holds { Ok(()) } else { Err(format!("{what} must be {range}")) };
        within("the width", (2..=256).contains(&width), "from 2 to 256")?;
        within("the skip strength", (0.0..=1.0).contains(&alpha), "from 0 to 1")?;
        within("the learning rate", lr > 0.0 && lr <= 100.0, "above 0 and at most 100")?;
        within("the number of epochs", (1..=100).contains(&epochs), "from 1 to 100")?;
        within("the depth", depth <= 110, "at most 110")?;
        settings.network()?.validate().map_err(|error| error.to_string())?;
        Ok(settings)
    }

    /// The network, as `residual train` builds it.
    ///
    /// # Errors
    /// If no network has this depth.
    pub fn network(&self) -> Result<NetworkConfig, String> {
        let kind = match self.kind {
            Kind::Plain => BlockKind::Plain,
            Kind::Residual => BlockKind::Residual,
        };
        let family = match self.family {
            Layers::Dense => Family::Dense,
            Layers::Conv => Family::Conv,
        };
        family.check_depth(self.depth).map_err(|error| error.to_string())?;
        let name = NetName { family, kind, depth: self.depth };
        let network = NetworkConfig::new(name, [1, 8, 8], 10).with_width(self.width).with_seed(self.seed.into());
        let network = network.with_norm(if self.norm { Norm::Batch } else { Norm::None });
        Ok(match self.kind {
            Kind::Plain => network,
            Kind::Residual => network.with_skip_strength(self.alpha),
        })
    }

    /// The optimizer.
    pub fn optimizer(&self) -> ModuleOptimizer {
        let decay = Some(WeightDecayConfig::new(1e-4));
        match self.optimizer {
            Rule::Sgd => SgdConfig::new().with_weight_decay(decay).init(),
            Rule::Momentum => {
                let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0).with_nesterov(false);
                SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(decay).init()
            }
            Rule::Adam => AdamConfig::new().with_beta_2(0.999).with_epsilon(1e-8).init(),
            Rule::RmsProp => RmsPropConfig::new().with_alpha(0.99).with_momentum(0.0).with_epsilon(1e-8).init(),
        }
    }
}
