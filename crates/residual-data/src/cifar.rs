use crate::{
    DataError, Images,
    files::read_file,
    formats::cifar::{self, Records, python::Dictionary},
};
use residual_fetch::read_regular;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A CIFAR dataset, which is published in two formats.
pub(crate) struct Cifar {
    pub(crate) classes: usize,
    /// The binary version.
    pub(crate) binary: Files,
    /// The version for Python, which consists of pickled dictionaries.
    python: Files,
    /// Label bytes per record of the binary version.
    label_bytes: usize,
    /// The name of the list of labels in the version for Python.
    labels: &'static str,
    /// The name of the list of class names in the version for Python.
    label_names: &'static str,
}

/// The files of a version.
pub(crate) struct Files {
    /// The directory inside the published archive.
    pub(crate) folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// The file with the names of the classes.
    names: &'static str,
}

pub(crate) const CIFAR10: Cifar = Cifar {
    classes: 10,
    binary: Files {
        folder: "cifar-10-batches-bin",
        train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        test: "test_batch.bin",
        names: "batches.meta.txt",
    },
    python: Files {
        folder: "cifar-10-batches-py",
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: "test_batch",
        names: "batches.meta",
    },
    label_bytes: 1,
    labels: "labels",
    label_names: "label_names",
};

pub(crate) const CIFAR100: Cifar = Cifar {
    classes: 100,
    binary: Files {
        folder: "cifar-100-binary",
        train: &["train.bin"],
        test: "test.bin",
        names: "fine_label_names.txt",
    },
    python: Files { folder: "cifar-100-python", train: &["train"], test: "test", names: "meta" },
    label_bytes: 2,
    labels: "fine_labels",
    label_names: "fine_label_names",
};

/// The most bytes of the file with the names of the classes.
const MAX_NAMES: u64 = 1 << 20;

const CIFAR10_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

impl Cifar {
    /// Reads the training and test images from `dir`, or from an archive's directory inside `dir`.
    pub(crate) fn read(&self, dataset: &'static str, dir: &Path) -> Result<(Images, Images), DataError> {
        let (files, dir) = self.find(dir);
        let names = self.class_names(files, &dir);
        let read = |files_of_split: &[&str]| {
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            for name in files_of_split {
                let path = dir.join(name);
                let bytes = read_file(dataset, &path)?;
                let records = self.records(files, &path.display().to_string(), &bytes)?;
                // All files of a split have the same size.
                pixels.reserve_exact(if pixels.is_empty() { files_of_split.len() * records.pixels.len() } else { 0 });
                pixels.extend(records.pixels);
                labels.extend(records.labels);
            }
            let images = Images::from_bytes([3, 32, 32], self.classes, pixels, labels);
            images.map(|images| match &names {
                Some(names) => images.with_class_names(names),
                None => images,
            })
        };
        Ok((read(files.train)?, read(&[files.test])?))
    }

    fn records(&self, files: &Files, file: &str, bytes: &[u8]) -> Result<Records, DataError> {
        if self.is_python(files) {
            cifar::read_python(file, bytes, self.labels, self.classes)
        } else {
            cifar::read(file, bytes, self.label_bytes, self.classes)
        }
    }

    fn is_python(&self, files: &Files) -> bool {
        files.folder == self.python.folder
    }

    /// Whether all files exist, and those of the binary version contain a whole number of records.
    pub(crate) fn is_complete_in(&self, dir: &Path) -> bool {
        let (files, dir) = self.find(dir);
        let record = (self.label_bytes + cifar::PIXELS) as u64;
        let whole = |bytes: u64| bytes > 0 && (self.is_python(files) || bytes.is_multiple_of(record));
        let paths = files.train.iter().chain([&files.test]).map(|file| dir.join(file));
        paths.map(fs::metadata).all(|file| file.is_ok_and(|file| file.is_file() && whole(file.len())))
    }

    /// Whether `dir` is meant to contain this dataset.
    pub(crate) fn is_recognized_in(&self, dir: &Path) -> bool {
        let (files, inner) = self.find(dir);
        inner != dir || inner.join(files.train[0]).is_file()
    }

    /// The version in `dir` or in an archive's directory inside `dir`, and its directory. If there is none, the binary
    /// version and `dir`.
    fn find(&self, dir: &Path) -> (&Files, PathBuf) {
        let versions = [&self.binary, &self.python];
        if let Some(files) = versions.into_iter().find(|files| dir.join(files.folder).is_dir()) {
            return (files, dir.join(files.folder));
        }
        let files = versions.into_iter().find(|files| dir.join(files.train[0]).is_file());
        (files.unwrap_or(&self.binary), dir.into())
    }

    /// The names of the classes, from the file that holds them. Those of CIFAR-10 are known without it.
    fn class_names(&self, files: &Files, dir: &Path) -> Option<Vec<String>> {
        let bytes = read_regular(&dir.join(files.names), MAX_NAMES).unwrap_or_default();
        let names = if self.is_python(files) {
            let file = Dictionary::read(&bytes).ok();
            file.and_then(|file| file.texts(self.label_names, self.classes)).unwrap_or_default()
        } else {
            let text = String::from_utf8_lossy(&bytes);
            text.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect()
        };
        let known = (self.classes == CIFAR10_NAMES.len()).then(|| CIFAR10_NAMES.map(String::from).into());
        Some(names).filter(|names: &Vec<String>| names.len() == self.classes).or(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Source,
        formats::cifar::python::tests::{batch, names},
    };

    /// Uses small files in the published layout.
    #[test]
    fn files_are_found_in_the_directory_or_in_the_archives_subdirectory() {
        let dir = tempfile::tempdir().unwrap();
        let record = |labels: &[u8], first: u8| [labels, &[first], &[0; cifar::PIXELS - 1]].concat();
        let inner = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        for (i, name) in CIFAR10.binary.train.iter().chain([&CIFAR10.binary.test]).enumerate() {
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

    #[test]
    fn the_version_for_python_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, content: Vec<u8>| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let python = |labels: &str, label: u8| batch(&[label; cifar::PIXELS], cifar::PIXELS as u16, labels, &[label]);
        (1..6).for_each(|i| write(&format!("ten/data_batch_{i}"), python("labels", i)));
        write("ten/test_batch", python("labels", 9));
        let ten = dir.path().join("ten");
        assert!(CIFAR10.is_complete_in(&ten) && CIFAR10.is_recognized_in(&ten) && !CIFAR100.is_recognized_in(&ten));
        let (train, test) = CIFAR10.read("cifar10", &ten).unwrap();
        assert_eq!((train.labels(), test.labels(), train.bytes(2).unwrap()[7]), (&[1, 2, 3, 4, 5][..], &[9][..], 3));
        assert_eq!(train.class_names().unwrap()[..3], ["airplane", "automobile", "bird"]);
        write("ten/batches.meta", names("label_names", &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]));
        assert_eq!(CIFAR10.read("cifar10", &ten).unwrap().1.class_names().unwrap()[9], "j");

        write("cifar-100-python/train", python("fine_labels", 99));
        write("cifar-100-python/test", python("fine_labels", 42));
        assert!(CIFAR100.is_complete_in(dir.path()));
        let (train, test) = CIFAR100.read("cifar100", dir.path()).unwrap();
        assert_eq!((train.labels(), test.labels(), train.class_names()), (&[99][..], &[42][..], None));
        write("cifar-100-python/test", b"not pickled".to_vec());
        let error = CIFAR100.read("cifar100", dir.path()).unwrap_err().to_string();
        assert!(error.contains("test is invalid: the pickle has the unknown opcode 0x6e at byte 0"), "{error}");
    }
}
