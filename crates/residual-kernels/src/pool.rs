//! Max-pooling of channels-last images.

use crate::{Buffer, Level};
use rayon::prelude::*;

/// `y[c, i, j] = max x[c, i·stride + u - padding, j·stride + v - padding]` over a square window; NaN where
/// one is in it. Padding is never the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool {
    /// Channels of an image.
    pub channels: usize,
    /// The window's side.
    pub window: usize,
    /// The stride, both ways.
    pub stride: usize,
    /// Rows and columns of padding on each side, less than the window.
    pub padding: usize,
}

impl MaxPool {
    /// Height and width of the output.
    ///
    /// # Panics
    /// If the window is larger than the padded image.
    pub fn output(&self, image: [usize; 2]) -> [usize; 2] {
        image.map(|side| {
            let padded = side + 2 * self.padding;
            assert!(padded >= self.window, "the window is larger than the padded image");
            (padded - self.window) / self.stride + 1
        })
    }

    /// The pixels of an image in the window of each output pixel.
    #[inline(always)]
    fn windows(self, [height, width]: [usize; 2]) -> impl Iterator<Item = impl Iterator<Item = usize>> {
        let [rows, columns] = self.output([height, width]);
        let span = move |at: usize, side: usize| {
            let from = at * self.stride;
            from.saturating_sub(self.padding)..(from + self.window - self.padding).min(side)
        };
        (0..rows).flat_map(move |y| {
            (0..columns).map(move |x| {
                let across = span(x, width);
                span(y, height).flat_map(move |v| across.clone().map(move |u| v * width + u))
            })
        })
    }

    /// The output, `[batch, height, width, channels]` as the input.
    ///
    /// # Panics
    /// If the input is not a number of whole images, or the window is larger than the padded image.
    pub fn forward(&self, level: Level, x: &[f32], image: [usize; 2]) -> Buffer {
        let [rows, columns] = self.output(image);
        let (len, out_len) = (image[0] * image[1] * self.channels, rows * columns * self.channels);
        assert!(x.len().is_multiple_of(len), "not a number of whole images");
        let mut y = Buffer::roomy(x.len() / len * out_len);
        y.par_chunks_mut(out_len).zip(x.par_chunks(len)).for_each(|(y, x)| level.run(|| self.image(x, image, y)));
        y
    }

    #[inline(always)]
    fn image(&self, x: &[f32], image: [usize; 2], y: &mut [f32]) {
        let channels = self.channels;
        for (y, window) in y.chunks_exact_mut(channels).zip(self.windows(image)) {
            y.fill(f32::NEG_INFINITY);
            for pixel in window {
                for (y, x) in y.iter_mut().zip(&x[pixel * channels..][..channels]) {
                    // Not `max`, which drops NaN.
                    *y = if *x <= *y {
                        *y
                    } else if y.is_nan() {
                        *y
                    } else {
                        *x
                    };
                }
            }
        }
    }

    /// The input's gradient: each output's goes to the first of its window's largest numbers.
    ///
    /// # Panics
    /// As [`Self::forward`], or if the gradient has not the output's shape.
    pub fn gradient(&self, level: Level, x: &[f32], image: [usize; 2], dy: &[f32]) -> Buffer {
        let [rows, columns] = self.output(image);
        let (len, out_len) = (image[0] * image[1] * self.channels, rows * columns * self.channels);
        assert_eq!(dy.len() / out_len, x.len() / len, "the shape of the output's gradient");
        let mut dx = Buffer::zeros(x.len());
        let images = dx.par_chunks_mut(len).zip(x.par_chunks(len)).zip(dy.par_chunks(out_len));
        images.for_each(|((dx, x), dy)| {
            level.run(|| {
                let channels = self.channels;
                let (mut best, mut place) = (vec![0.0f32; channels], vec![0usize; channels]);
                for (dy, window) in dy.chunks_exact(channels).zip(self.windows(image)) {
                    best.fill(f32::NEG_INFINITY);
                    for (i, pixel) in window.enumerate() {
                        let x = &x[pixel * channels..][..channels];
                        for c in 0..channels {
                            if i == 0 || (x[c] > best[c] || x[c].is_nan()) && !best[c].is_nan() {
                                (best[c], place[c]) = (x[c], pixel * channels + c);
                            }
                        }
                    }
                    dy.iter().zip(&place).for_each(|(dy, place)| dx[*place] += dy);
                }
            });
        });
        dx
    }
}
