use crate::{
    DataError, Dataset, Images, Normalization, Normalize, Preprocessing, Subset, Synthetic, digits, folder::Folder,
    formats::cifar, mnist,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

/// A dataset by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataName {
    /// 1,797 handwritten digits of 8x8 pixels, embedded: 1,437 to train on, 360 to test, in file
    /// order (Alpaydin & Kaynak 1998, CC BY 4.0).
    #[default]
    Digits,
    /// Noisy class prototypes, for tests: see [`Synthetic`].
    Synthetic,
    /// 60,000 colour images of 32x32 pixels in 10 classes, 10,000 of them to test (Krizhevsky 2009).
    Cifar10,
    /// The same in 100 classes.
    Cifar100,
    /// 70,000 handwritten digits of 28x28 pixels, 10,000 of them to test (LeCun et al. 1998).
    Mnist,
    /// 70,000 pieces of clothing in the same format (Xiao et al. 2017, MIT licence).
    FashionMnist,
    /// Image files, a sub-folder for each class: see [`Folder`].
    Folder,
}

impl DataName {
    /// Every dataset there is.
    pub const ALL: &[Self] =
        &[Self::Digits, Self::Synthetic, Self::Cifar10, Self::Cifar100, Self::Mnist, Self::FashionMnist, Self::Folder];

    /// Whether its files are in a folder; the others are in the program.
    pub fn has_files(self) -> bool {
        !matches!(self, Self::Digits | Self::Synthetic)
    }

    /// Loads the dataset from where it is kept, standardised by its training pixels.
    ///
    /// # Errors
    /// If its files are not there or not usable.
    pub fn load(self) -> Result<Dataset, DataError> {
        DataConfig::from(self).load()
    }

    /// The images to train on and those held out, pixels as they are: 0 to 1 in files of images.
    ///
    /// # Errors
    /// If its files are not there or not usable.
    pub fn images(self) -> Result<(Images, Images), DataError> {
        DataConfig::from(self).images()
    }

    /// Where its files are put if nothing else is said: the sub-folder `data` of the
    /// [cache folder](residual_fetch::cache_dir).
    ///
    /// # Errors
    /// If there is no cache folder.
    pub fn cache_dir(self) -> Result<PathBuf, DataError> {
        Ok(residual_fetch::cache_dir()?.join("data").join(self.to_string()))
    }

    /// Where its files are looked for if nothing else is said: where they are put, or for Fashion-MNIST, if it is not
    /// there, where Debian's package `dataset-fashion-mnist` puts it.
    ///
    /// # Errors
    /// If there is no cache folder.
    pub fn default_dir(self) -> Result<PathBuf, DataError> {
        let own = self.cache_dir()?;
        let debian = Path::new("/usr/share/datasets/fashion-mnist");
        match self {
            Self::FashionMnist if !self.is_in(&own) && self.is_in(debian) => Ok(debian.into()),
            _ => Ok(own),
        }
    }

    /// Whether a folder has all of its files; of a [`Folder`], whether it is one.
    pub fn is_in(self, dir: &Path) -> bool {
        match self {
            Self::Digits | Self::Synthetic => true,
            Self::Cifar10 => CIFAR10.are_in(dir),
            Self::Cifar100 => CIFAR100.are_in(dir),
            Self::Mnist | Self::FashionMnist => mnist::are_in(dir),
            Self::Folder => dir.is_dir(),
        }
    }
}

impl fmt::Display for DataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Digits => "digits",
            Self::Synthetic => "synthetic",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Folder => "folder",
        })
    }
}

impl FromStr for DataName {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL.iter().copied().find(|data| data.to_string() == name).ok_or_else(|| {
            let expected = Self::ALL.iter().map(Self::to_string).collect::<Vec<_>>().join(", ");
            DataError::UnknownDataset { name: name.into(), expected }
        })
    }
}

