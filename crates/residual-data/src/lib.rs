//! Image classification datasets and a deterministic loader.
//!
//! [`DataName`] names a dataset. [`DataConfig`] adds the location of its files and the samples to use. [`Dataset`]
//! holds the training and test splits. [`Loader`] turns a split into batches on a device. The order of the samples
//! depends only on (seed, epoch), and the [`Augmentation`] of a sample only on (seed, epoch, sample).
//!
//! ```
//! use burn::tensor::Device;
//! use residual_data::{DataName, Loader, Order};
//!
//! let digits = DataName::Digits.load()?;
//! assert_eq!((digits.train.len(), digits.test.len()), (1437, 360));
//!
//! let loader = Loader::new(digits.train, 64, &Device::flex()).with_order(Order::Shuffled { seed: 0 });
//! for batch in loader.batches() {
//!     let batch = batch?;
//!     assert_eq!(batch.images.dims()[1..], [1, 8, 8]);
//! }
//! # Ok::<(), residual_data::DataError>(())
//! ```
//!
//! # Feature flags
//!
//! - `flex` (default): Burn's CPU backend, `Device::flex()`. Without it, enable any other backend of `burn`.

mod augmentation;
mod check;
mod cifar;
mod classes;
mod config;
mod dataset;
mod decode;
mod digits;
mod error;
mod export;
mod files;
mod fingerprint;
mod folder;
pub mod formats;
mod hash;
mod layout;
mod loader;
mod mnist;
mod name;
mod normalization;
mod preprocessing;
mod published;
mod scan;
mod split;
mod synthetic;
mod threads;
mod tree;
mod words;

pub use augmentation::Augmentation;
pub use check::{Report, SplitReport, check, recognize};
pub use classes::{Relabeled, class_list, match_classes};
pub use config::{DataConfig, Description};
pub use dataset::{Dataset, HeldOut, Images, Source, Subset};
pub use decode::DEFAULT_MAX_PIXELS;
pub use error::DataError;
pub use export::export;
pub use fingerprint::Fingerprint;
pub use folder::Folder;
pub use loader::{Batch, Batches, Loader, Order};
pub use name::DataName;
pub use normalization::{Normalization, Normalize};
pub use preprocessing::Preprocessing;
pub use scan::image_files;
pub use synthetic::Synthetic;
pub use threads::{check_threads, start_threads};
pub use words::{escaped, printable, shown, shown_path};
