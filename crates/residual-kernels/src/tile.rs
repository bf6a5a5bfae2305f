//! The two loops where the time goes: sums held in registers for a tile of pixels or weights by
//! [`BLOCK`] channels.

#![allow(clippy::needless_range_loop, reason = "the indices are those of the formulas, and unroll")]

use crate::simd::{Instructions, Level, Plain, Vector};

/// Output channels of a tile.
pub(crate) const BLOCK: usize = 16;

/// Where a pixel is in what a convolution reads and in what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pixel {
    pub(crate) input: u32,
    pub(crate) output: u32,
}

/// Numbers in a row that a pixel's sum runs over, from its `input` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// Weights of a block that stay in the first-level cache while every pixel of a band takes from them.
const PART: usize = 256;

/// Pixels whose numbers stay in the second-level cache while every weight takes from them.
const BAND: usize = 192;

/// Steps of the innermost loop that are written out.
const UNROLL: usize = 4;

/// The runs of a sum, in parts of at most [`PART`] numbers.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    /// Where each part ends in `runs`, and the numbers up to there.
    ends: Vec<(usize, usize)>,
}

impl Runs {
    /// Merges runs that follow each other, and cuts them at the ends of parts.
    pub(crate) fn new(runs: impl Iterator<Item = Run>) -> Self {
        let mut merged: Vec<Run> = Vec::new();
        for run in runs {
            match merged.last_mut() {
                Some(last) if last.offset + last.length == run.offset => last.length += run.length,
                _ => merged.push(run),
            }
        }
        let depth: usize = merged.iter().map(|run| run.length as usize).sum();
        let part = depth.div_ceil(depth.div_ceil(PART).max(1));
        let (mut runs, mut ends, mut done) = (Vec::new(), Vec::new(), 0);
        for mut run in merged {
            while run.length > 0 {
                let length = run.length.min((part - done % part) as u32);
                runs.push(Run { offset: run.offset, length });
                run = Run { offset: run.offset + length, length: run.length - length };
                done += length as usize;
                if done.is_multiple_of(part) || done == depth {
                    ends.push((runs.len(), done));
                }
            }
        }
        if ends.is_empty() {
            ends.push((0, 0));
        }
        Self { runs, ends }
    }

    /// Numbers of all runs.
    pub(crate) fn depth(&self) -> usize {
        self.ends.last().map_or(0, |(_, depth)| *depth)
    }

    /// The runs of each part, and the numbers before it.
    fn parts(&self) -> impl Iterator<Item = (&[Run], usize)> {
        let starts = [(0, 0)].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|((from, depth), (to, _))| (&self.runs[from..*to], depth))
    }

    /// The numbers that a pixel's sum reaches.
    fn reach(&self) -> usize {
        self.runs.iter().map(|run| (run.offset + run.length) as usize).max().unwrap_or(0)
    }
}

/// What becomes of a sum before it is written: `g(gain · sum + bias + strength · other)`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// Gain and bias of each channel.
    pub(crate) affine: Option<(&'a [f32], &'a [f32])>,
    pub(crate) add: Option<Add<'a>>,
    pub(crate) relu: bool,
}

impl Epilogue<'_> {
    /// Does it to the sums of some channels, whose first is `channel`; `place` is theirs in what is added.
    #[inline(always)]
    pub(crate) fn apply(&self, sums: &mut [f32], channel: usize, place: usize) {
        let count = sums.len();
        if let Some((gain, bias)) = self.affine {
            let affine = gain[channel..][..count].iter().zip(&bias[channel..][..count]);
            sums.iter_mut().zip(affine).for_each(|(sum, (gain, bias))| *sum = bias + gain * *sum);
        }
        if let Some(add) = self.add {
            let others = &add.values[place..][..count];
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += add.strength * other);
        }
        if self.relu {
            sums.iter_mut().for_each(|sum| *sum = if *sum < 0.0 { 0.0 } else { *sum });
        }
    }

    /// The same for a group of channels that begins at this one.
    pub(crate) fn after_channels(self, first: usize) -> Self {
        Self {
            affine: self.affine.map(|(gain, bias)| (&gain[first..], &bias[first..])),
            add: self.add.map(|add| Add { values: &add.values[first..], ..add }),
            ..self
        }
    }
}

