//! The two inner loops, which take most of the time: matrix products over gathered rows, in register tiles of a few
//! pixels (or weight rows) by one or two blocks of [`BLOCK`] channels.

#![allow(clippy::needless_range_loop, reason = "the indices match the formulas, and the loops unroll")]

use crate::{
    Buffer,
    parallel::{SharedOutput, divide, for_each},
    simd::{LINE, SimdLevel, SimdVector, for_every_vector, prefetch},
};

/// The number of output channels that are stored together in weights.
pub(crate) const BLOCK: usize = 16;

/// The greatest number of blocks of a tile with vectors of this type. If a vector holds a whole block, a tile of one block would use
/// each input value that it reads for only one multiplication, and processors read no more vectors at a time than they multiply.
#[inline(always)]
const fn most_blocks<V: SimdVector>() -> usize {
    if V::LANES == BLOCK { 2 } else { 1 }
}

/// Divides a number of blocks among tiles with vectors of this type: the first block of each tile, and whether it has two.
#[inline(always)]
pub(crate) fn tile_blocks<V: SimdVector>(blocks: usize) -> impl Iterator<Item = (usize, bool)> {
    let most = most_blocks::<V>();
    (0..blocks).step_by(most).map(move |block| (block, most == 2 && block + 1 < blocks))
}

/// The number of blocks of a task: two, because tiles of two are faster, unless threads would have fewer than two tasks each.
pub(crate) fn blocks_per_task(blocks: usize) -> usize {
    if blocks >= 4 * rayon::current_num_threads() { 2 } else { 1 }
}

/// A pixel's offsets in the input and in the output of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pixel {
    pub(crate) input: u32,
    pub(crate) output: u32,
}

/// A contiguous range of input values in a pixel's sum. `offset` is relative to the pixel's `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// The maximum number of input values per chunk. The weights of one chunk and block stay in the L1 cache while they are
/// applied to all pixels of a band.
const MAX_CHUNK: usize = 256;

/// The greatest number of pixels per band. A band's input values stay in the L2 cache while all weights are applied to them. Images
/// of 14 by 14 pixels are one band.
const BAND: usize = 204;

/// The unroll factor of the innermost loop.
const UNROLL: usize = 4;

/// The runs of a sum, split into chunks of at most [`MAX_CHUNK`] values.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    /// For each chunk, the end of its runs in `runs`, and the number of values up to the end of the chunk.
    ends: Vec<(usize, usize)>,
}

impl Runs {
    /// Merges adjacent runs, and splits runs at the chunk boundaries.
    pub(crate) fn new(runs: impl Iterator<Item = Run>) -> Self {
        let mut merged: Vec<Run> = Vec::new();
        for run in runs {
            match merged.last_mut() {
                Some(last) if last.offset + last.length == run.offset => last.length += run.length,
                _ => merged.push(run),
            }
        }
        let depth: usize = merged.iter().map(|run| run.length as usize).sum();
        let chunk = depth.div_ceil(depth.div_ceil(MAX_CHUNK).max(1));
        let (mut runs, mut ends, mut done) = (Vec::new(), Vec::new(), 0);
        for mut run in merged {
            while run.length > 0 {
                let length = run.length.min((chunk - done % chunk) as u32);
                runs.push(Run { offset: run.offset, length });
                run = Run { offset: run.offset + length, length: run.length - length };
                done += length as usize;
                if done.is_multiple_of(chunk) || done == depth {
                    ends.push((runs.len(), done));
                }
            }
        }
        if ends.is_empty() {
            ends.push((0, 0));
        }
        Self { runs, ends }
    }

    /// The total number of values of the runs.
    pub(crate) fn depth(&self) -> usize {
        self.ends.last().map_or(0, |(_, depth)| *depth)
    }

    /// The runs of each chunk, and the number of values before the chunk.
    fn chunks(&self) -> impl Iterator<Item = (&[Run], usize)> {
        let starts = [(0, 0)].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|((from, depth), (to, _))| (&self.runs[from..*to], depth))
    }

    /// The end of the range that a sum reads, relative to the pixel's `input`.
    fn reach(&self) -> usize {
        self.runs.iter().map(|run| (run.offset + run.length) as usize).max().unwrap_or(0)
    }
}

