//! Access to a network's stem, blocks and head, for measurements and experiments inside the network.
//!
//! All activations in this module have rank 4. The activations of a dense network have the shape
//! `[batch, features, 1, 1]`.

use super::{Backbone, Network, NetworkBlock};
use crate::{
    BlockKind, ConvPath, ConvShortcut, PreactBlock, ShortcutOption,
    block::Block,
    dense::DenseBlock,
    kernels::{Unit, unit},
    shortcut::subsampled,
};
use alloc::{format, string::String, vec::Vec};
use burn::{
    nn::conv::Conv2d,
    tensor::{Tensor, activation::relu},
};
#[cfg(feature = "std")]
use {
    crate::{Norm, parameters::is_running_statistic},
    alloc::string::ToString,
    burn::module::{Module, Param},
};

/// A view of one block of a network.
#[derive(Clone, Debug)]
pub struct BlockView<'a> {
    /// The path of the block in the network, such as `layer1.0` or `blocks.3`.
    pub name: String,
    block: Inner<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Inner<'a> {
    Dense(&'a DenseBlock),
    Conv(&'a Block<ConvPath, ConvShortcut>),
    Preact(&'a PreactBlock),
}

/// The outputs of a block's main path and shortcut, before they are added.
#[derive(Clone, Debug)]
pub struct Branches {
    /// `p · s · F(a)`, with the survival probability p.
    pub main_path: Tensor<4>,
    /// `α · shortcut(a)`, or `None` in a plain block.
    pub shortcut: Option<Tensor<4>>,
}

impl Network {
    /// The blocks, from first to last. [`Self::stem`], the blocks and [`Self::head`] make up the whole network:
    /// [`Self::forward`] is `head(blocks(stem(x)))`.
    pub fn blocks(&self) -> Vec<BlockView<'_>> {
        match &self.backbone {
            Backbone::Dense(backbone) => {
                let view = |(i, block)| BlockView { name: format!("blocks.{i}"), block: Inner::Dense(block) };
                backbone.blocks.iter().enumerate().map(view).collect()
            }
            Backbone::Conv(backbone) => {
                let stages = backbone.stages().enumerate();
                stages
                    .flat_map(|(s, stage)| {
                        stage.blocks.iter().enumerate().map(move |(i, b)| BlockView::of(s + 1, i, b))
                    })
                    .collect()
            }
        }
    }

    /// Computes the input of the first block.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    pub fn stem(&self, images: Tensor<4>) -> Tensor<4> {
        match &self.backbone {
            Backbone::Dense(backbone) => to_rank_4(backbone.stem(images.flatten(1, 3))),
            Backbone::Conv(backbone) => backbone.stem(images),
        }
    }

    /// Computes the class scores from the output of the last block.
    ///
    /// # Shapes
    /// - a: the output shape of the last block
    /// - output: `[batch, classes]`
    pub fn head(&self, a: Tensor<4>) -> Tensor<2> {
        self.classify(match &self.backbone {
            Backbone::Dense(_) => to_rank_2(a),
            Backbone::Conv(backbone) => backbone.pool(a),
        })
    }

    /// Returns a copy of the network for inference. The running statistics of each batch norm are the mean and variance
    /// of its input for these images, as computed in a training step. Use the copy to measure a network at
    /// initialisation, when the running means and variances are still 0 and 1. The original network does not change.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    #[cfg(feature = "std")]
    pub fn calibrated(&self, images: Tensor<4>) -> Self {
        let from_zero = self.valid().map(&mut ScaleStatistics { factor: 0.0, path: Vec::new() }).train();
        from_zero.forward(Tensor::from_inner(images.without_autodiff()));
        from_zero.valid().map(&mut ScaleStatistics { factor: 1.0 / Norm::MOMENTUM, path: Vec::new() })
    }
}

impl<'a> BlockView<'a> {
    /// The view of block `number`, counted from 0, of stage `stage`, counted from 1, of a convolutional network.
    fn of(stage: usize, number: usize, block: &'a NetworkBlock) -> Self {
        let block = match block {
            NetworkBlock::Post(block) => Inner::Conv(block),
            NetworkBlock::Pre(block) => Inner::Preact(block),
        };
        Self { name: format!("layer{stage}.{number}"), block }
    }

    /// Whether the block is plain or residual.
    pub fn kind(&self) -> BlockKind {
        match self.block {
            Inner::Dense(Block::Plain(_)) | Inner::Conv(Block::Plain(_)) | Inner::Preact(PreactBlock::Plain(_)) => {
                BlockKind::Plain
            }
            _ => BlockKind::Residual,
        }
    }

