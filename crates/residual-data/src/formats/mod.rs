//! Parsers for the file formats of datasets, and for Python's pickles, which files of weights use too.

pub mod cifar;
pub mod idx;
pub mod pickle;
