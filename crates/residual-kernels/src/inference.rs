//! Paths whose norms do not depend on the batch.

use crate::{
    Buffer, Conv, Level, Path,
    conv::{Padded, Plan},
    elementwise::Affine,
    path::{Source, each, is_small},
    tile::{Add, Epilogue, Pixel},
    winograd,
};
use std::{ops::Range, sync::Arc};

/// A weight as the kernels read it.
#[derive(Debug)]
pub struct Prepared {
    conv: Conv,
    winograd: bool,
    packed: Buffer,
}

impl Prepared {
    /// Prepares a weight `[out, in / groups, kernel height, kernel width]`.
    ///
    /// # Panics
    /// If there is no such convolution, or the weight has another length.
    pub fn new(conv: &Conv, weight: &[f32]) -> Self {
        conv.check();
        assert_eq!(weight.len(), conv.weights(), "a weight's length");
        if winograd::suits(conv) {
            return Self { conv: *conv, winograd: true, packed: winograd::prepare(conv, weight) };
        }
        let mut packed = Buffer::new(conv.packed_len());
        conv.pack(weight, &mut packed);
        Self { conv: *conv, winograd: false, packed }
    }

    /// Some output rows of a padded image, of an even first one, into a target from the first of these rows on.
    #[expect(clippy::too_many_arguments, reason = "a convolution and where it goes")]
    fn rows(
        &self,
        level: Level,
        plan: &Plan,
        x: &[f32],
        epilogue: Epilogue,
        rows: Range<usize>,
        (target, pixels): (&Padded, &[Pixel]),
        out: &mut [f32],
    ) {
        if self.winograd {
            return winograd::rows(level, plan, x, &self.packed, epilogue, rows, target, out);
        }
        let start = target.at(rows.start as isize, 0) as usize;
        let pixels = &pixels[rows.start * plan.output[1]..rows.end * plan.output[1]];
        plan.forward.sums(level, x, &self.packed, pixels, epilogue, out, start);
    }

    /// A convolution's output for one padded image.
    pub(crate) fn convolve(&self, level: Level, plan: &Plan, x: &[f32], out: &mut [f32]) {
        let target = Padded::bare(plan.output, plan.conv.channels[1]);
        let rows = 0..plan.output[0];
        self.rows(level, plan, x, Epilogue::default(), rows, (&target, &plan.forward.pixels), out);
    }
}

/// Computes a layer's output from its padded input.
type Run<'a> = dyn Fn(&Stage, &[f32], &mut [f32]) + 'a;

/// A layer, ready to run.
struct Stage<'a> {
    plan: Arc<Plan>,
    weight: &'a Prepared,
    gain: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
    add: Option<(&'a [f32], f32)>,
    /// Where the output goes: into the middle of the next layer's padded input, or the path's output.
    target: Padded,
    pixels: Vec<Pixel>,
}

impl Stage<'_> {
    /// Some output rows of an image, of an even first one, into the target from its first of these rows on.
    fn rows(&self, level: Level, x: &[f32], image: usize, rows: Range<usize>, out: &mut [f32]) {
        let len = self.plan.output_len();
        let add = self.add.map(|(values, strength)| Add { values: &values[image * len..][..len], strength });
        let epilogue = Epilogue { affine: Some((&self.gain, &self.bias)), add, relu: self.relu };
        self.weight.rows(level, &self.plan, x, epilogue, rows, (&self.target, &self.pixels), out);
    }

    /// The part of a target that begins at its first pixel.
    fn inner<'b>(&self, target: &'b mut [f32]) -> &'b mut [f32] {
        &mut target[self.target.at(0, 0) as usize..]
    }
}

