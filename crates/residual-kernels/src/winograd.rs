//! 3x3 convolutions by Winograd's minimal filtering F(2x2, 3x3): `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`, four
//! outputs from sixteen products where their sums have thirty-six (Lavin & Gray 2016, "Fast Algorithms
//! for Convolutional Neural Networks", section 4.1). Its constants are 1 and ½, so its rounding errors are
//! of the size of the sums' own.
//!
//! For convolutions wide enough that products outweigh the transforms. The input gradient is such a
//! convolution too, of the output gradient with the kernels turned around.

#![allow(clippy::needless_range_loop, reason = "lanes are counted so that they become vectors")]

use crate::{
    Buffer, Conv, Level,
    conv::{Padded, Plan},
    simd::for_every_level,
    tile::{BLOCK, Epilogue, Pixel, Run, Runs, Sums},
};
use rayon::prelude::*;
use std::ops::Range;

/// The products of a tile.
const POINTS: usize = 16;

/// Channels from which on products outweigh the transforms.
const LEAST_CHANNELS: usize = 64;

/// Lanes that a transform holds in registers.
const LANES: usize = 8;

/// Memory that the transforms of a band of tiles may take, in numbers, and the tiles that it has at least.
const BAND_NUMBERS: usize = 1 << 17;
const LEAST_TILES: usize = 48;

/// Whether the algorithm is made for such a convolution.
pub(crate) fn suits(conv: &Conv) -> bool {
    let Conv { channels, kernel, stride, padding, dilation, groups } = *conv;
    let wide = channels.iter().all(|&c| c >= LEAST_CHANNELS && c.is_multiple_of(BLOCK))
        && channels[0] * channels[1] <= 256 * 256;
    wide && (kernel, stride, padding, dilation, groups) == ([3, 3], 1, 1, 1, 1)
}

