//! Direct convolutions as implicit matrix products, and the plan of a convolution: the memory layout of its operands.
//!
//! Images are channels-last, `[height, width, channels]`. If the convolution has padding, they are copied into a padded
//! workspace. The output at a pixel is then a sum over a few contiguous runs of the padded image: one run per kernel
//! row, or one per kernel tap if the convolution is dilated or grouped. The offsets of the runs are the same for every
//! pixel.
//!
//! The input gradient is a sum of the same form over the padded output gradient. The input pixels fall into stride²
//! classes, and all pixels of a class use the same kernel taps. A single loop, [`ImplicitGemm`], therefore computes all
//! outputs and input gradients. A second loop, [`WeightGradientGemm`](crate::tile::WeightGradientGemm), computes the
//! weight gradients.

use crate::{
    Conv, SimdLevel, Weight,
    elementwise::add_gradient,
    layout::PaddedImage,
    parallel::{for_each, images_per_task},
    tile::{BLOCK, Epilogue, ImplicitGemm, Pixel, Run, Runs},
    winograd::{self, Tiling},
};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

/// A set of pixels whose sums use the same kernel taps.
#[derive(Debug)]
pub(crate) struct PixelClass {
    pub(crate) pixels: Vec<Pixel>,
    /// The runs of the first group. The runs of the other groups are the same, relative to the first channel of the
    /// group.
    pub(crate) runs: Runs,
    /// The kernel taps in the order of the runs.
    taps: Vec<[usize; 2]>,
    groups: usize,
    /// The numbers of channels that a group reads and writes.
    channels: [usize; 2],
}

impl PixelClass {
    /// Computes the sums at some pixels of an image, for all groups. `out` begins at offset `start` of the output.
    #[expect(clippy::too_many_arguments, reason = "the operands of a convolution")]
    pub(crate) fn compute(
        &self,
        level: SimdLevel,
        x: &[f32],
        packed: &[f32],
        pixels: &[Pixel],
        epilogue: Epilogue,
        out: &mut [f32],
        start: usize,
    ) {
        for (gemm, channel) in self.products(x, packed, pixels, epilogue) {
            gemm.compute(level, &mut out[channel..], start);
        }
    }

    /// The matrix product of each group, with the group's first output channel.
    pub(crate) fn products<'a>(
        &'a self,
        x: &'a [f32],
        packed: &'a [f32],
        pixels: &'a [Pixel],
        epilogue: Epilogue<'a>,
    ) -> impl Iterator<Item = (ImplicitGemm<'a>, usize)> {
        let [inputs, outputs] = self.channels;
        let len = packed.len() / self.groups;
        (0..self.groups).map(move |group| {
            let (from, to) = (group * inputs, group * outputs);
            let gemm = ImplicitGemm {
                x: &x[from..],
                pixels,
                runs: &self.runs,
                weights: &packed[group * len..][..len],
                channels: outputs,
                epilogue: epilogue.skip_channels(to),
            };
            (gemm, to)
        })
    }
}

/// The input pixels whose coordinates have the same remainders when divided by the stride. In the input gradient, all of them
/// use the same kernel taps: along one axis, the input pixel `v = stride · q + remainder` contributes through tap k to the output
/// pixel `(v + padding - k · dilation) / stride = q + shift`, if this is an integer.
struct InputClass {
    remainders: [usize; 2],
    /// The numbers of rows and columns.
    size: [usize; 2],
    /// The taps with their shifts, in the order of the shifts.
    taps: Vec<([usize; 2], [isize; 2])>,
}

impl InputClass {
    /// The classes of all pixels of an image.
    fn all(conv: &Conv, image: [usize; 2]) -> Vec<Self> {
        let Conv { stride, padding, dilation, .. } = *conv;
        let shift = |remainder: usize, k: usize| {
            let v = (remainder + padding) as isize - (k * dilation) as isize;
            (v.rem_euclid(stride as isize) == 0).then(|| v.div_euclid(stride as isize))
        };
        let class = |remainders: [usize; 2]| {
            let [y, x] = remainders;
            let with_shift = |tap: [usize; 2]| Some((tap, [shift(y, tap[0])?, shift(x, tap[1])?]));
            let mut taps: Vec<_> = conv.taps().filter_map(with_shift).collect();
            taps.sort_by_key(|(_, shift)| *shift);
            Self { remainders, size: [0, 1].map(|axis| (image[axis] - remainders[axis]).div_ceil(stride)), taps }
        };
        let [rows, columns] = image.map(|side| 0..stride.min(side));
        rows.flat_map(|y| columns.clone().map(move |x| [y, x])).map(class).collect()
    }

