//! Inference: main paths without batch statistics.

use crate::{
    Buffer, Conv, Path, SimdLevel,
    conv::{PaddedImage, Plan},
    elementwise::Affine,
    path::{LayerInput, for_each, is_small},
    tile::{Addend, Epilogue, Pixel},
    winograd,
};
use std::{ops::Range, sync::Arc};

/// A weight in the layout that the kernels read: packed into blocks, or transformed for Winograd's algorithm.
#[derive(Debug)]
pub struct PreparedWeight {
    conv: Conv,
    winograd: bool,
    packed: Buffer,
}

impl PreparedWeight {
    /// Prepares a weight `[out, in / groups, kernel height, kernel width]`.
    ///
    /// # Panics
    /// If `conv` is invalid (see [`Conv::output`]), or the weight has the wrong length.
    pub fn new(conv: &Conv, weight: &[f32]) -> Self {
        conv.check();
        assert_eq!(weight.len(), conv.weights(), "the weight has the wrong length");
        if conv.suits_winograd() {
            return Self { conv: *conv, winograd: true, packed: winograd::transform_weight(conv, weight) };
        }
        let mut packed = Buffer::new(conv.packed_len());
        conv.pack(weight, &mut packed);
        Self { conv: *conv, winograd: false, packed }
    }

    /// Computes some output rows of a padded image `x`. The first row must have an even index. `pixels` has output
    /// offsets in an image with the layout `target`, and `out` begins at the first of the rows.
    #[expect(clippy::too_many_arguments, reason = "the operands of a convolution")]
    fn rows(
        &self,
        level: SimdLevel,
        plan: &Plan,
        x: &[f32],
        epilogue: Epilogue,
        rows: Range<usize>,
        (target, pixels): (&PaddedImage, &[Pixel]),
        out: &mut [f32],
    ) {
        if self.winograd {
            return winograd::convolve_rows(level, plan, x, &self.packed, epilogue, rows, target, out);
        }
        let start = target.at(rows.start as isize, 0) as usize;
        let pixels = &pixels[rows.start * plan.output[1]..rows.end * plan.output[1]];
        plan.forward.compute(level, x, &self.packed, pixels, epilogue, out, start);
    }

    /// Computes the convolution's output for one padded image.
    pub(crate) fn convolve(&self, level: SimdLevel, plan: &Plan, x: &[f32], out: &mut [f32]) {
        let target = PaddedImage::unpadded(plan.output, plan.conv.channels[1]);
        let rows = 0..plan.output[0];
        self.rows(level, plan, x, Epilogue::default(), rows, (&target, &plan.forward.pixels), out);
    }
}

/// A function that computes a layer's output from its padded input.
type RunLayer<'a> = dyn Fn(&PreparedLayer, &[f32], &mut [f32]) + 'a;

/// A layer with its norm folded into the epilogue.
struct PreparedLayer<'a> {
    plan: Arc<Plan>,
    weight: &'a PreparedWeight,
    gain: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
    /// The shortcut's tensor and α, for the last layer.
    addend: Option<(&'a [f32], f32)>,
    /// The layout of the output: the next layer's padded input, or the path's output, which is not padded.
    target: PaddedImage,
    /// The pixels of [`Plan::forward`], with output offsets in the layout `target`.
    pixels: Vec<Pixel>,
}

impl PreparedLayer<'_> {
    /// Computes some output rows of an image. The first row must have an even index. `out` begins at the first of the
    /// rows.
    fn rows(&self, level: SimdLevel, x: &[f32], image: usize, rows: Range<usize>, out: &mut [f32]) {
        let len = self.plan.output_len();
        let add = self.addend.map(|(values, strength)| Addend { values: &values[image * len..][..len], strength });
        let epilogue = Epilogue { affine: Some((&self.gain, &self.bias)), add, relu: self.relu };
        self.weight.rows(level, &self.plan, x, epilogue, rows, (&self.target, &self.pixels), out);
    }

    /// The part of a padded image with the layout `target` that starts at its first pixel.
    fn skip_margin<'b>(&self, target: &'b mut [f32]) -> &'b mut [f32] {
        &mut target[self.target.at(0, 0) as usize..]
    }
}