/// Numbers to add, at the places of the pixels' outputs.
#[derive(Clone, Copy)]
pub(crate) struct Add<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) strength: f32,
}

/// Sums over runs of `x`: `y[pixel.output + c] = Σ_run Σ_k x[pixel.input + run.offset + k] · w[...][c]`.
#[derive(Clone, Copy)]
pub(crate) struct Sums<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) pixels: &'a [Pixel],
    pub(crate) runs: &'a Runs,
    /// `[blocks of channels][numbers of all runs][BLOCK]`
    pub(crate) weights: &'a [f32],
    /// Output channels.
    pub(crate) channels: usize,
    pub(crate) epilogue: Epilogue<'a>,
}

impl Sums<'_> {
    /// Computes the sums of every pixel and writes them to `y`, `start` being subtracted from their places.
    ///
    /// # Panics
    /// If a place is outside of its slice.
    pub(crate) fn compute(&self, level: Level, y: &mut [f32], start: usize) {
        self.check(y.len(), start);
        match level.0 {
            // SAFETY: the level says that the processor has the instructions, and `check` that all places exist.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { sums_avx2(self, y, start) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe { sums_avx512(self, y, start) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => unsafe { sums::<std::arch::aarch64::float32x4_t, 4, 6>(self, y, start) },
            // SAFETY: as above; `Plain` needs no instructions.
            _ => unsafe { sums::<Plain, 4, 2>(self, y, start) },
        }
    }

    fn check(&self, written: usize, start: usize) {
        let reach = self.runs.reach();
        let (mut input, mut first, mut last) = (0, u32::MAX, 0);
        for pixel in self.pixels {
            input = input.max(pixel.input);
            first = first.min(pixel.output);
            last = last.max(pixel.output);
        }
        if self.pixels.is_empty() {
            return;
        }
        assert!(input as usize + reach <= self.x.len(), "a tile would read beyond its input");
        assert!(start <= first as usize && last as usize + self.channels <= written + start, "beyond the output");
        let blocks = self.channels.div_ceil(BLOCK);
        assert!(blocks * self.runs.depth() * BLOCK <= self.weights.len(), "too few weights");
        if let Some((gain, bias)) = self.epilogue.affine {
            assert!(self.channels <= gain.len() && self.channels <= bias.len(), "too few gains or biases");
        }
        if let Some(add) = self.epilogue.add {
            assert!(last as usize + self.channels <= add.values.len(), "beyond the addend");
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums_avx2(sums_: &Sums, y: &mut [f32], start: usize) {
    // SAFETY: the caller's.
    unsafe { sums::<std::arch::x86_64::__m256, 2, 6>(sums_, y, start) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f")]
unsafe fn sums_avx512(sums_: &Sums, y: &mut [f32], start: usize) {
    // SAFETY: the caller's.
    unsafe { sums::<std::arch::x86_64::__m512, 1, 12>(sums_, y, start) }
}

/// Calls a function of a constant, for a number up to another constant.
macro_rules! with_constant {
    ($number:expr, $most:expr, $call:ident $(, $generic:ty)* ; $lanes:expr ; $($argument:expr),*) => {
        match $number {
            1 => $call::<$($generic,)* $lanes, 1>($($argument),*),
            2 => $call::<$($generic,)* $lanes, 2>($($argument),*),
            3 if $most >= 3 => $call::<$($generic,)* $lanes, 3>($($argument),*),
            4 if $most >= 4 => $call::<$($generic,)* $lanes, 4>($($argument),*),
            5 if $most >= 5 => $call::<$($generic,)* $lanes, 5>($($argument),*),
            6 if $most >= 6 => $call::<$($generic,)* $lanes, 6>($($argument),*),
            7 if $most >= 7 => $call::<$($generic,)* $lanes, 7>($($argument),*),
            8 if $most >= 8 => $call::<$($generic,)* $lanes, 8>($($argument),*),
            9 if $most >= 9 => $call::<$($generic,)* $lanes, 9>($($argument),*),
            10 if $most >= 10 => $call::<$($generic,)* $lanes, 10>($($argument),*),
            11 if $most >= 11 => $call::<$($generic,)* $lanes, 11>($($argument),*),
            12 if $most >= 12 => $call::<$($generic,)* $lanes, 12>($($argument),*),
            _ => unreachable!("a tile of more than its most"),
        }
    };
}

/// Splits `count` into as few parts of at most `most` as there can be, of sizes that differ by one.
#[inline(always)]
fn balanced(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let parts = count.div_ceil(most);
    (0..parts).map(move |i| (i + 1) * count / parts - i * count / parts)
}

/// A part of the sums of a block of channels.
#[derive(Clone, Copy)]
struct Part<'a> {
    block: usize,
    runs: &'a [Run],
    /// Those of the runs.
    weights: *const f32,
    /// Whether it is the first part of a sum, and the last. Between them the sums wait in `y`.
    first: bool,
    last: bool,
}

/// # Safety
/// The processor has the vector's instructions, and [`Sums::check`] passed.
#[inline(always)]
unsafe fn sums<V: Vector, const N: usize, const MOST: usize>(sums: &Sums, y: &mut [f32], start: usize) {
    let depth = sums.runs.depth();
    let blocks = sums.channels.div_ceil(BLOCK);
    let whole = sums.channels / BLOCK;
    let weights = |block: usize, done: usize| sums.weights[(block * depth + done) * BLOCK..].as_ptr();
    for pixels in sums.pixels.chunks(BAND) {
        for (runs, done) in sums.runs.parts() {
            let length: usize = runs.iter().map(|run| run.length as usize).sum();
            let (first, last) = (done == 0, done + length == depth);
            for block in 0..whole {
                let part = Part { block, runs, weights: weights(block, done), first, last };
                // SAFETY: the caller's; the weights of these runs begin there.
                unsafe { band::<V, N, MOST>(sums, pixels, part, y, start) };
            }
        }
        // The channels that do not fill a block are never stored in part.
        for block in whole..blocks {
            let part = Part { block, runs: &sums.runs.runs, weights: weights(block, 0), first: true, last: true };
            // SAFETY: the caller's.
            unsafe { band::<V, N, MOST>(sums, pixels, part, y, start) };
        }
    }
}

/// A part of the sums of some pixels, in tiles.
///
/// # Safety
/// As for [`tile`], but for the number of pixels.
#[inline(always)]
unsafe fn band<V: Vector, const N: usize, const MOST: usize>(
    sums: &Sums,
    mut pixels: &[Pixel],
    part: Part,
    y: &mut [f32],
    start: usize,
) {
    for count in balanced(pixels.len(), MOST) {
        let tile_pixels;
        (tile_pixels, pixels) = pixels.split_at(count);
        // SAFETY: the caller's; there are as many pixels.
        unsafe { with_constant!(count, MOST, tile, V ; N ; sums, tile_pixels, part, y, start) }
    }
}

/// A block of numbers.
///
/// # Safety
/// The processor has the vector's instructions, and a block is at `from`.
#[inline(always)]
unsafe fn load<V: Vector, const N: usize>(from: *const f32) -> [V; N] {
    // SAFETY: the caller's.
    unsafe {
        let mut block = [V::splat(0.0); N];
        for j in 0..N {
            block[j] = V::load(from.add(j * V::LANES));
        }
        block
    }
}

/// Adds one number of each pixel times a block of weights.
///
/// # Safety
/// As for [`sums`]; each base has a number at `k`, and a block is at `weights`.
#[inline(always)]
unsafe fn step<V: Vector, const N: usize, const P: usize>(
    acc: &mut [[V; N]; P],
    base: &[*const f32; P],
    k: usize,
    weights: *const f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let w: [V; N] = load(weights);
        for p in 0..P {
            let v = V::splat(*base[p].add(k));
            for j in 0..N {
                acc[p][j] = acc[p][j].add_product(v, w[j]);
            }
        }
    }
}

/// A part of one tile's sums.
///
/// # Safety
/// As for [`sums`]; there are `P` pixels, the weights of the part are where it says, and its block is whole
/// unless it is all of the sum.
#[inline(always)]
unsafe fn tile<V: Vector, const N: usize, const P: usize>(
    sums: &Sums,
    pixels: &[Pixel],
    part: Part,
    y: &mut [f32],
    start: usize,
) {
    let x = sums.x.as_ptr();
    let mut weights = part.weights;
    let first = part.block * BLOCK;
    // SAFETY: the caller's: every place was checked.
    unsafe {
        let pixels: &[Pixel; P] = &*pixels.as_ptr().cast();
        let mut acc = [[V::splat(0.0); N]; P];
        if !part.first {
            for p in 0..P {
                let from = y.as_ptr().add(pixels[p].output as usize - start + first);
                acc[p] = load(from);
            }
        }
        for run in part.runs {
            let mut base = [x; P];
            for p in 0..P {
                base[p] = x.add((pixels[p].input + run.offset) as usize);
            }
            let length = run.length as usize;
            // Short loops end as predicted.
            let mut k = 0;
            while k + UNROLL <= length {
                for i in 0..UNROLL {
                    step(&mut acc, &base, k + i, weights.add(i * BLOCK));
                }
                weights = weights.add(UNROLL * BLOCK);
                k += UNROLL;
            }
            while k < length {
                step(&mut acc, &base, k, weights);
                weights = weights.add(BLOCK);
                k += 1;
            }
        }
        if !part.last {
            for p in 0..P {
                let to = y.as_mut_ptr().add(pixels[p].output as usize - start + first);
                for j in 0..N {
                    acc[p][j].store(to.add(j * V::LANES));
                }
            }
            return;
        }
        let Epilogue { affine, add, relu } = sums.epilogue;
        if first + BLOCK <= sums.channels {
            if let Some((gain, bias)) = affine {
                let gain: [V; N] = load(gain.as_ptr().add(first));
                let bias: [V; N] = load(bias.as_ptr().add(first));
                for sum in &mut acc {
                    for j in 0..N {
                        sum[j] = bias[j].add_product(gain[j], sum[j]);
                    }
                }
            }
            if let Some(add) = add {
                let strength = V::splat(add.strength);
                for p in 0..P {
                    let from = add.values.as_ptr().add(pixels[p].output as usize + first);
                    for j in 0..N {
                        acc[p][j] = acc[p][j].add_product(strength, V::load(from.add(j * V::LANES)));
                    }
                }
            }
            for p in 0..P {
                let to = y.as_mut_ptr().add(pixels[p].output as usize - start + first);
                for j in 0..N {
                    let value = if relu { acc[p][j].relu() } else { acc[p][j] };
                    value.store(to.add(j * V::LANES));
                }
            }
            return;
        }
        let mut values = [[0.0f32; BLOCK]; P];
        for p in 0..P {
            for j in 0..N {
                acc[p][j].store(values[p].as_mut_ptr().add(j * V::LANES));
            }
        }
        for p in 0..P {
            let (place, count) = (pixels[p].output as usize + first, BLOCK.min(sums.channels - first));
            sums.epilogue.apply(&mut values[p][..count], first, place);
            y[place - start..][..count].copy_from_slice(&values[p][..count]);
        }
    }
}

/// Sums over pixels: `w[...][c] += Σ_pixel x[pixel.input + run.offset + k] · d[pixel.output + c]`.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a> {
    pub(crate) x: &'a [f32],
    /// With [`BLOCK`] numbers behind the last pixel, since whole blocks are read.
    pub(crate) d: &'a [f32],
    pub(crate) pixels: &'a [Pixel],
    pub(crate) runs: &'a Runs,
    /// Channels of `d`.
    pub(crate) channels: usize,
}

/// Pixels whose numbers stay in the first-level cache while every weight takes from them.
const PRODUCT_BAND: usize = 128;

impl Products<'_> {
    /// Adds the sums to `weights`, laid out as in [`Sums`].
    ///
    /// # Panics
    /// If a place is outside of its slice.
    pub(crate) fn add_to(&self, level: Level, weights: &mut [f32]) {
        self.check(weights.len());
        match level.0 {
            // SAFETY: the level says that the processor has the instructions, and `check` that all places exist.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { products_avx2(self, weights) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe { products_avx512(self, weights) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => unsafe { products::<std::arch::aarch64::float32x4_t, 4, 6>(self, weights) },
            // SAFETY: as above; `Plain` needs no instructions.
            _ => unsafe { products::<Plain, 4, 2>(self, weights) },
        }
    }

    fn check(&self, weights: usize) {
        let reach = self.runs.reach();
        let blocks = self.channels.div_ceil(BLOCK);
        assert!(blocks * self.runs.depth() * BLOCK <= weights, "too little room for weights");
        let input = self.pixels.iter().map(|pixel| pixel.input).max().unwrap_or(0) as usize;
        let output = self.pixels.iter().map(|pixel| pixel.output).max().unwrap_or(0) as usize;
        if !self.pixels.is_empty() {
            assert!(input + reach <= self.x.len(), "a tile would read beyond its input");
            assert!(output + blocks * BLOCK <= self.d.len(), "a tile would read beyond its gradient");
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn products_avx2(products_: &Products, weights: &mut [f32]) {
    // SAFETY: the caller's.
    unsafe { products::<std::arch::x86_64::__m256, 2, 6>(products_, weights) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f")]
unsafe fn products_avx512(products_: &Products, weights: &mut [f32]) {
    // SAFETY: the caller's.
    unsafe { products::<std::arch::x86_64::__m512, 1, 12>(products_, weights) }
}

/// # Safety
/// The processor has the vector's instructions, and [`Products::check`] passed.
#[inline(always)]
unsafe fn products<V: Vector, const N: usize, const MOST: usize>(products: &Products, weights: &mut [f32]) {
    let depth = products.runs.depth();
    for pixels in products.pixels.chunks(PRODUCT_BAND) {
        for block in 0..products.channels.div_ceil(BLOCK) {
            let mut weights = weights[block * depth * BLOCK..].as_mut_ptr();
            // SAFETY: `check` saw every place that a tile reads, and the room for `depth` rows of weights.
            unsafe {
                let d = products.d.as_ptr().add(block * BLOCK);
                for run in &products.runs.runs {
                    let mut x = products.x.as_ptr().add(run.offset as usize);
                    for rows in balanced(run.length as usize, MOST) {
                        with_constant!(rows, MOST, product_tile, V ; N ; x, d, pixels, weights);
                        (x, weights) = (x.add(rows), weights.add(rows * BLOCK));
                    }
                }
            }
        }
    }
}

/// # Safety
/// As for [`products`]: `x` and `d` hold `K` numbers and a block at every pixel, `weights` holds `K` blocks.
#[inline(always)]
unsafe fn product_tile<V: Vector, const N: usize, const K: usize>(
    x: *const f32,
    d: *const f32,
    pixels: &[Pixel],
    weights: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut acc = [[V::splat(0.0); N]; K];
        for k in 0..K {
            acc[k] = load(weights.add(k * BLOCK));
        }
        for pixel in pixels {
            let d = d.add(pixel.output as usize);
            let d: [V; N] = load(d);
            let x = x.add(pixel.input as usize);
            for k in 0..K {
                let v = V::splat(*x.add(k));
                for j in 0..N {
                    acc[k][j] = acc[k][j].add_product(v, d[j]);
                }
            }
        }
        for k in 0..K {
            for j in 0..N {
                acc[k][j].store(weights.add(k * BLOCK + j * V::LANES));
            }
        }
    }
}
