//! Experiments on plain and residual networks.
//!
//! [`Sweep`] trains both kinds at growing depth and shows what comes out: the figure of the ResNet
//! lecture, training error against number of layers, with a verdict from a stated rule.
//!
//! ```no_run
//! use residual_backend::Backend;
//! use residual_lab::{Sweep, SweepConfig};
//!
//! let config = SweepConfig { depths: Some(vec![8, 20]), seeds: 1, ..SweepConfig::default() };
//! let hardware = Backend::Flex.probe()?;
//! let results = Sweep::new(config, Backend::Flex, hardware)?.run("sweep".as_ref(), &|_| {})?;
//! for verdict in &results.verdicts {
//!     println!("{verdict}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Inspection`] measures inside networks why shortcuts help, and [`Report`] makes a page of both:
//!
//! ```
//! use residual_backend::Backend;
//! use residual_lab::{InspectConfig, Inspection, Subject, What};
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
//! let found = Inspection::measure(What::Gradients, &nets, &config, String::new(), environment, &|_, _| {})?;
//! assert!(found.finding.starts_with("At initialisation with batch norm"));
//! assert!(found.table().len() > 2 * 2 * 10 * 10); // networks, norms, initialisations, layers
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Feature flags
//!
//! Those of `residual-backend`; `flex` is on by default.

mod chart;
mod comparison;
mod error;
mod explain;
mod figures;
mod inspect;
mod parallel;
mod report;
mod results;
mod statistics;
mod sweep;
mod table;
mod verdict;

pub use comparison::{ComparedRun, Comparison};
pub use error::LabError;
pub use inspect::{InspectConfig, Inspection, Subject, What};
pub use report::Report;
pub use results::{Results, RunResult, RunStatus};
pub use statistics::{Point, Series, Spread, series};
pub use sweep::{Progress, RunSpec, Sweep, SweepConfig, quoted};
pub use table::markdown_table;
pub use verdict::{Finding, Rise, Verdict};
