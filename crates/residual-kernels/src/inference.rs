//! Inference: main paths without batch statistics.

use crate::{
    Buffer, Conv, ConvNorm, Path, SimdLevel, Weight,
    buffer::Scratch,
    elementwise::Affine,
    layout::PaddedImage,
    parallel::{divide, for_each, images_per_task},
    path::{LayerInput, ShortcutAdd, is_small},
    plan::Plan,
    simd::Ahead,
    tile::{Addend, Epilogue, MANY_WEIGHTS, Pixel},
    winograd::{self, Kernels, Pass, SIDE, Tiling, Transforms, Wide, WideWeight},
};
use std::{borrow::Cow, mem, ops::Range, sync::Arc};

/// A weight in the layout that the kernels read: packed into blocks, or transformed for Winograd's algorithm.
#[derive(Debug)]
pub struct PreparedWeight {
    conv: Conv,
    winograd: bool,
    packed: Buffer,
}

impl PreparedWeight {
    /// Prepares a weight for images of this height and width.
    ///
    /// # Panics
    /// If `conv` is invalid (see [`Conv::output`]), or the weight does not suit it.
    pub fn new(level: SimdLevel, conv: &Conv, image: [usize; 2], weight: Weight) -> Self {
        weight.check(conv);
        let winograd = winograd::suits_prepared(conv, image);
        let len = if winograd { winograd::transformed_len(conv.channels) } else { conv.packed_len() };
        let mut packed = Buffer::new(len);
        if winograd {
            winograd::transform_weight(level, conv, Kernels::OutputsFirst(weight.values()), &mut packed);
        } else {
            conv.pack(weight, &mut packed);
        }
        Self { conv: *conv, winograd, packed }
    }

    /// Whether the weight is prepared for this convolution and for images of this height and width.
    pub fn fits(&self, conv: &Conv, image: [usize; 2]) -> bool {
        (self.conv, self.winograd) == (*conv, winograd::suits_prepared(conv, image))
    }

    /// The tiles of the plan, if the weight is transformed for them.
    fn tiling<'p>(&self, plan: &'p Plan) -> Option<&'p Tiling> {
        plan.winograd.as_ref().filter(|_| self.winograd)
    }

    /// Computes the outputs of some images. `input` returns an image, or writes the padded image to the workspace and
    /// returns `None`; it reads the image from `source`. `done` is called with every finished output.
    pub(crate) fn convolve<'x>(
        &self,
        level: SimdLevel,
        plan: &Plan,
        source: &[f32],
        input: impl Fn(usize, &mut [f32]) -> Option<&'x [f32]>,
        outputs: &mut [f32],
        mut done: impl FnMut(usize, &[f32]),
    ) {
        let tiling = self.tiling(plan);
        let transform_len = tiling.map_or(0, Tiling::transform_len);
        let mut scratch = Scratch::new([plan.input.workspace_len(), transform_len, transform_len]);
        let [workspace, from, to] = scratch.slices();
        let workspace = plan.input.workspace(workspace);
        let len = plan.output_len();
        let Some(tiling) = tiling else {
            for (image, out) in outputs.chunks_mut(len).enumerate() {
                let x = input(image, workspace).unwrap_or(workspace);
                plan.forward.compute(level, x, &self.packed, &plan.forward.pixels, Epilogue::default(), out, 0);
                done(image, out);
            }
            return;
        };
        let target = PaddedImage::unpadded(plan.output, plan.conv.channels[1]);
        let mut transforms = Transforms::new(level, tiling, [from, to]);
        for band in tiling.bands(outputs.len() / len) {
            for (image, place) in band.images() {
                if band.tiles.start == 0 {
                    input(image, workspace);
                }
                transforms.transform_input(&plan.input, workspace, band.tiles.clone(), place);
            }
            let next = Ahead::read(tiling.next(&band, source, plan.input_len()));
            let out = Ahead::write(tiling.own(&band, outputs, len));
            transforms.multiply(Pass::Forward, &self.packed, &band, &[next, out]);
            for (image, place) in band.images() {
                let out = &mut outputs[image * len..][..len];
                transforms.write_output(band.tiles.clone(), place, Epilogue::default(), &target, out, 0);
                if band.tiles.end == tiling.tiles() {
                    done(image, out);
                }
            }
        }
    }
}