/// The operations applied to a sum before it is written: `g(gain · sum + bias + strength · addend)`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// The gain and bias of each channel.
    pub(crate) affine: Option<(&'a [f32], &'a [f32])>,
    pub(crate) add: Option<Addend<'a>>,
    pub(crate) relu: bool,
}

impl Epilogue<'_> {
    /// Applies the epilogue to the sums of consecutive channels. `channel` is the first channel, and `offset` is its
    /// offset in the addend.
    #[inline(always)]
    pub(crate) fn apply(&self, sums: &mut [f32], channel: usize, offset: usize) {
        let count = sums.len();
        if let Some((gain, bias)) = self.affine {
            let affine = gain[channel..][..count].iter().zip(&bias[channel..][..count]);
            sums.iter_mut().zip(affine).for_each(|(sum, (gain, bias))| *sum = bias + gain * *sum);
        }
        if let Some(add) = self.add {
            let others = &add.values[offset..][..count];
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += add.strength * other);
        }
        if self.relu {
            sums.iter_mut().for_each(|sum| *sum = if *sum < 0.0 { 0.0 } else { *sum });
        }
    }

    /// The epilogue for the channels from `first` on.
    pub(crate) fn skip_channels(self, first: usize) -> Self {
        Self {
            affine: self.affine.map(|(gain, bias)| (&gain[first..], &bias[first..])),
            add: self.add.map(|add| Addend { values: &add.values[first..], ..add }),
            ..self
        }
    }
}

/// A multiple of a tensor that is added to the output.
#[derive(Clone, Copy)]
pub(crate) struct Addend<'a> {
    /// The tensor, at the same offsets as the output.
    pub(crate) values: &'a [f32],
    pub(crate) strength: f32,
}

/// A matrix product of gathered rows of `x`:
/// `y[pixel.output + c] = Σ_run Σ_k x[pixel.input + run.offset + k] · w[…][c]`.
#[derive(Clone, Copy)]
pub(crate) struct ImplicitGemm<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) pixels: &'a [Pixel],
    pub(crate) runs: &'a Runs,
    /// `[block of channels][value of the runs][BLOCK]`
    pub(crate) weights: &'a [f32],
    /// The number of output channels.
    pub(crate) channels: usize,
    pub(crate) epilogue: Epilogue<'a>,
}

impl ImplicitGemm<'_> {
    /// Computes the sums of every pixel and writes them to `y`, which begins at offset `start` of the output.
    ///
    /// # Panics
    /// If an offset is outside its slice.
    pub(crate) fn compute(&self, level: SimdLevel, y: &mut [f32], start: usize) {
        self.check(y.len(), start);
        // SAFETY: `check` checked all offsets.
        unsafe { gemm(level, self, y.as_mut_ptr(), start) }
    }

    /// [`Self::compute`] with the blocks of channels divided among the threads, so that each reads only its part of the
    /// weights.
    ///
    /// # Panics
    /// If an offset is outside its slice, or two pixels have the same channels of the output.
    pub(crate) fn compute_on_all_threads(&self, level: SimdLevel, y: &mut [f32], start: usize) {
        self.check(y.len(), start);
        let is_apart = |pixels: &[Pixel]| (pixels[0].output as usize) + self.channels <= pixels[1].output as usize;
        assert!(self.pixels.windows(2).all(is_apart), "pixels overlap in the output");
        let y = SharedOutput::new(y);
        let blocks = self.channels.div_ceil(BLOCK);
        let parts = rayon::current_num_threads().min(blocks);
        let depth = self.runs.depth();
        for_each(divide(blocks, parts), false, |part| {
            let [first, end] = [part.start, part.end].map(|block| block * BLOCK);
            let product = ImplicitGemm {
                weights: &self.weights[first * depth..],
                channels: end.min(self.channels) - first,
                epilogue: self.epilogue.skip_channels(first),
                ..*self
            };
            // SAFETY: `check` checked all offsets. Nothing else writes these channels, because pixels do not overlap.
            unsafe { gemm(level, &product, y.at(first), start) }
        });
    }

    fn check(&self, output_len: usize, start: usize) {
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
        assert!(input as usize + reach <= self.x.len(), "an input offset is out of range");
        assert!(
            start <= first as usize && last as usize + self.channels <= output_len + start,
            "an output offset is out of range"
        );
        let blocks = self.channels.div_ceil(BLOCK);
        assert!(blocks * self.runs.depth() * BLOCK <= self.weights.len(), "too few weights");
        if let Some((gain, bias)) = self.epilogue.affine {
            assert!(self.channels <= gain.len() && self.channels <= bias.len(), "too few gains or biases");
        }
        if let Some(add) = self.epilogue.add {
            assert!(last as usize + self.channels <= add.values.len(), "the addend is too short");
        }
    }
}

