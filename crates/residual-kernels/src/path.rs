//! A main path with its shortcut as one operation: convolutions with their norms, the ReLUs between them, the
//! addition of the shortcut, and the last ReLU.
//!
//! Norms, ReLUs and shortcuts are limited by memory bandwidth, so each image is read and written as few times as
//! possible. In training, the raw output of a convolution is written once. The norm and ReLU are applied when the next
//! layer copies the image into its padded workspace, in the forward pass and again in the backward pass. In the
//! backward pass, a layer reads the output gradient of an image, writes the gradient before the norm to its workspace,
//! and computes the input gradient and the weight gradient from it, all while the image is in cache.
//!
//! A sum over the batch adds the sums of single images in order (for weights, the sums of fixed groups of images), so
//! the result does not depend on the number of threads.

use crate::{
    Buffer, Conv, PreparedWeight, SimdLevel,
    buffer::Scratch,
    elementwise::{Affine, ZeroPad, affine_map, copy_rows, moments, relu_in_place},
    layout::PaddedImage,
    parallel::{for_each, run_in_pool},
    plan::Plan,
    signs::{Signs, write_signs},
    tile::Epilogue,
    winograd::{Kernels, Wide, WideWeight},
};
use std::sync::Arc;

/// The norm of a convolution's output.
#[derive(Clone, Copy, Debug)]
pub enum Norm<'a> {
    /// No norm.
    None,
    /// Batch norm with the mean and variance of the batch.
    Batch {
        /// ε, added to the variance.
        epsilon: f32,
    },
    /// Batch norm with a given mean and variance.
    Running {
        /// The mean of each channel.
        mean: &'a [f32],
        /// The variance of each channel.
        variance: &'a [f32],
        /// ε, added to the variance.
        epsilon: f32,
    },
}

/// The weight of a convolution.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// `[out, in / groups, kernel height, kernel width]`
    OutputsFirst(&'a [f32]),
    /// `[in, out]`, as in Burn's linear layers. The kernel is a single pixel, the stride is 1, there is no padding, and there is
    /// one group.
    InputsFirst(&'a [f32]),
}

impl<'a> Weight<'a> {
    pub(crate) fn values(self) -> &'a [f32] {
        let (Self::OutputsFirst(values) | Self::InputsFirst(values)) = self;
        values
    }

    /// Checks that the weight is that of a convolution.
    ///
    /// # Panics
    /// If its length or the order of its axes does not suit the convolution.
    pub(crate) fn check(self, conv: &Conv) {
        assert_eq!(self.values().len(), conv.weights(), "the weight has the wrong length");
        let is_linear = *conv == Conv::same(conv.channels, 1);
        assert!(
            is_linear || matches!(self, Self::OutputsFirst(_)),
            "only a linear layer has a weight with inputs first"
        );
    }
}

/// A convolution and its norm: `u = γ · (z - mean) / √(variance + ε) + β`, or `u = z + b`.
#[derive(Clone, Copy, Debug)]
pub struct ConvNorm<'a> {
    /// The convolution.
    pub conv: Conv,
    /// The weight. [`Path::infer`] ignores it and uses the prepared weight.
    pub weight: Weight<'a>,
    /// γ; `None` means 1.
    pub gain: Option<&'a [f32]>,
    /// β, or b without a norm; `None` means 0.
    pub bias: Option<&'a [f32]>,
    /// The norm.
    pub norm: Norm<'a>,
}

/// The position of the channels of zeros that a zero-padding shortcut inserts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChannelPadding {
    /// Half of them (rounded down) come before the input's channels, and the rest come after.
    #[default]
    BothSides,
    /// All of them come after the input's channels.
    After,
}

impl ChannelPadding {
    /// The number of channels of zeros before the input's channels, if there are `zeros` in all.
    pub fn before(self, zeros: usize) -> usize {
        match self {
            Self::BothSides => zeros / 2,
            Self::After => 0,
        }
    }
}

