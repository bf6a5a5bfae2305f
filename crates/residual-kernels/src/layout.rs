//! The layout of images in memory.

use crate::tile::BLOCK;
use std::ops::Range;

/// The layout of an image with a margin of zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaddedImage {
    /// The height and width of the image without the margin.
    pub(crate) size: [usize; 2],
    pub(crate) channels: usize,
    /// The number of rows or columns of zeros above, left, below and right.
    pub(crate) margin: [usize; 4],
}

impl PaddedImage {
    /// An image without a margin.
    pub(crate) fn unpadded(size: [usize; 2], channels: usize) -> Self {
        Self { size, channels, margin: [0; 4] }
    }

    /// The number of values per row, including the margin.
    pub(crate) fn row(&self) -> usize {
        (self.margin[1] + self.size[1] + self.margin[3]) * self.channels
    }

    pub(crate) fn is_padded(&self) -> bool {
        self.margin != [0; 4]
    }

    /// The length of the workspace: the padded image and [`BLOCK`] more values, because whole blocks are read.
    pub(crate) fn len(&self) -> usize {
        (self.margin[0] + self.size[0] + self.margin[2]) * self.row() + BLOCK
    }

    /// The number of values from the first pixel of the image to the end of its last pixel.
    pub(crate) fn span(&self) -> usize {
        (self.size[0] - 1) * self.row() + self.size[1] * self.channels
    }

    /// The offset of a pixel's first channel. Coordinates are relative to the image, so they are negative in the margin
    /// above and to the left.
    pub(crate) fn at(&self, y: isize, x: isize) -> u32 {
        let (y, x) = (y + self.margin[0] as isize, x + self.margin[1] as isize);
        debug_assert!(y >= 0 && x >= 0);
        u32::try_from(y as usize * self.row() + x as usize * self.channels)
            .expect("a padded image has fewer than 2³² values")
    }

    /// The range of each row of the image, without the margin.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Range<usize>> + Clone {
        let (row, channels) = (self.row(), self.channels);
        let ([height, width], [top, left, ..]) = (self.size, self.margin);
        (0..height).map(move |y| {
            let from = (top + y) * row + left * channels;
            from..from + width * channels
        })
    }

    /// The length of a workspace for the padded image, which starts at a cache line.
    pub(crate) fn workspace_len(&self) -> usize {
        self.len().next_multiple_of(16)
    }

    /// A workspace for the padded image in this memory: the margin and the values after it are zero. The image itself is
    /// unspecified.
    pub(crate) fn workspace<'a>(&self, memory: &'a mut [f32]) -> &'a mut [f32] {
        let mut from = 0;
        for row in self.rows() {
            memory[from..row.start].fill(0.0);
            from = row.end;
        }
        memory[from..].fill(0.0);
        memory
    }

    /// [`Self::workspace`] for as many images as the memory has room for.
    pub(crate) fn workspaces<'a>(&self, memory: &'a mut [f32]) -> Vec<&'a mut [f32]> {
        memory.chunks_exact_mut(self.workspace_len()).map(|memory| self.workspace(memory)).collect()
    }
}
