//! A block as one operation of Burn's backends, and its backward pass.

use super::{
    BlockOutput, BlockStatistics, BlockTensors, LayerTensors, NormTensors, OptionalTensor,
    host::{CHANNELS_LAST, HostBackend, TensorValues, WeightValues, channels_last_tensor, channels_last_values},
};
use crate::{
    Buffer, ChannelPadding, Conv, ConvNorm, ConvNormGradients, Gradients, NeedsGradient, Norm, Normalize, Path,
    PreparedWeight, SavedForBackward, Shortcut, SimdLevel, Statistics, Weight,
    path::{MIN_PARALLEL_MULTIPLY_ADDS, output_image},
    update::add_to,
};
use burn::backend::{
    TensorMetadata,
    autodiff::{
        NodeId,
        checkpoint::base::Checkpointer,
        grads::Gradients as BurnGradients,
        ops::{Backward, Ops},
    },
    tensor::FloatTensor,
};
use std::{fmt, sync::Arc};

/// The description of a block without its tensors.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct BlockSpec {
    pub(super) preactivation: Option<NormKind>,
    pub(super) projection: Option<(Conv, NormKind)>,
    pub(super) layers: Vec<(Conv, NormKind)>,
    pub(super) scale: f32,
    pub(super) shortcut: ShortcutKind,
    pub(super) relu: bool,
    pub(super) recompute: bool,
}

#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub enum NormKind {
    None,
    Batch(f32),
    Running(f32),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ShortcutKind {
    None,
    Input(f32, ChannelPadding),
    Projection(f32),
    Tensor(f32),
}

/// The values of a block's tensors.
#[derive(Clone)]
pub(super) struct BlockValues {
    /// The input's shape: `[batch, height, width, channels]`. Features are images of one row, see [`images_of_rows`].
    shape: [usize; 4],
    /// The rank of the block's tensors, 4 or 2.
    rank: usize,
    input: TensorValues,
    shortcut: Option<TensorValues>,
    preactivation: NormValues,
    projection: Option<LayerValues>,
    layers: Vec<LayerValues>,
    spec: BlockSpec,
}

#[derive(Clone)]
pub(super) struct NormValues {
    gain: Option<TensorValues>,
    bias: Option<TensorValues>,
    mean: Option<TensorValues>,
    variance: Option<TensorValues>,
}

#[derive(Clone)]
struct LayerValues {
    /// `None` in inference, which uses the prepared weight.
    weight: Option<WeightValues>,
    norm: NormValues,
}

impl NormValues {
    pub(super) fn new<B: HostBackend>(norm: NormTensors<B>) -> Self {
        let values = |tensor: OptionalTensor<B>| tensor.as_ref().cloned().map(B::values);
        let NormTensors { gain, bias, mean, variance } = norm;
        Self { gain: values(gain), bias: values(bias), mean: values(mean), variance: values(variance) }
    }

    fn norm(&self, kind: NormKind) -> Norm<'_> {
        let expected = "a running norm has a mean and a variance";
        match kind {
            NormKind::None => Norm::None,
            NormKind::Batch(epsilon) => Norm::Batch { epsilon },
            NormKind::Running(epsilon) => Norm::Running {
                mean: self.mean.as_ref().expect(expected).slice(),
                variance: self.variance.as_ref().expect(expected).slice(),
                epsilon,
            },
        }
    }

    /// The operation `relu(norm(input))`.
    pub(super) fn normalize<'a>(
        &'a self,
        kind: NormKind,
        input: &'a TensorValues,
        pixels: usize,
        channels: usize,
    ) -> Normalize<'a> {
        let (gain, bias) = (self.gain.as_ref().map(TensorValues::slice), self.bias.as_ref().map(TensorValues::slice));
        Normalize { input: input.slice(), pixels, channels, gain, bias, norm: self.norm(kind), relu: true }
    }
}

impl LayerValues {
    fn new<B: HostBackend>(layer: LayerTensors<B>) -> Self {
        Self { weight: Some(WeightValues::new::<B>(layer.weight)), norm: NormValues::new(layer.norm) }
    }

