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
//! ```no_run
//! use burn::tensor::Device;
//! use residual_model::NetworkConfig;
//! use residual_weights::{Checkpoint, LoadOptions, load};
//!
//! let device = Device::flex();
//! let mut network = NetworkConfig::new("resnet18".parse()?, [3, 224, 224], 1000).init(&device);
//! load(&mut network, &Checkpoint::read("resnet18-f37072fd.pth".as_ref())?, &LoadOptions::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
pub use published::Published;
pub use save::{save, tensors};
