mod bench;
mod convert;
mod devices;
mod eval;
mod model;
mod models;
mod predict;
mod summary;
mod sweep;
mod train;
mod weights;

pub(crate) use bench::bench;
pub(crate) use convert::convert;
pub(crate) use devices::devices;
pub(crate) use eval::eval;
pub(crate) use models::models;
pub(crate) use predict::predict;
pub(crate) use summary::summary;
pub(crate) use sweep::sweep;
pub(crate) use train::train;
pub(crate) use weights::weights;

use crate::{
    Usage,
    args::{BackendArgs, KernelsChoice, NetworkArgs},
};
use residual_backend::{Backend, BackendError, Hardware};
use residual_model::{BlockOptions, ConvConfig, InitConfig, Kernels, ModelError, NetworkConfig};

impl BackendArgs {
    /// The flag, else `BURN_DEVICE`, else flex.
    fn choose(&self) -> Result<Backend, BackendError> {
        Backend::choose(self.backend.as_deref(), std::env::var("BURN_DEVICE").ok().as_deref())
    }

    /// Opens the device and selects the kernels.
    fn open(&self) -> anyhow::Result<(Backend, Hardware)> {
        let backend = self.choose()?;
        let hardware = backend.probe()?;
        let kernels = match (self.kernels, self.recompute) {
            (KernelsChoice::Reference, true) => {
                return Err(Usage("--recompute is for fused kernels; leave out --kernels reference".into()).into());
            }
            (KernelsChoice::Reference, false) => Kernels::Reference,
            (KernelsChoice::Fused, true) => Kernels::Recompute,
            (KernelsChoice::Fused, false) => Kernels::Fused,
        };
        kernels.select();
        if self.recompute && Kernels::on(&hardware.device) == Kernels::Reference {
            return Err(Usage(format!("--recompute needs the backend flex or ndarray, not {backend}")).into());
        }
        Ok((backend, hardware))
    }
}

impl NetworkArgs {
    /// The network with what was asked for changed.
    fn apply(&self, network: NetworkConfig, init: InitConfig) -> Result<NetworkConfig, ModelError> {
        let blocks = *network.blocks();
        let blocks = BlockOptions {
            kind: blocks.kind,
            shortcut: self.shortcut.unwrap_or(blocks.shortcut),
            skip_strength: self.alpha.unwrap_or(blocks.skip_strength),
            branch_scale: self.branch_scale.unwrap_or(blocks.branch_scale),
            norm: self.norm.unwrap_or(blocks.norm),
            last_survival: self.last_survival.unwrap_or(blocks.last_survival),
        };
        let init = InitConfig { zero_init: self.zero_init || init.zero_init, ..init };
        let mut network = network.with_blocks(blocks).with_init(init);
        if let Some(classes) = self.classes {
            network = network.with_classes(classes);
        }
        if let Some(width) = self.width {
            network = network.with_width(width);
        }
        network = match network {
            NetworkConfig::Conv(config) => NetworkConfig::Conv(ConvConfig {
                stem: self.stem.unwrap_or(config.stem),
                output_stride: self.output_stride.or(config.output_stride),
                ..config
            }),
            NetworkConfig::Dense(_) if self.stem.is_some() || self.output_stride.is_some() => {
                return Err(ModelError::ConvOnly);
            }
            dense => dense,
        };
        network.validate()?;
        Ok(network)
    }
}

/// `0.1234` as `12.34 %`.
fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}