impl Path<'_> {
    /// The weights as [`Self::infer`] takes them.
    pub fn prepare(&self) -> Vec<Arc<Prepared>> {
        self.layers.iter().map(|layer| Arc::new(Prepared::new(&layer.conv, layer.weight))).collect()
    }

    /// The output, by norms that do not depend on the batch: `[batch, height, width, channels]`. Every sum
    /// gets its norm, shortcut and ReLU before it is written.
    ///
    /// # Panics
    /// If shapes do not agree, a norm is [`Norm::Batch`](crate::Norm::Batch), or the weights are prepared for other
    /// convolutions.
    pub fn infer(&self, level: Level, weights: &[Arc<Prepared>]) -> Buffer {
        let plans = self.plans();
        self.together(&plans, |alone| self.infer_planned(level, weights, &plans, alone))
    }

    fn infer_planned(&self, level: Level, weights: &[Arc<Prepared>], plans: &[Arc<Plan>], alone: bool) -> Buffer {
        self.check(plans);
        assert_eq!(weights.len(), plans.len(), "prepared weights");
        for (weight, layer) in weights.iter().zip(&self.layers) {
            assert_eq!(weight.conv, layer.conv, "a weight is prepared for another convolution");
        }
        let around = self.around(plans);
        let last = plans.len() - 1;
        let stage = |i: usize| {
            let scale = if i == last { self.scale } else { 1.0 };
            let Affine { mean, gain, bias } = self.layers[i].affine(None);
            let gain: Vec<f32> = gain.iter().map(|gain| scale * gain).collect();
            let bias = bias.iter().zip(&mean).zip(&gain).map(|((bias, mean), gain)| scale * bias - mean * gain);
            let plan = plans[i].clone();
            let channels = plan.conv.channels[1];
            let target = plans.get(i + 1).map_or(Padded::bare(plan.output, channels), |next| next.input);
            let places = target.rows().flat_map(|row| row.step_by(channels));
            let pixels =
                plan.forward.pixels.iter().zip(places).map(|(pixel, to)| Pixel { output: to as u32, ..*pixel });
            Stage {
                weight: &weights[i],
                relu: i < last || (self.relu && around.padded.is_none()),
                add: around.added.filter(|_| i == last),
                bias: bias.collect(),
                pixels: pixels.collect(),
                gain,
                target,
                plan,
            }
        };
        let stages: Vec<Stage> = (0..plans.len()).map(stage).collect();
        let workspaces = || plans.iter().map(|plan| plan.input.workspace()).collect::<Vec<_>>();
        // An image's way through the stages; `run` fills the inner part of each stage's target.
        let infer = |image, workspaces: &mut [Buffer], output: &mut [f32], run: &Run| {
            let direct = Source::Input(self.input).image(level, &plans[0], image, &mut workspaces[0]);
            for (i, stage) in stages.iter().enumerate() {
                let (before, after) = workspaces.split_at_mut(i + 1);
                let x = direct.filter(|_| i == 0).unwrap_or(&before[i]);
                run(stage, x, after.first_mut().map_or(&mut *output, |next| stage.inner(next)));
            }
            around.pad(level, self, image, output);
        };

        let (batch, threads) = (self.batch(), rayon::current_num_threads());
        let len = plans[last].output_len();
        let mut output = Buffer::roomy(batch * len);
        // One image after the other where there are images for all cores: then what is between layers stays in cache.
        if alone || batch >= 2 * threads {
            let size = batch.div_ceil(4 * threads).max(1);
            each(output.chunks_mut(len * size).enumerate(), alone, |(group, outputs)| {
                let mut workspaces = workspaces();
                for (i, output) in outputs.chunks_mut(len).enumerate() {
                    let image = group * size + i;
                    infer(image, &mut workspaces, output, &|stage, x, out| {
                        stage.rows(level, x, image, 0..stage.plan.output[0], out);
                    });
                }
            });
            return output;
        }
        let mut workspaces = workspaces();
        for (image, output) in output.chunks_mut(len).enumerate() {
            infer(image, &mut workspaces, output, &|stage, x, out| {
                let height = stage.plan.output[0];
                let rows = height.div_ceil(2 * threads).next_multiple_of(2);
                let strips = out[..stage.target.span()].chunks_mut(rows * stage.target.row());
                each(strips.enumerate(), is_small(1, &stage.plan), |(strip, out)| {
                    stage.rows(level, x, image, strip * rows..((strip + 1) * rows).min(height), out);
                });
            });
        }
        output
    }
}
