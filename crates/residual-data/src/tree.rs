//! The walk through a folder.

use crate::DataError;
use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};
use unicode_normalization::UnicodeNormalization;

/// A folder with the images and the folders in it, both sorted by name.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) path: PathBuf,
    /// The folder's name in the Unicode normalization form C.
    pub(crate) name: String,
    pub(crate) images: Vec<Image>,
    pub(crate) folders: Vec<Tree>,
}

/// A file with the extension of an image format.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Image {
    /// The name in the normalization form C.
    pub(crate) name: String,
    /// The file's own name, if it differs.
    own_name: Option<OsString>,
}

impl Image {
    fn new(own_name: &OsStr) -> Self {
        let name = nfc(&own_name.to_string_lossy());
        Self { own_name: (own_name != OsStr::new(&name)).then(|| own_name.into()), name }
    }

    pub(crate) fn path_in(&self, folder: &Tree) -> PathBuf {
        folder.path.join(self.own_name.as_deref().unwrap_or(OsStr::new(&self.name)))
    }
}

impl Tree {
    /// Whether there is an image in this folder or below.
    pub(crate) fn has_images(&self) -> bool {
        !self.images.is_empty() || self.folders.iter().any(Self::has_images)
    }
}

/// The files that a walk skips.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    /// Hidden files and folders, and those that operating systems and file managers write.
    pub(crate) hidden: usize,
    /// The number of images in unsupported formats, by extension in lower case.
    pub(crate) formats: BTreeMap<String, usize>,
    /// Archives and compressed files.
    pub(crate) archives: Vec<PathBuf>,
    /// FIFOs, sockets and devices, which are never read.
    pub(crate) irregular: usize,
    /// All other files that are not images.
    pub(crate) others: usize,
    /// Links whose target does not exist, or is a folder that contains the link.
    pub(crate) links: usize,
}

/// A folder and everything below it.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) root: Tree,
    pub(crate) left_out: LeftOut,
    /// The broken images in the class folders, each with the reason. Set once all images have been decoded.
    pub(crate) broken: OnceLock<HashMap<PathBuf, String>>,
    /// Every folder, with its modification time.
    folders: Vec<(PathBuf, Option<SystemTime>)>,
    began: SystemTime,
}

