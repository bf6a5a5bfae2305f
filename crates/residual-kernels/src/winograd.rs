//! 3x3 convolutions by Winograd's minimal filtering algorithm F(4x4, 3x3) (Lavin & Gray 2016, "Fast Algorithms for
//! Convolutional Neural Networks", section 4.3): a tile of 4x4 outputs takes 36 multiplications for each pair of
//! channels, where the direct sums take 144.
//!
//! With `d` a tile of 6x6 inputs, `g` a kernel and `y` a tile of outputs:
//!
//! - `y = Aᵀ [Σ (G g Gᵀ) ⊙ (Bᵀ d B)] A`, summed over the input channels
//! - the input gradient is a convolution of the output gradient with the kernels rotated by 180 degrees
//! - the weight gradient is the transpose of the first formula with respect to `g`, with the same matrices:
//!   `dg = Gᵀ [Σ (Bᵀ d B) ⊙ (A dy Aᵀ)] G`, summed over the tiles of all images
//!
//! The interpolation points are 0, ±√½, ±√2 and ∞. Their products are 1, so most entries of the matrices are small and the
//! rounding errors are about twice those of the direct sums; with the usual points 0, ±1, ±2 and ∞, they are four times
//! as large.
//!
//! Tiles are transformed in bands, whose transforms stay in the L2 cache. For each of the 36 points, the products of a
//! band are a matrix product of tiles by channels. Transforms are stored as `[point][block of channels][tile][BLOCK]`, so
//! that all distances in the inner loops are constants. A NaN or an infinity reaches all outputs of the tiles that read it.

#![allow(clippy::needless_range_loop, reason = "the indices match the formulas, and the loops unroll")]

mod wide;

pub(crate) use wide::{TILES, Wide, WideWeight};

use crate::{
    Conv, SimdLevel,
    layout::PaddedImage,
    parallel::for_each,
    simd::{Ahead, SimdVector, for_every_vector, prefetch},
    tile::{Addend, BLOCK, Epilogue, balanced, load_blocks, store_blocks, tile_blocks, with_constant},
};
use std::{
    f32::consts::{FRAC_1_SQRT_2 as ROOT_HALF, SQRT_2 as ROOT_TWO},
    ops::Range,
};

/// The height and width of a tile of outputs.
pub(crate) const SIDE: usize = 4;

/// The height and width of a tile of inputs.
const INPUT_SIDE: usize = SIDE + 2;

/// The number of values of a transformed tile. Each takes one multiplication per input and output channel.
const POINTS: usize = INPUT_SIDE * INPUT_SIDE;

/// A matrix of [`INPUT_SIDE`] rows and `S` columns.
trait Matrix<const S: usize> {
    /// The product of the matrix and a column.
    ///
    /// # Safety
    /// The processor must have the vector's instructions.
    unsafe fn multiply<V: SimdVector>(column: [V; S]) -> [V; INPUT_SIDE];
}

/// Bᵀ, which transforms inputs.
struct Bt;

impl Matrix<INPUT_SIDE> for Bt {
    #[inline(always)]
    unsafe fn multiply<V: SimdVector>(column: [V; INPUT_SIDE]) -> [V; INPUT_SIDE] {
        // SAFETY: the caller upholds the condition.
        unsafe { multiply_bt(column) }
    }
}

/// A, which transforms output gradients.
struct A;

impl Matrix<SIDE> for A {
    #[inline(always)]
    unsafe fn multiply<V: SimdVector>(column: [V; SIDE]) -> [V; INPUT_SIDE] {
        // SAFETY: the caller upholds the condition.
        unsafe { multiply_a(column) }
    }
}

/// `Bᵀ d`
#[inline(always)]
unsafe fn multiply_bt<V: SimdVector>(d: [V; INPUT_SIDE]) -> [V; INPUT_SIDE] {
    // SAFETY: the caller guarantees that the processor has the vector's instructions.
    unsafe {
        let c = |value: f32| V::splat(value);
        let first = d[0].add(d[4]).add_product(c(-2.5), d[2]);
        let last = d[1].add(d[5]).add_product(c(-2.5), d[3]);
        let (even_a, even_b) = (d[4].add_product(c(-2.0), d[2]), d[4].add_product(c(-0.5), d[2]));
        let odd_a = d[3].multiply(c(ROOT_HALF)).add_product(c(-ROOT_TWO), d[1]);
        let odd_b = d[3].multiply(c(ROOT_TWO)).add_product(c(-ROOT_HALF), d[1]);
        [first, even_a.add(odd_a), even_a.subtract(odd_a), even_b.add(odd_b), even_b.subtract(odd_b), last]
    }
}

/// `Aᵀ m`
#[inline(always)]
unsafe fn multiply_at<V: SimdVector>(m: [V; INPUT_SIDE]) -> [V; SIDE] {
    // SAFETY: the caller guarantees that the processor has the vector's instructions.
    unsafe {
        let c = |value: f32| V::splat(value);
        let (sum_a, difference_a) = (m[1].add(m[2]), m[1].subtract(m[2]));
        let (sum_b, difference_b) = (m[3].add(m[4]), m[3].subtract(m[4]));
        [
            m[0].add(sum_a).add(sum_b),
            difference_a.multiply(c(ROOT_HALF)).add_product(c(ROOT_TWO), difference_b),
            sum_a.multiply(c(0.5)).add_product(c(2.0), sum_b),
            m[5].add_product(c(0.5 * ROOT_HALF), difference_a).add_product(c(2.0 * ROOT_TWO), difference_b),
        ]
    }
}

