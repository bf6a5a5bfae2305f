//! Pooling as operations of Burn's backends.

use super::host::{CHANNELS_LAST, HostBackend, TensorValues, channels_last_tensor, channels_last_values};
use crate::{MaxPool, SimdLevel, mean_pool, mean_pool_gradient};
use burn::{
    backend::{
        TensorMetadata,
        autodiff::{
            checkpoint::base::Checkpointer,
            grads::Gradients,
            ops::{Backward, Ops},
        },
        tensor::FloatTensor,
    },
    tensor::Shape,
};
use std::{fmt, marker::PhantomData};

/// Max-pooling and its input.
pub(super) struct MaxPoolOp<B> {
    pool: MaxPool,
    /// `[batch, height, width, channels]`
    shape: [usize; 4],
    values: TensorValues,
    backend: PhantomData<B>,
}

impl<B> Clone for MaxPoolOp<B> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), ..*self }
    }
}

impl<B> fmt::Debug for MaxPoolOp<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.pool, self.shape)
    }
}

impl<B: HostBackend> MaxPoolOp<B> {
    pub(super) fn new(input: FloatTensor<B>, pool: MaxPool) -> Self {
        let shape = input.shape();
        let shape = CHANNELS_LAST.map(|axis| shape[axis]);
        Self { pool, shape, values: channels_last_values::<B>(input), backend: PhantomData }
    }

    pub(super) fn forward(&self) -> FloatTensor<B> {
        let [batch, height, width, channels] = self.shape;
        let output = self.pool.forward(SimdLevel::detect(), self.values.slice(), [height, width]);
        let [height, width] = self.pool.output([height, width]);
        channels_last_tensor::<B>(output, [batch, height, width, channels])
    }
}

/// The backward pass of max-pooling.
#[derive(Debug)]
pub(super) struct MaxPoolBackward;

impl<B: HostBackend> Backward<B, 1> for MaxPoolBackward {
    type State = MaxPoolOp<B>;

    fn backward(self, ops: Ops<MaxPoolOp<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = channels_last_values::<B>(grads.consume::<B>(&ops.node));
        if let [Some(node)] = ops.parents {
            let MaxPoolOp { pool, shape, values, .. } = ops.state;
            let dx = pool.gradient(SimdLevel::detect(), values.slice(), [shape[1], shape[2]], dy.slice());
            grads.register::<B>(node.id, channels_last_tensor::<B>(dx, shape));
        }
    }
}

/// Global average pooling of images `[batch, height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeanPoolOp {
    shape: [usize; 4],
}

impl MeanPoolOp {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape: CHANNELS_LAST.map(|axis| shape[axis]) }
    }

    pub(super) fn forward<B: HostBackend>(self, input: FloatTensor<B>) -> FloatTensor<B> {
        let [batch, height, width, channels] = self.shape;
        let values = channels_last_values::<B>(input);
        B::small_tensor(mean_pool(values.slice(), height * width, channels), &[batch, channels])
    }
}

/// The backward pass of global average pooling.
#[derive(Debug)]
pub(super) struct MeanPoolBackward;

impl<B: HostBackend> Backward<B, 1> for MeanPoolBackward {
    type State = MeanPoolOp;

    fn backward(self, ops: Ops<MeanPoolOp, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = B::values(grads.consume::<B>(&ops.node));
        if let [Some(node)] = ops.parents {
            let shape @ [_, height, width, channels] = ops.state.shape;
            let dx = mean_pool_gradient(dy.slice(), height * width, channels);
            grads.register::<B>(node.id, channels_last_tensor::<B>(dx, shape));
        }
    }
}
