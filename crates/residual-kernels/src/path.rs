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
    Buffer, Conv, Level, Prepared,
    conv::Plan,
    elementwise::{Affine, ZeroPad, copy_rows, finish, moments, normalize_rows, rectify},
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
    /// `[out, in / groups, kernel height, kernel width]`; [`Path::infer`] reads it prepared, and not here.
    pub weight: &'a [f32],
    /// γ; 1 if there is none.
    pub gain: Option<&'a [f32]>,
    /// β, or b; 0 if there is none.
    pub bias: Option<&'a [f32]>,
    /// The norm.
    pub norm: Norm<'a>,
}

/// Where a zero-padded shortcut has the channels that its input lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChannelPadding {
    /// Half of them before the input's channels, rounded down, and the rest after.
    #[default]
    BothSides,
    /// All of them after the input's channels.
    After,
}

impl ChannelPadding {
    /// How many of `zeros` channels come before the input's.
    pub fn before(self, zeros: usize) -> usize {
        match self {
            Self::BothSides => zeros / 2,
            Self::After => 0,
        }
    }
}

/// What is added before the last ReLU.
#[derive(Clone, Copy, Debug)]
pub enum Shortcut<'a> {
    /// Nothing.
    None,
    /// α times the path's input; where shapes differ, subsampled and with zeros for the channels it lacks.
    Input {
        /// α.
        strength: f32,
        /// Where those channels are.
        padding: ChannelPadding,
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
    pub(crate) fn strength(&self) -> f32 {
        match self {
            Self::None => 0.0,
            Self::Input { strength, .. } | Self::Tensor { strength, .. } => *strength,
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
    pub(crate) outputs: Option<Vec<Buffer>>,
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

/// Whether a convolution of so many images is.
pub(crate) fn is_small(images: usize, plan: &Plan) -> bool {
    images * plan.output_len() * plan.conv.weights() / plan.conv.channels[1] < ALONE
}

/// Calls `f` for each item, on all cores unless there is little to do.
pub(crate) fn each<T: Send>(items: impl Iterator<Item = T>, alone: bool, f: impl Fn(T) + Sync + Send) {
    if alone {
        return items.for_each(f);
    }
    items.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(f);
}

impl Layer<'_> {
    pub(crate) fn channels(&self) -> usize {
        self.conv.channels[1]
    }

    /// The norm's mean, variance and ε, given the batch's statistics; none without a norm.
    fn moments<'b>(&'b self, statistics: Option<&'b Statistics>) -> Option<(&'b [f32], &'b [f32], f32)> {
        match (self.norm, statistics) {
            (Norm::None, _) => None,
            (Norm::Running { mean, variance, epsilon }, _) => Some((mean, variance, epsilon)),
            (Norm::Batch { epsilon }, Some(batch)) => Some((&batch.mean, &batch.variance, epsilon)),
            (Norm::Batch { .. }, None) => panic!("a batch norm without the batch's statistics"),
        }
    }

    /// What the norm does, given the batch's statistics.
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

/// Mean and variance of a batch from those of its images (Chan et al. 1979).
pub(crate) fn combine(images: &[f32], channels: usize, pixels: usize) -> Statistics {
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

/// How a path's shortcut reaches its output.
pub(crate) struct Around<'a> {
    /// A tensor of the output's shape, and its strength.
    pub(crate) added: Option<(&'a [f32], f32)>,
    /// The way that the input is padded, where it has not the output's shape.
    pub(crate) padded: Option<ZeroPad>,
}

impl Around<'_> {
    /// Adds the padded shortcut to an output image, if there is one; the last ReLU comes after.
    pub(crate) fn pad(&self, level: Level, path: &Path, image: usize, output: &mut [f32]) {
        let Some(zero_pad) = self.padded else { return };
        let len = path.input.len() / path.batch();
        zero_pad.add(&path.input[image * len..][..len], path.shortcut.strength(), output);
        if path.relu {
            rectify(level, output);
        }
    }
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
    /// An image as the layer reads it, where it lies so; else it is normalised and padded into the workspace.
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

    pub(crate) fn alone(&self, plan: &Plan) -> bool {
        is_small(self.batch(), plan)
    }

    /// Runs `f` on a thread of the pool, unless no layer needs another (then `f` gets `true`): from there on the
    /// threads hand work to each other without the calling thread's going to sleep and waking for each of its parts.
    pub(crate) fn together<R: Send>(&self, plans: &[Arc<Plan>], f: impl FnOnce(bool) -> R + Send) -> R {
        if plans.iter().all(|plan| self.alone(plan)) { f(true) } else { rayon::scope(|_| f(false)) }
    }

    /// How the shortcut reaches the output.
    ///
    /// # Panics
    /// If the input cannot be padded to the output.
    pub(crate) fn around(&self, plans: &[Arc<Plan>]) -> Around<'_> {
        let (first, last) = (&plans[0], &plans[plans.len() - 1]);
        let (strength, padding) = match self.shortcut {
            Shortcut::None => return Around { added: None, padded: None },
            Shortcut::Tensor { values, strength } => return Around { added: Some((values, strength)), padded: None },
            Shortcut::Input { strength, padding } => (strength, padding),
        };
        let channels = [first.conv.channels[0], last.conv.channels[1]];
        if first.input.size == last.output && channels[0] == channels[1] {
            return Around { added: Some((self.input, strength)), padded: None };
        }
        let stride = plans.iter().map(|plan| plan.conv.stride).product();
        let subsampled = first.input.size.map(|size| size.div_ceil(stride));
        assert!(subsampled == last.output && channels[0] <= channels[1], "the input cannot be padded to the output");
        let before = padding.before(channels[1] - channels[0]);
        let zero_pad = ZeroPad { columns: [first.input.size[1], last.output[1]], channels, before, stride };
        Around { added: None, padded: Some(zero_pad) }
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
    /// it only the statistics, and the backward pass computes the rest again. An empty batch has an empty output;
    /// its statistics are NaN.
    ///
    /// # Panics
    /// If shapes do not agree.
    pub fn train(&self, level: Level, keep: bool) -> (Buffer, Saved) {
        let plans = self.plans();
        self.together(&plans, |_| self.train_planned(level, keep, &plans))
    }

    fn train_planned(&self, level: Level, keep: bool, plans: &[Arc<Plan>]) -> (Buffer, Saved) {
        self.check(plans);
        let (outputs, statistics, affines) = self.convolve(level, plans, None);
        let last = plans.len() - 1;
        let len = plans[last].output_len();
        let around = self.around(plans);
        let affine = scaled(&affines[last], self.scale);
        let mut y = Buffer::new(self.batch() * len);
        each(y.chunks_mut(len).zip(outputs[last].chunks(len)).enumerate(), self.alone(&plans[last]), |(n, (y, z))| {
            let other = around.added.map(|(values, strength)| (&values[n * len..][..len], strength));
            finish(level, z, &affine, other, self.relu && around.padded.is_none(), y);
            around.pad(level, self, n, y);
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
    pub(crate) fn convolve(
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
}

fn scaled(affine: &Affine, scale: f32) -> Affine {
    let times = |values: &[f32]| values.iter().map(|v| scale * v).collect();
    Affine { mean: affine.mean.clone(), gain: times(&affine.gain), bias: times(&affine.bias) }
}
