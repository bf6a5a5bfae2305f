//! A block as one operation of Burn's, forward and backward.

use super::{
    BlockOutput, BlockStatistics, BlockTensors, LayerTensors, NormTensors, Slot,
    host::{CHANNELS_LAST, Host, Numbers, image_numbers, image_tensor},
};
use crate::{
    Buffer, ChannelPadding, Conv, Gradients, Layer, LayerGradients, Level, Norm, Normalize, Path, Prepared, Saved,
    Shortcut, Statistics, Wanted, strided::gather, update::add_to,
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

/// What describes a block beside its tensors.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Spec {
    pub(super) preactivation: Option<NormKind>,
    pub(super) projection: Option<(Conv, NormKind)>,
    pub(super) layers: Vec<(Conv, NormKind)>,
    pub(super) scale: f32,
    pub(super) around: Around,
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
pub(super) enum Around {
    None,
    Input(f32, ChannelPadding),
    Projection(f32),
    Tensor(f32),
}

/// A block's numbers, wherever they lie.
#[derive(Clone)]
pub(super) struct BlockNumbers {
    /// `[batch, height, width, channels]`, or `[1, 1, rows, channels]`.
    shape: [usize; 4],
    rank: usize,
    input: Numbers,
    shortcut: Option<Numbers>,
    pre: NormNumbers,
    projection: Option<LayerNumbers>,
    layers: Vec<LayerNumbers>,
    spec: Spec,
}

#[derive(Clone)]
pub(super) struct NormNumbers {
    gain: Option<Numbers>,
    bias: Option<Numbers>,
    mean: Option<Numbers>,
    variance: Option<Numbers>,
}

#[derive(Clone)]
struct LayerNumbers {
    /// None where inference reads it prepared.
    weight: Option<Numbers>,
    norm: NormNumbers,
}

impl NormNumbers {
    pub(super) fn new<B: Host>(norm: NormTensors<B>) -> Self {
        let slot = |slot: Slot<B>| slot.as_ref().cloned().map(B::numbers);
        let NormTensors { gain, bias, mean, variance } = norm;
        Self { gain: slot(gain), bias: slot(bias), mean: slot(mean), variance: slot(variance) }
    }

    fn norm(&self, kind: NormKind) -> Norm<'_> {
        let running = "a running norm has mean and variance";
        match kind {
            NormKind::None => Norm::None,
            NormKind::Batch(epsilon) => Norm::Batch { epsilon },
            NormKind::Running(epsilon) => Norm::Running {
                mean: self.mean.as_ref().expect(running).slice(),
                variance: self.variance.as_ref().expect(running).slice(),
                epsilon,
            },
        }
    }

    /// The ReLU of this norm of an input.
    pub(super) fn normalize<'a>(
        &'a self,
        kind: NormKind,
        input: &'a Numbers,
        pixels: usize,
        channels: usize,
    ) -> Normalize<'a> {
        let (gain, bias) = (self.gain.as_ref().map(Numbers::slice), self.bias.as_ref().map(Numbers::slice));
        Normalize { input: input.slice(), pixels, channels, gain, bias, norm: self.norm(kind), relu: true }
    }
}

impl LayerNumbers {
    fn new<B: Host>(layer: LayerTensors<B>) -> Self {
        Self { weight: Some(B::numbers(outputs_first::<B>(layer.weight))), norm: NormNumbers::new(layer.norm) }
    }

    fn layer(&self, (conv, kind): (Conv, NormKind)) -> Layer<'_> {
        Layer {
            conv,
            weight: self.weight.as_ref().map_or(&[], Numbers::slice),
            gain: self.norm.gain.as_ref().map(Numbers::slice),
            bias: self.norm.bias.as_ref().map(Numbers::slice),
            norm: self.norm.norm(kind),
        }
    }
}

/// A weight as the kernels have it, with the outputs first: Burn's linear layers have the inputs first.
fn outputs_first<B: Host>(weight: FloatTensor<B>) -> FloatTensor<B> {
    if weight.rank() == 2 { B::float_permute(weight, &[1, 0]) } else { weight }
}

