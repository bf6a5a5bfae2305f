//! The fully-connected main path: two linear layers.

use crate::{
    Block, Layer, Norm, ShortcutOption,
    block::{Fold, MainPath, MainPathConfig},
    init::{HE_NORMAL, zeroed},
    kernels::{Addend, End, fused, unit},
    norm::fold_linear,
    shortcut::pad_channels,
};
use burn::{
    config::Config,
    module::Module,
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
/// Should be created using [`DensePathConfig`], or as part of a block.
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
    /// What it does where sizes differ.
    #[module(skip)]
    pub option: ShortcutOption,
}

impl DensePathConfig {
    /// Builds the path, its weights to be drawn by the device's generator.
    ///
    /// # Panics
    /// If a size is zero.
    pub fn init(&self, device: &Device) -> DensePath {
        self.build_path(device)
    }
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
            option,
        }
    }
}

/// A linear layer with a bias of zero where the norm needs one.
pub(crate) fn linear(features: [usize; 2], norm: Norm, device: &Device) -> Linear {
    assert!(features.iter().all(|&f| f > 0), "features must be at least 1");
    let linear = LinearConfig::new(features[0], features[1])
        .with_bias(norm.needs_bias())
        .with_initializer(HE_NORMAL)
        .init(device);
    Linear { bias: linear.bias.map(zeroed), ..linear }
}

impl Layer<2> for DensePath {
    /// # Shapes
    /// - a: `[batch, in_features]`
    /// - output: `[batch, out_features]`
    fn forward(&self, a: Tensor<2>) -> Tensor<2> {
        unit(&self.linear2, &self.bn2).forward(unit(&self.linear1, &self.bn1).forward_relu(a))
    }
}

impl DensePath {
    /// A block with this main path as one operation, where there is a kernel for it.
    pub(crate) fn fused<'a, const D: usize>(
        &self,
        a: &Tensor<D>,
        end: impl FnOnce() -> End<'a, D>,
    ) -> Option<Tensor<D>> {
        fused(None, &[unit(&self.linear1, &self.bn1), unit(&self.linear2, &self.bn2)], a, end)
    }
}

impl DenseShortcut {
    /// What a block with this shortcut adds.
    pub(crate) fn addend<const D: usize>(&self, strength: f64) -> Addend<'_, D> {
        match &self.linear {
            Some(linear) => Addend::Linear(unit(linear, &self.bn), strength),
            None => Addend::Input(strength, self.option),
        }
    }
}

impl Fold for DensePath {
    fn folded(mut self) -> Self {
        self.linear1 = fold_linear(self.linear1, self.bn1.take());
        self.linear2 = fold_linear(self.linear2, self.bn2.take());
        self
    }
}

impl Fold for DenseShortcut {
    fn folded(mut self) -> Self {
        self.linear = self.linear.map(|linear| fold_linear(linear, self.bn.take()));
        self
    }
}

impl Layer<2> for DenseShortcut {
    /// # Shapes
    /// As [`DensePath`]'s.
    fn forward(&self, a: Tensor<2>) -> Tensor<2> {
        match &self.linear {
            Some(linear) => unit(linear, &self.bn).forward(a),
            None => {
                let before = self.option.zeros_before(self.out_features - a.dims()[1]);
                pad_channels(a, self.out_features, before)
            }
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
