//! The plain block and the residual block.

use crate::{
    ConvPath, DensePath, ModelError, ShortcutOption,
    conv::ConvShortcut,
    dense::DenseShortcut,
    init::he_normal,
    kernels::{Addend, End},
    transparent::transparent_enum,
};
use burn::{
    config::Config,
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor, activation::relu},
};
use core::{any::Any, fmt, str::FromStr};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A module that maps a tensor of rank `D` to another of that rank. Implement it for a main path or a shortcut of
/// your own.
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

/// A block with this main path and this end as one operation, where there is a kernel for it.
fn fused<'a, const D: usize, F: 'static>(
    main_path: &F,
    a: &Tensor<D>,
    end: impl FnOnce() -> End<'a, D>,
) -> Option<Tensor<D>> {
    let main_path: &dyn Any = main_path;
    match (main_path.downcast_ref::<ConvPath>(), main_path.downcast_ref::<DensePath>()) {
        (Some(path), _) => path.fused(a, end),
        (_, Some(path)) => path.fused(a, end),
        (None, None) => None,
    }
}

/// What a block with this shortcut adds: α times the shortcut's output.
fn addend<'a, const D: usize>(shortcut: &'a impl Layer<D>, a: &Tensor<D>, strength: f64) -> Addend<'a, D> {
    let any: &dyn Any = shortcut;
    match (any.downcast_ref::<ConvShortcut>(), any.downcast_ref::<DenseShortcut>()) {
        (Some(shortcut), _) => shortcut.addend(strength),
        (_, Some(shortcut)) => shortcut.addend(strength),
        (None, None) => Addend::Tensor(shortcut.forward(a.clone()), strength),
    }
}

/// A block without a shortcut.
///
/// `z1 = W1 a + b1; a1 = g(z1); z2 = W2 a1 + b2; a_out = g(z2)`, where `z2 = F(a)` is the main path
/// and `g` the ReLU (He et al. 2015, section 3.3, "plain network").
///
/// Should be created using [`PlainBlockConfig`].
#[derive(Module, Debug)]
pub struct PlainBlock<F: Module + ModuleDisplay> {
    /// `F`: all of the block up to the last ReLU.
    pub main_path: F,
}

impl<F: Module + ModuleDisplay> PlainBlock<F> {
    /// `g(F(a))`
    ///
    /// # Shapes
    /// - a: what the main path takes
    /// - output: what the main path gives
    pub fn forward<const D: usize>(&self, a: Tensor<D>) -> Tensor<D>
    where
        F: Layer<D>,
    {
        fused(&self.main_path, &a, End::relu).unwrap_or_else(|| relu(self.main_path.forward(a)))
    }
}

/// A block whose input is added to its main path, before the last ReLU.
///
/// `z1 = W1 a + b1; a1 = g(z1); z2 = W2 a1 + b2; a_out = g(s · z2 + α · shortcut(a))`
/// (He et al. 2015, eqs. 1 and 2), where
/// - `shortcut` is the identity where shapes agree, and as [`ShortcutOption`] says where not;
/// - α is the skip strength (He et al. 2016, table 1): 1 is the residual block, 0 the plain one;
/// - s is the branch scale, 1 unless [`BranchScale`] says otherwise.
///
/// With stochastic depth (Huang et al. 2016) the main path takes part in a training step with
/// probability p, and counts `p` times at test time: see [`Self::forward_sampled`].
///
/// Should be created using [`ResidualBlockConfig`].
#[derive(Module, Debug)]
pub struct ResidualBlock<F: Module + ModuleDisplay, S: Module + ModuleDisplay> {
    /// `F`: the same main path as the plain block's.
    pub main_path: F,
    /// The way around it.
    pub shortcut: S,
    /// α.
    pub skip_strength: f64,
    /// s.
    pub branch_scale: f64,
    /// p.
    pub survival: f64,
}