impl BlockNumbers {
    pub(super) fn new<B: Host>(tensors: BlockTensors<B>, spec: Spec) -> Self {
        let BlockTensors { input, shortcut, pre, projection, layers } = tensors;
        let layers = layers.into_vec().into_iter().map(LayerNumbers::new::<B>).collect();
        let projection = projection.into_option().map(LayerNumbers::new::<B>);
        Self::with_layers(input, shortcut, pre, projection, layers, spec)
    }

    fn with_layers<B: Host>(
        input: FloatTensor<B>,
        shortcut: Slot<B>,
        pre: NormTensors<B>,
        projection: Option<LayerNumbers>,
        layers: Vec<LayerNumbers>,
        spec: Spec,
    ) -> Self {
        let shape = input.shape();
        let rank = shape.num_dims();
        let shape = match rank {
            4 => CHANNELS_LAST.map(|axis| shape[axis]),
            _ => [1, 1, shape[0], shape[1]],
        };
        let shortcut = shortcut.as_ref().cloned().map(image_numbers::<B>);
        let pre = NormNumbers::new(pre);
        Self { shape, rank, input: image_numbers::<B>(input), shortcut, pre, projection, layers, spec }
    }

    fn image(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }

    /// The norm of the input, if the main path reads that.
    fn normalize(&self) -> Option<Normalize<'_>> {
        let [_, height, width, channels] = self.shape;
        Some(self.pre.normalize(self.spec.preactivation?, &self.input, height * width, channels))
    }

    /// The ReLU of the norm of the input, if the main path and the projection read that, and the batch's statistics.
    fn preactivate(&self) -> (Option<Buffer>, Option<Statistics>) {
        let (output, statistics) = self.normalize().map(|normalize| normalize.forward(Level::detect())).unzip();
        (output, statistics.flatten())
    }

    /// Whether the shortcut adds the input itself, which the main path does not read.
    fn adds_input(&self) -> bool {
        self.spec.preactivation.is_some() && matches!(self.spec.around, Around::Input(..)) && self.keeps_shape()
    }

    /// Whether the main path's output has the input's shape.
    fn keeps_shape(&self) -> bool {
        self.spec.layers[0].0.channels[0] == self.last().channels[1]
            && self.path(&[], Shortcut::None).output_image() == self.image()
    }

    fn last(&self) -> Conv {
        self.spec.layers.last().expect("at least one layer").0
    }

    /// The main path, of this input and with this shortcut.
    fn path<'a>(&'a self, input: &'a [f32], shortcut: Shortcut<'a>) -> Path<'a> {
        let layers = self.layers.iter().zip(&self.spec.layers).map(|(layer, spec)| layer.layer(*spec));
        let (scale, relu) = (self.spec.scale, self.spec.relu);
        Path { layers: layers.collect(), input, image: self.image(), scale, shortcut, relu }
    }

    /// The shortcut's projection of this input, if it has one.
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

    /// What the main path adds, given the projection's output.
    fn around<'a>(&'a self, projected: &'a [f32]) -> Shortcut<'a> {
        match self.spec.around {
            Around::None => Shortcut::None,
            Around::Input(strength, _) if self.adds_input() => {
                Shortcut::Tensor { values: self.input.slice(), strength }
            }
            Around::Input(strength, padding) => Shortcut::Input { strength, padding },
            Around::Projection(strength) => Shortcut::Tensor { values: projected, strength },
            Around::Tensor(strength) => {
                Shortcut::Tensor { values: self.shortcut.as_ref().expect("the shortcut's tensor").slice(), strength }
            }
        }
    }

    /// The output, the batch's statistics, and what the backward pass needs.
    pub(super) fn train<B: Host>(mut self, weights: Vec<Vec<usize>>) -> (FloatTensor<B>, BlockStatistics, State) {
        let (level, keep) = (Level::detect(), !self.spec.recompute);
        let (pre, pre_statistics) = self.preactivate();
        let p = pre.as_deref().unwrap_or(self.input.slice());
        let projected = self.projection(p).map(|path| path.train(level, keep));
        let around = projected.as_ref().map_or(&[][..], |(output, _)| output);
        let (output, saved) = self.path(p, self.around(around)).train(level, keep);
        let statistics = BlockStatistics {
            preactivation: pre_statistics.clone(),
            projection: projected.as_ref().and_then(|(_, saved)| saved.statistics[0].clone()),
            layers: saved.statistics.clone(),
        };
        let output = self.output::<B>(output);
        let projection = projected.map(|(_, saved)| saved);
        // Read for its values in the forward pass alone, unless it is the input.
        self.shortcut = None;
        let state = State {
            output: image_numbers::<B>(output.clone()),
            numbers: self,
            preactivated: pre.filter(|_| keep).map(Arc::new),
            pre_statistics,
            projection,
            saved,
            weights,
        };
        (output, statistics, state)
    }

    /// A tensor of numbers that lie as the block's output, or as its input.
    fn tensor<B: Host>(&self, buffer: Buffer, [height, width, channels]: [usize; 3]) -> FloatTensor<B> {
        if self.rank == 2 {
            return B::tensor(buffer, &[width, channels]);
        }
        image_tensor::<B>(buffer, [self.shape[0], height, width, channels])
    }

    fn output<B: Host>(&self, buffer: Buffer) -> FloatTensor<B> {
        let [height, width] = self.path(&[], Shortcut::None).output_image();
        self.tensor::<B>(buffer, [height, width, self.last().channels[1]])
    }
}

