use crate::{TrainError, ranges::within};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How an optimizer updates a weight w, given its gradient g.
///
/// η is the learning rate, λ the weight decay, t the number of the step from 1, and ε a small number. Unless stated
/// otherwise, averages start at 0. Coupled weight decay adds λw to g before anything else. Decoupled weight decay
/// subtracts ηλw from w, whatever the update (Loshchilov & Hutter 2019).
///
/// [`OptimizerKind`] has the usual settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, strum::EnumDiscriminants)]
#[serde(rename_all = "lowercase", tag = "name", deny_unknown_fields)]
#[strum_discriminants(
    name(OptimizerKind),
    doc = "The kind of an [`Algorithm`], without its settings.",
    derive(strum::Display, strum::EnumString, strum::VariantArray, strum::VariantNames, Serialize, Deserialize, Hash),
    serde(rename_all = "lowercase"),
    strum(serialize_all = "lowercase", parse_err_ty = TrainError, parse_err_fn = unknown_optimizer)
)]
pub enum Algorithm {
    /// Stochastic gradient descent: `v ← momentum · v + g`, then `w ← w - ηv`, or with Nesterov momentum `w ← w - η(g +
    /// momentum · v)`. There is no dampening, as in Caffe and, by default, in PyTorch. Weight decay is coupled.
    Sgd {
        /// The momentum.
        momentum: f64,
        /// Whether to use Nesterov momentum (Sutskever et al. 2013).
        nesterov: bool,
    },
    /// Adam (Kingma & Ba 2015, algorithm 1): `m ← β₁m + (1 - β₁)g` and `v ← β₂v + (1 - β₂)g²`, then `w ← w - η m̂ / (√v̂ +
    /// ε)` with `m̂ = m / (1 - β₁ᵗ)` and `v̂ = v / (1 - β₂ᵗ)`. Weight decay is coupled.
    Adam {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε.
        eps: f64,
        /// Whether the largest v so far replaces v in the update (Reddi et al. 2018).
        amsgrad: bool,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).
    AdamW {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε.
        eps: f64,
        /// Whether the largest v so far replaces v in the update (Reddi et al. 2018).
        amsgrad: bool,
    },
    /// RMSprop (Tieleman & Hinton 2012, lecture 6.5): `v ← ρv + (1 - ρ)g²`, then `w ← w - ηu` with `u ← momentum · u + g
    /// / (√v + ε)`. Weight decay is coupled.
    RmsProp {
        /// ρ; PyTorch calls it alpha.
        rho: f64,
        /// The momentum.
        momentum: f64,
        /// ε.
        eps: f64,
        /// Whether the square of the average gradient is subtracted from v in the update (Graves 2013, equation 40).
        centered: bool,
    },
    /// AdaGrad (Duchi et al. 2011): `s ← s + g²`, then `w ← w - ηₜ g / (√s + ε)` with `ηₜ = η / (1 + lr_decay · (t - 1))`.
    /// Weight decay is coupled.
    Adagrad {
        /// ε.
        eps: f64,
        /// The decay of the learning rate, in addition to that of the schedule.
        lr_decay: f64,
    },
    /// Adadelta (Zeiler 2012, algorithm 1): `v ← ρv + (1 - ρ)g²` and `d = g √(u + ε) / √(v + ε)`, then `u ← ρu + (1 - ρ)d²`
    /// and `w ← w - ηd`. Weight decay is coupled.
    Adadelta {
        /// ρ.
        rho: f64,
        /// ε.
        eps: f64,
    },
    /// Adan (Xie et al. 2024, algorithm 1), in the form of its authors' code: with `d` the difference of the gradients of
    /// this step and the last, `m ← β₁m + (1 - β₁)g`, `u ← β₂u + (1 - β₂)d` and `n ← β₃n + (1 - β₃)(g + β₂d)²`, then `w ←
    /// (w - η(m̂ + β₂û) / (√n̂ + ε)) / (1 + ηλ)`, with each average divided by `1 - βᵗ`.
    Adan {
        /// β₁; in the paper, 1 - β₁.
        beta1: f64,
        /// β₂; in the paper, 1 - β₂.
        beta2: f64,
        /// β₃; in the paper, 1 - β₃.
        beta3: f64,
        /// ε.
        eps: f64,
    },
    /// Lion (Chen et al. 2023, algorithm 2): `w ← w - η sign(β₁m + (1 - β₁)g)`, then `m ← β₂m + (1 - β₂)g`. Weight decay
    /// is decoupled.
    Lion {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
    },
    /// LAMB (You et al. 2020, algorithm 2): with m̂ and v̂ of Adam, `r = m̂ / (√v̂ + ε) + λw`, then `w ← w - η r ‖w‖ / ‖r‖`.
    /// The norms are those of one tensor.
    Lamb {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε.
        eps: f64,
    },
    /// Muon (Jordan et al. 2024) for the weights of convolutions and dense layers between the stem and the head, and
    /// AdamW for all other parameters: the stem, the head, norms and biases.
    ///
    /// A convolution's weight counts as a matrix with one row per output channel. `v ← momentum · v + g`, then `w ← w - η s
    /// · O(v)`, or with Nesterov momentum `O(g + momentum · v)`. `O(x)` is approximately the orthogonal matrix that is
    /// nearest to x, computed by Newton-Schulz iterations. `s` is the factor of [`AdjustLr`]. Weight decay is decoupled.
    Muon {
        /// The momentum.
        momentum: f64,
        /// Whether to use Nesterov momentum.
        nesterov: bool,
        /// The number of Newton-Schulz iterations.
        ns_steps: usize,
        /// How the learning rate depends on the shape of a matrix.
        adjust_lr: AdjustLr,
        /// β₁ of AdamW.
        beta1: f64,
        /// β₂ of AdamW.
        beta2: f64,
        /// ε of AdamW.
        eps: f64,
        /// The learning rate of AdamW, divided by that of Muon.
        adamw_lr: f64,
    },
}

