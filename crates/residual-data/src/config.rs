use crate::{
    DEFAULT_MAX_PIXELS, DataError, DataName, Dataset, Folder, Images, Normalization, Normalize, Preprocessing, Source,
    Subset, Synthetic,
    cifar::{CIFAR10, CIFAR100},
    digits,
    folder::{FolderOptions, Opened},
    mnist,
    split::GroupBy,
    tree::is_archive,
    words::count,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

impl DataName {
    /// Loads the dataset from its default directory, normalised with the mean and standard deviation of its training
    /// pixels.
    ///
    /// # Errors
    /// The same as for [`DataConfig::load`].
    pub fn load(self) -> Result<Dataset, DataError> {
        DataConfig::from(self).load()
    }

    /// The training images and the test images, without normalisation. Pixel values are between 0 and 1, except in
    /// [`Synthetic`] images.
    ///
    /// # Errors
    /// The same as for [`DataConfig::images`].
    pub fn images(self) -> Result<(Images, Images), DataError> {
        DataConfig::from(self).images()
    }
}

/// A dataset, the directory that contains its files, and the selection and normalisation of its samples.
///
/// It serialises to the name alone if all other fields have their default values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct DataConfig {
    /// The dataset.
    pub name: DataName,
    /// The directory that contains its files. `None` stands for [`DataName::default_dir`].
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// The side of the square to which the images of a [`Folder`] are cropped, in pixels. `None` stands for 224.
    #[serde(default)]
    pub side: Option<usize>,
    /// The maximum number of training samples and of test samples to use. The samples used are evenly spaced.
    #[serde(default)]
    pub samples: Option<usize>,
    /// The number of training samples to hold out for validation. They replace the test samples. The last training
    /// samples are held out, except in a [`Folder`]: about the same share of the training images of every class is held
    /// out, those with the smallest hashes.
    #[serde(default)]
    pub validation: usize,
    /// The statistics with which the pixels are normalised. They are computed on all training samples. A [`Folder`] is
    /// always normalised with ImageNet's mean and standard deviation.
    #[serde(default)]
    pub normalize: Normalize,
    /// Whether to ignore the EXIF orientation of the images of a [`Folder`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignore_exif: bool,
    /// The maximum number of broken images of a [`Folder`] to leave out. Unless it is 0, every image is decoded once
    /// when the dataset is loaded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip_broken: usize,
    /// The maximum number of pixels of an image of a [`Folder`]. `None` stands for [`DEFAULT_MAX_PIXELS`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_pixels: Option<u64>,
    /// A regular expression that groups the images of a [`Folder`] by their path within the class folder, such as
    /// `(scene\d+)/`. Images with the same first capture group, or the same match if there is none, are held out
    /// together. An image that does not match is a group of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub group_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the name of a dataset, such as \"cifar10\", or an object with a name")]
enum Repr {
    Name(DataName),
    Full(#[serde(with = "DataConfig")] DataConfig),
}

impl<'de> Deserialize<'de> for DataConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Repr::deserialize(deserializer)? {
            Repr::Name(name) => name.into(),
            Repr::Full(config) => config,
        })
    }
}

impl Serialize for DataConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == self.name.into() { self.name.serialize(serializer) } else { Self::serialize(self, serializer) }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

/// The properties of a dataset on which a network and a training schedule depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// `[channels, height, width]` of every image.
    pub shape: [usize; 3],
    /// The number of classes.
    pub classes: usize,
    /// The number of training samples.
    pub train: usize,
}

/// An archive that was given instead of the dataset's directory, or that is in this directory.
fn archive_in(dir: &Path) -> Option<PathBuf> {
    if dir.is_file() {
        return is_archive(dir).then(|| dir.into());
    }
    let is_of_many = |path: &PathBuf| {
        let name = path.to_string_lossy().to_lowercase();
        is_archive(path) && [".tar", ".tgz", ".zip", ".7z"].iter().any(|ending| name.contains(ending))
    };
    fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).filter(is_of_many).min()
}

