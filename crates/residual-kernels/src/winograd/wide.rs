//! Winograd's algorithm on images that all threads share. They divide the blocks of channels, so that each thread reads only its part
//! of the weights. From 256 channels on, it transforms the weights of one or two blocks, a part of the inputs at a time, right before
//! it multiplies tiles by them, and the sums of the weight gradient right after, so that neither is ever stored as a whole.

use super::{
    Epilogue, INPUT_SIDE, Kernels, POINTS, Products, SIDE, Strides, Tiling, add_products, multiply_points, sums_point,
    transform_block, transform_inputs, transform_output_gradients, transform_weight_gradient, transformed_len,
    weight_block, write_outputs,
};
use crate::{
    SimdLevel,
    buffer::Scratch,
    layout::PaddedImage,
    parallel::{SharedOutput, divide, for_each},
    tile::{BLOCK, blocks_per_task},
};
use std::ops::Range;

/// With at least this many pairs of channels, [`Wide`] transforms the weights. Reading transformed weights, which have four times
/// as many values, would take longer.
const MIN_PAIRS: usize = 256 * 256;

/// Whether [`Wide`] transforms the weights of a convolution with these numbers of channels.
pub(super) fn suits([inputs, outputs]: [usize; 2]) -> bool {
    inputs * outputs >= MIN_PAIRS
}

/// The number of tiles that are transformed together, if they are of several images. With 512 channels, their transforms take
/// 9 MiB.
pub(crate) const TILES: usize = 128;

/// Tiles are shared by threads only if each gets at least this many.
const MIN_TILES: usize = 12;

/// The number of inputs whose transformed weights, or their gradients, a task holds at a time. Those of two blocks of outputs take
/// 1.1 MiB.
const INPUTS: usize = 256;

impl Tiling {
    /// The number of images that [`Wide`] transforms together, or `None` if there are too few channels for it to transform the weights.
    pub(crate) fn wide_images(&self) -> Option<usize> {
        suits(self.channels).then(|| (TILES / self.tiles()).max(1))
    }
}

/// A weight of [`Wide::convolve`].
#[derive(Clone, Copy)]
pub(crate) enum WideWeight<'a> {
    /// Kernels, which are transformed one part at a time.
    Kernels(Kernels<'a>),
    /// The result of [`transform_weight`](super::transform_weight).
    Transformed(&'a [f32]),
}

/// The same tiles of some images. Their transforms are stored as `[block of channels][point][tile][BLOCK]`, so that each block is
/// written by one thread.
pub(crate) struct Wide<'a> {
    level: SimdLevel,
    tiling: &'a Tiling,
    /// The tiles of each image.
    tiles: Range<usize>,
    images: usize,
}

impl<'a> Wide<'a> {
    pub(crate) fn new(level: SimdLevel, tiling: &'a Tiling, tiles: Range<usize>, images: usize) -> Self {
        Self { level, tiling, tiles, images }
    }

    /// The number of tiles of all images.
    fn len(&self) -> usize {
        self.images * self.tiles.len()
    }

    /// The strides of the transforms of this many tiles. The number of lines of a point is odd, and a block has a line at its end, so that
    /// points and blocks are on different cache sets.
    fn strides(tiles: usize) -> Strides {
        let point = (tiles | 1) * BLOCK;
        Strides { point, block: POINTS * point + BLOCK }
    }

    /// The number of values of the transforms of images with this many channels.
    pub(crate) fn transform_len(&self, channels: usize) -> usize {
        channels / BLOCK * Self::strides(self.len()).block
    }

    /// The offsets of tiles of `side` by `side` values in each of the padded images.
    fn corners(&self, layout: &PaddedImage, images: &[&[f32]], side: usize) -> Vec<usize> {
        assert_eq!(images.len(), self.images, "the number of images");
        let shortest = images.iter().min_by_key(|image| image.len()).expect("at least one image");
        self.tiling.corners(layout, shortest, self.tiles.clone(), side)
    }