/// The term that is added before the last ReLU.
#[derive(Clone, Copy, Debug)]
pub enum Shortcut<'a> {
    /// No shortcut.
    None,
    /// α times the path's input. Where shapes differ, the input is subsampled and padded with channels of zeros.
    Input {
        /// α.
        strength: f32,
        /// The position of the channels of zeros.
        padding: ChannelPadding,
    },
    /// α times a tensor with the output's shape.
    Tensor {
        /// The tensor.
        values: &'a [f32],
        /// α.
        strength: f32,
    },
}

impl Shortcut<'_> {
    pub(crate) fn strength(&self) -> f32 {
        match self {
            Self::None => 0.0,
            Self::Input { strength, .. } | Self::Tensor { strength, .. } => *strength,
        }
    }
}

/// A main path with its shortcut: `y = g(s · F(x) + α · shortcut)`. `F` is a sequence of layers with ReLUs between
/// them.
#[derive(Clone, Debug)]
pub struct Path<'a> {
    /// The layers. There must be at least one.
    pub layers: Vec<ConvNorm<'a>>,
    /// The input x, `[batch, height, width, channels]`.
    pub input: &'a [f32],
    /// The height and width of an input image.
    pub image: [usize; 2],
    /// The factor s of the main path.
    pub scale: f32,
    /// The term `α · shortcut`.
    pub shortcut: Shortcut<'a>,
    /// Whether `g` is the ReLU. Otherwise, it is the identity.
    pub relu: bool,
}

/// The mean and biased variance of each channel of a norm's input `z`, over the `m` pixels of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// `Σ z / m`
    pub mean: Vec<f32>,
    /// `Σ (z - mean)² / m`
    pub variance: Vec<f32>,
}

/// The results of the forward pass that the backward pass reads.
#[derive(Clone, Debug)]
pub struct SavedForBackward {
    /// The batch's statistics for each layer with [`Norm::Batch`]; `None` for other norms.
    pub statistics: Vec<Option<Statistics>>,
    /// The output of each convolution; `None` if the backward pass recomputes them.
    pub(crate) outputs: Option<Vec<Buffer>>,
    /// The signs of the last ReLU's outputs, if the path has it.
    pub(crate) signs: Option<Signs>,
}

/// The gradients that [`Path::gradients`] computes.
#[derive(Clone, Copy, Debug)]
pub struct NeedsGradient {
    /// The gradient of the input, including the part that flows through the shortcut.
    pub input: bool,
    /// The gradient of the tensor of [`Shortcut::Tensor`].
    pub shortcut: bool,
    /// The gradients of each layer's weight, gain and bias.
    pub parameters: bool,
}

/// The gradients of a [`Path`].
#[derive(Debug)]
pub struct Gradients {
    /// The gradient of the input, `[batch, height, width, channels]`.
    pub input: Option<Buffer>,
    /// The gradient of the tensor of [`Shortcut::Tensor`].
    pub shortcut: Option<Buffer>,
    /// The gradients of each layer.
    pub layers: Vec<ConvNormGradients>,
}

/// The gradients of a [`ConvNorm`]. They are empty if they were not requested.
#[derive(Clone, Debug, Default)]
pub struct ConvNormGradients {
    /// The gradient of the weight, in the order of the weight.
    pub weight: Vec<f32>,
    /// The gradient of γ.
    pub gain: Vec<f32>,
    /// The gradient of β, or of b.
    pub bias: Vec<f32>,
}

/// If every output value of a path takes at most this many multiply-adds, the backward pass recomputes the outputs,
/// because storing them costs more.
const MAX_RECOMPUTED_MULTIPLY_ADDS: usize = 32;

/// Layers with fewer multiply-adds than this run on the calling thread, because waking another thread takes longer.
pub(crate) const MIN_PARALLEL_MULTIPLY_ADDS: usize = 1 << 20;

/// Whether the convolution of a batch of `images` is too small to run in parallel.
pub(crate) fn is_small(images: usize, plan: &Plan) -> bool {
    images * plan.output_len() * plan.conv.weights() / plan.conv.channels[1] < MIN_PARALLEL_MULTIPLY_ADDS
}