/// The default side of the images in a [`Folder`], in pixels.
const DEFAULT_SIDE: usize = 224;

impl DataConfig {
    /// Loads the dataset, normalised with the statistics of its training pixels.
    ///
    /// # Errors
    /// If the dataset's files are missing or invalid, or a setting is out of range.
    pub fn load(&self) -> Result<Dataset, DataError> {
        if self.name == DataName::Folder {
            return self.select(self.open_folder(self.folder_preprocessing(), Folder::open_with)?);
        }
        let (train, test) = self.images()?;
        self.select(Dataset::normalized(train, test, self.normalize)?)
    }

    /// Loads the dataset with the given preprocessing. Images in memory are normalised with its means and standard
    /// deviations; the images of a [`Folder`] are also resized and cropped as it says. Unlike in [`Self::load`],
    /// classes of a folder may lack training images, and its held-out split may be empty.
    ///
    /// # Errors
    /// The same as for [`Self::load`] and [`Normalization::check`].
    pub fn load_as(&self, preprocessing: Preprocessing) -> Result<Dataset, DataError> {
        if self.name == DataName::Folder {
            return self.select(self.open_folder(preprocessing, Folder::list)?);
        }
        let (train, test) = self.images()?;
        let Preprocessing { mean, std, .. } = preprocessing;
        self.select(Dataset::normalized_by(train, test, Normalization { mean, std })?)
    }

    /// The shape, the number of classes and the number of training samples. Loads the dataset only if these are not
    /// known in advance.
    ///
    /// # Errors
    /// The same as for [`Self::load`], if the dataset must be loaded.
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

    /// All training images and all test images, without normalisation.
    ///
    /// # Errors
    /// If the dataset's files are missing or invalid, or it is a [`Folder`], whose images are not held in memory.
    pub fn images(&self) -> Result<(Images, Images), DataError> {
        let dataset = self.name.into();
        let images = match self.name {
            DataName::Digits => digits::images(),
            DataName::Synthetic => Synthetic::default().images(),
            DataName::Cifar10 => CIFAR10.read(dataset, &self.dir()?),
            DataName::Cifar100 => CIFAR100.read(dataset, &self.dir()?),
            DataName::Mnist | DataName::FashionMnist => mnist::read(dataset, &self.dir()?),
            DataName::Folder => Err(DataError::Setting {
                name: "the dataset",
                expected: "one whose images are held in memory".into(),
                value: "folder".into(),
            }),
        };
        images.map_err(|error| match self.dir().ok().and_then(|dir| archive_in(&dir)) {
            Some(path) if matches!(error, DataError::Missing { .. } | DataError::Io { .. }) => {
                DataError::Packed { dataset, path }
            }
            _ => error,
        })
    }

