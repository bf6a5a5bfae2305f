//! A block as one operation: convolutions with their norms, ReLUs between them, the shortcut, the last
//! ReLU.
//!
//! What a tensor costs is the trips to memory, so each image makes few. In training the output of a
//! convolution is written once, raw; its norm and ReLU are computed where the next layer copies the
//! image into its padded workspace, in the forward pass and again in the backward one. A layer's
//! backward pass reads an image's gradient, makes the gradient through the norm in the workspace, and
//! from there both the input gradient and the weight gradient, while all of it is in cache.
//!
//! Sums over a batch are made of sums over images (or of fixed groups of images, for weights), added
//! in the order of the images: the number of threads changes nothing.

use crate::{
    Buffer, Conv, Level,
    conv::Plan,
    elementwise::{
        Affine, NormGradient, ZeroPad, add_gradient, copy_rows, finish, gradient_sums, moments, norm_gradient_rows,
        normalize_rows, rectified_gradient_sums, rectify,
    },
    inference::Prepared,
    tile::{Epilogue, Products, Sums},
    winograd,
};
use rayon::prelude::*;
use std::sync::Arc;

/// How the output of a convolution is normalised.
#[derive(Clone, Copy, Debug)]
pub enum Norm<'a> {
    /// Not at all.
    None,
    /// By mean and variance of the batch.
    Batch {
        /// ε, added to the variance.
        epsilon: f32,
    },
    /// By a given mean and variance.
    Running {
        /// One number a channel.
        mean: &'a [f32],
        /// One number a channel.
        variance: &'a [f32],
        /// ε, added to the variance.
        epsilon: f32,
    },
}

/// A convolution and its norm: `u = γ · (z - mean) / √(variance + ε) + β`, or `u = z + b`.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The convolution.
    pub conv: Conv,
    /// `[out, in / groups, kernel height, kernel width]`
    pub weight: &'a [f32],
    /// γ; 1 if there is none.
    pub gain: Option<&'a [f32]>,
    /// β, or b; 0 if there is none.
    pub bias: Option<&'a [f32]>,
    /// The norm.
    pub norm: Norm<'a>,
}

/// What is added before the last ReLU.
#[derive(Clone, Copy, Debug)]
pub enum Shortcut<'a> {
    /// Nothing.
    None,
    /// α times the path's input; where shapes differ, subsampled and with zeros for the channels it lacks,
    /// half of them before and half after.
    Input {
        /// α.
        strength: f32,
    },
    /// α times a tensor of the output's shape.
    Tensor {
        /// The tensor.
        values: &'a [f32],
        /// α.
        strength: f32,
    },
}

impl Shortcut<'_> {
    fn strength(&self) -> f32 {
        match self {
            Self::None => 0.0,
            Self::Input { strength } | Self::Tensor { strength, .. } => *strength,
        }
    }
}

/// `y = g(s · F(x) + α · shortcut)`, where `F` is a row of layers with ReLUs between them.
#[derive(Clone, Debug)]
pub struct Path<'a> {
    /// The layers, at least one.
    pub layers: Vec<Layer<'a>>,
    /// `[batch, height, width, channels]`
    pub input: &'a [f32],
    /// Height and width of an input image.
    pub image: [usize; 2],
    /// s.
    pub scale: f32,
    /// What is added.
    pub shortcut: Shortcut<'a>,
    /// Whether `g` is the ReLU, or the identity.
    pub relu: bool,
}

/// Mean and (biased) variance of a layer's convolution output over a batch, of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// `Σ z / m`
    pub mean: Vec<f32>,
    /// `Σ (z - mean)² / m`
    pub variance: Vec<f32>,
}

/// What the backward pass needs to know of the forward one.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The statistics of each layer, those of a [`Norm::Batch`] from the batch.
    pub statistics: Vec<Option<Statistics>>,
    /// The output of each convolution; none if the backward pass is to compute them again.
    outputs: Option<Vec<Buffer>>,
}

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// That of the input, the way over the shortcut included.
    pub input: bool,
    /// That of the shortcut's tensor.
    pub shortcut: bool,
    /// Those of each layer's weight, gain and bias.
    pub parameters: bool,
}