/// Calls a function with `$number` as its last const generic argument. `$number` is between 1 and `$max`.
macro_rules! with_constant {
    ($number:expr, $max:expr, $call:ident $(, $generic:ty)* ; $lanes:expr ; $($argument:expr),*) => {
        match $number {
            1 => $call::<$($generic,)* $lanes, 1>($($argument),*),
            2 => $call::<$($generic,)* $lanes, 2>($($argument),*),
            3 if $max >= 3 => $call::<$($generic,)* $lanes, 3>($($argument),*),
            4 if $max >= 4 => $call::<$($generic,)* $lanes, 4>($($argument),*),
            5 if $max >= 5 => $call::<$($generic,)* $lanes, 5>($($argument),*),
            6 if $max >= 6 => $call::<$($generic,)* $lanes, 6>($($argument),*),
            7 if $max >= 7 => $call::<$($generic,)* $lanes, 7>($($argument),*),
            8 if $max >= 8 => $call::<$($generic,)* $lanes, 8>($($argument),*),
            9 if $max >= 9 => $call::<$($generic,)* $lanes, 9>($($argument),*),
            10 if $max >= 10 => $call::<$($generic,)* $lanes, 10>($($argument),*),
            11 if $max >= 11 => $call::<$($generic,)* $lanes, 11>($($argument),*),
            12 if $max >= 12 => $call::<$($generic,)* $lanes, 12>($($argument),*),
            _ => unreachable!("a tile is larger than the maximum"),
        }
    };
}

pub(crate) use with_constant;

/// Splits `count` into the fewest parts of at most `max`. Their sizes differ by at most one.
#[inline(always)]
pub(crate) fn balanced(count: usize, max: usize) -> impl Iterator<Item = usize> {
    divide(count, count.div_ceil(max)).map(|part| part.len())
}

/// Pixels whose inputs are a multiple of this many values (4 KiB) apart share the sets of the L1 cache, which has fewer ways
/// than a tile has pixels.
const SAME_SETS: u32 = 1024;

/// With fewer output channels than this, the inputs are read so rarely that a copy does not pay.
const MIN_COPIED_CHANNELS: usize = 64;

/// A copy of the values of a chunk's runs, one row for each pixel of a band. Rows have different sets of the L1 cache.
struct Rows {
    values: Buffer,
    pixels: [Pixel; BAND],
    run: [Run; 1],
}

impl Rows {
    /// The number of values from one row to the next.
    const STRIDE: usize = MAX_CHUNK + 16;

    /// Memory for the copies, if the pixels of the product share sets of the cache.
    fn new(product: &ImplicitGemm) -> Option<Self> {
        let (pixels, channels) = (product.pixels, product.channels);
        let is_same_set = |pixels: &[Pixel]| pixels[1].input.abs_diff(pixels[0].input).is_multiple_of(SAME_SETS);
        (channels >= MIN_COPIED_CHANNELS && pixels.len() > 8 && is_same_set(pixels)).then(|| Self {
            values: Buffer::new(BAND * Self::STRIDE),
            pixels: [Pixel { input: 0, output: 0 }; BAND],
            run: [Run { offset: 0, length: 0 }],
        })
    }

