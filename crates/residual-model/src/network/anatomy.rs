//! A network block by block, for those who measure inside it or change it.
//!
//! Everything here has rank 4: the activations of a dense net are `[batch, features, 1, 1]`.

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
    crate::norm::MOMENTUM,
    alloc::string::ToString,
    burn::module::{Module, Param},
};

/// A block of a network.
#[derive(Clone, Debug)]
pub struct BlockView<'a> {
    /// Its path in the network, such as `layer1.0` or `blocks.3`.
    pub name: String,
    block: Inner<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Inner<'a> {
    Dense(&'a DenseBlock),
    Conv(&'a Block<ConvPath, ConvShortcut>),
    Preact(&'a PreactBlock),
}

/// The two ways through a block, before they are joined.
#[derive(Clone, Debug)]
pub struct Branches {
    /// `s · F(a)`, times the survival probability.
    pub main_path: Tensor<4>,
    /// `α · shortcut(a)`, in a residual block.
    pub shortcut: Option<Tensor<4>>,
}

impl Network {
    /// The blocks from first to last. With [`Self::stem`] and [`Self::head`] they are the whole network:
    /// `head(blocks(stem(x)))` is [`Self::forward`].
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

    /// What the first block takes.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    pub fn stem(&self, images: Tensor<4>) -> Tensor<4> {
        match &self.backbone {
            Backbone::Dense(backbone) => unflat(backbone.stem(images.flatten(1, 3))),
            Backbone::Conv(backbone) => backbone.stem(images),
        }
    }

    /// Class scores from the last block's output.
    ///
    /// # Shapes
    /// - output: `[batch, classes]`
    pub fn head(&self, a: Tensor<4>) -> Tensor<2> {
        self.classify(match &self.backbone {
            Backbone::Dense(_) => flat(a),
            Backbone::Conv(backbone) => backbone.pool(a),
        })
    }

    /// A copy for inference whose batch norms use these images' mean and variance at their place in the
    /// network, as a training step on them would: the running statistics of a net at initialisation are still
    /// 0 and 1. Nothing is shared with this network, which stays as it is.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    #[cfg(feature = "std")]
    pub fn calibrated(&self, images: Tensor<4>) -> Self {
        let from_zero = self.valid().map(&mut Statistics { factor: 0.0, path: Vec::new() }).train();
        from_zero.forward(Tensor::from_inner(images.without_autodiff()));
        from_zero.valid().map(&mut Statistics { factor: 1.0 / MOMENTUM, path: Vec::new() })
    }
}

impl<'a> BlockView<'a> {
    /// The block with this number, from 0, of a convolutional network's stage.
    fn of(stage: usize, number: usize, block: &'a NetworkBlock) -> Self {
        let block = match block {
            NetworkBlock::Post(block) => Inner::Conv(block),
            NetworkBlock::Pre(block) => Inner::Preact(block),
        };
        Self { name: format!("layer{stage}.{number}"), block }
    }

    /// Plain or residual.
    pub fn kind(&self) -> BlockKind {
        match self.block {
            Inner::Dense(Block::Plain(_)) | Inner::Conv(Block::Plain(_)) | Inner::Preact(PreactBlock::Plain(_)) => {
                BlockKind::Plain
            }
            _ => BlockKind::Residual,
        }
    }

    /// The block's output.
    pub fn forward(&self, a: Tensor<4>) -> Tensor<4> {
        match self.block {
            Inner::Dense(block) => unflat(block.forward(flat(a))),
            Inner::Conv(block) => block.forward(a),
            Inner::Preact(block) => block.forward(a),
        }
    }

    /// The two ways through the block; [`Self::join`] of them is [`Self::forward`].
    pub fn branches(&self, a: Tensor<4>) -> Branches {
        let (main_path, shortcut) = match self.block {
            Inner::Dense(block) => {
                let (main_path, shortcut) = block.branches(flat(a));
                (unflat(main_path), shortcut.map(unflat))
            }
            Inner::Conv(block) => block.branches(a),
            Inner::Preact(block) => block.branches(a),
        };
        Branches { main_path, shortcut }
    }

    /// `g(main_path + shortcut)`; in a pre-activation block without `g`.
    pub fn join(&self, branches: Branches) -> Tensor<4> {
        let sum = match branches.shortcut {
            Some(shortcut) => branches.main_path + shortcut,
            None => branches.main_path,
        };
        if matches!(self.block, Inner::Preact(_)) { sum } else { relu(sum) }
    }

    /// What is left of the block when its main path is removed (Veit et al. 2016, section 4.1): the shortcut
    /// of a residual block. A plain block has none; where its shapes agree its input passes, elsewhere
    /// subsampled and padded with zeros, which is the shortcut of option A.
    pub fn bypass(&self, a: Tensor<4>) -> Tensor<4> {
        match self.block {
            Inner::Dense(Block::Plain(_)) => a,
            Inner::Dense(block) => unflat(block.forward_sampled(flat(a), false)),
            Inner::Conv(Block::Plain(block)) => pass(a, &block.main_path.convolutions()),
            Inner::Conv(block) => block.forward_sampled(a, false),
            Inner::Preact(PreactBlock::Plain(block)) => pass(a, &block.main_path.convolutions()),
            Inner::Preact(block) => block.forward_sampled(a, false),
        }
    }

    /// What each linear layer of the main path responds with: its output after the norm, before the ReLU or
    /// the addition (He et al. 2015, section 4.2, "Analysis of Layer Responses"). A pre-activation block's
    /// norms come before its layers, whose outputs these then are.
    pub fn responses(&self, a: Tensor<4>) -> Vec<Tensor<4>> {
        match self.block {
            Inner::Dense(block) => {
                let path = match block {
                    Block::Plain(block) => &block.main_path,
                    Block::Residual(block) => &block.main_path,
                };
                let layers = [unit(&path.linear1, &path.bn1), unit(&path.linear2, &path.bn2)];
                let mut a = flat(a);
                let respond = |layer: &Unit<_>| {
                    let z = layer.forward(a.clone());
                    a = relu(z.clone());
                    unflat(z)
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

fn flat(a: Tensor<4>) -> Tensor<2> {
    a.flatten(1, 3)
}

fn unflat(a: Tensor<2>) -> Tensor<4> {
    let [batch, features] = a.dims();
    a.reshape([batch, features, 1, 1])
}

/// Around these convolutions without parameters.
fn pass(a: Tensor<4>, convolutions: &[&Conv2d]) -> Tensor<4> {
    let stride = convolutions.iter().map(|conv| conv.stride[0]).product();
    let channels = convolutions.last().map_or(a.dims()[1], |conv| conv.weight.dims()[0]);
    let before = ShortcutOption::ZeroPad.zeros_before(channels.saturating_sub(a.dims()[1]));
    subsampled(a, stride, channels, before)
}

/// Multiplies the running statistics of norms. One training step with momentum m moves a statistic r to
/// `r + m (b - r)` with the batch's b: from 0 to `m b`.
#[cfg(feature = "std")]
struct Statistics {
    factor: f64,
    path: Vec<String>,
}

#[cfg(feature = "std")]
impl burn::module::ModuleMapper for Statistics {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.path.last().is_some_and(|name| name == "running_mean" || name == "running_var") {
            true => param.map(|statistic| statistic.mul_scalar(self.factor)),
            false => param,
        }
    }
}
