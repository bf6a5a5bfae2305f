//! Experiments on plain and residual networks. They return plain data; `residual-report` draws it.
//!
//! [`Sweep`] trains plain and residual networks of increasing depth and decides by a fixed rule whether the training
//! error rises with depth. It reproduces the figure of the lecture on residual networks.
//!
//! ```no_run
//! use residual_backend::Backend;
//! use residual_lab::{Sweep, SweepConfig, SweepFamily};
//! use residual_train::DataName;
//!
//! let config = SweepConfig::usual(&[SweepFamily::Dense], DataName::Digits)?.with_depths(&[8, 20]);
//! let hardware = Backend::Flex.probe()?;
//! let results = Sweep::new(config, Backend::Flex, hardware)?.run("sweep".as_ref(), &|_| {})?;
//! for verdict in &results.verdicts {
//!     println!("{}: {:?}", verdict.family, verdict.finding);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Comparison`] puts trainings of your own side by side.
//!
//! [`Inspection`] measures gradients, activations and more inside networks, to show why shortcuts help:
//!
//! ```
//! use residual_backend::Backend;
//! use residual_lab::{InspectConfig, Inspection, Measured, Measurement, Subject};
//! use residual_model::Norm;
//! use residual_train::{DataName, Environment, TrainConfig};
//!
//! let hardware = Backend::Flex.probe()?;
//! let subject = |net: &str| {
//!     let config = TrainConfig::new(net.parse()?, DataName::Digits)?;
//!     Ok::<_, Box<dyn std::error::Error>>(Subject::fresh(config, &hardware.device)?)
//! };
//! let nets = [subject("dense-plain12")?, subject("dense-resnet12")?];
//! let config = InspectConfig { samples: 64, ..InspectConfig::default() };
//! let environment = Environment::here(Backend::Flex, &hardware);
//! let inspection =
//!     Inspection::measure(Measurement::Gradients, &nets, &config, String::new(), environment, &|_, _| {})?;
//! let Measured::Gradients(gradients) = &inspection.measured else { unreachable!() };
//! let [plain, residual] = [0, 1].map(|network| gradients.growth(network, Norm::Batch).factor);
//! assert!(plain > 1.1 && residual < plain);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Feature flags
//!
//! The same as in `residual-backend`; `flex` is enabled by default.

mod comparison;
mod error;
mod inspect;
mod memory;
mod numbers;
mod parallel;
mod statistics;
mod sweep;
mod throughput;

pub use comparison::{ComparedRun, Comparison, SeedMeans};
pub use error::LabError;
pub use inspect::{
    ActivationState, Activations, BlockError, BlockScale, GradientState, Gradients, Growth, InspectConfig, Inspection,
    Landscape, LayerGradients, Lesion, LesionErrors, Measured, Measurement, PathGradients, Paths, Shattered,
    SkipStrength, SkipStrengthRun, Subject, SubjectInfo, is_equal_error,
};
pub use statistics::{Spread, permutation_test};
pub use sweep::{
    Fall, FamilySettings, Finding, Job, Line, LossCurve, Point, Progress, Rate, Rise, RunResult, RunSpec, RunStatus,
    Series, Setting, Sweep, SweepConfig, SweepFamily, SweepResults, Task, Tuned, Verdict,
};
pub use throughput::{DataFeed, Throughput, matmul_flops, throughput};
