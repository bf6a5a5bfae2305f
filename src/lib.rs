//! Residual networks on Burn, with the plain twins that show why they work.
//!
//! A facade: each module is a crate of its own.
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
//! - `flex`, `ndarray`, `wgpu` (default): Burn's backends on CPUs and GPUs
//! - `vulkan`, `metal`, `cuda`, `rocm`, `cpu`, `autotune`, `fusion`: see [`backend`]

pub use burn;
pub use residual_backend as backend;
pub use residual_data as data;
pub use residual_lab as lab;
pub use residual_model as model;
pub use residual_train as train;
pub use residual_weights as weights;
