use super::{BlockOptions, at_least_one, panic_unless_valid};
use crate::{
    DenseBlock, DensePathConfig, Family, ModelError, Norm, Summary,
    dense::linear,
    init::{InitConfig, he_normal},
    norm::normalize,
};
use burn::{
    config::Config,
    module::Module,
    nn::{BatchNorm, Linear},
    tensor::{Device, Tensor, activation::relu},
};

/// Configuration of a [`DenseNetwork`].
#[derive(Config, Debug)]
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
        at_least_one(&[("features", self.features), ("classes", self.classes), ("width", self.width)])?;
        self.blocks.validate()
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
            blocks: (0..blocks).map(|_| self.blocks.block(path.clone(), blocks, device)).collect(),
            fc: linear([self.width, self.classes], Norm::None, device),
        };
        let network = he_normal(network, self.init.seed);
        if self.init.zero_init { network.zero_last_layers() } else { network }
    }

    fn block_count(&self) -> usize {
        (self.depth - 2) / 2
    }

    /// Layers, shapes, parameters and multiply-adds.
    ///
    /// # Panics
    /// If [`Self::validate`] fails.
    pub fn summary(&self) -> Summary {
        panic_unless_valid(self.validate());
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
        let mut a = relu(normalize(&self.bn1, self.linear1.forward(x)));
        for block in &self.blocks {
            a = block.forward(a);
        }
        self.fc.forward(a)
    }

    fn zero_last_layers(self) -> Self {
        Self { blocks: self.blocks.into_iter().map(DenseBlock::zero_last_layer).collect(), ..self }
    }
}
