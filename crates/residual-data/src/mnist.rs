use crate::{
    DataError, DataName, Images,
    formats::idx::{self, Idx},
    name::read_file,
};
use std::path::Path;

pub(crate) const CLASSES: usize = 10;

/// The stems of the files' names, of images and labels.
pub(crate) const TRAIN: [&str; 2] = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
pub(crate) const TEST: [&str; 2] = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// Reads the four files, plain or gzipped, of a dataset in the format of MNIST.
pub(crate) fn read(name: DataName, dir: &Path) -> Result<(Images, Images), DataError> {
    Ok((split(name, dir, TRAIN)?, split(name, dir, TEST)?))
}

/// Whether a folder has the four files, plain or gzipped.
pub(crate) fn are_in(dir: &Path) -> bool {
    TRAIN.iter().chain(&TEST).all(|stem| dir.join(stem).is_file() || dir.join(format!("{stem}.gz")).is_file())
}

/// Which dataset the four files hold: MNIST's first test images are a 7, a 2 and a 1, Fashion-MNIST's a boot (9), a
/// pullover (2) and trousers (1).
pub(crate) fn recognize(dir: &Path) -> Result<DataName, DataError> {
    let (_, labels) = read_idx(DataName::Mnist, dir, TEST[1])?;
    Ok(if labels.bytes.starts_with(&[9, 2, 1]) { DataName::FashionMnist } else { DataName::Mnist })
}

fn read_idx(name: DataName, dir: &Path, stem: &str) -> Result<(String, Idx), DataError> {
    let (plain, gzipped) = (dir.join(stem), dir.join(format!("{stem}.gz")));
    let path = if plain.is_file() { plain } else { gzipped };
    let file = path.display().to_string();
    idx::read(&file, &read_file(name, &path)?).map(|idx| (file, idx))
}

fn split(name: DataName, dir: &Path, files: [&str; 2]) -> Result<Images, DataError> {
    let [(image_file, images), (label_file, labels)] = [read_idx(name, dir, files[0])?, read_idx(name, dir, files[1])?];
    let corrupt = |file: &str, reason: String| Err(DataError::Corrupt { file: file.into(), reason });
    let [count, height, width] = images.dims[..] else {
        return corrupt(&image_file, format!("images have 3 dimensions, not {}", images.dims.len()));
    };
    if count == 0 || height == 0 || width == 0 {
        return corrupt(&image_file, format!("{count} images of {height}x{width} pixels are none"));
    }
    if labels.dims != [count] {
        return corrupt(&label_file, format!("{:?} labels do not go with {count} images", labels.dims));
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
    fn images_and_labels_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let write = |stem: &str, content: Vec<u8>| fs::write(dir.path().join(stem), content).unwrap();
        write(TRAIN[0], idx(&[2, 1, 3], &[0, 51, 102, 255, 0, 0]));
        write(TRAIN[1], idx(&[2], &[7, 9]));
        write(TEST[0], idx(&[1, 1, 3], &[1, 2, 3]));
        write(TEST[1], idx(&[1], &[0]));
        let (train, test) = read(DataName::Mnist, dir.path()).unwrap();
        assert_eq!((train.shape(), train.labels(), test.len()), ([1, 1, 3], &[7, 9][..], 1));
        let mut pixels = [0.0; 3];
        assert_eq!(train.read(0, &mut pixels).unwrap(), 7);
        assert_eq!(pixels, [0.0, 0.2, 0.4]);

        let error = |stem: &str, content: Vec<u8>, whole: Vec<u8>| {
            write(stem, content);
            let error = read(DataName::Mnist, dir.path()).unwrap_err().to_string();
            write(stem, whole);
            error
        };
        let whole = || idx(&[1], &[0]);
        assert!(error(TEST[1], idx(&[2], &[0, 1]), whole()).contains("[2] labels do not go with 1 images"));
        assert!(error(TEST[1], idx(&[1], &[10]), whole()).contains("label 0 is 10, but there are 10 classes"));
        assert!(error(TEST[0], whole(), whole()).contains("images have 3 dimensions, not 1"));
        assert!(
            error(TRAIN[0], idx(&[0, 255, 255], &[]), idx(&[1], &[0])).contains("0 images of 255x255 pixels are none")
        );
        fs::remove_file(dir.path().join(TRAIN[1])).unwrap();
        let error = read(DataName::FashionMnist, dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("fashion-mnist is not there: "), "{error}");
    }
}
