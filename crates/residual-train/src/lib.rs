//! Training on Burn's `Learner`: configuration, schedules, run directories, checkpoints.
//!
//! [`Training`] takes a [`TrainConfig`], a dataset and a device, and runs Burn's
//! `SupervisedTraining` with a training loop of our own in it, one that measures the training error
//! by a clean pass, stops on a loss that is not finite, and resumes where it was interrupted.
//! With a [`RunDir`] everything is written down as it goes.
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
//! Those of `residual-backend`; `flex` is on by default.

mod checkpoint;
mod config;
mod directory;
mod ema;
mod environment;
mod error;
mod evaluate;
pub mod files;
mod gradients;
mod ids;
mod learner;
mod memory;
mod metrics;
mod progress;
mod recipe;
mod schedule;
mod sgd;
mod throughput;
mod training;

pub use burn::tensor::Device;
pub use checkpoint::Checkpoint;
pub use config::{Evaluate, OnNan, Optimizer, Start, TrainConfig};
pub use directory::RunDir;
pub use environment::Environment;
pub use error::TrainError;
pub use evaluate::{Evaluation, Predictions, evaluate, predict};
pub use memory::Memory;
pub use metrics::{Row, Split};
pub use recipe::{Length, Recipe};
pub use residual_data::{Augmentation, DataConfig, DataName, Normalize};
pub use schedule::{Decay, Schedule, Warmup};
pub use throughput::{Feed, Throughput, matmul_flops, throughput};
pub use training::{Event, Outcome, Status, StopFlag, Training};
