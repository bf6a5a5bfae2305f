use crate::{
    DataError,
    cifar::{CIFAR10, CIFAR100},
    mnist,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The name of a dataset.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = DataError, parse_err_fn = unknown_dataset)]
pub enum DataName {
    /// 1,797 handwritten digits of 8x8 pixels, embedded in the program. The first 1,437 are for training, the other 360
    /// for testing (Alpaydin & Kaynak 1998, CC BY 4.0).
    #[default]
    Digits,
    /// Noisy class prototypes, for tests: see [`Synthetic`](crate::Synthetic).
    Synthetic,
    /// 60,000 colour images of 32x32 pixels in 10 classes, 10,000 of them for testing (Krizhevsky 2009).
    Cifar10,
    /// 60,000 colour images of 32x32 pixels in 100 classes, 10,000 of them for testing (Krizhevsky 2009).
    Cifar100,
    /// 70,000 handwritten digits of 28x28 pixels, 10,000 of them for testing (LeCun et al. 1998).
    Mnist,
    /// 70,000 images of clothing in MNIST's format (Xiao et al. 2017, MIT licence).
    FashionMnist,
    /// The user's image files, with one subfolder per class: see [`Folder`](crate::Folder).
    Folder,
}

fn unknown_dataset(name: &str) -> DataError {
    let expected = <DataName as strum::VariantNames>::VARIANTS.join(", ");
    DataError::UnknownDataset { name: name.into(), expected }
}

impl DataName {
    /// All datasets.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Whether the dataset is read from files. The others are built into the program.
    pub fn has_files(self) -> bool {
        !matches!(self, Self::Digits | Self::Synthetic)
    }

    /// The directory to which the dataset is downloaded by default: `data/NAME` in the
    /// [cache directory](residual_fetch::cache_dir).
    ///
    /// # Errors
    /// If no cache directory can be determined.
    pub fn cache_dir(self) -> Result<PathBuf, DataError> {
        Ok(residual_fetch::cache_dir()?.join("data").join(self.to_string()))
    }

    /// The directory from which the dataset is read by default: [`Self::cache_dir`]. There is one exception: if
    /// Fashion-MNIST is not complete there, but Debian's package `dataset-fashion-mnist` is installed, the package's
    /// directory is used.
    ///
    /// # Errors
    /// If no cache directory can be determined.
    pub fn default_dir(self) -> Result<PathBuf, DataError> {
        let own = self.cache_dir()?;
        let debian = Path::new("/usr/share/datasets/fashion-mnist");
        match self {
            Self::FashionMnist if !self.is_in(&own) && self.is_in(debian) => Ok(debian.into()),
            _ => Ok(own),
        }
    }

    /// Whether `dir` contains all files of the dataset. For [`DataName::Folder`], whether `dir` is a directory. Always
    /// true for built-in datasets.
    pub fn is_in(self, dir: &Path) -> bool {
        match self {
            Self::Digits | Self::Synthetic => true,
            Self::Cifar10 => CIFAR10.is_complete_in(dir),
            Self::Cifar100 => CIFAR100.is_complete_in(dir),
            Self::Mnist | Self::FashionMnist => mnist::is_complete_in(self.into(), dir),
            Self::Folder => dir.is_dir(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_an_unknown_dataset_lists_the_known_ones() {
        let error = "cifar11".parse::<DataName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown dataset `cifar11`; \
             expected one of digits, synthetic, cifar10, cifar100, mnist, fashion-mnist, folder"
        );
    }

    #[test]
    fn names_are_the_same_in_text_and_in_json() {
        for &name in DataName::ALL {
            assert_eq!(serde_json::to_string(&name).unwrap(), format!("\"{name}\""));
            assert_eq!(name.to_string().parse::<DataName>().unwrap(), name);
        }
    }
}