impl<F: Module + ModuleDisplay, S: Module + ModuleDisplay> ResidualBlock<F, S> {
    /// `g(s · F(a) + α · shortcut(a))`, and `g(p · s · F(a) + α · shortcut(a))` with stochastic depth.
    ///
    /// # Shapes
    /// - a: what the main path takes
    /// - output: what the main path gives
    pub fn forward<const D: usize>(&self, a: Tensor<D>) -> Tensor<D>
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        self.forward_scaled(a, self.survival * self.branch_scale)
    }

    /// A training step with stochastic depth: `g(s · F(a) + α · shortcut(a))` if the main path
    /// survives, `g(α · shortcut(a))` if not (Huang et al. 2016, eq. 2).
    ///
    /// # Shapes
    /// As [`Self::forward`]'s.
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

    fn forward_scaled<const D: usize>(&self, a: Tensor<D>, branch_scale: f64) -> Tensor<D>
    where
        F: Layer<D>,
        S: Layer<D>,
    {
        let end = || End { scale: branch_scale, shortcut: addend(&self.shortcut, &a, self.skip_strength), relu: true };
        if let Some(output) = fused(&self.main_path, &a, end) {
            return output;
        }
        let shortcut = scale(self.shortcut.forward(a.clone()), self.skip_strength);
        relu(scale(self.main_path.forward(a), branch_scale) + shortcut)
    }
}

pub(crate) fn scale<const D: usize>(t: Tensor<D>, factor: f64) -> Tensor<D> {
    if factor == 1.0 { t } else { t.mul_scalar(factor) }
}

/// Either block, chosen at run time. Parameter paths are the same for both.
#[derive(Clone, Debug)]
pub enum Block<F: Module + ModuleDisplay, S: Module + ModuleDisplay> {
    /// Without a shortcut.
    Plain(PlainBlock<F>),
    /// With one.
    Residual(ResidualBlock<F, S>),
}

transparent_enum!(Block<F, S> { Plain, Residual });

impl<F: Module + ModuleDisplay, S: Module + ModuleDisplay> Block<F, S> {
    /// [`PlainBlock::forward`] or [`ResidualBlock::forward`].
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

    /// [`PlainBlock::forward`] or [`ResidualBlock::forward_sampled`].
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

    /// The two ways through the block, each with its factor; a plain block has one.
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

    /// p: 1 in a plain block.
    pub fn survival(&self) -> f64 {
        match self {
            Self::Plain(_) => 1.0,
            Self::Residual(block) => block.survival,
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

#[expect(private_bounds, reason = "for this crate's own paths")]
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

/// A module whose batch norms can become part of the layers before them.
pub(crate) trait Fold: Module {
    fn folded(self) -> Self;
}

/// A main path that knows its last layer.
pub trait MainPath: Module + ModuleDisplay {
    /// Sets the γ of the last norm to zero, or the last weight where there is no norm.
    fn zero_last_layer(self) -> Self;
}

/// Describes a main path and the shortcut around it.
pub trait MainPathConfig: Clone + fmt::Debug + Serialize + DeserializeOwned {
    /// The main path's module.
    type Path: MainPath;
    /// The module of the shortcut around it.
    type Shortcut: Module + ModuleDisplay;

    /// Builds the main path, its weights to be drawn by the device's generator.
    ///
    /// # Panics
    /// If a size is zero, or groups do not divide the channels.
    fn build_path(&self, device: &Device) -> Self::Path;

    /// Builds the shortcut, its weights to be drawn by the device's generator.
    ///
    /// # Panics
    /// If the option is [`ShortcutOption::ZeroPad`] and the path has fewer outputs than inputs.
    fn build_shortcut(&self, option: ShortcutOption, device: &Device) -> Self::Shortcut;
}

/// Plain or residual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// Without shortcuts.
    Plain,
    /// With shortcuts.
    #[default]
    Residual,
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Residual => "residual",
        })
    }
}

/// The factor s of a residual block's main path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BranchScale {
    /// `s = 1`, as published with batch norm.
    #[default]
    One,
    /// `s = 1/√L` for a net of `L` blocks: keeps the forward variance bounded at any depth without
    /// a norm (Hayou et al. 2021, "Stable ResNet", section 3).
    InverseSqrtDepth,
}

impl BranchScale {
    /// s for a net of this many blocks.
    pub fn factor(self, blocks: usize) -> f64 {
        match self {
            Self::One => 1.0,
            Self::InverseSqrtDepth => 1.0 / libm::sqrt(blocks.max(1) as f64),
        }
    }
}