/// The gradients of a [`Path`].
#[derive(Debug)]
pub struct Gradients {
    /// Of the input, `[batch, height, width, channels]`.
    pub input: Option<Buffer>,
    /// Of the shortcut's tensor.
    pub shortcut: Option<Buffer>,
    /// Of each layer.
    pub layers: Vec<LayerGradients>,
}

/// The gradients of a [`Layer`]; empty if they were not wanted.
#[derive(Clone, Debug, Default)]
pub struct LayerGradients {
    /// `[out, in / groups, kernel height, kernel width]`
    pub weight: Vec<f32>,
    /// Of γ.
    pub gain: Vec<f32>,
    /// Of β or b.
    pub bias: Vec<f32>,
}

/// Multiply-adds of an output number that is computed again sooner than kept.
const CHEAP: usize = 32;

/// Work below this many multiply-adds is done by the calling thread alone: waking another takes longer.
const ALONE: usize = 1 << 20;

/// Groups of images whose weight gradients are summed apart, and the memory that these may take.
const GROUPS: usize = 32;
const GROUP_MEMORY: usize = 16 << 20;

/// Whether a convolution of so many images is.
pub(crate) fn is_small(images: usize, plan: &Plan) -> bool {
    images * plan.output_len() * plan.conv.weights() / plan.conv.channels[1] < ALONE
}

/// Runs `f` on a thread of the pool, unless it needs no other: from there on the threads hand work to each other
/// without the calling thread's going to sleep and waking for each of its parts.
pub(crate) fn together<R: Send>(alone: bool, f: impl FnOnce() -> R + Send) -> R {
    if alone { f() } else { rayon::scope(|_| f()) }
}

/// Calls `f` for each item, on all cores unless there is little to do.
pub(crate) fn each<T: Send>(items: impl Iterator<Item = T>, alone: bool, f: impl Fn(T) + Sync + Send) {
    if alone {
        return items.for_each(f);
    }
    items.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(f);
}

impl Layer<'_> {
    fn channels(&self) -> usize {
        self.conv.channels[1]
    }

    /// What the norm does, given the batch's statistics.
    pub(crate) fn affine(&self, statistics: Option<&Statistics>) -> Affine {
        let channels = self.channels();
        let gain = self.gain.map_or_else(|| vec![1.0; channels], <[f32]>::to_vec);
        let bias = self.bias.map_or_else(|| vec![0.0; channels], <[f32]>::to_vec);
        let (mean, variance, epsilon) = match (self.norm, statistics) {
            (Norm::None, _) => return Affine { mean: vec![0.0; channels], gain, bias },
            (Norm::Running { mean, variance, epsilon }, _) => (mean, variance, epsilon),
            (Norm::Batch { epsilon }, Some(batch)) => (&batch.mean[..], &batch.variance[..], epsilon),
            (Norm::Batch { .. }, None) => panic!("a batch norm without the batch's statistics"),
        };
        let gain = gain.iter().zip(variance).map(|(gain, variance)| gain * inverse_deviation(*variance, epsilon));
        Affine { mean: mean.to_vec(), gain: gain.collect(), bias }
    }

    /// `1 / √(variance + ε)` of each channel; 1 without a norm.
    fn inverse_deviations(&self, statistics: Option<&Statistics>) -> Vec<f32> {
        let of = |variance: &[f32], epsilon: f32| variance.iter().map(|v| inverse_deviation(*v, epsilon)).collect();
        match (self.norm, statistics) {
            (Norm::None, _) => vec![1.0; self.channels()],
            (Norm::Running { variance, epsilon, .. }, _) => of(variance, epsilon),
            (Norm::Batch { epsilon }, Some(batch)) => of(&batch.variance, epsilon),
            (Norm::Batch { .. }, None) => panic!("a batch norm without the batch's statistics"),
        }
    }
}

fn inverse_deviation(variance: f32, epsilon: f32) -> f32 {
    1.0 / (variance + epsilon).sqrt()
}