/// With at least this many tiles in a batch, [`Wide`] is faster than direct sums, although it transforms the weights.
const MIN_WIDE_TILES: usize = 12;

/// How threads share an image.
enum Share {
    /// Each computes some channels of all pixels.
    Channels,
    /// Each computes all channels of some pixels. This is the number of parts.
    Pixels(usize),
}

/// A layer with its norm folded into the epilogue.
struct PreparedLayer<'a> {
    /// The number of images.
    batch: usize,
    plan: &'a Plan,
    weight: &'a PreparedWeight,
    gain: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
    /// The shortcut's tensor and α, for the last layer.
    addend: Option<(&'a [f32], f32)>,
    /// Whether the output is that of the path, and not the next layer's workspace.
    is_last: bool,
    /// The layout of the output: the next layer's padded input, or the path's output, which is not padded.
    target: PaddedImage,
    /// The pixels of [`Plan::forward`], with output offsets in the layout `target`. Empty if the weight is transformed in advance.
    pixels: Cow<'a, [Pixel]>,
}

impl PreparedLayer<'_> {
    fn epilogue(&self, image: usize) -> Epilogue<'_> {
        let len = self.plan.output_len();
        let add = self.addend.map(|(values, strength)| Addend { values: &values[image * len..][..len], strength });
        Epilogue { affine: Some((&self.gain, &self.bias)), add, relu: self.relu }
    }

    /// Computes some output pixels of an image. The convolution does not use Winograd's algorithm. `out` begins at the first
    /// of the pixels.
    fn pixels(&self, level: SimdLevel, x: &[f32], image: usize, pixels: Range<usize>, out: &mut [f32]) {
        let Some(first) = self.pixels.get(pixels.start) else { return };
        let (epilogue, start) = (self.epilogue(image), first.output as usize);
        self.plan.forward.compute(level, x, &self.weight.packed, &self.pixels[pixels], epilogue, out, start);
    }

    /// How threads share an image: as each part reads all weights, or all inputs, there are few parts if they are many.
    fn share(&self) -> Share {
        let (weights, threads) = (self.weight.packed.len(), rayon::current_num_threads());
        match weights {
            _ if self.plan.conv.groups == 1 && weights > 4 * self.plan.input_len() => Share::Channels,
            MANY_WEIGHTS.. => Share::Pixels(threads),
            _ => Share::Pixels(4 * threads),
        }
    }

    /// Computes an image on all threads.
    fn image_on_all_threads(&self, level: SimdLevel, x: &[f32], image: usize, out: &mut [f32]) {
        let Self { plan, target, .. } = self;
        let out = &mut out[..target.span()];
        let (serial, start) = (is_small(1, plan), target.at(0, 0) as usize);
        let Some(tiling) = self.weight.tiling(plan) else {
            if serial {
                return self.pixels(level, x, image, 0..self.pixels.len(), out);
            }
            let Share::Pixels(parts) = self.share() else {
                let (weights, epilogue) = (&self.weight.packed, self.epilogue(image));
                for (product, channel) in plan.forward.products(x, weights, &self.pixels, epilogue) {
                    product.compute_on_all_threads(level, &mut out[channel..], start);
                }
                return;
            };
            let mut rest = out;
            let parts = divide(self.pixels.len(), parts).map(|part| {
                let offset = |pixel: usize| self.pixels.get(pixel).map_or(target.span(), |p| p.output as usize - start);
                let (out, after) = mem::take(&mut rest).split_at_mut(offset(part.end) - offset(part.start));
                rest = after;
                (part, out)
            });
            return for_each(parts, false, |(pixels, out)| self.pixels(level, x, image, pixels, out));
        };
        let height = plan.output[0];
        // Strips of whole tiles, and at least four per thread if there are so many.
        let rows = SIDE * (height / (4 * SIDE * rayon::current_num_threads())).max(1);
        for_each(out.chunks_mut(rows * target.row()).enumerate(), serial, |(strip, out)| {
            let (first, end) = (strip * rows, ((strip + 1) * rows).min(height));
            let start = target.at(first as isize, 0) as usize;
            let mut scratch = Scratch::new([tiling.transform_len(); 2]);
            let mut transforms = Transforms::new(level, tiling, scratch.slices());
            for band in tiling.bands_of_rows(first..end) {
                transforms.transform_input(&plan.input, x, band.tiles.clone(), 0);
                transforms.multiply(Pass::Forward, &self.weight.packed, &band, &[]);
                transforms.write_output(band.tiles, 0, self.epilogue(image), target, out, start);
            }
        });
    }

    /// Computes the outputs of consecutive images, of which `first` is the first. Meanwhile, it asks for the memory of the
    /// output, unless this is the next layer's workspace, and for the values `next`.
    fn images(&self, level: SimdLevel, inputs: &[&[f32]], first: usize, outputs: &mut [&mut [f32]], next: &[f32]) {
        let Self { plan, target, .. } = self;
        let Some(tiling) = self.weight.tiling(plan) else {
            for (i, (x, out)) in inputs.iter().zip(outputs).enumerate() {
                self.pixels(level, x, first + i, 0..self.pixels.len(), out);
            }
            return;
        };
        let start = target.at(0, 0) as usize;
        let mut scratch = Scratch::new([tiling.transform_len(); 2]);
        let mut transforms = Transforms::new(level, tiling, scratch.slices());
        for band in tiling.bands(inputs.len()) {
            for (i, place) in band.images() {
                transforms.transform_input(&plan.input, inputs[i], band.tiles.clone(), place);
            }
            let mut ahead = vec![Ahead::read(tiling.own(&band, next, next.len() / inputs.len()))];
            for i in band.images.clone().filter(|_| self.is_last) {
                ahead.push(Ahead::write(tiling.part(&band, outputs[i])));
                ahead.extend(self.epilogue(first + i).add.map(|add| Ahead::read(tiling.part(&band, add.values))));
            }
            transforms.multiply(Pass::Forward, &self.weight.packed, &band, &ahead);
            for (i, place) in band.images() {
                let epilogue = self.epilogue(first + i);
                transforms.write_output(band.tiles.clone(), place, epilogue, target, outputs[i], start);
            }
        }
    }

    /// The tiles and the weight for [`Wide`], if it is the fastest way for the batch.
    fn wide(&self) -> Option<(&Tiling, WideWeight<'_>)> {
        let (tiling, weight) = (self.plan.winograd.as_ref()?, &self.weight.packed);
        if self.weight.winograd {
            let is_shared = self.batch < rayon::current_num_threads() && !is_small(self.batch, self.plan);
            return (is_shared && tiling.has_many_weights()).then_some((tiling, WideWeight::Transformed(weight)));
        }
        let is_faster = tiling.wide_images().is_some() && self.batch * tiling.tiles() >= MIN_WIDE_TILES;
        is_faster.then_some((tiling, WideWeight::Kernels(Kernels::Packed(weight))))
    }

    /// [`Self::images`] on all threads.
    fn images_on_all_threads(&self, level: SimdLevel, inputs: &[&[f32]], first: usize, outputs: &mut [&mut [f32]]) {
        let Self { plan, target, .. } = self;
        if let Some((tiling, weight)) = self.wide() {
            let most = (winograd::TILES / inputs.len()).max(1);
            for tiles in divide(tiling.tiles(), tiling.tiles().div_ceil(most)) {
                let wide = Wide::new(level, tiling, tiles, inputs.len());
                let mut scratch = Scratch::new([wide.transform_len(plan.conv.channels[0])]);
                let [from] = scratch.slices();
                wide.transform_inputs(&plan.input, inputs, from);
                let outputs = outputs.iter_mut().map(|out| &mut **out).collect();
                wide.convolve(weight, from, |i| self.epilogue(first + i), target, outputs);
            }
            return;
        }
        let images = inputs.iter().zip(outputs).enumerate();
        if inputs.len() < rayon::current_num_threads() {
            images.for_each(|(i, (x, out))| self.image_on_all_threads(level, x, first + i, out));
        } else {
            for_each(images, false, |(i, (x, out))| self.images(level, &[x], first + i, &mut [out], &[]));
        }
    }

    /// The part of a padded image with the layout `target` that starts at its first pixel.
    fn skip_margin<'b>(&self, target: &'b mut [f32]) -> &'b mut [f32] {
        &mut target[self.target.at(0, 0) as usize..]
    }
}