    fn layer(&self, (conv, kind): (Conv, NormKind)) -> ConvNorm<'_> {
        ConvNorm {
            conv,
            weight: self.weight.as_ref().map_or(Weight::OutputsFirst(&[]), WeightValues::weight),
            gain: self.norm.gain.as_ref().map(TensorValues::slice),
            bias: self.norm.bias.as_ref().map(TensorValues::slice),
            norm: self.norm.norm(kind),
        }
    }
}

/// The greatest number of images that [`images_of_rows`] returns.
const MAX_IMAGES: usize = 16;

/// The least number of rows of an image that [`images_of_rows`] returns, because every image reads all weights.
const MIN_ROWS: usize = 32;

/// The number of images into which a batch of features is divided, so that threads can share it. It divides the batch, and
/// depends on its size and the number of weights alone, so that the results do not depend on the number of threads.
fn images_of_rows(batch: usize, weights: usize) -> usize {
    if batch * weights < MIN_PARALLEL_MULTIPLY_ADDS {
        return 1;
    }
    (1..=(batch / MIN_ROWS).min(MAX_IMAGES)).rev().find(|&images| batch.is_multiple_of(images)).unwrap_or(1)
}

impl BlockValues {
    pub(super) fn new<B: HostBackend>(tensors: BlockTensors<B>, spec: BlockSpec) -> Self {
        let BlockTensors { input, shortcut, preactivation, projection, layers } = tensors;
        let layers = layers.into_vec().into_iter().map(LayerValues::new::<B>).collect();
        let projection = projection.into_option().map(LayerValues::new::<B>);
        Self::with_layers(input, shortcut, preactivation, projection, layers, spec)
    }

    fn with_layers<B: HostBackend>(
        input: FloatTensor<B>,
        shortcut: OptionalTensor<B>,
        preactivation: NormTensors<B>,
        projection: Option<LayerValues>,
        layers: Vec<LayerValues>,
        spec: BlockSpec,
    ) -> Self {
        let shape = input.shape();
        let rank = shape.num_dims();
        let shape = match rank {
            4 => CHANNELS_LAST.map(|axis| shape[axis]),
            _ => {
                let weights = spec.layers.iter().map(|(conv, _)| conv.weights()).max().unwrap_or(0);
                let images = images_of_rows(shape[0], weights);
                [images, 1, shape[0] / images, shape[1]]
            }
        };
        let shortcut = shortcut.as_ref().cloned().map(channels_last_values::<B>);
        let preactivation = NormValues::new(preactivation);
        Self { shape, rank, input: channels_last_values::<B>(input), shortcut, preactivation, projection, layers, spec }
    }

    fn image(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }

