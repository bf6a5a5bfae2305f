//! 3x3 convolutions by Winograd's minimal filtering algorithm F(2x2, 3x3): `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. It
//! computes four outputs with 16 multiplications, where the direct sums take 36 (Lavin & Gray 2016, "Fast Algorithms
//! for Convolutional Neural Networks", section 4.1). The entries of the matrices A, B and G are 0, ±1 and ±½, so the
//! rounding errors are of the same order as those of the direct sums.
//!
//! The algorithm is used if there are enough channels that it saves more time in products than the transforms take
//! ([`Conv::suits_winograd`]). The input gradient of such a convolution is a convolution of the same kind: the output
//! gradient is convolved with the kernels rotated by 180 degrees.

#![allow(clippy::needless_range_loop, reason = "the compiler vectorises loops over lane indices")]

use crate::{
    Buffer, Conv, SimdLevel,
    conv::{PaddedImage, Plan},
    simd::for_every_level,
    tile::{BLOCK, Epilogue, ImplicitGemm, Pixel, Run, Runs},
};
use rayon::prelude::*;
use std::ops::Range;

/// The number of points of a transformed 4x4 tile. Each point takes one multiplication per input and output channel.
const POINTS: usize = 16;

/// The number of channels that a transform holds in registers at a time.
const LANES: usize = 8;

/// Tiles are transformed in bands. The transformed tiles of a band take at most this many values, but a band has at
/// least [`MIN_BAND_TILES`] tiles unless there are fewer in all.
const MAX_BAND_VALUES: usize = 1 << 17;
const MIN_BAND_TILES: usize = 48;

/// `G g Gᵀ` of every kernel, packed as `[point][block of outputs][input][BLOCK]`.
pub(crate) fn transform_weight(conv: &Conv, weight: &[f32]) -> Buffer {
    let [inputs, outputs] = conv.channels;
    let mut packed = Buffer::new(POINTS * inputs * outputs);
    // The product of row `k` of G and a column (a, b, c) of the kernel.
    let row = |k: usize, a: f32, b: f32, c: f32| match k {
        0 => a,
        1 => 0.5 * (a + b + c),
        2 => 0.5 * (a - b + c),
        _ => c,
    };
    packed.par_chunks_mut(inputs * outputs).enumerate().for_each(|(point, packed)| {
        let (i, j) = (point / 4, point % 4);
        for (block, packed) in packed.chunks_mut(inputs * BLOCK).enumerate() {
            for (input, packed) in packed.chunks_mut(BLOCK).enumerate() {
                for (lane, to) in packed.iter_mut().enumerate() {
                    let g = &weight[((block * BLOCK + lane) * inputs + input) * 9..][..9];
                    let column = |x: usize| row(i, g[x], g[3 + x], g[6 + x]);
                    *to = row(j, column(0), column(1), column(2));
                }
            }
        }
    });
    packed
}

/// The weight of [`Conv::transposed`]: inputs and outputs are swapped, and kernels are rotated by 180 degrees.
pub(crate) fn transposed_weight(conv: &Conv, weight: &[f32]) -> Buffer {
    let [inputs, outputs] = conv.channels;
    let mut transposed = Buffer::new(weight.len());
    for (input, transposed) in transposed.chunks_mut(outputs * 9).enumerate() {
        for (output, rotated) in transposed.chunks_mut(9).enumerate() {
            let kernel = &weight[(output * inputs + input) * 9..][..9];
            rotated.iter_mut().zip(kernel.iter().rev()).for_each(|(to, from)| *to = *from);
        }
    }
    transposed
}

/// Computes some output rows of a convolution with its epilogue. The first row must have an even index. `out` begins at
/// the first of these rows in an image with the layout `target`.
#[expect(clippy::too_many_arguments, reason = "the operands of a convolution")]
pub(crate) fn convolve_rows(
    level: SimdLevel,
    plan: &Plan,
    x: &[f32],
    packed: &[f32],
    epilogue: Epilogue,
    rows: Range<usize>,
    target: &PaddedImage,
    out: &mut [f32],
) {
    let [inputs, outputs] = plan.conv.channels;
    let across = plan.output[1].div_ceil(2);
    let tiles = (rows.start / 2 * across)..(rows.end.div_ceil(2) * across);
    let band_tiles = (MAX_BAND_VALUES / (POINTS * (inputs + outputs))).max(MIN_BAND_TILES).min(tiles.len());
    let mut v = Buffer::new(POINTS * band_tiles * inputs);
    let mut m = Buffer::new(POINTS * band_tiles * outputs);
    let pixels: Vec<Pixel> =
        (0..band_tiles).map(|tile| Pixel { input: (tile * inputs) as u32, output: (tile * outputs) as u32 }).collect();
    let runs = Runs::new([Run { offset: 0, length: inputs as u32 }].into_iter());
    let start = target.at(rows.start as isize, 0) as usize;
    for first in tiles.clone().step_by(band_tiles) {
        let band = first..(first + band_tiles).min(tiles.end);
        transform_input_tiles(level, plan, x, band.clone(), &mut v);
        for point in 0..POINTS {
            let gemm = ImplicitGemm {
                x: &v[point * inputs * band_tiles..],
                pixels: &pixels[..band.len()],
                runs: &runs,
                weights: &packed[point * inputs * outputs..][..inputs * outputs],
                channels: outputs,
                epilogue: Epilogue::default(),
            };
            gemm.compute(level, &mut m[point * outputs * band_tiles..][..outputs * band_tiles], 0);
        }
        transform_output_tiles(level, plan, &m, band, epilogue, target, out, start);
    }
}

