//! The backward pass of a main path.

use crate::{
    Buffer, ConvNorm, ConvNormGradients, Gradients, NeedsGradient, Norm, Path, PreparedWeight, SavedForBackward,
    Shortcut, SimdLevel, Statistics,
    conv::Plan,
    elementwise::{Affine, NormGradient, ZeroPad, add_gradient, gradient_sums, norm_gradient_rows, relu_gradient_sums},
    path::{LayerInput, for_each},
    tile::{Epilogue, WeightGradientGemm},
    winograd,
};
use std::sync::Arc;

/// The maximum number of groups of images. The weight gradient is summed over the images of each group, then over the
/// groups.
const MAX_GROUPS: usize = 32;

/// The maximum memory of the groups' weight gradients, in bytes. If weights are large, there are fewer groups, but at
/// least one.
const MAX_GROUP_BYTES: usize = 16 << 20;

impl Path<'_> {
    /// Computes the gradients from the results of [`Self::train`] and the output gradient `dy`. The gradients of an
    /// empty batch are zero.
    ///
    /// # Panics
    /// If shapes do not match, or `saved` comes from a different path.
    pub fn gradients(
        &self,
        level: SimdLevel,
        output: &[f32],
        saved: SavedForBackward,
        dy: &[f32],
        needs: NeedsGradient,
    ) -> Gradients {
        let plans = self.plans();
        self.run_in_pool(&plans, |_| self.gradients_planned(level, output, saved, dy, needs, &plans))
    }

    fn gradients_planned(
        &self,
        level: SimdLevel,
        output: &[f32],
        saved: SavedForBackward,
        dy: &[f32],
        needs: NeedsGradient,
        plans: &[Arc<Plan>],
    ) -> Gradients {
        self.check(plans);
        let batch = self.batch();
        let last = plans.len() - 1;
        assert_eq!(dy.len(), batch * plans[last].output_len(), "the output gradient has the wrong length");
        assert_eq!(output.len(), dy.len(), "the output has the wrong length");
        if batch == 0 {
            return self.zero_gradients(needs);
        }
        let SavedForBackward { statistics, outputs } = saved;
        let mut outputs = outputs.unwrap_or_else(|| self.convolve(level, plans, Some(&statistics)).0);
        let y = self.relu.then_some(output);

        let shortcut = (needs.shortcut && matches!(self.shortcut, Shortcut::Tensor { .. })).then(|| {
            let len = plans[last].output_len();
            let mut shortcut = Buffer::zeros(dy.len());
            for_each(shortcut.chunks_mut(len).enumerate(), self.is_serial(&plans[last]), |(n, gradient)| {
                let image = n * len..(n + 1) * len;
                add_gradient(level, &dy[image.clone()], y.map(|y| &y[image]), self.shortcut.strength(), gradient);
            });
            shortcut
        });

        // `Σ g` and `Σ g · (z - mean)` of each image and channel, where g is the gradient of the last norm's output.
        let means = |i: usize| self.layers[i].affine(statistics[i].as_ref()).mean;
        let mut sums = self.last_sums(level, &plans[last], &outputs[last], &means(last), dy, y);
        let mut g: Option<Buffer> = None;
        let mut layers = vec![ConvNormGradients::default(); plans.len()];
        for i in (0..plans.len()).rev() {
            let (layer, plan) = (&self.layers[i], &plans[i]);
            let layer_statistics = statistics[i].as_ref();
            let (totals, norm) = norm_gradient(layer, layer_statistics, &sums, batch * plan.output[0] * plan.output[1]);
            if needs.parameters {
                layers[i] = layer.affine_gradients(layer_statistics, &totals);
            }
            let z = outputs.pop().expect("every layer has an output");
            let previous = (i > 0).then(|| self.layers[i - 1].affine(statistics[i - 1].as_ref()));
            let input = match &previous {
                Some(affine) => LayerInput::ConvOutput(&outputs[i - 1], affine),
                None => LayerInput::PathInput(self.input),
            };
            let step = BackwardLayer {
                path: self,
                plan,
                level,
                input,
                norm: &norm,
                gradient: match &g {
                    Some(g) => (g, None, 1.0),
                    None => (dy, y, self.scale),
                },
                needs_weight: needs.parameters,
                needs_input: i > 0 || needs.input,
                shortcut: (i == 0 && needs.input).then_some((dy, y)),
                zero_pad: self.shortcut_add(plans).zero_pad,
            };
            let (weight_gradient, input_gradient, input_sums) = step.run(layer.weight, z);
            layers[i].weight = weight_gradient;
            sums = input_sums;
            g = input_gradient;
        }
        Gradients { input: g.filter(|_| needs.input), shortcut, layers }
    }

    /// The gradients of an empty batch.
    fn zero_gradients(&self, needs: NeedsGradient) -> Gradients {
        let zeros = |layer: &ConvNorm| {
            if !needs.parameters {
                return ConvNormGradients::default();
            }
            ConvNormGradients {
                weight: vec![0.0; layer.conv.weights()],
                gain: vec![0.0; layer.channels()],
                bias: vec![0.0; layer.channels()],
            }
        };
        Gradients {
            input: needs.input.then(|| Buffer::zeros(0)),
            shortcut: (needs.shortcut && matches!(self.shortcut, Shortcut::Tensor { .. })).then(|| Buffer::zeros(0)),
            layers: self.layers.iter().map(zeros).collect(),
        }
    }

    /// The sums that [`norm_gradient`] needs for the last layer, for each image.
    fn last_sums(
        &self,
        level: SimdLevel,
        plan: &Plan,
        z: &[f32],
        mean: &[f32],
        dy: &[f32],
        y: Option<&[f32]>,
    ) -> Vec<f32> {
        let (len, channels) = (plan.output_len(), mean.len());
        let mut sums = vec![0.0f32; self.batch() * 2 * channels];
        for_each(sums.chunks_mut(2 * channels).enumerate(), self.is_serial(plan), |(n, sums)| {
            let image = n * len..(n + 1) * len;
            let (sums, products) = sums.split_at_mut(channels);
            let y = y.map(|y| &y[image.clone()]);
            gradient_sums(level, &dy[image.clone()], y, &z[image], mean, self.scale, sums, products);
        });
        sums
    }
}