impl fmt::Debug for BlockNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockNumbers").field("shape", &self.shape).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// A block whose gradient nobody wants.
pub(super) fn compute<B: Host>(tensors: BlockTensors<B>, spec: Spec) -> BlockOutput<B> {
    let by_batch = |(_, norm): &(Conv, NormKind)| matches!(norm, NormKind::Batch(_));
    if spec.layers.iter().chain(&spec.projection).any(by_batch) {
        let spec = Spec { recompute: true, ..spec };
        let (output, statistics, _) = BlockNumbers::new(tensors, spec).train::<B>(Vec::new());
        return BlockOutput { output, statistics };
    }
    let level = Level::detect();
    let BlockTensors { input, shortcut, pre, projection, layers } = tensors;
    let split = |layer: LayerTensors<B>, (conv, _): &(Conv, NormKind)| {
        let prepared = B::prepared(&outputs_first::<B>(layer.weight), conv);
        (LayerNumbers { weight: None, norm: NormNumbers::new(layer.norm) }, prepared)
    };
    let layers = layers.into_vec().into_iter().zip(&spec.layers).map(|(layer, spec)| split(layer, spec));
    let (layers, prepared): (Vec<_>, Vec<Arc<Prepared>>) = layers.unzip();
    let projection = projection.into_option().zip(spec.projection.as_ref()).map(|(layer, spec)| split(layer, spec));
    let (projection, prepared_projection) = projection.unzip();
    let numbers = BlockNumbers::with_layers(input, shortcut, pre, projection, layers, spec);
    let (pre, preactivation) = numbers.preactivate();
    let p = pre.as_deref().unwrap_or(numbers.input.slice());
    let projected = numbers.projection(p).zip(prepared_projection).map(|(path, weight)| path.infer(level, &[weight]));
    let around = projected.as_deref().unwrap_or_default();
    let output = numbers.path(p, numbers.around(around)).infer(level, &prepared);
    let statistics = BlockStatistics { preactivation, projection: None, layers: vec![None; prepared.len()] };
    BlockOutput { output: numbers.output::<B>(output), statistics }
}

/// The backward pass of a block.
#[derive(Debug)]
pub(super) struct BlockBackward;

#[derive(Clone, Debug)]
pub(super) struct State {
    numbers: BlockNumbers,
    output: Numbers,
    /// What the main path read, unless that is the input or computed again.
    preactivated: Option<Arc<Buffer>>,
    pre_statistics: Option<Statistics>,
    projection: Option<Saved>,
    saved: Saved,
    /// The shapes of the projection's weight, if there is one, and of each layer's.
    weights: Vec<Vec<usize>>,
}

/// Input, shortcut, γ and β of the norm before, and weight, γ and β of the projection and three layers.
const PARENTS: usize = 16;

impl<B: Host> Backward<B, PARENTS> for BlockBackward {
    type State = State;