impl ConvNorm<'_> {
    pub(crate) fn channels(&self) -> usize {
        self.conv.channels[1]
    }

    /// The norm's mean, variance and ε, or `None` without a norm. [`Norm::Batch`] takes the moments from `statistics`.
    fn moments<'b>(&'b self, statistics: Option<&'b Statistics>) -> Option<(&'b [f32], &'b [f32], f32)> {
        match (self.norm, statistics) {
            (Norm::None, _) => None,
            (Norm::Running { mean, variance, epsilon }, _) => Some((mean, variance, epsilon)),
            (Norm::Batch { epsilon }, Some(batch)) => Some((&batch.mean, &batch.variance, epsilon)),
            (Norm::Batch { .. }, None) => panic!("a batch norm needs the batch's statistics"),
        }
    }

    /// The norm as an affine map of each channel. [`Norm::Batch`] takes its moments from `statistics`.
    pub(crate) fn affine(&self, statistics: Option<&Statistics>) -> Affine {
        let channels = self.channels();
        let mut gain = self.gain.map_or_else(|| vec![1.0; channels], <[f32]>::to_vec);
        let bias = self.bias.map_or_else(|| vec![0.0; channels], <[f32]>::to_vec);
        let inverse = self.inverse_deviations(statistics);
        gain.iter_mut().zip(&inverse).for_each(|(gain, inverse)| *gain *= inverse);
        let mean = self.moments(statistics).map_or_else(|| vec![0.0; channels], |(mean, ..)| mean.to_vec());
        Affine { mean, gain, bias }
    }

    /// `1 / √(variance + ε)` of each channel; 1 without a norm.
    pub(crate) fn inverse_deviations(&self, statistics: Option<&Statistics>) -> Vec<f32> {
        let Some((_, variance, epsilon)) = self.moments(statistics) else { return vec![1.0; self.channels()] };
        variance.iter().map(|variance| 1.0 / (variance + epsilon).sqrt()).collect()
    }
}

/// Combines the moments of single images into the statistics of the batch (Chan et al. 1979). `images` holds
/// `[image][mean, sum of squared deviations][channel]`, and an image has `pixels` pixels.
pub(crate) fn combine_moments(images: &[f32], channels: usize, pixels: usize) -> Statistics {
    let count = images.len() / (2 * channels);
    let mut means = vec![0.0f64; channels];
    for image in images.chunks(2 * channels) {
        means.iter_mut().zip(image).for_each(|(total, mean)| *total += f64::from(*mean));
    }
    means.iter_mut().for_each(|mean| *mean /= count as f64);
    let mut squares = vec![0.0f64; channels];
    for image in images.chunks(2 * channels) {
        let (image_means, image_squares) = image.split_at(channels);
        for (c, squares) in squares.iter_mut().enumerate() {
            let deviation = f64::from(image_means[c]) - means[c];
            *squares += f64::from(image_squares[c]) + pixels as f64 * deviation * deviation;
        }
    }
    Statistics {
        mean: means.iter().map(|mean| *mean as f32).collect(),
        variance: squares.iter().map(|squares| (squares / (count * pixels) as f64) as f32).collect(),
    }
}

/// The way the shortcut is added to the output. At most one field is `Some`.
pub(crate) struct ShortcutAdd<'a> {
    /// A tensor with the output's shape, and α.
    pub(crate) tensor: Option<(&'a [f32], f32)>,
    /// The zero-padding of the input, where its shape differs from the output's.
    pub(crate) zero_pad: Option<ZeroPad>,
}

impl ShortcutAdd<'_> {
    /// Adds the zero-padded shortcut to an output image and applies the last ReLU. Does nothing for other shortcuts.
    pub(crate) fn add_zero_padded(&self, level: SimdLevel, path: &Path, image: usize, output: &mut [f32]) {
        let Some(zero_pad) = self.zero_pad else { return };
        let len = path.input.len() / path.batch();
        zero_pad.add(&path.input[image * len..][..len], path.shortcut.strength(), output);
        if path.relu {
            relu_in_place(level, output);
        }
    }
}

/// The input of a layer.
#[derive(Clone, Copy)]
pub(crate) enum LayerInput<'a> {
    /// The path's input.
    PathInput(&'a [f32]),
    /// The raw output of the previous convolution, and the norm to apply before the ReLU.
    ConvOutput(&'a [f32], &'a Affine),
}

