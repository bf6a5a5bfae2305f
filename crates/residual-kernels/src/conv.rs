//! Convolutions as sums over runs of numbers.
//!
//! Images are channels-last, `[height, width, channels]`, and padded in a workspace before they are
//! read. Then the output at a pixel is a sum over a few contiguous runs from that pixel on, one for
//! each row of the kernel, whatever the stride, dilation and padding. The input gradient is such a
//! sum over the padded output gradient, for each of the stride² classes of input pixels that see the
//! same taps of the kernel. So one loop computes all of it ([`Sums`]), and one the weight gradient
//! ([`Products`]).

use crate::{
    Buffer, Level,
    tile::{BLOCK, Epilogue, Pixel, Run, Runs, Sums},
    winograd,
};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// A convolution of images: `z[o, y, x] = Σ W[o, i, ky, kx] · a[i, y·stride + ky·dilation - padding, …]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Channels of the input and of the output.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// The stride, both ways.
    pub stride: usize,
    /// Rows and columns of zeros on each side.
    pub padding: usize,
    /// The distance of the kernel's taps.
    pub dilation: usize,
    /// Groups: outputs of a group see only the inputs of the group.
    pub groups: usize,
}

impl Conv {
    /// A convolution of stride 1 that keeps the size of the image.
    pub fn same(channels: [usize; 2], kernel: usize) -> Self {
        Self { channels, kernel: [kernel; 2], stride: 1, padding: kernel / 2, dilation: 1, groups: 1 }
    }

    /// Height and width of the output, or `None` if the kernel is larger than the padded image.
    pub fn output(&self, image: [usize; 2]) -> Option<[usize; 2]> {
        let side = |size: usize, kernel: usize| {
            let kernel = (kernel - 1) * self.dilation + 1;
            Some((size + 2 * self.padding).checked_sub(kernel)? / self.stride + 1)
        };
        Some([side(image[0], self.kernel[0])?, side(image[1], self.kernel[1])?])
    }

    /// Numbers of the weight, `[out, in / groups, kernel height, kernel width]`.
    pub fn weights(&self) -> usize {
        self.channels[1] * self.group_channels()[0] * self.kernel[0] * self.kernel[1]
    }

    /// Multiply-adds for an image of this height and width.
    pub fn multiply_adds(&self, image: [usize; 2]) -> usize {
        self.output(image).map_or(0, |[h, w]| h * w * self.weights())
    }

    pub(crate) fn group_channels(&self) -> [usize; 2] {
        self.channels.map(|c| c / self.groups)
    }

    /// Numbers of a packed weight (or of a weight's gradient, packed).
    pub(crate) fn packed_len(&self) -> usize {
        let [inputs, outputs] = self.group_channels();
        self.groups * outputs.div_ceil(BLOCK) * BLOCK * inputs * self.kernel[0] * self.kernel[1]
    }

    /// Packs a weight for [`Plan::forward`].
    pub(crate) fn pack(&self, weight: &[f32], packed: &mut [f32]) {
        let [inputs, outputs] = self.group_channels();
        let taps = self.kernel[0] * self.kernel[1];
        assert_eq!(weight.len(), self.weights(), "a weight's length");
        let blocks = outputs.div_ceil(BLOCK);
        let pack = |(index, packed): (usize, &mut [f32])| {
            let (group, first) = (index / blocks, index % blocks * BLOCK);
            for lane in 0..BLOCK {
                if first + lane >= outputs {
                    packed.iter_mut().skip(lane).step_by(BLOCK).for_each(|w| *w = 0.0);
                    continue;
                }
                let weight = &weight[(group * outputs + first + lane) * inputs * taps..][..inputs * taps];
                for tap in 0..taps {
                    let packed = packed[tap * inputs * BLOCK + lane..].iter_mut().step_by(BLOCK);
                    packed.zip(weight[tap..].iter().step_by(taps)).for_each(|(to, from)| *to = *from);
                }
            }
        };
        let packed = &mut packed[..self.packed_len()];
        let block_len = taps * inputs * BLOCK;
        if packed.len() < 1 << 16 {
            packed.chunks_mut(block_len).enumerate().for_each(pack);
        } else {
            packed.par_chunks_mut(block_len).enumerate().for_each(pack);
        }
    }

