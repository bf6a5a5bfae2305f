//! Plain and residual networks as Burn modules.
//!
//! A block has a **main path** `F`, two linear layers with their norms. [`PlainBlock`] computes
//! `g(F(a))`, [`ResidualBlock`] computes `g(F(a) + shortcut(a))`, with `g` the ReLU. Both are built
//! from the same main path with the same initial weights: the add is all that tells them apart.
//!
//! | module | what it holds |
//! |---|---|
//! | [`block`] | the two blocks, for any main path |
//! | [`conv`] | the convolutional main path, basic or bottleneck, and its shortcut (rank 4) |
//! | [`preact`] | pre-activation blocks |
//! | [`dense`] | the fully-connected main path and shortcut (rank 2) |
//! | [`network`] | whole networks: convolutional ones for small images and ImageNet's, dense ones |
//! | [`name`] | names such as `resnet20`, `plain34`, `resnext50_32x4d` and `dense-plain56` |
//! | [`stochastic_depth`] | which blocks take part in a training step |
//! | [`kernels`] | which code computes a block |
//! | [`init`] | initial weights, a pure function of (seed, parameter path) |
//! | [`parameters`] | a module's tensors by path |
//! | [`summary`] | layers, output shapes, parameters, multiply-adds |
//!
//! # Which claim holds under which choice
//!
//! "A residual net trains at any depth" needs the scale of `F` under control. With batch norm
//! ([`Norm::Batch`], the default, He et al. 2015) it holds as it stands. Without a norm
//! ([`Norm::None`]) and He's initialisation the variance of a residual stack doubles with each
//! block, so deep ones overflow; use [`BranchScale::InverseSqrtDepth`], or
//! [`InitConfig::zero_init`](init::InitConfig), which starts every block as the identity (Zhang et al. 2019,
//! "Fixup"; De & Smith 2020). A plain block whose last layer is zero outputs zero and passes no
//! gradient, so zero initialisation is for residual nets.
//!
//! # Example
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use residual_model::{ConvPathConfig, PlainBlockConfig, ResidualBlockConfig};
//!
//! let device = Device::flex();
//! let path = ConvPathConfig::new(16, 32).with_stride(2);
//! let plain = PlainBlockConfig::new(path.clone()).init(&device);
//! let residual = ResidualBlockConfig::new(path).init(&device);
//!
//! let a = Tensor::<4>::ones([1, 16, 8, 8], &device);
//! assert_eq!(plain.forward(a.clone()).dims(), [1, 32, 4, 4]);
//! assert_eq!(residual.forward(a).dims(), [1, 32, 4, 4]);
//! ```
//!
//! Without its feature `std` the crate needs only `alloc`: networks run, but batch norms do not train.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod block;
pub mod conv;
pub mod dense;
mod error;
pub mod init;
pub mod kernels;
pub mod name;
pub mod network;
mod norm;
pub mod parameters;
pub mod preact;
mod shortcut;
pub mod stochastic_depth;
pub mod summary;
mod transparent;

#[cfg(test)]
mod tests;

pub use block::{
    Block, BlockKind, BranchScale, Layer, PlainBlock, PlainBlockConfig, ResidualBlock, ResidualBlockConfig,
};
pub use conv::{Bottleneck, ConvBlock, ConvPath, ConvPathConfig, ConvShortcut, StrideAt};
pub use dense::{DenseBlock, DensePath, DensePathConfig, DenseShortcut};
pub use error::ModelError;
pub use init::InitConfig;
pub use kernels::Kernels;
pub use name::{Family, NetName, PUBLISHED};
pub use network::{
    Activation, BlockOptions, BlockShape, BlockView, Branches, ConvConfig, ConvNetwork, DenseConfig, DenseNetwork,
    Features, Network, NetworkBlock, NetworkConfig, Part, Stage, Stem,
};
pub use norm::Norm;
pub use preact::{PreactBlock, PreactPath, PreactPlainBlock, PreactResidualBlock};
pub use shortcut::ShortcutOption;
pub use summary::Summary;
