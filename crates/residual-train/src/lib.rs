//! Training on Burn's `Learner`: configuration, schedules, run directories, checkpoints.
//!
//! [`Training`] takes a [`TrainConfig`] and a device. It runs Burn's `SupervisedTraining` with its own training loop.
//! The loop measures the training error with a clean pass over the training set, fails if the loss becomes NaN or
//! infinite, and resumes bit-exactly. With a [`RunDir`], it writes the configuration, metrics, checkpoints and weights
//! to files.
//!
//! ```
//! use residual_train::{DataName, Device, TrainConfig, Training};
//!
//! let config = TrainConfig::new("dense-resnet4".parse()?, DataName::Synthetic)?.with_epochs(2);
//! let outcome = Training::new(config, Device::flex())?.run()?;
//! assert!(outcome.train.error < 0.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Feature flags
//!
//! The same flags as in `residual-backend`. `flex` is on by default.

mod checkpoint;
mod checks;
mod config;
mod directory;
mod ema;
mod environment;
mod error;
mod evaluate;
mod event;
pub mod files;
mod gradients;
mod ids;
mod learner;
mod memory;
mod metrics;
mod optimizer;
mod progress;
mod ranges;
mod ranks;
mod recipe;
mod run_options;
mod schedule;
mod session;
mod sinks;
mod tensorboard;
mod training;
mod training_loop;

pub use burn::tensor::Device;
pub use checkpoint::Checkpoint;
pub use checks::Note;
pub use config::{Evaluate, OnNan, Start, TrainConfig};
pub use directory::{Existing, RunDir, RunSummary};
pub use environment::Environment;
pub use error::TrainError;
pub use evaluate::{Evaluation, Predictions, cross_entropy, evaluate, predict, soft_cross_entropy};
pub use event::Event;
pub use memory::Memory;
pub use metrics::{Row, Split};
pub use optimizer::{AdjustLr, Algorithm, Optimizer, OptimizerKind, OptimizerOverrides};
#[cfg(feature = "mpi")]
pub use ranks::Processes;
pub use recipe::{Recipe, RecipeOverrides};
pub use residual_data::{Augmentation, DataConfig, DataName, Normalize, shown};
pub use run_options::StopFlag;
pub use schedule::{Decay, DecayKind, Schedule, Warmup};
pub use session::Status;
pub use training::{Outcome, Training};
