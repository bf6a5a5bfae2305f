//! The plain block and the residual block.
//!
//! The **main path** `F` of a block consists of a few layers, which map the input `a` to `F(a)`. A [`PlainBlock`]
//! computes `g(F(a))`. A [`ResidualBlock`] adds a **shortcut** around the main path and computes
//! `g(F(a) + shortcut(a))`. In both, `g` is the ReLU. Any module that implements [`Layer`] can be a main path or a
//! shortcut.

use crate::{
    ConvPath, ConvShortcut, DensePath, DenseShortcut, Layer, MainPath, MainPathConfig, ShortcutOption,
    init::seeded,
    kernels::{Addend, Epilogue},
    norm::Fold,
    transparent::transparent_enum,
};
use burn::{
    config::Config,
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor, activation::relu},
};
use core::{any::Any, fmt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Configuration to create a [`PlainBlock`], or a [`PreactPlainBlock`](crate::PreactPlainBlock) if the main path is a
/// [`PreactPathConfig`](crate::PreactPathConfig).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainBlockConfig<C> {
    /// The configuration of the main path.
    pub main_path: C,
    /// The seed of the initial weights, which are then a pure function of (seed, parameter path). Without a seed, the
    /// device's random generator draws the weights.
    pub seed: Option<u64>,
    /// Whether the last layer of the main path starts at zero; see [`InitConfig`](crate::InitConfig).
    pub zero_init: bool,
}

/// A block without a shortcut: `g(F(a))`.
///
/// Without norms, a block with two layers is `z1 = W1 a + b1; a1 = g(z1); z2 = W2 a1 + b2; a_out = g(z2)`, where
/// `z2 = F(a)` is the output of the main path and `g` is the ReLU (He et al. 2015, section 3.3, "plain network").
///
/// Should be created using [`PlainBlockConfig`].
#[derive(Module, Debug)]
pub struct PlainBlock<F: Module + ModuleDisplay> {
    /// The main path `F`: all layers of the block except the last ReLU.
    pub main_path: F,
}

impl<C: Clone + fmt::Debug + Serialize + DeserializeOwned> Config for PlainBlockConfig<C> {}

impl<C> PlainBlockConfig<C> {
    /// Configures a block with this main path, without a seed and without zero initialisation.
    pub fn new(main_path: C) -> Self {
        Self { main_path, seed: None, zero_init: false }
    }

    /// Sets the seed of the initial weights.
    pub fn with_seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets whether the last layer of the main path starts at zero.
    pub fn with_zero_init(mut self, zero_init: bool) -> Self {
        self.zero_init = zero_init;
        self
    }
}

impl<C: MainPathConfig> PlainBlockConfig<C> {
    /// Initialises a new [plain block](PlainBlock).
    ///
    /// # Panics
    /// If a size is zero, or if the number of groups does not divide the number of channels.
    pub fn init(&self, device: &Device) -> PlainBlock<C::Path> {
        let block = seeded(PlainBlock { main_path: self.main_path.build_path(device) }, self.seed);
        if !self.zero_init {
            return block;
        }
        PlainBlock { main_path: block.main_path.zero_last_layer() }
    }
}

impl<F: Module + ModuleDisplay> PlainBlock<F> {
    /// Computes `g(F(a))`.
    ///
    /// # Shapes
    /// - a: the input shape of the main path
    /// - output: the output shape of the main path
    pub fn forward<const D: usize>(&self, a: Tensor<D>) -> Tensor<D>
    where
        F: Layer<D>,
    {
        // On Burn's CPU backends, a single kernel computes the whole block.
        if let Some(output) = forward_fused(&self.main_path, &a, Epilogue::relu) {
            return output;
        }
        relu(self.main_path.forward(a))
    }
}

