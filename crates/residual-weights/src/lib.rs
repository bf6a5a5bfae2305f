//! Network weights in and out: PyTorch checkpoints, safetensors and burnpack files.
//!
//! | module | what it holds |
//! |---|---|
//! | [`Checkpoint`] | the tensors of a file, whatever its format |
//! | [`load`] | puts a checkpoint into a network, all of it or nothing |
//! | [`save`] | writes a network as safetensors with torchvision's names, or as burnpack |
//! | [`names`] | how parameters are called here, in torchvision, in timm and in older checkpoints |
//! | [`published`] | torchvision's weights by name |
//! | [`Card`] | what a weights file does not say: the network, the preprocessing, the labels |
//!
//! ```
//! use burn::tensor::Device;
//! use residual_model::cifar_resnet;
//! use residual_weights::{Checkpoint, LoadOptions, load, save};
//!
//! let device = Device::flex();
//! let file = std::env::temp_dir().join("residual-weights-doctest.safetensors");
//! save(&cifar_resnet(8).init(&device), &file)?; // PyTorch loads this
//!
//! let mut network = cifar_resnet(8).with_seed(1).init(&device);
//! load(&mut network, &Checkpoint::read(&file)?, &LoadOptions::default())?;
//! # std::fs::remove_file(file)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`pretrained`] loads torchvision's ImageNet weights: `pretrained("resnet50", &device)`.
//!
//! # Feature flags
//!
//! - `flex` (default): Burn's CPU backend with the fused kernels, as in `residual-model`

mod card;
mod checkpoint;
mod error;
mod load;
pub mod names;
pub mod published;
mod save;

pub use card::Card;
pub use checkpoint::{Checkpoint, Entry, Format};
pub use error::WeightsError;
pub use load::{LoadOptions, Loaded, load};
pub use names::NameMap;
pub use published::{Published, pretrained};
pub use save::{save, tensors};