    /// Copies the runs of some pixels. Returns the values, and the pixels and run that refer to them.
    fn copy(&mut self, x: &[f32], pixels: &[Pixel], runs: &[Run]) -> (*const f32, &[Pixel], &[Run]) {
        let mut length = 0;
        for run in runs {
            let len = run.length as usize;
            for (pixel, row) in pixels.iter().zip(self.values.chunks_mut(Self::STRIDE)) {
                row[length..][..len].copy_from_slice(&x[(pixel.input + run.offset) as usize..][..len]);
            }
            length += len;
        }
        for (i, (copied, pixel)) in self.pixels.iter_mut().zip(pixels).enumerate() {
            *copied = Pixel { input: (i * Self::STRIDE) as u32, ..*pixel };
        }
        self.run[0].length = length as u32;
        (self.values.as_ptr(), &self.pixels[..pixels.len()], &self.run)
    }
}

/// Weights that are needed next. Prefetching faster than memory delivers would stall the tile's own loads.
#[derive(Clone, Copy)]
struct Next {
    /// The first row of [`BLOCK`] weights of the first block.
    from: *const f32,
    rows: usize,
    /// The number of rows to prefetch for every [`UNROLL`] values of a sum.
    at_once: usize,
}

/// One chunk of the sums for the blocks of channels of a tile.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    /// The values that the pixels' inputs and the runs are offsets in.
    x: *const f32,
    /// The first block.
    block: usize,
    runs: &'a [Run],
    /// The weights of the runs for the first block.
    weights: *const f32,
    /// The weights that are needed next, without rows if they are in a cache. Each tile prefetches a part of them.
    next: Next,
    /// The number of values from a pixel's inputs to the next pixel's, if the inputs of the next tile are to be prefetched.
    distance: Option<usize>,
    /// Whether this is the first chunk of the sums. Other chunks continue the partial sums in `y`.
    first: bool,
    /// Whether this is the last chunk of the sums. Other chunks write partial sums to `y`.
    last: bool,
}

for_every_vector! {
    /// # Safety
    /// [`ImplicitGemm::check`] must have passed.
    unsafe fn gemm<V, N, MAX>(product: &ImplicitGemm<'_>, y: *mut f32, start: usize) {
        let depth = product.runs.depth();
        let blocks = product.channels.div_ceil(BLOCK);
        let whole = product.channels / BLOCK;
        let weights = |block: usize, done: usize| product.weights[(block * depth + done) * BLOCK..].as_ptr();
        let mut rows = Rows::new(product);
        // If the inputs of pixels do not overlap, the first blocks of channels are the first to read them.
        let distance = match product.pixels {
            [first, second, ..] if rows.is_none() => Some(second.input.abs_diff(first.input) as usize),
            _ => None,
        };
        let distance = distance.filter(|&values| values >= depth);
        let is_large = product.weights.len() >= MANY_WEIGHTS;
        let mut rest = product.pixels;
        for tiles in balanced(rest.len().div_ceil(MAX), BAND / MAX) {
            let pixels;
            (pixels, rest) = rest.split_at((tiles * MAX).min(rest.len()));
            for (runs, done) in product.runs.chunks() {
                let length: usize = runs.iter().map(|run| run.length as usize).sum();
                let (first, last) = (done == 0, done + length == depth);
                let (x, pixels, runs) = match &mut rows {
                    Some(rows) => rows.copy(product.x, pixels, runs),
                    None => (product.x.as_ptr(), pixels, runs),
                };
                for (block, is_pair) in tile_blocks::<V>(whole) {
                    let distance = distance.filter(|_| block == 0);
                    let from = match block + 1 + usize::from(is_pair) {
                        next if next < whole => weights(next, done),
                        _ => weights(0, if last { 0 } else { done + length }),
                    };
                    let next = Next { from, rows: if is_large { length } else { 0 }, at_once: 0 };
                    let chunk = Chunk { x, block, runs, weights: weights(block, done), next, distance, first, last };
                    // SAFETY: the caller upholds the conditions of `gemm`. The weights of these runs begin at `chunk.weights`, and
                    // the blocks are whole.
                    unsafe {
                        if is_pair {
                            band::<V, 2, MAX>(product, pixels, chunk, y, start);
                        } else {
                            band::<V, N, MAX>(product, pixels, chunk, y, start);
                        }
                    }
                }
            }
            // A block with fewer than `BLOCK` channels is a single chunk, because partial sums are stored in whole blocks.
            for block in whole..blocks {
                let (x, runs) = (product.x.as_ptr(), &product.runs.runs[..]);
                let next = Next { from: x, rows: 0, at_once: 0 };
                let weights = weights(block, 0);
                let chunk = Chunk { x, block, runs, weights, next, distance: None, first: true, last: true };
                // SAFETY: the caller upholds the conditions of `gemm`.
                unsafe {
                    if product.channels - block * BLOCK > HALF {
                        band::<V, N, MAX>(product, pixels, chunk, y, start);
                    } else if N <= 2 {
                        band::<V::Half, 1, HALF_MAX>(product, pixels, chunk, y, start);
                    } else {
                        band::<V::Half, 2, MAX>(product, pixels, chunk, y, start);
                    }
                }
            }
        }
    }
}