impl ConvNorm<'_> {
    /// The gradients of γ and β, from the totals of [`norm_gradient`].
    pub(crate) fn affine_gradients(&self, statistics: Option<&Statistics>, totals: &[f64]) -> ConvNormGradients {
        let (bias, gain) = totals.split_at(self.channels());
        let inverse = self.inverse_deviations(statistics);
        ConvNormGradients {
            weight: Vec::new(),
            gain: gain.iter().zip(&inverse).map(|(total, inverse)| (total * f64::from(*inverse)) as f32).collect(),
            bias: bias.iter().map(|total| *total as f32).collect(),
        }
    }
}

/// The totals over the batch, `Σ g` of each channel followed by `Σ g · (z - mean)` of each channel, and the gradient
/// through the norm (Ioffe & Szegedy 2015, section 3). `images` holds the same sums for each image, and `count` is the
/// number of pixels of the batch.
pub(crate) fn norm_gradient(
    layer: &ConvNorm,
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

/// A weight in the layout that the input gradient reads.
enum TransposedWeight {
    /// Packed for the classes of [`Plan::backward`].
    Direct(Buffer),
    /// The plan and the weight of the convolution that computes the input gradient.
    Winograd(Arc<Plan>, PreparedWeight),
}

impl TransposedWeight {
    fn new(plan: &Plan, weight: &[f32]) -> Self {
        if plan.conv.suits_winograd() {
            let conv = plan.conv.transposed();
            let weight = winograd::transposed_weight(&plan.conv, weight);
            return Self::Winograd(Plan::of(conv, plan.output), PreparedWeight::new(&conv, &weight));
        }
        let mut packed = Buffer::new(plan.conv.transposed().packed_len());
        plan.pack_transposed(weight, &mut packed);
        Self::Direct(packed)
    }

    /// Computes the input gradient `dx` of an image from its padded output gradient `dz`.
    fn convolve(&self, level: SimdLevel, plan: &Plan, dz: &[f32], dx: &mut [f32]) {
        let packed = match self {
            Self::Winograd(plan, weight) => return weight.convolve(level, plan, dz, dx),
            Self::Direct(packed) => packed,
        };
        for (class, packed) in plan.classes(packed) {
            class.compute(level, dz, packed, &class.pixels, Epilogue::default(), dx, 0);
        }
    }
}

/// The backward pass of one layer.
struct BackwardLayer<'a> {
    path: &'a Path<'a>,
    plan: &'a Plan,
    level: SimdLevel,
    input: LayerInput<'a>,
    norm: &'a NormGradient,
    /// `(g, y, scale)`: the gradient of the norm's output is `scale · g`, or `scale · relu_gradient(g, y)` if `y` is
    /// given.
    gradient: (&'a [f32], Option<&'a [f32]>, f32),
    needs_weight: bool,
    needs_input: bool,
    /// For the first layer: the path's output gradient, which also flows to the input through the shortcut, and the
    /// output of the last ReLU.
    shortcut: Option<(&'a [f32], Option<&'a [f32]>)>,
    zero_pad: Option<ZeroPad>,
}

