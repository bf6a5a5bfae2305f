use super::{Reset, one, or_word, words};
use crate::Usage;
use residual_model::{ModelError, Part};
use residual_train::{AdjustLr, OptimizerKind, OptimizerOverrides, TrainConfig};

/// The optimizer and its settings.
#[derive(Clone, clap::Args)]
#[group(id = "optimizer_settings", multiple = true)]
pub(crate) struct OptimizerArgs {
    /// Optimizer [default: from the recipe or configuration, else sgd]
    ///
    /// Another one than the recipe's or the configuration's starts from its
    /// usual settings and its usual learning rate.
    #[arg(long, help_heading = "Optimizer", value_name = "NAME", verbatim_doc_comment, value_delimiter = ',',
        value_parser = words::<OptimizerKind>())]
    pub(crate) optimizer: Option<Vec<OptimizerKind>>,
    /// Peak learning rate [default: the optimizer's; 0.05 for sgd]
    ///
    /// In a sweep, 0.02 for sgd on dense nets of up to 200 layers.
    #[arg(long, help_heading = "Optimizer", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) lr: Option<Vec<f64>>,
    /// Weight decay [default: the optimizer's; 1e-4 for sgd]
    #[arg(long, help_heading = "Optimizer", allow_negative_numbers = true)]
    pub(crate) weight_decay: Option<f64>,
    /// Exempt norms and biases from weight decay
    #[arg(long, help_heading = "Optimizer", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_norm_decay: Option<bool>,
    /// Largest norm of the gradient, or none; larger ones are scaled down
    ///
    /// The norm is over all parameters.
    #[arg(long, help_heading = "Optimizer", value_parser = or_word::<f64>("none"), value_name = "NORM", allow_negative_numbers = true)]
    pub(crate) clip: Option<Reset<f64>>,
    /// Factors of parts' learning rates, such as stem=0.1,head=10
    ///
    /// none: one rate for all parts.
    #[arg(long, help_heading = "Optimizer", value_name = "PART=FACTOR", value_delimiter = ',', value_parser = part_rate)]
    pub(crate) part_lr: Option<Vec<Reset<(Part, f64)>>>,
    /// Momentum of sgd (0.9), rmsprop (0) or muon (0.95)
    #[arg(long, help_heading = "Optimizer", allow_negative_numbers = true)]
    pub(crate) momentum: Option<f64>,
    /// Nesterov momentum, for sgd (off) or muon (on)
    #[arg(long, help_heading = "Optimizer", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) nesterov: Option<bool>,
    /// Decay of the first moment: adam, adamw, adan, lion, lamb, muon
    ///
    /// Default: 0.9, or 0.98 for adan. Muon uses it for AdamW.
    #[arg(long, help_heading = "Optimizer", value_name = "DECAY", verbatim_doc_comment, allow_negative_numbers = true)]
    pub(crate) beta1: Option<f64>,
    /// Decay of the second moment: adam, adamw, adan, lion, lamb, muon
    ///
    /// Default: 0.999, or 0.92 for adan, or 0.99 for lion. For adan, it is
    /// the decay of the difference of gradients; for lion, of the momentum.
    #[arg(long, help_heading = "Optimizer", value_name = "DECAY", verbatim_doc_comment, allow_negative_numbers = true)]
    pub(crate) beta2: Option<f64>,
    /// Decay of the second moment of adan [default: 0.99]
    #[arg(long, help_heading = "Optimizer", value_name = "DECAY", allow_negative_numbers = true)]
    pub(crate) beta3: Option<f64>,
    /// Decay of the mean square of rmsprop (0.99) or adadelta (0.9)
    #[arg(long, help_heading = "Optimizer", value_name = "DECAY", allow_negative_numbers = true)]
    pub(crate) rho: Option<f64>,
    /// Number added to the denominator of an update
    ///
    /// Default: 1e-8, or 1e-10 for adagrad, or 1e-6 for adadelta and lamb.
    /// Not for sgd and lion.
    #[arg(
        long,
        help_heading = "Optimizer",
        value_name = "NUMBER",
        verbatim_doc_comment,
        allow_negative_numbers = true
    )]
    pub(crate) eps: Option<f64>,
    /// Use the AMSGrad variant of adam or adamw
    #[arg(long, help_heading = "Optimizer", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) amsgrad: Option<bool>,
    /// Divide rmsprop's gradients by their deviation, not their mean square
    #[arg(long, help_heading = "Optimizer", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) centered: Option<bool>,
    /// Decay of adagrad's learning rate per step [default: 0]
    #[arg(long, help_heading = "Optimizer", value_name = "DECAY", allow_negative_numbers = true)]
    pub(crate) lr_decay: Option<f64>,
    /// Newton-Schulz iterations of muon [default: 5]
    #[arg(long, help_heading = "Optimizer", value_name = "STEPS")]
    pub(crate) ns_steps: Option<usize>,
    /// How muon's rate depends on a matrix's shape [default: original]
    ///
    /// original: times sqrt(max(1, rows/columns)).
    /// match-rms-adamw: times 0.2 sqrt(max(rows, columns)), which suits
    /// AdamW's learning rates.
    #[arg(long, help_heading = "Optimizer", value_name = "BY", verbatim_doc_comment, value_parser = words::<AdjustLr>())]
    pub(crate) adjust_lr: Option<AdjustLr>,
    /// Learning rate of muon's AdamW, divided by --lr [default: 1]
    ///
    /// Muon trains the weights between the stem and the head. AdamW trains
    /// the stem, the head, norms and biases.
    #[arg(
        long,
        help_heading = "Optimizer",
        value_name = "FACTOR",
        verbatim_doc_comment,
        allow_negative_numbers = true
    )]
    pub(crate) adamw_lr: Option<f64>,
}