/// Mean and variance of a batch from those of its images (Chan et al. 1979).
fn combine(images: &[f32], channels: usize, pixels: usize) -> Statistics {
    let count = images.len() / (2 * channels);
    let of = |c: usize| {
        let mean = |i: usize| f64::from(images[i * 2 * channels + c]);
        let squares = |i: usize| f64::from(images[i * 2 * channels + channels + c]);
        let total = (0..count).map(mean).sum::<f64>() / count as f64;
        let spread = (0..count).map(|i| squares(i) + pixels as f64 * (mean(i) - total).powi(2)).sum::<f64>();
        (total as f32, (spread / (count * pixels) as f64) as f32)
    };
    let (mean, variance) = (0..channels).map(of).unzip();
    Statistics { mean, variance }
}

/// What a layer reads.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The path's input.
    Input(&'a [f32]),
    /// The output of the convolution before, still to be normalised.
    Raw(&'a [f32], &'a Affine),
}

impl<'a> Source<'a> {
    /// Calls `f` with an image as the layer reads it: normalised and padded, in the workspace where need be.
    pub(crate) fn image(self, level: Level, plan: &Plan, index: usize, workspace: &mut [f32]) -> Option<&'a [f32]> {
        let len = plan.input_len();
        let image = index * len..(index + 1) * len;
        let padded = &plan.input;
        match self {
            Self::Input(x) if !padded.is_padded() => return Some(&x[image]),
            Self::Input(x) => copy_rows(&x[image], padded, workspace),
            Self::Raw(z, affine) => normalize_rows(level, &z[image], affine, padded, workspace),
        }
        None
    }
}

