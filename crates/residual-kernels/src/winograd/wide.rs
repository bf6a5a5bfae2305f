//! Winograd's algorithm for so many channels that the transformed weights do not fit into the caches. All threads
//! work on the same images and share the blocks of channels. Each transforms the weights of one or two blocks, a part of the inputs
//! at a time, right before it multiplies all tiles by them, and the sums of the weight gradient right after, so that neither is ever
//! stored as a whole.

use super::{
    Epilogue, INPUT_SIDE, Kernels, POINTS, Products, SIDE, Strides, Tiling, add_products, multiply_points, sums_point,
    transform_block, transform_inputs, transform_output_gradients, transform_weight_gradient, weight_block,
    write_outputs,
};
use crate::{
    SimdLevel,
    buffer::Scratch,
    layout::PaddedImage,
    parallel::for_each,
    tile::{BLOCK, blocks_per_task},
};

/// With at least this many pairs of channels, training uses [`Wide`]. Inference uses it for several images, with more than
/// [`MAX_PREPARED_PAIRS`](super::MAX_PREPARED_PAIRS).
const MIN_PAIRS: usize = 256 * 256;

/// The number of tiles that are transformed together, if they are of several images. With 512 channels, their transforms take
/// 9 MiB.
pub(crate) const TILES: usize = 128;

/// The number of inputs whose transformed weights, or their gradients, a task holds at a time. Those of two blocks of outputs take
/// 1.1 MiB.
const INPUTS: usize = 256;

impl Tiling {
    /// The number of images that [`Wide`] transforms together, or `None` if there are too few channels for it.
    pub(crate) fn wide_images(&self) -> Option<usize> {
        let is_wide = self.channels[0] * self.channels[1] >= MIN_PAIRS;
        is_wide.then(|| (TILES / self.tiles()).max(1))
    }
}

/// All tiles of some images. Their transforms are stored as `[block of channels][point][tile][BLOCK]`, so that each block is
/// written by one thread.
pub(crate) struct Wide<'a> {
    level: SimdLevel,
    tiling: &'a Tiling,
    images: usize,
}

impl<'a> Wide<'a> {
    pub(crate) fn new(level: SimdLevel, tiling: &'a Tiling, images: usize) -> Self {
        Self { level, tiling, images }
    }

    /// The number of tiles of all images.
    fn tiles(&self) -> usize {
        self.images * self.tiling.tiles()
    }

    /// The strides of transforms. The number of lines of a point is odd, and a block has a line at its end, so that points and
    /// blocks are on different cache sets.
    fn strides(&self) -> Strides {
        let point = (self.tiles() | 1) * BLOCK;
        Strides { point, block: POINTS * point + BLOCK }
    }

    /// The number of values of the transforms of images with this many channels.
    pub(crate) fn transform_len(&self, channels: usize) -> usize {
        channels / BLOCK * self.strides().block
    }

    /// The offsets of all tiles of `side` by `side` values in each of the padded images.
    fn corners(&self, layout: &PaddedImage, images: &[&[f32]], side: usize) -> Vec<usize> {
        assert_eq!(images.len(), self.images, "the number of images");
        let shortest = images.iter().min_by_key(|image| image.len()).expect("at least one image");
        self.tiling.corners(layout, shortest, 0..self.tiling.tiles(), side)
    }

    /// Computes `Bᵀ d B` of padded images, whose margins above and to the left are one pixel.
    pub(crate) fn transform_inputs(&self, layout: &PaddedImage, images: &[&[f32]], to: &mut [f32]) {
        let corners = self.corners(layout, images, INPUT_SIDE);
        let blocks = to[..self.transform_len(layout.channels)].chunks_mut(self.strides().block).enumerate();
        for_each(blocks, false, |(block, to)| {
            for (i, image) in images.iter().enumerate() {
                let (image, to) = (&image[block * BLOCK..], &mut to[i * self.tiling.tiles() * BLOCK..]);
                // SAFETY: every tile lies within the image, and within the block at every point.
                unsafe { transform_inputs(self.level, layout, BLOCK, image, &corners, to, self.strides()) }
            }
        });
    }

    /// Computes the products of transformed tiles with the transform of a weight.
    pub(crate) fn multiply(&self, weight: Kernels, from: &[f32], to: &mut [f32]) {
        let channels = weight.channels(self.tiling.channels);
        let [inputs, outputs] = channels;
        assert!(self.transform_len(inputs) <= from.len(), "too few transforms");
        let (strides, together) = (self.strides(), blocks_per_task(outputs / BLOCK));
        let to = to[..self.transform_len(outputs)].chunks_mut(together * strides.block).enumerate();
        for_each(to, false, |(task, to)| {
            let blocks = to.len() / strides.block;
            let mut scratch = Scratch::new([blocks * weight_block(inputs.min(INPUTS))]);
            let [packed] = scratch.slices();
            for first in (0..inputs).step_by(INPUTS) {
                let part = first..inputs.min(first + INPUTS);
                let block_len = weight_block(part.len());
                let products =
                    Products { blocks: [part.len() / BLOCK, blocks], tiles: self.tiles(), from: strides, to: strides };
                // SAFETY: `weight` has all kernels, and the slices have the sizes of the blocks and of `products`.
                unsafe {
                    for (block, packed) in packed.chunks_mut(block_len).take(blocks).enumerate() {
                        transform_block(self.level, task * together + block, part.clone(), channels, weight, packed);
                    }
                    let from = &from[first / BLOCK * strides.block..];
                    multiply_points(self.level, &products, 0..POINTS, from, packed, to, first > 0, &[]);
                }
            }
        });
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
        let (from, corners) = (self.strides(), self.corners(layout, gradients, SIDE));
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
                let to_tiles = &mut transforms[i * self.tiling.tiles() * BLOCK..];
                // SAFETY: every tile lies within the image, and within the transforms at every point.
                unsafe { transform_output_gradients(self.level, layout, outputs, gradient, &corners, to_tiles, to) }
            }
            for first in (0..channels).step_by(INPUTS) {
                let part = first..channels.min(first + INPUTS);
                let products = Products { blocks: [part.len() / BLOCK, blocks], tiles: self.tiles(), from, to };
                let inputs = &inputs[first / BLOCK * from.block..];
                // SAFETY: the slices have the sizes of `products`.
                unsafe { add_products(self.level, &products, inputs, transforms, sums, true, &[]) }
                transform_weight_gradient(self.level, part, [channels, outputs], sums, packed, add);
            }
        });
    }

    /// Computes `Aᵀ m A` of the tiles of an image, and writes it to `out` with the layout `target`. `out` begins at the first
    /// pixel of the image.
    pub(crate) fn write_output(
        &self,
        from: &[f32],
        image: usize,
        epilogue: Epilogue,
        target: &PaddedImage,
        out: &mut [f32],
    ) {
        assert!(image < self.images && self.transform_len(target.channels) <= from.len(), "too few transforms");
        let (tiles, start) = (self.tiling.tiles(), target.at(0, 0) as usize);
        let outputs = self.tiling.output_tiles(0..tiles, epilogue, target, out, start);
        let rows = self.tiling.rows(target);
        let from = &from[image * tiles * BLOCK..];
        // SAFETY: every tile lies within the transforms, the image and the addend.
        unsafe {
            write_outputs(self.level, target.channels, from, self.strides(), &outputs, epilogue, out, rows);
        }
    }
}
