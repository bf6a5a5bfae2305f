//! Poolings of Burn's tensors.

use super::host::{CHANNELS_LAST, Host, Numbers, image_numbers, image_tensor};
use crate::{Level, MaxPool, mean_pool, mean_pool_gradient};
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

/// A max-pooling and its input.
pub(super) struct MaxPooled<B> {
    pool: MaxPool,
    /// `[batch, height, width, channels]`
    shape: [usize; 4],
    numbers: Numbers,
    backend: PhantomData<B>,
}

impl<B> Clone for MaxPooled<B> {
    fn clone(&self) -> Self {
        Self { numbers: self.numbers.clone(), ..*self }
    }
}

impl<B> fmt::Debug for MaxPooled<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.pool, self.shape)
    }
}

impl<B: Host> MaxPooled<B> {
    pub(super) fn new(input: FloatTensor<B>, pool: MaxPool) -> Self {
        let shape = input.shape();
        let shape = CHANNELS_LAST.map(|axis| shape[axis]);
        Self { pool, shape, numbers: image_numbers::<B>(input), backend: PhantomData }
    }

    pub(super) fn forward(&self) -> FloatTensor<B> {
        let [batch, height, width, channels] = self.shape;
        let output = self.pool.forward(Level::detect(), self.numbers.slice(), [height, width]);
        let [height, width] = self.pool.output([height, width]);
        image_tensor::<B>(output, [batch, height, width, channels])
    }
}

/// The backward pass of a max-pooling.
#[derive(Debug)]
pub(super) struct MaxPoolBackward;

impl<B: Host> Backward<B, 1> for MaxPoolBackward {
    type State = MaxPooled<B>;

    fn backward(self, ops: Ops<MaxPooled<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = image_numbers::<B>(grads.consume::<B>(&ops.node));
        if let [Some(node)] = ops.parents {
            let MaxPooled { pool, shape, numbers, .. } = ops.state;
            let dx = pool.gradient(Level::detect(), numbers.slice(), [shape[1], shape[2]], dy.slice());
            grads.register::<B>(node.id, image_tensor::<B>(dx, shape));
        }
    }
}

/// The mean over the pixels of images `[batch, height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeanPooled {
    shape: [usize; 4],
}

impl MeanPooled {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape: CHANNELS_LAST.map(|axis| shape[axis]) }
    }

    pub(super) fn forward<B: Host>(self, input: FloatTensor<B>) -> FloatTensor<B> {
        let [batch, height, width, channels] = self.shape;
        let numbers = image_numbers::<B>(input);
        B::small_tensor(mean_pool(numbers.slice(), height * width, channels), &[batch, channels])
    }
}

/// The backward pass of a mean over pixels.
#[derive(Debug)]
pub(super) struct MeanPoolBackward;

impl<B: Host> Backward<B, 1> for MeanPoolBackward {
    type State = MeanPooled;

    fn backward(self, ops: Ops<MeanPooled, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = B::numbers(grads.consume::<B>(&ops.node));
        if let [Some(node)] = ops.parents {
            let shape @ [_, height, width, channels] = ops.state.shape;
            let dx = mean_pool_gradient(dy.slice(), height * width, channels);
            grads.register::<B>(node.id, image_tensor::<B>(dx, shape));
        }
    }
}
