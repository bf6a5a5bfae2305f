//! Arguments that several commands share: one file per group, with the code that applies them.

mod augmentation;
mod backend;
mod data;
mod model;
mod net;
mod network;
mod optimizer;
mod reset;
mod start;
mod words;

pub(crate) use augmentation::AugmentationArgs;
pub(crate) use backend::{BackendArgs, choose, thread_number};
pub(crate) use data::{DataArgs, fit_side, pixels};
pub(crate) use model::ModelArgs;
pub(crate) use net::{NetArg, net};
pub(crate) use network::{ImageNetworkArgs, NetworkArgs};
pub(crate) use optimizer::OptimizerArgs;
pub(crate) use reset::{Reset, or_word};
pub(crate) use start::StartArgs;
pub(crate) use words::words;
