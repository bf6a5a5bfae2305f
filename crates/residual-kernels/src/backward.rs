//! The backward pass of a path.

use crate::{
    Buffer, Gradients, Layer, LayerGradients, Level, Norm, Path, Prepared, Saved, Shortcut, Statistics, Wanted,
    conv::Plan,
    elementwise::{
        Affine, NormGradient, ZeroPad, add_gradient, gradient_sums, norm_gradient_rows, rectified_gradient_sums,
    },
    path::{Source, each},
    tile::{Epilogue, Products},
    winograd,
};
use std::sync::Arc;

/// Groups of images whose weight gradients are summed apart, and the memory that these may take.
const GROUPS: usize = 32;
const GROUP_MEMORY: usize = 16 << 20;

impl Path<'_> {
    /// The gradients, from `output` and that of it; zeros for an empty batch.
    ///
    /// # Panics
    /// If shapes do not agree, or `saved` is of another path.
    pub fn gradients(&self, level: Level, output: &[f32], saved: Saved, dy: &[f32], wanted: Wanted) -> Gradients {
        let plans = self.plans();
        self.together(&plans, |_| self.gradients_planned(level, output, saved, dy, wanted, &plans))
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
        if batch == 0 {
            return self.no_gradients(wanted);
        }
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
                layers[i] = layer.affine_gradients(statistics_of, &totals);
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
                zero_pad: self.around(plans).padded,
            };
            let (weight, below, below_sums) = step.run(layer.weight, z);
            layers[i].weight = weight;
            sums = below_sums;
            g = below;
        }
        Gradients { input: g.filter(|_| wanted.input), shortcut, layers }
    }

    /// The gradients of an empty batch.
    fn no_gradients(&self, wanted: Wanted) -> Gradients {
        let zeros = |layer: &Layer| match wanted.parameters {
            true => LayerGradients {
                weight: vec![0.0; layer.conv.weights()],
                gain: vec![0.0; layer.channels()],
                bias: vec![0.0; layer.channels()],
            },
            false => LayerGradients::default(),
        };
        Gradients {
            input: wanted.input.then(|| Buffer::zeros(0)),
            shortcut: (wanted.shortcut && matches!(self.shortcut, Shortcut::Tensor { .. })).then(|| Buffer::zeros(0)),
            layers: self.layers.iter().map(zeros).collect(),
        }
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

impl Layer<'_> {
    /// The gradients of γ and β, from [`norm_gradient`]'s sums.
    pub(crate) fn affine_gradients(&self, statistics: Option<&Statistics>, totals: &[f64]) -> LayerGradients {
        let (bias, gain) = totals.split_at(self.channels());
        let inverse = self.inverse_deviations(statistics);
        LayerGradients {
            weight: Vec::new(),
            gain: gain.iter().zip(&inverse).map(|(total, inverse)| (total * f64::from(*inverse)) as f32).collect(),
            bias: bias.iter().map(|total| *total as f32).collect(),
        }
    }
}

/// The gradient through a norm (Ioffe & Szegedy 2015, section 3), and the sums over the batch it is made
/// of: `Σ g` of each channel, then `Σ g · (z - mean)`.
pub(crate) fn norm_gradient(
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
            let conv = plan.conv.transposed();
            let weight = winograd::transposed_weight(&plan.conv, weight);
            return Self::Winograd(Plan::of(conv, plan.output), Prepared::new(&conv, &weight));
        }
        let mut packed = Buffer::new(plan.conv.transposed().packed_len());
        plan.pack_transposed(weight, &mut packed);
        Self::Sums(packed)
    }

    /// The gradient of an input image, from the padded gradient of its output.
    fn convolve(&self, level: Level, plan: &Plan, dz: &[f32], below: &mut [f32]) {
        let packed = match self {
            Self::Winograd(plan, weight) => return weight.convolve(level, plan, dz, below),
            Self::Sums(packed) => packed,
        };
        for (class, packed) in plan.classes(packed) {
            class.sums(level, dz, packed, &class.pixels, Epilogue::default(), below, 0);
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
