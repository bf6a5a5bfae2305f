//! Names a backend, probes it and opens a [`Device`].
//!
//! Burn picks the backend by the value of a `Device` at run time, so this is the only crate that
//! chooses one. The rest of the workspace takes a `Device` and does not ask; `residual-kernels` alone knows the two
//! backends that it runs on.
//!
//! Burn's own default ([`Device::default`]) takes the first backend compiled in and panics where
//! its hardware is missing; [`Backend::choose`] and [`Backend::open`] return errors instead.
//!
//! ```
//! use residual_backend::Backend;
//!
//! let hardware = Backend::choose(None, None)?.probe()?;
//! println!("{:?}", hardware.device);
//! # Ok::<(), residual_backend::BackendError>(())
//! ```
//!
//! # Feature flags
//!
//! - `flex` (default), `ndarray`, `wgpu`: these backends
//! - `vulkan`, `metal`: wgpu with that API pinned
//! - `cuda`, `rocm`: NVIDIA's and AMD's GPUs
//! - `cpu`: the GPUs' kernels on a CPU, by CubeCL's just-in-time compiler
//! - `autotune`, `fusion`: for the GPU backends and `cpu`; opt-in because software Vulkan (Mesa's lavapipe) crashes
//!   compiling the kernels they try

mod open;

pub use open::Hardware;

use burn::tensor::Device;
use std::{fmt, str::FromStr};

/// A Burn backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// CPU, Burn's current default: SIMD, im2col and GEMM on all cores.
    Flex,
    /// CPU, on the `ndarray` crate; deprecated upstream, kept as a second reference for Burn's operations.
    NdArray,
    /// Any GPU, through the graphics API that wgpu finds.
    Wgpu,
    /// wgpu on Vulkan.
    Vulkan,
    /// wgpu on Metal.
    Metal,
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs.
    Rocm,
    /// CPU, through CubeCL's just-in-time compiler.
    Cpu,
}

/// Why a backend cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A word that names no backend.
    #[error("unknown backend `{name}`{source_hint}; expected one of {}", names(Backend::ALL))]
    Unknown {
        /// The word.
        name: String,
        /// Where the word came from, if not from a flag.
        source_hint: &'static str,
    },
    /// The backend's feature was off when this program was built.
    #[error(
        "backend `{0}` is not compiled in; enable the feature `{0}`, or use one of {compiled}",
        compiled = names(&Backend::compiled())
    )]
    NotCompiled(Backend),
    /// No hardware or driver answers.
    #[error("backend `{backend}` finds no device here ({reason}); use one of {others}")]
    NoDevice {
        /// The backend.
        backend: Backend,
        /// What its driver said.
        reason: String,
        /// The other backends that are compiled in.
        others: String,
    },
}

fn names(backends: &[Backend]) -> String {
    backends.iter().map(|b| b.name()).collect::<Vec<_>>().join(", ")
}

impl Backend {
    /// Every backend there is, compiled in or not.
    pub const ALL: &[Self] =
        &[Self::Flex, Self::NdArray, Self::Wgpu, Self::Vulkan, Self::Metal, Self::Cuda, Self::Rocm, Self::Cpu];

    /// The name on the command line, in `BURN_DEVICE` and as a feature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Cpu => "cpu",
        }
    }

    /// Whether the program was built with this backend.
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Cpu => cfg!(feature = "cpu"),
        }
    }

    /// The backends the program was built with.
    pub fn compiled() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|b| b.is_compiled()).collect()
    }

    /// Picks the backend: the flag, else the value of the environment variable `BURN_DEVICE`, else
    /// flex.
    ///
    /// # Errors
    /// If the word names no backend, or one that is not compiled in.
    pub fn choose(flag: Option<&str>, burn_device: Option<&str>) -> Result<Self, BackendError> {
        let (word, source_hint) = match (flag, burn_device) {
            (Some(word), _) => (word, ""),
            (None, Some(word)) if !word.is_empty() => (word, " in BURN_DEVICE"),
            _ => ("flex", ""),
        };
        let backend: Self = word.parse().map_err(|_| BackendError::Unknown { name: word.into(), source_hint })?;
        if !backend.is_compiled() {
            return Err(BackendError::NotCompiled(backend));
        }
        Ok(backend)
    }

    /// Opens the backend's best device, without autodiff.
    ///
    /// # Errors
    /// If the backend is not compiled in, or no hardware or driver answers.
    pub fn open(self) -> Result<Device, BackendError> {
        self.probe().map(|hardware| hardware.device)
    }

    /// Opens the backend's best device and says what it is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn probe(self) -> Result<Hardware, BackendError> {
        if !self.is_compiled() {
            return Err(BackendError::NotCompiled(self));
        }
        open::open(self).map_err(|reason| BackendError::NoDevice {
            backend: self,
            reason,
            others: names(&Self::compiled().into_iter().filter(|&b| b != self).collect::<Vec<_>>()),
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(word: &str) -> Result<Self, BackendError> {
        let lower = word.to_ascii_lowercase();
        Self::ALL
            .iter()
            .copied()
            .find(|b| b.name() == lower)
            .ok_or_else(|| BackendError::Unknown { name: word.into(), source_hint: "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for &backend in Backend::ALL {
            assert_eq!(backend.name().parse(), Ok(backend));
        }
    }

    #[test]
    #[cfg(feature = "ndarray")]
    fn the_flag_beats_the_environment_and_that_beats_flex() {
        assert_eq!(Backend::choose(Some("ndarray"), Some("nonsense")), Ok(Backend::NdArray));
        assert_eq!(Backend::choose(None, Some("NdArray")), Ok(Backend::NdArray));
        assert_eq!(Backend::choose(None, Some("")), Ok(Backend::Flex));
        assert_eq!(Backend::choose(None, None), Ok(Backend::Flex));
    }

    #[test]
    fn a_misspelt_backend_lists_the_right_ones_and_says_where_it_stood() {
        let error = Backend::choose(None, Some("wpgu")).unwrap_err().to_string();
        assert!(error.starts_with("unknown backend `wpgu` in BURN_DEVICE; expected one of flex, ndarray, wgpu"));
    }

    #[test]
    #[cfg(not(feature = "rocm"))]
    fn a_backend_left_out_of_the_build_says_how_to_get_it() {
        let error = Backend::choose(Some("rocm"), None).unwrap_err();
        assert_eq!(error, BackendError::NotCompiled(Backend::Rocm));
        assert!(error.to_string().contains("enable the feature `rocm`"));
        assert_eq!(Backend::Rocm.open(), Err(BackendError::NotCompiled(Backend::Rocm)));
    }

    #[test]
    fn flex_always_answers() {
        let hardware = Backend::Flex.probe().unwrap();
        assert!(!hardware.software);
        assert_eq!(hardware.device, Device::flex());
    }
}
