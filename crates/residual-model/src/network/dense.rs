use super::{NetworkConfig, at_least_one, at_most_max_size};
use crate::{DenseBlock, DensePathConfig, Family, ModelError, Summary, dense::linear, kernels::unit};
use alloc::{format, vec::Vec};
use burn::{
    module::Module,
    nn::{BatchNorm, Linear},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// The architecture of a dense network: an input layer, `(depth - 2) / 2` blocks of constant width, and an output
/// layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenseArchitecture {
    /// The number of weighted layers: the input layer, the output layer and two layers per block. It must be even.
    pub depth: usize,
    /// The number of input features.
    pub features: usize,
}

/// A network of fully-connected blocks without its head: an input layer, then blocks of constant width.
#[derive(Module, Debug)]
pub struct DenseBackbone {
    /// The input layer.
    pub linear1: Linear,
    /// The norm after the input layer.
    pub bn1: Option<BatchNorm>,
    /// The blocks.
    pub blocks: Vec<DenseBlock>,
}

impl DenseArchitecture {
    pub(super) fn validate(&self) -> Result<(), ModelError> {
        Family::Dense.check_depth(self.depth)?;
        at_least_one(&[("features", self.features)])?;
        at_most_max_size(&[("features", self.features), ("the depth", self.depth)])
    }

    pub(super) fn block_count(&self) -> usize {
        (self.depth - 2) / 2
    }

    pub(super) fn init(&self, config: &NetworkConfig, device: &Device) -> DenseBackbone {
        let NetworkConfig { width, blocks: options, init, .. } = *config;
        let blocks = self.block_count();
        let path = DensePathConfig::new(width, width).with_norm(options.norm);
        let block = |i| options.block(path.clone(), i, blocks, &init).build_kind(options.kind, device);
        DenseBackbone {
            linear1: linear([self.features, width], options.norm, device),
            bn1: options.norm.init(width, device),
            blocks: (1..=blocks).map(block).collect(),
        }
    }

    pub(super) fn count(&self, config: &NetworkConfig, summary: &mut Summary) {
        let width = config.width;
        summary.linear("linear1", [self.features, width]);
        for i in 0..self.block_count() {
            for layer in ["linear1", "linear2"] {
                summary.linear(&format!("blocks.{i}.{layer}"), [width; 2]);
            }
            if config.blocks.projects(false) {
                summary.linear(&format!("blocks.{i}.shortcut"), [width; 2]);
            }
        }
    }
}

impl DenseBackbone {
    /// Computes the output of the last block.
    ///
    /// # Shapes
    /// - x: `[batch, features]`
    /// - output: `[batch, width]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.blocks.iter().fold(self.stem(x), |a, block| block.forward(a))
    }

    /// Computes the output for a training step with stochastic depth. `survivors` tells whether each block survives.
    pub(super) fn forward_sampled(&self, x: Tensor<2>, survivors: &[bool]) -> Tensor<2> {
        let blocks = self.blocks.iter().zip(survivors);
        blocks.fold(self.stem(x), |a, (block, survives)| block.forward_sampled(a, *survives))
    }

    pub(super) fn stem(&self, x: Tensor<2>) -> Tensor<2> {
        unit(&self.linear1, &self.bn1).forward_relu(x)
    }
}
