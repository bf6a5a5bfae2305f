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
//! | [`init`] | initial weights: a pure function of (seed, parameter path), or drawn by Burn |
//! | [`parameters`] | a module's tensors by path, and as a file |
//! | [`summary`] | layers, output shapes, parameters, multiply-adds |
//!
//! # Which claim holds under which choice
//!
//! "A residual net trains at any depth" needs the scale of `F` under control. With batch norm
//! ([`Norm::Batch`], the default, He et al. 2015) it holds as it stands. Without a norm
//! ([`Norm::None`]) and He's initialisation the variance of a residual stack doubles with each
//! block, so deep ones overflow; use [`BranchScale::InverseSqrtDepth`], or
//! [`InitConfig::zero_init`], which starts every block as the identity (Zhang et al. 2019,
//! "Fixup"; De & Smith 2020). A plain block whose last layer is zero outputs zero and passes no
//! gradient, so zero initialisation is for residual nets.
//!
//! # Example
//!
//! The two blocks of the lecture, and a network of them:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use residual_model::{ConvPathConfig, PlainBlockConfig, ResidualBlockConfig, cifar_resnet};
//!
//! let device = Device::flex();
//! let path = ConvPathConfig::new(16, 32).with_stride(2);
//! let plain = PlainBlockConfig::new(path.clone()).init(&device);
//! let residual = ResidualBlockConfig::new(path).init(&device);
//!
//! let a = Tensor::<4>::ones([1, 16, 8, 8], &device);
//! assert_eq!(plain.forward(a.clone()).dims(), [1, 32, 4, 4]);
//! assert_eq!(residual.forward(a).dims(), [1, 32, 4, 4]);
//!
//! let network = cifar_resnet(20).with_width(8).init(&device);
//! assert_eq!(network.forward(Tensor::ones([1, 3, 32, 32], &device)).dims(), [1, 10]);
//! ```
//!
//! Blocks, stages and networks are Burn modules like those of `burn::nn`: fields of a module of one's own, trained by
//! Burn's optimizers, saved and loaded as records.
//!
//! # Feature flags
//!
//! - `std` (default): everything but the kernels. Without it the crate needs only `alloc`: networks run, but batch norms
//!   do not train.
//! - `flex` (default): Burn's CPU backend, `Device::flex()`, and the fused kernels on it. [`Kernels::on`] says whether
//!   a device has them.
//! - `ndarray`: the same for Burn's older CPU backend.
//!
//! Other backends are features of `burn`: `burn = { version = "0.22", features = ["wgpu"] }` beside this crate is enough
//! to run on a GPU, where blocks are computed by Burn's operations.

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
    Block, BlockKind, BranchScale, Layer, MainPath, MainPathConfig, PlainBlock, PlainBlockConfig, ResidualBlock,
    ResidualBlockConfig,
};
pub use conv::{Bottleneck, ConvBlock, ConvPath, ConvPathConfig, ConvShortcut, StrideAt};
pub use dense::{DenseBlock, DensePath, DensePathConfig, DenseShortcut};
pub use error::ModelError;
pub use init::InitConfig;
pub use kernels::Kernels;
pub use name::{Family, NetName, PUBLISHED};
pub use network::{
    Activation, Architecture, Backbone, BlockOptions, BlockShape, BlockView, Branches, ConvArchitecture, ConvBackbone,
    DenseArchitecture, DenseBackbone, Features, Network, NetworkBlock, NetworkConfig, Part, Stage, StageConfig,
    StageInfo, Stem,
    published::{
        cifar_plain, cifar_resnet, dense_plain, dense_resnet, plain18, plain34, plain50, preact_plain, preact_resnet,
        preact_resnet18, preact_resnet50, resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d,
        resnext101_32x8d, resnext101_64x4d, wide_resnet50_2, wide_resnet101_2,
    },
};
pub use norm::Norm;
pub use preact::{PreactBlock, PreactPath, PreactPathConfig, PreactPlainBlock, PreactResidualBlock};
pub use shortcut::ShortcutOption;
pub use summary::Summary;
