//! A norm and a ReLU without a convolution, as at the start of a pre-activation block.

use crate::{
    Buffer, Conv, ConvNorm, ConvNormGradients, Norm, SimdLevel, Statistics, Weight,
    backward::norm_gradient,
    elementwise::{affine_map, gradient_sums, moments, norm_gradient_rows},
    layout::PaddedImage,
    parallel::for_each,
    path::combine_moments,
    signs::{ImageSigns, Signs, write_signs},
};

/// A norm and a ReLU of images: `y = g(γ · (x - mean) / √(variance + ε) + β)` for each channel, or `y = g(x + b)`
/// without a norm.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a> {
    /// The input x, `[batch, pixels, channels]`.
    pub input: &'a [f32],
    /// The number of pixels per image.
    pub pixels: usize,
    /// The number of channels.
    pub channels: usize,
    /// γ; `None` means 1.
    pub gain: Option<&'a [f32]>,
    /// β, or b without a norm; `None` means 0.
    pub bias: Option<&'a [f32]>,
    /// The norm.
    pub norm: Norm<'a>,
    /// Whether `g` is the ReLU. Otherwise, it is the identity.
    pub relu: bool,
}

/// Inputs with fewer values than this are processed on the calling thread, because waking another thread takes longer.
const MIN_PARALLEL_VALUES: usize = 1 << 16;

impl<'a> Normalize<'a> {
    fn len(&self) -> usize {
        self.pixels * self.channels
    }

    fn rows(&self) -> PaddedImage {
        PaddedImage::unpadded([1, self.pixels], self.channels)
    }

    fn is_serial(&self) -> bool {
        self.input.len() < MIN_PARALLEL_VALUES
    }

    /// The norm as part of a [`ConvNorm`], whose convolution is never computed.
    fn layer(&self) -> ConvNorm<'a> {
        let conv = Conv::same([self.channels; 2], 1);
        ConvNorm { conv, weight: Weight::OutputsFirst(&[]), gain: self.gain, bias: self.bias, norm: self.norm }
    }

    /// Computes the output and, for [`Norm::Batch`], the batch's statistics. The statistics of an empty batch are NaN.
    ///
    /// # Panics
    /// If `pixels` or `channels` is 0, or the length of the input is not a multiple of `pixels · channels`.
    pub fn forward(&self, level: SimdLevel) -> (Buffer, Option<Statistics>) {
        let (len, channels) = (self.len(), self.channels);
        assert!(
            len > 0 && self.input.len().is_multiple_of(len),
            "the input's length is not a multiple of the image size"
        );
        let batch = self.input.len() / len;
        let images = || self.input.chunks(len);
        let statistics = matches!(self.norm, Norm::Batch { .. }).then(|| {
            let mut sums = vec![0.0f32; batch * 2 * channels];
            for_each(sums.chunks_mut(2 * channels).zip(images()), self.is_serial(), |(sums, x)| {
                let (mean, squares) = sums.split_at_mut(channels);
                moments(level, x, channels, mean, squares);
            });
            combine_moments(&sums, channels, self.pixels)
        });
        let affine = self.layer().affine(statistics.as_ref());
        let rows = self.rows();
        let mut y = Buffer::new(self.input.len());
        for_each(y.chunks_mut(len).zip(images()), self.is_serial(), |(y, x)| {
            affine_map(level, x, &affine, None, self.relu, &rows, y);
        });
        (y, statistics)
    }

    /// Computes the gradients of the input, γ and β from the output and statistics of [`Self::forward`] and the output
    /// gradient `dy`.
    ///
    /// # Panics
    /// If shapes do not match, or the norm is [`Norm::Batch`] and `statistics` is `None`.
    pub fn gradients(
        &self,
        level: SimdLevel,
        output: &[f32],
        statistics: Option<&Statistics>,
        dy: &[f32],
    ) -> (Buffer, ConvNormGradients) {
        let (len, channels) = (self.len(), self.channels);
        assert_eq!(
            [output.len(), dy.len()],
            [self.input.len(); 2],
            "the output and its gradient must have the length of the input"
        );
        let batch = self.input.len() / len;
        let mut dx = Buffer::new(self.input.len());
        if batch == 0 {
            let zeros = vec![0.0; channels];
            return (dx, ConvNormGradients { weight: Vec::new(), gain: zeros.clone(), bias: zeros });
        }
        let layer = self.layer();
        let mean = layer.affine(statistics).mean;
        let image = |n: usize| n * len..(n + 1) * len;
        let mut signs = Signs::new(batch, len);
        let mut sums = vec![0.0f32; batch * 2 * channels];
        let images = sums.chunks_mut(2 * channels).zip(signs.images_mut()).enumerate();
        for_each(images, self.is_serial(), |(n, (sums, signs))| {
            let (sums, products) = sums.split_at_mut(channels);
            write_signs(level, &output[image(n)], signs);
            let signs = self.relu.then_some(ImageSigns::new(signs));
            gradient_sums(level, &dy[image(n)], signs, &self.input[image(n)], &mean, 1.0, sums, products);
        });
        let (totals, norm) = norm_gradient(&layer, statistics, &sums, batch * self.pixels);
        let rows = self.rows();
        for_each(dx.chunks_mut(len).enumerate(), self.is_serial(), |(n, dx)| {
            let signs = self.relu.then(|| signs.image(n));
            norm_gradient_rows(level, &dy[image(n)], signs, &self.input[image(n)], &norm, 1.0, &rows, dx);
        });
        (dx, layer.affine_gradients(statistics, &totals))
    }
}
