//! Torchvision's pretrained ImageNet weights, by name.
//!
//! The weights come from torchvision (BSD-3-Clause) and were trained on ImageNet-1k. The files are downloaded from
//! PyTorch's server and are not part of this project.

use crate::{Card, Checkpoint, LoadOptions, WeightsError, load};
use burn::tensor::Device;
use residual_data::Preprocessing;
use residual_fetch::{Checksum, Outcome, Progress, Source, cache_dir, fetch, mirror};
use residual_model::{NetName, Network, NetworkConfig};
use std::{ops::RangeInclusive, path::PathBuf};

/// Pretrained weights that can be downloaded by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The name of the network, followed by `.v2` for weights from torchvision's second training recipe.
    pub name: &'static str,
    /// The file name, which ends in the first eight hexadecimal digits of the file's SHA-256 checksum.
    pub file: &'static str,
    /// All digits of the checksum, where they are publicly documented.
    pub sha256: Option<&'static str>,
    /// The file size in units of 2^20 bytes, rounded to 0.001, as stated by torchvision.
    pub megabytes: f32,
    /// The top-1 accuracy on the ImageNet validation set in per cent, as stated by torchvision.
    pub accuracy: f32,
    /// The length in pixels to which the shorter side of an image is resized, before the 224x224 centre crop.
    pub resize: usize,
}

const fn published(name: &'static str, file: &'static str, megabytes: f32, accuracy: f32, resize: usize) -> Published {
    Published { name, file, sha256: None, megabytes, accuracy, resize }
}

const fn pinned(weights: Published, sha256: &'static str) -> Published {
    Published { sha256: Some(sha256), ..weights }
}

