//! Image classification datasets and a deterministic loader for them.
//!
//! [`DataName`] names a dataset and loads it; [`Dataset`] is its training and test split;
//! [`Loader`] turns a split into batches on a device, in an order that depends on (seed, epoch) alone.
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

mod dataset;
mod digits;
mod error;
mod idx;
mod loader;
mod preprocessing;
mod synthetic;

pub use dataset::{DataName, Dataset, Images, Source};
pub use error::DataError;
pub use loader::{Batch, Batches, Loader, Order};
pub use preprocessing::Preprocessing;
pub use synthetic::Synthetic;