impl Path<'_> {
    pub(crate) fn plans(&self) -> Vec<Arc<Plan>> {
        let mut image = self.image;
        let plans = self.layers.iter().map(|layer| {
            let plan = Plan::of(layer.conv, image);
            image = plan.output;
            plan
        });
        plans.collect()
    }

    pub(crate) fn batch(&self) -> usize {
        let channels = self.layers[0].conv.channels[0];
        self.input.len() / (self.image[0] * self.image[1] * channels)
    }

    /// Height and width of an output image.
    ///
    /// # Panics
    /// If a kernel is larger than its padded image.
    pub fn output_image(&self) -> [usize; 2] {
        let output = |image, layer: &Layer| layer.conv.output(image).expect("the kernel is larger than its image");
        self.layers.iter().fold(self.image, output)
    }

    fn alone(&self, plan: &Plan) -> bool {
        is_small(self.batch(), plan)
    }

    /// The shortcut's zero padding, if it needs one.
    pub(crate) fn zero_pad(&self, plans: &[Arc<Plan>]) -> Option<ZeroPad> {
        let (first, last) = (&plans[0], &plans[plans.len() - 1]);
        let channels = [first.conv.channels[0], last.conv.channels[1]];
        let stride = plans.iter().map(|plan| plan.conv.stride).product();
        let same = first.input.size == last.output && channels[0] == channels[1];
        let pads = matches!(self.shortcut, Shortcut::Input { .. }) && !same;
        pads.then(|| {
            let subsampled = first.input.size.map(|size| size.div_ceil(stride));
            assert!(
                subsampled == last.output && channels[0] <= channels[1],
                "the input cannot be padded to the output"
            );
            ZeroPad { columns: [first.input.size[1], last.output[1]], channels, stride }
        })
    }

    /// The tensor of the output's shape that is added, if any.
    pub(crate) fn addend(&self, zero_pad: Option<ZeroPad>) -> Option<(&[f32], f32)> {
        match self.shortcut {
            Shortcut::Input { strength } if zero_pad.is_none() => Some((self.input, strength)),
            Shortcut::Tensor { values, strength } => Some((values, strength)),
            _ => None,
        }
    }

    pub(crate) fn check(&self, plans: &[Arc<Plan>]) {
        let first = &plans[0];
        assert!(self.input.len().is_multiple_of(first.input_len()), "the input has not the images' shape");
        for (one, next) in self.layers.iter().zip(&self.layers[1..]) {
            assert_eq!(one.conv.channels[1], next.conv.channels[0], "a layer's channels");
        }
        if let Shortcut::Tensor { values, .. } = self.shortcut {
            assert_eq!(values.len(), self.batch() * plans[plans.len() - 1].output_len(), "the shortcut's shape");
        }
    }

    /// The output, and what [`Self::gradients`] needs: with `keep` the output of every convolution, without
    /// it only the statistics, and the backward pass computes the rest again.
    ///
    /// # Panics
    /// If shapes do not agree.
    pub fn train(&self, level: Level, keep: bool) -> (Buffer, Saved) {
        let plans = self.plans();
        together(plans.iter().all(|plan| self.alone(plan)), || self.train_planned(level, keep, &plans))
    }

    fn train_planned(&self, level: Level, keep: bool, plans: &[Arc<Plan>]) -> (Buffer, Saved) {
        self.check(plans);
        let (outputs, statistics, affines) = self.convolve(level, plans, None);
        let last = plans.len() - 1;
        let len = plans[last].output_len();
        let zero_pad = self.zero_pad(plans);
        let addend = self.addend(zero_pad);
        let affine = scaled(&affines[last], self.scale);
        let mut y = Buffer::new(self.batch() * len);
        let input_len = plans[0].input_len();
        each(y.chunks_mut(len).zip(outputs[last].chunks(len)).enumerate(), self.alone(&plans[last]), |(n, (y, z))| {
            let other = addend.map(|(values, strength)| (&values[n * len..][..len], strength));
            finish(level, z, &affine, other, self.relu && zero_pad.is_none(), y);
            if let Some(zero_pad) = zero_pad {
                zero_pad.add(&self.input[n * input_len..][..input_len], self.shortcut.strength(), y);
                if self.relu {
                    rectify(level, y);
                }
            }
        });
        let keep = keep && !self.is_cheap();
        (y, Saved { statistics, outputs: keep.then_some(outputs) })
    }

    /// Whether the outputs of the convolutions cost less to compute again than to keep, as in a stem of images.
    fn is_cheap(&self) -> bool {
        self.layers.iter().all(|layer| layer.conv.weights() <= CHEAP * layer.channels())
    }

    /// The output of each convolution, with the batch's statistics and what its norm does. Statistics are
    /// not computed again if given.
    fn convolve(
        &self,
        level: Level,
        plans: &[Arc<Plan>],
        known: Option<&[Option<Statistics>]>,
    ) -> (Vec<Buffer>, Vec<Option<Statistics>>, Vec<Affine>) {
        let batch = self.batch();
        let (mut outputs, mut statistics, mut affines) = (Vec::<Buffer>::new(), Vec::new(), Vec::<Affine>::new());
        for (i, (layer, plan)) in self.layers.iter().zip(plans).enumerate() {
            let channels = layer.channels();
            let weight = Prepared::new(&layer.conv, layer.weight);
            let source = match i {
                0 => Source::Input(self.input),
                _ => Source::Raw(&outputs[i - 1], &affines[i - 1]),
            };
            let measured = known.is_none() && matches!(layer.norm, Norm::Batch { .. });
            let mut sums = vec![0.0f32; batch * 2 * channels];
            let len = plan.output_len();
            let mut z = Buffer::new(batch * len);
            let images = z.chunks_mut(len).zip(sums.chunks_mut(2 * channels)).enumerate();
            each(images, self.alone(plan), |(n, (z, sums))| {
                let mut workspace = plan.input.workspace();
                let direct = source.image(level, plan, n, &mut workspace);
                weight.convolve(level, plan, direct.unwrap_or(&workspace), z);
                if measured {
                    let (mean, squares) = sums.split_at_mut(channels);
                    moments(level, z, channels, mean, squares);
                }
            });
            let known = known.map(|known| known[i].clone());
            let batch_statistics = known.unwrap_or_else(|| measured.then(|| combine(&sums, channels, len / channels)));
            affines.push(layer.affine(batch_statistics.as_ref()));
            statistics.push(batch_statistics);
            outputs.push(z);
        }
        (outputs, statistics, affines)
    }

    /// The gradients, from `output` and that of it.
    ///
    /// # Panics
    /// If shapes do not agree, or `saved` is of another path.
    pub fn gradients(&self, level: Level, output: &[f32], saved: Saved, dy: &[f32], wanted: Wanted) -> Gradients {
        let plans = self.plans();
        let alone = plans.iter().all(|plan| self.alone(plan));
        together(alone, || self.gradients_planned(level, output, saved, dy, wanted, &plans))
    }

    fn gradients_planned(
        &self,
        level: Level,
        output: &[f32],
        saved: Saved,
        dy: &[f32],
        wanted: Wanted,
        plans: &[Arc<Plan>],
    ) -> Gradients {
        self.check(plans);
        let batch = self.batch();
        let last = plans.len() - 1;
        assert_eq!(dy.len(), batch * plans[last].output_len(), "the shape of the output's gradient");
        assert_eq!(output.len(), dy.len(), "the output's shape");
        let Saved { statistics, outputs } = saved;
        let mut outputs = outputs.unwrap_or_else(|| self.convolve(level, plans, Some(&statistics)).0);
        let y = self.relu.then_some(output);

        let shortcut = (wanted.shortcut && matches!(self.shortcut, Shortcut::Tensor { .. })).then(|| {
            let len = plans[last].output_len();
            let mut shortcut = Buffer::zeros(dy.len());
            each(shortcut.chunks_mut(len).enumerate(), self.alone(&plans[last]), |(n, gradient)| {
                let image = n * len..(n + 1) * len;
                add_gradient(level, &dy[image.clone()], y.map(|y| &y[image]), self.shortcut.strength(), gradient);
            });
            shortcut
        });

        // Σ g and Σ g · (z - mean), where g is the gradient of the last norm's output.
        let means = |i: usize| self.layers[i].affine(statistics[i].as_ref()).mean;
        let mut sums = self.last_sums(level, &plans[last], &outputs[last], &means(last), dy, y);
        let mut g: Option<Buffer> = None;
        let mut layers = vec![LayerGradients::default(); plans.len()];
        for i in (0..plans.len()).rev() {
            let (layer, plan) = (&self.layers[i], &plans[i]);
            let statistics_of = statistics[i].as_ref();
            let (totals, norm) = norm_gradient(layer, statistics_of, &sums, batch * plan.output[0] * plan.output[1]);
            if wanted.parameters {
                let inverse = layer.inverse_deviations(statistics_of);
                let channels = layer.channels();
                layers[i].bias = totals[..channels].iter().map(|total| *total as f32).collect();
                let gains = totals[channels..]
                    .iter()
                    .zip(&inverse)
                    .map(|(total, inverse)| (total * f64::from(*inverse)) as f32);
                layers[i].gain = gains.collect();
            }
            let z = outputs.pop().expect("an output for every layer");
            let before = (i > 0).then(|| self.layers[i - 1].affine(statistics[i - 1].as_ref()));
            let source = match &before {
                Some(affine) => Source::Raw(&outputs[i - 1], affine),
                None => Source::Input(self.input),
            };
            let step = BackwardLayer {
                path: self,
                plan,
                level,
                source,
                norm: &norm,
                gradient: match &g {
                    Some(g) => (g, None, 1.0),
                    None => (dy, y, self.scale),
                },
                weighted: wanted.parameters,
                through: i > 0 || wanted.input,
                around: (i == 0 && wanted.input).then_some((dy, y)),
                zero_pad: self.zero_pad(plans),
            };
            let (weight, below, below_sums) = step.run(layer.weight, z);
            layers[i].weight = weight;
            sums = below_sums;
            g = below;
        }
        Gradients { input: g.filter(|_| wanted.input), shortcut, layers }
    }

    fn last_sums(&self, level: Level, plan: &Plan, z: &[f32], mean: &[f32], dy: &[f32], y: Option<&[f32]>) -> Vec<f32> {
        let (len, channels) = (plan.output_len(), mean.len());
        let mut sums = vec![0.0f32; self.batch() * 2 * channels];
        each(sums.chunks_mut(2 * channels).enumerate(), self.alone(plan), |(n, sums)| {
            let image = n * len..(n + 1) * len;
            let (sums, products) = sums.split_at_mut(channels);
            let y = y.map(|y| &y[image.clone()]);
            gradient_sums(level, &dy[image.clone()], y, &z[image], mean, self.scale, sums, products);
        });
        sums
    }
}