    fn taps(&self) -> impl Iterator<Item = [usize; 2]> + Clone {
        let [rows, columns] = self.kernel;
        (0..rows).flat_map(move |y| (0..columns).map(move |x| [y, x]))
    }
}

/// An image with zeros around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Padded {
    pub(crate) size: [usize; 2],
    pub(crate) channels: usize,
    /// Zeros above, left, below, right.
    pub(crate) margin: [usize; 4],
}

impl Padded {
    /// Numbers of a row, margins included.
    pub(crate) fn row(&self) -> usize {
        (self.margin[1] + self.size[1] + self.margin[3]) * self.channels
    }

    pub(crate) fn is_padded(&self) -> bool {
        self.margin != [0; 4]
    }

    /// Numbers, with those behind the last that a block may read.
    pub(crate) fn len(&self) -> usize {
        (self.margin[0] + self.size[0] + self.margin[2]) * self.row() + BLOCK
    }

    /// Numbers from the first pixel to the last.
    pub(crate) fn span(&self) -> usize {
        (self.size[0] - 1) * self.row() + self.size[1] * self.channels
    }

    /// Where a pixel's channels begin.
    pub(crate) fn at(&self, y: isize, x: isize) -> u32 {
        let (y, x) = (y + self.margin[0] as isize, x + self.margin[1] as isize);
        debug_assert!(y >= 0 && x >= 0);
        u32::try_from(y as usize * self.row() + x as usize * self.channels).expect("an image of more than 2³² numbers")
    }

    /// The image's rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Range<usize>> + Clone {
        let (row, channels) = (self.row(), self.channels);
        let ([height, width], [top, left, ..]) = (self.size, self.margin);
        (0..height).map(move |y| {
            let from = (top + y) * row + left * channels;
            from..from + width * channels
        })
    }

    /// Memory for such an image, with the zeros around and behind it.
    pub(crate) fn workspace(&self) -> Buffer {
        let mut image = Buffer::new(self.len());
        let mut from = 0;
        for row in self.rows() {
            image[from..row.start].fill(0.0);
            from = row.end;
        }
        image[from..].fill(0.0);
        image
    }
}

/// The sums that one class of pixels shares.
#[derive(Debug)]
pub(crate) struct Taps {
    pub(crate) pixels: Vec<Pixel>,
    /// For the first group; the others are further on by their channels.
    pub(crate) runs: Runs,
    order: Vec<[usize; 2]>,
}

/// Where a convolution's numbers are, for images of one size.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) conv: Conv,
    pub(crate) input: Padded,
    pub(crate) output: [usize; 2],
    pub(crate) forward: Taps,
    /// The output gradient as the input gradient's sums read it.
    pub(crate) gradient: Padded,
    /// Their classes; together all pixels of the input.
    pub(crate) backward: Vec<Taps>,
    /// Each output pixel's place in the padded input and in the padded output gradient.
    pub(crate) products: Vec<Pixel>,
}

type Plans = HashMap<(Conv, [usize; 2]), Arc<Plan>>;

/// Plans of convolutions seen so far; a net has a few dozen.
static PLANS: LazyLock<Mutex<Plans>> = LazyLock::new(Mutex::default);

/// Plans kept before all are forgotten.
const MOST_PLANS: usize = 1024;

impl Plan {
    /// The plan for this convolution of images of this height and width.
    ///
    /// # Panics
    /// If the kernel is larger than the padded image.
    pub(crate) fn of(conv: Conv, image: [usize; 2]) -> Arc<Self> {
        let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.entry((conv, image)).or_insert_with(|| Arc::new(Self::new(conv, image))).clone()
    }

