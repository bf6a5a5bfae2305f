use crate::{
    DataConfig, DataError, DataName, Folder, Images, Normalization, Normalize, Preprocessing, Source,
    cifar::{CIFAR10, CIFAR100},
    mnist,
    threads::start_threads,
    tree::check_is_folder,
};
use rayon::prelude::*;
use residual_fetch::sha256_file;
use serde::Serialize;
use std::{
    collections::HashMap,
    hash::Hash,
    path::{Path, PathBuf},
};

/// The content of a dataset's directory, as found by [`check()`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The dataset that the files belong to.
    pub dataset: DataName,
    /// The names of the classes. Empty if the files do not contain them.
    pub classes: Vec<String>,
    /// The training split and the test split.
    pub splits: [SplitReport; 2],
    /// Files that cannot be used, each with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Groups of samples with identical images. A sample is named by its file, or by its split and index, such as
    /// `train 17`.
    pub duplicates: Vec<Vec<String>>,
    /// What the user should know about the dataset: see [`Dataset::notes`](crate::Dataset::notes).
    pub notes: Vec<String>,
}

/// The samples of one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// The number of readable samples.
    pub samples: usize,
    /// The number of readable samples of each class.
    pub counts: Vec<usize>,
    /// The height and width of the smallest image, and of the largest image, by area.
    pub sizes: [[usize; 2]; 2],
    /// The mean and standard deviation of each channel, for pixel values from 0 to 1.
    pub statistics: Normalization,
}

/// Reads every sample of the dataset in `dir`. Counts the samples of each class, measures the images, and finds
/// unreadable files and duplicates. Without a `name`, the dataset is recognised by the files in `dir`. An image file of
/// more than `max_pixels` pixels counts as unreadable.
///
/// # Errors
/// If `dir` is not a directory or contains no dataset, or a file that holds many samples is invalid. An unreadable
/// image file is not an error; the report lists it.
pub fn check(dir: &Path, name: Option<DataName>, max_pixels: u64) -> Result<Report, DataError> {
    let name = match name {
        Some(name) => name,
        None => recognize(dir)?,
    };
    let config = DataConfig { dir: Some(dir.into()), ..name.into() };
    if name == DataName::Folder {
        return check_folder(dir, max_pixels);
    }
    let (train, test) = config.images()?;
    let samples = |split: &'static str, images: &Images| -> Vec<_> {
        (0..images.len()).map(|i| (images.bytes(i).map(<[u8]>::to_vec), format!("{split} {i}"))).collect()
    };
    let mut all = samples("train", &train);
    all.extend(samples("test", &test));
    Ok(Report {
        dataset: name,
        classes: train.class_names().unwrap_or_default(),
        splits: [split_report(&train), split_report(&test)],
        unreadable: Vec::new(),
        duplicates: groups_of_equals(all.into_iter().filter_map(|(bytes, name)| Some((bytes?, name)))),
        notes: Vec::new(),
    })
}

/// The dataset that the files in a directory belong to: [`DataName::Folder`] if they are of no other.
///
/// # Errors
/// If `dir` is not a directory, or a file of MNIST's layout cannot be read.
pub fn recognize(dir: &Path) -> Result<DataName, DataError> {
    check_is_folder(dir)?;
    for (name, cifar) in [(DataName::Cifar10, CIFAR10), (DataName::Cifar100, CIFAR100)] {
        if cifar.is_recognized_in(dir) {
            return Ok(name);
        }
    }
    let found = [DataName::Mnist, DataName::FashionMnist].into_iter().find(|name| name.is_in(dir));
    Ok(match found {
        None => DataName::Folder,
        Some(name) if mnist::is_fashion_mnist(name.into(), dir)? => DataName::FashionMnist,
        Some(_) => DataName::Mnist,
    })
}

fn split_report(images: &Images) -> SplitReport {
    let mut counts = vec![0; images.classes()];
    images.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
    let [_, height, width] = images.shape();
    let statistics = images.statistics(Normalize::Channel);
    SplitReport { samples: images.len(), counts, sizes: [[height, width]; 2], statistics }
}

/// The statistics of one image file.
struct ImageStatistics {
    /// Height and width, in pixels.
    size: [usize; 2],
    /// The sum of the pixels and the sum of their squares, per channel.
    sums: [[f64; 2]; 3],
    /// The SHA-256 checksum of the file.
    sha256: String,
}

/// Reads an image file. The error is the reason why the file cannot be used.
fn scan(path: &Path, max_pixels: u64) -> Result<ImageStatistics, String> {
    let image = Preprocessing::imagenet(1, 1).decode(path, max_pixels).map_err(DataError::image_reason)?.to_rgb8();
    let mut sums = [[0.0; 2]; 3];
    for pixel in image.pixels() {
        for (sums, byte) in sums.iter_mut().zip(pixel.0) {
            let x = f64::from(byte) / 255.0;
            *sums = [sums[0] + x, sums[1] + x * x];
        }
    }
    let sha256 = sha256_file(path).map_err(|error| error.to_string())?;
    Ok(ImageStatistics { size: [image.height() as usize, image.width() as usize], sums, sha256 })
}

