//! Passes over channels-last images, in plain Rust that the compiler turns into vectors.

#![allow(clippy::needless_range_loop, reason = "lanes are counted so that they become vectors")]

use crate::{Level, conv::Padded, simd::for_every_level};

/// For each channel: `u = (z - mean) · gain + bias`.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    pub(crate) mean: Vec<f32>,
    pub(crate) gain: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Calls a function with a number of channels, compiled for the usual ones.
macro_rules! for_channels {
    ($channels:expr, $call:ident($($argument:expr),*)) => {
        match $channels {
            8 => $call(8, $($argument),*),
            16 => $call(16, $($argument),*),
            32 => $call(32, $($argument),*),
            64 => $call(64, $($argument),*),
            channels => $call(channels, $($argument),*),
        }
    };
}

#[inline(always)]
fn relu(value: f32) -> f32 {
    if value < 0.0 { 0.0 } else { value }
}

/// `v` where `y` is positive (or NaN), else 0: the gradient through a ReLU with output `y`.
#[inline(always)]
fn through(v: f32, y: f32) -> f32 {
    if y <= 0.0 { 0.0 } else { v }
}

/// Copies an image into the rows of a padded one.
pub(crate) fn copy_rows(image: &[f32], rows: &Padded, padded: &mut [f32]) {
    let mut from = 0;
    for row in rows.rows() {
        let len = row.len();
        padded[row].copy_from_slice(&image[from..from + len]);
        from += len;
    }
}

for_every_level! {
    /// `g((z - mean) · gain + bias)`, into the rows of a padded image.
    pub(crate) fn normalize_rows(z: &[f32], affine: &Affine, rows: &Padded, padded: &mut [f32]) {
        let mut from = 0;
        for row in rows.rows() {
            let len = row.len();
            let (z, out) = (&z[from..from + len], &mut padded[row]);
            for_channels!(affine.mean.len(), normalize_row(z, affine, out));
            from += len;
        }
    }
}

#[inline(always)]
fn normalize_row(channels: usize, z: &[f32], affine: &Affine, out: &mut [f32]) {
    let (mean, gain, bias) = (&affine.mean[..channels], &affine.gain[..channels], &affine.bias[..channels]);
    for (out, z) in out.chunks_exact_mut(channels).zip(z.chunks_exact(channels)) {
        for i in 0..channels {
            out[i] = relu((z[i] - mean[i]) * gain[i] + bias[i]);
        }
    }
}

for_every_level! {
    /// `(z - mean) · gain + bias + strength · other`, and its ReLU.
    pub(crate) fn finish(z: &[f32], affine: &Affine, other: Option<(&[f32], f32)>, rectify: bool, out: &mut [f32]) {
        match (other, rectify) {
            (Some((other, strength)), true) => {
                for_channels!(affine.mean.len(), finish_with(z, affine, other, out, |u, r| relu(u + strength * r)));
            }
            (Some((other, strength)), false) => {
                for_channels!(affine.mean.len(), finish_with(z, affine, other, out, |u, r| u + strength * r));
            }
            (None, true) => for_channels!(affine.mean.len(), finish_with(z, affine, z, out, |u, _| relu(u))),
            (None, false) => for_channels!(affine.mean.len(), finish_with(z, affine, z, out, |u, _| u)),
        }
    }
}

#[inline(always)]
fn finish_with(
    channels: usize,
    z: &[f32],
    affine: &Affine,
    other: &[f32],
    out: &mut [f32],
    f: impl Fn(f32, f32) -> f32,
) {
    let (mean, gain, bias) = (&affine.mean[..channels], &affine.gain[..channels], &affine.bias[..channels]);
    let pixels = z.chunks_exact(channels).zip(other.chunks_exact(channels));
    for (out, (z, other)) in out.chunks_exact_mut(channels).zip(pixels) {
        for i in 0..channels {
            out[i] = f((z[i] - mean[i]) * gain[i] + bias[i], other[i]);
        }
    }
}

for_every_level! {
    /// The ReLU of every number.
    pub(crate) fn rectify(image: &mut [f32]) {
        image.iter_mut().for_each(|v| *v = relu(*v));
    }
}

/// Channels whose sums fit into registers.
const LANES: usize = 8;

#[inline(always)]
fn lanes(image: &[f32], at: usize) -> &[f32; LANES] {
    image[at..].first_chunk().expect("a pixel has that many channels")
}