/// `A y`
#[inline(always)]
unsafe fn multiply_a<V: SimdVector>(y: [V; SIDE]) -> [V; INPUT_SIDE] {
    // SAFETY: the caller guarantees that the processor has the vector's instructions.
    unsafe {
        let c = |value: f32| V::splat(value);
        let (even_a, even_b) = (y[0].add_product(c(0.5), y[2]), y[0].add_product(c(2.0), y[2]));
        let odd_a = y[1].multiply(c(ROOT_HALF)).add_product(c(0.5 * ROOT_HALF), y[3]);
        let odd_b = y[1].multiply(c(ROOT_TWO)).add_product(c(2.0 * ROOT_TWO), y[3]);
        [y[0], even_a.add(odd_a), even_a.subtract(odd_a), even_b.add(odd_b), even_b.subtract(odd_b), y[3]]
    }
}

/// `G g`. The rows of G are `[1, p, p²] / Π (p - q)`, with p a point and q the other finite points. The last row is that of ∞.
#[inline(always)]
unsafe fn multiply_g<V: SimdVector>(g: [V; 3]) -> [V; INPUT_SIDE] {
    // SAFETY: the caller guarantees that the processor has the vector's instructions.
    unsafe {
        let c = |value: f32| V::splat(value);
        let even_a = g[0].multiply(c(-2.0 / 3.0)).add_product(c(-1.0 / 3.0), g[2]);
        let even_b = g[0].multiply(c(1.0 / 6.0)).add_product(c(1.0 / 3.0), g[2]);
        let (odd_a, odd_b) = (g[1].multiply(c(-2.0 / 3.0 * ROOT_HALF)), g[1].multiply(c(ROOT_TWO / 6.0)));
        [g[0], even_a.add(odd_a), even_a.subtract(odd_a), even_b.add(odd_b), even_b.subtract(odd_b), g[2]]
    }
}

/// `Gᵀ s`
#[inline(always)]
unsafe fn multiply_gt<V: SimdVector>(s: [V; INPUT_SIDE]) -> [V; 3] {
    // SAFETY: the caller guarantees that the processor has the vector's instructions.
    unsafe {
        let c = |value: f32| V::splat(value);
        let (sum_a, difference_a) = (s[1].add(s[2]), s[1].subtract(s[2]));
        let (sum_b, difference_b) = (s[3].add(s[4]), s[3].subtract(s[4]));
        [
            s[0].add_product(c(-2.0 / 3.0), sum_a).add_product(c(1.0 / 6.0), sum_b),
            difference_a.multiply(c(-2.0 / 3.0 * ROOT_HALF)).add_product(c(ROOT_TWO / 6.0), difference_b),
            s[5].add_product(c(-1.0 / 3.0), sum_a).add_product(c(1.0 / 3.0), sum_b),
        ]
    }
}

/// The least number of channels for which the algorithm is used: with fewer, the transforms take more time than the
/// products save.
const MIN_CHANNELS: usize = 16;

/// Weights with fewer pairs of channels than this are transformed on the calling thread.
const MIN_PARALLEL_WEIGHTS: usize = 1 << 11;

/// Whether the algorithm is used for a convolution with outputs of this height and width: if it takes at most half as many
/// multiplications as the direct sums.
pub(crate) fn suits(conv: &Conv, [height, width]: [usize; 2]) -> bool {
    let Conv { channels, kernel, stride, padding, dilation, groups } = *conv;
    let has_shape = (kernel, stride, padding, dilation, groups) == ([3, 3], 1, 1, 1, 1);
    let has_channels = channels.iter().all(|&c| c >= MIN_CHANNELS && c.is_multiple_of(BLOCK));
    let multiplications = POINTS * height.div_ceil(SIDE) * width.div_ceil(SIDE);
    has_shape && has_channels && 2 * multiplications <= 9 * height * width
}

/// The values that whole tiles have beyond an image of this height and width, in rows and columns.
pub(crate) fn overhang(size: [usize; 2]) -> [usize; 2] {
    size.map(|side| side.next_multiple_of(SIDE) - side)
}

/// Whether weights are transformed in advance for inference, for images of this height and width.
pub(crate) fn suits_prepared(conv: &Conv, image: [usize; 2]) -> bool {
    !wide::suits(conv.channels) && conv.output(image).is_some_and(|output| suits(conv, output))
}

/// The number of values from one point of a transformed weight, `[block of outputs][point][input][BLOCK]`, to the next. The
/// line at the end keeps points on different cache sets.
fn weight_point(inputs: usize) -> usize {
    inputs * BLOCK + BLOCK
}

/// The number of values of a block of outputs of a transformed weight.
fn weight_block(inputs: usize) -> usize {
    POINTS * weight_point(inputs)
}

/// The number of values of a transformed weight with these numbers of inputs and outputs.
pub(crate) fn transformed_len([inputs, outputs]: [usize; 2]) -> usize {
    outputs / BLOCK * weight_block(inputs)
}

