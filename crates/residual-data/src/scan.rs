//! The classes and the images of a folder.

use crate::{
    DataError,
    layout::{Layout, TRAIN, is_named},
    tree::{self, LeftOut, Tree, Walk},
    words::{count, display_name, listed, shown, shown_path},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An image file of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageFile {
    pub(crate) path: PathBuf,
    pub(crate) label: usize,
    /// The path within the class folder, separated by `/` and in the Unicode normalization form C.
    pub(crate) name: String,
}

/// The classes and the images of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) classes: Vec<String>,
    /// Sorted by class and name.
    pub(crate) train: Vec<ImageFile>,
    /// The images of the folder's own held-out split, if it has one.
    pub(crate) held_out: Option<Vec<ImageFile>>,
    /// How the folder was interpreted, and what was left out.
    pub(crate) notes: Vec<String>,
    /// The walk that found the images.
    pub(crate) walk: Arc<Walk>,
}

/// Lists the images of a folder.
///
/// # Errors
/// If the folder cannot be read, contains no images in class folders, contains them one level too deep, or has a
/// held-out class without a training folder.
pub(crate) fn scan(dir: &Path) -> Result<Scan, DataError> {
    let bad = |reason: String| DataError::Folder { path: dir.into(), reason };
    tree::check_is_folder(dir)?;
    let walk = tree::walk(dir)?;
    let layout = Layout::of(&walk.root);
    let root = Root { name: display_name(dir), dir };
    if !layout.classes.iter().any(|class| class.has_images()) {
        return Err(bad(root.without_classes(&walk.root, &walk.left_out)));
    }
    let empty = walk.root.folders.iter().find(|folder| is_named(folder, &TRAIN) && !folder.has_images());
    if let (None, Some(empty)) = (layout.train, empty) {
        let unread = if walk.left_out.formats.is_empty() { String::new() } else { unread(&walk.left_out) };
        return Err(bad(format!("has no training images in its subfolder {}{unread}", shown(&empty.name))));
    }
    if let Some(inner) = layout.only_folder(&walk.root) {
        return Err(bad(format!("has all its images in one folder; give {} instead", shown_path(&inner.path))));
    }

    let mut notes = layout.notes(&walk.root);
    let (classes, class_notes) = class_names(&layout.classes);
    notes.extend(class_notes);
    let train = files(&layout.classes, &classes).0;
    let held_out = match layout.held_out {
        Some(split) => {
            let (files, unknown) = files(&split.folders.iter().collect::<Vec<_>>(), &classes);
            if let Some(unknown) = unknown {
                let place = layout.train.map_or("beside it".into(), |train| format!("in {}", shown(&train.name)));
                let train = layout.classes.iter().find(|class| is_named(class, &TRAIN));
                let why = train.map_or(String::new(), |train| {
                    format!("; {} counts as a class, because it holds images itself", shown(&train.name))
                });
                return Err(DataError::Folder {
                    path: dir.join(split.path.file_name().unwrap_or_default()).join(&unknown.name),
                    reason: format!("is a class without a subfolder {place}{why}"),
                });
            }
            Some(files)
        }
        None => None,
    };
    notes.extend(left_out(&walk.left_out));
    let notes = notes.into_iter().map(|note| format!("{}: {note}", root.name)).collect();
    Ok(Scan { classes, train, held_out, notes, walk: walk.clone() })
}

/// The image files in a folder and in the folders within it, sorted by their paths.
///
/// Which files are images depends on their endings: see [`Folder`](crate::Folder).
///
/// # Errors
/// If the folder cannot be read.
pub fn image_files(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    fn add(tree: &Tree, files: &mut Vec<PathBuf>) {
        files.extend(tree.images.iter().map(|image| image.path_in(tree)));
        tree.folders.iter().for_each(|folder| add(folder, files));
    }
    tree::check_is_folder(dir)?;
    let mut files = Vec::new();
    add(&tree::walk(dir)?.root, &mut files);
    files.sort();
    Ok(files)
}

