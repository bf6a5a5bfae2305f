use crate::{
    Augmentation, DEFAULT_MAX_PIXELS, DataError, HeldOut, Preprocessing, Source,
    augmentation::{Rect, random_rect},
    files::retry,
    hash::Hasher,
    scan::{ImageFile, Scan, scan},
    split::{self, GroupBy},
    threads::start_threads,
    tree::Walk,
    words::{count, display_name, listed, shown, shown_path},
};
use image::{DynamicImage, imageops::FilterType};
use rand::rngs::ChaCha8Rng;
use rayon::prelude::*;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Image files on disk, with one subfolder per class. A file is read when its sample is requested.
///
/// An image is a file whose name ends in `.png`, `.jpg`, `.jpeg`, `.jfif`, `.jpe`, `.webp`, `.bmp`, `.gif`, `.tif` or
/// `.tiff`, in upper or lower case, in a class folder or in folders within it. Links are followed. Hidden files and
/// folders, and those that operating systems write, are left out.
///
/// Classes are sorted by name, or as numbers if all are numbers, and the images of a class by their path. A subfolder
/// named `train` or `training`, and one named `val`, `valid`, `validation` or `test`, are the two splits if they hold
/// folders of images and no image themselves. The held-out split may lack some classes.
///
/// Without a held-out split, the images whose hash is a multiple of five are held out. The hash is the first eight
/// bytes of the SHA-256 checksum of the class and the path within its folder, separated by `/` and in the Unicode
/// normalization form C, as a big-endian number. Adding an image therefore moves no other image, except in a class of
/// few images: one of these is always trained on, and one is held out if there are at least two.
#[derive(Clone, Debug)]
pub struct Folder {
    root: Arc<Path>,
    files: Vec<ImageFile>,
    classes: Arc<Vec<String>>,
    preprocessing: Preprocessing,
    max_pixels: u64,
}

/// How a folder is opened.
#[derive(Clone, Debug)]
pub(crate) struct FolderOptions {
    pub(crate) preprocessing: Preprocessing,
    pub(crate) group_by: GroupBy,
    /// The maximum number of broken images to leave out.
    pub(crate) skip_broken: usize,
    /// The maximum number of pixels of an image.
    pub(crate) max_pixels: u64,
}

impl From<Preprocessing> for FolderOptions {
    fn from(preprocessing: Preprocessing) -> Self {
        Self { preprocessing, group_by: GroupBy::default(), skip_broken: 0, max_pixels: DEFAULT_MAX_PIXELS }
    }
}

/// The two splits of a folder, and notes on them.
pub(crate) struct Opened {
    pub(crate) train: Folder,
    pub(crate) test: Folder,
    pub(crate) notes: Vec<String>,
    pub(crate) held_out: HeldOut,
}

impl Folder {
    /// The training images and the held-out images.
    ///
    /// # Errors
    /// If a split is empty, a class has no training images, or a folder cannot be read.
    pub fn open(dir: &Path, preprocessing: Preprocessing) -> Result<(Self, Self), DataError> {
        let opened = Self::open_with(dir, &preprocessing.into())?;
        Ok((opened.train, opened.test))
    }

    /// Like [`Self::open`], with options and notes.
    pub(crate) fn open_with(dir: &Path, options: &FolderOptions) -> Result<Opened, DataError> {
        let opened = Self::list(dir, options)?;
        let bad = |reason: String| DataError::Folder { path: dir.into(), reason };
        if let Some(class) = opened.train.counts().iter().position(|count| *count == 0) {
            let class = shown(&opened.train.classes[class]);
            return Err(bad(format!("has no training images in the subfolder {class}")));
        }
        if opened.test.files.is_empty() {
            let needs = "it needs two images, or two groups of images, of one class, or the subfolders train and val";
            return Err(bad(format!("has no images to hold out; {needs}")));
        }
        Ok(opened)
    }

    /// Like [`Self::open_with`], but allows classes without images and an empty held-out split.
    pub(crate) fn list(dir: &Path, options: &FolderOptions) -> Result<Opened, DataError> {
        options.preprocessing.validate().map_err(DataError::Preprocessing)?;
        let Scan { classes, mut train, mut held_out, mut notes, walk } = scan(dir)?;
        if options.skip_broken > 0 {
            let broken = broken(&walk, options, train.iter().chain(held_out.iter().flatten()))?;
            notes.extend(skipped(dir, broken, options.skip_broken)?);
            train.retain(|file| !broken.contains_key(&file.path));
            held_out.iter_mut().for_each(|files| files.retain(|file| !broken.contains_key(&file.path)));
        }
        if options.group_by.is_idle(train.iter()) {
            notes.push(format!(
                "{}: the group pattern matches none of {}",
                display_name(dir),
                count(train.len(), "image")
            ));
        }
        let (root, classes) = (Arc::from(&*walk.root.path), Arc::new(classes));
        let preprocessing = &options.preprocessing;
        let of = |files| Self {
            root: Arc::clone(&root),
            files,
            classes: classes.clone(),
            preprocessing: preprocessing.clone(),
            max_pixels: options.max_pixels,
        };
        let chosen = if held_out.is_some() { HeldOut::Given } else { HeldOut::Chosen };
        let (train, test) = match held_out {
            Some(held_out) => (of(train), of(held_out)),
            None => {
                let marks = split::hold_out_fifth(&train, &classes, &options.group_by);
                of(train).partition(&marks)
            }
        };
        Ok(Opened { train, test, notes, held_out: chosen })
    }

