use residual_model::{BranchScale, Norm};
use residual_train::{OptimizerKind, TrainConfig};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a sweep varies beside the family, the depth, the skip strength and the seed. `None` stands for what all of its
/// trainings share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The optimizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerKind>,
    /// The peak learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// The number of samples per batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// The norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<Norm>,
}

impl Setting {
    /// The settings of a training with this one's replaced.
    pub(super) fn apply(&self, config: TrainConfig) -> TrainConfig {
        let mut config = match self.optimizer {
            Some(kind) => config.with_optimizer(kind),
            None => config,
        };
        if let Some(lr) = self.lr {
            config = config.with_lr(lr);
        }
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        if let Some(norm) = self.norm {
            config.network.blocks.norm = norm;
        }
        config
    }

    /// `-adam-lr0.001-batch32-norm-none`, for the name of a training.
    pub(super) fn suffix(&self) -> String {
        let mut suffix = String::new();
        if let Some(optimizer) = self.optimizer {
            suffix += &format!("-{optimizer}");
        }
        if let Some(lr) = self.lr {
            suffix += &format!("-lr{}", short(lr));
        }
        if let Some(batch_size) = self.batch_size {
            suffix += &format!("-batch{batch_size}");
        }
        if let Some(norm) = self.norm {
            suffix += &format!("-norm-{norm}");
        }
        suffix
    }
}

/// A number, in scientific notation if its digits are too many for the name of a file.
pub(super) fn short(number: f64) -> String {
    match number.to_string() {
        digits if digits.len() > 30 => format!("{number:e}"),
        digits => digits,
    }
}

impl fmt::Display for Setting {
    /// `adam, learning rate 0.001, batches of 32, batch norm`; empty if nothing is varied.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { optimizer, lr, batch_size, norm } = self;
        let parts = [
            optimizer.map(|optimizer| optimizer.to_string()),
            lr.map(|lr| format!("learning rate {lr}")),
            batch_size.map(|size| format!("batches of {size}")),
            norm.map(|norm| match norm {
                Norm::Batch => "batch norm".into(),
                Norm::None => "no norm".into(),
            }),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// The usual factor of the main path: 1 with batch norm, and `1/√L` without a norm, which keeps the sum of L blocks
/// bounded.
pub(super) fn usual_branch_scale(norm: Norm) -> BranchScale {
    match norm {
        Norm::Batch => BranchScale::One,
        Norm::None => BranchScale::InverseSqrtDepth,
    }
}
