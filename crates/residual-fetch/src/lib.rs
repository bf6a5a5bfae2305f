//! Files that are there whole or not at all: downloads of published ones, such as weights and datasets, that resume and
//! are verified, and files that are written.
//!
//! ```
//! use residual_fetch::write_whole;
//!
//! let file = std::env::temp_dir().join("residual-fetch-doctest");
//! write_whole(&file, b"all of it, or the file as it was")?;
//! # std::fs::remove_file(file)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! ```no_run
//! use residual_fetch::{Checksum, Source, cache_dir, fetch};
//!
//! let weights = Source {
//!     url: "https://download.pytorch.org/models/resnet18-f37072fd.pth".into(),
//!     sha256: Checksum::Prefix("f37072fd".into()),
//! };
//! let to = cache_dir()?.join("resnet18-f37072fd.pth");
//! fetch(&weights, &to, &mut |progress| println!("{} of {:?} bytes", progress.done, progress.total))?;
//! # Ok::<(), residual_fetch::FetchError>(())
//! ```

mod cache;
mod checksum;
mod download;
mod error;
#[cfg(test)]
mod tests;
mod whole;

pub use cache::{cache_dir, mirror};
pub use checksum::{Checksum, sha256_file, verify};
pub use error::FetchError;
pub use whole::{is_unfinished, remove_unfinished, write_whole};

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is, by HTTP or HTTPS.
    pub url: String,
    /// What its SHA-256 checksum is.
    pub sha256: Checksum,
}

/// How far a download is. It falls back to 0 where a server cannot go on from the middle of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are there, those of an earlier attempt included.
    pub done: u64,
    /// Bytes there will be, if the server says so.
    pub total: Option<u64>,
}

/// What a fetch found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file was there and is the one published.
    Present,
    /// The file was downloaded.
    Downloaded,
}

/// Makes sure that a published file is at `to`, whose folder is created if need be.
///
/// What comes is kept beside the target under the ending `.part` and takes its name once it is whole and its checksum
/// holds. A transfer that breaks off is taken up a few times, and again by the next call. The environment's
/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are respected, except for this machine itself.
///
/// # Errors
/// If the file is not to be had or is not the one expected, if a file at `to` is another one (which stays), if another
/// process is downloading it (the ending `.lock` marks that), or if it cannot be written.
pub fn fetch(source: &Source, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, FetchError> {
    source.sha256.check()?;
    if present(to, &source.sha256)? {
        return Ok(Outcome::Present);
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
    }
    let held = lock(to)?;
    // Another process may have been done just before the lock was free.
    let outcome = if present(to, &source.sha256)? {
        Outcome::Present
    } else {
        download::download(source, to, progress)?;
        Outcome::Downloaded
    };
    // Only now does nobody need the lock any more: whoever still gets it finds the file.
    held.remove();
    Ok(outcome)
}

fn present(path: &Path, checksum: &Checksum) -> Result<bool, FetchError> {
    let there = path.try_exists().map_err(FetchError::io("read", path))?;
    if there {
        verify(path, checksum)?;
    }
    Ok(there)
}

/// A file beside what only one process may make at a time, held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _held: File,
}

impl Lock {
    /// Removes the file: for when what it guards is made, and whoever still holds it finds that.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Holds the lock of a file or folder that is to be made: its name with the ending `.lock`. A file system without locks
/// lets everyone in.
///
/// # Errors
/// If another process holds it, or the file cannot be written.
pub fn lock(to: &Path) -> Result<Lock, FetchError> {
    let path = beside(to, ".lock");
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

/// The path with an ending added to its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}
