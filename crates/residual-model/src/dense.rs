//! The fully-connected main path: two linear layers.

use crate::{
    Block, Layer, MainPath, MainPathConfig, Norm, ShortcutOption,
    init::{HE_NORMAL, zeroed},
    kernels::{Addend, Epilogue, fused, unit},
    norm::{Fold, fold_linear},
    shortcut::pad_channels,
};
use burn::{
    config::Config,
    module::Module,
    nn::{BatchNorm, Linear, LinearConfig},
    tensor::{Device, Tensor},
};

/// A plain or residual block with a fully-connected main path.
pub type DenseBlock = Block<DensePath, DenseShortcut>;

/// Configuration to create a [`DensePath`].
#[derive(Config, Debug)]
pub struct DensePathConfig {
    /// The number of input features.
    pub in_features: usize,
    /// The number of output features of both layers.
    pub out_features: usize,
    /// The norm after each layer.
    #[config(default = "Norm::Batch")]
    pub norm: Norm,
}

/// The main path `F(a) = norm(W2 g(norm(W1 a + b1)) + b2)`. The layers have biases only if there is no norm.
///
/// Should be created using [`DensePathConfig`], or as part of a block.
#[derive(Module, Debug)]
pub struct DensePath {
    /// `W1` and `b1`.
    pub linear1: Linear,
    /// The norm of `W1 a + b1`.
    pub bn1: Option<BatchNorm>,
    /// `W2` and `b2`.
    pub linear2: Linear,
    /// The norm of `W2 a1 + b2`, where `a1` is the output of the first layer's ReLU.
    pub bn2: Option<BatchNorm>,
}

/// The shortcut around a [`DensePath`]: the identity, zero padding, or `W_s a` with its norm.
#[derive(Module, Debug)]
pub struct DenseShortcut {
    /// `W_s`, if the shortcut projects.
    pub linear: Option<Linear>,
    /// The norm of `W_s a`.
    pub bn: Option<BatchNorm>,
    /// The number of output features.
    pub out_features: usize,
    /// The kind of shortcut where input and output sizes differ.
    #[module(skip)]
    pub option: ShortcutOption,
}

impl DensePathConfig {
    /// Initialises a new [main path](DensePath). The device's random generator draws its weights.
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

/// Builds a linear layer. Without a norm, it has a bias, which is initially zero.
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
    /// Computes a block with this main path and epilogue in one kernel. Returns `None` if no kernel supports it.
    pub(crate) fn forward_fused<'a, const D: usize>(
        &self,
        a: &Tensor<D>,
        epilogue: impl FnOnce() -> Epilogue<'a, D>,
    ) -> Option<Tensor<D>> {
        fused(None, &[unit(&self.linear1, &self.bn1), unit(&self.linear2, &self.bn2)], a, epilogue)
    }
}

impl DenseShortcut {
    /// The term that a fused block with this shortcut adds to its main path.
    pub(crate) fn addend<const D: usize>(&self, skip_strength: f64) -> Addend<'_, D> {
        match &self.linear {
            Some(linear) => Addend::Linear(unit(linear, &self.bn), skip_strength),
            None => Addend::Input(skip_strength, self.option),
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
    /// The same as for [`DensePath`].
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