    fn backward(self, ops: Ops<State, PARENTS>, grads: &mut BurnGradients, _: &mut Checkpointer) {
        let level = Level::detect();
        let dy = image_numbers::<B>(grads.consume::<B>(&ops.node));
        let State { numbers, output, preactivated, pre_statistics, projection, saved, weights } = ops.state;
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let [input, shortcut, gain, bias, projection_nodes @ .., w1, g1, b1, w2, g2, b2, w3, g3, b3] = parents;
        let layer_nodes = [w1, g1, b1, w2, g2, b2, w3, g3, b3];
        let any = |nodes: &[Option<NodeId>]| nodes.iter().any(Option::is_some);
        let (trains_pre, trains_projection) = (gain.is_some() || bias.is_some(), any(&projection_nodes));
        let recomputed = match (&preactivated, numbers.normalize()) {
            (None, Some(normalize)) => Some(Arc::new(normalize.forward(level).0)),
            _ => preactivated,
        };
        let p = recomputed.as_ref().map_or(numbers.input.slice(), |buffer| buffer);
        let through = input.is_some() || trains_pre;
        let adds_input = numbers.adds_input();
        let wanted = Wanted {
            input: through,
            shortcut: match numbers.spec.around {
                Around::Tensor(_) => shortcut.is_some(),
                Around::Projection(_) => trains_projection || through,
                Around::Input(..) => adds_input && input.is_some(),
                Around::None => false,
            },
            parameters: any(&layer_nodes),
        };
        // The backward pass reads the length of what was added, not its values: the output has that length.
        let around = match numbers.spec.around {
            Around::Tensor(strength) | Around::Projection(strength) => {
                Shortcut::Tensor { values: output.slice(), strength }
            }
            _ => numbers.around(&[]),
        };
        let gradients = numbers.path(p, around).gradients(level, output.slice(), saved, dy.slice(), wanted);
        drop((output, dy));
        let Gradients { input: mut dp, shortcut: dr, layers } = gradients;

        let mut shapes = weights.into_iter();
        let projection_shape = numbers.projection.as_ref().and_then(|_| shapes.next());
        if let (Some(path), Some(saved), Some(dr)) = (numbers.projection(p), projection, &dr) {
            let wanted = Wanted { input: through, shortcut: false, parameters: trains_projection };
            let Gradients { input: more, layers, .. } = path.gradients(level, dr, saved, dr, wanted);
            if let (Some(dp), Some(more)) = (&mut dp, more) {
                add_to(dp, &more);
            }
            register::<B>(grads, &projection_nodes, layers, projection_shape.into_iter());
        }
        if let (Some(normalize), Some(output), Some(dp)) = (numbers.normalize(), &recomputed, &mut dp) {
            let (dx, LayerGradients { gain: d_gain, bias: d_bias, .. }) =
                normalize.gradients(level, output, pre_statistics.as_ref(), dp);
            *dp = dx;
            for (node, values) in [(gain, d_gain), (bias, d_bias)] {
                if let Some(node) = node {
                    let shape = [values.len()];
                    grads.register::<B>(node, B::small_tensor(values, &shape));
                }
            }
        }
        if let (true, Some(dp), Some(dr)) = (adds_input, &mut dp, &dr) {
            add_to(dp, dr);
        }
        if let (Some(node), Some(dx)) = (input, dp) {
            let [_, height, width, channels] = numbers.shape;
            grads.register::<B>(node, numbers.tensor::<B>(dx, [height, width, channels]));
        }
        if let (Some(node), Some(dr)) = (shortcut, dr.filter(|_| matches!(numbers.spec.around, Around::Tensor(_)))) {
            grads.register::<B>(node, numbers.output::<B>(dr));
        }
        register::<B>(grads, &layer_nodes, layers, shapes);
    }
}

/// Registers the gradients of layers, each with the nodes of its weight, γ and β.
fn register<B: Host>(
    grads: &mut BurnGradients,
    nodes: &[Option<NodeId>],
    layers: Vec<LayerGradients>,
    shapes: impl Iterator<Item = Vec<usize>>,
) {
    let mut nodes = nodes.iter();
    for (LayerGradients { weight, gain, bias }, shape) in layers.into_iter().zip(shapes) {
        let channels = [bias.len()];
        let weight = match shape[..] {
            [inputs, outputs] if !weight.is_empty() => {
                gather(&weight, 0, &[inputs, outputs], &[1, inputs as isize]).to_vec()
            }
            _ => weight,
        };
        for (values, shape) in [(weight, &shape[..]), (gain, &channels), (bias, &channels)] {
            if let Some(node) = nodes.next().copied().flatten() {
                grads.register::<B>(node, B::small_tensor(values, shape));
            }
        }
    }
}