    /// The number of rows and columns beyond an output gradient of this size that the taps read: above, left, below and right.
    fn margin(&self, output: [usize; 2]) -> [usize; 4] {
        let before = |axis: usize| self.taps.iter().map(|(_, shift)| -shift[axis]).max();
        let after = |axis: usize| {
            let beyond = |shift: isize| (self.size[axis] - 1) as isize + shift - (output[axis] - 1) as isize;
            self.taps.iter().map(|(_, shift)| beyond(shift[axis])).max()
        };
        [before(0), before(1), after(0), after(1)].map(|margin| margin.unwrap_or(0).max(0) as usize)
    }

    /// The sums of the input gradient over the padded output gradient. `width` is that of an input image.
    fn pixels(&self, conv: &Conv, width: usize, gradient: &PaddedImage) -> PixelClass {
        let ([inputs, outputs], [group_inputs, group_outputs]) = (conv.channels, conv.group_channels());
        let [first_y, first_x] = self.taps.first().map_or([0, 0], |(_, shift)| *shift);
        let min_x = self.taps.iter().map(|(_, [_, x])| *x).min().unwrap_or(first_x);
        let offset =
            |[y, x]: [isize; 2]| ((y - first_y) as usize * gradient.row() + (x - min_x) as usize * outputs) as u32;
        let pixel = |y: usize, x: usize| {
            let has_taps = !self.taps.is_empty();
            let input = if has_taps { gradient.at(y as isize + first_y, x as isize + min_x) } else { 0 };
            let [y, x] = [y * conv.stride + self.remainders[0], x * conv.stride + self.remainders[1]];
            Pixel { input, output: ((y * width + x) * inputs) as u32 }
        };
        let runs = self.taps.iter().map(|(_, shift)| Run { offset: offset(*shift), length: group_outputs as u32 });
        let [rows, columns] = self.size;
        PixelClass {
            pixels: (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))).map(|(y, x)| pixel(y, x)).collect(),
            runs: Runs::new(runs),
            taps: self.taps.iter().map(|(tap, _)| *tap).collect(),
            groups: conv.groups,
            channels: [group_outputs, group_inputs],
        }
    }
}

/// The memory layout of a convolution's operands, for images of a given size.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) conv: Conv,
    pub(crate) input: PaddedImage,
    pub(crate) output: [usize; 2],
    pub(crate) forward: PixelClass,
    /// The layout of the output gradient, padded for the sums of the input gradient.
    pub(crate) output_gradient: PaddedImage,
    /// For the input gradient: the classes of input pixels. Each pixel is in one class.
    pub(crate) backward: Vec<PixelClass>,
    /// For the weight gradient: the offsets of every output pixel in the padded input and in the padded output
    /// gradient.
    pub(crate) weight_gradient: Vec<Pixel>,
    /// The tiles of Winograd's algorithm, if it computes this convolution.
    pub(crate) winograd: Option<Tiling>,
}

/// The cache of plans. A network has a few dozen plans.
#[derive(Default)]
struct Plans {
    plans: HashMap<(Conv, [usize; 2]), Arc<Plan>>,
    /// The number of offsets in all plans.
    offsets: usize,
}

static PLANS: LazyLock<Mutex<Plans>> = LazyLock::new(Mutex::default);

fn plans() -> MutexGuard<'static, Plans> {
    PLANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Empties the cache. Plans in use stay until their operations end.
pub(crate) fn trim() {
    *plans() = Plans::default();
}

/// Weights of fewer values are packed on the calling thread.
const MIN_PARALLEL_PACK: usize = 1 << 16;

/// The cache is emptied when its plans hold more offsets than this (64 MiB), as after images of many sizes.
const MAX_OFFSETS: usize = 1 << 23;

impl Plan {
    /// Returns the plan for this convolution and this height and width of the images, from the cache if possible.
    ///
    /// # Panics
    /// If the kernel is larger than the padded image, an image has 2³² values or more, or [`Conv::output`] panics.
    pub(crate) fn of(conv: Conv, image: [usize; 2]) -> Arc<Self> {
        let mut cache = plans();
        if let Some(plan) = cache.plans.get(&(conv, image)) {
            return plan.clone();
        }
        let plan = Arc::new(Self::new(conv, image));
        if cache.offsets > MAX_OFFSETS {
            *cache = Plans::default();
        }
        cache.offsets += plan.offsets();
        cache.plans.insert((conv, image), plan.clone());
        plan
    }

