//! Residual networks on Burn, and their plain twins to compare them with.
//!
//! This crate re-exports the crates of the project, each as a module.
//!
//! ```
//! use residual::{burn::tensor::{Device, Tensor}, model::{cifar_plain, cifar_resnet}};
//!
//! let device = Device::flex();
//! let images = Tensor::ones([1, 3, 32, 32], &device);
//! for config in [cifar_plain(20), cifar_resnet(20)] {
//!     assert_eq!(config.summary().parameters(), 269_722);
//!     assert_eq!(config.init(&device).forward(images.clone()).dims(), [1, 10]);
//! }
//! ```
//!
//! # Feature flags
//!
//! - `flex`, `ndarray`, `wgpu` (default): Burn's CPU and GPU backends
//! - `vulkan`, `metal`, `cuda`, `rocm`, `cpu`, `autotune`, `fusion`: see [`backend`]

pub use burn;
pub use residual_backend as backend;
pub use residual_data as data;
pub use residual_lab as lab;
pub use residual_model as model;
pub use residual_report as report;
pub use residual_train as train;
pub use residual_weights as weights;

/// The code of the guides, compiled and run by `cargo test`.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/data.md")]
    mod data {}
    #[doc = include_str!("../docs/networks.md")]
    mod networks {}
    #[doc = include_str!("../docs/training.md")]
    mod training {}
    #[doc = include_str!("../docs/weights.md")]
    mod weights {}
}