/// Configuration to create a [`ResidualBlock`], or a [`PreactResidualBlock`](crate::PreactResidualBlock) if the main
/// path is a [`PreactPathConfig`](crate::PreactPathConfig).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResidualBlockConfig<C> {
    /// The configuration of the main path.
    pub main_path: C,
    /// The kind of shortcut where input and output shapes differ.
    pub shortcut: ShortcutOption,
    /// The skip strength α.
    pub skip_strength: f64,
    /// The branch scale s.
    pub branch_scale: f64,
    /// The survival probability p: the probability that the main path takes part in a training step.
    pub survival: f64,
    /// The seed of the initial weights, which are then a pure function of (seed, parameter path). Without a seed, the
    /// device's random generator draws the weights.
    pub seed: Option<u64>,
    /// Whether the last layer of the main path starts at zero; see [`InitConfig`](crate::InitConfig).
    pub zero_init: bool,
}

/// A block with a shortcut around its main path: `g(F(a) + shortcut(a))`.
///
/// Without norms, a block with two layers is
/// `z1 = W1 a + b1; a1 = g(z1); z2 = W2 a1 + b2; a_out = g(s · z2 + α · shortcut(a))`
/// (He et al. 2015, eqs. 1 and 2), where
/// - `shortcut` is the identity where input and output shapes agree; where they differ, [`ShortcutOption`] chooses it;
/// - α is the skip strength (He et al. 2016, table 1): 1 by default, and 0 makes the block plain;
/// - s is the branch scale, 1 by default; see [`BranchScale`](crate::BranchScale).
///
/// With stochastic depth (Huang et al. 2016), the main path takes part in a training step with probability p (see
/// [`Self::forward_sampled`]), and its output is multiplied by p in inference.
///
/// Should be created using [`ResidualBlockConfig`].
#[derive(Module, Debug)]
pub struct ResidualBlock<F: Module + ModuleDisplay, S: Module + ModuleDisplay> {
    /// The main path `F`, the same as in a plain block.
    pub main_path: F,
    /// The shortcut around the main path.
    pub shortcut: S,
    /// The skip strength α.
    pub skip_strength: f64,
    /// The branch scale s.
    pub branch_scale: f64,
    /// The survival probability p.
    pub survival: f64,
}

impl<C: Clone + fmt::Debug + Serialize + DeserializeOwned> Config for ResidualBlockConfig<C> {}

impl<C> ResidualBlockConfig<C> {
    /// Configures a block with this main path, option B shortcuts, `α = s = p = 1`, no seed and no zero initialisation.
    pub fn new(main_path: C) -> Self {
        Self {
            main_path,
            shortcut: ShortcutOption::default(),
            skip_strength: 1.0,
            branch_scale: 1.0,
            survival: 1.0,
            seed: None,
            zero_init: false,
        }
    }

    /// Sets the kind of shortcut where input and output shapes differ.
    pub fn with_shortcut(mut self, shortcut: ShortcutOption) -> Self {
        self.shortcut = shortcut;
        self
    }

    /// Sets the skip strength α.
    pub fn with_skip_strength(mut self, skip_strength: f64) -> Self {
        self.skip_strength = skip_strength;
        self
    }

    /// Sets the branch scale s.
    pub fn with_branch_scale(mut self, branch_scale: f64) -> Self {
        self.branch_scale = branch_scale;
        self
    }

    /// Sets the survival probability p.
    pub fn with_survival(mut self, survival: f64) -> Self {
        self.survival = survival;
        self
    }

    /// Sets the seed of the initial weights.
    pub fn with_seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets whether the last layer of the main path starts at zero.
    pub fn with_zero_init(mut self, zero_init: bool) -> Self {
        self.zero_init = zero_init;
        self
    }

    /// Replaces the main path.
    pub(crate) fn map_path<D>(self, f: impl FnOnce(C) -> D) -> ResidualBlockConfig<D> {
        let Self { main_path, shortcut, skip_strength, branch_scale, survival, seed, zero_init } = self;
        ResidualBlockConfig {
            main_path: f(main_path),
            shortcut,
            skip_strength,
            branch_scale,
            survival,
            seed,
            zero_init,
        }
    }
}

