use std::{
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Writes a file atomically: writes a temporary file in the same directory, syncs it to disk and renames it to `path`.
/// A reader sees either the old or the new content, even after a power failure.
///
/// # Errors
/// If the file cannot be written. The old content is then unchanged.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    Staged::write(path, content)?.publish()
}

/// A file that is complete on the disk, but under a temporary name. Files that belong together are all written before
/// the first one is published. One that is never published is removed.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    temporary: PathBuf,
}

impl Staged {
    /// Writes the content for `path` to a temporary file in the same directory and syncs it to disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(path: &Path, content: &[u8]) -> io::Result<Self> {
        Self::write_with(path, |file| file.write_all(content))
    }

    /// Like [`Self::write`], with content that a function writes piece by piece.
    ///
    /// # Errors
    /// If the function fails, or the file cannot be written.
    pub fn write_with<E: From<io::Error>>(
        path: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let temporary = temporary(path);
        let mut file = BufWriter::new(File::create_new(&temporary)?);
        let staged = Self { path: path.into(), temporary };
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        Ok(staged)
    }

    /// Renames the file to its path, which replaces an old one.
    ///
    /// # Errors
    /// If the file cannot be renamed. The old content is then unchanged.
    pub fn publish(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            // Makes the rename survive a power failure. Some file systems cannot sync a directory, so errors are
            // ignored.
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `publish` the name is free, and nobody else takes it.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A path beside `path` that no other thread, process or machine uses: `NAME.NUMBER.tmp`, with a random number of 16
/// hexadecimal digits. Process ids would not do, because processes in different containers may have the same id.
pub fn temporary(path: &Path) -> PathBuf {
    /// With the number, the names of file systems, of at most 255 bytes, hold as much.
    const LONG: usize = 230;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    if name.len() > LONG {
        name = name.to_string_lossy().chars().take(LONG / 4).collect::<String>().into();
    }
    name.push(format!(".{:016x}.tmp", RandomState::new().build_hasher().finish()));
    path.with_file_name(name)
}

/// Whether `path` is named like a path of [`temporary`].
pub fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = name.strip_suffix(".tmp").and_then(|name| Some(name.rsplit_once('.')?.1)).unwrap_or_default();
    number.len() == 16 && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Removes the temporary files that an interrupted [`write_atomic`] left in a directory. Call this only while no other
/// process writes to the directory.
pub fn remove_unfinished(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        if is_unfinished(&entry.path()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(write_atomic(&dir.path().join("missing/b"), b"x").is_err());
        // The rename fails if `path` is a directory.
        fs::create_dir(dir.path().join("c")).unwrap();
        assert!(write_atomic(&dir.path().join("c"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_staged_file_appears_when_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        drop(Staged::write(&path, b"never").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let staged = Staged::write(&path, b"new").unwrap();
        assert!(!path.exists());
        staged.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn temporary_names_differ() {
        let names: std::collections::HashSet<_> = (0..1000).map(|_| temporary(Path::new("a"))).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| is_unfinished(name)));
        assert!(!is_unfinished(Path::new("photo.cafe.tmp")));
    }

    #[test]
    fn only_unfinished_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.json", "notes.2024.tmp", "precious.tmp"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::write(temporary(&dir.path().join("b.json")), "x").unwrap();
        remove_unfinished(dir.path());
        remove_unfinished(&dir.path().join("missing"));
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.json", "notes.2024.tmp", "precious.tmp"]);
    }
}
