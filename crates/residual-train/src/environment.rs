use residual_backend::{Backend, Hardware};
use residual_data::shown;
use residual_kernels::SimdLevel;
use residual_model::Kernels;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The software and hardware of a training run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The version of this crate.
    pub residual: String,
    /// The version of Burn.
    pub burn: String,
    /// The name of the backend.
    pub backend: String,
    /// The name of the device.
    pub device: String,
    /// The model name of the processor, if the system reports one.
    pub processor: Option<String>,
    /// The number of cores available to the process.
    pub cores: usize,
    /// The SIMD instructions of a CPU backend, such as `AVX2`. Results of different instructions differ by rounding. `None` on
    /// a GPU, and for runs that were recorded before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The kernels that compute the blocks.
    #[serde(default = "reference")]
    pub kernels: Kernels,
    /// The operating system and architecture.
    pub system: String,
}

impl Environment {
    /// What does the arithmetic, and so determines the rounding: the SIMD instructions of a CPU, or the name of a GPU. `None` if
    /// it was not recorded.
    pub fn arithmetic(&self) -> Option<String> {
        let instructions = self.instructions.as_ref().map(|name| format!("{name} instructions"));
        instructions.or_else(|| (!self.is_cpu()).then(|| self.device.clone()))
    }

    /// Whether the device is a CPU.
    fn is_cpu(&self) -> bool {
        self.device.contains("CPU,")
    }

    /// Describes this machine and a device of a backend.
    pub fn here(backend: Backend, hardware: &Hardware) -> Self {
        Self {
            residual: env!("CARGO_PKG_VERSION").into(),
            burn: "0.22.1".into(),
            backend: backend.to_string(),
            device: hardware.name.clone(),
            processor: processor(),
            kernels: Kernels::on(&hardware.device),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            instructions: backend.uses_main_memory().then(|| SimdLevel::detect().to_string()),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The name of this machine in the network, if the system reports one.
pub(crate) fn host() -> Option<String> {
    sysinfo::System::host_name()
}

impl fmt::Display for Environment {
    /// For example, `flex (AMD EPYC 7763, 2 cores, linux x86_64)`. On a GPU backend, the GPU's name replaces the
    /// processor's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, device, processor, cores, system, .. } = self;
        let [backend, system] = [backend, system].map(|text| shown(text));
        let machine = match processor {
            Some(processor) if self.is_cpu() => processor,
            _ => device,
        };
        write!(f, "{backend} ({}, {cores} cores, {system})", shown(machine))
    }
}

/// The kernels used by runs that were recorded before the field `kernels` existed.
fn reference() -> Kernels {
    Kernels::Reference
}

/// The model name of the first processor. `None` except on Linux.
fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().into())
}
