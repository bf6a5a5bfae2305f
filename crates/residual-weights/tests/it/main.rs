//! Tests of reading and writing weights, and of parity with PyTorch.

mod checkpoints;
mod common;
mod files;
mod hostile;
mod onnx;
mod others;
mod parity;
mod pickles;
mod torch;