/// The kernels of a weight.
#[derive(Clone, Copy)]
pub(crate) enum Kernels<'a> {
    /// `[output][input][tap]`
    OutputsFirst(&'a [f32]),
    /// The same order, for the input gradient: inputs and outputs are swapped, and kernels are rotated by 180 degrees.
    Rotated(&'a [f32]),
    /// `[block of outputs][tap][input][BLOCK]`
    Packed(&'a [f32]),
}

impl Kernels<'_> {
    /// The numbers of inputs and outputs of the kernels, for a convolution with these numbers of channels.
    ///
    /// # Panics
    /// If there are fewer kernels.
    fn channels(self, [inputs, outputs]: [usize; 2]) -> [usize; 2] {
        let (Self::OutputsFirst(values) | Self::Rotated(values) | Self::Packed(values)) = self;
        assert!(9 * inputs * outputs <= values.len(), "too few weights");
        if matches!(self, Self::Rotated(_)) { [outputs, inputs] } else { [inputs, outputs] }
    }

    /// The kernels of one input and a block of outputs, by tap. `channels` is the result of [`Self::channels`].
    #[inline(always)]
    fn block(self, block: usize, input: usize, [inputs, outputs]: [usize; 2]) -> [[f32; BLOCK]; 9] {
        let mut kernels = [[0.0; BLOCK]; 9];
        let (weight, rotate) = match self {
            Self::OutputsFirst(weight) => (weight, false),
            Self::Rotated(weight) => (weight, true),
            Self::Packed(weight) => {
                for (tap, kernel) in kernels.iter_mut().enumerate() {
                    let at = ((block * 9 + tap) * inputs + input) * BLOCK;
                    *kernel = *weight[at..].first_chunk().expect("a block of outputs");
                }
                return kernels;
            }
        };
        for lane in 0..BLOCK {
            let output = block * BLOCK + lane;
            let at = if rotate { input * outputs + output } else { output * inputs + input };
            let kernel: &[f32; 9] = weight[at * 9..].first_chunk().expect("a kernel");
            for tap in 0..9 {
                kernels[tap][lane] = kernel[if rotate { 8 - tap } else { tap }];
            }
        }
        kernels
    }
}

/// `G g Gᵀ` of every kernel, packed as `[block of outputs][point][input][BLOCK]`. `packed` has [`transformed_len`] values.
pub(crate) fn transform_weight(level: SimdLevel, conv: &Conv, weight: Kernels, packed: &mut [f32]) {
    let [inputs, outputs] = weight.channels(conv.channels);
    let packed = packed[..transformed_len([inputs, outputs])].chunks_mut(weight_block(inputs)).enumerate();
    for_each(packed, inputs * outputs < MIN_PARALLEL_WEIGHTS, |(block, packed)| {
        // SAFETY: `weight` has all kernels, and `packed` has room for a block.
        unsafe { transform_block(level, block, 0..inputs, [inputs, outputs], weight, packed) };
    });
}

for_every_vector! {
    /// `G g Gᵀ` of the kernels of some inputs and a block of outputs.
    ///
    /// # Safety
    /// `weight` must have all kernels, and `packed` must have [`weight_block`] values for this number of inputs.
    unsafe fn transform_block<V, N, MAX>(
        block: usize, inputs: Range<usize>, channels: [usize; 2], weight: Kernels<'_>, packed: &mut [f32],
    ) {
        let point = weight_point(inputs.len());
        for (i, input) in inputs.enumerate() {
            let kernels = weight.block(block, input, channels);
            for c in (0..BLOCK).step_by(V::LANES) {
                // SAFETY: the caller upholds the conditions.
                unsafe {
                    let to = packed.as_mut_ptr().add(i * BLOCK + c);
                    let mut half = [[V::splat(0.0); 3]; INPUT_SIDE];
                    for x in 0..3 {
                        let mut column = [V::splat(0.0); 3];
                        for y in 0..3 {
                            column[y] = V::load(kernels[3 * y + x].as_ptr().add(c));
                        }
                        let column = multiply_g(column);
                        for i in 0..INPUT_SIDE {
                            half[i][x] = column[i];
                        }
                    }
                    for i in 0..INPUT_SIDE {
                        let values = multiply_g(half[i]);
                        for j in 0..INPUT_SIDE {
                            values[j].store(to.add((i * INPUT_SIDE + j) * point));
                        }
                    }
                }
            }
        }
    }

    /// `Gᵀ s G`, from `[point][block of outputs][input][BLOCK]` to `[block of outputs][tap][input][BLOCK]`, for some of the inputs.
    /// It is added to `packed` if `add` is true.
    ///
    /// # Safety
    /// `range` must be within the inputs. `sums` must have [`POINTS`] times the [`sums_point`] of these inputs and all outputs, and
    /// `packed` as many values as the weight.
    unsafe fn transform_sums<V, N, MAX>(
        range: Range<usize>, channels: [usize; 2], sums: &[f32], packed: &mut [f32], add: bool,
    ) {
        let [inputs, outputs] = channels;
        let point = sums_point([range.len(), outputs]);
        for block in 0..outputs / BLOCK {
            for (i, input) in range.clone().enumerate() {
                for c in (0..BLOCK).step_by(V::LANES) {
                    // SAFETY: the caller upholds the conditions.
                    unsafe {
                        let sums = sums.as_ptr().add((block * range.len() + i) * BLOCK + c);
                        let to = packed.as_mut_ptr().add((block * 9 * inputs + input) * BLOCK + c);
                        let mut half = [[V::splat(0.0); INPUT_SIDE]; 3];
                        for j in 0..INPUT_SIDE {
                            let mut column = [V::splat(0.0); INPUT_SIDE];
                            for i in 0..INPUT_SIDE {
                                column[i] = V::load(sums.add((i * INPUT_SIDE + j) * point));
                            }
                            let column = multiply_gt(column);
                            for y in 0..3 {
                                half[y][j] = column[y];
                            }
                        }
                        for y in 0..3 {
                            let values = multiply_gt(half[y]);
                            for x in 0..3 {
                                let to = to.add((3 * y + x) * inputs * BLOCK);
                                let value = if add { V::load(to).add(values[x]) } else { values[x] };
                                value.store(to);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The number of values from one point of a transformed weight gradient, `[point][block of outputs][input][BLOCK]`, to the
/// next. The line at the end keeps points on different cache sets.
fn sums_point(channels: [usize; 2]) -> usize {
    channels[0] * channels[1] + BLOCK
}

/// `Gᵀ s G`, from `[point][block of outputs][input][BLOCK]` to `[block of outputs][tap][input][BLOCK]`, for some of the inputs. It
/// is added to `packed` if `add` is true.
pub(crate) fn transform_weight_gradient(
    level: SimdLevel,
    inputs: Range<usize>,
    channels: [usize; 2],
    sums: &[f32],
    packed: &mut [f32],
    add: bool,
) {
    assert!(inputs.end <= channels[0], "too few inputs");
    assert!(POINTS * sums_point([inputs.len(), channels[1]]) <= sums.len(), "too few sums");
    assert!(9 * channels[0] * channels[1] <= packed.len(), "the weight gradient is too short");
    // SAFETY: the sizes were checked.
    unsafe { transform_sums(level, inputs, channels, sums, packed, add) }
}

/// A pass over the tiles, as a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// From inputs to outputs.
    Forward,
    /// From output gradients to input gradients.
    Backward,
}

/// Weights of at least this many pairs of channels do not fit into the L2 cache when transformed.
const MANY_WEIGHTS: usize = 128 * 128;

/// The greatest number of tiles of a band. With 64 channels, their two transforms take 450 KiB.
const BAND: usize = 24;

/// How images are divided into tiles of [`SIDE`] by [`SIDE`] outputs, and tiles into bands.
#[derive(Debug)]
pub(crate) struct Tiling {
    /// The height and width of the outputs.
    size: [usize; 2],
    channels: [usize; 2],
    /// The greatest number of tiles of a band.
    most: usize,
}

/// Tiles that are transformed together: some tiles of one image, or all tiles of several.
#[derive(Clone, Debug)]
pub(crate) struct Band {
    pub(crate) images: Range<usize>,
    /// The tiles of each image.
    pub(crate) tiles: Range<usize>,
}

impl Band {
    /// Each image with the number of tiles of the band before it.
    pub(crate) fn images(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let tiles = self.tiles.len();
        self.images.clone().enumerate().map(move |(i, image)| (image, i * tiles))
    }

    fn len(&self) -> usize {
        self.images.len() * self.tiles.len()
    }
}

impl Tiling {
    /// The tiles of a convolution that [`suits`], with outputs of this height and width.
    pub(crate) fn new(conv: &Conv, size: [usize; 2]) -> Self {
        let tiles = size[0].div_ceil(SIDE) * size[1].div_ceil(SIDE);
        // Whole images, or parts of an image that differ by one tile at most.
        let most = if tiles <= BAND { BAND / tiles * tiles } else { tiles.div_ceil(tiles.div_ceil(BAND)) };
        Self { size, channels: conv.channels, most }
    }

    /// The number of tiles of an image.
    pub(crate) fn tiles(&self) -> usize {
        self.size[0].div_ceil(SIDE) * self.across()
    }

    /// The number of tiles side by side.
    fn across(&self) -> usize {
        self.size[1].div_ceil(SIDE)
    }

    /// The number of images of a band.
    pub(crate) fn images(&self) -> usize {
        (self.most / self.tiles()).max(1)
    }

    /// Whether threads that share an image divide the output channels, with [`Wide`], rather than the tiles, so that each reads only
    /// its part of the weights.
    pub(crate) fn has_many_weights(&self) -> bool {
        self.channels[0] * self.channels[1] >= MANY_WEIGHTS
    }

    /// The bands of a number of images.
    pub(crate) fn bands(&self, images: usize) -> impl Iterator<Item = Band> + use<> {
        let (most, all, together) = (self.most, self.tiles(), self.images());
        (0..images).step_by(together).flat_map(move |first| {
            let images = first..(first + together).min(images);
            (0..all).step_by(most).map(move |from| Band { images: images.clone(), tiles: from..(from + most).min(all) })
        })
    }

    /// The bands of some output rows of the first image. The first row must be a multiple of [`SIDE`].
    pub(crate) fn bands_of_rows(&self, rows: Range<usize>) -> impl Iterator<Item = Band> + use<> {
        let (most, across) = (self.most, self.across());
        let (from, to) = (rows.start / SIDE * across, rows.end.div_ceil(SIDE) * across);
        (from..to).step_by(most).map(move |from| Band { images: 0..1, tiles: from..(from + most).min(to) })
    }

    /// The values that correspond to a band, in images of which the first is that of the band: those of its tiles, or of all
    /// its images.
    fn share<'a>(&self, band: &Band, values: &'a [f32], first: usize, image_len: usize) -> &'a [f32] {
        let (all, len) = (self.tiles(), band.images.len() * image_len);
        let at = |tiles: usize| (first * image_len + tiles * len / all).min(values.len());
        &values[at(band.tiles.start)..at(band.tiles.end)]
    }

    /// The values of `image_len` per image that belong to a band.
    pub(crate) fn own<'a>(&self, band: &Band, values: &'a [f32], image_len: usize) -> &'a [f32] {
        self.share(band, values, band.images.start, image_len)
    }

    /// The values of an image of the band that belong to its tiles.
    pub(crate) fn part<'a>(&self, band: &Band, image: &'a [f32]) -> &'a [f32] {
        let at = |tile: usize| image.len() * tile / self.tiles();
        &image[at(band.tiles.start)..at(band.tiles.end)]
    }

    /// The values of `image_len` per image that belong to as many of the following images.
    pub(crate) fn next<'a>(&self, band: &Band, values: &'a [f32], image_len: usize) -> &'a [f32] {
        self.share(band, values, band.images.end, image_len)
    }

    /// The number of values of the transformed weight gradient, `[point][block of outputs][input][BLOCK]`.
    pub(crate) fn gradient_len(&self) -> usize {
        POINTS * sums_point(self.channels)
    }

    /// The number of values of each of the two transforms of a band.
    pub(crate) fn transform_len(&self) -> usize {
        POINTS * self.strides(self.channels[0].max(self.channels[1])).point
    }

    /// The number of tiles from one block of channels to the next. It is odd, so that blocks are on different cache sets.
    fn lead(&self) -> usize {
        self.most | 1
    }

    /// The strides of the transforms of a band, `[point][block of channels][tile][BLOCK]`. The line at the end of a point keeps
    /// points on different cache sets.
    fn strides(&self, channels: usize) -> Strides {
        Strides { point: self.lead() * channels + BLOCK, block: self.lead() * BLOCK }
    }

    /// The tile's first row and column of outputs.
    fn corner(&self, tile: usize) -> [usize; 2] {
        [SIDE * (tile / self.across()), SIDE * (tile % self.across())]
    }

    /// The offsets of tiles of `side` by `side` values in a padded image, which are centred on the tiles of outputs.
    ///
    /// # Panics
    /// If a tile is outside the image.
    fn corners(&self, layout: &PaddedImage, image: &[f32], tiles: Range<usize>, side: usize) -> Vec<usize> {
        let margin = ((side - SIDE) / 2) as isize;
        let corner = |tile: usize| {
            let [y, x] = self.corner(tile).map(|at| at as isize - margin);
            let corner = layout.at(y, x) as usize;
            let last = corner + (side - 1) * (layout.row() + layout.channels) + layout.channels;
            assert!(last <= image.len(), "a tile is outside its image");
            corner
        };
        tiles.map(corner).collect()
    }

    /// The distances in an output with the layout `target`, and in its addend.
    fn output_strides(&self, target: &PaddedImage) -> OutputStrides {
        OutputStrides { pixel: target.channels, row: target.row(), addend_row: self.size[1] * target.channels }
    }

    /// The places of tiles in an image with the layout `target`, of which `out` is the part from offset `start` on.
    ///
    /// # Panics
    /// If a tile is outside `out` or the addend, or there are too few gains or biases.
    fn output_tiles(
        &self,
        tiles: Range<usize>,
        epilogue: Epilogue,
        target: &PaddedImage,
        out: &[f32],
        start: usize,
    ) -> Vec<OutputTile> {
        let [height, width] = self.size;
        let channels = target.channels;
        assert!(
            epilogue.affine.is_none_or(|(gain, bias)| channels <= gain.len().min(bias.len())),
            "too few gains or biases"
        );
        let output = |tile: usize| {
            let [y, x] = self.corner(tile);
            let (rows, columns) = (SIDE.min(height - y), SIDE.min(width - x));
            let at = |y: usize, x: usize| target.at(y as isize, x as isize) as usize;
            let in_addend = |y: usize, x: usize| (y * width + x) * channels;
            let last = (y + rows - 1, x + columns - 1);
            assert!(
                start <= at(y, x) && at(last.0, last.1) + channels <= out.len() + start,
                "a tile is outside its image"
            );
            let fits = |add: Addend| in_addend(last.0, last.1) + channels <= add.values.len();
            assert!(epilogue.add.is_none_or(fits), "the addend is too short");
            OutputTile { rows, columns, to: at(y, x) - start, addend: in_addend(y, x) }
        };
        tiles.map(output).collect()
    }
}

