//! Tests of reading and writing weights, and of parity with PyTorch.

mod checkpoints;
mod files;
mod parity;
mod torch;