    /// The pre-activation norm and ReLU, if the block has them.
    fn normalize(&self) -> Option<Normalize<'_>> {
        let [_, height, width, channels] = self.shape;
        Some(self.preactivation.normalize(self.spec.preactivation?, &self.input, height * width, channels))
    }

    /// The output and the batch's statistics of [`Self::normalize`], if the block has a pre-activation.
    fn preactivate(&self) -> (Option<Buffer>, Option<Statistics>) {
        let (output, statistics) = self.normalize().map(|normalize| normalize.forward(SimdLevel::detect())).unzip();
        (output, statistics.flatten())
    }

    /// Whether the shortcut adds the block's input itself, although the main path reads the pre-activated input.
    fn adds_raw_input(&self) -> bool {
        self.spec.preactivation.is_some() && matches!(self.spec.shortcut, ShortcutKind::Input(..)) && self.keeps_shape()
    }

    /// Whether the main path's output has the input's shape.
    fn keeps_shape(&self) -> bool {
        self.spec.layers[0].0.channels[0] == self.last().channels[1] && self.output_image() == self.image()
    }

    fn output_image(&self) -> [usize; 2] {
        output_image(self.image(), self.spec.layers.iter().map(|(conv, _)| conv))
    }

    fn last(&self) -> Conv {
        self.spec.layers.last().expect("at least one layer").0
    }

    /// The main path of this input, with this shortcut.
    fn path<'a>(&'a self, input: &'a [f32], shortcut: Shortcut<'a>) -> Path<'a> {
        let layers = self.layers.iter().zip(&self.spec.layers).map(|(layer, spec)| layer.layer(*spec));
        let (scale, relu) = (self.spec.scale, self.spec.relu);
        Path { layers: layers.collect(), input, image: self.image(), scale, shortcut, relu }
    }

    /// The projection shortcut of this input, if the block has one.
    fn projection<'a>(&'a self, input: &'a [f32]) -> Option<Path<'a>> {
        let layer = self.projection.as_ref()?.layer(self.spec.projection?);
        Some(Path {
            layers: vec![layer],
            input,
            image: self.image(),
            scale: 1.0,
            shortcut: Shortcut::None,
            relu: false,
        })
    }

    /// The shortcut around the main path. `projected` is the output of the projection, if the block has one.
    fn shortcut<'a>(&'a self, projected: &'a [f32]) -> Shortcut<'a> {
        match self.spec.shortcut {
            ShortcutKind::None => Shortcut::None,
            ShortcutKind::Input(strength, _) if self.adds_raw_input() => {
                Shortcut::Tensor { values: self.input.slice(), strength }
            }
            ShortcutKind::Input(strength, padding) => Shortcut::Input { strength, padding },
            ShortcutKind::Projection(strength) => Shortcut::Tensor { values: projected, strength },
            ShortcutKind::Tensor(strength) => Shortcut::Tensor {
                values: self.shortcut.as_ref().expect("the shortcut has a tensor").slice(),
                strength,
            },
        }
    }

    /// Computes the output, the batch's statistics, and the state of the backward pass. `weights` are the shapes that
    /// [`State`] stores.
    pub(super) fn train<B: HostBackend>(
        mut self,
        weights: Vec<Vec<usize>>,
    ) -> (FloatTensor<B>, BlockStatistics, State) {
        let (level, keep) = (SimdLevel::detect(), !self.spec.recompute);
        let (preactivated, preactivation_statistics) = self.preactivate();
        let p = preactivated.as_deref().unwrap_or(self.input.slice());
        let projected = self.projection(p).map(|path| path.train(level, keep));
        let projected_output = projected.as_ref().map_or(&[][..], |(output, _)| output);
        let (output, saved) = self.path(p, self.shortcut(projected_output)).train(level, keep);
        let statistics = BlockStatistics {
            preactivation: preactivation_statistics.clone(),
            projection: projected.as_ref().and_then(|(_, saved)| saved.statistics[0].clone()),
            layers: saved.statistics.clone(),
        };
        let output = self.output::<B>(output);
        let projection = projected.map(|(_, saved)| saved);
        // The backward pass does not need the values of the shortcut's tensor.
        self.shortcut = None;
        let state = State {
            values: self,
            preactivated: preactivated.filter(|_| keep).map(Arc::new),
            preactivation_statistics,
            projection,
            saved,
            weights,
        };
        (output, statistics, state)
    }

    /// A tensor of the block's rank from channels-last values, such as its output or the gradient of its input.
    fn tensor<B: HostBackend>(&self, buffer: Buffer, [height, width, channels]: [usize; 3]) -> FloatTensor<B> {
        if self.rank == 2 {
            return B::tensor(buffer, &[self.shape[0] * width, channels]);
        }
        channels_last_tensor::<B>(buffer, [self.shape[0], height, width, channels])
    }

    fn output<B: HostBackend>(&self, buffer: Buffer) -> FloatTensor<B> {
        let [height, width] = self.output_image();
        self.tensor::<B>(buffer, [height, width, self.last().channels[1]])
    }
}

