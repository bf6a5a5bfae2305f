use residual_backend::{Backend, Hardware};
use residual_model::Kernels;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a training ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// This crate's version.
    pub residual: String,
    /// Burn's version.
    pub burn: String,
    /// The backend's name.
    pub backend: String,
    /// What the device calls itself.
    pub device: String,
    /// The processor, where the system tells.
    pub processor: Option<String>,
    /// Cores at hand.
    pub cores: usize,
    /// Which code computes blocks.
    #[serde(default = "reference")]
    pub kernels: Kernels,
    /// Operating system and architecture.
    pub system: String,
}

impl Environment {
    /// This machine, with that backend's device.
    pub fn here(backend: Backend, hardware: &Hardware) -> Self {
        Self {
            residual: env!("CARGO_PKG_VERSION").into(),
            burn: "0.22.1".into(),
            backend: backend.to_string(),
            device: hardware.name.clone(),
            processor: processor(),
            kernels: Kernels::on(&hardware.device),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

impl fmt::Display for Environment {
    /// `flex (AMD EPYC 7763, 2 cores, linux x86_64)`; a GPU's name where the backend runs on one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, device, processor, cores, system, .. } = self;
        let machine = match processor {
            Some(processor) if device.contains("CPU,") => processor,
            _ => device,
        };
        write!(f, "{backend} ({machine}, {cores} cores, {system})")
    }
}

/// What trainings ran on before there was a choice.
fn reference() -> Kernels {
    Kernels::Reference
}

/// The model name Linux gives of the first processor.
fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().into())
}