/// The numbers of values in transforms from one point to the next, and from one block of channels to the next. In a block, each
/// tile has [`BLOCK`] values.
#[derive(Clone, Copy)]
struct Strides {
    point: usize,
    block: usize,
}

/// The transforms of a band.
pub(crate) struct Transforms<'a> {
    level: SimdLevel,
    tiling: &'a Tiling,
    /// Inputs, or output gradients for [`Pass::Backward`].
    from: &'a mut [f32],
    /// Outputs, or input gradients for [`Pass::Backward`], or output gradients for the weight gradient.
    to: &'a mut [f32],
}

impl<'a> Transforms<'a> {
    /// Transforms in memory of [`Tiling::transform_len`] values each.
    pub(crate) fn new(level: SimdLevel, tiling: &'a Tiling, [from, to]: [&'a mut [f32]; 2]) -> Self {
        Self { level, tiling, from, to }
    }

    /// Computes `Bᵀ d B` of some tiles of a padded image, whose margin above and to the left is one pixel. They follow
    /// `place` others of the band.
    pub(crate) fn transform_input(&mut self, layout: &PaddedImage, image: &[f32], tiles: Range<usize>, place: usize) {
        self.check(layout.channels, &tiles, place);
        let corners = self.tiling.corners(layout, image, tiles, INPUT_SIDE);
        let (strides, to) = (self.tiling.strides(layout.channels), &mut self.from[place * BLOCK..]);
        // SAFETY: every tile lies within the image, and within the transforms of each point.
        unsafe { transform_inputs(self.level, layout, layout.channels, image, &corners, to, strides) }
    }

    /// Computes `A dy Aᵀ` of some tiles of a padded output gradient. They follow `place` others of the band.
    pub(crate) fn transform_output_gradient(
        &mut self,
        layout: &PaddedImage,
        image: &[f32],
        tiles: Range<usize>,
        place: usize,
    ) {
        self.check(layout.channels, &tiles, place);
        let corners = self.tiling.corners(layout, image, tiles, SIDE);
        let (strides, to) = (self.tiling.strides(layout.channels), &mut self.to[place * BLOCK..]);
        // SAFETY: every tile lies within the image, and within the transforms of each point.
        unsafe { transform_output_gradients(self.level, layout, layout.channels, image, &corners, to, strides) }
    }

    /// Checks that the tiles fit into a band after `place` others.
    ///
    /// # Panics
    /// If they do not.
    fn check(&self, channels: usize, tiles: &Range<usize>, place: usize) {
        let len = self.from.len().min(self.to.len());
        let point = self.tiling.strides(channels).point;
        assert!(place + tiles.len() <= self.tiling.most && POINTS * point <= len, "too many tiles for a band");
    }

    /// Computes the products of a band with transformed weights. Meanwhile, it asks for the memory that is needed next.
    pub(crate) fn multiply(&mut self, pass: Pass, weights: &[f32], band: &Band, ahead: &[Ahead]) {
        let [inputs, outputs] = self.tiling.channels;
        let channels = match pass {
            Pass::Forward => [inputs, outputs],
            Pass::Backward => [outputs, inputs],
        };
        let products = self.products(channels, band);
        assert!(transformed_len(channels) <= weights.len(), "too few weights");
        // SAFETY: `products` checked the sizes of the transforms.
        unsafe { multiply_points(self.level, &products, self.from, weights, self.to, false, ahead) }
    }

    /// Adds the products of a band's inputs and output gradients to the transformed weight gradient, or writes them there if
    /// the band is the first. Meanwhile, it asks for the memory that is needed next.
    pub(crate) fn add_weight_gradient(&self, band: &Band, sums: &mut [f32], is_first: bool, ahead: &[Ahead]) {
        let channels = self.tiling.channels;
        let products = self.products(channels, band);
        assert!(POINTS * sums_point(channels) <= sums.len(), "too few sums");
        // SAFETY: `products` checked the sizes of the transforms.
        unsafe { add_products(self.level, &products, self.from, self.to, sums, is_first, ahead) }
    }

    fn products(&self, channels: [usize; 2], band: &Band) -> Products {
        let [from, to] = channels.map(|channels| self.tiling.strides(channels));
        assert!(band.len() <= self.tiling.most, "too many tiles for a band");
        assert!(POINTS * from.point <= self.from.len() && POINTS * to.point <= self.to.len(), "transforms too short");
        let (blocks, prefetch_weights) = (channels.map(|c| c / BLOCK), self.tiling.has_many_weights());
        Products { blocks, tiles: band.len(), from, to, prefetch_weights }
    }

    /// Computes `Aᵀ m A` of some tiles, applies the epilogue and writes the results into an image with the layout `target`,
    /// of which `out` is the part from offset `start` on. The tiles follow `place` others of the band.
    pub(crate) fn write_output(
        &self,
        tiles: Range<usize>,
        place: usize,
        epilogue: Epilogue,
        target: &PaddedImage,
        out: &mut [f32],
        start: usize,
    ) {
        self.check(target.channels, &tiles, place);
        let outputs = self.tiling.output_tiles(tiles, epilogue, target, out, start);
        let (from, strides) = (&self.to[place * BLOCK..], self.tiling.strides(target.channels));
        let (channels, to) = (target.channels, self.tiling.output_strides(target));
        // SAFETY: every tile lies within the transforms of each point, the image and the addend.
        unsafe { write_outputs(self.level, channels, from, strides, &outputs, epilogue, out.as_mut_ptr(), to) }
    }
}

