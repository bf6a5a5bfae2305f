//! A norm and a ReLU as one operation of Burn's backends.

use super::{
    BlockOutput, BlockStatistics, NormalizeTensors,
    block::{NormKind, NormValues},
    host::{CHANNELS_LAST, HostBackend, TensorValues, channels_last_tensor, channels_last_values},
};
use crate::{Normalize, SimdLevel, Statistics};
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

/// A norm and a ReLU, with their operands.
#[derive(Clone)]
pub(super) struct NormalizeOp {
    /// `[batch, height, width, channels]`
    shape: [usize; 4],
    input: TensorValues,
    norm: NormValues,
    kind: NormKind,
}

impl fmt::Debug for NormalizeOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.kind, self.shape)
    }
}

impl NormalizeOp {
    pub(super) fn new<B: HostBackend>(tensors: NormalizeTensors<B>, kind: NormKind) -> Self {
        let NormalizeTensors { input, norm } = tensors;
        let shape = input.shape();
        let shape = CHANNELS_LAST.map(|axis| shape[axis]);
        Self { shape, input: channels_last_values::<B>(input), norm: NormValues::new(norm), kind }
    }

    fn normalize(&self) -> Normalize<'_> {
        let [_, height, width, channels] = self.shape;
        self.norm.normalize(self.kind, &self.input, height * width, channels)
    }

    pub(super) fn forward<B: HostBackend>(&self) -> BlockOutput<B> {
        let (output, preactivation) = self.normalize().forward(SimdLevel::detect());
        let statistics = BlockStatistics { preactivation, ..BlockStatistics::default() };
        BlockOutput { output: channels_last_tensor::<B>(output, self.shape), statistics }
    }

    pub(super) fn state<B: HostBackend>(self, output: &BlockOutput<B>) -> State {
        let statistics = output.statistics.preactivation.clone();
        State { output: channels_last_values::<B>(output.output.clone()), statistics, normalized: self }
    }
}

/// The backward pass of a norm and a ReLU.
#[derive(Debug)]
pub(super) struct NormalizeBackward;

#[derive(Clone, Debug)]
pub(super) struct State {
    normalized: NormalizeOp,
    output: TensorValues,
    statistics: Option<Statistics>,
}

impl<B: HostBackend> Backward<B, 3> for NormalizeBackward {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = channels_last_values::<B>(grads.consume::<B>(&ops.node));
        let State { normalized, output, statistics } = ops.state;
        let normalize = normalized.normalize();
        let (dx, gradients) = normalize.gradients(SimdLevel::detect(), output.slice(), statistics.as_ref(), dy.slice());
        let [input, gain, bias] = ops.parents;
        if let Some(node) = input {
            grads.register::<B>(node.id, channels_last_tensor::<B>(dx, normalized.shape));
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
