//! Downloads published files, such as weights and datasets, and writes files atomically. Interrupted downloads resume,
//! and finished downloads are verified by checksum. Either way, a file appears under its name only once it is complete.
//!
//! ```
//! use residual_fetch::write_atomic;
//!
//! let file = std::env::temp_dir().join("residual-fetch-doctest");
//! write_atomic(&file, b"the new content")?;
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
//!     bytes: 46_830_571..=46_830_571,
//! };
//! let to = cache_dir()?.join("resnet18-f37072fd.pth");
//! fetch(&weights, &to, &mut |progress| println!("{} of {:?} bytes", progress.done, progress.total))?;
//! # Ok::<(), residual_fetch::FetchError>(())
//! ```

mod atomic;
mod cache;
mod checksum;
mod download;
mod error;
mod lock;
mod regular;
#[cfg(test)]
mod tests;

pub use atomic::{Staged, is_unfinished, remove_unfinished, temporary, write_atomic};
pub use cache::{cache_dir, mirror};
pub use checksum::{Checksum, sha256_file, verify};
pub use download::{Progress, Source};
pub use error::FetchError;
pub use lock::{LOCK, Lock, lock, lock_directory};
pub use regular::{open_regular, read_regular, read_text};

use std::{fs, io, path::Path};

/// The result of a successful [`fetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file already existed and has the expected checksum.
    Present,
    /// The file was downloaded.
    Downloaded,
}

/// Downloads a published file to `to`, unless it already exists. Creates the parent directory if necessary.
///
/// The download is written to a file next to `to`, with the additional extension `.part`. The file is renamed to `to`
/// once it is complete and its checksum matches. An interrupted transfer is resumed up to three times within one call,
/// and again by the next call. The environment variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are
/// respected, except for servers on this machine.
///
/// Whatever a server does, no more than the largest expected size is written, a transfer of less than 1 KiB per second
/// counts as interrupted, and a download that begins with HTTPS is not redirected to HTTP.
///
/// # Errors
/// - The file cannot be downloaded, or the download has the wrong size or the wrong checksum.
/// - `to` already exists and has the wrong size or the wrong checksum. It is kept.
/// - The partial file is not a regular file, but a link for example.
/// - Another process is downloading the file. It holds the lock file, which has the additional extension `.lock`.
/// - A file cannot be read or written.
pub fn fetch(source: &Source, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, FetchError> {
    source.sha256.check()?;
    if present(to, source)? {
        return Ok(Outcome::Present);
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
    }
    let held = lock(to)?;
    // Another process may have completed the download before it released the lock.
    let outcome = if present(to, source)? {
        Outcome::Present
    } else {
        download::download(source, to, progress)?;
        Outcome::Downloaded
    };
    held.remove();
    Ok(outcome)
}

fn present(path: &Path, source: &Source) -> Result<bool, FetchError> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(FetchError::io("read", path)(error)),
    };
    if let Some(reason) = source.unexpected_size(size) {
        return Err(FetchError::Damaged { path: path.into(), reason });
    }
    verify(path, &source.sha256)?;
    Ok(true)
}