/// A dataset, where it is and what of it is taken.
///
/// In JSON the name alone, where all else is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Repr", into = "Repr")]
pub struct DataConfig {
    /// The dataset.
    pub name: DataName,
    /// The folder of its files; without one, [`DataName::default_dir`].
    pub dir: Option<PathBuf>,
    /// The side of the square that images of a [`Folder`] are cropped to.
    pub side: Option<usize>,
    /// So many of the training samples, at equal distances, and as many test samples at most.
    pub samples: Option<usize>,
    /// The last so many training samples are held out, and take the test samples' place; of a [`Folder`], whose images
    /// lie by class, those at equal distances.
    pub validation: usize,
    /// What normalises the pixels, measured on all training samples. Folders are normalised by ImageNet's mean and
    /// standard deviation.
    pub normalize: Normalize,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a dataset's name, such as \"cifar10\", or an object with its name")]
enum Repr {
    Name(DataName),
    Full(Full),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    name: DataName,
    #[serde(default)]
    dir: Option<PathBuf>,
    #[serde(default)]
    side: Option<usize>,
    #[serde(default)]
    samples: Option<usize>,
    #[serde(default)]
    validation: usize,
    #[serde(default)]
    normalize: Normalize,
}

impl From<Repr> for DataConfig {
    fn from(repr: Repr) -> Self {
        match repr {
            Repr::Name(name) => name.into(),
            Repr::Full(Full { name, dir, side, samples, validation, normalize }) => {
                Self { name, dir, side, samples, validation, normalize }
            }
        }
    }
}

impl From<DataConfig> for Repr {
    fn from(config: DataConfig) -> Self {
        if config == config.name.into() {
            return Self::Name(config.name);
        }
        let DataConfig { name, dir, side, samples, validation, normalize } = config;
        Self::Full(Full { name, dir, side, samples, validation, normalize })
    }
}

impl From<DataName> for DataConfig {
    fn from(name: DataName) -> Self {
        Self { name, ..Self::default() }
    }
}

impl fmt::Display for DataConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// What a training needs to know of a dataset before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// `[channels, height, width]` of every image.
    pub shape: [usize; 3],
    /// The number of classes.
    pub classes: usize,
    /// The number of training samples.
    pub train: usize,
}

/// The side of a folder's images where none is given.
const SIDE: usize = 224;

impl DataConfig {
    /// Loads the dataset, normalised by the statistics of its training pixels.
    ///
    /// # Errors
    /// If its files are not there or not usable, or a setting makes no sense.
    pub fn load(&self) -> Result<Dataset, DataError> {
        if self.name == DataName::Folder {
            return self.take(self.folder(self.imagenet())?);
        }
        let (train, test) = self.images()?;
        self.take(Dataset::normalized(train, test, self.normalize)?)
    }

    /// Loads the dataset, its pixels normalised by these values instead.
    ///
    /// # Errors
    /// As [`Self::load`], or if the dataset has another number of channels.
    pub fn load_normalized(&self, by: Normalization) -> Result<Dataset, DataError> {
        if self.name == DataName::Folder {
            let preprocessing = Preprocessing { mean: by.mean, std: by.std, ..self.imagenet() };
            return self.take(self.folder(preprocessing)?);
        }
        let (train, test) = self.images()?;
        self.take(Dataset::normalized_by(train, test, by)?)
    }

    /// Shape, classes and training samples, without loading what is known.
    ///
    /// # Errors
    /// If the images' folder or the settings cannot be used.
    pub fn describe(&self) -> Result<Description, DataError> {
        let (shape, classes, train) = match self.name {
            DataName::Cifar10 => ([3, 32, 32], CIFAR10.classes, 50_000),
            DataName::Cifar100 => ([3, 32, 32], CIFAR100.classes, 50_000),
            DataName::Mnist | DataName::FashionMnist => ([1, 28, 28], mnist::CLASSES, 60_000),
            DataName::Digits | DataName::Synthetic | DataName::Folder => {
                let dataset = self.load()?;
                return Ok(Description {
                    shape: dataset.shape(),
                    classes: dataset.classes(),
                    train: dataset.train.len(),
                });
            }
        };
        let kept = usize::saturating_sub(train, self.validation);
        Ok(Description { shape, classes, train: self.samples.map_or(kept, |samples| samples.min(kept)) })
    }

    /// All images to train on and all held out, pixels as they are.
    ///
    /// # Errors
    /// If its files are not there or not usable, or it is a [`Folder`], whose images are not held in memory.
    pub fn images(&self) -> Result<(Images, Images), DataError> {
        match self.name {
            DataName::Digits => digits::images(),
            DataName::Synthetic => Synthetic::default().images(),
            DataName::Cifar10 => read_cifar(&self.dir()?, &CIFAR10),
            DataName::Cifar100 => read_cifar(&self.dir()?, &CIFAR100),
            DataName::Mnist | DataName::FashionMnist => mnist::read(self.name, &self.dir()?),
            DataName::Folder => Err(DataError::Setting {
                name: "the dataset",
                expected: "one that is held in memory".into(),
                value: "folder".into(),
            }),
        }
    }

