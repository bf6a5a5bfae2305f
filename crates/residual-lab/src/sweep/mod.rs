//! The depth sweep: plain and residual nets of growing depth, all trained with the same settings.
//!
//! [`SweepConfig`] holds the settings, [`RunSpec`] is one training of the plan, [`Sweep`] runs the trainings that are
//! missing, and [`SweepResults`] holds everything measured, as the sweep's folder stores it.

mod explain;
mod plan;
mod result;
mod results;
mod run;
mod series;
mod settings;
mod store;
mod verdict;

pub use plan::RunSpec;
pub use result::{RunResult, RunStatus};
pub use results::SweepResults;
pub use run::{Progress, Sweep};
pub use series::{LossCurve, Point, Series};
pub use settings::SweepConfig;
pub use verdict::{Finding, Rise, Verdict};
