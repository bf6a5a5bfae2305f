//! Tests of reading and writing weights, and of parity with PyTorch.

mod files;
mod parity;
