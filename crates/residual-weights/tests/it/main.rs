//! Reading and writing weights, and parity with PyTorch.

mod files;
mod parity;