impl fmt::Debug for BlockValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockValues").field("shape", &self.shape).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The forward pass of a block that autodiff does not track.
pub(super) fn forward_untracked<B: HostBackend>(tensors: BlockTensors<B>, spec: BlockSpec) -> BlockOutput<B> {
    let uses_batch = |(_, norm): &(Conv, NormKind)| matches!(norm, NormKind::Batch(_));
    if spec.layers.iter().chain(&spec.projection).any(uses_batch) {
        let spec = BlockSpec { recompute: true, ..spec };
        let (output, statistics, _) = BlockValues::new(tensors, spec).train::<B>(Vec::new());
        return BlockOutput { output, statistics };
    }
    let level = SimdLevel::detect();
    let BlockTensors { input, shortcut, preactivation, projection, layers } = tensors;
    let split = |layer: LayerTensors<B>, (conv, _): &(Conv, NormKind), image: [usize; 2]| {
        let prepared = B::prepared(level, &layer.weight, conv, image);
        (LayerValues { weight: None, norm: NormValues::new(layer.norm) }, prepared)
    };
    let image = match input.shape()[..] {
        [_, _, height, width] => [height, width],
        _ => [1, 1],
    };
    let mut size = image;
    let layers = layers.into_vec().into_iter().zip(&spec.layers).map(|(layer, spec)| {
        let image = size;
        size = spec.0.output(image).unwrap_or(image);
        split(layer, spec, image)
    });
    let (layers, prepared): (Vec<_>, Vec<Arc<PreparedWeight>>) = layers.unzip();
    let projection =
        projection.into_option().zip(spec.projection.as_ref()).map(|(layer, spec)| split(layer, spec, image));
    let (projection, prepared_projection) = projection.unzip();
    let values = BlockValues::with_layers(input, shortcut, preactivation, projection, layers, spec);
    let (preactivated, preactivation) = values.preactivate();
    let p = preactivated.as_deref().unwrap_or(values.input.slice());
    let projected = values.projection(p).zip(prepared_projection).map(|(path, weight)| path.infer(level, &[weight]));
    let projected = projected.as_deref().unwrap_or_default();
    let output = values.path(p, values.shortcut(projected)).infer(level, &prepared);
    let statistics = BlockStatistics { preactivation, projection: None, layers: vec![None; prepared.len()] };
    BlockOutput { output: values.output::<B>(output), statistics }
}

/// The backward pass of a block.
#[derive(Debug)]
pub(super) struct BlockBackward;

#[derive(Clone, Debug)]
pub(super) struct State {
    values: BlockValues,
    /// The output of the pre-activation. `None` if the block has no pre-activation, or if the backward pass recomputes
    /// it.
    preactivated: Option<Arc<Buffer>>,
    preactivation_statistics: Option<Statistics>,
    projection: Option<SavedForBackward>,
    saved: SavedForBackward,
    /// The shape of the projection's weight, if the block has one, then the shape of each layer's weight.
    weights: Vec<Vec<usize>>,
}

/// The number of tracked tensors of a block: the input, the shortcut's tensor, γ and β of the pre-activation, and
/// weight, γ and β of the projection and of three layers.
const PARENTS: usize = 16;

impl<B: HostBackend> Backward<B, PARENTS> for BlockBackward {
    type State = State;