    /// The directory that contains the dataset's files: the field `dir` if it is set, otherwise
    /// [`DataName::default_dir`].
    ///
    /// # Errors
    /// If the dataset is a [`Folder`] and `dir` is not set, or if no cache directory can be determined.
    pub fn dir(&self) -> Result<PathBuf, DataError> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None if self.name == DataName::Folder => Err(DataError::FolderRequired),
            None => self.name.default_dir(),
        }
    }

    fn folder_preprocessing(&self) -> Preprocessing {
        let side = self.side.unwrap_or(DEFAULT_SIDE);
        // ImageNet's images are usually resized to 256 and cropped to 224 pixels, a ratio of 8 to 7.
        Preprocessing { ignore_exif: self.ignore_exif, ..Preprocessing::imagenet(side.saturating_mul(8) / 7, side) }
    }

    fn open_folder(
        &self,
        preprocessing: Preprocessing,
        open: impl FnOnce(&Path, &FolderOptions) -> Result<Opened, DataError>,
    ) -> Result<Dataset, DataError> {
        let dir = self.dir()?;
        let group_by = GroupBy::new(self.group_by.as_deref())?;
        let max_pixels = self.max_pixels.unwrap_or(DEFAULT_MAX_PIXELS);
        let options = FolderOptions { preprocessing, group_by, skip_broken: self.skip_broken, max_pixels };
        let mut opened = open(&dir, &options)?;
        if self.validation > 0 {
            self.trained(opened.train.len())?;
            (opened.train, opened.test) = opened.train.hold_out(self.validation, &options.group_by);
            if opened.train.is_empty() {
                let reason =
                    format!("has no images left to train on; its groups are larger than {} images", self.validation);
                return Err(DataError::Folder { path: dir, reason });
            }
        }
        let notes = opened.notes(&dir);
        let Opened { train, test, held_out, .. } = opened;
        let preprocessing = options.preprocessing;
        Ok(Dataset { train: Arc::new(train), test: Arc::new(test), preprocessing, notes, held_out })
    }

    /// The number of samples, out of `len`, that are trained on when the validation samples are held out.
    fn trained(&self, len: usize) -> Result<usize, DataError> {
        len.checked_sub(self.validation).filter(|kept| *kept > 0).ok_or_else(|| DataError::Setting {
            name: "the number of validation samples",
            expected: format!("less than {len} (the number of training samples)"),
            value: self.validation.to_string(),
        })
    }

    /// Holds out the validation samples, unless [`Self::open_folder`] has done so, and selects the requested number of
    /// samples.
    fn select(&self, mut dataset: Dataset) -> Result<Dataset, DataError> {
        if self.validation > 0 && self.name != DataName::Folder {
            let len = dataset.train.len();
            let kept = self.trained(len)?;
            let subset = |indices| Arc::new(Subset::new(dataset.train.clone(), indices));
            dataset = Dataset { train: subset((0..kept).collect()), test: subset((kept..len).collect()), ..dataset };
        }
        if let Some(samples) = self.samples {
            if samples == 0 {
                return Err(DataError::Setting {
                    name: "the number of samples",
                    expected: "at least 1".into(),
                    value: "0".into(),
                });
            }
            for (source, split) in [(&dataset.train, "training"), (&dataset.test, "test")] {
                if source.len() < samples {
                    let has = count(source.len(), &format!("{split} sample"));
                    dataset.notes.push(format!("{}: has only {has}, not {samples}", self.name));
                }
            }
            let subset = |source| Arc::new(Subset::evenly(source, samples));
            dataset = Dataset { train: subset(dataset.train), test: subset(dataset.test), ..dataset };
        }
        Ok(dataset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_config_serialises_to_its_name() {
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
        assert_eq!(
            error.to_string(),
            "the number of validation samples must be less than 1437 (the number of training samples), not 1437"
        );
        let few = DataConfig { samples: Some(100), ..config }.load().unwrap();
        assert_eq!((few.train.len(), few.test.len()), (100, 100));
    }

    #[test]
    fn validation_samples_of_a_folder_cover_all_classes() {
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
        let train = labels(&split.train);
        assert!(train.is_sorted() && train.contains(&0) && train.contains(&1) && train.len() + 4 < 20, "{train:?}");
    }

    #[test]
    fn an_archive_is_named_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("cifar-10-python.tar.gz");
        fs::write(&archive, "").unwrap();
        for given in [dir.path(), &archive] {
            let config = DataConfig { dir: Some(given.into()), ..DataName::Cifar10.into() };
            let error = config.load().unwrap_err().to_string();
            let expected = format!("dataset cifar10 not found: {} is an archive; unpack it, ", archive.display());
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn more_samples_than_there_are_is_told() {
        let config = DataConfig { samples: Some(400), ..DataName::Digits.into() };
        assert_eq!(config.load().unwrap().notes, ["digits: has only 360 test samples, not 400"]);
        assert!(DataConfig { samples: Some(360), ..config }.load().unwrap().notes.is_empty());
    }

    #[test]
    fn every_setting_of_a_folder_is_stored() {
        let config = DataConfig {
            dir: Some("photos".into()),
            skip_broken: 3,
            max_pixels: Some(1 << 20),
            group_by: Some("scene".into()),
            ..DataName::Folder.into()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<DataConfig>(&json).unwrap(), config);
    }
}
