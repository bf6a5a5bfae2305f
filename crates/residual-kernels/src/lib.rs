//! The residual block's arithmetic on a CPU, fused.
//!
//! A [`Path`] is a block's main path, a row of convolutions with norms and ReLUs between them, and what
//! happens at its end: `y = g(s · F(x) + α · shortcut)`. It computes its output for inference
//! ([`Path::infer`]) or training ([`Path::train`]), and its gradients ([`Path::gradients`]), on plain slices
//! of `f32` that hold images channels-last. A fully-connected layer is a 1x1 convolution of an image of one
//! row. The core knows nothing of Burn; the feature `burn` adds the module `bridge`, which makes a whole block, with
//! the projection of its shortcut and the norm before it, one operation of Burn's backends flex and ndarray, with
//! its own backward pass.
//!
//! | file | what it holds |
//! |---|---|
//! | `tile.rs` | the two inner loops: sums over runs of numbers, held in registers |
//! | `conv.rs` | every convolution and its input gradient as such sums |
//! | `winograd.rs` | wide 3x3 convolutions with 2.25 times fewer products |
//! | `elementwise.rs` | norms, ReLUs and shortcuts, forward and backward |
//! | `path.rs`, `backward.rs`, `inference.rs` | what runs when, and on which images |
//! | `normalize.rs` | a norm and its ReLU by themselves, as in pre-activation blocks |
//! | `pool.rs` | max-pooling, and the mean over an image |
//! | `update.rs` | running averages, the optimizer's step |
//! | `strided.rs` | tensors whose numbers do not lie in order |
//! | `buffer.rs` | memory that is used again |
//! | `simd.rs` | the processor's vectors, picked when the program runs |
//! | `bridge.rs` | Burn's side |
//!
//! Results do not depend on the number of threads: sums over a batch are made of sums over images or over
//! fixed groups of them, added in order. They do depend on the [`Level`], in their last digits.
//!
//! # Feature flags
//!
//! No feature is on by default: the kernels themselves depend on nothing of Burn's.
//!
//! - `burn`: the module `bridge`, whose types are Burn's tensors
//! - `flex`, `ndarray`: the bridge to that backend
//!
//! # Example
//!
//! ```
//! use residual_kernels::{ChannelPadding, Conv, Layer, Level, Norm, Path, Shortcut, Wanted};
//!
//! let conv = Conv::same([16, 16], 3);
//! let (weight, ones, zeros) = (vec![0.1; conv.weights()], [1.0; 16], [0.0; 16]);
//! let layer =
//!     Layer { conv, weight: &weight, gain: Some(&ones), bias: Some(&zeros), norm: Norm::Batch { epsilon: 1e-5 } };
//! let images: Vec<f32> = (0..2 * 8 * 8 * 16).map(|i| (i % 7) as f32).collect();
//! let block = Path {
//!     layers: vec![layer; 2],
//!     input: &images,
//!     image: [8, 8],
//!     scale: 1.0,
//!     shortcut: Shortcut::Input { strength: 1.0, padding: ChannelPadding::BothSides },
//!     relu: true,
//! };
//! let (output, saved) = block.train(Level::detect(), true);
//! let wanted = Wanted { input: true, shortcut: false, parameters: true };
//! let gradients = block.gradients(Level::detect(), &output, saved, &vec![1.0; output.len()], wanted);
//! assert_eq!(gradients.layers[0].weight.len(), weight.len());
//! ```

mod backward;
#[cfg(feature = "burn")]
pub mod bridge;
mod buffer;
mod conv;
mod elementwise;
mod inference;
mod normalize;
mod path;
mod pool;
mod simd;
#[cfg_attr(not(feature = "burn"), allow(dead_code, reason = "the bridge reads such tensors"))]
mod strided;
mod tile;
mod update;
mod winograd;

#[cfg(test)]
mod tests;

pub use buffer::Buffer;
pub use conv::Conv;
pub use inference::Prepared;
pub use normalize::Normalize;
pub use path::{ChannelPadding, Gradients, Layer, LayerGradients, Norm, Path, Saved, Shortcut, Statistics, Wanted};
pub use pool::{MaxPool, mean_pool, mean_pool_gradient};
pub use simd::Level;
pub use update::{Sgd, average};