    fn new(conv: Conv, image: [usize; 2]) -> Self {
        let output = conv.output(image).expect("the kernel is larger than the padded image");
        let Conv { channels: [inputs, outputs], stride, padding, dilation, .. } = conv;
        let [group_inputs, group_outputs] = conv.group_channels();
        // Two outputs at a time read one row and column more where their number is odd.
        let more = if winograd::suits(&conv) { output.map(|side| side % 2) } else { [0, 0] };
        let margin = [padding, padding, padding + more[0], padding + more[1]];
        let input = Padded { size: image, channels: inputs, margin };
        // The kernel's first tap at an output pixel, in the coordinates of the padded image.
        let corner = |y: usize, x: usize| {
            let at = |v: usize| (v * stride) as isize - padding as isize;
            input.at(at(y), at(x))
        };
        let pixels = || (0..output[0]).flat_map(|y| (0..output[1]).map(move |x| [y, x]));
        let offset = |[ky, kx]: [usize; 2]| (ky * dilation * input.row() + kx * dilation * inputs) as u32;
        let forward = Taps {
            pixels: pixels()
                .map(|[y, x]| Pixel { input: corner(y, x), output: ((y * output[1] + x) * outputs) as u32 })
                .collect(),
            runs: Runs::new(conv.taps().map(|tap| Run { offset: offset(tap), length: group_inputs as u32 })),
            order: conv.taps().collect(),
        };

        // The input pixel at v = stride·q + class sees tap k at output pixel (v + padding - k·dilation) / stride,
        // where that is whole: at q + shift.
        let shift = |class: usize, k: usize| {
            let v = (class + padding) as isize - (k * dilation) as isize;
            (v.rem_euclid(stride as isize) == 0).then(|| v.div_euclid(stride as isize))
        };
        let mut margin = [0usize; 4];
        let mut classes = Vec::new();
        for class_y in 0..stride.min(image[0]) {
            for class_x in 0..stride.min(image[1]) {
                let seen = |[ky, kx]: [usize; 2]| Some(([ky, kx], [shift(class_y, ky)?, shift(class_x, kx)?]));
                let mut taps: Vec<_> = conv.taps().filter_map(seen).collect();
                taps.sort_by_key(|(_, shift)| *shift);
                let rows = (image[0] - class_y).div_ceil(stride);
                let columns = (image[1] - class_x).div_ceil(stride);
                for (_, [y, x]) in &taps {
                    let beyond = |last: usize, shift: isize, size: usize| {
                        ((last - 1) as isize + shift - (size as isize - 1)).max(0) as usize
                    };
                    margin = [
                        margin[0].max((-y).max(0) as usize),
                        margin[1].max((-x).max(0) as usize),
                        margin[2].max(beyond(rows, *y, output[0])),
                        margin[3].max(beyond(columns, *x, output[1])),
                    ];
                }
                classes.push(([class_y, class_x], [rows, columns], taps));
            }
        }
        if winograd::suits(&conv) {
            margin = [1, 1, 1 + image[0] % 2, 1 + image[1] % 2];
        }
        let gradient = Padded { size: output, channels: outputs, margin };
        let backward = classes
            .into_iter()
            .map(|([class_y, class_x], [rows, columns], taps)| {
                let [first_y, first_x] = taps.first().map_or([0, 0], |(_, shift)| *shift);
                let least_x = taps.iter().map(|(_, [_, x])| *x).min().unwrap_or(first_x);
                let offset = |[y, x]: [isize; 2]| {
                    ((y - first_y) as usize * gradient.row() + (x - least_x) as usize * outputs) as u32
                };
                let place = |y: usize, x: usize| {
                    let [y, x] = [y * stride + class_y, x * stride + class_x];
                    ((y * image[1] + x) * inputs) as u32
                };
                let pixel = |y: usize, x: usize| {
                    let input =
                        if taps.is_empty() { 0 } else { gradient.at(y as isize + first_y, x as isize + least_x) };
                    Pixel { input, output: place(y, x) }
                };
                Taps {
                    pixels: (0..rows)
                        .flat_map(|y| (0..columns).map(move |x| (y, x)))
                        .map(|(y, x)| pixel(y, x))
                        .collect(),
                    runs: Runs::new(
                        taps.iter().map(|(_, shift)| Run { offset: offset(*shift), length: group_outputs as u32 }),
                    ),
                    order: taps.iter().map(|(tap, _)| *tap).collect(),
                }
            })
            .collect();
        let products =
            pixels().map(|[y, x]| Pixel { input: corner(y, x), output: gradient.at(y as isize, x as isize) }).collect();
        Self { conv, input, output, forward, gradient, backward, products }
    }