/// If the last block has at most this many channels, only half of it is computed.
const HALF: usize = BLOCK / 2;

/// The number of rows whose sums fit into registers if half a block is one vector.
const HALF_MAX: usize = 12;

/// Weights of at least this many values (256 KiB) fill a good part of the L2 cache, or are not in it.
pub(crate) const MANY_WEIGHTS: usize = 1 << 16;

/// Computes one chunk of the sums of some pixels, in tiles of at most `MAX` pixels.
///
/// # Safety
/// The same as for [`tile`], for one pixel or more.
#[inline(always)]
unsafe fn band<V: SimdVector, const N: usize, const MAX: usize>(
    product: &ImplicitGemm,
    mut pixels: &[Pixel],
    mut chunk: Chunk,
    y: *mut f32,
    start: usize,
) {
    let tiles = pixels.len().div_ceil(MAX);
    let next = &mut chunk.next;
    (next.rows, next.at_once) = (next.rows.div_ceil(tiles), UNROLL.div_ceil(tiles));
    for count in balanced(pixels.len(), MAX) {
        let tile_pixels;
        (tile_pixels, pixels) = pixels.split_at(count);
        // SAFETY: the caller upholds the conditions of `band`. `tile_pixels` has `count` pixels.
        unsafe { with_constant!(count, MAX, tile, V ; N ; product, tile_pixels, chunk, y, start) }
        chunk.next.from = chunk.next.from.wrapping_add(chunk.next.rows * BLOCK);
    }
}

/// The offset of vector `j` of consecutive channels, whose blocks are `stride` values apart.
#[inline(always)]
const fn vector_offset<V: SimdVector>(j: usize, stride: usize) -> usize {
    j * V::LANES / BLOCK * stride + j * V::LANES % BLOCK
}

/// Loads `N` vectors.
///
/// # Safety
/// The processor must have the vector's instructions, and `from` must point to as many values.
#[inline(always)]
pub(crate) unsafe fn load<V: SimdVector, const N: usize>(from: *const f32) -> [V; N] {
    // SAFETY: the caller upholds the conditions of this function.
    unsafe { load_blocks(from, BLOCK) }
}

/// Loads `N` vectors of consecutive channels. From one block of channels to the next, there are `stride` values.
///
/// # Safety
/// The processor must have the vector's instructions, and `from` must point to the values of these blocks.
#[inline(always)]
pub(crate) unsafe fn load_blocks<V: SimdVector, const N: usize>(from: *const f32, stride: usize) -> [V; N] {
    // SAFETY: the caller upholds the conditions of this function.
    unsafe {
        let mut vectors = [V::splat(0.0); N];
        for j in 0..N {
            vectors[j] = V::load(from.add(vector_offset::<V>(j, stride)));
        }
        vectors
    }
}

/// Writes `N` vectors where [`load_blocks`] reads them.
///
/// # Safety
/// The same as for [`load_blocks`].
#[inline(always)]
pub(crate) unsafe fn store_blocks<V: SimdVector, const N: usize>(vectors: [V; N], to: *mut f32, stride: usize) {
    // SAFETY: the caller upholds the conditions of this function.
    unsafe {
        for j in 0..N {
            vectors[j].store(to.add(vector_offset::<V>(j, stride)));
        }
    }
}

