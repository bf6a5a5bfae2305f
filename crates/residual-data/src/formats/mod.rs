//! The files that datasets come in, read from bytes.

pub mod cifar;
pub mod idx;
