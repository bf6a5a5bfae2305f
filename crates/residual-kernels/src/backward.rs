//! The backward pass of a main path.

use crate::{
    Buffer, ConvNorm, ConvNormGradients, Gradients, NeedsGradient, Norm, Path, SavedForBackward, Shortcut, SimdLevel,
    Statistics, Weight,
    buffer::Scratch,
    elementwise::{Affine, NormGradient, ZeroPad, add_gradient, gradient_sums, norm_gradient_rows, relu_gradient_sums},
    layout::PaddedImage,
    parallel::{for_each, images_per_task},
    path::LayerInput,
    plan::Plan,
    signs::Signs,
    simd::Ahead,
    tile::{BLOCK, Epilogue, WeightGradientGemm, blocks_per_task},
    winograd::{self, Kernels, Pass, Tiling, Transforms, Wide, WideWeight},
};
use std::sync::Arc;

/// The maximum number of groups of images. The weight gradient is summed over the images of each group, then over the
/// groups.
const MAX_GROUPS: usize = 32;

/// The maximum memory of the groups' weight gradients, in bytes. If weights are large, there are fewer groups.
const MAX_GROUP_BYTES: usize = 16 << 20;

/// With fewer groups than this, output channels are divided among threads instead ([`Shared::Direct`]).
const MIN_GROUPS: usize = 8;

/// The number of images whose padded inputs and output gradients [`Shared::Direct`] holds at a time.
const SHARED_IMAGES: usize = 16;

/// [`MAX_GROUPS`] with Winograd's algorithm, whose sums have four times as many values as the weights, if there are more than
/// [`FEW_WEIGHTS`] weights.
const MAX_WINOGRAD_GROUPS: usize = 16;

/// See [`MAX_WINOGRAD_GROUPS`].
const FEW_WEIGHTS: usize = 9 * 32 * 32;