/// How Muon's learning rate depends on the shape of a matrix.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = TrainError, parse_err_fn = unknown_adjustment)]
pub enum AdjustLr {
    /// It is multiplied by `√max(1, rows / columns)` (Jordan et al. 2024).
    #[default]
    Original,
    /// It is multiplied by `0.2 √max(rows, columns)`, so that updates have the size of AdamW's, and AdamW's learning
    /// rates and weight decays fit (Liu et al. 2025, section 2.2).
    MatchRmsAdamw,
}

fn unknown_optimizer(name: &str) -> TrainError {
    TrainError::unknown::<OptimizerKind>("optimizer", name)
}

fn unknown_adjustment(name: &str) -> TrainError {
    TrainError::unknown::<AdjustLr>("adjustment of the learning rate", name)
}

/// Settings that replace those of an [`Algorithm`], by their names there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct OptimizerOverrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta3: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amsgrad: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub centered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_decay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjust_lr: Option<AdjustLr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adamw_lr: Option<f64>,
}

impl OptimizerKind {
    /// All kinds.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The usual peak learning rate: PyTorch's default; for SGD, that of [`TrainConfig::new`](crate::TrainConfig::new);
    /// for optimizers that PyTorch lacks, that of the authors' code.
    pub fn lr(self) -> f64 {
        match self {
            Self::Sgd => 0.05,
            Self::Adam | Self::AdamW | Self::Adan | Self::Lamb | Self::Muon => 1e-3,
            Self::RmsProp | Self::Adagrad => 1e-2,
            Self::Adadelta => 1.0,
            Self::Lion => 1e-4,
        }
    }

    /// The usual weight decay: PyTorch's default; for SGD, that of He et al. 2015; for optimizers that PyTorch lacks,
    /// that of the paper or the authors' code.
    pub fn weight_decay(self) -> f64 {
        match self {
            Self::Sgd => 1e-4,
            Self::AdamW | Self::Lamb => 1e-2,
            Self::Muon => 0.1,
            Self::Adam | Self::RmsProp | Self::Adagrad | Self::Adadelta | Self::Adan | Self::Lion => 0.0,
        }
    }
}

impl Algorithm {
    /// The algorithm of this kind with its usual settings: PyTorch's defaults; for SGD, the momentum of He et al. 2015;
    /// for algorithms that PyTorch lacks, the defaults of the authors' code.
    pub fn new(kind: OptimizerKind) -> Self {
        let (beta1, beta2, eps, amsgrad) = (0.9, 0.999, 1e-8, false);
        match kind {
            OptimizerKind::Sgd => Self::Sgd { momentum: 0.9, nesterov: false },
            OptimizerKind::Adam => Self::Adam { beta1, beta2, eps, amsgrad },
            OptimizerKind::AdamW => Self::AdamW { beta1, beta2, eps, amsgrad },
            OptimizerKind::RmsProp => Self::RmsProp { rho: 0.99, momentum: 0.0, eps, centered: false },
            OptimizerKind::Adagrad => Self::Adagrad { eps: 1e-10, lr_decay: 0.0 },
            OptimizerKind::Adadelta => Self::Adadelta { rho: 0.9, eps: 1e-6 },
            OptimizerKind::Adan => Self::Adan { beta1: 0.98, beta2: 0.92, beta3: 0.99, eps },
            OptimizerKind::Lion => Self::Lion { beta1, beta2: 0.99 },
            OptimizerKind::Lamb => Self::Lamb { beta1, beta2, eps: 1e-6 },
            OptimizerKind::Muon => Self::Muon {
                momentum: 0.95,
                nesterov: true,
                ns_steps: 5,
                adjust_lr: AdjustLr::Original,
                beta1,
                beta2,
                eps,
                adamw_lr: 1.0,
            },
        }
    }