/// The sizes of the products of a band.
struct Products {
    /// The numbers of blocks of input and output channels.
    blocks: [usize; 2],
    tiles: usize,
    /// The strides of the inputs, and of the outputs.
    from: Strides,
    to: Strides,
    /// Whether the weights are not in the L2 cache.
    prefetch_weights: bool,
}

/// The greatest number of blocks of inputs whose weights stay in the L1 cache while all tiles are multiplied with them.
const MAX_DEPTH: usize = 16;

/// The place of a tile of outputs, which has fewer rows or columns at the edges of an image.
struct OutputTile {
    rows: usize,
    columns: usize,
    /// The offset of its first value.
    to: usize,
    /// The offset of the value that is added to it.
    addend: usize,
}

/// The numbers of values from one pixel to the next of an output and its addend, and from one row to the next.
#[derive(Clone, Copy)]
struct OutputStrides {
    pixel: usize,
    row: usize,
    addend_row: usize,
}

/// The offset of a tile's values of some channels in the transforms of a point.
#[inline(always)]
fn offset(tile: usize, channel: usize, strides: Strides) -> usize {
    channel / BLOCK * strides.block + tile * BLOCK + channel % BLOCK
}

/// Where the outputs of a row of a tile are written, and the epilogue. They are of the channels of a vector.
#[derive(Clone, Copy)]
struct OutputRow<V> {
    affine: Option<(V, V)>,
    /// The values of the addend, and its strength.
    add: Option<(*const f32, V)>,
    relu: bool,
    out: *mut f32,
    columns: usize,
    strides: OutputStrides,
}