    /// The number of pairs of offsets of all pixels.
    fn offsets(&self) -> usize {
        let pixels = |class: &PixelClass| class.pixels.len();
        pixels(&self.forward) + self.backward.iter().map(pixels).sum::<usize>() + self.weight_gradient.len()
    }

    fn new(conv: Conv, image: [usize; 2]) -> Self {
        let output = conv.output(image).expect("the kernel is larger than the padded image");
        let Conv { channels: [inputs, outputs], stride, padding, dilation, .. } = conv;
        let winograd = winograd::suits(&conv, output).then(|| Tiling::new(&conv, output));
        // Tiles may extend beyond the outputs.
        let more = if winograd.is_some() { winograd::overhang(output) } else { [0, 0] };
        let margin = [padding, padding, padding + more[0], padding + more[1]];
        let input = PaddedImage { size: image, channels: inputs, margin };
        // Offsets within an image are stored in 32 bits. The margins of the output gradient are smaller than the kernel.
        let gradient: usize =
            [0, 1].map(|axis| output[axis] + 2 * conv.kernel[axis] * dilation).iter().product::<usize>() * outputs;
        let largest = input.len().max(gradient);
        assert!(
            u32::try_from(largest).is_ok(),
            "an image has {largest} values, but the kernels support fewer than 2³²"
        );
        // The offset in the padded image of the value that the kernel's first tap reads for an output pixel.
        let corner = |y: usize, x: usize| {
            let at = |v: usize| (v * stride) as isize - padding as isize;
            input.at(at(y), at(x))
        };
        let pixels = || (0..output[0]).flat_map(|y| (0..output[1]).map(move |x| [y, x]));
        let offset = |[ky, kx]: [usize; 2]| (ky * dilation * input.row() + kx * dilation * inputs) as u32;
        let forward = PixelClass {
            pixels: pixels()
                .map(|[y, x]| Pixel { input: corner(y, x), output: ((y * output[1] + x) * outputs) as u32 })
                .collect(),
            runs: Runs::new(
                conv.taps().map(|tap| Run { offset: offset(tap), length: conv.group_channels()[0] as u32 }),
            ),
            taps: conv.taps().collect(),
            groups: conv.groups,
            channels: conv.group_channels(),
        };

        let classes = InputClass::all(&conv, image);
        let margins = classes.iter().map(|class| class.margin(output));
        let mut margin = margins.fold([0; 4], |a, b| [0, 1, 2, 3].map(|side| a[side].max(b[side])));
        margin[2] += more[0];
        margin[3] += more[1];
        let output_gradient = PaddedImage { size: output, channels: outputs, margin };
        let backward = classes.iter().map(|class| class.pixels(&conv, image[1], &output_gradient)).collect();
        let weight_gradient = pixels()
            .map(|[y, x]| Pixel { input: corner(y, x), output: output_gradient.at(y as isize, x as isize) })
            .collect();
        Self { conv, input, output, forward, output_gradient, backward, weight_gradient, winograd }
    }

    /// The number of images that a task of the forward pass computes one after the other.
    pub(crate) fn images_per_task(&self, batch: usize) -> usize {
        let together = self.winograd.as_ref().map_or(1, Tiling::images);
        let threads = rayon::current_num_threads();
        images_per_task(batch, together, 16 * threads, threads)
    }

    /// The tiles, and the number of images that [`Wide`](crate::winograd::Wide) transforms together, if there are enough channels
    /// for it.
    pub(crate) fn wide(&self) -> Option<(&Tiling, usize)> {
        self.winograd.as_ref().and_then(|tiling| Some((tiling, tiling.wide_images()?)))
    }

    /// The number of values per input image.
    pub(crate) fn input_len(&self) -> usize {
        self.input.size[0] * self.input.size[1] * self.conv.channels[0]
    }

    /// The number of pixels per output image.
    pub(crate) fn output_pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// The number of values per output image.
    pub(crate) fn output_len(&self) -> usize {
        self.output_pixels() * self.conv.channels[1]
    }

