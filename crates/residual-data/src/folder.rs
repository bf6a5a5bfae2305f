use crate::{
    Augmentation, DataError, Preprocessing, Source,
    augmentation::{Rect, random_rect},
};
use image::{DynamicImage, imageops::FilterType};
use rand::rngs::ChaCha8Rng;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Image files on disk, with one subfolder per class. A file is read when its sample is requested.
///
/// Classes are sorted by the names of the subfolders, and images by file name. Images are PNG and JPEG files with the
/// extension `.png`, `.jpg` or `.jpeg`. If the folder contains `train` and `val` (or `valid`, `validation`, `test`),
/// these are the two splits, and each contains its own class subfolders. The held-out split may lack some classes. If
/// there is no `train`, every fifth image of each class is held out.
#[derive(Clone, Debug)]
pub struct Folder {
    files: Vec<(PathBuf, usize)>,
    classes: Arc<Vec<String>>,
    preprocessing: Preprocessing,
}

const HELD_OUT: [&str; 4] = ["val", "valid", "validation", "test"];

impl Folder {
    /// The training images and the held-out images.
    ///
    /// # Errors
    /// If a split is empty, a class has no training images, or a folder cannot be read.
    pub fn open(dir: &Path, preprocessing: Preprocessing) -> Result<(Self, Self), DataError> {
        let (train, test) = Self::list(dir, preprocessing)?;
        if let Some(class) = (0..train.classes.len()).find(|&class| !train.files.iter().any(|file| file.1 == class)) {
            let reason = format!("has no PNG or JPEG files in the subfolder {}", train.classes[class]);
            return Err(DataError::Folder { path: dir.into(), reason });
        }
        if test.files.is_empty() {
            return Err(DataError::Folder {
                path: dir.into(),
                reason: "has no images to hold out; it needs five images of one class, or the subfolders train and val"
                    .into(),
            });
        }
        Ok((train, test))
    }

    /// Like [`Self::open`], but allows classes without images and an empty held-out split.
    pub(crate) fn list(dir: &Path, preprocessing: Preprocessing) -> Result<(Self, Self), DataError> {
        preprocessing.validate().map_err(DataError::Preprocessing)?;
        let bad = |reason: String| DataError::Folder { path: dir.into(), reason };
        if !dir.is_dir() {
            return Err(bad("is not a directory".into()));
        }
        let train = dir.join("train");
        let (train, test, classes) = if train.is_dir() {
            let held_out = HELD_OUT.iter().map(|name| dir.join(name)).find(|path| path.is_dir());
            let held_out =
                held_out.ok_or_else(|| bad(format!("has a subfolder train, but none of {}", HELD_OUT.join(", "))))?;
            let classes = subfolders(&train)?;
            if let Some(other) = subfolders(&held_out)?.into_iter().find(|class| !classes.contains(class)) {
                return Err(DataError::Folder {
                    path: held_out.join(other),
                    reason: "is a class without a subfolder in train".into(),
                });
            }
            (images(&train, &classes)?, images(&held_out, &classes)?, classes)
        } else {
            let classes = subfolders(dir)?;
            let mut split: [Vec<_>; 2] = Default::default();
            for files in images(dir, &classes)?.chunk_by(|a, b| a.1 == b.1) {
                files.iter().enumerate().for_each(|(i, file)| split[usize::from(i % 5 == 4)].push(file.clone()));
            }
            let [train, test] = split;
            (train, test, classes)
        };
        if train.is_empty() {
            return Err(bad("has no training images; expected one subfolder of PNG or JPEG files per class".into()));
        }
        let classes = Arc::new(classes);
        let split = |files| Self { files, classes: classes.clone(), preprocessing: preprocessing.clone() };
        Ok((split(train), split(test)))
    }

    /// The files, each with its label.
    pub fn files(&self) -> &[(PathBuf, usize)] {
        &self.files
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = || fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths =
        read().map_err(|error| DataError::Folder { path: dir.into(), reason: format!("cannot be read: {error}") })?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}

fn subfolders(dir: &Path) -> Result<Vec<String>, DataError> {
    let folders = entries(dir)?.into_iter().filter(|path| path.is_dir());
    let name = |path: PathBuf| match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(name.to_string()),
        None => Err(DataError::Folder { path: path.clone(), reason: "has a name that is not valid Unicode".into() }),
    };
    folders.map(name).collect()
}

fn images(dir: &Path, classes: &[String]) -> Result<Vec<(PathBuf, usize)>, DataError> {
    let mut files = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let folder = dir.join(class);
        if folder.is_dir() {
            files.extend(entries(&folder)?.into_iter().filter(|path| is_image(path)).map(|path| (path, label)));
        }
    }
    Ok(files)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| ["png", "jpg", "jpeg"].contains(&&*extension))
}

