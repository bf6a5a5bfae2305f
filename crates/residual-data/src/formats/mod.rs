//! Parsers for the file formats of datasets.

pub mod cifar;
pub mod idx;
pub(crate) mod pickle;