for_every_level! {
    /// Computes `v = Bᵀ d B` of some tiles, `[point][tile][channel]`.
    pub(crate) fn transform_input_tiles(plan: &Plan, x: &[f32], tiles: Range<usize>, v: &mut [f32]) {
        let inputs = plan.conv.channels[0];
        let (across, row) = (plan.output[1].div_ceil(2), plan.input.row());
        let point = v.len() / POINTS;
        for (i, tile) in tiles.enumerate() {
            let corner = 2 * (tile / across) * row + 2 * (tile % across) * inputs;
            for c in (0..inputs).step_by(LANES) {
                transform_input(&x[corner + c..], row, inputs, &mut v[i * inputs + c..], point);
            }
        }
    }

    /// Computes `Aᵀ m A` of some tiles and applies the epilogue. `out` begins at offset `start` of an image with the
    /// layout `target`.
    pub(crate) fn transform_output_tiles(
        plan: &Plan,
        m: &[f32],
        tiles: Range<usize>,
        epilogue: Epilogue<'_>,
        target: &PaddedImage,
        out: &mut [f32],
        start: usize,
    ) {
        let outputs = plan.conv.channels[1];
        let [height, width] = plan.output;
        let across = width.div_ceil(2);
        let point = m.len() / POINTS;
        for (i, tile) in tiles.enumerate() {
            let (y, x) = (2 * (tile / across), 2 * (tile % across));
            let pixel = |y: usize, x: usize| {
                let inside = y < height && x < width;
                inside.then(|| (y * width + x, target.at(y as isize, x as isize) as usize - start))
            };
            let pixels = [pixel(y, x), pixel(y, x + 1), pixel(y + 1, x), pixel(y + 1, x + 1)];
            for c in (0..outputs).step_by(LANES) {
                let mut sums = transform_output(&m[i * outputs + c..], point);
                for corner in 0..4 {
                    if let Some((pixel, to)) = pixels[corner] {
                        epilogue.apply(&mut sums[corner], c, pixel * outputs + c);
                        out[to + c..][..LANES].copy_from_slice(&sums[corner]);
                    }
                }
            }
        }
    }
}

/// One value for each of [`LANES`] channels.
type Lanes = [f32; LANES];

#[inline(always)]
fn load(from: &[f32]) -> Lanes {
    *from.first_chunk().expect("a tile lies within its image")
}

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    let mut sum = a;
    (0..LANES).for_each(|l| sum[l] += b[l]);
    sum
}

#[inline(always)]
fn subtract(a: Lanes, b: Lanes) -> Lanes {
    let mut difference = a;
    (0..LANES).for_each(|l| difference[l] -= b[l]);
    difference
}

/// `Bᵀ d`
#[inline(always)]
fn multiply_bt(d: [Lanes; 4]) -> [Lanes; 4] {
    [subtract(d[0], d[2]), add(d[1], d[2]), subtract(d[2], d[1]), subtract(d[1], d[3])]
}

/// `Aᵀ m`
#[inline(always)]
fn multiply_at(m: [Lanes; 4]) -> [Lanes; 2] {
    [add(add(m[0], m[1]), m[2]), subtract(subtract(m[1], m[2]), m[3])]
}

/// `Bᵀ d B` of [`LANES`] channels of a 4x4 tile.
#[inline(always)]
fn transform_input(x: &[f32], row: usize, column: usize, v: &mut [f32], point: usize) {
    let mut t = [[[0.0; LANES]; 4]; 4];
    for j in 0..4 {
        let at = |i: usize| load(&x[i * row + j * column..]);
        let column = multiply_bt([at(0), at(1), at(2), at(3)]);
        for i in 0..4 {
            t[i][j] = column[i];
        }
    }
    for i in 0..4 {
        let row = multiply_bt(t[i]);
        for j in 0..4 {
            v[(4 * i + j) * point..][..LANES].copy_from_slice(&row[j]);
        }
    }
}

/// `Aᵀ m A` of [`LANES`] channels: the outputs at (0, 0), (0, 1), (1, 0) and (1, 1).
#[inline(always)]
fn transform_output(m: &[f32], point: usize) -> [Lanes; 4] {
    let mut t = [[[0.0; LANES]; 4]; 2];
    for j in 0..4 {
        let at = |i: usize| load(&m[(4 * i + j) * point..]);
        let column = multiply_at([at(0), at(1), at(2), at(3)]);
        t[0][j] = column[0];
        t[1][j] = column[1];
    }
    let ([a, b], [c, d]) = (multiply_at(t[0]), multiply_at(t[1]));
    [a, b, c, d]
}
