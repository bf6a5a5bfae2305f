//! Reads network weights from PyTorch, safetensors and burnpack files, and writes safetensors, burnpack and ONNX.
//!
//! | item | purpose |
//! |---|---|
//! | [`Checkpoint`] | reads the tensors of a file in any of these formats |
//! | [`load`] | copies a checkpoint into a network, either completely or not at all |
//! | [`save`] | writes a network as safetensors with torchvision's names, or as burnpack; [`save_with_card`] also a card |
//! | [`onnx`] | writes a network as an ONNX model, which other engines run |
//! | [`Selection`] | the dictionary in a file that fits a network |
//! | [`names`] | converts the parameter names of this project, timm, Hugging Face and others to torchvision's |
//! | [`published`] | torchvision's pretrained weights, by name |
//! | [`HuggingFace`] | the content of the files that Hugging Face puts beside weights |
//! | [`Card`] | metadata that a weights file does not contain: the network, the preprocessing, the labels |
//!
//! ```
//! use burn::tensor::Device;
//! use residual_model::cifar_resnet;
//! use residual_weights::{Checkpoint, LoadOptions, load, save};
//!
//! let device = Device::flex();
//! let file = std::env::temp_dir().join("residual-weights-doctest.safetensors");
//! save(&cifar_resnet(8).init(&device), &file)?; // PyTorch can load this file
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
//! - `flex` (default): Burn's CPU backend flex with the fused kernels, as in `residual-model`

mod burnpack;
mod card;
mod cause;
mod checkpoint;
mod dtype;
mod error;
mod file;
mod foreign;
mod hugging_face;
mod load;
mod name_map;
pub mod names;
pub mod onnx;
mod pairs;
pub mod published;
mod pytorch;
mod ranges;
mod safetensors;
mod save;
mod select;
mod shards;

pub use card::Card;
pub use cause::Cause;
pub use checkpoint::{Checkpoint, Entry, Format};
pub use error::{Differences, WeightsError};
pub use hugging_face::HuggingFace;
pub use load::{LoadOptions, Loaded, load};
pub use name_map::NameMap;
pub use published::{Published, pretrained};
pub use save::{Precision, save, save_with_card, tensors};
pub use select::Selection;
