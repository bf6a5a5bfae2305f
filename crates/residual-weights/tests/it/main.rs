//! Weights in and out, against PyTorch.

mod files;
mod parity;