impl<'a> LayerInput<'a> {
    /// The values of all images.
    pub(crate) fn values(self) -> &'a [f32] {
        let (Self::PathInput(values) | Self::ConvOutput(values, _)) = self;
        values
    }

    /// One image, if the layer can read it in place.
    pub(crate) fn in_place(self, plan: &Plan, index: usize) -> Option<&'a [f32]> {
        match self {
            Self::PathInput(x) if !plan.input.is_padded() => Some(&x[index * plan.input_len()..][..plan.input_len()]),
            _ => None,
        }
    }

    /// Returns one image if the layer can read it in place. Otherwise, writes the padded image to the workspace and
    /// returns `None`. If the image is a convolution's output, the norm and ReLU are applied to it first.
    pub(crate) fn image(self, level: SimdLevel, plan: &Plan, index: usize, workspace: &mut [f32]) -> Option<&'a [f32]> {
        let direct = self.in_place(plan, index);
        if direct.is_some() {
            return direct;
        }
        let len = plan.input_len();
        let image = index * len..(index + 1) * len;
        let padded = &plan.input;
        match self {
            Self::PathInput(x) => copy_rows(&x[image], padded, workspace),
            Self::ConvOutput(z, affine) => affine_map(level, &z[image], affine, None, true, padded, workspace),
        }
        None
    }
}

/// The height and width of the output of some convolutions, one after the other.
///
/// # Panics
/// If a kernel is larger than the padded image, or a convolution is invalid (see [`Conv::output`]).
pub(crate) fn output_image<'a>(image: [usize; 2], mut convs: impl Iterator<Item = &'a Conv>) -> [usize; 2] {
    let image = convs.try_fold(image, |image, conv| conv.output(image));
    image.expect("the kernel is larger than the padded image")
}