impl Source for Folder {
    fn shape(&self) -> [usize; 3] {
        self.preprocessing.shape()
    }

    fn classes(&self) -> usize {
        self.classes.len()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        Some(self.classes.to_vec())
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError> {
        let (path, label) = &self.files[index];
        pixels.copy_from_slice(&self.preprocessing.read(path)?);
        Ok(*label)
    }

    /// Takes the resized crop from the image at full resolution.
    fn read_augmented(
        &self,
        index: usize,
        augmentation: &Augmentation,
        rng: &mut ChaCha8Rng,
        pixels: &mut [f32],
    ) -> Result<usize, DataError> {
        let Some(min_area) = augmentation.resized_crop else {
            let label = self.read(index, pixels)?;
            augmentation.apply(self.shape(), pixels, rng);
            return Ok(label);
        };
        let (path, label) = &self.files[index];
        let image = self.preprocessing.decode(path)?;
        let Rect { top, left, height, width } =
            random_rect([image.height() as usize, image.width() as usize], min_area, rng);
        let crop = image.crop_imm(left as u32, top as u32, width as u32, height as u32);
        let side = self.preprocessing.crop as u32;
        let resized: DynamicImage = crop.resize_exact(side, side, FilterType::Triangle);
        pixels.copy_from_slice(&self.preprocessing.values(&resized));
        augmentation.apply_after_resizing(self.shape(), pixels, rng);
        Ok(*label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};
    use rand::SeedableRng;

    fn write(path: PathBuf, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(12, 9, Rgb([value; 3])).save(path).unwrap();
    }

    fn names(folder: &Folder) -> Vec<String> {
        folder
            .files()
            .iter()
            .map(|(path, label)| format!("{label}:{}", path.file_stem().unwrap().to_string_lossy()))
            .collect()
    }

    fn unnormalized() -> Preprocessing {
        Preprocessing { resize: 8, crop: 8, mean: vec![0.0; 3], std: vec![1.0; 3], ignore_exif: false }
    }

    #[test]
    fn every_fifth_image_of_a_class_is_held_out() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["owl", "cat"] {
            (0..6).for_each(|i| write(dir.path().join(class).join(format!("{i}.PNG")), 10 * i));
        }
        fs::write(dir.path().join("cat/notes.txt"), "not an image").unwrap();
        fs::write(dir.path().join("cat/.hidden.png"), "not an image").unwrap();
        let (train, test) = Folder::open(dir.path(), unnormalized()).unwrap();
        assert_eq!(train.class_names().unwrap(), ["cat", "owl"]);
        assert_eq!(names(&test), ["0:4", "1:4"]);
        assert_eq!(names(&train), ["0:0", "0:1", "0:2", "0:3", "0:5", "1:0", "1:1", "1:2", "1:3", "1:5"]);
        let mut pixels = vec![0.0; 3 * 64];
        assert_eq!(train.read(4, &mut pixels).unwrap(), 0);
        assert!(pixels.iter().all(|x| (x - 50.0 / 255.0).abs() < 1e-6));
        let augmentation = Augmentation { resized_crop: Some(0.1), flip: true, ..Augmentation::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(train.read_augmented(4, &augmentation, &mut rng, &mut pixels).unwrap(), 0);
        assert!(pixels.iter().all(|x| (x - 50.0 / 255.0).abs() < 0.01));
    }

    #[test]
    fn train_and_val_subfolders_are_the_splits() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("train/a/1.jpg"), 1);
        write(dir.path().join("train/b/2.jpeg"), 1);
        let error = |dir: &Path| Folder::open(dir, unnormalized()).unwrap_err().to_string();
        assert!(error(dir.path()).ends_with("has a subfolder train, but none of val, valid, validation, test"));
        write(dir.path().join("val/b/3.png"), 1);
        let (train, test) = Folder::open(dir.path(), unnormalized()).unwrap();
        assert_eq!((names(&train), names(&test)), (vec!["0:1".into(), "1:2".into()], vec!["1:3".to_string()]));
        write(dir.path().join("val/c/4.png"), 1);
        assert!(error(dir.path()).ends_with("c is a class without a subfolder in train"));
        assert!(error(&dir.path().join("nowhere")).ends_with("is not a directory"));
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(error(&dir.path().join("empty")).contains("has no training images; expected one subfolder"));
        write(dir.path().join("few/a/1.png"), 1);
        assert!(
            error(&dir.path().join("few")).contains("has no images to hold out; it needs five images of one class")
        );
        fs::create_dir(dir.path().join("few/b")).unwrap();
        assert!(error(&dir.path().join("few")).ends_with("has no PNG or JPEG files in the subfolder b"));
    }
}