/// The number of values of [`workspaces`].
fn workspaces_len(plans: &[Arc<Plan>], images: usize) -> usize {
    plans.iter().map(|plan| images * plan.input.workspace_len()).sum()
}

/// The workspaces of each layer for the padded inputs of some images.
fn workspaces<'a>(plans: &[Arc<Plan>], images: usize, mut memory: &'a mut [f32]) -> Vec<Vec<&'a mut [f32]>> {
    let of_plan = |plan: &Arc<Plan>| {
        let now;
        (now, memory) = mem::take(&mut memory).split_at_mut(images * plan.input.workspace_len());
        plan.input.workspaces(now)
    };
    plans.iter().map(of_plan).collect()
}

impl Path<'_> {
    /// Prepares the weights for [`Self::infer`].
    pub fn prepare(&self, level: SimdLevel) -> Vec<Arc<PreparedWeight>> {
        let prepare = |(layer, plan): (&ConvNorm, Arc<Plan>)| {
            Arc::new(PreparedWeight::new(level, &layer.conv, plan.input.size, layer.weight))
        };
        self.layers.iter().zip(self.plans()).map(prepare).collect()
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

    /// Layer `i` with its norm folded into the epilogue.
    fn prepared_layer<'a>(
        &'a self,
        weights: &'a [Arc<PreparedWeight>],
        plans: &'a [Arc<Plan>],
        shortcut: &ShortcutAdd<'a>,
        i: usize,
    ) -> PreparedLayer<'a> {
        let (plan, is_last) = (&*plans[i], i + 1 == plans.len());
        let scale = if is_last { self.scale } else { 1.0 };
        let Affine { mean, gain, bias } = self.layers[i].affine(None);
        let gain: Vec<f32> = gain.iter().map(|gain| scale * gain).collect();
        let bias = bias.iter().zip(&mean).zip(&gain).map(|((bias, mean), gain)| scale * bias - mean * gain);
        let channels = plan.conv.channels[1];
        let target = plans.get(i + 1).map_or(PaddedImage::unpadded(plan.output, channels), |next| next.input);
        let pixels = match &plan.forward.pixels[..] {
            _ if weights[i].tiling(plan).is_some() => Cow::default(),
            pixels if !target.is_padded() => Cow::Borrowed(pixels),
            pixels => {
                let offsets = target.rows().flat_map(|row| row.step_by(channels));
                pixels.iter().zip(offsets).map(|(pixel, to)| Pixel { output: to as u32, ..*pixel }).collect()
            }
        };
        PreparedLayer {
            batch: self.batch(),
            weight: &weights[i],
            is_last,
            relu: !is_last || (self.relu && shortcut.zero_pad.is_none()),
            addend: shortcut.tensor.filter(|_| is_last),
            bias: bias.collect(),
            pixels,
            gain,
            target,
            plan,
        }
    }

    /// Computes the outputs of consecutive images, of which `first` is the first: on this thread if `one_thread` is true, and on
    /// all threads otherwise.
    fn infer_images(
        &self,
        level: SimdLevel,
        layers: &[PreparedLayer],
        workspaces: &mut [Vec<&mut [f32]>],
        one_thread: bool,
        first: usize,
        outputs: &mut [f32],
    ) {
        let mut outputs: Vec<&mut [f32]> = outputs.chunks_mut(layers[layers.len() - 1].plan.output_len()).collect();
        let images = outputs.len();
        let (input, plan) = (LayerInput::PathInput(self.input), &layers[0].plan);
        for_each(workspaces[0][..images].iter_mut().enumerate(), one_thread, |(i, workspace)| {
            input.image(level, plan, first + i, workspace);
        });
        // The inputs of the images after these.
        let len = plan.input_len();
        let next = [first + images, first + 2 * images].map(|image| (image * len).min(self.input.len()));
        let next = &self.input[next[0]..next[1]];
        for (i, layer) in layers.iter().enumerate() {
            let next = if i == 0 { next } else { &[] };
            let (before, after) = workspaces.split_at_mut(i + 1);
            let in_place = |k: usize| if i == 0 { input.in_place(plan, first + k) } else { None };
            let inputs: Vec<&[f32]> = (0..images).map(|k| in_place(k).unwrap_or(before[i][k])).collect();
            let compute = |outputs: &mut [&mut [f32]]| match one_thread {
                true => layer.images(level, &inputs, first, outputs, next),
                false => layer.images_on_all_threads(level, &inputs, first, outputs),
            };
            match after.first_mut() {
                Some(after) => {
                    let images = after[..images].iter_mut().map(|image| layer.skip_margin(image));
                    compute(&mut images.collect::<Vec<_>>());
                }
                None => compute(&mut outputs),
            }
        }
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
        for (weight, plan) in weights.iter().zip(plans) {
            let fits = weight.fits(&plan.conv, plan.input.size);
            assert!(fits, "the weight was prepared for a different convolution or size of images");
        }
        let shortcut = self.shortcut_add(plans);
        let layers: Vec<_> = (0..plans.len()).map(|i| self.prepared_layer(weights, plans, &shortcut, i)).collect();
        let (batch, threads) = (self.batch(), rayon::current_num_threads());
        let len = plans[plans.len() - 1].output_len();
        let mut output = Buffer::new(batch * len);
        let wide_images = layers.iter().filter_map(|layer| layer.wide()?.0.wide_images()).min();
        // If there are enough images for all threads, each thread computes whole images, a few at a time, so that the
        // outputs of all layers but the last stay in cache. Otherwise, the threads share the images.
        let one_thread = wide_images.is_none() && (serial || batch >= 2 * threads);
        let (size, together) = if one_thread {
            let tilings = layers.iter().filter_map(|layer| layer.weight.tiling(layer.plan));
            let together = tilings.map(Tiling::images).max().unwrap_or(1);
            let size = images_per_task(batch, together, 4 * threads, threads);
            (size, together.min(size))
        } else {
            let most = wide_images.map_or(1, |images| images.max(threads));
            (batch.max(1), batch.div_ceil(batch.div_ceil(most).max(1)))
        };
        for_each(output.chunks_mut(len * size).enumerate(), serial, |(task, outputs)| {
            let mut scratch = Scratch::new([workspaces_len(plans, together)]);
            let [memory] = scratch.slices();
            let mut workspaces = workspaces(plans, together, memory);
            for (i, outputs) in outputs.chunks_mut(len * together).enumerate() {
                let first = task * size + i * together;
                self.infer_images(level, &layers, &mut workspaces, one_thread, first, outputs);
                for_each(outputs.chunks_mut(len).enumerate(), one_thread, |(i, output)| {
                    shortcut.add_zero_padded(level, self, first + i, output);
                });
            }
        });
        output
    }
}
