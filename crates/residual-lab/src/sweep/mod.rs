//! The depth sweep: plain and residual nets of increasing depth, all trained with the same settings.
//!
//! [`SweepConfig`] holds the settings, [`RunSpec`] describes one training of the plan, [`Sweep`] runs the trainings
//! that have not finished yet, and [`SweepResults`] holds the results, as stored in the sweep's folder.

mod explain;
mod family;
mod own;
mod plan;
mod result;
mod results;
mod run;
mod series;
mod setting;
mod settings;
mod store;
mod tasks;
mod tune;
mod verdict;

pub use family::SweepFamily;
pub use plan::RunSpec;
pub use result::{RunResult, RunStatus};
pub use results::SweepResults;
pub use run::{Progress, Sweep};
pub use series::{Line, LossCurve, Point, Series};
pub use setting::Setting;
pub use settings::{FamilySettings, SweepConfig};
pub use tasks::{Job, Task};
pub use tune::{Rate, Tuned};
pub use verdict::{Fall, Finding, Rise, Verdict};
