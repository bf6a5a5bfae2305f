use std::{
    io,
    path::{Path, PathBuf},
};

/// An error while downloading a file, verifying a checksum or finding the cache directory.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The expected checksum is malformed.
    #[error("`{digits}` is not a SHA-256 checksum; expected {expected} hexadecimal digits")]
    InvalidChecksum {
        /// The given digits.
        digits: String,
        /// The allowed number of digits.
        expected: &'static str,
    },
    /// The mirror is not an HTTP or HTTPS URL.
    #[error("RESIDUAL_MIRROR is `{0}`; expected a URL that begins with http:// or https://")]
    InvalidMirror(String),
    /// The server did not answer.
    #[error(
        "cannot reach {url}: {reason}; try again later, or download the file elsewhere and save it as {}",
        to.display()
    )]
    Unreachable {
        /// The URL.
        url: String,
        /// The cause.
        reason: String,
        /// The path where the file is expected.
        to: PathBuf,
    },
    /// The server answered with an error status.
    #[error(
        "cannot download {url}: the server returned status {status}; download the file elsewhere and save it as {}",
        to.display()
    )]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The path where the file is expected.
        to: PathBuf,
    },
    /// The transfer ended early. The bytes received so far are kept.
    #[error(
        "the download of {url} was interrupted after {done}{} bytes: {reason}; try again to resume it",
        total.map_or(String::new(), |total| format!(" of {total}"))
    )]
    Interrupted {
        /// The URL.
        url: String,
        /// The number of bytes received.
        done: u64,
        /// The size of the file in bytes, if known.
        total: Option<u64>,
        /// The cause.
        reason: String,
    },
    /// The server's file has the wrong size or the wrong checksum.
    #[error("{url} is not the expected file: {reason}")]
    Mismatch {
        /// The URL.
        url: String,
        /// The difference, and whether the download was removed.
        reason: String,
    },
    /// An existing file has the wrong size or the wrong checksum.
    #[error("{} is damaged: {reason}; remove it to download it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The difference.
        reason: String,
    },
    /// The partial file is a link, a folder, a FIFO or a device, to which nothing is written.
    #[error("{} is not a regular file; remove it to download to it", path.display())]
    Irregular {
        /// The partial file.
        path: PathBuf,
    },
    /// Another process is downloading the same file.
    #[error("{} is being downloaded by another process; wait for it to finish", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Another process writes into the directory.
    #[error("{} is locked by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that failed, such as `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// No cache directory can be determined.
    #[error("no cache directory found; set RESIDUAL_CACHE to a directory for downloads")]
    NoCacheDir,
}

impl FetchError {
    /// Whether the request itself is invalid. Otherwise the network, a file or the system is at fault.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::InvalidMirror(_))
    }

    /// Converts an [`io::Error`], adding the failed operation and the file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }
}
