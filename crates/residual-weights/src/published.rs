//! Torchvision's ImageNet weights, by name.
//!
//! The files are torchvision's (BSD-3-Clause), trained on ImageNet-1k; they are downloaded from its
//! servers and not part of this project.

use crate::{Card, Checkpoint, LoadOptions, WeightsError, load};
use burn::tensor::Device;
use residual_data::Preprocessing;
use residual_fetch::{Checksum, Outcome, Progress, Source, cache_dir, fetch, mirror};
use residual_model::{NetName, Network, NetworkConfig};
use std::path::PathBuf;

/// Weights that can be fetched by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The name: that of the network, with `.v2` for torchvision's second recipe.
    pub name: &'static str,
    /// The file, whose name ends in the first digits of its SHA-256 checksum.
    pub file: &'static str,
    /// The size in MB, as torchvision states it.
    pub megabytes: f32,
    /// The top-1 accuracy on ImageNet's validation set in per cent, as torchvision states it.
    pub accuracy: f32,
    /// The shorter side that an image is resized to, before the crop of 224.
    pub resize: usize,
}

const fn published(name: &'static str, file: &'static str, megabytes: f32, accuracy: f32, resize: usize) -> Published {
    Published { name, file, megabytes, accuracy, resize }
}

/// All of them. File names and figures are those of torchvision 0.29.
pub const PUBLISHED: &[Published] = &[
    published("resnet18", "resnet18-f37072fd.pth", 44.661, 69.758, 256),
    published("resnet34", "resnet34-b627a593.pth", 83.275, 73.314, 256),
    published("resnet50", "resnet50-0676ba61.pth", 97.781, 76.13, 256),
    published("resnet50.v2", "resnet50-11ad3fa6.pth", 97.79, 80.858, 232),
    published("resnet101", "resnet101-63fe2227.pth", 170.511, 77.374, 256),
    published("resnet101.v2", "resnet101-cd907fc2.pth", 170.53, 81.886, 232),
    published("resnet152", "resnet152-394f9c45.pth", 230.434, 78.312, 256),
    published("resnet152.v2", "resnet152-f82ba261.pth", 230.474, 82.284, 232),
    published("resnext50_32x4d", "resnext50_32x4d-7cdf4587.pth", 95.789, 77.618, 256),
    published("resnext50_32x4d.v2", "resnext50_32x4d-1a0047aa.pth", 95.833, 81.198, 232),
    published("resnext101_32x8d", "resnext101_32x8d-8ba56ff5.pth", 339.586, 79.312, 256),
    published("resnext101_32x8d.v2", "resnext101_32x8d-110c445d.pth", 339.673, 82.834, 232),
    published("resnext101_64x4d", "resnext101_64x4d-173b62eb.pth", 319.318, 83.246, 232),
    published("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", 131.82, 78.468, 256),
    published("wide_resnet50_2.v2", "wide_resnet50_2-9ba9bcbe.pth", 263.124, 81.602, 232),
    published("wide_resnet101_2", "wide_resnet101_2-32ee1156.pth", 242.896, 78.848, 256),
    published("wide_resnet101_2.v2", "wide_resnet101_2-d733dc28.pth", 484.747, 82.51, 232),
];

const SERVER: &str = "https://download.pytorch.org/models/";

impl Published {
    /// The weights of this name.
    ///
    /// # Errors
    /// If there are none; the error lists those there are.
    pub fn find(name: &str) -> Result<Self, WeightsError> {
        PUBLISHED.iter().copied().find(|weights| weights.name == name).ok_or_else(|| WeightsError::Unpublished {
            name: name.into(),
            expected: PUBLISHED.iter().map(|weights| weights.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Where the file is: on PyTorch's server, or on the mirror that `RESIDUAL_MIRROR` names, a URL
    /// under which the same file names are found.
    ///
    /// # Errors
    /// If that is no URL.
    pub fn source(&self) -> Result<Source, WeightsError> {
        let server = mirror()?.unwrap_or_else(|| SERVER.into());
        let digits = self.file.rsplit_once('-').and_then(|(_, end)| end.strip_suffix(".pth"));
        let sha256 = Checksum::Prefix(digits.unwrap_or_default().into());
        Ok(Source { url: format!("{server}{}", self.file), sha256 })
    }

    /// Where the file is kept.
    ///
    /// # Errors
    /// If there is no cache folder.
    pub fn path(&self) -> Result<PathBuf, WeightsError> {
        Ok(cache_dir()?.join("weights").join(self.file))
    }

    /// Downloads the file unless it is there, and verifies it.
    ///
    /// # Errors
    /// As [`residual_fetch::fetch`]'s.
    pub fn fetch(&self, progress: &mut dyn FnMut(Progress)) -> Result<(PathBuf, Outcome), WeightsError> {
        let path = self.path()?;
        let outcome = fetch(&self.source()?, &path, progress)?;
        Ok((path, outcome))
    }

    /// The network with these weights, for inference; downloads the file unless it is there.
    ///
    /// # Errors
    /// As [`Self::fetch`]'s, or if the file is not usable.
    pub fn load(&self, device: &Device, progress: &mut dyn FnMut(Progress)) -> Result<Network, WeightsError> {
        let (path, _) = self.fetch(progress)?;
        let mut network = self.card().network.init(device);
        load(&mut network, &Checkpoint::read(&path)?, &LoadOptions::default())?;
        Ok(network)
    }

    /// The name of the network.
    pub fn net(&self) -> &'static str {
        self.name.strip_suffix(".v2").unwrap_or(self.name)
    }

    /// The network, and the preprocessing it was trained with.
    pub fn card(&self) -> Card {
        let name: NetName = self.net().parse().expect("published weights are those of a known network");
        Card {
            network: NetworkConfig::new(name, [3, 224, 224], 1000),
            preprocessing: Some(Preprocessing::imagenet(self.resize, 224)),
            labels: None,
        }
    }
}

/// The network of this name with torchvision's weights, for inference; downloads them unless they are in the cache.
///
/// ```no_run
/// use burn::tensor::Device;
///
/// let network = residual_weights::pretrained("resnet50", &Device::flex())?;
/// # Ok::<(), residual_weights::WeightsError>(())
/// ```
///
/// [`Published::card`] says how an image is made into the network's input.
///
/// # Errors
/// If no weights have this name, they cannot be downloaded, or the file is not usable.
pub fn pretrained(name: &str, device: &Device) -> Result<Network, WeightsError> {
    Published::find(name)?.load(device, &mut |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_networks_and_every_file_has_its_checksum() {
        for weights in PUBLISHED {
            assert!(weights.card().network.validate().is_ok());
            let Checksum::Prefix(digits) = weights.source().unwrap().sha256 else { panic!("a prefix") };
            assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{}", weights.file);
            assert!(weights.file.starts_with(&weights.card().network.name().to_string()));
        }
    }

    #[test]
    fn a_name_without_weights_lists_those_that_have_some() {
        let error = pretrained("resnet51", &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("resnet51") && error.contains("resnet18, resnet34, resnet50,"), "{error}");
    }

    /// Parameters as torchvision states them.
    #[test]
    fn the_networks_have_the_published_parameters() {
        let parameters = |name: &str| Published::find(name).unwrap().card().network.summary().parameters();
        assert_eq!(parameters("resnext101_32x8d"), 88_791_336);
        assert_eq!(parameters("resnext101_64x4d"), 83_455_272);
        assert_eq!(parameters("wide_resnet101_2"), 126_886_696);
    }
}