impl<V: SimdVector> OutputRow<V> {
    /// The row that is `count` rows below.
    #[inline(always)]
    fn skip(self, count: usize) -> Self {
        Self {
            add: self.add.map(|(values, strength)| (values.wrapping_add(count * self.strides.addend_row), strength)),
            out: self.out.wrapping_add(count * self.strides.row),
            ..self
        }
    }

    /// Writes the outputs of a row after the first transform of their columns.
    ///
    /// # Safety
    /// The processor must have the vector's instructions, and the image and the addend must have the row's columns.
    #[inline(always)]
    unsafe fn write(self, half: [V; INPUT_SIDE]) {
        // SAFETY: the caller upholds the conditions.
        unsafe {
            let values = multiply_at(half);
            if self.columns == SIDE {
                self.write_value(0, values[0]);
                self.write_value(1, values[1]);
                self.write_value(2, values[2]);
                self.write_value(3, values[3]);
            } else {
                for (j, value) in values.into_iter().enumerate().take(self.columns) {
                    self.write_value(j, value);
                }
            }
        }
    }

    /// Writes the output of column `j`.
    ///
    /// # Safety
    /// As for [`Self::write`].
    #[inline(always)]
    unsafe fn write_value(self, j: usize, mut value: V) {
        // SAFETY: the caller upholds the conditions.
        unsafe {
            if let Some((gain, bias)) = self.affine {
                value = bias.add_product(gain, value);
            }
            if let Some((values, strength)) = self.add {
                value = value.add_product(strength, V::load(values.add(j * self.strides.pixel)));
            }
            if self.relu {
                value = value.relu();
            }
            value.store(self.out.add(j * self.strides.pixel));
        }
    }
}

/// A column of a tile's values at all points.
///
/// # Safety
/// The processor must have the vector's instructions, and `from` must point to values of a column that are six points apart.
#[inline(always)]
unsafe fn load_column<V: SimdVector>(from: *const f32, point: usize) -> [V; INPUT_SIDE] {
    // SAFETY: the caller upholds the conditions.
    unsafe {
        let load = |i: usize| V::load(from.add(i * INPUT_SIDE * point));
        [load(0), load(1), load(2), load(3), load(4), load(5)]
    }
}

