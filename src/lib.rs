//! Residual networks on Burn, with the plain twins that show why they work.
//!
//! A facade: each module is a crate of its own.

pub use burn;
pub use residual_backend as backend;
pub use residual_data as data;
pub use residual_lab as lab;
pub use residual_model as model;
pub use residual_train as train;
pub use residual_weights as weights;