/// The sorted names of the classes, and notes on them.
fn class_names(folders: &[&Tree]) -> (Vec<String>, Vec<String>) {
    let mut notes = Vec::new();
    let mut names: Vec<String> = folders.iter().map(|folder| folder.name.clone()).collect();
    names.sort();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        notes.push(format!(
            "merged two folders named {} into one class: their names differ only in Unicode normalisation",
            shown(&pair[0])
        ));
    }
    names.dedup();
    let number = |name: &String| name.parse::<u64>().ok().filter(|_| name.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(numbers) = names.iter().map(number).collect::<Option<Vec<_>>>() {
        if !numbers.is_sorted() {
            notes.push("sorted the classes as numbers".into());
        }
        names.sort_by_cached_key(|name| (number(name), name.clone()));
    }
    let mut folded: Vec<(String, &String)> = names.iter().map(|name| (name.to_lowercase(), name)).collect();
    folded.sort();
    for pair in folded.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        notes.push(format!("the classes {} and {} differ only in case", shown(pair[0].1), shown(pair[1].1)));
    }
    (names, notes)
}

/// The images in the class folders, sorted by class and name, and the first folder with images that is not a class.
fn files<'a>(folders: &[&'a Tree], classes: &[String]) -> (Vec<ImageFile>, Option<&'a Tree>) {
    fn add(tree: &Tree, label: usize, above: &str, files: &mut Vec<ImageFile>) {
        for image in &tree.images {
            files.push(ImageFile { path: image.path_in(tree), label, name: format!("{above}{}", image.name) });
        }
        for folder in &tree.folders {
            add(folder, label, &format!("{above}{}/", folder.name), files);
        }
    }
    let labels: HashMap<&str, usize> = classes.iter().enumerate().map(|(label, name)| (&**name, label)).collect();
    let (mut all, mut unknown) = (Vec::new(), None);
    for folder in folders {
        match labels.get(&*folder.name) {
            Some(&label) => add(folder, label, "", &mut all),
            None if folder.has_images() => unknown = unknown.or(Some(*folder)),
            None => {}
        }
    }
    all.sort_by(|a, b| (a.label, &a.name, &a.path).cmp(&(b.label, &b.name, &b.path)));
    (all, unknown)
}

/// The folder as the user named it.
struct Root<'a> {
    name: String,
    dir: &'a Path,
}

impl Root<'_> {
    /// Why a folder without class folders cannot be used, and which folder may have been meant.
    fn without_classes(&self, root: &Tree, left_out: &LeftOut) -> String {
        if !root.images.is_empty() {
            let parent = std::path::absolute(self.dir).ok().and_then(|dir| dir.parent().map(Path::to_path_buf));
            let parent = parent.map_or("the folder above".into(), |parent| shown_path(&parent));
            return format!("has images, but no class folders; if it is a class itself, give {parent}");
        }
        if !left_out.formats.is_empty() {
            return format!("has no training images{}", unread(left_out));
        }
        if let Some(archive) = left_out.archives.first() {
            let archive = shown(&archive.file_name().unwrap_or_default().to_string_lossy());
            return format!("has no training images, but the archive {archive}; unpack it");
        }
        "has no training images; expected one subfolder of images per class".into()
    }
}

fn left_out(left_out: &LeftOut) -> Vec<String> {
    let LeftOut { hidden, formats, archives, irregular, others, links } = left_out;
    let mut notes = Vec::new();
    if !formats.is_empty() {
        notes.push(format!("left out {} in unsupported formats", by_ending(left_out)));
    }
    if *links > 0 {
        notes.push(format!("left out {}", count(*links, "broken or circular link")));
    }
    if *irregular > 0 {
        notes.push(format!("left out {}, such as a FIFO or a device", count(*irregular, "irregular file")));
    }
    let others = others + archives.len();
    if others > 0 {
        notes.push(format!("left out {} without an image extension", count(others, "file")));
    }
    if *hidden > 0 {
        notes.push(format!("left out {}", count(*hidden, "hidden or system file")));
    }
    notes
}

