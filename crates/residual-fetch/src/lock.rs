use crate::{FetchError, regular::without_links};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// A lock that allows only one process at a time to create a file or directory. It is held until this value is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _held: File,
}

impl Lock {
    /// Removes the lock file. Call this only once the locked file or directory exists, so that the next process to
    /// acquire the lock finds it.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Acquires the lock for creating a file or directory. The lock is a file next to it with the additional extension
/// `.lock`. On a file system without support for locks, every process acquires the lock.
///
/// # Errors
/// If another process holds the lock, or the lock file cannot be written.
pub fn lock(to: &Path) -> Result<Lock, FetchError> {
    let path = to.with_added_extension("lock");
    let file = without_links(File::options().write(true).create(true).truncate(false)).open(&path);
    let file = file.map_err(FetchError::io("create", &path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(FetchError::Busy { path: to.into() }),
        Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
            Err(FetchError::io("lock", &path)(error))
        }
        _ => Ok(Lock { path, _held: file }),
    }
}
