use crate::TrainError;
use burn::optim::{
    LearningRate,
    lr_scheduler::{LrScheduler, LrSchedulerRecord},
};
use serde::{Deserialize, Serialize};
use std::{
    f64::consts::PI,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// How the learning rate falls from its peak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, strum::EnumDiscriminants)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
#[strum_discriminants(
    name(DecayKind),
    doc = "The kind of a [`Decay`], without its settings.",
    derive(strum::Display, strum::EnumString, strum::VariantArray, strum::VariantNames),
    strum(serialize_all = "kebab-case", parse_err_ty = TrainError, parse_err_fn = unknown_decay)
)]
pub enum Decay {
    /// `lr` at every iteration.
    Constant,
    /// `lr · (1 + cos(π t / T)) / 2` at iteration t of T (Loshchilov & Hutter 2017, eq. 5, without restarts).
    Cosine,
    /// `lr · (T - t) / (T - n)` at iteration t of T, after a linear warm-up of n iterations.
    Linear,
    /// `lr · factor^k` after k milestones (He et al. 2015, section 4.2: factor 0.1 at 32k and 48k iterations).
    Step {
        /// The iterations at which the learning rate falls.
        milestones: Vec<usize>,
        /// The factor by which the learning rate is multiplied at each milestone.
        factor: f64,
    },
}

fn unknown_decay(name: &str) -> TrainError {
    TrainError::unknown::<DecayKind>("schedule", name)
}

/// How the learning rate starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Warmup {
    /// Directly at its peak.
    None,
    /// `lr · (t + 1) / n` for the first n iterations (Goyal et al. 2017, section 2.2).
    Linear {
        /// The number of iterations n.
        iterations: usize,
    },
    /// At a different constant rate for the first iterations (He et al. 2016, appendix: 0.01 for 400 iterations).
    Constant {
        /// The rate during the warm-up.
        lr: f64,
        /// The number of iterations.
        iterations: usize,
    },
    /// At a lower rate until the running training error falls below a threshold (He et al. 2015, section 4.2, for 110
    /// layers: 0.01 until the error is below 80 %).
    UntilError {
        /// The rate during the warm-up.
        lr: f64,
        /// The error threshold, as a fraction.
        threshold: f64,
    },
}

/// The learning rate as a function of the iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The peak rate.
    pub lr: f64,
    /// How the rate falls from its peak.
    pub decay: Decay,
    /// How the rate starts.
    pub warmup: Warmup,
}

impl Schedule {
    /// Cosine decay from this rate, without warm-up.
    pub fn cosine(lr: f64) -> Self {
        Self { lr, decay: Decay::Cosine, warmup: Warmup::None }
    }

    /// The rate at iteration `t` of `total`, counted from 0. `warm` is whether the training error has fallen below the
    /// threshold of [`Warmup::UntilError`].
    pub fn rate(&self, t: usize, total: usize, warm: bool) -> f64 {
        match self.warmup {
            Warmup::UntilError { lr, .. } if !warm => return lr,
            Warmup::Linear { iterations } if t < iterations => {
                return self.lr * (t + 1) as f64 / iterations as f64;
            }
            Warmup::Constant { lr, iterations } if t < iterations => return lr,
            _ => {}
        }
        match &self.decay {
            Decay::Constant => self.lr,
            Decay::Cosine => self.lr * (1.0 + (PI * t as f64 / total.max(1) as f64).cos()) / 2.0,
            Decay::Linear => {
                let risen = if let Warmup::Linear { iterations } = self.warmup { iterations } else { 0 };
                self.lr * total.saturating_sub(t) as f64 / total.saturating_sub(risen).max(1) as f64
            }
            Decay::Step { milestones, factor } => {
                let reached = milestones.iter().filter(|&&m| t >= m).count();
                self.lr * factor.powi(reached as i32)
            }
        }
    }

    /// The error threshold of [`Warmup::UntilError`].
    pub(crate) fn threshold(&self) -> Option<f64> {
        match self.warmup {
            Warmup::UntilError { threshold, .. } => Some(threshold),
            _ => None,
        }
    }
}

/// State that the training loop shares with the schedulers: whether the warm-up has ended, and how many times the run
/// was rewound.
#[derive(Clone, Debug, Default)]
pub(crate) struct WarmupState {
    warm: Arc<AtomicBool>,
    rewinds: Arc<AtomicUsize>,
}

impl WarmupState {
    pub(crate) fn set_warm(&self, warm: bool) {
        self.warm.store(warm, Ordering::SeqCst);
    }

