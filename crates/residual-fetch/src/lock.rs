use crate::{FetchError, regular::without_links};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// A locked file, which only one process at a time can hold. The lock is held until this value is dropped.
///
/// On a file system without support for locks, every process gets the lock.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Whether the path still leads to the locked file. It does not if the file, or a directory above it, was removed,
    /// renamed or replaced. On systems other than Unix, only whether the file exists.
    pub fn is_in_place(&self) -> bool {
        same_file(&self.file, &self.path)
    }

    /// Removes the lock file and releases the lock.
    ///
    /// If the lock is for creating a file or directory, call this only once it exists, so that the next process to
    /// acquire the lock finds it.
    pub fn remove(self) {
        // A lock file is empty.
        if self.is_in_place() && self.file.metadata().is_ok_and(|file| file.len() == 0) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Acquires the lock for creating a file or directory. The lock is a file next to it with the additional extension
/// `.lock`.
///
/// # Errors
/// If another process holds the lock, or the lock file cannot be written.
pub fn lock(to: &Path) -> Result<Lock, FetchError> {
    let busy = || FetchError::Busy { path: to.into() };
    acquire(to.with_added_extension("lock"))?.ok_or_else(busy)
}

/// Acquires the lock for writing files into a directory. The lock is the file `.lock` in it.
///
/// # Errors
/// If another process holds the lock, or the lock file cannot be written.
pub fn lock_directory(directory: &Path) -> Result<Lock, FetchError> {
    let locked = || FetchError::Locked { path: directory.into() };
    acquire(directory.join(LOCK))?.ok_or_else(locked)
}

/// The name of the lock file in a directory.
pub const LOCK: &str = ".lock";

/// The number of times that a file is opened again because its previous holder has removed it.
const ATTEMPTS: usize = 100;

/// Locks a file, which is created if necessary. Returns `None` if another process holds the lock.
fn acquire(path: PathBuf) -> Result<Option<Lock>, FetchError> {
    for _ in 0..ATTEMPTS {
        let file = without_links(File::options().write(true).create(true).truncate(false)).open(&path);
        let file = file.map_err(FetchError::io("create", &path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
                return Err(FetchError::io("lock", &path)(error));
            }
            _ => {}
        }
        // The previous holder may have removed the file after this process opened it. Then a third process could lock a
        // new file of the same name.
        if same_file(&file, &path) {
            return Ok(Some(Lock { path, file }));
        }
    }
    Ok(None)
}

/// Whether a path leads to an open file.
#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(found)) => (open.dev(), open.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_file(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_and_free_again_when_the_lock_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_directory(dir.path()).unwrap();
        let error = lock_directory(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("is locked by another process"), "{error}");
        drop(held);
        lock_directory(dir.path()).unwrap().remove();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_is_not_in_place_once_its_directory_is_removed_renamed_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        fs::create_dir(&a).unwrap();
        let held = lock_directory(&a).unwrap();
        assert!(held.is_in_place());
        fs::rename(&a, &b).unwrap();
        assert!(!held.is_in_place());
        // Another run in a directory of the same name.
        fs::create_dir(&a).unwrap();
        let other = lock_directory(&a).unwrap();
        assert!(!held.is_in_place() && other.is_in_place());
        held.remove();
        assert!(a.join(LOCK).exists() && b.join(LOCK).exists());
        fs::rename(&b, &a).unwrap_err();
        fs::remove_dir_all(&a).unwrap();
        assert!(!other.is_in_place());
    }
}
