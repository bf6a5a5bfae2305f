use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of a download, a checksum or the cache.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The expected checksum does not have the form of a checksum.
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
    /// The downloaded file has another checksum. It was removed.
    #[error(
        "{url} is not the expected file: its SHA-256 checksum is {found}, not {expected}; the download was removed"
    )]
    Mismatch {
        /// The URL.
        url: String,
        /// The expected digits.
        expected: String,
        /// The digits of the downloaded file, truncated to the length of the expected ones.
        found: String,
    },
    /// An existing file has another checksum.
    #[error(
        "{} is damaged: its SHA-256 checksum is {found}, not {expected}; remove it to download it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The expected digits.
        expected: String,
        /// The digits of the file, truncated to the length of the expected ones.
        found: String,
    },
    /// Another process is downloading the same file.
    #[error("{} is being downloaded by another process; wait for it to finish", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that failed, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// No cache folder can be determined.
    #[error("no cache folder found; set RESIDUAL_CACHE to a folder for downloads")]
    NoCacheDir,
}

impl FetchError {
    /// Whether the request was wrong, rather than the network, a file or the system.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::InvalidMirror(_))
    }

    /// Converts an [`io::Error`], adding the failed operation and the file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }
}
