mod bench;
mod compare;
mod convert;
mod data;
mod devices;
mod eval;
mod inspect;
mod model;
mod models;
mod predict;
mod recipes;
mod report;
mod summary;
mod sweep;
mod train;
mod weights;

pub(crate) use bench::bench;
pub(crate) use compare::compare;
pub(crate) use convert::convert;
pub(crate) use data::data;
pub(crate) use devices::devices;
pub(crate) use eval::eval;
pub(crate) use inspect::inspect;
pub(crate) use models::models;
pub(crate) use predict::predict;
pub(crate) use recipes::recipes;
pub(crate) use report::report;
pub(crate) use summary::summary;
pub(crate) use sweep::sweep;
pub(crate) use train::train;
pub(crate) use weights::weights;

use crate::{
    Usage,
    args::{AugmentationArgs, BackendArgs, DataArgs, ImageNetworkArgs, KernelsChoice, NetworkArgs},
};
use residual_backend::{Backend, BackendError, Hardware};
use residual_data::{Augmentation, DataConfig, DataName};
use residual_model::{BlockOptions, Family, InitConfig, Kernels, ModelError, NetName, NetworkConfig};

/// The backend of this name, else of `BURN_DEVICE`, else flex.
fn choose(name: Option<&str>) -> Result<Backend, BackendError> {
    Backend::choose(name, std::env::var("BURN_DEVICE").ok().as_deref())
}

impl BackendArgs {
    /// Opens the device and selects the kernels.
    fn open(&self) -> anyhow::Result<(Backend, Hardware)> {
        let backend = choose(self.backend.as_deref())?;
        let hardware = backend.probe()?;
        let kernels = match (self.kernels.unwrap_or(KernelsChoice::Fused), self.recompute) {
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

impl DataArgs {
    /// Whether anything was asked for.
    fn any(&self) -> bool {
        let Self { data, data_dir, side, samples, validation, normalize } = self;
        let sizes = [side, samples, validation].iter().any(|size| size.is_some());
        data.is_some() || data_dir.is_some() || sizes || normalize.is_some()
    }

    /// The data with what was asked for changed.
    fn apply(&self, data: DataConfig) -> anyhow::Result<DataConfig> {
        let Self { data: name, data_dir, side, samples, validation, normalize } = self;
        // What else is said of one dataset is not meant for another, but for a recipe's way to normalise.
        let data = match name {
            Some(DataName::Folder) if data.name != DataName::Folder => DataName::Folder.into(),
            Some(name) if *name != data.name => DataConfig { normalize: data.normalize, ..(*name).into() },
            _ => data,
        };
        let folder = data.name == DataName::Folder;
        for (flag, unfit, expected) in [
            ("--data-dir", data_dir.is_some() && !data.name.has_files(), "a dataset in files, such as --data folder"),
            ("--side", side.is_some() && !folder, "--data folder"),
            ("--normalize", normalize.is_some() && folder, "datasets other than folders"),
        ] {
            if unfit {
                return Err(Usage(format!("{flag} is for {expected}, and the dataset is {}", data.name)).into());
            }
        }
        Ok(DataConfig {
            name: data.name,
            dir: data_dir.as_ref().map(std::path::absolute).transpose()?.or(data.dir),
            side: side.or(data.side),
            samples: samples.or(data.samples),
            validation: validation.unwrap_or(data.validation),
            normalize: normalize.unwrap_or(data.normalize),
        })
    }
}

impl AugmentationArgs {
    /// The augmentation with what was asked for changed.
    fn apply(&self, augmentation: Augmentation) -> Augmentation {
        Augmentation {
            crop: self.crop_padding.unwrap_or(augmentation.crop),
            flip: self.flip.unwrap_or(augmentation.flip),
            resized_crop: self.resized_crop.or(augmentation.resized_crop),
            cutout: self.cutout.unwrap_or(augmentation.cutout),
            erase: self.erase.unwrap_or(augmentation.erase),
            mixup: self.mixup.unwrap_or(augmentation.mixup),
            label_smoothing: self.label_smoothing.unwrap_or(augmentation.label_smoothing),
        }
    }
}

impl NetworkArgs {
    /// Whether anything was asked for.
    fn any(&self) -> bool {
        let Self { classes, width, shortcut, norm, alpha, branch_scale, zero_init, stem, output_stride, last_survival } =
            self;
        let sizes = [classes, width, output_stride].iter().any(|size| size.is_some());
        let factors = [alpha, last_survival].iter().any(|factor| factor.is_some());
        let words = shortcut.is_some() || norm.is_some() || branch_scale.is_some() || stem.is_some();
        sizes || factors || words || *zero_init
    }

    /// The network with what was asked for changed.
    fn apply(&self, network: NetworkConfig, init: InitConfig) -> Result<NetworkConfig, ModelError> {
        let blocks = network.blocks;
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
        if (self.stem.is_some() || self.output_stride.is_some()) && network.as_conv().is_none() {
            return Err(ModelError::ConvOnly);
        }
        if let Some(stem) = self.stem {
            network = network.with_stem(stem);
        }
        if let Some(output_stride) = self.output_stride {
            network = network.with_output_stride(output_stride);
        }
        network.validate()?;
        Ok(network)
    }
}

impl ImageNetworkArgs {
    /// The network of this name with what was asked for changed, and the images it is for.
    fn describe(&self, net: NetName) -> Result<(NetworkConfig, [usize; 3]), ModelError> {
        let (image, classes) = usual(net);
        let image = self.image.as_deref().map_or(Ok(image), parse_image)?;
        Ok((self.network.apply(NetworkConfig::new(net, image, classes), InitConfig::default())?, image))
    }
}

/// The images and classes a network was published for: CIFAR-10's or ImageNet's.
fn usual(net: NetName) -> ([usize; 3], usize) {
    match net.family {
        Family::Dense | Family::Conv | Family::Preact | Family::Custom => ([3, 32, 32], 10),
        _ => ([3, 224, 224], 1000),
    }
}

fn parse_image(text: &str) -> Result<[usize; 3], ModelError> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
    sizes.and_then(|sizes| <[usize; 3]>::try_from(sizes).ok()).ok_or_else(|| ModelError::UnknownWord {
        what: "image size",
        word: text.into(),
        expected: "channels, height and width such as 3x32x32",
    })
}

/// `0.1234` as `12.34 %`.
fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}
