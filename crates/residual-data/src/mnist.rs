use crate::{
    DataError, Images,
    files::read_file,
    formats::idx::{self, Idx},
};
use std::path::{Path, PathBuf};

pub(crate) const CLASSES: usize = 10;

/// The names of the image file and the label file. Files are also found as `train-images.idx3-ubyte`, and gzipped.
const TRAIN: [&str; 2] = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
const TEST: [&str; 2] = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// The names of the classes of Fashion-MNIST (Xiao et al. 2017, table 2).
const CLOTHES: [&str; CLASSES] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// The name of Fashion-MNIST.
const FASHION: &str = "fashion-mnist";

/// Reads the training and test images of a dataset in MNIST's format: four files, uncompressed or gzipped, in `dir` or
/// where torchvision puts them below `dir`.
pub(crate) fn read(dataset: &'static str, dir: &Path) -> Result<(Images, Images), DataError> {
    let names = if dataset == FASHION { CLOTHES.map(String::from) } else { digit_names() };
    let named = |files| split(dataset, dir, files).map(|images| images.with_class_names(names.clone()));
    Ok((named(TRAIN)?, named(TEST)?))
}

/// The names of ten digits as classes: "0" to "9".
pub(crate) fn digit_names() -> [String; CLASSES] {
    std::array::from_fn(|digit| digit.to_string())
}

/// Whether the four files are in a directory or where torchvision puts them below it.
pub(crate) fn is_complete_in(dataset: &'static str, dir: &Path) -> bool {
    TRAIN.iter().chain(&TEST).all(|stem| find(dataset, dir, stem).is_some())
}

/// Whether the four files in `dir` are Fashion-MNIST rather than MNIST. The first test labels of Fashion-MNIST are 9
/// (ankle boot), 2 (pullover) and 1 (trouser); those of MNIST are 7, 2 and 1.
pub(crate) fn is_fashion_mnist(dataset: &'static str, dir: &Path) -> Result<bool, DataError> {
    let (_, labels) = read_idx(dataset, dir, TEST[1])?;
    Ok(labels.bytes.starts_with(&[9, 2, 1]))
}

fn find(dataset: &'static str, dir: &Path, stem: &str) -> Option<PathBuf> {
    let torchvision = if dataset == FASHION { "FashionMNIST/raw" } else { "MNIST/raw" };
    let dotted = stem.replace("-idx", ".idx");
    let names = [stem, &format!("{stem}.gz"), &dotted, &format!("{dotted}.gz")].map(String::from);
    let dirs = [dir.into(), dir.join("raw"), dir.join(torchvision)];
    dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name))).find(|path| path.is_file())
}

fn read_idx(dataset: &'static str, dir: &Path, stem: &str) -> Result<(String, Idx), DataError> {
    let path = find(dataset, dir, stem).unwrap_or_else(|| dir.join(format!("{stem}.gz")));
    let file = path.display().to_string();
    idx::read(&file, &read_file(dataset, &path)?).map(|idx| (file, idx))
}

fn split(dataset: &'static str, dir: &Path, files: [&str; 2]) -> Result<Images, DataError> {
    let (image_file, images) = read_idx(dataset, dir, files[0])?;
    let (label_file, labels) = read_idx(dataset, dir, files[1])?;
    let corrupt = |file: &str, reason: String| Err(DataError::Corrupt { file: file.into(), reason });
    let [count, height, width] = images.dims[..] else {
        return corrupt(&image_file, format!("expected 3 dimensions, found {}", images.dims.len()));
    };
    if count == 0 || height == 0 || width == 0 {
        return corrupt(&image_file, format!("it is empty: {count} images of {height}x{width} pixels"));
    }
    if labels.dims != [count] {
        return corrupt(&label_file, format!("it has {:?} labels for {count} images", labels.dims));
    }
    if let Some(index) = labels.bytes.iter().position(|&label| usize::from(label) >= CLASSES) {
        let label = labels.bytes[index];
        return corrupt(&label_file, format!("label {index} is {label}, but there are {CLASSES} classes"));
    }
    let labels = labels.bytes.into_iter().map(u16::from).collect();
    Images::from_bytes([1, height, width], CLASSES, images.bytes, labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use std::fs;

    fn idx(dims: &[u8], bytes: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|&dim| [0, 0, 0, dim]).collect();
        [&[0, 0, 8, (dims.len() / 4) as u8], &dims[..], bytes].concat()
    }

    #[test]
    fn images_and_labels_must_match() {
        let dir = tempfile::tempdir().unwrap();
        let write = |stem: &str, content: Vec<u8>| fs::write(dir.path().join(stem), content).unwrap();
        write(TRAIN[0], idx(&[2, 1, 3], &[0, 51, 102, 255, 0, 0]));
        write(TRAIN[1], idx(&[2], &[7, 9]));
        write(TEST[0], idx(&[1, 1, 3], &[1, 2, 3]));
        write(TEST[1], idx(&[1], &[0]));
        let (train, test) = read("mnist", dir.path()).unwrap();
        assert_eq!((train.shape(), train.labels(), test.len()), ([1, 1, 3], &[7, 9][..], 1));
        let mut pixels = [0.0; 3];
        assert_eq!(train.read(0, &mut pixels).unwrap(), 7);
        assert_eq!(pixels, [0.0, 0.2, 0.4]);

        let error = |stem: &str, content: Vec<u8>, whole: Vec<u8>| {
            write(stem, content);
            let error = read("mnist", dir.path()).unwrap_err().to_string();
            write(stem, whole);
            error
        };
        let whole = || idx(&[1], &[0]);
        assert!(error(TEST[1], idx(&[2], &[0, 1]), whole()).contains("it has [2] labels for 1 images"));
        assert!(error(TEST[1], idx(&[1], &[10]), whole()).contains("label 0 is 10, but there are 10 classes"));
        assert!(error(TEST[0], whole(), whole()).contains("expected 3 dimensions, found 1"));
        assert!(
            error(TRAIN[0], idx(&[0, 255, 255], &[]), idx(&[1], &[0]))
                .contains("it is empty: 0 images of 255x255 pixels")
        );
        fs::remove_file(dir.path().join(TRAIN[1])).unwrap();
        let error = read("fashion-mnist", dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("dataset fashion-mnist not found: "), "{error}");
    }

    #[test]
    fn other_spellings_and_the_layout_of_torchvision_are_found() {
        let content = |stem: &str| if stem.contains("images") { idx(&[1, 1, 1], &[9]) } else { idx(&[1], &[3]) };
        for (dataset, folder, spelling) in [
            ("mnist", "MNIST/raw", ".idx"),
            ("fashion-mnist", "FashionMNIST/raw", "-idx"),
            ("mnist", "raw", "-idx"),
            ("mnist", "", ".idx"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            for stem in TRAIN.iter().chain(&TEST) {
                fs::write(dir.path().join(folder).join(stem.replace("-idx", spelling)), content(stem)).unwrap();
            }
            assert!(is_complete_in(dataset, dir.path()), "{folder}");
            let (train, test) = read(dataset, dir.path()).unwrap();
            assert_eq!((train.labels(), test.len()), (&[3][..], 1));
            let name = if dataset == "mnist" { "3" } else { "Dress" };
            assert_eq!(test.class_names().unwrap()[3], name);
        }
    }
}