    /// Replaces settings. Their ranges are not checked here.
    ///
    /// # Errors
    /// If the algorithm does not have a setting. The error names the algorithms that have it.
    pub fn with(&self, overrides: &OptimizerOverrides) -> Result<Self, TrainError> {
        let mut settings = fields(self);
        for (name, value) in fields(overrides) {
            // JSON has no NaN and no infinity.
            if value.is_null() {
                return Err(TrainError::Conflict(format!("{} must be a finite number", name.replace('_', "-"))));
            }
            if !settings.contains_key(&name) {
                let has_it = |kind: &&OptimizerKind| fields(&Self::new(**kind)).contains_key(&name);
                let kinds: Vec<String> = OptimizerKind::ALL.iter().filter(has_it).map(ToString::to_string).collect();
                let own = OptimizerKind::from(self);
                return Err(TrainError::Conflict(format!(
                    "{} is a setting of {}, but the optimizer is {own}",
                    name.replace('_', "-"),
                    kinds.join(", ")
                )));
            }
            settings.insert(name, value);
        }
        serde_json::from_value(Value::Object(settings)).map_err(|error| TrainError::Conflict(error.to_string()))
    }

    /// The number of values of state for each weight, as a checkpoint holds them.
    pub(crate) fn state_values(&self) -> u64 {
        match *self {
            // Burn's RMSprop also holds v, or v minus the square of the average gradient, under a second name.
            Self::RmsProp { momentum, centered, .. } => 2 + u64::from(momentum > 0.0) + u64::from(centered),
            Self::Adam { amsgrad, .. } | Self::AdamW { amsgrad, .. } => 2 + u64::from(amsgrad),
            Self::Sgd { .. } | Self::Adagrad { .. } | Self::Lion { .. } | Self::Muon { .. } => 1,
            Self::Adadelta { .. } | Self::Lamb { .. } => 2,
            Self::Adan { .. } => 4,
        }
    }

    /// Checks the ranges of the settings.
    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        // Burn's optimizers compute with 32-bit numbers, in which the limits hold too.
        let fraction = |name, value| {
            within(name, value, "at least 0 and below 1", |x| (0.0..1.0).contains(&x) && (x as f32) < 1.0)
        };
        let positive =
            |name, value| within(name, value, "a positive number", |x| x as f32 > 0.0 && (x as f32).is_finite());
        let betas = |beta1, beta2| fraction("beta1", beta1).and_then(|()| fraction("beta2", beta2));
        match *self {
            Self::Sgd { momentum, .. } => fraction("momentum", momentum),
            Self::Adam { beta1, beta2, eps, .. }
            | Self::AdamW { beta1, beta2, eps, .. }
            | Self::Lamb { beta1, beta2, eps } => betas(beta1, beta2).and_then(|()| positive("eps", eps)),
            Self::RmsProp { rho, momentum, eps, .. } => {
                fraction("rho", rho)?;
                fraction("momentum", momentum)?;
                positive("eps", eps)
            }
            Self::Adagrad { eps, lr_decay } => {
                positive("eps", eps)?;
                within("lr-decay", lr_decay, "at least 0", |x| x >= 0.0)
            }
            Self::Adadelta { rho, eps } => fraction("rho", rho).and_then(|()| positive("eps", eps)),
            Self::Adan { beta1, beta2, beta3, eps } => {
                betas(beta1, beta2)?;
                fraction("beta3", beta3)?;
                positive("eps", eps)
            }
            Self::Lion { beta1, beta2 } => betas(beta1, beta2),
            Self::Muon { momentum, ns_steps, beta1, beta2, eps, adamw_lr, .. } => {
                fraction("momentum", momentum)?;
                within("ns-steps", ns_steps as f64, "from 1 to 99", |steps| (1.0..100.0).contains(&steps))?;
                betas(beta1, beta2)?;
                positive("eps", eps)?;
                positive("adamw-lr", adamw_lr)
            }
        }
    }
}

/// The fields of a struct or of a variant as a JSON object.
fn fields<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}