/// Adds the product of one input value of each pixel and the weights of `N` vectors, whose blocks are `stride` values apart.
///
/// # Safety
/// The same as for [`gemm`]. In addition, each base must have a value at `k`, and `weights` must point to [`BLOCK`]
/// values of each block.
#[inline(always)]
unsafe fn step<V: SimdVector, const N: usize, const P: usize>(
    acc: &mut [[V; N]; P],
    base: &[*const f32; P],
    k: usize,
    weights: *const f32,
    stride: usize,
) {
    // SAFETY: the caller upholds the conditions of this function.
    unsafe {
        let w: [V; N] = load_blocks(weights, stride);
        for p in 0..P {
            let v = V::splat(*base[p].add(k));
            for j in 0..N {
                acc[p][j] = acc[p][j].add_product(v, w[j]);
            }
        }
    }
}

/// Computes one chunk of the sums of a tile of `P` pixels, for the channels of `N` vectors.
///
/// # Safety
/// The same as for [`gemm`]. In addition, there must be `P` pixels, `chunk.weights` must point to the weights of the
/// chunk, and the product must have all these channels unless they are of one block and the chunk is both the first and the last.
#[inline(always)]
unsafe fn tile<V: SimdVector, const N: usize, const P: usize>(
    product: &ImplicitGemm,
    pixels: &[Pixel],
    chunk: Chunk,
    y: *mut f32,
    start: usize,
) {
    let x = chunk.x;
    let mut weights = chunk.weights;
    let (first, stride) = (chunk.block * BLOCK, product.runs.depth() * BLOCK);
    // SAFETY: the caller upholds the conditions above, and `check` checked every offset.
    unsafe {
        let pixels: &[Pixel; P] = &*pixels.as_ptr().cast();
        let mut acc = [[V::splat(0.0); N]; P];
        if !chunk.first {
            for p in 0..P {
                let from = y.add(pixels[p].output as usize - start + first);
                acc[p] = load(from);
            }
        }
        // The number of pixels whose outputs and addends were prefetched.
        let mut prefetched = 0;
        let mut next = chunk.next;
        for run in chunk.runs {
            let mut base = [x; P];
            for p in 0..P {
                base[p] = x.add((pixels[p].input + run.offset) as usize);
            }
            let length = run.length as usize;
            // Unrolling leaves few iterations, and branch predictors can predict where a short loop ends.
            let mut k = 0;
            while k + UNROLL <= length {
                if let Some(distance) = chunk.distance.filter(|_| k.is_multiple_of(LINE)) {
                    for p in 0..P {
                        prefetch(base[p].wrapping_add(k + P * distance), false);
                    }
                }
                if N * V::LANES >= LINE && chunk.last && prefetched < P {
                    let at = pixels[prefetched].output as usize + first;
                    for line in (0..N * V::LANES).step_by(LINE) {
                        prefetch(y.wrapping_add(at - start + line), true);
                        if let Some(add) = product.epilogue.add {
                            prefetch(add.values.as_ptr().wrapping_add(at + line), false);
                        }
                    }
                    prefetched += 1;
                }
                if next.rows > 0 {
                    for row in 0..next.at_once {
                        for block in 0..(N * V::LANES).div_ceil(BLOCK) {
                            prefetch(next.from.wrapping_add(block * stride + row * BLOCK), false);
                        }
                    }
                    next.from = next.from.wrapping_add(next.at_once * BLOCK);
                    next.rows = next.rows.saturating_sub(next.at_once);
                }
                for i in 0..UNROLL {
                    step(&mut acc, &base, k + i, weights.add(i * BLOCK), stride);
                }
                weights = weights.add(UNROLL * BLOCK);
                k += UNROLL;
            }
            while k < length {
                step(&mut acc, &base, k, weights, stride);
                weights = weights.add(BLOCK);
                k += 1;
            }
        }
        if !chunk.last {
            for p in 0..P {
                store_blocks(acc[p], y.add(pixels[p].output as usize - start + first), BLOCK);
            }
            return;
        }
        write_tile(product, pixels, first, acc, y, start);
    }
}

