//! Fused CPU kernels for residual blocks.
//!
//! A [`Path`] is the main path of a block: convolutions, each with its norm, and ReLUs between them. It computes
//! `y = g(s · F(x) + α · shortcut)` for inference ([`Path::infer`]) or for training ([`Path::train`]), and the
//! gradients of the backward pass ([`Path::gradients`]). Images are plain `f32` slices in channels-last (NHWC) order. A
//! fully-connected layer is a 1x1 convolution of an image with one row.
//!
//! Without features, the crate does not depend on Burn. The feature `burn` adds the module `bridge`, which makes a
//! whole block a single operation of Burn's backends flex and ndarray, with its own backward pass. The operation
//! includes the shortcut's projection and, in pre-activation blocks, the first norm and ReLU.
//!
//! | file | contents |
//! |---|---|
//! | `tile.rs` | the two inner loops: register-tiled matrix products over gathered rows |
//! | `conv.rs`, `layout.rs`, `plan.rs` | direct convolutions and their gradients, as matrix products of `tile.rs` |
//! | `winograd.rs` | Winograd's algorithm: 3x3 convolutions with a quarter of the multiplications |
//! | `winograd/wide.rs` | the same with so many channels that threads share them instead of images |
//! | `elementwise.rs` | norms, ReLUs and shortcuts, forward and backward |
//! | `path.rs`, `backward.rs`, `inference.rs` | a main path: forward pass for training, backward pass, inference |
//! | `normalize.rs` | a norm and a ReLU without a convolution, as in pre-activation blocks |
//! | `pool.rs` | max-pooling and global average pooling |
//! | `update.rs` | weighted sums and the SGD step |
//! | `strided.rs` | contiguous copies of strided tensors |
//! | `buffer.rs` | reusable memory |
//! | `simd.rs` | SIMD instruction sets, selected at run time |
//! | `bridge.rs` | the interface to Burn |
//!
//! Results do not depend on the number of threads: a sum over the batch adds the sums over single images, or over fixed
//! groups of images, in a fixed order. Results on different [`SimdLevel`]s differ by rounding errors, and so do
//! results of inference for different batch sizes, with 3x3 convolutions of 256 channels or more.
//!
//! # Feature flags
//!
//! No feature is enabled by default.
//!
//! - `burn`: the module `bridge`, which works on Burn's tensors
//! - `flex`, `ndarray`: the bridge for that backend
//!
//! # Example
//!
//! ```
//! use residual_kernels::{ChannelPadding, Conv, ConvNorm, NeedsGradient, Norm, Path, Shortcut, SimdLevel, Weight};
//!
//! let conv = Conv::same([16, 16], 3);
//! let (weight, ones, zeros) = (vec![0.1; conv.weights()], [1.0; 16], [0.0; 16]);
//! let norm = Norm::Batch { epsilon: 1e-5 };
//! let weight = Weight::OutputsFirst(&weight);
//! let layer = ConvNorm { conv, weight, gain: Some(&ones), bias: Some(&zeros), norm };
//! let images: Vec<f32> = (0..2 * 8 * 8 * 16).map(|i| (i % 7) as f32).collect();
//! let block = Path {
//!     layers: vec![layer; 2],
//!     input: &images,
//!     image: [8, 8],
//!     scale: 1.0,
//!     shortcut: Shortcut::Input { strength: 1.0, padding: ChannelPadding::BothSides },
//!     relu: true,
//! };
//! let (output, saved) = block.train(SimdLevel::detect(), true);
//! let needs = NeedsGradient { input: true, shortcut: false, parameters: true };
//! let gradients = block.gradients(SimdLevel::detect(), saved, &vec![1.0; output.len()], needs);
//! assert_eq!(gradients.layers[0].weight.len(), conv.weights());
//! ```

mod backward;
#[cfg(feature = "burn")]
pub mod bridge;
mod buffer;
mod conv;
mod elementwise;
mod inference;
mod layout;
mod normalize;
mod parallel;
mod path;
mod plan;
mod pool;
mod signs;
mod simd;
#[cfg_attr(not(feature = "burn"), allow(dead_code, reason = "only the bridge reads strided tensors"))]
mod strided;
mod tile;
mod update;
mod winograd;

#[cfg(test)]
mod tests;

pub use buffer::Buffer;
pub use conv::Conv;
pub use inference::PreparedWeight;
pub use normalize::Normalize;
pub use path::{
    ChannelPadding, ConvNorm, ConvNormGradients, Gradients, NeedsGradient, Norm, Path, SavedForBackward, Shortcut,
    Statistics, Weight,
};
pub use pool::{MaxPool, mean_pool, mean_pool_gradient};
pub use simd::SimdLevel;
pub use update::{Sgd, weighted_sum};

/// Frees the memory that the kernels keep for reuse: the memory of dropped [`Buffer`]s, the tables of offsets of each
/// convolution, and the prepared weights of networks on Burn's flex backend. The next operations allocate and compute them
/// again, so this is worthwhile only before a long time without any, as after a training in a program that goes on.
pub fn trim() {
    #[cfg(feature = "flex")]
    bridge::trim();
    plan::trim();
    buffer::trim();
}