impl Path<'_> {
    /// Computes the gradients from what [`Self::train`] saved and the output gradient `dy`. The gradients of an empty batch
    /// are zero.
    ///
    /// # Panics
    /// If shapes do not match, or `saved` comes from a different path.
    pub fn gradients(&self, level: SimdLevel, saved: SavedForBackward, dy: &[f32], needs: NeedsGradient) -> Gradients {
        let plans = self.plans();
        self.run_in_pool(&plans, |_| self.gradients_planned(level, saved, dy, needs, &plans))
    }

    fn gradients_planned(
        &self,
        level: SimdLevel,
        saved: SavedForBackward,
        dy: &[f32],
        needs: NeedsGradient,
        plans: &[Arc<Plan>],
    ) -> Gradients {
        self.check(plans);
        let batch = self.batch();
        let last = plans.len() - 1;
        assert_eq!(dy.len(), batch * plans[last].output_len(), "the output gradient has the wrong length");
        if batch == 0 {
            return self.zero_gradients(needs);
        }
        let SavedForBackward { statistics, outputs, signs } = saved;
        let mut outputs = outputs.unwrap_or_else(|| self.convolve(level, plans, Some(&statistics)).0);
        let signs = signs.as_ref();

        let shortcut = needs.shortcut.then(|| self.shortcut_gradient(level, &plans[last], dy, signs)).flatten();
        // `Σ g` and `Σ g · (z - mean)` of each image and channel, where g is the gradient of the last norm's output.
        let means = |i: usize| self.layers[i].affine(statistics[i].as_ref()).mean;
        let mut sums = self.last_sums(level, &plans[last], &outputs[last], &means(last), dy, signs);
        let mut g: Option<Buffer> = None;
        let mut layers = vec![ConvNormGradients::default(); plans.len()];
        for i in (0..plans.len()).rev() {
            let (layer, plan) = (&self.layers[i], &plans[i]);
            let layer_statistics = statistics[i].as_ref();
            let (totals, norm) = norm_gradient(layer, layer_statistics, &sums, batch * plan.output_pixels());
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
                    None => (dy, signs, self.scale),
                },
                needs_weight: needs.parameters,
                needs_input: i > 0 || needs.input,
                shortcut: (i == 0 && needs.input).then_some((dy, signs)),
                zero_pad: self.shortcut_add(plans).zero_pad,
            };
            let (weight_gradient, input_gradient, input_sums) = step.run(layer.weight, z);
            layers[i].weight = weight_gradient;
            sums = input_sums;
            g = input_gradient;
        }
        Gradients { input: g.filter(|_| needs.input), shortcut, layers }
    }

    /// The gradient of the shortcut's tensor, or `None` if the shortcut is not a tensor.
    fn shortcut_gradient(&self, level: SimdLevel, plan: &Plan, dy: &[f32], signs: Option<&Signs>) -> Option<Buffer> {
        let Shortcut::Tensor { strength, .. } = self.shortcut else { return None };
        let len = plan.output_len();
        let mut shortcut = Buffer::new(dy.len());
        for_each(shortcut.chunks_mut(len).enumerate(), self.is_serial(plan), |(n, gradient)| {
            let (dy, signs) = (&dy[n * len..][..len], signs.map(|signs| signs.image(n)));
            add_gradient(level, dy, signs, 0, strength, true, gradient);
        });
        Some(shortcut)
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
        signs: Option<&Signs>,
    ) -> Vec<f32> {
        let (len, channels) = (plan.output_len(), mean.len());
        let mut sums = vec![0.0f32; self.batch() * 2 * channels];
        for_each(sums.chunks_mut(2 * channels).enumerate(), self.is_serial(plan), |(n, sums)| {
            let image = n * len..(n + 1) * len;
            let (sums, products) = sums.split_at_mut(channels);
            let signs = signs.map(|signs| signs.image(n));
            gradient_sums(level, &dy[image.clone()], signs, &z[image], mean, self.scale, sums, products);
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

/// The weight in the layout that the input gradient reads: transformed for Winograd's algorithm, or packed for the classes
/// of [`Plan::backward`].
fn transposed_weight(level: SimdLevel, plan: &Plan, weight: Weight) -> Buffer {
    let is_winograd = plan.winograd.is_some();
    let len = if is_winograd {
        winograd::transformed_len(plan.conv.transposed().channels)
    } else {
        plan.conv.transposed().packed_len()
    };
    let mut packed = Buffer::new(len);
    if is_winograd {
        winograd::transform_weight(level, &plan.conv, Kernels::Rotated(weight.values()), &mut packed);
    } else {
        plan.pack_transposed(weight, &mut packed);
    }
    packed
}

/// Consecutive images of the batch.
struct Group<'a> {
    /// The index of the first image.
    first: usize,
    /// The outputs of the convolution. The input gradients overwrite them if `dx` is `None`.
    z: &'a mut [f32],
    dx: Option<&'a mut [f32]>,
    /// The sums of each image that [`norm_gradient`] needs for the previous layer.
    sums: &'a mut [f32],
}

/// One image of a [`Group`].
struct Image<'a> {
    z: &'a mut [f32],
    dx: Option<&'a mut [f32]>,
    sums: &'a mut [f32],
}

impl Image<'_> {
    /// Where the input gradient and the sums are written.
    fn results(&mut self) -> (&mut [f32], &mut [f32]) {
        (self.dx.as_deref_mut().unwrap_or(self.z), self.sums)
    }

    /// Where the input gradient is written.
    fn gradient(&mut self) -> &mut [f32] {
        self.results().0
    }
}

/// How all threads work on the same images, if the weights are so large that a weight gradient for each group of images would take
/// too much memory, or too few tasks would be left.
#[derive(Clone, Copy)]
enum Shared<'a> {
    /// By direct sums.
    Direct,
    /// By Winograd's algorithm with [`Wide`], so many images at a time.
    Winograd(&'a Tiling, usize),
}

impl<'a> Shared<'a> {
    fn of(plan: &'a Plan, needs_weight: bool) -> Option<Self> {
        if let Some((tiling, images)) = plan.wide() {
            return Some(Self::Winograd(tiling, images));
        }
        let is_direct = plan.winograd.is_none() && plan.conv.groups == 1 && max_groups(plan) < MIN_GROUPS;
        (needs_weight && is_direct).then_some(Self::Direct)
    }
}