impl Path<'_> {
    /// Prepares the weights for [`Self::infer`].
    pub fn prepare(&self) -> Vec<Arc<PreparedWeight>> {
        self.layers.iter().map(|layer| Arc::new(PreparedWeight::new(&layer.conv, layer.weight))).collect()
    }

    /// Computes the output, `[batch, height, width, channels]`, without batch statistics. Norm, shortcut and ReLU are
    /// applied to every sum before it is written. Only a zero-padding shortcut and the ReLU after it are applied to the
    /// written output.
    ///
    /// # Panics
    /// If shapes do not match, a norm is [`Norm::Batch`](crate::Norm::Batch), or the weights were prepared for
    /// different convolutions.
    pub fn infer(&self, level: SimdLevel, weights: &[Arc<PreparedWeight>]) -> Buffer {
        let plans = self.plans();
        self.run_in_pool(&plans, |serial| self.infer_planned(level, weights, &plans, serial))
    }

    fn infer_planned(
        &self,
        level: SimdLevel,
        weights: &[Arc<PreparedWeight>],
        plans: &[Arc<Plan>],
        serial: bool,
    ) -> Buffer {
        self.check(plans);
        assert_eq!(weights.len(), plans.len(), "there must be one prepared weight per layer");
        for (weight, layer) in weights.iter().zip(&self.layers) {
            assert_eq!(weight.conv, layer.conv, "the weight was prepared for a different convolution");
        }
        let shortcut = self.shortcut_add(plans);
        let last = plans.len() - 1;
        let prepared_layer = |i: usize| {
            let scale = if i == last { self.scale } else { 1.0 };
            let Affine { mean, gain, bias } = self.layers[i].affine(None);
            let gain: Vec<f32> = gain.iter().map(|gain| scale * gain).collect();
            let bias = bias.iter().zip(&mean).zip(&gain).map(|((bias, mean), gain)| scale * bias - mean * gain);
            let plan = plans[i].clone();
            let channels = plan.conv.channels[1];
            let target = plans.get(i + 1).map_or(PaddedImage::unpadded(plan.output, channels), |next| next.input);
            let offsets = target.rows().flat_map(|row| row.step_by(channels));
            let pixels =
                plan.forward.pixels.iter().zip(offsets).map(|(pixel, to)| Pixel { output: to as u32, ..*pixel });
            PreparedLayer {
                weight: &weights[i],
                relu: i < last || (self.relu && shortcut.zero_pad.is_none()),
                addend: shortcut.tensor.filter(|_| i == last),
                bias: bias.collect(),
                pixels: pixels.collect(),
                gain,
                target,
                plan,
            }
        };
        let layers: Vec<PreparedLayer> = (0..plans.len()).map(prepared_layer).collect();
        let workspaces = || plans.iter().map(|plan| plan.input.workspace()).collect::<Vec<_>>();
        // Computes all layers for one image. `run` writes a layer's output inside the margin of the next workspace.
        let infer = |image, workspaces: &mut [Buffer], output: &mut [f32], run: &RunLayer| {
            let direct = LayerInput::PathInput(self.input).image(level, &plans[0], image, &mut workspaces[0]);
            for (i, layer) in layers.iter().enumerate() {
                let (before, after) = workspaces.split_at_mut(i + 1);
                let x = direct.filter(|_| i == 0).unwrap_or(&before[i]);
                run(layer, x, after.first_mut().map_or(&mut *output, |next| layer.skip_margin(next)));
            }
            shortcut.add_zero_padded(level, self, image, output);
        };

        let (batch, threads) = (self.batch(), rayon::current_num_threads());
        let len = plans[last].output_len();
        let mut output = Buffer::new_loose(batch * len);
        // If there are enough images for all threads, each thread computes whole images, so that the outputs of all
        // layers but the last stay in cache.
        if serial || batch >= 2 * threads {
            let size = batch.div_ceil(4 * threads).max(1);
            for_each(output.chunks_mut(len * size).enumerate(), serial, |(group, outputs)| {
                let mut workspaces = workspaces();
                for (i, output) in outputs.chunks_mut(len).enumerate() {
                    let image = group * size + i;
                    infer(image, &mut workspaces, output, &|layer, x, out| {
                        layer.rows(level, x, image, 0..layer.plan.output[0], out);
                    });
                }
            });
            return output;
        }
        // Otherwise, the threads share each image, in strips of an even number of rows.
        let mut workspaces = workspaces();
        for (image, output) in output.chunks_mut(len).enumerate() {
            infer(image, &mut workspaces, output, &|layer, x, out| {
                let height = layer.plan.output[0];
                let rows = height.div_ceil(2 * threads).next_multiple_of(2);
                let strips = out[..layer.target.span()].chunks_mut(rows * layer.target.row());
                for_each(strips.enumerate(), is_small(1, &layer.plan), |(strip, out)| {
                    layer.rows(level, x, image, strip * rows..((strip + 1) * rows).min(height), out);
                });
            });
        }
        output
    }
}