impl<C: MainPathConfig> ResidualBlockConfig<C> {
    /// Initialises a new [residual block](ResidualBlock).
    ///
    /// # Panics
    /// If a size is zero, if the number of groups does not divide the number of channels, or if a zero-padding shortcut
    /// would have to drop channels.
    pub fn init(&self, device: &Device) -> ResidualBlock<C::Path, C::Shortcut> {
        let block = seeded(self.build(device), self.seed);
        if !self.zero_init {
            return block;
        }
        ResidualBlock { main_path: block.main_path.zero_last_layer(), ..block }
    }

    fn build(&self, device: &Device) -> ResidualBlock<C::Path, C::Shortcut> {
        ResidualBlock {
            main_path: self.main_path.build_path(device),
            shortcut: self.main_path.build_shortcut(self.shortcut, device),
            skip_strength: self.skip_strength,
            branch_scale: self.branch_scale,
            survival: self.survival,
        }
    }

    /// Builds a block of the given kind without applying the seed or zero initialisation.
    pub(crate) fn build_kind(&self, kind: BlockKind, device: &Device) -> Block<C::Path, C::Shortcut> {
        match kind {
            BlockKind::Plain => Block::Plain(PlainBlock { main_path: self.main_path.build_path(device) }),
            BlockKind::Residual => Block::Residual(self.build(device)),
        }
    }
}

impl<F: Module + ModuleDisplay, S: Module + ModuleDisplay> ResidualBlock<F, S> {
    /// Computes `g(s · F(a) + α · shortcut(a))`, or `g(p · s · F(a) + α · shortcut(a))` with stochastic depth.
    ///
    /// # Shapes
    /// - a: the input shape of the main path
    /// - output: the output shape of the main path
    pub fn forward<const D: usize>(&self, a: Tensor<D>) -> Tensor<D>
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        self.forward_scaled(a, self.survival * self.branch_scale)
    }

    /// Computes the output for a training step with stochastic depth: `g(s · F(a) + α · shortcut(a))` if the main path
    /// survives, `g(α · shortcut(a))` otherwise (Huang et al. 2016, eq. 2).
    ///
    /// # Shapes
    /// The same as for [`Self::forward`].
    pub fn forward_sampled<const D: usize>(&self, a: Tensor<D>, survives: bool) -> Tensor<D>
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        if !survives {
            return relu(scale(self.shortcut.forward(a), self.skip_strength));
        }
        self.forward_scaled(a, self.branch_scale)
    }

    fn forward_scaled<const D: usize>(&self, a: Tensor<D>, main_path_scale: f64) -> Tensor<D>
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        // On Burn's CPU backends, a single kernel computes the whole block.
        let epilogue = || Epilogue {
            scale: main_path_scale,
            shortcut: addend(&self.shortcut, &a, self.skip_strength),
            relu: true,
        };
        if let Some(output) = forward_fused(&self.main_path, &a, epilogue) {
            return output;
        }
        let shortcut = scale(self.shortcut.forward(a.clone()), self.skip_strength);
        let main_path = scale(self.main_path.forward(a), main_path_scale);
        relu(main_path + shortcut)
    }
}

/// Whether a block is plain or residual.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum BlockKind {
    /// Without a shortcut.
    Plain,
    /// With a shortcut.
    #[default]
    Residual,
}

/// A plain or residual block, chosen at run time. Parameter paths are the same for both.
#[derive(Clone, Debug)]
pub enum Block<F: Module + ModuleDisplay, S: Module + ModuleDisplay> {
    /// A block without a shortcut.
    Plain(PlainBlock<F>),
    /// A block with a shortcut.
    Residual(ResidualBlock<F, S>),
}

transparent_enum!(Block<F, S> { Plain, Residual });