/// The backward pass of one layer.
struct BackwardLayer<'a> {
    path: &'a Path<'a>,
    plan: &'a Plan,
    level: SimdLevel,
    input: LayerInput<'a>,
    norm: &'a NormGradient,
    /// `(g, signs, scale)`: the gradient of the norm's output is `scale · g`, or `scale` times the gradient of `g` through a
    /// ReLU with these signs.
    gradient: (&'a [f32], Option<&'a Signs>, f32),
    needs_weight: bool,
    needs_input: bool,
    /// For the first layer: the path's output gradient, which also flows to the input through the shortcut, and the signs of
    /// the last ReLU.
    shortcut: Option<(&'a [f32], Option<&'a Signs>)>,
    zero_pad: Option<ZeroPad>,
}

impl BackwardLayer<'_> {
    /// Computes three results: the weight's gradient; the gradient of the output of the previous layer's norm (for the
    /// first layer, of the path's input); and, for each image, the sums that [`norm_gradient`] needs for the previous
    /// layer.
    fn run(&self, weight: Weight, z: Buffer) -> (Vec<f32>, Option<Buffer>, Vec<f32>) {
        let Self { path, plan, .. } = *self;
        let batch = path.batch();
        let (in_len, out_len) = (plan.input_len(), plan.output_len());
        let inputs = plan.conv.channels[0];
        let packed_len = plan.conv.packed_len();
        let shared = Shared::of(plan, self.needs_weight);
        let has_layout = self.needs_input && !matches!(shared, Some(Shared::Winograd(..)));
        let transposed = has_layout.then(|| transposed_weight(self.level, plan, weight));
        let size = match shared {
            Some(Shared::Winograd(_, together)) => together,
            Some(Shared::Direct) => SHARED_IMAGES,
            None if self.needs_weight => group_size(plan, batch),
            None => plan.images_per_task(batch),
        };
        let groups = if shared.is_some() { 1 } else { batch.div_ceil(size) };
        let mut weights = Buffer::new(if self.needs_weight { groups * packed_len } else { 0 });
        let mut sums = vec![0.0f32; batch * 2 * inputs];
        // The convolution's output `z` is not needed again, so the input gradient overwrites it if both have the same
        // size.
        let in_place = self.needs_input && in_len == out_len;
        let mut z = z;
        let mut dx = Buffer::new(if self.needs_input && !in_place { batch * in_len } else { 0 });
        let mut dx_groups = dx.chunks_mut(size * in_len);
        let groups = z.chunks_mut(size * out_len).zip(sums.chunks_mut(size * 2 * inputs)).enumerate();
        let groups = groups.map(|(group, (z, sums))| Group { first: group * size, z, dx: dx_groups.next(), sums });
        match shared {
            Some(Shared::Winograd(tiling, _)) => {
                groups.for_each(|group| self.winograd_on_all_threads(tiling, group, weight.values(), &mut weights));
            }
            Some(Shared::Direct) => {
                groups.for_each(|group| self.direct_on_all_threads(group, transposed.as_deref(), &mut weights));
            }
            None => {
                let mut weights = weights.chunks_mut(packed_len);
                let tasks: Vec<_> = groups.map(|group| (group, weights.next())).collect();
                for_each(tasks.into_iter(), path.is_serial(plan), |(group, weights)| match &plan.winograd {
                    Some(tiling) => self.winograd(tiling, group, transposed.as_deref(), weights),
                    None => self.direct(group, transposed.as_deref(), weights),
                });
            }
        }
        let gradient = self.needs_weight.then(|| plan.sum_and_unpack(self.level, &mut weights, weight));
        (gradient.unwrap_or_default(), self.needs_input.then_some(if in_place { z } else { dx }), sums)
    }

    /// Computes the backward pass of images by direct sums. Threads share the images of the input gradient, and then the output
    /// channels of the weight gradient, because one weight gradient per group of images would take too much memory.
    fn direct_on_all_threads(&self, group: Group<'_>, transposed: Option<&[f32]>, weights: &mut [f32]) {
        let Self { path, plan, level, .. } = *self;
        let (first, mut images) = (group.first, self.images(group));
        let layouts = [&plan.input, &plan.output_gradient];
        let mut scratch = Scratch::new(layouts.map(|layout| images.len() * layout.workspace_len()));
        let [a, dz] = scratch.slices();
        let mut workspaces = self.workspaces(a, dz);
        let tasks = images.iter_mut().zip(&mut workspaces).enumerate();
        for_each(tasks, path.is_serial(plan), |(i, (image, (a, dz)))| {
            let x = self.load(first + i, image.z, a, dz).unwrap_or(a);
            if let Some(transposed) = transposed {
                self.input_gradient(first + i, x, dz, transposed, image);
            }
        });
        let blocks = plan.conv.channels[1].div_ceil(BLOCK);
        let together = blocks_per_task(blocks);
        let (len, outputs) = (together * plan.conv.packed_len() / blocks, together * BLOCK);
        for_each(weights.chunks_mut(len).enumerate(), path.is_serial(plan), |(task, weights)| {
            for (i, (a, dz)) in workspaces.iter().enumerate() {
                let gemm = WeightGradientGemm {
                    x: self.input.in_place(plan, first + i).unwrap_or(a),
                    d: &dz[task * outputs..],
                    pixels: &plan.weight_gradient,
                    runs: &plan.forward.runs,
                    channels: outputs.min(plan.conv.channels[1] - task * outputs),
                };
                gemm.add_to(level, weights, first + i == 0);
            }
        });
    }

    /// [`Self::direct_on_all_threads`] by Winograd's algorithm.
    fn winograd_on_all_threads(&self, tiling: &Tiling, group: Group<'_>, weight: &[f32], weights: &mut [f32]) {
        let Self { plan, level, .. } = *self;
        let [inputs, outputs] = plan.conv.channels;
        let (first, mut images) = (group.first, self.images(group));
        let wide = Wide::new(level, tiling, 0..tiling.tiles(), images.len());
        let mut scratch = Scratch::new([
            images.len() * plan.input.workspace_len(),
            images.len() * plan.output_gradient.workspace_len(),
            wide.transform_len(inputs.max(outputs)),
        ]);
        let [a, dz, transforms] = scratch.slices();
        let mut workspaces = self.workspaces(a, dz);
        for_each(images.iter().zip(&mut workspaces).enumerate(), false, |(i, (image, (a, dz)))| {
            self.load(first + i, image.z, a, dz);
        });
        let gradients: Vec<&[f32]> = workspaces.iter().map(|(_, dz)| &**dz).collect();
        if self.needs_weight {
            let inputs: Vec<&[f32]> = workspaces.iter().map(|(a, _)| &**a).collect();
            wide.transform_inputs(&plan.input, &inputs, transforms);
            wide.weight_gradient(transforms, &plan.output_gradient, &gradients, weights, first > 0);
        }
        if self.needs_input {
            wide.transform_inputs(&plan.output_gradient, &gradients, transforms);
            let (weight, target) = (Kernels::Rotated(weight), PaddedImage::unpadded(plan.input.size, inputs));
            let to = images.iter_mut().map(Image::gradient).collect();
            wide.convolve(WideWeight::Kernels(weight), transforms, |_| Epilogue::default(), &target, to);
            for_each(images.iter_mut().zip(&workspaces).enumerate(), false, |(i, (image, (a, _)))| {
                self.finish(first + i, a, image);
            });
        }
    }

    /// The images of a group.
    fn images<'g>(&self, group: Group<'g>) -> Vec<Image<'g>> {
        let Self { plan, .. } = *self;
        let mut dx = group.dx.map(|dx| dx.chunks_mut(plan.input_len()));
        let sums = group.sums.chunks_mut(2 * plan.conv.channels[0]);
        let images = group.z.chunks_mut(plan.output_len()).zip(sums);
        images.map(|(z, sums)| Image { z, dx: dx.as_mut().and_then(Iterator::next), sums }).collect()
    }

    /// The workspaces of some images for their padded inputs and output gradients.
    fn workspaces<'w>(&self, a: &'w mut [f32], dz: &'w mut [f32]) -> Vec<(&'w mut [f32], &'w mut [f32])> {
        self.plan.input.workspaces(a).into_iter().zip(self.plan.output_gradient.workspaces(dz)).collect()
    }

    /// Computes the input gradient of image `n` by direct sums.
    fn input_gradient(&self, n: usize, x: &[f32], dz: &[f32], transposed: &[f32], image: &mut Image) {
        for (class, packed) in self.plan.classes(transposed) {
            class.compute(self.level, dz, packed, &class.pixels, Epilogue::default(), image.gradient(), 0);
        }
        self.finish(n, x, image);
    }

    /// Computes the backward pass of a group of images by direct sums.
    fn direct(&self, group: Group<'_>, transposed: Option<&[f32]>, mut weights: Option<&mut [f32]>) {
        let Self { plan, level, .. } = *self;
        let [inputs, outputs] = plan.conv.group_channels();
        let mut scratch = Scratch::new([plan.input.workspace_len(), plan.output_gradient.workspace_len()]);
        let [a, dz] = scratch.slices();
        let (a, dz) = (plan.input.workspace(a), plan.output_gradient.workspace(dz));
        let first = group.first;
        for (i, mut image) in self.images(group).into_iter().enumerate() {
            let x = self.load(first + i, image.z, a, dz).unwrap_or(a);
            if let Some(weights) = &mut weights {
                let group_len = plan.conv.packed_len() / plan.conv.groups;
                for (group, weights) in weights.chunks_mut(group_len).enumerate() {
                    let gemm = WeightGradientGemm {
                        x: &x[group * inputs..],
                        d: &dz[group * outputs..],
                        pixels: &plan.weight_gradient,
                        runs: &plan.forward.runs,
                        channels: outputs,
                    };
                    gemm.add_to(level, weights, i == 0);
                }
            }
            if let Some(transposed) = transposed {
                self.input_gradient(first + i, x, dz, transposed, &mut image);
            }
        }
    }

    /// Computes the backward pass of a group of images by Winograd's algorithm.
    fn winograd(&self, tiling: &Tiling, group: Group<'_>, transposed: Option<&[f32]>, weights: Option<&mut [f32]>) {
        let Self { plan, level, .. } = *self;
        let (in_len, out_len) = (plan.input_len(), plan.output_len());
        let target = PaddedImage::unpadded(plan.input.size, plan.conv.channels[0]);
        let together = tiling.images();
        let mut scratch = Scratch::new([
            together * plan.input.workspace_len(),
            together * plan.output_gradient.workspace_len(),
            tiling.transform_len(),
            tiling.transform_len(),
            if weights.is_some() { tiling.gradient_len() } else { 0 },
        ]);
        let [a, dz, from, to, sums] = scratch.slices();
        let (mut a, mut dz) = (plan.input.workspaces(a), plan.output_gradient.workspaces(dz));
        let mut transforms = Transforms::new(level, tiling, [from, to]);
        let mut sums = weights.is_some().then_some(sums);
        let first = group.first;
        let mut images = self.images(group);
        for band in tiling.bands(images.len()) {
            if band.tiles.start == 0 {
                for (k, i) in band.images.clone().enumerate() {
                    self.load(first + i, images[i].z, a[k], dz[k]);
                }
            }
            if let Some(sums) = &mut sums {
                for (k, (_, place)) in band.images().enumerate() {
                    transforms.transform_input(&plan.input, a[k], band.tiles.clone(), place);
                    transforms.transform_output_gradient(&plan.output_gradient, dz[k], band.tiles.clone(), place);
                }
                let ahead = [(self.input.values(), in_len), (self.gradient.0, out_len)]
                    .map(|(values, len)| Ahead::read(tiling.next(&band, &values[first * len..], len)));
                transforms.add_weight_gradient(&band, sums, band.images.start == 0 && band.tiles.start == 0, &ahead);
            }
            let Some(transposed) = transposed else { continue };
            for (k, (_, place)) in band.images().enumerate() {
                transforms.transform_input(&plan.output_gradient, dz[k], band.tiles.clone(), place);
            }
            let next = band.images.end..images.len().min(band.images.end + band.images.len());
            let ahead: Vec<Ahead> = next.map(|i| Ahead::read(tiling.part(&band, images[i].z))).collect();
            transforms.multiply(Pass::Backward, transposed, &band, &ahead);
            for (k, (i, place)) in band.images().enumerate() {
                let dx = images[i].gradient();
                transforms.write_output(band.tiles.clone(), place, Epilogue::default(), &target, dx, 0);
                if band.tiles.end == tiling.tiles() {
                    self.finish(first + i, a[k], &mut images[i]);
                }
            }
        }
        if let (Some(sums), Some(weights)) = (sums, weights) {
            let channels = plan.conv.channels;
            winograd::transform_weight_gradient(level, 0..channels[0], channels, sums, weights, false);
        }
    }

    /// Writes the padded gradient of image `n` before the norm to `dz`, where `z` is the convolution's output, and the
    /// padded input to `a`. Returns the input if it can be read in place.
    fn load<'b>(&'b self, n: usize, z: &[f32], a: &mut [f32], dz: &mut [f32]) -> Option<&'b [f32]> {
        let Self { plan, level, .. } = *self;
        let (g, signs, scale) = self.gradient;
        let len = plan.output_len();
        let signs = signs.map(|signs| signs.image(n));
        norm_gradient_rows(level, &g[n * len..][..len], signs, z, self.norm, scale, &plan.output_gradient, dz);
        let after_relu = matches!(self.input, LayerInput::ConvOutput(..));
        if self.needs_weight || after_relu { self.input.image(level, plan, n, a) } else { None }
    }

    /// Turns the gradient of the layer's input `x` for image `n` into that of the previous layer's norm, or adds the gradient of
    /// the shortcut.
    fn finish(&self, n: usize, x: &[f32], image: &mut Image) {
        let Self { plan, level, .. } = *self;
        let (dx, sums) = image.results();
        if let LayerInput::ConvOutput(z, affine) = self.input {
            let (sums, products) = sums.split_at_mut(plan.conv.channels[0]);
            let len = plan.input_len();
            relu_gradient_sums(level, dx, x, &plan.input, &z[n * len..][..len], &affine.mean, sums, products);
        }
        if let Some((dy, signs)) = self.shortcut
            && matches!(self.path.shortcut, Shortcut::Input { .. })
        {
            let len = dy.len() / self.path.batch();
            let (dy, signs) = (&dy[n * len..][..len], signs.map(|signs| signs.image(n)));
            let strength = self.path.shortcut.strength();
            match self.zero_pad {
                None => add_gradient(level, dy, signs, 0, strength, false, dx),
                Some(zero_pad) => zero_pad.add_gradient(level, dy, signs, strength, dx),
            }
        }
    }
}

/// The number of images whose weight gradients are summed by one task. It depends on the batch alone, so that the result
/// does not depend on the number of threads.
fn group_size(plan: &Plan, batch: usize) -> usize {
    match &plan.winograd {
        Some(tiling) => {
            let most = if plan.conv.weights() <= FEW_WEIGHTS { MAX_GROUPS } else { MAX_WINOGRAD_GROUPS };
            images_per_task(batch, tiling.images(), most, 2)
        }
        None => batch.div_ceil(max_groups(plan)).max(1),
    }
}

/// The number of weight gradients that fit into [`MAX_GROUP_BYTES`].
fn max_groups(plan: &Plan) -> usize {
    (MAX_GROUP_BYTES / (4 * plan.conv.packed_len())).clamp(1, MAX_GROUPS)
}