    /// Numbers of an input image.
    pub(crate) fn input_len(&self) -> usize {
        self.input.size[0] * self.input.size[1] * self.conv.channels[0]
    }

    /// Numbers of an output image.
    pub(crate) fn output_len(&self) -> usize {
        self.output[0] * self.output[1] * self.conv.channels[1]
    }

    /// Numbers of a weight packed for the input gradient.
    pub(crate) fn packed_transposed_len(&self) -> usize {
        let [inputs, outputs] = self.conv.group_channels();
        self.conv.groups * inputs.div_ceil(BLOCK) * BLOCK * outputs * self.conv.kernel[0] * self.conv.kernel[1]
    }

    /// The sums at some pixels of an image, of every group of channels.
    #[expect(clippy::too_many_arguments, reason = "a convolution and where it goes")]
    pub(crate) fn sums(
        &self,
        level: Level,
        x: &[f32],
        packed: &[f32],
        pixels: &[Pixel],
        epilogue: Epilogue,
        out: &mut [f32],
        start: usize,
    ) {
        let [inputs, outputs] = self.conv.group_channels();
        for (group, weights) in packed.chunks(self.conv.packed_len() / self.conv.groups).enumerate() {
            let (from, to) = (group * inputs, group * outputs);
            let sums = Sums {
                x: &x[from..],
                pixels,
                runs: &self.forward.runs,
                weights,
                channels: outputs,
                epilogue: epilogue.after_channels(to),
            };
            sums.compute(level, &mut out[to..], start);
        }
    }

    /// Unpacks a weight gradient into `[out, in / groups, kernel height, kernel width]`.
    pub(crate) fn unpack(&self, packed: &[f32], weight: &mut [f32]) {
        let [inputs, outputs] = self.conv.group_channels();
        let taps = self.conv.kernel[0] * self.conv.kernel[1];
        let blocks = outputs.div_ceil(BLOCK);
        for (output, weight) in weight.chunks_mut(inputs * taps).enumerate() {
            let (group, channel) = (output / outputs, output % outputs);
            let block = group * blocks + channel / BLOCK;
            let packed = &packed[block * taps * inputs * BLOCK + channel % BLOCK..];
            for tap in 0..taps {
                for input in 0..inputs {
                    weight[input * taps + tap] = packed[(tap * inputs + input) * BLOCK];
                }
            }
        }
    }

    /// Packs a weight for the classes of [`Self::backward`], one after the other.
    pub(crate) fn pack_transposed(&self, weight: &[f32], packed: &mut [f32]) {
        let [inputs, outputs] = self.conv.group_channels();
        let [_, columns] = self.conv.kernel;
        let taps = self.conv.kernel[0] * columns;
        let mut packed = packed[..self.packed_transposed_len()].iter_mut();
        for class in &self.backward {
            for group in 0..self.conv.groups {
                for first in (0..inputs).step_by(BLOCK) {
                    for [ky, kx] in &class.order {
                        for output in 0..outputs {
                            let weight = &weight[(group * outputs + output) * inputs * taps + ky * columns + kx..];
                            for lane in 0..BLOCK {
                                let to = packed.next().expect("all classes together have all taps once");
                                *to = if first + lane < inputs { weight[(first + lane) * taps] } else { 0.0 };
                            }
                        }
                    }
                }
            }
        }
    }

    /// Each class with the weights of it that [`Self::pack_transposed`] packed.
    pub(crate) fn classes<'a>(&'a self, packed: &'a [f32]) -> impl Iterator<Item = (&'a Taps, &'a [f32])> {
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