/// `M x Mᵀ` of the first channels of the tiles of S by S values at these offsets, for a matrix M. `strides` are those of `to`.
///
/// # Safety
/// The processor must have the vector's instructions. Every tile must lie within `image`, and within `to` at every point.
#[inline(always)]
unsafe fn transform_tiles<V: SimdVector, M: Matrix<S>, const S: usize>(
    layout: &PaddedImage,
    channels: usize,
    image: &[f32],
    corners: &[usize],
    to: &mut [f32],
    strides: Strides,
) {
    let (pixel, row) = (layout.channels, layout.row());
    for (tile, corner) in corners.iter().enumerate() {
        for c in (0..channels).step_by(V::LANES) {
            // SAFETY: the caller upholds the conditions.
            unsafe {
                let (x, to) = (image.as_ptr().add(corner + c), to.as_mut_ptr().add(offset(tile, c, strides)));
                let mut half = [[V::splat(0.0); S]; INPUT_SIDE];
                for j in 0..S {
                    let mut column = [V::splat(0.0); S];
                    for i in 0..S {
                        column[i] = V::load(x.add(i * row + j * pixel));
                    }
                    let column = M::multiply(column);
                    for i in 0..INPUT_SIDE {
                        half[i][j] = column[i];
                    }
                }
                for i in 0..INPUT_SIDE {
                    let values = M::multiply(half[i]);
                    for j in 0..INPUT_SIDE {
                        values[j].store(to.add((i * INPUT_SIDE + j) * strides.point));
                    }
                }
            }
        }
    }
}