/// The end of an error message about missing images.
fn unread(left_out: &LeftOut) -> String {
    format!("; found {} in unsupported formats", by_ending(left_out))
}

/// Counts by extension, such as `3 .heic and 1 .svg files`.
fn by_ending(left_out: &LeftOut) -> String {
    let total: usize = left_out.formats.values().sum();
    let counts = listed(left_out.formats.iter().map(|(ending, count)| format!("{count} .{ending}")));
    format!("{counts} {}", if total == 1 { "file" } else { "files" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Creates empty files: listing does not read them.
    fn touch(dir: &Path, files: &[&str]) {
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    /// A folder `photos` that is removed with its parent.
    struct Photos(tempfile::TempDir);

    impl Photos {
        fn path(&self) -> PathBuf {
            self.0.path().join("photos")
        }
    }

    fn folder(files: &[&str]) -> Photos {
        let photos = Photos(tempfile::tempdir().unwrap());
        fs::create_dir(photos.path()).unwrap();
        touch(&photos.path(), files);
        photos
    }

    fn names(files: &[ImageFile]) -> Vec<String> {
        files.iter().map(|file| format!("{}:{}", file.label, file.name)).collect()
    }

    fn error(files: &[&str]) -> String {
        let dir = folder(files);
        let error = scan(&dir.path()).unwrap_err().to_string();
        error.replace(&dir.path().display().to_string(), "photos")
    }

    #[test]
    fn images_in_folders_within_a_class_are_found() {
        let dir = folder(&["b/1.PNG", "a/2024/may/3.jpg", "a/2.webp", "a/2024/1.tiff"]);
        let scan = scan(&dir.path()).unwrap();
        assert_eq!(scan.classes, ["a", "b"]);
        assert_eq!(names(&scan.train), ["0:2.webp", "0:2024/1.tiff", "0:2024/may/3.jpg", "1:1.PNG"]);
        assert!(scan.held_out.is_none() && scan.notes.is_empty(), "{:?}", scan.notes);
    }

    #[test]
    fn val_is_preferred_to_test_and_named() {
        let dir = folder(&["Training/a/1.png", "test/a/2.png", "VAL/a/3.png", "docs/x/4.png", "docs/5.txt"]);
        let scan = scan(&dir.path()).unwrap();
        assert_eq!(
            (names(&scan.train), names(&scan.held_out.unwrap())),
            (vec!["0:1.png".into()], vec!["0:3.png".to_string()])
        );
        let took = "photos: using Training as the training split and VAL as the held-out split; ignoring docs and test";
        assert_eq!(scan.notes, [took, "photos: left out 1 file without an image extension"]);
    }

    #[test]
    fn a_split_beside_class_folders_is_held_out() {
        let dir = folder(&["cat/1.png", "dog/2.png", "test/cat/3.png"]);
        let scan = scan(&dir.path()).unwrap();
        assert_eq!(
            (scan.classes, names(&scan.held_out.unwrap())),
            (vec!["cat".into(), "dog".to_string()], vec!["0:3.png".into()])
        );
        assert_eq!(scan.notes, ["photos: using test as the held-out split and the other folders as the classes"]);
        let unknown = error(&["cat/1.png", "dog/2.png", "test/owl/3.png"]);
        assert_eq!(unknown, "photos/test/owl is a class without a subfolder beside it");
        let unknown = error(&["train/cat/1.png", "test/owl/3.png"]);
        assert_eq!(unknown, "photos/test/owl is a class without a subfolder in train");
    }

    #[test]
    fn folders_of_images_are_classes_whatever_their_name() {
        let dir = folder(&["car/1.png", "test/2.png", "train/3.png"]);
        let scan = scan(&dir.path()).unwrap();
        assert_eq!((&scan.classes[..], scan.held_out), (&["car".to_string(), "test".into(), "train".into()][..], None));
        assert_eq!(
            scan.notes,
            ["test", "train"].map(|name| format!(
                "photos: treating {name} as a class, not a split, because it contains images directly"
            ))
        );
    }

    #[test]
    fn a_training_split_alone_is_used_without_unlabelled_images() {
        let dir = folder(&["train/a/1.png", "train/b/2.png", "test/3.png"]);
        let scan = scan(&dir.path()).unwrap();
        assert_eq!((scan.classes.len(), scan.held_out), (2, None));
        let path = dir.path().join("test");
        let note = format!(
            "photos: taking both splits from train, because test holds no class folders; ignoring test (to use it alone, \
             give {})",
            path.display()
        );
        assert_eq!(scan.notes, [note]);
        let dir = folder(&["Training/a/1.png", "Training/b/2.png", "Testing/a/3.png"]);
        let notes = super::scan(&dir.path()).unwrap().notes;
        assert!(notes[0].contains("because no folder beside it is named val, valid, validation or test"), "{notes:?}");
    }

    #[test]
    fn what_looks_like_splits_or_one_level_too_deep_is_told() {
        let dir = folder(&["seg_train/seg_train/a/1.png", "seg_train/seg_train/b/2.png", "seg_test/seg_test/a/3.png"]);
        fs::create_dir_all(dir.path().join("seg_test/seg_test/b")).unwrap();
        fs::write(dir.path().join("seg_test/seg_test/b/4.png"), "").unwrap();
        let expected = "photos: the classes seg_test and seg_train hold folders of the same names; if they are splits, \
                        name them train and val";
        assert_eq!(scan(&dir.path()).unwrap().notes, [expected]);
        // Folders within classes are common: only one class may have them, or each may have different ones.
        let dir = folder(&["cat/2023/1.png", "cat/2024/2.png", "dog/2024/3.png", "dog/4.png"]);
        assert!(scan(&dir.path()).unwrap().notes.is_empty());
        let deep = error(&["a/b/cats/1.png", "a/b/dogs/2.png"]);
        assert_eq!(deep, "photos has all its images in one folder; give photos/a/b instead");
        let stray = error(&["train/0.png", "train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png"]);
        assert!(
            stray.ends_with(
                "is a class without a subfolder beside it; train counts as a class, because it holds images itself"
            ),
            "{stray}"
        );
    }

    #[test]
    fn a_folder_of_the_wrong_level_is_refused_with_the_right_one() {
        let deep = "photos has all its images in one folder; give photos/set instead";
        assert_eq!(error(&["set/a/1.png", "set/b/1.png", "readme.txt"]), deep);
        assert_eq!(error(&["set/train/a/1.png", "set/val/a/1.png"]), deep);
        assert_eq!(error(&["val/a/1.png", "val/b/1.png"]), deep.replace("set", "val"));
        let shallow = error(&["1.png", "2.png"]);
        assert!(
            shallow.starts_with("photos has images, but no class folders; if it is a class itself, give "),
            "{shallow}"
        );
        assert_eq!(error(&[]), "photos has no training images; expected one subfolder of images per class");
        assert_eq!(
            error(&["a/1.HEIC", "b/2.heic"]),
            "photos has no training images; found 2 .heic files in unsupported formats"
        );
        let dir = folder(&["train/a/1.heic", "val/a/1.png", "val/b/1.png"]);
        let empty = scan(&dir.path()).unwrap_err().to_string();
        let expected = "has no training images in its subfolder train; found 1 .heic file in unsupported formats";
        assert!(empty.ends_with(expected), "{empty}");
        assert_eq!(error(&["a.tar.gz"]), "photos has no training images, but the archive a.tar.gz; unpack it");
        let dir = folder(&["a.zip"]);
        assert!(
            scan(&dir.path().join("a.zip"))
                .unwrap_err()
                .to_string()
                .ends_with("is an archive; unpack it, and give the folder of its content")
        );
    }

    #[test]
    fn what_systems_leave_is_counted_and_never_a_class() {
        let dir = folder(&[
            ".DS_Store",
            "__MACOSX/a/._1.png",
            ".ipynb_checkpoints/1.png",
            "a/1.png",
            "a/._1.png",
            "a/Thumbs.db",
            "a/desktop.ini",
            "a/2.heic",
            "a/3.svg",
            "a/notes.txt",
            "b/1.png",
            "0.png",
        ]);
        let scan = scan(&dir.path()).unwrap();
        assert_eq!((&scan.classes[..], scan.train.len()), (&["a".to_string(), "b".into()][..], 2));
        assert_eq!(
            scan.notes,
            [
                "photos: left out 1 image outside the class folders",
                "photos: left out 1 .heic and 1 .svg files in unsupported formats",
                "photos: left out 1 file without an image extension",
                "photos: left out 6 hidden or system files",
            ]
        );
    }

    #[test]
    fn numbers_are_sorted_as_numbers() {
        let dir = folder(&["10/1.png", "9/1.png", "2/1.png"]);
        let found = scan(&dir.path()).unwrap();
        assert_eq!(
            (&found.classes[..], &found.notes[..]),
            (
                &["2".to_string(), "9".into(), "10".into()][..],
                &["photos: sorted the classes as numbers".to_string()][..]
            )
        );
    }

    /// The file systems of other platforms may not distinguish these names.
    #[cfg(target_os = "linux")]
    #[test]
    fn spellings_of_a_name_are_one_class() {
        let dir = folder(&["Cat/1.png", "cat/1.png", "caf\u{e9}/1.png", "cafe\u{301}/2.png"]);
        let found = scan(&dir.path()).unwrap();
        assert_eq!(found.classes, ["Cat", "caf\u{e9}", "cat"]);
        assert_eq!(names(&found.train), ["0:1.png", "1:1.png", "1:2.png", "2:1.png"]);
        assert!(found.notes[0].contains("two folders named caf\u{e9} into one class"), "{:?}", found.notes);
        assert_eq!(found.notes[1], "photos: the classes Cat and cat differ only in case");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles() {
        use std::os::unix::fs::symlink;
        let dir = folder(&["a/1.png", "b/1.png"]);
        let more = folder(&["2.png", "deep/3.png"]);
        symlink(more.path(), dir.path().join("a/more")).unwrap();
        symlink(dir.path().join("b/1.png"), dir.path().join("a/link.png")).unwrap();
        symlink(dir.path(), dir.path().join("a/circle")).unwrap();
        symlink(more.path(), more.path().join("deep/circle")).unwrap();
        symlink("nowhere", dir.path().join("a/gone.png")).unwrap();
        let scan = scan(&dir.path()).unwrap();
        assert_eq!(names(&scan.train), ["0:1.png", "0:link.png", "0:more/2.png", "0:more/deep/3.png", "1:1.png"]);
        assert_eq!(scan.notes, ["photos: left out 3 broken or circular links"]);
    }

    #[test]
    fn too_deep_a_folder_is_refused() {
        let deep = format!("{}1.png", "x/".repeat(40));
        assert!(error(&[&deep]).ends_with("lies 32 folders deep, which is too deep"));
    }

    #[test]
    fn a_changed_folder_is_listed_again() {
        let dir = folder(&["a/1.png"]);
        assert_eq!(scan(&dir.path()).unwrap().train.len(), 1);
        touch(&dir.path(), &["a/2.png", "b/1.png"]);
        assert_eq!(scan(&dir.path()).unwrap().train.len(), 3);
    }
}