fn scaled(affine: &Affine, scale: f32) -> Affine {
    let times = |values: &[f32]| values.iter().map(|v| scale * v).collect();
    Affine { mean: affine.mean.clone(), gain: times(&affine.gain), bias: times(&affine.bias) }
}

/// The gradient through a norm (Ioffe & Szegedy 2015, section 3), and the sums over the batch it is made
/// of: `Σ g` of each channel, then `Σ g · (z - mean)`.
fn norm_gradient(
    layer: &Layer,
    statistics: Option<&Statistics>,
    images: &[f32],
    count: usize,
) -> (Vec<f64>, NormGradient) {
    let channels = layer.channels();
    let mut totals = vec![0.0f64; 2 * channels];
    for image in images.chunks(2 * channels) {
        totals.iter_mut().zip(image).for_each(|(total, sum)| *total += f64::from(*sum));
    }
    let Affine { mean, gain, .. } = layer.affine(statistics);
    let (mut slope, mut offset) = (vec![0.0; channels], vec![0.0; channels]);
    if matches!(layer.norm, Norm::Batch { .. }) {
        let inverse = layer.inverse_deviations(statistics);
        for c in 0..channels {
            let (gain, inverse) = (f64::from(gain[c]), f64::from(inverse[c]));
            offset[c] = (-gain * totals[c] / count as f64) as f32;
            slope[c] = (-gain * inverse * inverse * totals[channels + c] / count as f64) as f32;
        }
    }
    (totals, NormGradient { mean, gain, slope, offset })
}