impl Path<'_> {
    /// The plan of each layer.
    pub(crate) fn plans(&self) -> Vec<Arc<Plan>> {
        let mut image = self.image;
        let plans = self.layers.iter().map(|layer| {
            let plan = Plan::of(layer.conv, image);
            image = plan.output;
            plan
        });
        plans.collect()
    }

    /// The number of images.
    pub(crate) fn batch(&self) -> usize {
        let channels = self.layers[0].conv.channels[0];
        self.input.len() / (self.image[0] * self.image[1] * channels)
    }

    /// The height and width of an output image.
    ///
    /// # Panics
    /// If a kernel is larger than the padded image, or a convolution is invalid (see [`Conv::output`]).
    pub fn output_image(&self) -> [usize; 2] {
        output_image(self.image, self.layers.iter().map(|layer| &layer.conv))
    }

    /// Whether the layer with this plan is too small to run in parallel.
    pub(crate) fn is_serial(&self, plan: &Plan) -> bool {
        is_small(self.batch(), plan)
    }

    /// Runs `f(true)` on the calling thread if every layer is too small to run in parallel, and `f(false)` on a thread
    /// of the pool otherwise.
    pub(crate) fn run_in_pool<R: Send>(&self, plans: &[Arc<Plan>], f: impl FnOnce(bool) -> R + Send) -> R {
        if plans.iter().all(|plan| self.is_serial(plan)) { f(true) } else { run_in_pool(|| f(false)) }
    }

    /// The way the shortcut is added to the output.
    ///
    /// # Panics
    /// If zero-padding cannot turn the input's shape into the output's.
    pub(crate) fn shortcut_add(&self, plans: &[Arc<Plan>]) -> ShortcutAdd<'_> {
        let (first, last) = (&plans[0], &plans[plans.len() - 1]);
        let (strength, padding) = match self.shortcut {
            Shortcut::None => return ShortcutAdd { tensor: None, zero_pad: None },
            Shortcut::Tensor { values, strength } => {
                return ShortcutAdd { tensor: Some((values, strength)), zero_pad: None };
            }
            Shortcut::Input { strength, padding } => (strength, padding),
        };
        let channels = [first.conv.channels[0], last.conv.channels[1]];
        if first.input.size == last.output && channels[0] == channels[1] {
            return ShortcutAdd { tensor: Some((self.input, strength)), zero_pad: None };
        }
        let stride = plans.iter().map(|plan| plan.conv.stride).product();
        let subsampled = first.input.size.map(|size| size.div_ceil(stride));
        assert!(
            subsampled == last.output && channels[0] <= channels[1],
            "zero-padding cannot turn the input's shape into the output's"
        );
        let before = padding.before(channels[1] - channels[0]);
        let zero_pad = ZeroPad { columns: [first.input.size[1], last.output[1]], channels, before, stride };
        ShortcutAdd { tensor: None, zero_pad: Some(zero_pad) }
    }

    /// Checks that shapes match.
    ///
    /// # Panics
    /// If shapes do not match.
    pub(crate) fn check(&self, plans: &[Arc<Plan>]) {
        let first = &plans[0];
        assert!(
            self.input.len().is_multiple_of(first.input_len()),
            "the input's length is not a multiple of the image size"
        );
        for (layer, next) in self.layers.iter().zip(&self.layers[1..]) {
            assert_eq!(
                layer.conv.channels[1], next.conv.channels[0],
                "the output channels of a layer must match the input channels of the next layer"
            );
        }
        if let Shortcut::Tensor { values, .. } = self.shortcut {
            assert_eq!(
                values.len(),
                self.batch() * plans[plans.len() - 1].output_len(),
                "the shortcut's tensor must have the length of the output"
            );
        }
    }

    /// Computes the output and the results that [`Self::gradients`] reads: the batch statistics and, with `keep`, the
    /// output of every convolution. Without `keep`, the backward pass recomputes these outputs. An empty batch has an
    /// empty output and NaN statistics.
    ///
    /// # Panics
    /// If shapes do not match.
    pub fn train(&self, level: SimdLevel, keep: bool) -> (Buffer, SavedForBackward) {
        let plans = self.plans();
        self.run_in_pool(&plans, |_| self.train_planned(level, keep, &plans))
    }

    fn train_planned(&self, level: SimdLevel, keep: bool, plans: &[Arc<Plan>]) -> (Buffer, SavedForBackward) {
        self.check(plans);
        let (outputs, statistics, affines) = self.convolve(level, plans, None);
        let last = plans.len() - 1;
        let len = plans[last].output_len();
        let shortcut = self.shortcut_add(plans);
        let affine = scaled(&affines[last], self.scale);
        let rows = PaddedImage::unpadded([1, plans[last].output_pixels()], plans[last].conv.channels[1]);
        let mut y = Buffer::new(self.batch() * len);
        let mut signs = self.relu.then(|| Signs::new(self.batch(), len));
        let mut signs_of_images = signs.as_mut().map(Signs::images_mut);
        let images = y.chunks_mut(len).zip(outputs[last].chunks(len)).enumerate();
        let images = images.map(|image| (image, signs_of_images.as_mut().and_then(Iterator::next)));
        for_each(images, self.is_serial(&plans[last]), |((n, (y, z)), signs)| {
            let addend = shortcut.tensor.map(|(values, strength)| (&values[n * len..][..len], strength));
            affine_map(level, z, &affine, addend, self.relu && shortcut.zero_pad.is_none(), &rows, y);
            shortcut.add_zero_padded(level, self, n, y);
            if let Some(signs) = signs {
                write_signs(level, y, signs);
            }
        });
        drop(signs_of_images);
        let keep = keep && !self.is_cheap_to_recompute();
        (y, SavedForBackward { statistics, outputs: keep.then_some(outputs), signs })
    }

    /// Whether it is cheaper to recompute the outputs of the convolutions than to store them, as in the stem of a
    /// network for small images.
    fn is_cheap_to_recompute(&self) -> bool {
        self.layers.iter().all(|layer| layer.conv.weights() <= MAX_RECOMPUTED_MULTIPLY_ADDS * layer.channels())
    }

    /// For each layer, computes the output of its convolution, the batch's statistics, and the norm as an affine map.
    /// If `known` is given, the statistics are taken from it.
    pub(crate) fn convolve(
        &self,
        level: SimdLevel,
        plans: &[Arc<Plan>],
        known: Option<&[Option<Statistics>]>,
    ) -> (Vec<Buffer>, Vec<Option<Statistics>>, Vec<Affine>) {
        let batch = self.batch();
        let (mut outputs, mut statistics, mut affines) = (Vec::<Buffer>::new(), Vec::new(), Vec::<Affine>::new());
        for (i, (layer, plan)) in self.layers.iter().zip(plans).enumerate() {
            let channels = layer.channels();
            let input = match i {
                0 => LayerInput::PathInput(self.input),
                _ => LayerInput::ConvOutput(&outputs[i - 1], &affines[i - 1]),
            };
            let measured = known.is_none() && matches!(layer.norm, Norm::Batch { .. });
            let mut sums = vec![0.0f32; batch * 2 * channels];
            let len = plan.output_len();
            let mut z = Buffer::new(batch * len);
            let measure = |z: &[f32], sums: &mut [f32]| {
                if measured {
                    let (mean, squares) = sums.split_at_mut(channels);
                    moments(level, z, channels, mean, squares);
                }
            };
            if let Some((tiling, together)) = plan.wide() {
                for (task, (z, sums)) in
                    z.chunks_mut(together * len).zip(sums.chunks_mut(together * 2 * channels)).enumerate()
                {
                    let images: Vec<_> = z.chunks_mut(len).zip(sums.chunks_mut(2 * channels)).collect();
                    let wide = Wide::new(level, tiling, 0..tiling.tiles(), images.len());
                    let input = |n: usize, workspace: &mut [f32]| {
                        input.image(level, plan, task * together + n, workspace);
                    };
                    convolve_wide(&wide, plan, layer.weight.values(), input, images, measure);
                }
            } else {
                let weight = PreparedWeight::new(level, &layer.conv, plan.input.size, layer.weight);
                let size = plan.images_per_task(batch);
                let tasks = z.chunks_mut(size * len).zip(sums.chunks_mut(size * 2 * channels)).enumerate();
                for_each(tasks, self.is_serial(plan), |(task, (z, sums))| {
                    let source = &input.values()[task * size * plan.input_len()..];
                    let input = |n: usize, workspace: &mut [f32]| input.image(level, plan, task * size + n, workspace);
                    weight.convolve(level, plan, source, input, z, |n, z| {
                        measure(z, &mut sums[n * 2 * channels..][..2 * channels]);
                    });
                });
            }
            let known = known.map(|known| known[i].clone());
            let batch_statistics =
                known.unwrap_or_else(|| measured.then(|| combine_moments(&sums, channels, len / channels)));
            affines.push(layer.affine(batch_statistics.as_ref()));
            statistics.push(batch_statistics);
            outputs.push(z);
        }
        (outputs, statistics, affines)
    }
}