    /// The folder of its files.
    ///
    /// # Errors
    /// If none is given and there is no cache folder.
    pub fn dir(&self) -> Result<PathBuf, DataError> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None if self.name == DataName::Folder => Err(DataError::WhichFolder),
            None => self.name.default_dir(),
        }
    }

    fn imagenet(&self) -> Preprocessing {
        let side = self.side.unwrap_or(SIDE);
        // As ImageNet's 224 of 256.
        Preprocessing::imagenet(side * 8 / 7, side)
    }

    fn folder(&self, preprocessing: Preprocessing) -> Result<Dataset, DataError> {
        let (train, test) = Folder::open(&self.dir()?, preprocessing.clone())?;
        Ok(Dataset { train: Arc::new(train), test: Arc::new(test), preprocessing })
    }

    /// The samples that are wanted.
    fn take(&self, mut dataset: Dataset) -> Result<Dataset, DataError> {
        let len = dataset.train.len();
        if self.validation > 0 {
            let Some(kept) = len.checked_sub(self.validation).filter(|kept| *kept > 0) else {
                let expected = format!("less than the {len} training samples");
                return Err(DataError::Setting {
                    name: "the validation samples",
                    expected,
                    value: self.validation.to_string(),
                });
            };
            let (train, test): (Vec<_>, Vec<_>) = match self.name {
                // An index is held out where the fraction of those before it that are goes over the next whole number.
                DataName::Folder => {
                    (0..len).partition(|i| i * self.validation / len == (i + 1) * self.validation / len)
                }
                _ => (0..len).partition(|i| *i < kept),
            };
            let part = |indices| Arc::new(Subset::new(dataset.train.clone(), indices));
            dataset = Dataset { train: part(train), test: part(test), ..dataset };
        }
        if let Some(samples) = self.samples {
            if samples == 0 {
                return Err(DataError::Setting {
                    name: "the number of samples",
                    expected: "at least 1".into(),
                    value: "0".into(),
                });
            }
            let some = |source| Arc::new(Subset::evenly(source, samples));
            dataset = Dataset { train: some(dataset.train), test: some(dataset.test), ..dataset };
        }
        Ok(dataset)
    }
}

/// A file's content.
pub(crate) fn read_file(name: DataName, path: &Path) -> Result<Vec<u8>, DataError> {
    fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { name, path: path.into() },
        _ => DataError::Io { action: "read", path: path.into(), source: error },
    })
}

/// The files of a CIFAR dataset.
pub(crate) struct Cifar {
    pub(crate) name: DataName,
    pub(crate) folder: &'static str,
    pub(crate) train: &'static [&'static str],
    pub(crate) test: &'static str,
    pub(crate) labels: usize,
    pub(crate) classes: usize,
}

impl Cifar {
    /// The folder of the files: that of the archive, if it is there.
    fn folder_in(&self, dir: &Path) -> PathBuf {
        let inner = dir.join(self.folder);
        if inner.is_dir() { inner } else { dir.into() }
    }

    /// Whether all files are there, and of whole records.
    fn are_in(&self, dir: &Path) -> bool {
        let dir = self.folder_in(dir);
        let whole = |bytes: u64| bytes > 0 && bytes.is_multiple_of((self.labels + cifar::PIXELS) as u64);
        let files = self.train.iter().chain([&self.test]);
        files.map(|file| fs::metadata(dir.join(file))).all(|file| file.is_ok_and(|file| whole(file.len())))
    }
}

pub(crate) const CIFAR10: Cifar = Cifar {
    name: DataName::Cifar10,
    folder: "cifar-10-batches-bin",
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    labels: 1,
    classes: 10,
};

pub(crate) const CIFAR100: Cifar = Cifar {
    name: DataName::Cifar100,
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    labels: 2,
    classes: 100,
};

