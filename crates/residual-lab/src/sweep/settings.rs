use residual_data::DataConfig;
use residual_model::{BranchScale, Family, Norm};
use serde::{Deserialize, Serialize};

/// Settings of a depth sweep, which trains every combination of family, depth, skip strength and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// The families of networks.
    pub families: Vec<Family>,
    /// Depths in weighted layers; `None` means each family's default ([`SweepConfig::default_depths`]).
    pub depths: Option<Vec<usize>>,
    /// Skip strengths α: 0 is a plain net, 1 is a residual net.
    pub alphas: Vec<f64>,
    /// The number of seeds.
    pub seeds: u64,
    /// The first seed; the others follow it.
    pub first_seed: u64,
    /// The dataset.
    pub data: DataConfig,
    /// Passes over the training set; `None` means each family's default ([`SweepConfig::epochs()`]).
    pub epochs: Option<usize>,
    /// Samples per batch.
    pub batch_size: usize,
    /// Learning rate at the start of its cosine decay; `None` means each family's default ([`SweepConfig::lr()`]).
    pub lr: Option<f64>,
    /// Largest norm of the gradient over all parameters; larger gradients are scaled down to it. `None` means the
    /// default ([`SweepConfig::clip()`]).
    #[serde(default)]
    pub clip: Option<f64>,
    /// The norm after each layer.
    pub norm: Norm,
    /// The factor of the main path in residual blocks; `None` means the default ([`SweepConfig::branch_scale()`]).
    pub branch_scale: Option<BranchScale>,
    /// Width of the dense nets.
    pub dense_width: usize,
    /// Channels of the convolutional nets' first stage.
    pub conv_width: usize,
}

impl Default for SweepConfig {
    /// The settings for the lecture's figure on the embedded digits: a few minutes on two cores.
    fn default() -> Self {
        Self {
            families: vec![Family::Dense, Family::Conv],
            depths: None,
            alphas: vec![0.0, 1.0],
            seeds: 3,
            first_seed: 0,
            data: DataConfig::default(),
            epochs: None,
            batch_size: 64,
            lr: None,
            clip: None,
            norm: Norm::Batch,
            branch_scale: None,
            dense_width: 64,
            conv_width: 8,
        }
    }
}

/// If a net of a family has more layers than this, the family has other defaults.
const DEEP: usize = 200;

/// The settings whose defaults depend on the family and the depths.
struct Defaults {
    epochs: usize,
    lr: f64,
    clip: Option<f64>,
}

impl SweepConfig {
    /// The default depths of a family.
    pub fn default_depths(family: Family) -> &'static [usize] {
        match family {
            Family::Dense => &[4, 12, 20, 32, 56, 110],
            _ => &[8, 20, 32, 44, 56],
        }
    }

    /// The depths of a family.
    pub(super) fn depths(&self, family: Family) -> &[usize] {
        self.depths.as_deref().unwrap_or(Self::default_depths(family))
    }

    /// With hundreds of residual blocks, the gradient is a large sum, and the first step overshoots. If any net of the
    /// family is that deep, the gradients of all its nets are clipped, so that all train with the same settings.
    fn defaults(&self, family: Family) -> Defaults {
        let deep = self.depths(family).iter().any(|&depth| depth > DEEP);
        match (family, deep) {
            (Family::Dense, false) => Defaults { epochs: 20, lr: 0.02, clip: None },
            (Family::Dense, true) => Defaults { epochs: 30, lr: 0.05, clip: Some(2.0) },
            (_, false) => Defaults { epochs: 7, lr: 0.05, clip: None },
            (_, true) => Defaults { epochs: 10, lr: 0.05, clip: Some(2.0) },
        }
    }

    /// Passes over the training set for a family's networks: by default 20 for dense and 7 for convolutional nets, or
    /// 30 and 10 if any net of the family has more than 200 layers.
    pub fn epochs(&self, family: Family) -> usize {
        self.epochs.unwrap_or(self.defaults(family).epochs)
    }

    /// The learning rate of a family's networks: by default 0.05, or 0.02 for dense nets if none has more than 200
    /// layers.
    pub fn lr(&self, family: Family) -> f64 {
        self.lr.unwrap_or(self.defaults(family).lr)
    }

    /// The norm to which a family's gradients are clipped: by default 2 if any net of the family has more than 200
    /// layers; otherwise gradients are not clipped.
    pub fn clip(&self, family: Family) -> Option<f64> {
        self.clip.or(self.defaults(family).clip)
    }

    /// The factor of the main path in residual blocks: by default 1 with batch norm, and `1/√L` without a norm, which
    /// keeps the sum of L blocks bounded.
    pub fn branch_scale(&self) -> BranchScale {
        self.branch_scale.unwrap_or(match self.norm {
            Norm::Batch => BranchScale::One,
            Norm::None => BranchScale::InverseSqrtDepth,
        })
    }
}