    /// Computes `Bᵀ d B` of padded images, whose margins above and to the left are one pixel.
    pub(crate) fn transform_inputs(&self, layout: &PaddedImage, images: &[&[f32]], to: &mut [f32]) {
        let (corners, strides) = (self.corners(layout, images, INPUT_SIDE), Self::strides(self.len()));
        let blocks = to[..self.transform_len(layout.channels)].chunks_mut(strides.block).enumerate();
        for_each(blocks, false, |(block, to)| {
            for (i, image) in images.iter().enumerate() {
                let (image, to) = (&image[block * BLOCK..], &mut to[i * self.tiles.len() * BLOCK..]);
                // SAFETY: every tile lies within the image, and within the block at every point.
                unsafe { transform_inputs(self.level, layout, BLOCK, image, &corners, to, strides) }
            }
        });
    }

    /// Computes the outputs from the transformed inputs: `Aᵀ m A` of their products with the transformed weight, with an epilogue
    /// for each image. They are written with the layout `target` to `outputs`, which begin at the first pixel of an image.
    pub(crate) fn convolve<'e>(
        &self,
        weight: WideWeight,
        from: &[f32],
        epilogue: impl Fn(usize) -> Epilogue<'e>,
        target: &PaddedImage,
        outputs: Vec<&mut [f32]>,
    ) {
        assert_eq!(outputs.len(), self.images, "the number of images");
        let start = target.at(0, 0) as usize;
        let images = outputs.into_iter().enumerate().map(|(i, out)| {
            let epilogue = epilogue(i);
            let tiles = self.tiling.output_tiles(self.tiles.clone(), epilogue, target, out, start);
            (epilogue, tiles, SharedOutput::new(out))
        });
        let (images, strides): (Vec<_>, _) = (images.collect(), self.tiling.output_strides(target));
        for_each(self.tasks(target.channels / BLOCK), false, |(blocks, tiles)| {
            let (channel, channels) = (blocks.start * BLOCK, blocks.len() * BLOCK);
            let products = Self::strides(tiles.len());
            let mut scratch = Scratch::new([blocks.len() * products.block]);
            let [to] = scratch.slices();
            self.multiply(weight, from, blocks, tiles.clone(), to);
            for (i, (epilogue, places, out)) in images.iter().enumerate() {
                let before = i * self.tiles.len();
                let own = tiles.start.max(before)..tiles.end.min(before + places.len());
                if own.is_empty() {
                    continue;
                }
                let (m, places) =
                    (&to[(own.start - tiles.start) * BLOCK..], &places[own.start - before..own.end - before]);
                let (epilogue, out) = (epilogue.skip_channels(channel), out.at(channel));
                // SAFETY: every tile lies within the products, the image and the addend. Nothing else writes these channels of it.
                unsafe { write_outputs(self.level, channels, m, products, places, epilogue, out, strides) }
            }
        });
    }

    /// How threads share the outputs: blocks of channels, and tiles of all images, in as few parts as keep all threads busy.
    fn tasks(&self, blocks: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<> {
        let (together, tiles) = (blocks_per_task(blocks), self.len());
        let parts = (2 * rayon::current_num_threads()).div_ceil(blocks).min(tiles / MIN_TILES).max(1);
        (0..blocks)
            .step_by(together)
            .flat_map(move |first| divide(tiles, parts).map(move |tiles| (first..blocks.min(first + together), tiles)))
    }

    /// Computes the products of transformed tiles with the transform of a weight, for some blocks of outputs and some of the tiles.
    fn multiply(&self, weight: WideWeight, from: &[f32], outputs: Range<usize>, tiles: Range<usize>, to: &mut [f32]) {
        let channels = match weight {
            WideWeight::Kernels(kernels) => kernels.channels(self.tiling.channels),
            WideWeight::Transformed(_) => self.tiling.channels,
        };
        let (inputs, [from_strides, to_strides]) = (channels[0], [self.len(), tiles.len()].map(Self::strides));
        assert!(self.transform_len(inputs) <= from.len(), "too few transforms");
        assert!(outputs.len() * to_strides.block <= to.len(), "too little memory for the products");
        assert!(outputs.end * BLOCK <= channels[1] && tiles.end <= self.len(), "too few outputs or tiles");
        let products = |inputs: usize| Products {
            blocks: [inputs / BLOCK, outputs.len()],
            tiles: tiles.len(),
            from: from_strides,
            to: to_strides,
            prefetch_weights: matches!(weight, WideWeight::Transformed(_)),
        };
        let from = &from[tiles.start * BLOCK..];
        let kernels = match weight {
            WideWeight::Transformed(values) => {
                assert!(transformed_len(channels) <= values.len(), "too few weights");
                let values = &values[outputs.start * weight_block(inputs)..];
                // SAFETY: the sizes were checked.
                return unsafe { multiply_points(self.level, &products(inputs), from, values, to, false, &[]) };
            }
            WideWeight::Kernels(kernels) => kernels,
        };
        let mut scratch = Scratch::new([outputs.len() * weight_block(inputs.min(INPUTS))]);
        let [packed] = scratch.slices();
        for first in (0..inputs).step_by(INPUTS) {
            let part = first..inputs.min(first + INPUTS);
            // SAFETY: the sizes were checked, and each part of `packed` has the size of a block.
            unsafe {
                for (block, packed) in outputs.clone().zip(packed.chunks_mut(weight_block(part.len()))) {
                    transform_block(self.level, block, part.clone(), channels, kernels, packed);
                }
                let from = &from[first / BLOCK * from_strides.block..];
                multiply_points(self.level, &products(part.len()), from, packed, to, first > 0, &[]);
            }
        }
    }

    /// Computes the packed weight gradient, `[block of outputs][tap][input][BLOCK]`, from the transformed inputs and the padded
    /// output gradients. It is added to `packed` if `add` is true.
    pub(crate) fn weight_gradient(
        &self,
        inputs: &[f32],
        layout: &PaddedImage,
        gradients: &[&[f32]],
        packed: &mut [f32],
        add: bool,
    ) {
        let [channels, outputs] = self.tiling.channels;
        assert!(self.transform_len(channels) <= inputs.len(), "too few transforms");
        let (from, corners) = (Self::strides(self.len()), self.corners(layout, gradients, SIDE));
        let together = blocks_per_task(outputs / BLOCK);
        let packed = packed[..9 * channels * outputs].chunks_mut(together * 9 * channels * BLOCK).enumerate();
        for_each(packed, false, |(task, packed)| {
            let outputs = packed.len() / (9 * channels);
            let blocks = outputs / BLOCK;
            let to = Strides { point: blocks * from.point, block: from.point };
            let sums_len = POINTS * sums_point([channels.min(INPUTS), outputs]);
            let mut scratch = Scratch::new([POINTS * to.point, sums_len]);
            let [transforms, sums] = scratch.slices();
            for (i, gradient) in gradients.iter().enumerate() {
                let gradient = &gradient[task * together * BLOCK..];
                let to_tiles = &mut transforms[i * self.tiles.len() * BLOCK..];
                // SAFETY: every tile lies within the image, and within the transforms at every point.
                unsafe { transform_output_gradients(self.level, layout, outputs, gradient, &corners, to_tiles, to) }
            }
            for first in (0..channels).step_by(INPUTS) {
                let part = first..channels.min(first + INPUTS);
                let products = Products {
                    blocks: [part.len() / BLOCK, blocks],
                    tiles: self.len(),
                    from,
                    to,
                    prefetch_weights: false,
                };
                let inputs = &inputs[first / BLOCK * from.block..];
                // SAFETY: the slices have the sizes of `products`.
                unsafe { add_products(self.level, &products, inputs, transforms, sums, true, &[]) }
                transform_weight_gradient(self.level, part, [channels, outputs], sums, packed, add);
            }
        });
    }
}