/// Reads the files in a folder, or in the folder within it that the archive has.
fn read_cifar(dir: &Path, files: &Cifar) -> Result<(Images, Images), DataError> {
    let dir = files.folder_in(dir);
    let read = |names: &[&str]| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for name in names {
            let path = dir.join(name);
            let bytes = read_file(files.name, &path)?;
            let records = cifar::read(&path.display().to_string(), &bytes, files.labels, files.classes)?;
            // All files have as many.
            pixels.reserve_exact(if pixels.is_empty() { names.len() * records.pixels.len() } else { 0 });
            pixels.extend(records.pixels);
            labels.extend(records.labels);
        }
        Images::from_bytes([3, 32, 32], files.classes, pixels, labels)
    };
    Ok((read(files.train)?, read(&[files.test])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    #[test]
    fn an_unknown_dataset_lists_the_known_ones() {
        let error = "cifar11".parse::<DataName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown dataset `cifar11`; expected one of digits, synthetic, cifar10, cifar100, mnist, fashion-mnist, folder"
        );
    }

    #[test]
    fn a_config_is_its_name_in_json_if_all_else_is_as_usual() {
        let json = |config: &DataConfig| serde_json::to_string(config).unwrap();
        let name = DataConfig::from(DataName::FashionMnist);
        assert_eq!(json(&name), "\"fashion-mnist\"");
        let full = DataConfig { samples: Some(9), ..name.clone() };
        for config in [name, full] {
            assert_eq!(serde_json::from_str::<DataConfig>(&json(&config)).unwrap(), config);
        }
    }

    #[test]
    fn validation_samples_come_from_the_end_of_the_training_set() {
        let config = DataConfig { validation: 437, ..DataName::Digits.into() };
        let (all, split) = (DataName::Digits.load().unwrap(), config.load().unwrap());
        assert_eq!((split.train.len(), split.test.len()), (1000, 437));
        let read = |source: &Arc<dyn Source>, i| {
            let mut pixels = vec![0.0; 64];
            (source.read(i, &mut pixels).unwrap(), pixels)
        };
        assert_eq!(read(&split.test, 0), read(&all.train, 1000));
        let error = DataConfig { validation: 1437, ..config.clone() }.load().unwrap_err();
        assert_eq!(error.to_string(), "the validation samples must be less than the 1437 training samples, not 1437");
        let few = DataConfig { samples: Some(100), ..config }.load().unwrap();
        assert_eq!((few.train.len(), few.test.len()), (100, 100));
    }

    #[test]
    fn validation_samples_of_a_folder_are_of_all_classes() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["a", "b"].map(|class| dir.path().join(class)) {
            fs::create_dir(&class).unwrap();
            (0..10).for_each(|i| image::GrayImage::new(4, 4).save(class.join(format!("{i}.png"))).unwrap());
        }
        let folder = DataConfig { dir: Some(dir.path().into()), side: Some(4), ..DataName::Folder.into() };
        let split = DataConfig { validation: 4, ..folder }.load().unwrap();
        let labels = |source: &Arc<dyn Source>| -> Vec<usize> {
            (0..source.len()).map(|i| source.read(i, &mut [0.0; 48]).unwrap()).collect()
        };
        assert_eq!(labels(&split.test), [0, 0, 1, 1]);
        assert_eq!(labels(&split.train), [[0; 6], [1; 6]].concat());
    }

    /// Small files in the official layouts.
    #[test]
    fn cifar_files_are_found_in_their_folder_or_in_the_archives() {
        let dir = tempfile::tempdir().unwrap();
        let record = |labels: &[u8], first: u8| [labels, &[first], &[0; cifar::PIXELS - 1]].concat();
        let inner = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        for (i, name) in CIFAR10.train.iter().chain([&CIFAR10.test]).enumerate() {
            fs::write(inner.join(name), record(&[i as u8], 10 * i as u8)).unwrap();
        }
        for dir in [dir.path(), &inner] {
            let config = DataConfig { dir: Some(dir.into()), ..DataName::Cifar10.into() };
            let (train, test) = config.images().unwrap();
            assert_eq!((train.labels(), test.labels()), (&[0, 1, 2, 3, 4][..], &[5][..]));
            assert_eq!(train.bytes(3).unwrap()[0], 30);
        }
        fs::remove_file(inner.join("data_batch_4.bin")).unwrap();
        let config = DataConfig { dir: Some(dir.path().into()), ..DataName::Cifar10.into() };
        let error = config.load().unwrap_err().to_string();
        assert!(
            error.starts_with("cifar10 is not there: ") && error.contains("data_batch_4.bin is missing"),
            "{error}"
        );
        fs::write(dir.path().join("train.bin"), record(&[1, 99], 1)).unwrap();
        fs::write(dir.path().join("test.bin"), record(&[1, 42], 1)).unwrap();
        let config = DataConfig { dir: Some(dir.path().into()), ..DataName::Cifar100.into() };
        assert_eq!(config.images().unwrap().1.labels(), [42]);
    }
}
