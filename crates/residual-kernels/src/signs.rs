//! The signs of a ReLU's outputs, which the backward pass needs instead of the outputs.

use crate::simd::for_every_level;

/// The number of values whose signs are in one word.
const WORD: usize = 16;

/// For each value of a batch, whether the gradient flows through its ReLU: whether the output is positive or NaN. One bit per
/// value takes a thirty-second of the memory bandwidth.
#[derive(Clone, Debug)]
pub(crate) struct Signs {
    words: Vec<u16>,
    words_per_image: usize,
}

impl Signs {
    /// Memory for the signs of images of `len` values.
    pub(crate) fn new(batch: usize, len: usize) -> Self {
        // `ImageSigns::at` reads one word beyond that of its first value.
        let words_per_image = len.div_ceil(WORD) + 1;
        Self { words: vec![0; batch * words_per_image], words_per_image }
    }

    /// The signs of each image, for [`write_signs`].
    pub(crate) fn images_mut(&mut self) -> impl Iterator<Item = &mut [u16]> {
        self.words.chunks_mut(self.words_per_image)
    }

    /// The signs of one image.
    pub(crate) fn image(&self, index: usize) -> ImageSigns<'_> {
        ImageSigns::new(&self.words[index * self.words_per_image..][..self.words_per_image])
    }
}

for_every_level! {
    /// Writes the signs of an image.
    pub(crate) fn write_signs(image: &[f32], words: &mut [u16]) {
        for (word, values) in words.iter_mut().zip(image.chunks(WORD)) {
            *word = match values.first_chunk::<WORD>() {
                Some(values) => signs_of(*values),
                None => values.iter().enumerate().fold(0, |word, (i, v)| word | (u16::from(flows(*v)) << i)),
            };
        }
    }
}

/// Whether the gradient flows through a ReLU with this output.
#[inline(always)]
fn flows(output: f32) -> bool {
    // False for NaN, through which the gradient flows.
    let is_zero = output <= 0.0;
    !is_zero
}

#[inline(always)]
fn signs_of(values: [f32; WORD]) -> u16 {
    let mut bits = [0u16; WORD];
    for i in 0..WORD {
        bits[i] = u16::from(flows(values[i])) << i;
    }
    bits.iter().fold(0, |word, bit| word | bit)
}

/// The signs of one image.
#[derive(Clone, Copy)]
pub(crate) struct ImageSigns<'a>(&'a [u16]);

impl<'a> ImageSigns<'a> {
    /// The signs that [`write_signs`] wrote.
    pub(crate) fn new(words: &'a [u16]) -> Self {
        Self(words)
    }

    /// The signs of up to 16 values from `index` on, the first in the lowest bit.
    #[inline(always)]
    pub(crate) fn at(self, index: usize) -> u32 {
        let word = index / WORD;
        (u32::from(self.0[word]) | u32::from(self.0[word + 1]) << WORD) >> (index % WORD)
    }
}

/// The gradient through a ReLU: `v` if its bit is set, else 0.
#[inline(always)]
pub(crate) fn relu_gradient(v: f32, signs: u32, bit: usize) -> f32 {
    f32::from_bits(v.to_bits() & 0u32.wrapping_sub((signs >> bit) & 1))
}
