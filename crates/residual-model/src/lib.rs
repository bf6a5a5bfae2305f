//! Plain and residual networks as Burn modules.
//!
//! A block has a **main path** `F` of two or three linear layers, each with its norm. [`PlainBlock`] computes
//! `g(F(a))`, and [`ResidualBlock`] computes `g(F(a) + shortcut(a))`, where `g` is the ReLU. Both are built from the
//! same main path, with the same initial weights for the same seed. They differ only in the addition.
//!
//! | module | contents |
//! |---|---|
//! | [`block`] | the plain block and the residual block, for any main path |
//! | [`main_path`] | the traits to implement for a main path or a shortcut of your own |
//! | [`conv`] | the convolutional main path, basic or bottleneck, and its shortcut (rank 4) |
//! | [`preact`] | pre-activation blocks |
//! | [`dense`] | the fully-connected main path and its shortcut (rank 2) |
//! | [`network`] | whole networks: convolutional networks for small images and for ImageNet, dense networks |
//! | [`name`] | names such as `resnet20`, `plain34`, `resnext50_32x4d` and `dense-plain56` |
//! | [`stochastic_depth`] | the choice of blocks that take part in a training step |
//! | [`kernels`] | the choice between fused CPU kernels and Burn's operations |
//! | [`init`] | initial weights: a pure function of (seed, parameter path), or drawn by Burn |
//! | [`parameters`] | a module's tensors by path, and their serialisation |
//! | [`summary`] | layers, output shapes, parameters and multiply-adds of a network |
//!
//! # Training without batch norm
//!
//! A residual network trains at any depth only if the scale of `F` is controlled. Batch norm ([`Norm::Batch`], the
//! default, He et al. 2015) controls it. Without a norm ([`Norm::None`]), He's initialisation doubles the variance with
//! each residual block, so deep networks overflow. To train without a norm, use [`BranchScale::InverseSqrtDepth`] or
//! [`InitConfig::zero_init`]. Zero initialisation makes every residual block start as its shortcut (Zhang et al. 2019,
//! "Fixup"; De & Smith 2020). It is for residual networks only: a plain block whose last layer is zero outputs zero and
//! passes no gradient back.
//!
//! # Example
//!
//! The two blocks, and a network of residual blocks:
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
//! Blocks, stages and networks are Burn modules like the layers of `burn::nn`: use them as fields of your own module,
//! train them with Burn's optimizers, and save and load them as records.
//!
//! # Feature flags
//!
//! - `std` (default): uses the standard library. Without it, the crate needs only `alloc`. Networks then run, but batch
//!   norms do not train, and there are no fused kernels and no `to_burnpack`.
//! - `flex` (default): Burn's CPU backend, `Device::flex()`, with fused kernels. [`Kernels::on`] returns the kernels
//!   that a device uses.
//! - `ndarray`: Burn's older CPU backend, also with fused kernels.
//!
//! Other backends are features of `burn`. To run on a GPU, depend on `burn = { version = "0.22", features = ["wgpu"] }`
//! in addition to this crate. On a GPU, blocks are computed with Burn's operations.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod block;
mod branch_scale;
pub mod conv;
pub mod dense;
mod error;
pub mod init;
pub mod kernels;
pub mod main_path;
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

pub use block::{Block, BlockKind, PlainBlock, PlainBlockConfig, ResidualBlock, ResidualBlockConfig};
pub use branch_scale::BranchScale;
pub use conv::{Bottleneck, ConvBlock, ConvPath, ConvPathConfig, ConvShortcut, StrideAt};
pub use dense::{DenseBlock, DensePath, DensePathConfig, DenseShortcut};
pub use error::ModelError;
pub use init::InitConfig;
pub use kernels::Kernels;
pub use main_path::{Layer, MainPath, MainPathConfig};
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
pub use norm::{Norm, folded_factor_and_bias};
pub use preact::{PreactBlock, PreactPath, PreactPathConfig, PreactPlainBlock, PreactResidualBlock};
pub use shortcut::ShortcutOption;
pub use summary::Summary;