const IMAGES: [&str; 10] = ["png", "jpg", "jpeg", "jfif", "jpe", "webp", "bmp", "gif", "tif", "tiff"];
const UNREAD: [&str; 33] = [
    "heic", "heif", "avif", "svg", "raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "pef", "srw", "psd",
    "xcf", "jp2", "j2k", "jxl", "jxr", "ico", "icns", "tga", "exr", "hdr", "pcx", "ppm", "pgm", "pbm", "pnm", "qoi",
    "dds",
];
const ARCHIVES: [&str; 8] = ["zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar"];
/// Files and folders that Windows, macOS and network drives create. Names that begin with a dot are hidden as well.
const SYSTEM: [&str; 7] =
    ["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "@eadir"];

const MAX_DEPTH: usize = 32;
/// Links can make a tree exponentially large.
const MAX_FOLDERS: usize = 1_000_000;

/// Whether a file is an archive or compressed, judged by its extension, such as `.tar.gz`.
pub(crate) fn is_archive(path: &Path) -> bool {
    ending(path).is_some_and(|ending| ARCHIVES.contains(&&*ending))
}

/// Checks that the path is that of a folder, not of a file or an archive.
pub(crate) fn check_is_folder(path: &Path) -> Result<(), DataError> {
    if path.is_dir() {
        return Ok(());
    }
    let is_packed = path.is_file() && is_archive(path);
    let reason = if !path.exists() {
        "does not exist"
    } else if is_packed {
        "is an archive; unpack it, and give the folder of its content"
    } else {
        "is not a directory"
    };
    Err(DataError::Folder { path: path.into(), reason: reason.into() })
}

fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// Walks through a folder and follows links to files and folders, but not into a folder that contains the link.
///
/// The last walk of the process is reused while no folder in it has changed, so that a training with 100,000 files
/// lists them once.
pub(crate) fn walk(dir: &Path) -> Result<Arc<Walk>, DataError> {
    static LAST: Mutex<Option<Arc<Walk>>> = Mutex::new(None);
    let dir = &std::path::absolute(dir).unwrap_or_else(|_| dir.into());
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(walk) = last.as_ref().filter(|walk| walk.root.path == *dir && walk.is_current()) {
        return Ok(walk.clone());
    }
    let mut walker = Walker { left_out: LeftOut::default(), folders: Vec::new(), above: Vec::new() };
    let began = SystemTime::now();
    let real = fs::canonicalize(dir).map_err(unreadable(dir))?;
    let root = walker.folder(dir.clone(), nfc(&dir.file_name().unwrap_or_default().to_string_lossy()), real)?;
    let walk =
        Arc::new(Walk { root, left_out: walker.left_out, broken: OnceLock::new(), folders: walker.folders, began });
    *last = Some(walk.clone());
    Ok(walk)
}

impl Walk {
    /// Whether the folders still hold what they held during the walk. On some file systems the modification time has a
    /// resolution of two seconds, so a folder that changed just before the walk may have changed again unnoticed.
    fn is_current(&self) -> bool {
        const COARSEST: Duration = Duration::from_secs(2);
        let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        self.folders
            .iter()
            .all(|(path, then)| then.is_some_and(|then| then + COARSEST < self.began) && modified(path) == *then)
    }
}

/// The Unicode normalization form C of a name, so that the same name is equal on every file system.
pub(crate) fn nfc(name: &str) -> String {
    name.nfc().collect()
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    move |error| DataError::Folder { path: path.into(), reason: format!("cannot be read: {error}") }
}

struct Walker {
    left_out: LeftOut,
    folders: Vec<(PathBuf, Option<SystemTime>)>,
    /// The folders from the root to the current one, with links resolved.
    above: Vec<PathBuf>,
}

impl Walker {
    /// `real` is the path with links resolved.
    fn folder(&mut self, path: PathBuf, name: String, real: PathBuf) -> Result<Tree, DataError> {
        let bad = |reason: String| DataError::Folder { path: path.clone(), reason };
        if self.above.len() == MAX_DEPTH {
            return Err(bad(format!("lies {MAX_DEPTH} folders deep, which is too deep")));
        }
        if self.folders.len() == MAX_FOLDERS {
            return Err(bad(format!("is one of more than {MAX_FOLDERS} folders, which are too many")));
        }
        // Read before the entries, so that the next walk notices a change made in the meantime.
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        self.folders.push((path.clone(), modified));
        self.above.push(real.clone());
        let (mut images, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&path).map_err(unreadable(&path))? {
            let entry = entry.map_err(unreadable(&path))?;
            let (path, file_name) = (entry.path(), entry.file_name());
            let lossy = file_name.to_string_lossy();
            if lossy.starts_with('.') || SYSTEM.contains(&&*lossy.to_lowercase()) {
                self.left_out.hidden += 1;
                continue;
            }
            let mut kind = entry.file_type().map_err(unreadable(&path))?;
            let mut real = real.join(&file_name);
            if kind.is_symlink() {
                let target =
                    fs::canonicalize(&path).and_then(|target| Ok((fs::metadata(&target)?.file_type(), target)));
                match target {
                    Ok((target_kind, target)) if !self.above.contains(&target) => (kind, real) = (target_kind, target),
                    _ => {
                        self.left_out.links += 1;
                        continue;
                    }
                }
            }
            if kind.is_dir() {
                let Some(name) = file_name.to_str() else {
                    return Err(DataError::Folder { path, reason: "has a name that is not valid Unicode".into() });
                };
                folders.push(self.folder(path, nfc(name), real)?);
            } else {
                match ending(&path) {
                    _ if !kind.is_file() => self.left_out.irregular += 1,
                    Some(ending) if IMAGES.contains(&&*ending) => images.push(Image::new(&file_name)),
                    Some(ending) if UNREAD.contains(&&*ending) => {
                        *self.left_out.formats.entry(ending).or_default() += 1;
                    }
                    Some(ending) if ARCHIVES.contains(&&*ending) => self.left_out.archives.push(path),
                    _ => self.left_out.others += 1,
                }
            }
        }
        self.above.pop();
        images.sort();
        folders.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        Ok(Tree { path, name, images, folders })
    }
}
