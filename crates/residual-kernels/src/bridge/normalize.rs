//! The ReLU of a norm as an operation of Burn's.

use super::{
    BlockOutput, BlockStatistics, NormalizeTensors,
    block::{NormKind, NormNumbers},
    host::{CHANNELS_LAST, Host, Numbers, image_numbers, image_tensor},
};
use crate::{Level, Normalize, Statistics};
use burn::backend::{
    TensorMetadata,
    autodiff::{
        checkpoint::base::Checkpointer,
        grads::Gradients,
        ops::{Backward, Ops},
    },
    tensor::FloatTensor,
};
use std::fmt;

/// A norm, its input and its numbers.
#[derive(Clone)]
pub(super) struct Normalized {
    /// `[batch, height, width, channels]`
    shape: [usize; 4],
    input: Numbers,
    norm: NormNumbers,
    kind: NormKind,
}

impl fmt::Debug for Normalized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.kind, self.shape)
    }
}

impl Normalized {
    pub(super) fn new<B: Host>(tensors: NormalizeTensors<B>, kind: NormKind) -> Self {
        let NormalizeTensors { input, norm } = tensors;
        let shape = input.shape();
        let shape = CHANNELS_LAST.map(|axis| shape[axis]);
        Self { shape, input: image_numbers::<B>(input), norm: NormNumbers::new(norm), kind }
    }

    fn normalize(&self) -> Normalize<'_> {
        let [_, height, width, channels] = self.shape;
        self.norm.normalize(self.kind, &self.input, height * width, channels)
    }

    pub(super) fn forward<B: Host>(&self) -> BlockOutput<B> {
        let (output, preactivation) = self.normalize().forward(Level::detect());
        let statistics = BlockStatistics { preactivation, ..BlockStatistics::default() };
        BlockOutput { output: image_tensor::<B>(output, self.shape), statistics }
    }

    pub(super) fn state<B: Host>(self, output: &BlockOutput<B>) -> State {
        let statistics = output.statistics.preactivation.clone();
        State { output: image_numbers::<B>(output.output.clone()), statistics, normalized: self }
    }
}

/// The backward pass of the ReLU of a norm.
#[derive(Debug)]
pub(super) struct NormalizeBackward;

#[derive(Clone, Debug)]
pub(super) struct State {
    normalized: Normalized,
    output: Numbers,
    statistics: Option<Statistics>,
}

impl<B: Host> Backward<B, 3> for NormalizeBackward {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = image_numbers::<B>(grads.consume::<B>(&ops.node));
        let State { normalized, output, statistics } = ops.state;
        let normalize = normalized.normalize();
        let (dx, gradients) = normalize.gradients(Level::detect(), output.slice(), statistics.as_ref(), dy.slice());
        let [input, gain, bias] = ops.parents;
        if let Some(node) = input {
            grads.register::<B>(node.id, image_tensor::<B>(dx, normalized.shape));
        }
        for (node, values) in [(gain, gradients.gain), (bias, gradients.bias)] {
            if let Some(node) = node {
                let shape = [values.len()];
                let gradient: FloatTensor<B> = B::small_tensor(values, &shape);
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