/// Computes the outputs of some images with [`Wide`]. `input` writes a padded image to its workspace. `done` is called with every
/// output and its sums.
fn convolve_wide(
    wide: &Wide,
    plan: &Plan,
    weight: &[f32],
    input: impl Fn(usize, &mut [f32]) + Sync + Send,
    mut images: Vec<(&mut [f32], &mut [f32])>,
    done: impl Fn(&[f32], &mut [f32]) + Sync + Send,
) {
    let [inputs, outputs] = plan.conv.channels;
    let mut scratch = Scratch::new([images.len() * plan.input.workspace_len(), wide.transform_len(inputs)]);
    let [workspaces, from] = scratch.slices();
    let mut workspaces = plan.input.workspaces(workspaces);
    for_each(workspaces.iter_mut().enumerate(), false, |(i, workspace)| input(i, workspace));
    let inputs: Vec<&[f32]> = workspaces.iter().map(|image| &**image).collect();
    wide.transform_inputs(&plan.input, &inputs, from);
    let (weight, target) = (Kernels::OutputsFirst(weight), PaddedImage::unpadded(plan.output, outputs));
    let to = images.iter_mut().map(|(z, _)| &mut **z).collect();
    wide.convolve(WideWeight::Kernels(weight), from, |_| Epilogue::default(), &target, to);
    for_each(images.into_iter(), false, |(z, sums)| done(z, sums));
}

fn scaled(affine: &Affine, scale: f32) -> Affine {
    let times = |values: &[f32]| values.iter().map(|v| scale * v).collect();
    Affine { mean: affine.mean.clone(), gain: times(&affine.gain), bias: times(&affine.bias) }
}