    /// Adds packed weight gradients in order, and unpacks the sum in the order of the weight. The first of them is overwritten.
    pub(crate) fn sum_and_unpack(&self, level: SimdLevel, packed: &mut [f32], order: Weight) -> Vec<f32> {
        let mut gradient = vec![0.0; self.conv.weights()];
        let weight = &mut gradient[..];
        let [inputs, outputs] = self.conv.group_channels();
        let taps = self.conv.kernel[0] * self.conv.kernel[1];
        let len = self.conv.packed_len();
        let serial = packed.len() < MIN_PARALLEL_PACK;
        let (sum, rest) = packed.split_at_mut(len);
        let block_len = taps * inputs * BLOCK;
        let add = |block: usize, sum: &mut [f32]| {
            for other in rest.chunks(len) {
                add_gradient(level, &other[block * block_len..][..block_len], None, 0, 1.0, false, sum);
            }
        };
        let blocks = sum.chunks_mut(block_len).enumerate();
        if matches!(order, Weight::InputsFirst(_)) {
            for_each(blocks, serial, |(block, sum)| add(block, sum));
            for_each(weight.chunks_mut(outputs).enumerate(), serial, |(input, weight)| {
                let mut sums = sum.chunks(block_len).map(|sum| &sum[input * BLOCK..][..BLOCK]);
                let (blocks, rest) = weight.as_chunks_mut::<BLOCK>();
                blocks.iter_mut().zip(&mut sums).for_each(|(weight, sum)| weight.copy_from_slice(sum));
                if let Some(sum) = sums.next() {
                    rest.copy_from_slice(&sum[..rest.len()]);
                }
            });
            return gradient;
        }
        let weights =
            weight.chunks_mut(outputs * inputs * taps).flat_map(|group| group.chunks_mut(BLOCK * inputs * taps));
        for_each(blocks.zip(weights), serial, |((block, sum), weight)| {
            add(block, sum);
            // A few inputs at a time, so that the lines of all their taps stay in the L1 cache for all lanes.
            for from in (0..inputs).step_by(BLOCK) {
                let count = BLOCK.min(inputs - from);
                for (lane, weight) in weight.chunks_mut(inputs * taps).enumerate() {
                    let weight = &mut weight[from * taps..][..count * taps];
                    for tap in 0..taps {
                        let sum = sum[(tap * inputs + from) * BLOCK + lane..].iter().step_by(BLOCK);
                        weight[tap..].iter_mut().step_by(taps).zip(sum).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        });
        gradient
    }

    /// Packs a weight for the input gradient: for each class of [`Self::backward`], the weights of its taps.
    pub(crate) fn pack_transposed(&self, weight: Weight, packed: &mut [f32]) {
        let weight = match weight {
            Weight::OutputsFirst(weight) => weight,
            // The transposed layer has these as its outputs.
            Weight::InputsFirst(weight) => return self.conv.transposed().pack(Weight::OutputsFirst(weight), packed),
        };
        let [inputs, outputs] = self.conv.group_channels();
        let [_, columns] = self.conv.kernel;
        let taps = self.conv.kernel[0] * columns;
        let mut rest = &mut packed[..self.conv.transposed().packed_len()];
        let mut blocks = Vec::new();
        for class in &self.backward {
            for group in 0..self.conv.groups {
                for first in (0..inputs).step_by(BLOCK) {
                    let block;
                    (block, rest) = rest.split_at_mut(class.taps.len() * outputs * BLOCK);
                    blocks.push((class, group, first, block));
                }
            }
        }
        for_each(blocks.into_iter(), weight.len() < MIN_PARALLEL_PACK, |(class, group, first, block)| {
            let count = BLOCK.min(inputs - first);
            for output in 0..outputs {
                // The taps of an output are neighbours in memory.
                let weight = &weight[((group * outputs + output) * inputs + first) * taps..][..count * taps];
                for (i, [ky, kx]) in class.taps.iter().enumerate() {
                    let to = &mut block[(i * outputs + output) * BLOCK..][..BLOCK];
                    let weight = weight[ky * columns + kx..].iter().step_by(taps);
                    to[..count].iter_mut().zip(weight).for_each(|(to, from)| *to = *from);
                    to[count..].fill(0.0);
                }
            }
        });
    }

    /// Each class of [`Self::backward`] with its part of the weights packed by [`Self::pack_transposed`].
    pub(crate) fn classes<'a>(&'a self, packed: &'a [f32]) -> impl Iterator<Item = (&'a PixelClass, &'a [f32])> {
        let [inputs, _] = self.conv.group_channels();
        let mut from = 0;
        self.backward.iter().map(move |class| {
            let len = self.conv.groups * inputs.div_ceil(BLOCK) * BLOCK * class.runs.depth();
            let weights = &packed[from..from + len];
            from += len;
            (class, weights)
        })
    }
}