impl BackwardLayer<'_> {
    /// Computes three results: the weight's gradient; the gradient of the output of the previous layer's norm (for the
    /// first layer, of the path's input); and, for each image, the sums that [`norm_gradient`] needs for the previous
    /// layer.
    fn run(&self, weight: &[f32], z: Buffer) -> (Vec<f32>, Option<Buffer>, Vec<f32>) {
        let Self { path, plan, .. } = *self;
        let batch = path.batch();
        let (in_len, out_len) = (plan.input_len(), plan.output_len());
        let inputs = plan.conv.channels[0];
        let packed_len = plan.conv.packed_len();
        let transposed = self.needs_input.then(|| TransposedWeight::new(plan, weight));
        let max_groups = (MAX_GROUP_BYTES / (4 * packed_len)).clamp(1, MAX_GROUPS);
        let size = batch.div_ceil(max_groups).max(1);
        let groups = batch.div_ceil(size);
        let mut weights = Buffer::zeros(if self.needs_weight { groups * packed_len } else { 0 });
        let mut sums = vec![0.0f32; batch * 2 * inputs];
        // The convolution's output `z` is not needed again, so the input gradient overwrites it if both have the same
        // size.
        let in_place = self.needs_input && in_len == out_len;
        let mut z = z;
        let mut dx = Buffer::new(if self.needs_input && !in_place { batch * in_len } else { 0 });
        {
            let mut z_groups = z.chunks_mut(size * out_len);
            let mut dx_groups = dx.chunks_mut(size * in_len);
            let mut weight_groups = weights.chunks_mut(packed_len);
            let sum_groups = sums.chunks_mut(size * 2 * inputs).enumerate();
            let tasks: Vec<_> = sum_groups
                .map(|(group, sums)| {
                    let z = z_groups.next().expect("every group has outputs");
                    (group * size, sums, z, dx_groups.next(), weight_groups.next())
                })
                .collect();
            for_each(tasks.into_iter(), path.is_serial(plan), |(first, sums, z, mut dx, mut weights)| {
                let (mut a, mut dz) = (plan.input.workspace(), plan.output_gradient.workspace());
                for (i, (z, sums)) in z.chunks_mut(out_len).zip(sums.chunks_mut(2 * inputs)).enumerate() {
                    let dx = dx.as_mut().map(|dx| &mut dx[i * in_len..][..in_len]);
                    self.image(first + i, z, dx, &mut a, &mut dz, transposed.as_ref(), weights.as_deref_mut(), sums);
                }
            });
        }
        let mut gradient = Vec::new();
        if self.needs_weight {
            gradient = vec![0.0; plan.conv.weights()];
            let (sum, groups) = weights.split_at_mut(packed_len);
            for group in groups.chunks(packed_len) {
                add_gradient(self.level, group, None, 1.0, sum);
            }
            plan.unpack(sum, &mut gradient);
        }
        (gradient, self.needs_input.then_some(if in_place { z } else { dx }), sums)
    }

    /// Computes the backward pass of image `n`: adds to `weights`, and writes `dx` and `sums`. If `dx` is `None`, the
    /// input gradient overwrites `z`.
    #[expect(clippy::too_many_arguments, reason = "the buffers of `run` for one image")]
    fn image(
        &self,
        n: usize,
        z: &mut [f32],
        dx: Option<&mut [f32]>,
        a: &mut [f32],
        dz: &mut [f32],
        transposed: Option<&TransposedWeight>,
        weights: Option<&mut [f32]>,
        sums: &mut [f32],
    ) {
        let Self { plan, level, .. } = *self;
        let (in_len, out_len) = (plan.input_len(), plan.output_len());
        let [inputs, outputs] = plan.conv.group_channels();
        let (g, y, scale) = self.gradient;
        let image = n * out_len..(n + 1) * out_len;
        let y = y.map(|y| &y[image.clone()]);
        norm_gradient_rows(level, &g[image.clone()], y, z, self.norm, scale, &plan.output_gradient, dz);
        let after_relu = matches!(self.input, LayerInput::ConvOutput(..));
        let direct = if self.needs_weight || after_relu { self.input.image(level, plan, n, a) } else { None };
        let x = direct.unwrap_or(a);
        if let Some(weights) = weights {
            let group_len = plan.conv.packed_len() / plan.conv.groups;
            for (group, weights) in weights.chunks_mut(group_len).enumerate() {
                let gemm = WeightGradientGemm {
                    x: &x[group * inputs..],
                    d: &dz[group * outputs..],
                    pixels: &plan.weight_gradient,
                    runs: &plan.forward.runs,
                    channels: outputs,
                };
                gemm.add_to(level, weights);
            }
        }
        let Some(transposed) = transposed else { return };
        let dx = dx.unwrap_or(z);
        transposed.convolve(level, plan, dz, dx);
        if let LayerInput::ConvOutput(z, affine) = self.input {
            let (sums, products) = sums.split_at_mut(plan.conv.channels[0]);
            let z = &z[n * in_len..][..in_len];
            relu_gradient_sums(level, dx, x, &plan.input, z, &affine.mean, sums, products);
        }
        if let Some((dy, y)) = self.shortcut
            && matches!(self.path.shortcut, Shortcut::Input { .. })
        {
            let len = dy.len() / self.path.batch();
            let image = n * len..(n + 1) * len;
            let (dy, y) = (&dy[image.clone()], y.map(|y| &y[image]));
            let strength = self.path.shortcut.strength();
            match self.zero_pad {
                None => add_gradient(level, dy, y, strength, dx),
                Some(zero_pad) => zero_pad.add_gradient(level, dy, y, strength, dx),
            }
        }
    }
}