/// The sum of `f` over the pixels, for some channels; of two pixels at a time, so that one sum need not wait
/// for the other.
#[inline(always)]
fn channel_sums(
    z: &[f32],
    channels: usize,
    from: usize,
    f: impl Fn(f32, f32) -> f32,
    with: &[f32; LANES],
) -> [f32; LANES] {
    let (mut even, mut odd) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut at = from;
    while at + channels < z.len() {
        let (a, b) = (lanes(z, at), lanes(z, at + channels));
        for l in 0..LANES {
            even[l] += f(a[l], with[l]);
            odd[l] += f(b[l], with[l]);
        }
        at += 2 * channels;
    }
    if at < z.len() {
        let a = lanes(z, at);
        (0..LANES).for_each(|l| even[l] += f(a[l], with[l]));
    }
    (0..LANES).for_each(|l| even[l] += odd[l]);
    even
}

for_every_level! {
    /// Each channel's mean over an image, and the sum of its squared distances from it.
    pub(crate) fn moments(z: &[f32], channels: usize, mean: &mut [f32], squares: &mut [f32]) {
        let count = (z.len() / channels) as f32;

        for from in (0..channels / LANES).map(|i| i * LANES) {
            let sums = channel_sums(z, channels, from, |z, _| z, &[0.0; LANES]);
            let mut means = sums;
            (0..LANES).for_each(|l| means[l] /= count);
            let spread = channel_sums(z, channels, from, |z, mean| (z - mean) * (z - mean), &means);
            mean[from..from + LANES].copy_from_slice(&means);
            squares[from..from + LANES].copy_from_slice(&spread);
        }
        for c in channels / LANES * LANES..channels {
            let values = z[c..].iter().step_by(channels);
            mean[c] = values.clone().sum::<f32>() / count;
            squares[c] = values.map(|z| (z - mean[c]) * (z - mean[c])).sum();
        }
    }
}

for_every_level! {
    /// `g = scale · dy`, through the ReLU with output `y` if there is one; each channel's `Σ g` and
    /// `Σ g · (z - mean)`.
    pub(crate) fn gradient_sums(
        dy: &[f32],
        y: Option<&[f32]>,
        z: &[f32],
        mean: &[f32],
        scale: f32,
        sums: &mut [f32],
        products: &mut [f32],
    ) {
        let channels = mean.len();
        let y_or = y.unwrap_or(dy);
        let masked = y.is_some();
        let block = |from: usize| {
            let (mut sum, mut product) = ([0.0f32; LANES], [0.0f32; LANES]);
            let mean = lanes(mean, from);
            for at in (from..z.len()).step_by(channels) {
                let (dy, y, z) = (lanes(dy, at), lanes(y_or, at), lanes(z, at));
                for l in 0..LANES {
                    let g = if masked { through(dy[l], y[l]) } else { dy[l] };
                    sum[l] += g;
                    product[l] += g * (z[l] - mean[l]);
                }
            }
            (sum, product)
        };
        for from in (0..channels / LANES).map(|i| i * LANES) {
            let (sum, product) = block(from);
            for l in 0..LANES {
                sums[from + l] = scale * sum[l];
                products[from + l] = scale * product[l];
            }
        }
        for c in channels / LANES * LANES..channels {
            let (mut sum, mut product) = (0.0, 0.0);
            for at in (c..z.len()).step_by(channels) {
                let g = if masked { through(dy[at], y_or[at]) } else { dy[at] };
                sum += g;
                product += g * (z[at] - mean[c]);
            }
            (sums[c], products[c]) = (scale * sum, scale * product);
        }
    }
}

for_every_level! {
    /// Sends `g` through the ReLU whose output is in the rows of a padded image; each channel's `Σ g` and
    /// `Σ g · (z - mean)`.
    pub(crate) fn rectified_gradient_sums(
        g: &mut [f32],
        padded: &[f32],
        rows: &Padded,
        z: &[f32],
        mean: &[f32],
        sums: &mut [f32],
        products: &mut [f32],
    ) {
        let channels = mean.len();
        let mut block = |from: usize| {
            let (mut sum, mut product) = ([0.0f32; LANES], [0.0f32; LANES]);
            let mean = lanes(mean, from);
            let mut at = from;
            for row in rows.rows() {
                for a in row.step_by(channels) {
                    let (a, z) = (lanes(padded, a + from), lanes(z, at));
                    let g: &mut [f32; LANES] = g[at..].first_chunk_mut().expect("a pixel has that many channels");
                    for l in 0..LANES {
                        g[l] = through(g[l], a[l]);
                        sum[l] += g[l];
                        product[l] += g[l] * (z[l] - mean[l]);
                    }
                    at += channels;
                }
            }
            (sum, product)
        };
        for from in (0..channels / LANES).map(|i| i * LANES) {
            let (sum, product) = block(from);
            sums[from..from + LANES].copy_from_slice(&sum);
            products[from..from + LANES].copy_from_slice(&product);
        }
        for c in channels / LANES * LANES..channels {
            let (mut sum, mut product) = (0.0, 0.0);
            let mut at = c;
            for row in rows.rows() {
                for a in row.step_by(channels) {
                    g[at] = through(g[at], padded[a + c]);
                    sum += g[at];
                    product += g[at] * (z[at] - mean[c]);
                    at += channels;
                }
            }
            (sums[c], products[c]) = (sum, product);
        }
    }
}