/// Applies the epilogue to the sums of a tile, whose channels start at `first`, and writes them.
///
/// # Safety
/// The same as for [`gemm`]. In addition, the pixels must be of the product, and `first` must be the first channel of one of its
/// blocks. The product must have all channels of two blocks.
#[inline(always)]
unsafe fn write_tile<V: SimdVector, const N: usize, const P: usize>(
    product: &ImplicitGemm,
    pixels: &[Pixel; P],
    first: usize,
    mut acc: [[V; N]; P],
    y: *mut f32,
    start: usize,
) {
    // SAFETY: the caller upholds the conditions, and `check` checked every offset.
    unsafe {
        let Epilogue { affine, add, relu } = product.epilogue;
        if N * V::LANES > BLOCK || first + N * V::LANES <= product.channels {
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
                let to = y.add(pixels[p].output as usize - start + first);
                for j in 0..N {
                    let value = if relu { acc[p][j].relu() } else { acc[p][j] };
                    value.store(to.add(j * V::LANES));
                }
            }
            return;
        }
        let mut values = [[0.0f32; BLOCK]; P];
        for p in 0..P {
            store_blocks(acc[p], values[p].as_mut_ptr(), BLOCK);
        }
        for p in 0..P {
            let (offset, count) = (pixels[p].output as usize + first, BLOCK.min(product.channels - first));
            product.epilogue.apply(&mut values[p][..count], first, offset);
            values[p].as_ptr().copy_to_nonoverlapping(y.add(offset - start), count);
        }
    }
}

/// The weight gradient of [`ImplicitGemm`]: `w[…][c] += Σ_pixel x[pixel.input + run.offset + k] · d[pixel.output + c]`.
#[derive(Clone, Copy)]
pub(crate) struct WeightGradientGemm<'a> {
    pub(crate) x: &'a [f32],
    /// The output gradient. Channels are read in whole blocks, so the slice must extend past the last pixel.
    pub(crate) d: &'a [f32],
    pub(crate) pixels: &'a [Pixel],
    pub(crate) runs: &'a Runs,
    /// The number of output channels.
    pub(crate) channels: usize,
}

/// The number of pixels per band of the weight gradient. A band's values stay in the L1 cache while all weights are
/// updated.
const GRADIENT_BAND: usize = 128;

/// If a sum has at least this many values, each block of the output gradient is read so often that a copy pays. Pixels with
/// many channels are so far apart that they would displace each other from the L1 cache.
const MIN_COPIED_DEPTH: usize = 512;

impl WeightGradientGemm<'_> {
    /// Adds the sums to `weights`, which has the layout of [`ImplicitGemm::weights`], or writes them there if `is_first` is true.
    /// What is beyond the channels in the last block is unspecified.
    ///
    /// # Panics
    /// If an offset is outside its slice.
    pub(crate) fn add_to(&self, level: SimdLevel, weights: &mut [f32], is_first: bool) {
        self.check(weights.len());
        // SAFETY: `check` checked all offsets.
        unsafe { weight_gradient(level, self, weights, is_first) }
    }

    fn check(&self, weights: usize) {
        let reach = self.runs.reach();
        let blocks = self.channels.div_ceil(BLOCK);
        assert!(blocks * self.runs.depth() * BLOCK <= weights, "too few weights");
        let input = self.pixels.iter().map(|pixel| pixel.input).max().unwrap_or(0) as usize;
        let output = self.pixels.iter().map(|pixel| pixel.output).max().unwrap_or(0) as usize;
        if !self.pixels.is_empty() {
            assert!(input + reach <= self.x.len(), "an input offset is out of range");
            assert!(output + blocks * BLOCK <= self.d.len(), "an offset of the output gradient is out of range");
        }
    }
}

