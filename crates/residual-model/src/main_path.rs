//! The traits of main paths and shortcuts. Implement [`Layer`] to use a module of your own in a block.

use crate::ShortcutOption;
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor},
};
use core::fmt;
use serde::{Serialize, de::DeserializeOwned};

/// A module that maps a tensor of rank `D` to a tensor of the same rank. Implement this trait to use a module of your
/// own as a main path or a shortcut.
///
/// ```
/// use burn::{module::Module, nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// use residual_model::{Layer, PlainBlock};
///
/// #[derive(Module, Debug)]
/// struct OneLayer { linear: Linear }
///
/// impl Layer<2> for OneLayer {
///     fn forward(&self, a: Tensor<2>) -> Tensor<2> {
///         self.linear.forward(a)
///     }
/// }
///
/// let device = Device::flex();
/// let block = PlainBlock { main_path: OneLayer { linear: LinearConfig::new(4, 4).init(&device) } };
/// assert_eq!(block.forward(Tensor::<2>::ones([3, 4], &device)).dims(), [3, 4]);
/// ```
pub trait Layer<const D: usize>: Module + 'static {
    /// Computes the layer's output.
    fn forward(&self, a: Tensor<D>) -> Tensor<D>;
}

/// A main path whose last layer can be set to zero.
pub trait MainPath: Module + ModuleDisplay {
    /// Sets the γ of the last norm to zero, or the weight of the last layer if the path has no norm.
    fn zero_last_layer(self) -> Self;
}

/// Configuration of a main path and of the shortcut around it.
pub trait MainPathConfig: Clone + fmt::Debug + Serialize + DeserializeOwned {
    /// The module of the main path.
    type Path: MainPath;
    /// The module of the shortcut.
    type Shortcut: Module + ModuleDisplay;

    /// Builds the main path. The device's random generator draws its weights.
    ///
    /// # Panics
    /// If a size is zero, or if the number of groups does not divide the number of channels.
    fn build_path(&self, device: &Device) -> Self::Path;

    /// Builds the shortcut. The device's random generator draws its weights.
    ///
    /// # Panics
    /// If the shortcut pads with zeros and the main path has fewer outputs than inputs.
    fn build_shortcut(&self, option: ShortcutOption, device: &Device) -> Self::Shortcut;
}