for_every_vector! {
    /// `Bᵀ d B` of tiles.
    ///
    /// # Safety
    /// As for [`transform_tiles`], apart from the processor.
    unsafe fn transform_inputs<V, N, MAX>(
        layout: &PaddedImage, channels: usize, image: &[f32], corners: &[usize], to: &mut [f32], strides: Strides,
    ) {
        // SAFETY: the caller upholds the conditions.
        unsafe { transform_tiles::<V, Bt, INPUT_SIDE>(layout, channels, image, corners, to, strides) }
    }

    /// `A dy Aᵀ` of tiles.
    ///
    /// # Safety
    /// As for [`transform_tiles`], apart from the processor.
    unsafe fn transform_output_gradients<V, N, MAX>(
        layout: &PaddedImage, channels: usize, image: &[f32], corners: &[usize], to: &mut [f32], strides: Strides,
    ) {
        // SAFETY: the caller upholds the conditions.
        unsafe { transform_tiles::<V, A, SIDE>(layout, channels, image, corners, to, strides) }
    }

    /// `Aᵀ m A` of some channels of tiles, with the epilogue. `m`, `epilogue` and `out` begin at the first of the channels.
    /// `strides` are those of `m`.
    ///
    /// # Safety
    /// Every tile must lie within `m` at every point, and within `out` and the addend. Nothing else may access these channels of the
    /// tiles in `out` meanwhile.
    unsafe fn write_outputs<V, N, MAX>(
        channels: usize, m: &[f32], strides: Strides, tiles: &[OutputTile], epilogue: Epilogue<'_>, out: *mut f32,
        output_strides: OutputStrides,
    ) {
        for (i, tile) in tiles.iter().enumerate() {
            for c in (0..channels).step_by(V::LANES) {
                // SAFETY: the caller guarantees it.
                unsafe {
                    let m = m.as_ptr().add(offset(i, c, strides));
                    let column = |j: usize| multiply_at(load_column::<V>(m.add(j * strides.point), strides.point));
                    let half = [column(0), column(1), column(2), column(3), column(4), column(5)];
                    let affine = epilogue.affine.map(|(gain, bias)| {
                        (V::load(gain.as_ptr().add(c)), V::load(bias.as_ptr().add(c)))
                    });
                    let row = OutputRow {
                        affine,
                        add: epilogue.add.map(|add| (add.values.as_ptr().add(tile.addend + c), V::splat(add.strength))),
                        relu: epilogue.relu,
                        out: out.add(tile.to + c),
                        columns: tile.columns,
                        strides: output_strides,
                    };
                    // A loop that ends early would index registers through memory.
                    row.write(half.map(|column| column[0]));
                    if tile.rows > 1 {
                        row.skip(1).write(half.map(|column| column[1]));
                    }
                    if tile.rows > 2 {
                        row.skip(2).write(half.map(|column| column[2]));
                    }
                    if tile.rows > 3 {
                        row.skip(3).write(half.map(|column| column[3]));
                    }
                }
            }
        }
    }

    /// For each tile at each point: `m[output] = Σ v[input] · w[input, output]`. `add` continues earlier sums.
    ///
    /// # Safety
    /// The slices must have the sizes of `products`.
    unsafe fn multiply_points<V, N, MAX>(
        products: &Products, v: &[f32], weights: &[f32], m: &mut [f32], add: bool, ahead: &[Ahead<'_>],
    ) {
        let Products { blocks: [inputs, outputs], tiles, from, to, prefetch_weights } = *products;
        let weight = |output: usize, point: usize, first: usize| {
            let [block, point] = [output * weight_block(inputs * BLOCK), point * weight_point(inputs * BLOCK)];
            weights.as_ptr().wrapping_add(block + point + first * BLOCK * BLOCK)
        };
        for point in 0..POINTS {
            ahead.iter().for_each(|ahead| ahead.fetch(point, POINTS));
            for first in (0..inputs).step_by(MAX_DEPTH) {
                let depth = MAX_DEPTH.min(inputs - first);
                for (output, is_pair) in tile_blocks::<V>(outputs) {
                    // SAFETY: the caller guarantees the sizes.
                    unsafe {
                        let w = weight(output, point, first);
                        let mut v = v.as_ptr().add(point * from.point + first * from.block);
                        let mut m = m.as_mut_ptr().add(point * to.point + output * to.block);
                        // The first tile waits for the weights, so it prefetches those of the next product.
                        let next_output = output + 1 + usize::from(is_pair);
                        let next = if next_output < outputs {
                            weight(next_output, point, first)
                        } else if first + depth < inputs {
                            weight(0, point, first + depth)
                        } else {
                            weight(0, point + 1, 0)
                        };
                        let mut next = prefetch_weights.then_some(next);
                        let (strides, add) = ([from.block, weight_block(inputs * BLOCK), to.block], add || first > 0);
                        for count in balanced(tiles, MAX) {
                            if is_pair {
                                with_constant!(count, MAX, multiply_tiles, V; 2; v, w, depth, m, strides, add, next);
                            } else {
                                with_constant!(count, MAX, multiply_tiles, V; N; v, w, depth, m, strides, add, next);
                            }
                            next = None;
                            (v, m) = (v.add(count * BLOCK), m.add(count * BLOCK));
                        }
                    }
                }
            }
        }
    }

    /// For each point, adds to `sums[input, output]` the products `v[input] · u[output]` of all tiles, or writes them there if
    /// `is_first` is true.
    ///
    /// # Safety
    /// The slices must have the sizes of `products`.
    unsafe fn add_products<V, N, MAX>(
        products: &Products, v: &[f32], u: &[f32], sums: &mut [f32], is_first: bool, ahead: &[Ahead<'_>],
    ) {
        let Products { blocks: [inputs, outputs], tiles, from, to, .. } = *products;
        let sums_point = sums_point([inputs * BLOCK, outputs * BLOCK]);
        for point in 0..POINTS {
            ahead.iter().for_each(|ahead| ahead.fetch(point, POINTS));
            for (output, is_pair) in tile_blocks::<V>(outputs) {
                for input in 0..inputs {
                    // SAFETY: the caller guarantees the sizes.
                    unsafe {
                        let strides = [to.block, inputs * BLOCK * BLOCK];
                        let mut v = v.as_ptr().add(point * from.point + input * from.block);
                        let u = u.as_ptr().add(point * to.point + output * to.block);
                        let sums = sums.as_mut_ptr();
                        let mut sums = sums.add(point * sums_point + (output * inputs + input) * BLOCK * BLOCK);
                        for rows in balanced(BLOCK, MAX) {
                            if is_pair {
                                with_constant!(rows, MAX, add_tiles, V; 2; v, u, tiles, sums, strides, is_first);
                            } else {
                                with_constant!(rows, MAX, add_tiles, V; N; v, u, tiles, sums, strides, is_first);
                            }
                            (v, sums) = (v.add(rows), sums.add(rows * BLOCK));
                        }
                    }
                }
            }
        }
    }
}

/// The products of `T` tiles with `depth` blocks of inputs and the outputs of `N` vectors. `strides` are the distances
/// between blocks of `v`, between blocks of outputs of the weights, and between blocks of `m`. `add` continues earlier sums.
///
/// # Safety
/// The processor must have the vector's instructions, and the pointers must point to values of these sizes.
#[inline(always)]
unsafe fn multiply_tiles<V: SimdVector, const N: usize, const T: usize>(
    mut v: *const f32,
    mut weights: *const f32,
    depth: usize,
    m: *mut f32,
    strides: [usize; 3],
    add: bool,
    mut next: Option<*const f32>,
) {
    // SAFETY: the caller upholds the conditions of this function.
    unsafe {
        let [from, stride, to] = strides;
        let mut sums = [[V::splat(0.0); N]; T];
        if add {
            for t in 0..T {
                sums[t] = load_blocks(m.add(t * BLOCK), to);
            }
        }
        for _ in 0..depth {
            if let Some(next) = &mut next {
                for block in 0..(N * V::LANES).div_ceil(BLOCK) {
                    for k in 0..BLOCK {
                        prefetch(next.wrapping_add(block * stride + k * BLOCK), false);
                    }
                }
                *next = next.wrapping_add(BLOCK * BLOCK);
            }
            for k in 0..BLOCK {
                let w: [V; N] = load_blocks(weights.add(k * BLOCK), stride);
                for t in 0..T {
                    let value = V::splat(*v.add(t * BLOCK + k));
                    for j in 0..N {
                        sums[t][j] = sums[t][j].add_product(value, w[j]);
                    }
                }
            }
            (v, weights) = (v.add(from), weights.add(BLOCK * BLOCK));
        }
        for t in 0..T {
            store_blocks(sums[t], m.add(t * BLOCK), to);
        }
    }
}

/// Adds to `R` rows of sums the products of `R` inputs with the outputs of `N` vectors of some tiles, or writes them there if
/// `is_first` is true. `strides` are the numbers of values from one block of outputs to the next of `u` and of `sums`.
///
/// # Safety
/// The processor must have the vector's instructions, and the pointers must point to values of these sizes.
#[inline(always)]
unsafe fn add_tiles<V: SimdVector, const N: usize, const R: usize>(
    v: *const f32,
    u: *const f32,
    tiles: usize,
    sums: *mut f32,
    strides: [usize; 2],
    is_first: bool,
) {
    // SAFETY: the caller upholds the conditions of this function.
    unsafe {
        let mut rows = [[V::splat(0.0); N]; R];
        if !is_first {
            for r in 0..R {
                rows[r] = load_blocks(sums.add(r * BLOCK), strides[1]);
            }
        }
        for tile in 0..tiles {
            let u: [V; N] = load_blocks(u.add(tile * BLOCK), strides[0]);
            for r in 0..R {
                let value = V::splat(*v.add(tile * BLOCK + r));
                for j in 0..N {
                    rows[r][j] = rows[r][j].add_product(value, u[j]);
                }
            }
        }
        for r in 0..R {
            store_blocks(rows[r], sums.add(r * BLOCK), strides[1]);
        }
    }
}