    /// Holds out about the same share of every class, those with the smallest hashes: `count` images, or more if images
    /// are grouped.
    pub(crate) fn hold_out(self, count: usize, group_by: &GroupBy) -> (Self, Self) {
        let marks = split::hold_out(&self.files, &self.classes, count, group_by);
        self.partition(&marks)
    }

    fn partition(self, held_out: &[bool]) -> (Self, Self) {
        let mut marks = held_out.iter();
        let (test, train) = self.files.into_iter().partition(|_| marks.next() == Some(&true));
        let test = Self {
            files: test,
            root: self.root.clone(),
            classes: self.classes.clone(),
            preprocessing: self.preprocessing.clone(),
            max_pixels: self.max_pixels,
        };
        (Self { files: train, ..self }, test)
    }

    /// The files, each with its label.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Path, usize)> {
        self.files.iter().map(|file| (&*file.path, file.label))
    }

    /// The number of images of each class.
    pub(crate) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        self.files.iter().for_each(|file| counts[file.label] += 1);
        counts
    }
}

impl Opened {
    /// All notes, including those on classes without images in one of the splits.
    pub(crate) fn notes(&self, dir: &Path) -> Vec<String> {
        let mut notes = self.notes.clone();
        for (folder, images) in [(&self.train, "training images"), (&self.test, "held-out images")] {
            let counts = folder.counts();
            let without: Vec<String> = counts
                .iter()
                .zip(&*folder.classes)
                .filter(|(count, _)| **count == 0)
                .map(|(_, class)| shown(class))
                .collect();
            let (classes, have) = if without.len() == 1 { ("class", "has") } else { ("classes", "have") };
            if !without.is_empty() {
                notes.push(format!("{}: the {classes} {} {have} no {images}", display_name(dir), listed(without)));
            }
        }
        notes
    }
}

/// The files that cannot be decoded, each with the reason.
fn broken<'a, 'b>(
    walk: &'a Walk,
    options: &FolderOptions,
    files: impl Iterator<Item = &'b ImageFile>,
) -> Result<&'a HashMap<PathBuf, String>, DataError> {
    start_threads()?;
    Ok(walk.broken.get_or_init(|| {
        let files: Vec<_> = files.collect();
        let failure = |file: &&ImageFile| {
            let error = options.preprocessing.decode(&file.path, options.max_pixels).err()?;
            Some((file.path.clone(), error.image_reason()))
        };
        files.par_iter().filter_map(failure).collect()
    }))
}

