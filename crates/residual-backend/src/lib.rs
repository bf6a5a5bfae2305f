//! Selects a Burn backend, probes it and opens a [`Device`].
//!
//! In Burn, the value of a `Device` selects the backend at run time. This is the only crate that chooses a backend. The
//! rest of the workspace receives a `Device` and does not depend on its backend, except for `residual-kernels`, which
//! runs on flex and ndarray.
//!
//! Burn's default device ([`Device::default`]) uses the first backend that is compiled in. If the hardware for that
//! backend is missing, Burn panics. [`Backend::choose`] and [`Backend::open`] return errors instead.
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
//! - `flex` (default), `ndarray`, `wgpu`: the backends with these names
//! - `vulkan`, `metal`: wgpu, restricted to that graphics API
//! - `cuda`, `rocm`: NVIDIA and AMD GPUs
//! - `cpu`: Burn's GPU kernels, compiled for the CPU just in time by CubeCL
//! - `autotune`, `fusion`: Burn's autotuning and kernel fusion, for the GPU backends and `cpu`. They are opt-in because
//!   software Vulkan (Mesa's lavapipe) crashes when it compiles their kernels.

mod open;

pub use open::Hardware;

use burn::tensor::Device;

/// A Burn backend.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(
    serialize_all = "lowercase",
    ascii_case_insensitive,
    parse_err_ty = BackendError,
    parse_err_fn = unknown_backend
)]
pub enum Backend {
    /// CPU, Burn's current default: SIMD, im2col and GEMM on all cores.
    Flex,
    /// CPU, on the `ndarray` crate. Deprecated in Burn; kept as a second reference for Burn's operations.
    NdArray,
    /// Any GPU, through the graphics API that wgpu finds.
    Wgpu,
    /// GPUs, through wgpu on Vulkan.
    Vulkan,
    /// GPUs, through wgpu on Metal.
    Metal,
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs.
    Rocm,
    /// CPU, through CubeCL's just-in-time compiler.
    Cpu,
}

fn unknown_backend(name: &str) -> BackendError {
    BackendError::Unknown { name: name.into(), source_hint: "" }
}

/// The reason that a backend cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The name of the backend is unknown.
    #[error("unknown backend `{name}`{source_hint}; expected one of {}", names(Backend::ALL))]
    Unknown {
        /// The given name.
        name: String,
        /// `" in BURN_DEVICE"` if the name comes from this environment variable, else empty.
        source_hint: &'static str,
    },
    /// The backend's feature was not enabled when the program was built.
    #[error(
        "backend `{0}` is not compiled in (feature `{0}`); use one of {compiled}",
        compiled = names(&Backend::compiled())
    )]
    NotCompiled(Backend),
    /// The backend has no hardware or no driver on this machine.
    #[error("backend `{backend}` found no device ({reason}); use one of {others}")]
    NoDevice {
        /// The backend.
        backend: Backend,
        /// The cause, from the driver if it gave one.
        reason: String,
        /// The names of the other backends that are compiled in.
        others: String,
    },
    /// The backend has no device with this name.
    #[error("there is no device `{id}` here; there is {known}")]
    NoSuchDevice {
        /// The given name.
        id: String,
        /// The names of the devices of the backend.
        known: String,
    },
}

fn names(backends: &[Backend]) -> String {
    backends.iter().map(|b| b.name()).collect::<Vec<_>>().join(", ")
}

impl Backend {
    /// Whether the backend keeps tensors in main memory.
    pub fn uses_main_memory(self) -> bool {
        matches!(self, Self::Flex | Self::NdArray | Self::Cpu)
    }

    /// All backends, compiled in or not.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name of the backend, as used on the command line, in `BURN_DEVICE` and for the Cargo feature.
    pub fn name(self) -> &'static str {
        self.into()
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

