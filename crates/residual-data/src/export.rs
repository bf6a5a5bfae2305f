use crate::{DataConfig, DataError, Images, Source, threads::start_threads};
use image::{ImageBuffer, Luma, Rgb};
use rayon::prelude::*;
use residual_fetch::temporary;
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Writes the images of a dataset as PNG files: `train/CLASS/INDEX.png` and `test/CLASS/INDEX.png` in `dir`, which is
/// then a [`Folder`](crate::Folder). Characters of class names that file systems do not allow become `-`, as does a
/// leading dot. If this makes two names equal, the number of the class precedes each name.
/// Returns the number of images in each split.
///
/// Pixel values from 0 to 1 are stored as bytes from 0 to 255. If there are values outside this range, as in synthetic
/// images, the range is widened to include them. With [`DataConfig::samples`], at most that many evenly spaced samples
/// of each split are written. The files are written to a folder beside `dir`, which is renamed at the end and removed
/// if an error occurs.
///
/// # Errors
/// If `dir` exists and is not an empty folder, if a file cannot be written, and as for [`DataConfig::images`].
pub fn export(config: &DataConfig, dir: &Path) -> Result<[usize; 2], DataError> {
    let bad = |reason: &str| DataError::Folder { path: dir.into(), reason: reason.into() };
    let is_empty = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if dir.exists() && !is_empty(dir) {
        return Err(bad("is not empty; give a new or an empty folder"));
    }
    let (train, test) = config.images()?;
    let absolute = std::path::absolute(dir).map_err(failed("write", dir))?;
    if absolute.file_name().is_none() {
        return Err(bad("has no name; give a new folder"));
    }
    let part = temporary(&absolute);
    let count = |images: &Images| config.samples.unwrap_or(usize::MAX).min(images.len());
    let write = || -> Result<(), DataError> {
        start_threads()?;
        fs::create_dir_all(absolute.parent().unwrap_or(&absolute)).map_err(failed("create", dir))?;
        fs::create_dir(&part).map_err(failed("create", &part))?;
        let range = range([&train, &test]);
        for (images, split) in [(&train, "train"), (&test, "test")] {
            write_split(images, count(images), range, &part.join(split))?;
        }
        if dir.exists() {
            fs::remove_dir(dir).map_err(failed("replace", dir))?;
        }
        fs::rename(&part, &absolute).map_err(failed("write", dir))
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    written.map(|()| [count(&train), count(&test)])
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DataError {
    move |source| DataError::Io { action, path: path.into(), source }
}

/// The values that become 0 and 255.
fn range(splits: [&Images; 2]) -> [f32; 2] {
    let [low, high] =
        splits.map(Images::range).into_iter().fold([0f32, 1f32], |[low, high], [a, b]| [low.min(a), high.max(b)]);
    [low, high]
}

fn write_split(images: &Images, count: usize, range: [f32; 2], dir: &Path) -> Result<(), DataError> {
    let names = images.class_names().unwrap_or_else(|| (0..images.classes()).map(|class| class.to_string()).collect());
    let mut folders: Vec<String> = names.iter().map(|name| safe(name)).collect();
    if folders.iter().collect::<HashSet<_>>().len() < folders.len() {
        folders.iter_mut().enumerate().for_each(|(class, name)| *name = format!("{class}-{name}"));
    }
    let folders: Vec<PathBuf> = folders.iter().map(|name| dir.join(name)).collect();
    for folder in &folders {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
    }
    (0..count).into_par_iter().try_for_each(|i| {
        let index = i * images.len() / count;
        write_image(images, index, range, &|label| folders[label].join(format!("{index:05}.png")))
    })
}

fn write_image(
    images: &Images,
    index: usize,
    [low, high]: [f32; 2],
    path: &dyn Fn(usize) -> PathBuf,
) -> Result<(), DataError> {
    let [channels, height, width] = images.shape();
    let mut pixels = vec![0.0; channels * height * width];
    let path = path(images.read(index, &mut pixels)?);
    let byte = |x: f32| ((x - low) / (high - low) * 255.0).round() as u8;
    let at = |channel: usize, x: u32, y: u32| byte(pixels[(channel * height + y as usize) * width + x as usize]);
    let (width, height) = (width as u32, height as u32);
    let written = if channels == 1 {
        ImageBuffer::from_fn(width, height, |x, y| Luma([at(0, x, y)])).save(&path)
    } else {
        ImageBuffer::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|channel| at(channel, x, y)))).save(&path)
    };
    written.map_err(|error| failed("write", &path)(io::Error::other(error)))
}

/// A class name as the name of a folder that is neither hidden nor above another.
fn safe(name: &str) -> String {
    let allowed = |at: usize, c: char| !c.is_control() && !"/\\:*?\"<>|".contains(c) && (at > 0 || c != '.');
    let name: String = name.chars().enumerate().map(|(at, c)| if allowed(at, c) { c } else { '-' }).collect();
    if name.is_empty() { "-".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataName, Folder, Preprocessing};

    #[test]
    fn exported_digits_are_read_back_with_their_labels() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("digits");
        let config = DataConfig { samples: Some(100), ..DataName::Digits.into() };
        assert_eq!(export(&config, &to).unwrap(), [100, 100]);
        let preprocessing = Preprocessing { resize: 8, crop: 8, mean: vec![0.0], std: vec![1.0], ignore_exif: false };
        let (train, test) = Folder::open(&to, preprocessing).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (100, 100, 10));
        let (images, _) = DataName::Digits.images().unwrap();
        let at = (0..100).find(|i| train.name(*i).unwrap().ends_with("/00014.png")).unwrap();
        let (mut written, mut original) = (vec![0.0; 64], vec![0.0; 64]);
        assert_eq!(train.read(at, &mut written).unwrap(), images.read(14, &mut original).unwrap());
        assert!(written.iter().zip(&original).all(|(a, b)| (a - b).abs() <= 0.5 / 255.0 + 1e-6));
        let again = export(&config, &to).unwrap_err().to_string();
        assert!(again.ends_with("digits is not empty; give a new or an empty folder"), "{again}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_values_are_scaled_and_an_empty_folder_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let config = DataConfig { samples: Some(10), ..DataName::Synthetic.into() };
        assert_eq!(export(&config, dir.path()).unwrap(), [10, 10]);
        let file = image::open(dir.path().join("test/8").read_dir().unwrap().next().unwrap().unwrap().path()).unwrap();
        let values = file.to_luma8().into_raw();
        assert!(values.iter().any(|byte| *byte > 128) && values.iter().any(|byte| *byte < 128));
        let missing = DataConfig { dir: Some(dir.path().join("nowhere")), ..DataName::Mnist.into() };
        assert!(export(&missing, &dir.path().join("mnist")).is_err());
        assert!(!dir.path().join("mnist").exists());
    }

    #[test]
    fn class_names_become_folder_names() {
        assert_eq!(safe("T-shirt/top"), "T-shirt-top");
        assert_eq!(["..", ".", "", ".hidden", "a\nb"].map(safe), ["-.", "-", "-", "-hidden", "a-b"]);
    }

    #[test]
    fn names_that_become_equal_are_numbered() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::from_bytes([1, 1, 1], 2, vec![7, 9], vec![0, 1]).unwrap().with_class_names(["a/b", "a:b"]);
        write_split(&images, 2, [0.0, 1.0], dir.path()).unwrap();
        assert!(dir.path().join("0-a-b/00000.png").exists() && dir.path().join("1-a-b/00001.png").exists());
    }
}
