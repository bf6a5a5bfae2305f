//! Vectors of the processor, picked when the program runs.

use std::{fmt, sync::OnceLock};

/// The vector instructions that kernels use: the baseline of the target, AVX2 with FMA, AVX-512, or
/// NEON. There is one only where the processor has its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level(pub(crate) Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(dead_code)]
pub(crate) enum Instructions {
    /// What every processor of the target has.
    Baseline,
    /// x86-64 with AVX2 and FMA: 8 lanes.
    Avx2,
    /// x86-64 with AVX-512F: 16 lanes.
    Avx512,
    /// AArch64: 4 lanes.
    Neon,
}

impl Level {
    /// The widest that this processor has.
    pub fn detect() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| *Self::available().last().expect("the baseline is always there"))
    }

    /// All that this processor has, the widest last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut levels = vec![Self(Instructions::Baseline)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self(Instructions::Avx2));
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Self(Instructions::Avx512));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        levels.push(Self(Instructions::Neon));
        levels
    }
}

/// Defines functions of plain Rust that are compiled for every level, and take the level first.
macro_rules! for_every_level {
    ($($(#[$attribute:meta])* pub(crate) fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name(level: $crate::Level, $($argument: $type),*) {
            #[inline(always)]
            fn plain($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) {
                plain($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f")]
            fn avx512($($argument: $type),*) {
                plain($($argument),*)
            }

            match level.0 {
                // SAFETY: a level is only made by `available`, which asked the processor.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Instructions::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Instructions::Avx512 => unsafe { avx512($($argument),*) },
                _ => plain($($argument),*),
            }
        }
    )*};
}

pub(crate) use for_every_level;

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self.0 {
            Instructions::Baseline => "baseline",
            Instructions::Avx2 => "AVX2",
            Instructions::Avx512 => "AVX-512",
            Instructions::Neon => "NEON",
        })
    }
}

/// A register of [`Self::LANES`] numbers.
///
/// # Safety
/// Calling a method needs a processor with the vector's instructions.
pub(crate) trait Vector: Copy {
    const LANES: usize;
    /// `value` in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes them.
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `max(self, 0)`, and NaN where it is NaN.
    unsafe fn relu(self) -> Self;
}

/// Four lanes in plain Rust, which every target's compiler turns into what it has.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Vector for Plain {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller says that four numbers are there.
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller says that four numbers have room there.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        Self([0, 1, 2, 3].map(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|v| if v < 0.0 { 0.0 } else { v }))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    impl Vector for __m256 {
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has AVX2 and FMA; so in all of this file.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: eight numbers are there.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: eight numbers have room there.
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has AVX2 and FMA.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: the caller has AVX2 and FMA. The second operand is the result where one is NaN.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), self) }
        }
    }

    impl Vector for __m512 {
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has AVX-512F; so below.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: sixteen numbers are there.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: sixteen numbers have room there.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512F.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: the caller has AVX-512F. The second operand is the result where one is NaN.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), self) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Vector;
    use std::arch::aarch64::*;

    impl Vector for float32x4_t {
        const LANES: usize = 4;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: every AArch64 processor has NEON; so below.
            unsafe { vdupq_n_f32(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: four numbers are there.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: four numbers have room there.
            unsafe { vst1q_f32(to, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: NEON.
            unsafe { vfmaq_f32(self, a, b) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: NEON; its maximum is NaN where an operand is.
            unsafe { vmaxq_f32(self, vdupq_n_f32(0.0)) }
        }
    }
}
