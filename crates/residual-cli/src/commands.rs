//! One file per command, with its arguments and its code.

mod bench;
mod compare;
mod completions;
mod convert;
mod data;
mod devices;
mod eval;
mod inspect;
mod models;
mod predict;
mod recipes;
mod report;
mod summary;
mod sweep;
mod train;
mod weights;

pub(crate) use bench::{BenchArgs, bench};
pub(crate) use compare::{CompareArgs, compare};
pub(crate) use completions::{CompletionsArgs, completions};
pub(crate) use convert::{ConvertArgs, convert};
pub(crate) use data::{DataCommandArgs, data};
pub(crate) use devices::{DevicesArgs, devices};
pub(crate) use eval::{EvalArgs, eval};
pub(crate) use inspect::{InspectArgs, inspect};
pub(crate) use models::{ModelsArgs, models};
pub(crate) use predict::{PredictArgs, predict};
pub(crate) use recipes::{RecipesArgs, recipes};
pub(crate) use report::{ReportArgs, report};
pub(crate) use summary::{SummaryArgs, summary};
pub(crate) use sweep::{SweepArgs, sweep};
pub(crate) use train::{TrainArgs, train};
pub(crate) use weights::{WeightsArgs, weights};