    /// The backends that the program was built with.
    pub fn compiled() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|b| b.is_compiled()).collect()
    }

    /// Chooses a backend: `flag` if it is given, otherwise `burn_device` if it is given and not empty, otherwise flex.
    /// `burn_device` is the value of the environment variable `BURN_DEVICE`.
    ///
    /// # Errors
    /// If the name is unknown, or the backend is not compiled in.
    pub fn choose(flag: Option<&str>, burn_device: Option<&str>) -> Result<Self, BackendError> {
        let (name, source_hint) = match (flag, burn_device) {
            (Some(name), _) => (name, ""),
            (None, Some(name)) if !name.is_empty() => (name, " in BURN_DEVICE"),
            _ => ("flex", ""),
        };
        let backend: Self = name.parse().map_err(|_| BackendError::Unknown { name: name.into(), source_hint })?;
        if !backend.is_compiled() {
            return Err(BackendError::NotCompiled(backend));
        }
        Ok(backend)
    }

    /// Opens the backend's best device, without autodiff.
    ///
    /// # Errors
    /// If the backend is not compiled in, or has no hardware or no driver on this machine.
    pub fn open(self) -> Result<Device, BackendError> {
        self.probe().map(|hardware| hardware.device)
    }

    /// Opens the backend's best device, without autodiff, and describes it.
    ///
    /// # Errors
    /// The same as for [`Self::open`].
    pub fn probe(self) -> Result<Hardware, BackendError> {
        self.probe_all().map(|mut devices| devices.swap_remove(0))
    }

    /// Opens the backend's devices, at least one, and describes them. The best one comes first. CUDA and ROCm have a device
    /// for each GPU, the other backends have one.
    ///
    /// # Errors
    /// The same as for [`Self::open`].
    pub fn probe_all(self) -> Result<Vec<Hardware>, BackendError> {
        if !self.is_compiled() {
            return Err(BackendError::NotCompiled(self));
        }
        let mut devices = open::open(self).map_err(|reason| BackendError::NoDevice {
            backend: self,
            reason,
            others: names(&Self::compiled().into_iter().filter(|&b| b != self).collect::<Vec<_>>()),
        })?;
        for (i, hardware) in devices.iter_mut().enumerate() {
            hardware.id =
                if matches!(self, Self::Cuda | Self::Rocm) { format!("{self}:{i}") } else { self.to_string() };
        }
        Ok(devices)
    }

    /// Opens the device with this name: that of a backend, for its best device, or one with a number, such as `cuda:1`.
    ///
    /// # Errors
    /// The same as for [`Self::choose`] and [`Self::open`], or if the backend has no device with this number.
    pub fn device(id: &str) -> Result<(Self, Hardware), BackendError> {
        let (name, number) = id.split_once(':').unwrap_or((id, "0"));
        let backend = Self::choose(Some(name), None)?;
        let devices = backend.probe_all()?;
        match number.parse::<usize>().ok().and_then(|number| devices.get(number)) {
            Some(hardware) => Ok((backend, hardware.clone())),
            None => Err(BackendError::NoSuchDevice {
                id: id.into(),
                known: devices.iter().map(|hardware| hardware.id.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_in_any_case() {
        assert_eq!(names(Backend::ALL), "flex, ndarray, wgpu, vulkan, metal, cuda, rocm, cpu");
        for &backend in Backend::ALL {
            assert_eq!(backend.name().parse(), Ok(backend));
            assert_eq!(backend.name().to_uppercase().parse(), Ok(backend));
            assert_eq!(backend.to_string(), backend.name());
        }
    }

    #[test]
    #[cfg(feature = "ndarray")]
    fn the_flag_overrides_burn_device_and_flex_is_the_default() {
        assert_eq!(Backend::choose(Some("ndarray"), Some("nonsense")), Ok(Backend::NdArray));
        assert_eq!(Backend::choose(None, Some("NdArray")), Ok(Backend::NdArray));
        assert_eq!(Backend::choose(None, Some("")), Ok(Backend::Flex));
        assert_eq!(Backend::choose(None, None), Ok(Backend::Flex));
    }

    #[test]
    fn the_error_for_an_unknown_backend_lists_the_known_ones() {
        let error = Backend::choose(None, Some("wpgu")).unwrap_err().to_string();
        assert!(error.starts_with("unknown backend `wpgu` in BURN_DEVICE; expected one of flex, ndarray, wgpu"));
    }

    #[test]
    #[cfg(not(feature = "rocm"))]
    fn the_error_for_a_backend_that_is_not_compiled_in_names_its_feature() {
        let error = Backend::choose(Some("rocm"), None).unwrap_err();
        assert_eq!(error, BackendError::NotCompiled(Backend::Rocm));
        assert!(error.to_string().contains("(feature `rocm`)"));
        assert_eq!(Backend::Rocm.open(), Err(BackendError::NotCompiled(Backend::Rocm)));
    }

    #[test]
    fn flex_always_has_a_device() {
        let hardware = Backend::Flex.probe().unwrap();
        assert!(!hardware.software);
        assert_eq!(hardware.device, Device::flex());
    }

    #[test]
    fn devices_are_found_by_their_names() {
        let (backend, hardware) = Backend::device("Flex").unwrap();
        assert_eq!((backend, hardware.id.as_str()), (Backend::Flex, "flex"));
        assert_eq!(Backend::device("flex:0").unwrap().0, Backend::Flex);
        let error = |id| Backend::device(id).unwrap_err().to_string();
        assert_eq!(error("flex:x"), "there is no device `flex:x` here; there is flex");
        assert_eq!(error("flex:1"), "there is no device `flex:1` here; there is flex");
        assert!(error("gpu:0").starts_with("unknown backend `gpu`; expected one of flex"));
        assert!(error("").starts_with("unknown backend ``"));
    }
}