/// A weight as the input gradient reads it.
enum Transposed {
    /// For the classes of [`Plan::backward`].
    Sums(Buffer),
    /// Of the convolution with turned kernels.
    Winograd(Arc<Plan>, Prepared),
}

impl Transposed {
    fn new(plan: &Plan, weight: &[f32]) -> Self {
        if winograd::suits(&plan.conv) {
            let conv = winograd::transposed(plan.conv);
            let weight = winograd::transposed_weight(&plan.conv, weight);
            return Self::Winograd(Plan::of(conv, plan.output), Prepared::new(&conv, &weight));
        }
        let mut packed = Buffer::new(plan.packed_transposed_len());
        plan.pack_transposed(weight, &mut packed);
        Self::Sums(packed)
    }

    /// The gradient of an input image, from the padded gradient of its output.
    fn convolve(&self, level: Level, plan: &Plan, dz: &[f32], below: &mut [f32]) {
        let packed = match self {
            Self::Winograd(plan, weight) => return weight.convolve(level, plan, dz, below),
            Self::Sums(packed) => packed,
        };
        let [inputs, outputs] = plan.conv.group_channels();
        for (class, packed) in plan.classes(packed) {
            let group_len = packed.len() / plan.conv.groups;
            for group in 0..plan.conv.groups {
                let sums = Sums {
                    x: &dz[group * outputs..],
                    pixels: &class.pixels,
                    runs: &class.runs,
                    weights: &packed[group * group_len..][..group_len],
                    channels: inputs,
                    epilogue: Epilogue::default(),
                };
                sums.compute(level, &mut below[group * inputs..], 0);
            }
        }
    }
}

/// One layer's part of the backward pass.
struct BackwardLayer<'a> {
    path: &'a Path<'a>,
    plan: &'a Plan,
    level: Level,
    source: Source<'a>,
    norm: &'a NormGradient,
    /// The gradient of the norm's output: numbers, the output of the ReLU they still have to pass, a factor.
    gradient: (&'a [f32], Option<&'a [f32]>, f32),
    /// Whether the weight's gradient is wanted.
    weighted: bool,
    /// Whether the input's gradient is.
    through: bool,
    /// At the first layer: the output's gradient, which also comes around the path.
    around: Option<(&'a [f32], Option<&'a [f32]>)>,
    zero_pad: Option<ZeroPad>,
}