    /// Computes the block's output.
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        match self.block {
            Inner::Dense(block) => to_rank_4(block.forward(to_rank_2(a))),
            Inner::Conv(block) => block.forward(a),
            Inner::Preact(block) => block.forward(a),
        }
    }

    /// Computes the outputs of the main path and the shortcut. Applying [`Self::join`] to them gives [`Self::forward`].
    pub fn branches(&self, a: Tensor<4>) -> Branches {
        let (main_path, shortcut) = match self.block {
            Inner::Dense(block) => {
                let (main_path, shortcut) = block.branches(to_rank_2(a));
                (to_rank_4(main_path), shortcut.map(to_rank_4))
            }
            Inner::Conv(block) => block.branches(a),
            Inner::Preact(block) => block.branches(a),
        };
        Branches { main_path, shortcut }
    }

    /// Computes `g(main_path + shortcut)`, or `main_path + shortcut` in a pre-activation block.
    pub fn join(&self, branches: Branches) -> Tensor<4> {
        let sum = match branches.shortcut {
            Some(shortcut) => branches.main_path + shortcut,
            None => branches.main_path,
        };
        if matches!(self.block, Inner::Preact(_)) { sum } else { relu(sum) }
    }

    /// Computes the block's output when its main path is removed (Veit et al. 2016, section 4.1). In a residual block,
    /// only the shortcut remains. In a plain block, the input passes through unchanged where input and output shapes
    /// agree; elsewhere it is subsampled and padded with zeros, as in an option A shortcut.
    pub fn bypass(&self, a: Tensor<4>) -> Tensor<4> {
        match self.block {
            Inner::Dense(Block::Plain(_)) => a,
            Inner::Dense(block) => to_rank_4(block.forward_sampled(to_rank_2(a), false)),
            Inner::Conv(Block::Plain(block)) => zero_padded(a, &block.main_path.convolutions()),
            Inner::Conv(block) => block.forward_sampled(a, false),
            Inner::Preact(PreactBlock::Plain(block)) => zero_padded(a, &block.main_path.convolutions()),
            Inner::Preact(block) => block.forward_sampled(a, false),
        }
    }

    /// Computes the response of each linear layer of the main path: the layer's output after the norm and before the
    /// ReLU or the addition (He et al. 2015, section 4.2, "Analysis of Layer Responses"). In a pre-activation block,
    /// whose norms come before the layers, the response is the layer's output.
    pub fn responses(&self, a: Tensor<4>) -> Vec<Tensor<4>> {
        match self.block {
            Inner::Dense(block) => {
                let path = match block {
                    Block::Plain(block) => &block.main_path,
                    Block::Residual(block) => &block.main_path,
                };
                let layers = [unit(&path.linear1, &path.bn1), unit(&path.linear2, &path.bn2)];
                let mut a = to_rank_2(a);
                let respond = |layer: &Unit<_>| {
                    let z = layer.forward(a.clone());
                    a = relu(z.clone());
                    to_rank_4(z)
                };
                layers.iter().map(respond).collect()
            }
            Inner::Conv(block) => {
                let path = match block {
                    Block::Plain(block) => &block.main_path,
                    Block::Residual(block) => &block.main_path,
                };
                path.responses(a)
            }
            Inner::Preact(PreactBlock::Plain(block)) => block.main_path.responses(a),
            Inner::Preact(PreactBlock::Residual(block)) => block.main_path.responses(a),
        }
    }
}

fn to_rank_2(a: Tensor<4>) -> Tensor<2> {
    a.flatten(1, 3)
}

fn to_rank_4(a: Tensor<2>) -> Tensor<4> {
    let [batch, features] = a.dims();
    a.reshape([batch, features, 1, 1])
}

/// The option A shortcut around these convolutions.
fn zero_padded(a: Tensor<4>, convolutions: &[&Conv2d]) -> Tensor<4> {
    let stride = convolutions.iter().map(|conv| conv.stride[0]).product();
    let channels = convolutions.last().map_or(a.dims()[1], |conv| conv.weight.dims()[0]);
    let before = ShortcutOption::ZeroPad.zeros_before(channels.saturating_sub(a.dims()[1]));
    subsampled(a, stride, channels, before)
}

/// Multiplies the running statistics of batch norms by a factor.
///
/// A training step with momentum m changes a running statistic r to `r + m (b - r)`, where b is the statistic of the
/// batch. If r is 0, the result is `m b`, and multiplying it by `1 / m` gives b.
#[cfg(feature = "std")]
struct ScaleStatistics {
    factor: f64,
    path: Vec<String>,
}

#[cfg(feature = "std")]
impl burn::module::ModuleMapper for ScaleStatistics {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if is_running_statistic(&self.path) { param.map(|statistic| statistic.mul_scalar(self.factor)) } else { param }
    }
}
