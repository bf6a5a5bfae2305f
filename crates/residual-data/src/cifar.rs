use crate::{DataError, Images, files::read_file, formats::cifar};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files of a CIFAR dataset.
pub(crate) struct Cifar {
    /// The directory inside the published archive.
    pub(crate) folder: &'static str,
    pub(crate) train: &'static [&'static str],
    test: &'static str,
    /// Label bytes per record.
    labels: usize,
    pub(crate) classes: usize,
}

pub(crate) const CIFAR10: Cifar = Cifar {
    folder: "cifar-10-batches-bin",
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    labels: 1,
    classes: 10,
};

pub(crate) const CIFAR100: Cifar =
    Cifar { folder: "cifar-100-binary", train: &["train.bin"], test: "test.bin", labels: 2, classes: 100 };

impl Cifar {
    /// Reads the training and test images from `dir`, or from the archive's directory inside `dir`.
    pub(crate) fn read(&self, dataset: &'static str, dir: &Path) -> Result<(Images, Images), DataError> {
        let dir = self.folder_in(dir);
        let read = |names: &[&str]| {
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            for name in names {
                let path = dir.join(name);
                let bytes = read_file(dataset, &path)?;
                let records = cifar::read(&path.display().to_string(), &bytes, self.labels, self.classes)?;
                // All files of a split have the same size.
                pixels.reserve_exact(if pixels.is_empty() { names.len() * records.pixels.len() } else { 0 });
                pixels.extend(records.pixels);
                labels.extend(records.labels);
            }
            Images::from_bytes([3, 32, 32], self.classes, pixels, labels)
        };
        Ok((read(self.train)?, read(&[self.test])?))
    }

    /// Whether all files exist and contain a whole number of records.
    pub(crate) fn is_complete_in(&self, dir: &Path) -> bool {
        let dir = self.folder_in(dir);
        let whole = |bytes: u64| bytes > 0 && bytes.is_multiple_of((self.labels + cifar::PIXELS) as u64);
        let files = self.train.iter().chain([&self.test]);
        files.map(|file| fs::metadata(dir.join(file))).all(|file| file.is_ok_and(|file| whole(file.len())))
    }

    /// The archive's directory inside `dir` if it exists, otherwise `dir`.
    fn folder_in(&self, dir: &Path) -> PathBuf {
        let inner = dir.join(self.folder);
        if inner.is_dir() { inner } else { dir.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses small files in the published layout.
    #[test]
    fn files_are_found_in_the_directory_or_in_the_archives_subdirectory() {
        let dir = tempfile::tempdir().unwrap();
        let record = |labels: &[u8], first: u8| [labels, &[first], &[0; cifar::PIXELS - 1]].concat();
        let inner = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        for (i, name) in CIFAR10.train.iter().chain([&CIFAR10.test]).enumerate() {
            fs::write(inner.join(name), record(&[i as u8], 10 * i as u8)).unwrap();
        }
        for dir in [dir.path(), &inner] {
            assert!(CIFAR10.is_complete_in(dir));
            let (train, test) = CIFAR10.read("cifar10", dir).unwrap();
            assert_eq!((train.labels(), test.labels()), (&[0, 1, 2, 3, 4][..], &[5][..]));
            assert_eq!(train.bytes(3).unwrap()[0], 30);
        }
        fs::remove_file(inner.join("data_batch_4.bin")).unwrap();
        let error = CIFAR10.read("cifar10", dir.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("dataset cifar10 not found: ") && error.contains("data_batch_4.bin is missing"),
            "{error}"
        );
        assert!(!CIFAR10.is_complete_in(dir.path()));
        fs::write(dir.path().join("train.bin"), record(&[1, 99], 1)).unwrap();
        fs::write(dir.path().join("test.bin"), record(&[1, 42], 1)).unwrap();
        assert_eq!(CIFAR100.read("cifar100", dir.path()).unwrap().1.labels(), [42]);
    }
}