for_every_vector! {
    /// # Safety
    /// [`WeightGradientGemm::check`] must have passed.
    unsafe fn weight_gradient<V, N, MAX>(product: &WeightGradientGemm<'_>, weights: &mut [f32], is_first: bool) {
        let depth = product.runs.depth();
        let stride = depth * BLOCK;
        let is_copied = depth >= MIN_COPIED_DEPTH;
        // The copied blocks of each pixel, and the pixels with their offsets in the copy.
        let row = most_blocks::<V>() * BLOCK;
        let mut copy = [0.0f32; 2 * BLOCK * GRADIENT_BAND];
        let mut places = [Pixel { input: 0, output: 0 }; GRADIENT_BAND];
        for (band, pixels) in product.pixels.chunks(GRADIENT_BAND).enumerate() {
            let is_first = is_first && band == 0;
            for (i, (place, pixel)) in places.iter_mut().zip(pixels).enumerate() {
                *place = if is_copied { Pixel { output: (i * row) as u32, ..*pixel } } else { *pixel };
            }
            let places = &places[..pixels.len()];
            for (block, is_pair) in tile_blocks::<V>(product.channels.div_ceil(BLOCK)) {
                let weights = weights[block * stride..].as_mut_ptr();
                let mut d = &product.d[block * BLOCK..];
                if is_copied {
                    let len = if is_pair { 2 * BLOCK } else { BLOCK };
                    for (copy, pixel) in copy.chunks_mut(row).zip(pixels) {
                        copy[..len].copy_from_slice(&d[pixel.output as usize..][..len]);
                    }
                    d = &copy;
                }
                // SAFETY: `check` checked every offset that is read, and that `weights` has `depth` rows per block.
                unsafe {
                    let (runs, d) = (&product.runs.runs[..], d.as_ptr());
                    if is_pair {
                        weight_gradient_block::<V, 2, MAX>(product.x, d, runs, places, weights, stride, is_first);
                    } else if product.channels - block * BLOCK > HALF {
                        weight_gradient_block::<V, N, MAX>(product.x, d, runs, places, weights, stride, is_first);
                    } else if N <= 2 {
                        weight_gradient_block::<V::Half, 1, HALF_MAX>(product.x, d, runs, places, weights, stride, is_first);
                    } else {
                        weight_gradient_block::<V::Half, 2, MAX>(product.x, d, runs, places, weights, stride, is_first);
                    }
                }
            }
        }
    }
}

/// Computes the weight gradient of the output channels of `N` vectors, in tiles of at most `MAX` rows.
///
/// # Safety
/// The same as for [`weight_gradient_tile`], for the rows of all runs.
#[inline(always)]
unsafe fn weight_gradient_block<V: SimdVector, const N: usize, const MAX: usize>(
    x: &[f32],
    d: *const f32,
    runs: &[Run],
    pixels: &[Pixel],
    mut weights: *mut f32,
    stride: usize,
    is_first: bool,
) {
    for run in runs {
        // SAFETY: the caller upholds the conditions.
        unsafe {
            let mut x = x.as_ptr().add(run.offset as usize);
            for rows in balanced(run.length as usize, MAX) {
                with_constant!(rows, MAX, weight_gradient_tile, V ; N ; x, d, pixels, weights, stride, is_first);
                (x, weights) = (x.add(rows), weights.add(rows * BLOCK));
            }
        }
    }
}

/// Computes the weight gradient of a tile of `K` rows of weights, for the channels of `N` vectors.
///
/// # Safety
/// The same as for [`weight_gradient`]. In addition, at the offsets of every pixel, `x` must have `K` values and `d`
/// must have [`BLOCK`] values for each block. `weights` must have `K` rows of [`BLOCK`] values for each block, and `stride` values
/// from one block to the next.
#[inline(always)]
unsafe fn weight_gradient_tile<V: SimdVector, const N: usize, const K: usize>(
    x: *const f32,
    d: *const f32,
    pixels: &[Pixel],
    weights: *mut f32,
    stride: usize,
    is_first: bool,
) {
    // SAFETY: the caller upholds the conditions of this function.
    unsafe {
        let mut acc = [[V::splat(0.0); N]; K];
        if !is_first {
            for k in 0..K {
                acc[k] = load_blocks(weights.add(k * BLOCK), stride);
            }
        }
        for pixel in pixels {
            let d: [V; N] = load(d.add(pixel.output as usize));
            let x = x.add(pixel.input as usize);
            for k in 0..K {
                let v = V::splat(*x.add(k));
                for j in 0..N {
                    acc[k][j] = acc[k][j].add_product(v, d[j]);
                }
            }
        }
        for k in 0..K {
            store_blocks(acc[k], weights.add(k * BLOCK), stride);
        }
    }
}
