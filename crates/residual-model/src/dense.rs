//! The fully-connected main path: two linear layers.

use crate::{
    Block, Layer, Norm, ShortcutOption,
    block::{MainPath, MainPathConfig},
    init::zeroed,
    kernels::{Addend, End, fused, unit},
    shortcut::pad_channels,
};
use burn::{
    config::Config,
    module::{Initializer, Module},
    nn::{BatchNorm, Linear, LinearConfig},
    tensor::{Device, Tensor},
};

/// A plain or residual block of two linear layers.
pub type DenseBlock = Block<DensePath, DenseShortcut>;

/// Configuration of a [`DensePath`].
#[derive(Config, Debug)]
pub struct DensePathConfig {
    /// Size of the input.
    pub in_features: usize,
    /// Size of both layers' output.
    pub out_features: usize,
    /// The norm after each layer.
    #[config(default = "Norm::Batch")]
    pub norm: Norm,
}

/// `F(a) = norm(W2 g(norm(W1 a + b1)) + b2)`, the biases only where there is no norm.
///
/// Should be created using a block's configuration, such as
/// [`PlainBlockConfig`](crate::PlainBlockConfig).
#[derive(Module, Debug)]
pub struct DensePath {
    /// `W1` and `b1`.
    pub linear1: Linear,
    /// The norm of `z1`.
    pub bn1: Option<BatchNorm>,
    /// `W2` and `b2`.
    pub linear2: Linear,
    /// The norm of `z2`.
    pub bn2: Option<BatchNorm>,
}

/// The way around a [`DensePath`]: identity, zero padding, or `W_s a` with its norm.
#[derive(Module, Debug)]
pub struct DenseShortcut {
    /// `W_s`, if the shortcut projects.
    pub linear: Option<Linear>,
    /// The norm of `W_s a`.
    pub bn: Option<BatchNorm>,
    /// Size of the output.
    pub out_features: usize,
}

impl MainPathConfig for DensePathConfig {
    type Path = DensePath;
    type Shortcut = DenseShortcut;

    fn build_path(&self, device: &Device) -> DensePath {
        let Self { in_features, out_features, norm } = *self;
        DensePath {
            linear1: linear([in_features, out_features], norm, device),
            bn1: norm.init(out_features, device),
            linear2: linear([out_features, out_features], norm, device),
            bn2: norm.init(out_features, device),
        }
    }

    fn build_shortcut(&self, option: ShortcutOption, device: &Device) -> DenseShortcut {
        let Self { in_features, out_features, norm } = *self;
        let projects = option.projects(in_features != out_features);
        assert!(
            projects || out_features >= in_features,
            "a zero-padding shortcut cannot go from {in_features} to {out_features} features; use a projection"
        );
        DenseShortcut {
            linear: projects.then(|| linear([in_features, out_features], norm, device)),
            bn: if projects { norm.init(out_features, device) } else { None },
            out_features,
        }
    }
}

/// A linear layer with weights still zero.
pub(crate) fn linear(features: [usize; 2], norm: Norm, device: &Device) -> Linear {
    assert!(features.iter().all(|&f| f > 0), "features must be at least 1");
    LinearConfig::new(features[0], features[1])
        .with_bias(norm.needs_bias())
        .with_initializer(Initializer::Zeros)
        .init(device)
}

impl Layer<2> for DensePath {
    /// # Shapes
    /// - a: `[batch, in_features]`
    /// - output: `[batch, out_features]`
    fn forward(&self, a: Tensor<2>) -> Tensor<2> {
        unit(&self.linear2, &self.bn2).forward(unit(&self.linear1, &self.bn1).forward_relu(a))
    }

    fn fused(&self, a: &Tensor<2>, end: impl FnOnce() -> End<2>) -> Option<Tensor<2>> {
        fused(&[unit(&self.linear1, &self.bn1), unit(&self.linear2, &self.bn2)], a, end)
    }
}

impl Layer<2> for DenseShortcut {
    /// # Shapes
    /// As [`DensePath`]'s.
    fn forward(&self, a: Tensor<2>) -> Tensor<2> {
        match &self.linear {
            Some(linear) => unit(linear, &self.bn).forward(a),
            None => pad_channels(a, self.out_features),
        }
    }

    fn addend(&self, a: &Tensor<2>, strength: f64) -> Addend<2> {
        match &self.linear {
            Some(_) => Addend::Tensor(self.forward(a.clone()), strength),
            None => Addend::Input(strength),
        }
    }
}

impl MainPath for DensePath {
    fn zero_last_layer(mut self) -> Self {
        match &mut self.bn2 {
            Some(bn) => bn.gamma = zeroed(bn.gamma.clone()),
            None => self.linear2.weight = zeroed(self.linear2.weight),
        }
        self
    }
}