impl fmt::Display for BranchScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one",
            Self::InverseSqrtDepth => "depth",
        })
    }
}

impl FromStr for BranchScale {
    type Err = ModelError;

    fn from_str(word: &str) -> Result<Self, ModelError> {
        match word {
            "one" => Ok(Self::One),
            "depth" => Ok(Self::InverseSqrtDepth),
            _ => Err(ModelError::UnknownWord { what: "branch scale", word: word.into(), expected: "one or depth" }),
        }
    }
}

/// Configuration of a [`PlainBlock`], or with a [`PreactPathConfig`](crate::PreactPathConfig) of a
/// [`PreactPlainBlock`](crate::PreactPlainBlock).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainBlockConfig<C> {
    /// The main path.
    pub main_path: C,
    /// The seed of the initial weights, which are then a function of (seed, parameter path); without one the
    /// device's generator draws them.
    pub seed: Option<u64>,
    /// Whether the last layer of the main path starts at zero, see [`InitConfig`](crate::InitConfig).
    pub zero_init: bool,
}

impl<C: Clone + fmt::Debug + Serialize + DeserializeOwned> Config for PlainBlockConfig<C> {}

impl<C> PlainBlockConfig<C> {
    /// A block with this main path, without a seed.
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
    /// Builds the block.
    ///
    /// # Panics
    /// If a size is zero, or groups do not divide the channels.
    pub fn init(&self, device: &Device) -> PlainBlock<C::Path> {
        let block = seeded(PlainBlock { main_path: self.main_path.build_path(device) }, self.seed);
        if !self.zero_init {
            return block;
        }
        PlainBlock { main_path: block.main_path.zero_last_layer() }
    }
}

/// The module with weights from this seed, if there is one.
pub(crate) fn seeded<M: Module>(module: M, seed: Option<u64>) -> M {
    match seed {
        Some(seed) => he_normal(module, seed),
        None => module,
    }
}

/// Configuration of a [`ResidualBlock`], or with a [`PreactPathConfig`](crate::PreactPathConfig) of a
/// [`PreactResidualBlock`](crate::PreactResidualBlock).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResidualBlockConfig<C> {
    /// The main path.
    pub main_path: C,
    /// What the shortcut does where shapes differ.
    pub shortcut: ShortcutOption,
    /// α.
    pub skip_strength: f64,
    /// s.
    pub branch_scale: f64,
    /// p, the probability that the main path takes part in a training step.
    pub survival: f64,
    /// The seed of the initial weights, which are then a function of (seed, parameter path); without one the
    /// device's generator draws them.
    pub seed: Option<u64>,
    /// Whether the last layer of the main path starts at zero, see [`InitConfig`](crate::InitConfig).
    pub zero_init: bool,
}

impl<C: Clone + fmt::Debug + Serialize + DeserializeOwned> Config for ResidualBlockConfig<C> {}

impl<C> ResidualBlockConfig<C> {
    /// A block with this main path, a projection where shapes differ, `α = s = p = 1` and no seed.
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

    /// Sets what the shortcut does where shapes differ.
    pub fn with_shortcut(mut self, shortcut: ShortcutOption) -> Self {
        self.shortcut = shortcut;
        self
    }

    /// Sets α.
    pub fn with_skip_strength(mut self, skip_strength: f64) -> Self {
        self.skip_strength = skip_strength;
        self
    }

    /// Sets s.
    pub fn with_branch_scale(mut self, branch_scale: f64) -> Self {
        self.branch_scale = branch_scale;
        self
    }

    /// Sets p.
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

    /// The same block with another main path.
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
    /// Builds the block.
    ///
    /// # Panics
    /// If a size is zero, groups do not divide the channels, or a zero-padding shortcut would have to drop channels.
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

    /// Builds either kind of block, its weights to be drawn.
    pub(crate) fn build_kind(&self, kind: BlockKind, device: &Device) -> Block<C::Path, C::Shortcut> {
        match kind {
            BlockKind::Plain => Block::Plain(PlainBlock { main_path: self.main_path.build_path(device) }),
            BlockKind::Residual => Block::Residual(self.build(device)),
        }
    }
}