    fn backward(self, ops: Ops<State, PARENTS>, grads: &mut BurnGradients, _: &mut Checkpointer) {
        let level = SimdLevel::detect();
        let dy = channels_last_values::<B>(grads.consume::<B>(&ops.node));
        let State { values, preactivated, preactivation_statistics, projection, saved, weights } = ops.state;
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let [input, shortcut, gain, bias, projection_nodes @ .., w1, g1, b1, w2, g2, b2, w3, g3, b3] = parents;
        let layer_nodes = [w1, g1, b1, w2, g2, b2, w3, g3, b3];
        let any = |nodes: &[Option<NodeId>]| nodes.iter().any(Option::is_some);
        let (trains_preactivation, trains_projection) = (gain.is_some() || bias.is_some(), any(&projection_nodes));
        let preactivated = match (&preactivated, values.normalize()) {
            (None, Some(normalize)) => Some(Arc::new(normalize.forward(level).0)),
            _ => preactivated,
        };
        let p = preactivated.as_ref().map_or(values.input.slice(), |buffer| buffer);
        let needs_dp = input.is_some() || trains_preactivation;
        let adds_raw_input = values.adds_raw_input();
        let needs = NeedsGradient {
            input: needs_dp,
            shortcut: match values.spec.shortcut {
                ShortcutKind::Tensor(_) => shortcut.is_some(),
                ShortcutKind::Projection(_) => trains_projection || needs_dp,
                ShortcutKind::Input(..) => adds_raw_input && input.is_some(),
                ShortcutKind::None => false,
            },
            parameters: any(&layer_nodes),
        };
        // Of the shortcut's tensor, the backward pass reads only the length, so the output gradient can stand in for it.
        let main_shortcut = match values.spec.shortcut {
            ShortcutKind::Tensor(strength) | ShortcutKind::Projection(strength) => {
                Shortcut::Tensor { values: dy.slice(), strength }
            }
            _ => values.shortcut(&[]),
        };
        let gradients = values.path(p, main_shortcut).gradients(level, saved, dy.slice(), needs);
        drop(dy);
        let Gradients { input: mut dp, shortcut: dr, layers } = gradients;

        let mut shapes = weights.into_iter();
        let projection_shape = values.projection.as_ref().and_then(|_| shapes.next());
        if let (Some(path), Some(saved), Some(dr)) = (values.projection(p), projection, &dr) {
            let needs = NeedsGradient { input: needs_dp, shortcut: false, parameters: trains_projection };
            let Gradients { input: dp_projection, layers, .. } = path.gradients(level, saved, dr, needs);
            if let (Some(dp), Some(dp_projection)) = (&mut dp, dp_projection) {
                add_to(dp, &dp_projection);
            }
            register::<B>(grads, &projection_nodes, layers, projection_shape.into_iter());
        }
        if let (Some(normalize), Some(output), Some(dp)) = (values.normalize(), &preactivated, &mut dp) {
            let (dx, ConvNormGradients { gain: d_gain, bias: d_bias, .. }) =
                normalize.gradients(level, output, preactivation_statistics.as_ref(), dp);
            *dp = dx;
            for (node, gradient) in [(gain, d_gain), (bias, d_bias)] {
                if let Some(node) = node {
                    let shape = [gradient.len()];
                    grads.register::<B>(node, B::small_tensor(gradient, &shape));
                }
            }
        }
        if let (true, Some(dp), Some(dr)) = (adds_raw_input, &mut dp, &dr) {
            add_to(dp, dr);
        }
        if let (Some(node), Some(dx)) = (input, dp) {
            let [_, height, width, channels] = values.shape;
            grads.register::<B>(node, values.tensor::<B>(dx, [height, width, channels]));
        }
        if let (Some(node), Some(dr)) =
            (shortcut, dr.filter(|_| matches!(values.spec.shortcut, ShortcutKind::Tensor(_))))
        {
            grads.register::<B>(node, values.output::<B>(dr));
        }
        register::<B>(grads, &layer_nodes, layers, shapes);
    }
}

/// Registers the gradients of layers. `nodes` are the nodes of the weight, γ and β of each layer, and `shapes` the
/// shapes of the weights.
fn register<B: HostBackend>(
    grads: &mut BurnGradients,
    nodes: &[Option<NodeId>],
    layers: Vec<ConvNormGradients>,
    shapes: impl Iterator<Item = Vec<usize>>,
) {
    let mut nodes = nodes.iter();
    for (ConvNormGradients { weight, gain, bias }, shape) in layers.into_iter().zip(shapes) {
        let channels = [bias.len()];
        for (values, shape) in [(weight, &shape[..]), (gain, &channels), (bias, &channels)] {
            if let Some(node) = nodes.next().copied().flatten() {
                grads.register::<B>(node, B::small_tensor(values, shape));
            }
        }
    }
}