    pub(crate) fn is_warm(&self) -> bool {
        self.warm.load(Ordering::SeqCst)
    }

    pub(crate) fn set_rewinds(&self, rewinds: usize) {
        self.rewinds.store(rewinds, Ordering::SeqCst);
    }

    /// The factor that multiplies all learning rates: `0.5^rewinds`.
    pub(crate) fn factor(&self) -> f64 {
        0.5f64.powi(self.rewinds.load(Ordering::SeqCst) as i32)
    }
}

/// Adapts a [`Schedule`] to Burn's interface for schedulers, with one step per iteration.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    pub(crate) schedule: Schedule,
    pub(crate) total: usize,
    pub(crate) warmup: WarmupState,
    pub(crate) iteration: usize,
    /// The factor that multiplies the schedule's rate.
    pub(crate) factor: f64,
}

impl LrScheduler for Scheduler {
    fn step(&mut self) -> LearningRate {
        let rate = self.schedule.rate(self.iteration, self.total, self.warmup.is_warm());
        self.iteration += 1;
        self.factor * self.warmup.factor() * rate
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("iteration", self.iteration as u64)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(iteration) = record.scalar::<u64>("iteration") {
            self.iteration = iteration as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn cosine_decay_falls_from_the_peak_to_near_zero() {
        let schedule = Schedule::cosine(0.2);
        close(schedule.rate(0, 100, true), 0.2);
        close(schedule.rate(50, 100, true), 0.1);
        assert!(schedule.rate(99, 100, true) < 1e-4);
    }

    #[test]
    fn step_decay_falls_at_its_milestones() {
        let decay = Decay::Step { milestones: vec![32_000, 48_000], factor: 0.1 };
        let schedule = Schedule { lr: 0.1, decay, warmup: Warmup::None };
        for (t, rate) in [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (48_000, 0.001), (63_999, 0.001)] {
            close(schedule.rate(t, 64_000, true), rate);
        }
    }

    #[test]
    fn a_warm_up_until_error_ends_when_warm_and_rewinds_halve_the_rate() {
        let warmup = Warmup::UntilError { lr: 0.01, threshold: 0.8 };
        let schedule = Schedule { lr: 0.1, decay: Decay::Constant, warmup };
        let state = WarmupState::default();
        let mut scheduler = Scheduler { schedule, total: 10, warmup: state.clone(), iteration: 0, factor: 1.0 };
        close(scheduler.step(), 0.01);
        state.set_warm(true);
        close(scheduler.step(), 0.1);
        state.set_rewinds(2);
        close(scheduler.step(), 0.025);
    }

    #[test]
    fn constant_warm_up_is_followed_by_linear_decay_to_zero() {
        let schedule = Schedule { lr: 0.1, decay: Decay::Linear, warmup: Warmup::Constant { lr: 0.01, iterations: 2 } };
        for (t, rate) in [(0, 0.01), (1, 0.01), (2, 0.08), (5, 0.05), (9, 0.01)] {
            close(schedule.rate(t, 10, false), rate);
        }
    }

    #[test]
    fn linear_warm_up_rises_to_the_peak() {
        let schedule = Schedule { lr: 0.4, decay: Decay::Constant, warmup: Warmup::Linear { iterations: 4 } };
        let rates: Vec<f64> = (0..6).map(|t| schedule.rate(t, 6, true)).collect();
        for (rate, expected) in rates.into_iter().zip([0.1, 0.2, 0.3, 0.4, 0.4, 0.4]) {
            close(rate, expected);
        }
    }

    #[test]
    fn a_scheduler_resumes_from_its_record() {
        let new = || Scheduler {
            schedule: Schedule::cosine(1.0),
            total: 10,
            warmup: WarmupState::default(),
            iteration: 0,
            factor: 1.0,
        };
        let mut first = new();
        for _ in 0..4 {
            first.step();
        }
        let mut second = new();
        second.load_record(first.to_record());
        assert_eq!(second.step(), first.step());
    }

    #[test]
    fn decay_kinds_are_named_as_in_json() {
        let decay = Decay::Step { milestones: vec![1], factor: 0.1 };
        assert_eq!(DecayKind::from(&decay).to_string(), "step");
        let json = serde_json::to_value(&decay).unwrap();
        assert_eq!(json["kind"].as_str().unwrap().parse::<DecayKind>().unwrap(), DecayKind::Step);
        let error = "exponential".parse::<DecayKind>().unwrap_err().to_string();
        assert_eq!(error, "unknown schedule `exponential`; expected one of constant, cosine, linear, step");
    }
}
