//! A norm and its ReLU by themselves, as they come before the convolutions of a pre-activation block.

use crate::{
    Buffer, Conv, Layer, LayerGradients, Level, Norm, Statistics,
    backward::norm_gradient,
    conv::Padded,
    elementwise::{finish, gradient_sums, moments, norm_gradient_rows},
    path::{combine, each},
};

/// `y = g(γ · (x - mean) / √(variance + ε) + β)` for each channel of images, or `g(x + b)` without a norm.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a> {
    /// `[batch, pixels, channels]`
    pub input: &'a [f32],
    /// Pixels of an image.
    pub pixels: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// γ; 1 if there is none.
    pub gain: Option<&'a [f32]>,
    /// β, or b; 0 if there is none.
    pub bias: Option<&'a [f32]>,
    /// The norm.
    pub norm: Norm<'a>,
    /// Whether `g` is the ReLU, or the identity.
    pub relu: bool,
}

/// Numbers below which the calling thread works alone: waking another takes longer.
const ALONE: usize = 1 << 16;

impl<'a> Normalize<'a> {
    fn len(&self) -> usize {
        self.pixels * self.channels
    }

    fn alone(&self) -> bool {
        self.input.len() < ALONE
    }

    /// The norm as a layer's, whose convolution does nothing.
    fn layer(&self) -> Layer<'a> {
        let conv = Conv::same([self.channels; 2], 1);
        Layer { conv, weight: &[], gain: self.gain, bias: self.bias, norm: self.norm }
    }

    /// The output, and the batch's statistics where the norm is [`Norm::Batch`]; those of an empty batch are NaN.
    ///
    /// # Panics
    /// If the input is not a number of whole images.
    pub fn forward(&self, level: Level) -> (Buffer, Option<Statistics>) {
        let (len, channels) = (self.len(), self.channels);
        assert!(len > 0 && self.input.len().is_multiple_of(len), "the input has not the images' shape");
        let batch = self.input.len() / len;
        let images = || self.input.chunks(len);
        let statistics = matches!(self.norm, Norm::Batch { .. }).then(|| {
            let mut sums = vec![0.0f32; batch * 2 * channels];
            each(sums.chunks_mut(2 * channels).zip(images()), self.alone(), |(sums, x)| {
                let (mean, squares) = sums.split_at_mut(channels);
                moments(level, x, channels, mean, squares);
            });
            combine(&sums, channels, self.pixels)
        });
        let affine = self.layer().affine(statistics.as_ref());
        let mut y = Buffer::new(self.input.len());
        each(y.chunks_mut(len).zip(images()), self.alone(), |(y, x)| {
            finish(level, x, &affine, None, self.relu, y);
        });
        (y, statistics)
    }

    /// The input's gradient, and those of γ and β, from the output, the batch's statistics and the output's gradient.
    ///
    /// # Panics
    /// If shapes do not agree, or statistics are missing.
    pub fn gradients(
        &self,
        level: Level,
        output: &[f32],
        statistics: Option<&Statistics>,
        dy: &[f32],
    ) -> (Buffer, LayerGradients) {
        let (len, channels) = (self.len(), self.channels);
        assert_eq!([output.len(), dy.len()], [self.input.len(); 2], "the shape of the output's gradient");
        let batch = self.input.len() / len;
        let mut dx = Buffer::new(self.input.len());
        if batch == 0 {
            let zeros = vec![0.0; channels];
            return (dx, LayerGradients { weight: Vec::new(), gain: zeros.clone(), bias: zeros });
        }
        let layer = self.layer();
        let mean = layer.affine(statistics).mean;
        let image = |n: usize| n * len..(n + 1) * len;
        let through = |n: usize| self.relu.then(|| &output[image(n)]);
        let mut sums = vec![0.0f32; batch * 2 * channels];
        each(sums.chunks_mut(2 * channels).enumerate(), self.alone(), |(n, sums)| {
            let (sums, products) = sums.split_at_mut(channels);
            gradient_sums(level, &dy[image(n)], through(n), &self.input[image(n)], &mean, 1.0, sums, products);
        });
        let (totals, norm) = norm_gradient(&layer, statistics, &sums, batch * self.pixels);
        let rows = Padded::bare([1, self.pixels], channels);
        each(dx.chunks_mut(len).enumerate(), self.alone(), |(n, dx)| {
            norm_gradient_rows(level, &dy[image(n)], through(n), &self.input[image(n)], &norm, 1.0, &rows, dx);
        });
        (dx, LayerGradients { weight: Vec::new(), ..layer.affine_gradients(statistics, &totals) })
    }
}
