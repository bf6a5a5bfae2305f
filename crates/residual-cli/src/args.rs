//! Arguments that several commands share: one file per group, with the code that applies them.

mod augmentation;
mod backend;
mod data;
mod duration;
mod list;
mod model;
mod net;
mod network;
mod optimizer;
mod reset;
mod schedule;
mod start;
mod training;
mod words;

pub(crate) use augmentation::AugmentationArgs;
pub(crate) use backend::{BackendArgs, Restart, choose, make_default, thread_number};
pub(crate) use data::{DataArgs, fit_side, pixels};
pub(crate) use duration::duration;
pub(crate) use list::one;
pub(crate) use model::ModelArgs;
pub(crate) use net::{NetArg, net};
pub(crate) use network::{ImageNetworkArgs, NetworkArgs};
pub(crate) use optimizer::OptimizerArgs;
pub(crate) use reset::{Reset, or_word};
pub(crate) use schedule::ScheduleArgs;
pub(crate) use start::StartArgs;
pub(crate) use training::TrainingArgs;
pub(crate) use words::words;
