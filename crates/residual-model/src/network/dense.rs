use super::{BlockOptions, Part, at_least_one, at_most_largest, panic_unless_valid, small_enough};
use crate::{
    DenseBlock, DensePathConfig, Family, ModelError, Norm, Summary,
    dense::linear,
    init::{InitConfig, he_normal, he_normal_field},
    kernels::unit,
    stochastic_depth::survivors,
};
use alloc::{format, vec::Vec};
use burn::{
    config::Config,
    module::Module,
    nn::{BatchNorm, Linear},
    tensor::{Device, Tensor},
};

/// Configuration of a [`DenseNetwork`].
#[derive(Config, Debug, PartialEq)]
pub struct DenseConfig {
    /// Weighted layers: even, one in, one out, two in each block.
    pub depth: usize,
    /// Size of the input.
    pub features: usize,
    /// Number of classes.
    pub classes: usize,
    /// Features of every hidden layer.
    #[config(default = 64)]
    pub width: usize,
    /// What the blocks are like.
    #[config(default = "BlockOptions::default()")]
    pub blocks: BlockOptions,
    /// The initial weights.
    #[config(default = "InitConfig::default()")]
    pub init: InitConfig,
}

/// The lecture's network of fully-connected blocks: a linear layer in, `(depth - 2) / 2` blocks of
/// constant width, a linear layer out.
///
/// Should be created using [`DenseConfig`].
#[derive(Module, Debug)]
pub struct DenseNetwork {
    /// The stem.
    pub linear1: Linear,
    /// The stem's norm.
    pub bn1: Option<BatchNorm>,
    /// The blocks.
    pub blocks: Vec<DenseBlock>,
    /// The head.
    pub fc: Linear,
}

impl DenseConfig {
    /// Fails unless there is such a network.
    ///
    /// # Errors
    /// An odd depth, a size of zero, or a skip strength out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        Family::Dense.check_depth(self.depth)?;
        let sizes = [("features", self.features), ("classes", self.classes), ("width", self.width)];
        at_least_one(&sizes)?;
        at_most_largest(&sizes)?;
        at_most_largest(&[("the depth", self.depth)])?;
        self.blocks.validate()?;
        small_enough(&self.count())
    }

    /// Builds the network on the device.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn init(&self, device: &Device) -> DenseNetwork {
        panic_unless_valid(self.validate());
        let norm = self.blocks.norm;
        let blocks = self.block_count();
        let path = DensePathConfig::new(self.width, self.width).with_norm(norm);
        let network = DenseNetwork {
            linear1: linear([self.features, self.width], norm, device),
            bn1: norm.init(self.width, device),
            blocks: (1..=blocks).map(|i| self.blocks.block(path.clone(), i, blocks, device)).collect(),
            fc: linear([self.width, self.classes], Norm::None, device),
        };
        let network = he_normal(network, self.init.seed);
        if self.init.zero_init { network.zero_last_layers() } else { network }
    }

    pub(super) fn block_count(&self) -> usize {
        (self.depth - 2) / 2
    }

    /// Layers, shapes, parameters and multiply-adds.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn summary(&self) -> Summary {
        panic_unless_valid(self.validate());
        self.count()
    }

    fn count(&self) -> Summary {
        let mut summary = Summary::new(self.blocks.norm);
        summary.linear("linear1", [self.features, self.width]);
        for i in 0..self.block_count() {
            for layer in ["linear1", "linear2"] {
                summary.linear(&format!("blocks.{i}.{layer}"), [self.width; 2]);
            }
            if self.blocks.projects(false) {
                summary.linear(&format!("blocks.{i}.shortcut"), [self.width; 2]);
            }
        }
        summary.head(self.width, self.classes);
        summary
    }
}

impl DenseNetwork {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - x: `[batch, features]`
    /// - output: `[batch, classes]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.fc.forward(self.embed(x))
    }

    /// Class scores of a training step: as [`Self::forward`], but with stochastic depth the blocks
    /// that take part are drawn from the seed and the step.
    ///
    /// # Shapes
    /// As [`Self::forward`]'s.
    pub fn forward_training(&self, x: Tensor<2>, seed: u64, step: u64) -> Tensor<2> {
        let probabilities: Vec<f64> = self.blocks.iter().map(DenseBlock::survival).collect();
        let survivors = survivors(seed, step, &probabilities);
        let blocks = self.blocks.iter().zip(survivors);
        self.fc.forward(blocks.fold(self.stem(x), |a, (block, survives)| block.forward_sampled(a, survives)))
    }

    /// What the head takes: the last block's output.
    ///
    /// # Shapes
    /// - x: `[batch, features]`
    /// - output: `[batch, width]`
    pub fn embed(&self, x: Tensor<2>) -> Tensor<2> {
        self.blocks.iter().fold(self.stem(x), |a, block| block.forward(a))
    }

    pub(super) fn stem(&self, x: Tensor<2>) -> Tensor<2> {
        unit(&self.linear1, &self.bn1).forward_relu(x)
    }

    /// Replaces the head by a new one with this many classes.
    pub fn with_head(self, classes: usize, seed: u64) -> Self {
        let [features, _] = self.fc.weight.dims();
        let fc = linear([features, classes], Norm::None, &self.fc.weight.device());
        Self { fc: he_normal_field(fc, "fc", seed), ..self }
    }

    /// Freezes parts of the network; its blocks are stage 1.
    ///
    /// # Errors
    /// If there is no such stage.
    pub fn freeze_parts(mut self, parts: &[Part]) -> Result<Self, ModelError> {
        for part in parts {
            match part {
                Part::Stem => {
                    self.linear1 = self.linear1.freeze();
                    self.bn1 = self.bn1.map(Module::freeze);
                }
                Part::Stage(1) => self.blocks = self.blocks.into_iter().map(Module::freeze).collect(),
                Part::Stage(stage) => return Err(ModelError::NoStage { stage: *stage, stages: 1 }),
                Part::Head => self.fc = self.fc.freeze(),
            }
        }
        Ok(self)
    }

    fn zero_last_layers(self) -> Self {
        Self { blocks: self.blocks.into_iter().map(DenseBlock::zero_last_layer).collect(), ..self }
    }
}