fn check_folder(dir: &Path, max_pixels: u64) -> Result<Report, DataError> {
    start_threads()?;
    let opened = Folder::list(dir, &Preprocessing::imagenet(1, 1).into())?;
    let (train, test) = (&opened.train, &opened.test);
    let mut unreadable = Vec::new();
    let mut checksums = Vec::new();
    let mut split = |folder: &Folder| {
        let files: Vec<_> = folder.files().collect();
        let scanned: Vec<_> = files.par_iter().map(|(path, _)| scan(path, max_pixels)).collect();
        let mut counts = vec![0; folder.classes()];
        let (mut sums, mut pixels, mut samples) = ([[0.0f64; 2]; 3], 0, 0);
        let mut sizes: Option<[[usize; 2]; 2]> = None;
        for ((path, label), scanned) in files.into_iter().zip(scanned) {
            let image = match scanned {
                Ok(image) => image,
                Err(reason) => {
                    unreadable.push((path.to_path_buf(), reason));
                    continue;
                }
            };
            samples += 1;
            counts[label] += 1;
            pixels += image.size[0] * image.size[1];
            (0..3).for_each(|c| (0..2).for_each(|i| sums[c][i] += image.sums[c][i]));
            let [smallest, largest] = sizes.unwrap_or([image.size; 2]);
            let area = |[height, width]: [usize; 2]| height * width;
            sizes = Some([
                if area(image.size) < area(smallest) { image.size } else { smallest },
                if area(image.size) > area(largest) { image.size } else { largest },
            ]);
            checksums.push((image.sha256, path.display().to_string()));
        }
        let mean = sums.map(|[sum, _]| sum / pixels.max(1) as f64);
        let std = [0, 1, 2].map(|c| (sums[c][1] / pixels.max(1) as f64 - mean[c].powi(2)).max(0.0).sqrt());
        let narrow = |values: [f64; 3]| values.map(|x| x as f32).to_vec();
        let statistics = Normalization { mean: narrow(mean), std: narrow(std) };
        SplitReport { samples, counts, sizes: sizes.unwrap_or_default(), statistics }
    };
    let splits = [split(train), split(test)];
    Ok(Report {
        dataset: DataName::Folder,
        classes: train.class_names().unwrap_or_default(),
        splits,
        unreadable,
        duplicates: groups_of_equals(checksums.into_iter()),
        notes: opened.notes(dir),
    })
}

/// Groups of names of samples with equal keys: one group per key that occurs more than once, in the order of its first
/// occurrence.
fn groups_of_equals<K: Hash + Eq>(samples: impl Iterator<Item = (K, String)>) -> Vec<Vec<String>> {
    let mut group_of: HashMap<K, usize> = HashMap::new();
    let mut groups: Vec<Vec<String>> = Vec::new();
    for (key, name) in samples {
        let group = *group_of.entry(key).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(name);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DEFAULT_MAX_PIXELS, formats::cifar};
    use image::{Rgb, RgbImage};
    use std::fs;

    #[test]
    fn a_folder_is_counted_and_its_problems_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let image = |class: &str, name: &str, size: [u32; 2], color: [u8; 3]| {
            let path = dir.path().join(class).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(size[1], size[0], Rgb(color)).save(&path).unwrap();
            path
        };
        let black = image("val/a", "1.png", [2, 3], [0; 3]);
        let again = image("val/b", "1.png", [2, 3], [0; 3]);
        image("train/a", "2.png", [4, 3], [255, 0, 51]);
        for i in 3..7 {
            image("train/b", &format!("{i}.png"), [2, 2], [10 * i; 3]);
        }
        let broken = dir.path().join("train/b/2.jpg");
        RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8, y as u8, (x * y) as u8])).save(&broken).unwrap();
        let jpeg = fs::read(&broken).unwrap();
        fs::write(&broken, &jpeg[..jpeg.len() * 2 / 3]).unwrap();

        let report = check(dir.path(), None, DEFAULT_MAX_PIXELS).unwrap();
        assert_eq!((report.dataset, &report.classes[..]), (DataName::Folder, &["a".to_string(), "b".into()][..]));
        let [train, test] = &report.splits;
        assert_eq!((&train.counts[..], &test.counts[..]), (&[1, 4][..], &[1, 1][..]));
        assert_eq!(train.sizes, [[2, 2], [4, 3]]);
        assert_eq!(report.unreadable.len(), 1);
        assert_eq!(report.unreadable[0].0, broken);
        assert_eq!(report.duplicates, [[black.display().to_string(), again.display().to_string()]]);
        // Red: 12 pixels of 255 in `a`; 4 each of 30 to 60 in `b`.
        let red = (12.0 * 255.0 + 4.0 * f32::from(30u8 + 40 + 50 + 60)) / (255.0 * (12.0 + 16.0));
        assert!((train.statistics.mean[0] - red).abs() < 1e-6, "{:?}", train.statistics);
    }

    #[test]
    fn duplicates_across_splits_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let record = |label: u8, first: u8| [&[1, label, first][..], &[0; cifar::PIXELS - 1]].concat();
        fs::write(dir.path().join("train.bin"), [record(0, 1), record(1, 2), record(99, 3)].concat()).unwrap();
        fs::write(dir.path().join("test.bin"), [record(5, 2), record(6, 9)].concat()).unwrap();
        let report = check(dir.path(), None, DEFAULT_MAX_PIXELS).unwrap();
        assert_eq!((report.dataset, report.splits[0].samples), (DataName::Cifar100, 3));
        assert_eq!(report.duplicates, [["train 1", "test 0"]]);
        let mean = report.splits[0].statistics.mean[0];
        assert!((mean - 6.0 / 255.0 / (3.0 * 1024.0)).abs() < 1e-9, "{mean}");
    }
}