impl<F: Module + ModuleDisplay, S: Module + ModuleDisplay> Block<F, S> {
    /// Computes [`PlainBlock::forward`] or [`ResidualBlock::forward`].
    pub fn forward<const D: usize>(&self, a: Tensor<D>) -> Tensor<D>
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        match self {
            Self::Plain(block) => block.forward(a),
            Self::Residual(block) => block.forward(a),
        }
    }

    /// Computes [`PlainBlock::forward`] or [`ResidualBlock::forward_sampled`].
    pub fn forward_sampled<const D: usize>(&self, a: Tensor<D>, survives: bool) -> Tensor<D>
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        match self {
            Self::Plain(block) => block.forward(a),
            Self::Residual(block) => block.forward_sampled(a, survives),
        }
    }

    /// The survival probability p, which is 1 for a plain block.
    pub fn survival(&self) -> f64 {
        match self {
            Self::Plain(_) => 1.0,
            Self::Residual(block) => block.survival,
        }
    }

    /// Computes the scaled outputs of the main path and of the shortcut. A plain block has no shortcut.
    pub(crate) fn branches<const D: usize>(&self, a: Tensor<D>) -> (Tensor<D>, Option<Tensor<D>>)
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        match self {
            Self::Plain(block) => (block.main_path.forward(a), None),
            Self::Residual(block) => {
                let shortcut = scale(block.shortcut.forward(a.clone()), block.skip_strength);
                (scale(block.main_path.forward(a), block.survival * block.branch_scale), Some(shortcut))
            }
        }
    }
}

impl<F: MainPath, S: Module + ModuleDisplay> Block<F, S> {
    pub(crate) fn zero_last_layer(self) -> Self {
        match self {
            Self::Plain(block) => Self::Plain(PlainBlock { main_path: block.main_path.zero_last_layer() }),
            Self::Residual(block) => {
                Self::Residual(ResidualBlock { main_path: block.main_path.zero_last_layer(), ..block })
            }
        }
    }
}

#[expect(private_bounds, reason = "only this crate's main paths and shortcuts implement `Fold`")]
impl<F: Fold + ModuleDisplay, S: Fold + ModuleDisplay> Block<F, S> {
    pub(crate) fn folded(self) -> Self {
        match self {
            Self::Plain(block) => Self::Plain(PlainBlock { main_path: block.main_path.folded() }),
            Self::Residual(block) => Self::Residual(ResidualBlock {
                main_path: block.main_path.folded(),
                shortcut: block.shortcut.folded(),
                ..block
            }),
        }
    }
}

pub(crate) fn scale<const D: usize>(tensor: Tensor<D>, factor: f64) -> Tensor<D> {
    if factor == 1.0 { tensor } else { tensor.mul_scalar(factor) }
}

/// Computes a block with this main path and epilogue in one kernel. Returns `None` if no kernel supports it.
fn forward_fused<'a, const D: usize, F: 'static>(
    main_path: &F,
    a: &Tensor<D>,
    epilogue: impl FnOnce() -> Epilogue<'a, D>,
) -> Option<Tensor<D>> {
    let main_path: &dyn Any = main_path;
    match (main_path.downcast_ref::<ConvPath>(), main_path.downcast_ref::<DensePath>()) {
        (Some(path), _) => path.forward_fused(a, epilogue),
        (_, Some(path)) => path.forward_fused(a, epilogue),
        (None, None) => None,
    }
}

/// The term `α · shortcut(a)` that a fused block adds to its main path.
fn addend<'a, const D: usize>(shortcut: &'a impl Layer<D>, a: &Tensor<D>, skip_strength: f64) -> Addend<'a, D> {
    let any: &dyn Any = shortcut;
    match (any.downcast_ref::<ConvShortcut>(), any.downcast_ref::<DenseShortcut>()) {
        (Some(shortcut), _) => shortcut.addend(skip_strength),
        (_, Some(shortcut)) => shortcut.addend(skip_strength),
        (None, None) => Addend::Tensor(shortcut.forward(a.clone()), skip_strength),
    }
}
