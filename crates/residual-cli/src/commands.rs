mod devices;
mod summary;
mod sweep;
mod train;

pub(crate) use devices::devices;
pub(crate) use summary::summary;
pub(crate) use sweep::sweep;
pub(crate) use train::train;

use crate::args::{BackendArgs, NetworkArgs};
use residual_backend::{Backend, BackendError, Hardware};
use residual_model::{BlockOptions, InitConfig, NetworkConfig};

impl BackendArgs {
    /// The flag, else `BURN_DEVICE`, else flex.
    fn choose(&self) -> Result<Backend, BackendError> {
        Backend::choose(self.backend.as_deref(), std::env::var("BURN_DEVICE").ok().as_deref())
    }

    fn open(&self) -> Result<(Backend, Hardware), BackendError> {
        let backend = self.choose()?;
        Ok((backend, backend.probe()?))
    }
}

impl NetworkArgs {
    /// The network with what was asked for changed.
    fn apply(&self, network: NetworkConfig, init: InitConfig) -> NetworkConfig {
        let blocks = *network.blocks();
        let blocks = BlockOptions {
            kind: blocks.kind,
            shortcut: self.shortcut.unwrap_or(blocks.shortcut),
            skip_strength: self.alpha.unwrap_or(blocks.skip_strength),
            branch_scale: self.branch_scale.unwrap_or(blocks.branch_scale),
            norm: self.norm.unwrap_or(blocks.norm),
        };
        let init = InitConfig { zero_init: self.zero_init || init.zero_init, ..init };
        let network = network.with_blocks(blocks).with_init(init);
        let network = match self.classes {
            Some(classes) => network.with_classes(classes),
            None => network,
        };
        match self.width {
            Some(width) => network.with_width(width),
            None => network,
        }
    }
}

/// `0.1234` as `12.34 %`.
fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}