/// `G g Gᵀ` of every kernel, packed `[point][block of outputs][input][BLOCK]`.
pub(crate) fn prepare(conv: &Conv, weight: &[f32]) -> Buffer {
    let [inputs, outputs] = conv.channels;
    let mut packed = Buffer::new(POINTS * inputs * outputs);
    // One row of G.
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

/// The weight of [`Conv::transposed`]: inputs and outputs change places, and kernels are turned by half a turn.
pub(crate) fn transposed_weight(conv: &Conv, weight: &[f32]) -> Buffer {
    let [inputs, outputs] = conv.channels;
    let mut turned = Buffer::new(weight.len());
    for (input, turned) in turned.chunks_mut(outputs * 9).enumerate() {
        for (output, turned) in turned.chunks_mut(9).enumerate() {
            let kernel = &weight[(output * inputs + input) * 9..][..9];
            turned.iter_mut().zip(kernel.iter().rev()).for_each(|(to, from)| *to = *from);
        }
    }
    turned
}

/// Output rows of a convolution, from an even one on, with its epilogue, into a padded image from its first
/// of these rows on.
#[expect(clippy::too_many_arguments, reason = "a convolution and where it goes")]
pub(crate) fn rows(
    level: Level,
    plan: &Plan,
    x: &[f32],
    packed: &[f32],
    epilogue: Epilogue,
    rows: Range<usize>,
    target: &Padded,
    out: &mut [f32],
) {
    let [inputs, outputs] = plan.conv.channels;
    let across = plan.output[1].div_ceil(2);
    let tiles = (rows.start / 2 * across)..(rows.end.div_ceil(2) * across);
    let most = (BAND_NUMBERS / (POINTS * (inputs + outputs))).max(LEAST_TILES).min(tiles.len());
    let mut v = Buffer::new(POINTS * most * inputs);
    let mut m = Buffer::new(POINTS * most * outputs);
    let pixels: Vec<Pixel> =
        (0..most).map(|tile| Pixel { input: (tile * inputs) as u32, output: (tile * outputs) as u32 }).collect();
    let runs = Runs::new([Run { offset: 0, length: inputs as u32 }].into_iter());
    let start = target.at(rows.start as isize, 0) as usize;
    for first in tiles.clone().step_by(most) {
        let band = first..(first + most).min(tiles.end);
        spread_tiles(level, plan, x, band.clone(), &mut v);
        for point in 0..POINTS {
            let sums = Sums {
                x: &v[point * inputs * most..],
                pixels: &pixels[..band.len()],
                runs: &runs,
                weights: &packed[point * inputs * outputs..][..inputs * outputs],
                channels: outputs,
                epilogue: Epilogue::default(),
            };
            sums.compute(level, &mut m[point * outputs * most..][..outputs * most], 0);
        }
        gather_tiles(level, plan, &m, band, epilogue, target, out, start);
    }
}

for_every_level! {
    /// `Bᵀ d B` of some tiles, `[point][tile][channel]`.
    pub(crate) fn spread_tiles(plan: &Plan, x: &[f32], tiles: Range<usize>, v: &mut [f32]) {
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

    /// `Aᵀ m A` of some tiles, with the epilogue, to their pixels of a padded image from `start` on.
    pub(crate) fn gather_tiles(
        plan: &Plan,
        m: &[f32],
        tiles: Range<usize>,
        epilogue: Epilogue<'_>,
        target: &Padded,
        out: &mut [f32],
        start: usize,
    ) {
        let outputs = plan.conv.channels[1];
        let [height, width] = plan.output;
        let across = width.div_ceil(2);
        let point = m.len() / POINTS;
        for (i, tile) in tiles.enumerate() {
            let (y, x) = (2 * (tile / across), 2 * (tile % across));
            let place = |y: usize, x: usize| {
                let inside = y < height && x < width;
                inside.then(|| (y * width + x, target.at(y as isize, x as isize) as usize - start))
            };
            let pixels = [place(y, x), place(y, x + 1), place(y + 1, x), place(y + 1, x + 1)];
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

type Vector = [f32; LANES];

#[inline(always)]
fn load(from: &[f32]) -> Vector {
    *from.first_chunk().expect("a tile lies within its image")
}

#[inline(always)]
fn add(a: Vector, b: Vector) -> Vector {
    let mut sum = a;
    (0..LANES).for_each(|l| sum[l] += b[l]);
    sum
}

#[inline(always)]
fn subtract(a: Vector, b: Vector) -> Vector {
    let mut difference = a;
    (0..LANES).for_each(|l| difference[l] -= b[l]);
    difference
}

/// `Bᵀ d`
#[inline(always)]
fn spread(d: [Vector; 4]) -> [Vector; 4] {
    [subtract(d[0], d[2]), add(d[1], d[2]), subtract(d[2], d[1]), subtract(d[1], d[3])]
}

/// `Aᵀ m`
#[inline(always)]
fn gather(m: [Vector; 4]) -> [Vector; 2] {
    [add(add(m[0], m[1]), m[2]), subtract(subtract(m[1], m[2]), m[3])]
}

/// `Bᵀ d B` of some channels of a 4x4 tile.
#[inline(always)]
fn transform_input(x: &[f32], row: usize, column: usize, v: &mut [f32], point: usize) {
    let mut t = [[[0.0; LANES]; 4]; 4];
    for j in 0..4 {
        let at = |i: usize| load(&x[i * row + j * column..]);
        let column = spread([at(0), at(1), at(2), at(3)]);
        for i in 0..4 {
            t[i][j] = column[i];
        }
    }
    for i in 0..4 {
        let row = spread(t[i]);
        for j in 0..4 {
            v[(4 * i + j) * point..][..LANES].copy_from_slice(&row[j]);
        }
    }
}

/// `Aᵀ m A` of some channels: the outputs at (0, 0), (0, 1), (1, 0) and (1, 1).
#[inline(always)]
fn transform_output(m: &[f32], point: usize) -> [Vector; 4] {
    let mut t = [[[0.0; LANES]; 4]; 2];
    for j in 0..4 {
        let at = |i: usize| load(&m[(4 * i + j) * point..]);
        let column = gather([at(0), at(1), at(2), at(3)]);
        t[0][j] = column[0];
        t[1][j] = column[1];
    }
    let ([a, b], [c, d]) = (gather(t[0]), gather(t[1]));
    [a, b, c, d]
}