/// For each channel: `dz = gain · g + slope · (z - mean) + offset`, the gradient through a norm.
#[derive(Clone, Debug)]
pub(crate) struct NormGradient {
    pub(crate) mean: Vec<f32>,
    pub(crate) gain: Vec<f32>,
    pub(crate) slope: Vec<f32>,
    pub(crate) offset: Vec<f32>,
}

for_every_level! {
    /// `dz` of `g = scale · dy` (through the ReLU with output `y`, if any), into the rows of a padded image.
    pub(crate) fn norm_gradient_rows(
        dy: &[f32],
        y: Option<&[f32]>,
        z: &[f32],
        norm: &NormGradient,
        scale: f32,
        rows: &Padded,
        padded: &mut [f32],
    ) {
        let mut from = 0;
        for row in rows.rows() {
            let image = from..from + row.len();
            let (dy, z, out) = (&dy[image.clone()], &z[image.clone()], &mut padded[row]);
            match y {
                Some(y) => {
                    let y = &y[image.clone()];
                    for_channels!(norm.mean.len(), norm_gradient_row(dy, y, z, norm, out, |v, y| scale * through(v, y)));
                }
                None => for_channels!(norm.mean.len(), norm_gradient_row(dy, dy, z, norm, out, |v, _| scale * v)),
            }
            from = image.end;
        }
    }
}

#[inline(always)]
fn norm_gradient_row(
    channels: usize,
    dy: &[f32],
    y: &[f32],
    z: &[f32],
    norm: &NormGradient,
    out: &mut [f32],
    g: impl Fn(f32, f32) -> f32,
) {
    let (mean, gain) = (&norm.mean[..channels], &norm.gain[..channels]);
    let (slope, offset) = (&norm.slope[..channels], &norm.offset[..channels]);
    let inputs = dy.chunks_exact(channels).zip(y.chunks_exact(channels)).zip(z.chunks_exact(channels));
    for (out, ((dy, y), z)) in out.chunks_exact_mut(channels).zip(inputs) {
        for i in 0..channels {
            out[i] = gain[i] * g(dy[i], y[i]) + (slope[i] * (z[i] - mean[i]) + offset[i]);
        }
    }
}

for_every_level! {
    /// `dx += strength · dy`, through the ReLU with output `y` if there is one.
    pub(crate) fn add_gradient(dy: &[f32], y: Option<&[f32]>, strength: f32, dx: &mut [f32]) {
        match y {
            Some(y) => {
                for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
                    *dx += strength * through(*dy, *y);
                }
            }
            None => dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += strength * dy),
        }
    }
}

/// Subsampling that pads channels with zeros, half of them before and half after (He et al. 2015,
/// option A).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZeroPad {
    /// Pixels of a row of the input, and of the output.
    pub(crate) columns: [usize; 2],
    pub(crate) channels: [usize; 2],
    pub(crate) stride: usize,
}

impl ZeroPad {
    /// Each output pixel's channels that have an input, with those.
    #[inline(always)]
    fn pairs(self, outputs: usize) -> impl Iterator<Item = (usize, usize)> {
        let [inputs, channels] = self.channels;
        let before = (channels - inputs) / 2;
        (0..outputs / channels).map(move |pixel| {
            let (y, x) = (pixel / self.columns[1] * self.stride, pixel % self.columns[1] * self.stride);
            (pixel * channels + before, (y * self.columns[0] + x) * inputs)
        })
    }

    /// `y += strength · pad(x)`
    pub(crate) fn add(self, x: &[f32], strength: f32, y: &mut [f32]) {
        let inputs = self.channels[0];
        for (to, from) in self.pairs(y.len()) {
            for (y, x) in y[to..to + inputs].iter_mut().zip(&x[from..from + inputs]) {
                *y += strength * x;
            }
        }
    }

    /// `dx += strength · dy`, through the ReLU with output `y` if there is one.
    #[inline(always)]
    pub(crate) fn add_gradient(self, level: Level, dy: &[f32], y: Option<&[f32]>, strength: f32, dx: &mut [f32]) {
        let inputs = self.channels[0];
        for (from, to) in self.pairs(dy.len()) {
            let y = y.map(|y| &y[from..from + inputs]);
            add_gradient(level, &dy[from..from + inputs], y, strength, &mut dx[to..to + inputs]);
        }
    }
}