impl BackwardLayer<'_> {
    /// The weight's gradient; that of the layer before's norm output (or of the path's input); and its
    /// sums for each image.
    fn run(&self, weight: &[f32], z: Buffer) -> (Vec<f32>, Option<Buffer>, Vec<f32>) {
        let Self { path, plan, .. } = *self;
        let batch = path.batch();
        let (in_len, out_len) = (plan.input_len(), plan.output_len());
        let inputs = plan.conv.channels[0];
        let packed_len = plan.conv.packed_len();
        let transposed = self.through.then(|| Transposed::new(plan, weight));
        let most = (GROUP_MEMORY / (4 * packed_len)).clamp(1, GROUPS);
        let size = batch.div_ceil(most).max(1);
        let groups = batch.div_ceil(size);
        let mut weights = Buffer::zeros(if self.weighted { groups * packed_len } else { 0 });
        let mut sums = vec![0.0f32; batch * 2 * inputs];
        // The output of the layer, read for the last time, makes room for the gradient of its input.
        let in_place = self.through && in_len == out_len;
        let mut z = z;
        let mut below = Buffer::new(if self.through && !in_place { batch * in_len } else { 0 });
        {
            let mut z_groups = z.chunks_mut(size * out_len);
            let mut below_groups = below.chunks_mut(size * in_len);
            let mut weight_groups = weights.chunks_mut(packed_len);
            let sum_groups = sums.chunks_mut(size * 2 * inputs).enumerate();
            let tasks: Vec<_> = sum_groups
                .map(|(group, sums)| {
                    let z = z_groups.next().expect("a group of outputs");
                    (group * size, sums, z, below_groups.next(), weight_groups.next())
                })
                .collect();
            each(tasks.into_iter(), path.alone(plan), |(first, sums, z, mut below, mut weights)| {
                let (mut a, mut dz) = (plan.input.workspace(), plan.gradient.workspace());
                for (i, (z, sums)) in z.chunks_mut(out_len).zip(sums.chunks_mut(2 * inputs)).enumerate() {
                    let below = below.as_mut().map(|below| &mut below[i * in_len..][..in_len]);
                    self.image(first + i, z, below, &mut a, &mut dz, transposed.as_ref(), weights.as_deref_mut(), sums);
                }
            });
        }
        let mut gradient = Vec::new();
        if self.weighted {
            gradient = vec![0.0; plan.conv.weights()];
            let (sum, groups) = weights.split_at_mut(packed_len);
            for group in groups.chunks(packed_len) {
                add_gradient(self.level, group, None, 1.0, sum);
            }
            plan.unpack(sum, &mut gradient);
        }
        (gradient, self.through.then_some(if in_place { z } else { below }), sums)
    }

    #[expect(clippy::too_many_arguments, reason = "one image's share of `run`")]
    fn image(
        &self,
        n: usize,
        z: &mut [f32],
        below: Option<&mut [f32]>,
        a: &mut [f32],
        dz: &mut [f32],
        transposed: Option<&Transposed>,
        weights: Option<&mut [f32]>,
        sums: &mut [f32],
    ) {
        let Self { plan, level, .. } = *self;
        let (in_len, out_len) = (plan.input_len(), plan.output_len());
        let [inputs, outputs] = plan.conv.group_channels();
        let (g, y, scale) = self.gradient;
        let image = n * out_len..(n + 1) * out_len;
        let y = y.map(|y| &y[image.clone()]);
        norm_gradient_rows(level, &g[image.clone()], y, z, self.norm, scale, &plan.gradient, dz);
        let raw = matches!(self.source, Source::Raw(..));
        let direct = if self.weighted || raw { self.source.image(level, plan, n, a) } else { None };
        let x = direct.unwrap_or(a);
        if let Some(weights) = weights {
            let group_len = plan.conv.packed_len() / plan.conv.groups;
            for (group, weights) in weights.chunks_mut(group_len).enumerate() {
                let products = Products {
                    x: &x[group * inputs..],
                    d: &dz[group * outputs..],
                    pixels: &plan.products,
                    runs: &plan.forward.runs,
                    channels: outputs,
                };
                products.add_to(level, weights);
            }
        }
        let Some(transposed) = transposed else { return };
        let below = below.unwrap_or(z);
        transposed.convolve(level, plan, dz, below);
        if let Source::Raw(z, affine) = self.source {
            let (sums, products) = sums.split_at_mut(plan.conv.channels[0]);
            let z = &z[n * in_len..][..in_len];
            rectified_gradient_sums(level, below, x, &plan.input, z, &affine.mean, sums, products);
        }
        if let Some((dy, y)) = self.around
            && matches!(self.path.shortcut, Shortcut::Input { .. })
        {
            let len = dy.len() / self.path.batch();
            let image = n * len..(n + 1) * len;
            let (dy, y) = (&dy[image.clone()], y.map(|y| &y[image]));
            let strength = self.path.shortcut.strength();
            match self.zero_pad {
                None => add_gradient(level, dy, y, strength, below),
                Some(zero_pad) => zero_pad.add_gradient(level, dy, y, strength, below),
            }
        }
    }
}
