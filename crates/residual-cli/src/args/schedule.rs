use super::words;
use crate::Usage;
use residual_train::{Decay, DecayKind, Schedule, Warmup};

/// The learning-rate schedule.
#[derive(Clone, clap::Args)]
#[group(id = "schedule_settings", multiple = true)]
pub(crate) struct ScheduleArgs {
    /// Decay of the learning rate [default: cosine]
    #[arg(long, help_heading = "Learning rate schedule", value_parser = words::<DecayKind>())]
    pub(crate) schedule: Option<DecayKind>,
    /// Iterations at which a step schedule decays, separated by commas
    #[arg(long, help_heading = "Learning rate schedule", value_delimiter = ',')]
    pub(crate) milestones: Option<Vec<usize>>,
    /// Factor of the learning rate at each milestone [default: 0.1]
    #[arg(long, help_heading = "Learning rate schedule")]
    pub(crate) factor: Option<f64>,
    /// Iterations of warm-up; 0 for none
    ///
    /// The learning rate rises linearly to its peak, or is --warmup-lr if
    /// given.
    #[arg(
        long,
        help_heading = "Learning rate schedule",
        value_name = "ITERATIONS",
        verbatim_doc_comment,
        conflicts_with = "warmup_error"
    )]
    pub(crate) warmup: Option<usize>,
    /// Warm up until the running training error is below this fraction
    #[arg(long, help_heading = "Learning rate schedule", value_name = "FRACTION")]
    pub(crate) warmup_error: Option<f64>,
    /// Learning rate of the warm-up
    ///
    /// Default with --warmup-error: a tenth of --lr, at most 0.01.
    #[arg(long, help_heading = "Learning rate schedule", allow_negative_numbers = true)]
    pub(crate) warmup_lr: Option<f64>,
}

impl ScheduleArgs {
    /// Overrides the settings whose flags are set.
    pub(crate) fn apply(&self, schedule: &mut Schedule) -> anyhow::Result<()> {
        let (known, usual) = match &schedule.decay {
            Decay::Step { milestones, factor } => (Some(milestones.clone()), *factor),
            _ => (None, 0.1),
        };
        let steps = self.milestones.is_some() || self.factor.is_some();
        let kind = self.schedule.or_else(|| steps.then_some(DecayKind::Step));
        if let Some(kind) = kind {
            schedule.decay = match kind {
                DecayKind::Constant => Decay::Constant,
                DecayKind::Linear => Decay::Linear,
                DecayKind::Cosine => Decay::Cosine,
                DecayKind::Step => {
                    let Some(milestones) = self.milestones.clone().or(known) else {
                        return Err(Usage("a step schedule needs --milestones, such as 32000,48000".into()).into());
                    };
                    Decay::Step { milestones, factor: self.factor.unwrap_or(usual) }
                }
            };
            if steps && !matches!(schedule.decay, Decay::Step { .. }) {
                return Err(Usage("--milestones and --factor need --schedule step".into()).into());
            }
        }
        match (self.warmup, self.warmup_error) {
            (Some(0), _) => schedule.warmup = Warmup::None,
            (Some(iterations), _) => schedule.warmup = Warmup::Linear { iterations },
            (None, Some(threshold)) => {
                schedule.warmup = Warmup::UntilError { lr: (schedule.lr / 10.0).min(0.01), threshold };
            }
            (None, None) => {}
        }
        if let Some(lr) = self.warmup_lr {
            schedule.warmup = match schedule.warmup {
                Warmup::None => {
                    let text = "--warmup-lr needs --warmup or --warmup-error, which set the warm-up's length";
                    return Err(Usage(text.into()).into());
                }
                Warmup::Linear { iterations } | Warmup::Constant { iterations, .. } => {
                    Warmup::Constant { lr, iterations }
                }
                Warmup::UntilError { threshold, .. } => Warmup::UntilError { lr, threshold },
            };
        }
        Ok(())
    }
}