/// Parses a part and a factor, such as `head=10`.
fn part_rate(text: &str) -> Result<Reset<(Part, f64)>, String> {
    if text == "none" {
        return Ok(Reset(None));
    }
    let (part, factor) = text.split_once('=').ok_or("expected a part and a factor, such as head=10")?;
    let factor = factor.parse().map_err(|_| format!("`{factor}` is not a number"))?;
    Ok(Reset(Some((part.parse().map_err(|error: ModelError| error.to_string())?, factor))))
}

impl OptimizerArgs {
    /// Fails if a flag is set that is for one optimizer only.
    pub(crate) fn check_several(&self) -> Result<(), Usage> {
        let overrides = serde_json::to_value(self.overrides()).unwrap_or_default();
        let own =
            overrides.as_object().and_then(|overrides| overrides.keys().next()).map(|name| name.replace('_', "-"));
        match self.weight_decay.map(|_| "weight-decay".into()).or(own) {
            Some(flag) => Err(Usage(format!("--{flag} is for one optimizer; of several, each has its usual settings"))),
            None => Ok(()),
        }
    }

    /// The settings of the update rule whose flags are set.
    fn overrides(&self) -> OptimizerOverrides {
        let Self { momentum, nesterov, beta1, beta2, beta3, rho, eps, .. } = *self;
        let Self { amsgrad, centered, lr_decay, ns_steps, adjust_lr, adamw_lr, .. } = *self;
        OptimizerOverrides {
            momentum,
            nesterov,
            beta1,
            beta2,
            beta3,
            rho,
            eps,
            amsgrad,
            centered,
            lr_decay,
            ns_steps,
            adjust_lr,
            adamw_lr,
        }
    }

    /// Overrides the settings whose flags are set.
    pub(crate) fn apply(&self, config: TrainConfig) -> anyhow::Result<TrainConfig> {
        let mut config = match one("--optimizer", self.optimizer.as_deref())? {
            Some(kind) => config.with_optimizer(kind),
            None => config,
        };
        let optimizer = &mut config.optimizer;
        optimizer.algorithm = optimizer.algorithm.with(&self.overrides())?;
        optimizer.weight_decay = self.weight_decay.unwrap_or(optimizer.weight_decay);
        optimizer.decay_all = self.no_norm_decay.map_or(optimizer.decay_all, |without| !without);
        optimizer.clip = Reset::or(self.clip.as_ref(), optimizer.clip);
        if let Some(rates) = &self.part_lr {
            optimizer.rates = rates.iter().filter_map(|rate| rate.0).collect();
        }
        Ok(match one("--lr", self.lr.as_deref())? {
            Some(lr) => config.with_lr(lr),
            None => config,
        })
    }
}
