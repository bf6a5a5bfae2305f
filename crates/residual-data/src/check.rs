use crate::{
    DataConfig, DataError, DataName, Folder, Images, Normalization, Normalize, Preprocessing, Source, mnist,
    name::{CIFAR10, CIFAR100},
};
use rayon::prelude::*;
use residual_fetch::sha256_file;
use serde::Serialize;
use std::{
    collections::HashMap,
    hash::Hash,
    path::{Path, PathBuf},
};

/// What is in a folder of data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The dataset whose files these are.
    pub dataset: DataName,
    /// The classes' names, where the files tell.
    pub classes: Vec<String>,
    /// The training and the test split.
    pub splits: [SplitReport; 2],
    /// Files that cannot be used, each with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Samples whose image is the same: each group by place, such as `train 17`, or by file.
    pub duplicates: Vec<Vec<String>>,
}

/// One split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// The number of samples, unreadable ones left out.
    pub samples: usize,
    /// The number of samples of each class.
    pub counts: Vec<usize>,
    /// Height and width of the smallest and of the largest image, by their areas.
    pub sizes: [[usize; 2]; 2],
    /// Mean and standard deviation of each channel, of pixels in 0 to 1.
    pub statistics: Normalization,
}

/// Looks at every sample in a folder, of the dataset whose files are found there, or of this one.
///
/// # Errors
/// If there is no dataset in it, or a file of many samples is not usable.
pub fn check(dir: &Path, name: Option<DataName>) -> Result<Report, DataError> {
    let name = match name {
        Some(name) => name,
        None => recognize(dir)?,
    };
    let config = DataConfig { dir: Some(dir.into()), ..name.into() };
    if name == DataName::Folder {
        return check_folder(dir);
    }
    let (train, test) = config.images()?;
    let place = |split: &str, i: usize| format!("{split} {i}");
    let samples = |split: &'static str, images: &Images| -> Vec<_> {
        (0..images.len()).map(|i| (images.bytes(i).map(<[u8]>::to_vec), place(split, i))).collect()
    };
    let mut all = samples("train", &train);
    all.extend(samples("test", &test));
    let classes = class_names(dir, name);
    Ok(Report {
        dataset: name,
        classes,
        splits: [of_images(&train), of_images(&test)],
        unreadable: Vec::new(),
        duplicates: groups(all.into_iter().filter_map(|(bytes, place)| Some((bytes?, place)))),
    })
}

/// The dataset whose files a folder has.
fn recognize(dir: &Path) -> Result<DataName, DataError> {
    if !dir.is_dir() {
        return Err(DataError::Folder { path: dir.into(), reason: "is no folder".into() });
    }
    for cifar in [&CIFAR10, &CIFAR100] {
        if dir.join(cifar.folder).is_dir() || dir.join(cifar.train[0]).is_file() {
            return Ok(cifar.name);
        }
    }
    if mnist::are_in(dir) { mnist::recognize(dir) } else { Ok(DataName::Folder) }
}

fn class_names(dir: &Path, name: DataName) -> Vec<String> {
    let (cifar, file) = match name {
        DataName::Cifar10 => (&CIFAR10, "batches.meta.txt"),
        DataName::Cifar100 => (&CIFAR100, "fine_label_names.txt"),
        _ => return Vec::new(),
    };
    let read = |dir: &Path| std::fs::read_to_string(dir.join(file)).ok();
    let text = read(&dir.join(cifar.folder)).or_else(|| read(dir)).unwrap_or_default();
    let names: Vec<String> = text.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
    if names.len() == cifar.classes { names } else { Vec::new() }
}

fn of_images(images: &Images) -> SplitReport {
    let mut counts = vec![0; images.classes()];
    images.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
    let [_, height, width] = images.shape();
    let statistics = images.statistics(Normalize::Channel);
    SplitReport { samples: images.len(), counts, sizes: [[height, width]; 2], statistics }
}

/// One image file.
struct Looked {
    size: [usize; 2],
    /// Of each channel: the sum of the pixels, and of their squares.
    sums: [[f64; 2]; 3],
    hash: String,
}

fn look(path: &Path) -> Result<Looked, String> {
    let message = |error: DataError| match error {
        DataError::Image { reason, .. } => reason,
        error => error.to_string(),
    };
    let image = Preprocessing::decode(path).map_err(message)?.to_rgb8();
    let mut sums = [[0.0; 2]; 3];
    for pixel in image.pixels() {
        for (sums, byte) in sums.iter_mut().zip(pixel.0) {
            let x = f64::from(byte) / 255.0;
            *sums = [sums[0] + x, sums[1] + x * x];
        }
    }
    let hash = sha256_file(path).map_err(|error| error.to_string())?;
    Ok(Looked { size: [image.height() as usize, image.width() as usize], sums, hash })
}

