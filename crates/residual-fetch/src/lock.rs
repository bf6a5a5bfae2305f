use crate::FetchError;
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// The lock on a file or folder that only one process at a time may create. It is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _held: File,
}

impl Lock {
    /// Removes the lock file. Call this once the locked file or folder exists, so that a process which still acquires
    /// this lock finds it.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Acquires the lock for creating a file or folder. The lock is a file beside it with the added extension `.lock`. On a
/// file system without locks, every process acquires it.
///
/// # Errors
/// If another process holds the lock, or the lock file cannot be written.
pub fn lock(to: &Path) -> Result<Lock, FetchError> {
    let path = to.with_added_extension("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(FetchError::io("create", &path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(FetchError::Busy { path: to.into() }),
        Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
            Err(FetchError::io("lock", &path)(error))
        }
        _ => Ok(Lock { path, _held: file }),
    }
}
