//! The signs of a ReLU's outputs, which the backward pass needs instead of the outputs.

use crate::{SimdLevel, simd::for_every_vector, tile::BLOCK};

/// The number of values whose signs are in one word.
const WORD: usize = BLOCK;

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

/// Writes the signs of an image.
pub(crate) fn write_signs(level: SimdLevel, image: &[f32], words: &mut [u16]) {
    let (whole, rest) = image.split_at(image.len() / WORD * WORD);
    assert!(whole.len() / WORD <= words.len(), "too few words for the signs of an image");
    // SAFETY: there is a word for every `WORD` values.
    unsafe { write_words(level, whole, words) }
    if !rest.is_empty() {
        // False for NaN, through which the gradient flows.
        let is_zero = |v: f32| v <= 0.0;
        words[whole.len() / WORD] =
            rest.iter().enumerate().fold(0, |word, (i, v)| word | (u16::from(!is_zero(*v)) << i));
    }
}

for_every_vector! {
    /// Writes one word for every [`WORD`] values.
    ///
    /// # Safety
    /// There must be as many words.
    unsafe fn write_words<V, N, MAX>(values: &[f32], words: &mut [u16]) {
        for (values, word) in values.chunks_exact(WORD).zip(words) {
            let mut bits = 0;
            for j in 0..N {
                // SAFETY: `N` vectors are `WORD` values, and the caller has checked the processor.
                bits |= unsafe { V::load(values.as_ptr().add(j * V::LANES)).positive_or_nan() } << (j * V::LANES);
            }
            *word = bits as u16;
        }
    }
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
