//! The residual block's arithmetic on a CPU, fused.

#[cfg(feature = "burn")]
pub mod bridge;
mod buffer;
mod conv;
mod elementwise;
mod inference;
mod path;
mod pool;
mod simd;
mod tile;
mod winograd;

#[cfg(test)]
mod tests;

pub use buffer::Buffer;
pub use conv::Conv;
pub use inference::Prepared;
pub use path::{Gradients, Layer, LayerGradients, Norm, Path, Saved, Shortcut, Statistics, Wanted};
pub use pool::MaxPool;
pub use simd::Level;