/// All published weights. File names, sizes and accuracies are from torchvision 0.29.
pub const PUBLISHED: &[Published] = &[
    pinned(
        published("resnet18", "resnet18-f37072fd.pth", 44.661, 69.758, 256),
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    pinned(
        published("resnet34", "resnet34-b627a593.pth", 83.275, 73.314, 256),
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    ),
    pinned(
        published("resnet50", "resnet50-0676ba61.pth", 97.781, 76.13, 256),
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    pinned(
        published("resnet50.v2", "resnet50-11ad3fa6.pth", 97.79, 80.858, 232),
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    ),
    pinned(
        published("resnet101", "resnet101-63fe2227.pth", 170.511, 77.374, 256),
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    ),
    published("resnet101.v2", "resnet101-cd907fc2.pth", 170.53, 81.886, 232),
    pinned(
        published("resnet152", "resnet152-394f9c45.pth", 230.434, 78.312, 256),
        "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    ),
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
    /// Finds weights by name.
    ///
    /// # Errors
    /// If no weights have this name. The error lists all names.
    pub fn find(name: &str) -> Result<Self, WeightsError> {
        PUBLISHED.iter().copied().find(|weights| weights.name == name).ok_or_else(|| WeightsError::Unpublished {
            name: name.into(),
            expected: PUBLISHED.iter().map(|weights| weights.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The URL of the file and its checksum. If the environment variable `RESIDUAL_MIRROR` is set, its value replaces
    /// the URL of PyTorch's server. The mirror must have the files under the same names.
    ///
    /// # Errors
    /// If `RESIDUAL_MIRROR` is not an HTTP or HTTPS URL.
    pub fn source(&self) -> Result<Source, WeightsError> {
        let server = mirror()?.unwrap_or_else(|| SERVER.into());
        let sha256 =
            self.sha256.map_or_else(|| Checksum::Prefix(self.digits().into()), |all| Checksum::Full(all.into()));
        Ok(Source { url: format!("{server}{}", self.file), sha256, bytes: self.bytes() })
    }

    /// The first digits of the checksum, from the file's name.
    fn digits(&self) -> &'static str {
        let digits = self.file.rsplit_once('-').and_then(|(_, end)| end.strip_suffix(".pth"));
        digits.unwrap_or_default()
    }

    /// The sizes in bytes that round to the stated one.
    fn bytes(&self) -> RangeInclusive<u64> {
        let bytes = |megabytes: f64| (megabytes * f64::from(1 << 20)) as u64;
        let stated = f64::from(self.megabytes);
        bytes(stated - 0.001)..=bytes(stated + 0.001)
    }

    /// The path of the file in the cache directory.
    ///
    /// # Errors
    /// If no cache directory can be determined.
    pub fn path(&self) -> Result<PathBuf, WeightsError> {
        Ok(cache_dir()?.join("weights").join(self.file))
    }

    /// Downloads the file unless it is in the cache, and verifies its checksum.
    ///
    /// # Errors
    /// The same as for [`residual_fetch::fetch`].
    pub fn fetch(&self, progress: &mut dyn FnMut(Progress)) -> Result<(PathBuf, Outcome), WeightsError> {
        let path = self.path()?;
        let outcome = fetch(&self.source()?, &path, progress)?;
        Ok((path, outcome))
    }

    /// Returns the network with these weights, for inference. Downloads the file unless it is in the cache.
    ///
    /// # Errors
    /// The same as for [`Self::fetch`], and if the file cannot be read or does not fit the network.
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

    /// The network's configuration, and the preprocessing its weights expect.
    pub fn card(&self) -> Card {
        let name: NetName = self.net().parse().expect("published weights belong to a known network");
        Card {
            network: NetworkConfig::new(name, [3, 224, 224], 1000),
            preprocessing: Some(Preprocessing::imagenet(self.resize, 224)),
            labels: None,
        }
    }
}

/// Returns the network of this name with torchvision's weights, for inference. Downloads the weights unless they are in
/// the cache.
///
/// ```no_run
/// use burn::tensor::Device;
///
/// let network = residual_weights::pretrained("resnet50", &Device::flex())?;
/// # Ok::<(), residual_weights::WeightsError>(())
/// ```
///
/// [`Published::card`] holds the preprocessing that turns an image into the network's input.
///
/// # Errors
/// If no weights have this name, the download fails, or the file cannot be read or does not fit the network.
pub fn pretrained(name: &str, device: &Device) -> Result<Network, WeightsError> {
    Published::find(name)?.load(device, &mut |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_valid_network_and_checksum() {
        for weights in PUBLISHED {
            assert!(weights.card().network.validate().is_ok());
            let digits = weights.digits();
            assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{}", weights.file);
            match weights.source().unwrap().sha256 {
                Checksum::Full(all) => assert!(all.starts_with(digits) && all.len() == 64, "{}", weights.file),
                Checksum::Prefix(first) => assert_eq!(first, digits),
            }
            assert!(weights.file.starts_with(&weights.card().network.name().to_string()));
        }
    }

    /// The sizes that PyTorch's server states.
    #[test]
    fn the_expected_sizes_are_those_of_the_files() {
        for (name, bytes) in [
            ("resnet18", 46_830_571),
            ("resnet34", 87_319_819),
            ("resnet50", 102_530_333),
            ("resnet50.v2", 102_540_417),
        ] {
            let range = Published::find(name).unwrap().bytes();
            assert!(range.contains(&bytes) && range.end() - range.start() < 5000, "{range:?}");
        }
    }

    #[test]
    fn the_error_for_an_unknown_name_lists_the_known_ones() {
        let error = pretrained("resnet51", &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("resnet51") && error.contains("resnet18, resnet34, resnet50,"), "{error}");
    }

    /// The parameter counts are from torchvision's documentation.
    #[test]
    fn networks_have_the_published_parameter_counts() {
        let parameters = |name: &str| Published::find(name).unwrap().card().network.summary().parameters();
        assert_eq!(parameters("resnext101_32x8d"), 88_791_336);
        assert_eq!(parameters("resnext101_64x4d"), 83_455_272);
        assert_eq!(parameters("wide_resnet101_2"), 126_886_696);
    }
}