/// The note on the broken images that are left out. If there are more than `most`, the error lists the first of them.
fn skipped(dir: &Path, broken: &HashMap<PathBuf, String>, most: usize) -> Result<Option<String>, DataError> {
    let mut files: Vec<String> = broken
        .iter()
        .map(|(path, reason)| {
            let root = std::path::absolute(dir).unwrap_or_else(|_| dir.into());
            format!("{} ({reason})", shown_path(path.strip_prefix(root).unwrap_or(path)))
        })
        .collect();
    files.sort();
    let number = files.len();
    if number > most {
        return Err(DataError::Broken { path: dir.into(), number, most, first: listed(files) });
    }
    Ok((number > 0)
        .then(|| format!("{}: skipped {}: {}", display_name(dir), count(number, "broken image"), listed(files))))
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
        let ImageFile { path, label, .. } = &self.files[index];
        pixels.copy_from_slice(&self.preprocessing.read_up_to(path, self.max_pixels)?);
        Ok(*label)
    }

    /// The path within the folder, separated by `/`.
    fn name(&self, index: usize) -> Option<String> {
        let path = &self.files[index].path;
        let parts = path.strip_prefix(&self.root).unwrap_or(path).iter().map(|part| part.to_string_lossy());
        Some(parts.collect::<Vec<_>>().join("/"))
    }

    /// A hash of the class, of the path within the class folder, and of the size of the file.
    fn identity(&self, index: usize) -> Result<u64, DataError> {
        let ImageFile { path, label, name } = &self.files[index];
        let metadata = retry(|| fs::metadata(path));
        let metadata = metadata.map_err(|source| DataError::Io { action: "read", path: path.clone(), source })?;
        let mut hasher = Hasher::default();
        [self.classes[*label].as_bytes(), name.as_bytes()].iter().for_each(|part| hasher.write(part));
        hasher.write(&metadata.len().to_le_bytes());
        Ok(hasher.finish())
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
        let ImageFile { path, label, .. } = &self.files[index];
        let image = self.preprocessing.decode(path, self.max_pixels)?;
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
        folder.files.iter().map(|file| format!("{}:{}", file.label, file.name)).collect()
    }

    fn unnormalized() -> Preprocessing {
        Preprocessing { resize: 8, crop: 8, mean: vec![0.0; 3], std: vec![1.0; 3], ignore_exif: false }
    }

    fn skipping(skip_broken: usize) -> FolderOptions {
        FolderOptions { skip_broken, ..unnormalized().into() }
    }

    #[test]
    fn images_are_read_with_their_label_and_name() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["owl", "cat"] {
            (0..6).for_each(|i| write(dir.path().join(class).join(format!("day/{i}.PNG")), 10 * i));
        }
        let (train, test) = Folder::open(dir.path(), unnormalized()).unwrap();
        assert_eq!(train.class_names().unwrap(), ["cat", "owl"]);
        assert_eq!(train.len() + test.len(), 12);
        let at = train.files.iter().position(|file| file.label == 1).unwrap();
        let value = f32::from(train.files[at].name.as_bytes()[4] - b'0') * 10.0 / 255.0;
        assert_eq!(train.name(at).unwrap(), format!("owl/{}", train.files[at].name));
        let mut pixels = vec![0.0; 3 * 64];
        assert_eq!(train.read(at, &mut pixels).unwrap(), 1);
        assert!(pixels.iter().all(|x| (x - value).abs() < 1e-6));
        let augmentation = Augmentation { resized_crop: Some(0.1), flip: true, ..Augmentation::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(train.read_augmented(at, &augmentation, &mut rng, &mut pixels).unwrap(), 1);
        assert!(pixels.iter().all(|x| (x - value).abs() < 0.01));
    }

    #[test]
    fn the_folders_own_splits_are_used_and_missing_images_are_told() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("train/a/1.jpg"), 1);
        write(dir.path().join("train/b/2.jpeg"), 1);
        write(dir.path().join("val/b/3.png"), 1);
        let opened = Folder::open_with(dir.path(), &skipping(0)).unwrap();
        assert_eq!(
            (names(&opened.train), names(&opened.test)),
            (vec!["0:1.jpg".into(), "1:2.jpeg".into()], vec!["1:3.png".to_string()])
        );
        assert_eq!(opened.test.name(0).unwrap(), "val/b/3.png");
        assert!(opened.notes(dir.path()).last().unwrap().ends_with(": the class a has no held-out images"));

        let error = |dir: &Path| Folder::open(dir, unnormalized()).unwrap_err().to_string();
        assert!(error(&dir.path().join("nowhere")).ends_with("does not exist"));
        write(dir.path().join("few/a/1.png"), 1);
        write(dir.path().join("few/b/1.png"), 1);
        assert!(error(&dir.path().join("few")).contains("has no images to hold out; it needs two images, or"));
        fs::create_dir(dir.path().join("few/c")).unwrap();
        assert!(error(&dir.path().join("few")).ends_with("has no training images in the subfolder c"));
    }

    #[test]
    fn broken_images_are_skipped_up_to_a_number_and_named() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            (0..6).for_each(|i| write(dir.path().join(class).join(format!("{i}.png")), 10 * i));
        }
        let whole = Folder::open_with(dir.path(), &skipping(1)).unwrap();
        assert_eq!(whole.train.len() + whole.test.len(), 12);
        fs::write(dir.path().join("a/3.png"), "").unwrap();
        fs::write(dir.path().join("b/4.png"), "no image").unwrap();
        let error = Folder::open_with(dir.path(), &skipping(1)).err().unwrap().to_string();
        let listed = "a/3.png (is empty) and b/4.png (is neither PNG, JPEG, WebP, BMP, GIF nor TIFF)";
        assert!(error.ends_with(&format!("has 2 broken images, more than the 1 to skip: {listed}")), "{error}");
        let opened = Folder::open_with(dir.path(), &skipping(2)).unwrap();
        assert!(opened.notes[0].ends_with(&format!("skipped 2 broken images: {listed}")), "{:?}", opened.notes);
        let mut pixels = vec![0.0; 3 * 64];
        for folder in [&opened.train, &opened.test] {
            (0..folder.len()).for_each(|i| assert!(folder.read(i, &mut pixels).is_ok()));
        }
        assert_eq!(opened.train.len() + opened.test.len(), 10);
    }
}