fn check_folder(dir: &Path) -> Result<Report, DataError> {
    let (train, test) = Folder::list(dir, Preprocessing::imagenet(1, 1))?;
    let mut unreadable = Vec::new();
    let mut hashes = Vec::new();
    let mut split = |folder: &Folder| {
        let looked: Vec<_> = folder.files().par_iter().map(|(path, _)| look(path)).collect();
        let mut counts = vec![0; folder.classes()];
        let (mut sums, mut pixels, mut samples) = ([[0.0f64; 2]; 3], 0, 0);
        let mut sizes: Option<[[usize; 2]; 2]> = None;
        for ((path, label), looked) in folder.files().iter().zip(looked) {
            let Looked { size, sums: more, hash } = match looked {
                Ok(looked) => looked,
                Err(reason) => {
                    unreadable.push((path.clone(), reason));
                    continue;
                }
            };
            samples += 1;
            counts[*label] += 1;
            pixels += size[0] * size[1];
            (0..3).for_each(|c| (0..2).for_each(|i| sums[c][i] += more[c][i]));
            let [least, most] = sizes.unwrap_or([size; 2]);
            let area = |[height, width]: [usize; 2]| height * width;
            sizes = Some([
                if area(size) < area(least) { size } else { least },
                if area(size) > area(most) { size } else { most },
            ]);
            hashes.push((hash, path.display().to_string()));
        }
        let mean = sums.map(|[sum, _]| sum / pixels.max(1) as f64);
        let std = [0, 1, 2].map(|c| (sums[c][1] / pixels.max(1) as f64 - mean[c].powi(2)).max(0.0).sqrt());
        let narrow = |values: [f64; 3]| values.map(|x| x as f32).to_vec();
        let statistics = Normalization { mean: narrow(mean), std: narrow(std) };
        SplitReport { samples, counts, sizes: sizes.unwrap_or_default(), statistics }
    };
    let splits = [split(&train), split(&test)];
    Ok(Report {
        dataset: DataName::Folder,
        classes: train.class_names().unwrap_or_default(),
        splits,
        unreadable,
        duplicates: groups(hashes.into_iter()),
    })
}

/// The names of things that are the same, in the order of the first of each group.
fn groups<K: Hash + Eq>(samples: impl Iterator<Item = (K, String)>) -> Vec<Vec<String>> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut groups: Vec<Vec<String>> = Vec::new();
    for (key, name) in samples {
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(name);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::cifar;
    use image::{Rgb, RgbImage};
    use std::fs;

    #[test]
    fn a_folder_is_counted_and_what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let image = |class: &str, name: &str, size: [u32; 2], color: [u8; 3]| {
            let path = dir.path().join(class).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(size[1], size[0], Rgb(color)).save(&path).unwrap();
            path
        };
        let black = image("a", "1.png", [2, 3], [0; 3]);
        let again = image("b", "1.png", [2, 3], [0; 3]);
        image("a", "2.png", [4, 3], [255, 0, 51]);
        for i in 3..7 {
            image("b", &format!("{i}.png"), [2, 2], [10 * i; 3]);
        }
        let broken = dir.path().join("b/2.jpg");
        RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8, y as u8, (x * y) as u8])).save(&broken).unwrap();
        let jpeg = fs::read(&broken).unwrap();
        fs::write(&broken, &jpeg[..jpeg.len() * 2 / 3]).unwrap();

        let report = check(dir.path(), None).unwrap();
        assert_eq!((report.dataset, &report.classes[..]), (DataName::Folder, &["a".to_string(), "b".into()][..]));
        let [train, test] = &report.splits;
        assert_eq!((&train.counts[..], &test.counts[..]), (&[2, 4][..], &[0, 1][..]));
        assert_eq!(train.sizes, [[2, 2], [4, 3]]);
        assert_eq!(report.unreadable.len(), 1);
        assert_eq!(report.unreadable[0].0, broken);
        assert_eq!(report.duplicates, [[black.display().to_string(), again.display().to_string()]]);
        // 12 pixels of 255, 12 of 0, and of b's 4 each of 30, 40 and 60 (50 is the fifth readable or not).
        let red = (12.0 * 255.0 + 4.0 * f32::from(30u8 + 40 + 60)) / (255.0 * (12.0 + 12.0 + 12.0));
        assert!((train.statistics.mean[0] - red).abs() < 1e-6, "{:?}", train.statistics);
    }

    #[test]
    fn equal_images_across_splits_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let record = |label: u8, first: u8| [&[1, label, first][..], &[0; cifar::PIXELS - 1]].concat();
        fs::write(dir.path().join("train.bin"), [record(0, 1), record(1, 2), record(99, 3)].concat()).unwrap();
        fs::write(dir.path().join("test.bin"), [record(5, 2), record(6, 9)].concat()).unwrap();
        let report = check(dir.path(), None).unwrap();
        assert_eq!((report.dataset, report.splits[0].samples), (DataName::Cifar100, 3));
        assert_eq!(report.duplicates, [["train 1", "test 0"]]);
        let mean = report.splits[0].statistics.mean[0];
        assert!((mean - 6.0 / 255.0 / (3.0 * 1024.0)).abs() < 1e-9, "{mean}");
    }
}
