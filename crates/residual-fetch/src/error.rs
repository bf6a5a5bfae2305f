use std::{
    io,
    path::{Path, PathBuf},
};

/// What went wrong with a published file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Digits that are no checksum.
    #[error("`{digits}` is not a SHA-256 checksum; expected {expected} hexadecimal digits")]
    Digits {
        /// The digits.
        digits: String,
        /// How many there should be.
        expected: &'static str,
    },
    /// A mirror that cannot be one.
    #[error("RESIDUAL_MIRROR is `{0}`; expected a URL that begins with http:// or https://")]
    Mirror(String),
    /// Nobody answered.
    #[error(
        "cannot reach {url}: {reason}; try again later, or download it elsewhere and put it at {}",
        to.display()
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
        /// Where the file belongs.
        to: PathBuf,
    },
    /// The server answered with something other than the file.
    #[error(
        "cannot download {url}: the server answered with status {status}; download it elsewhere and put it at {}",
        to.display()
    )]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// Where the file belongs.
        to: PathBuf,
    },
    /// The transfer ended early; what came is kept.
    #[error(
        "the download of {url} broke off after {done}{} bytes: {reason}; another try resumes there",
        total.map_or(String::new(), |total| format!(" of {total}"))
    )]
    Cut {
        /// The address.
        url: String,
        /// Bytes that are there.
        done: u64,
        /// Bytes there should be.
        total: Option<u64>,
        /// What happened.
        reason: String,
    },
    /// What came is not what was published; it is removed.
    #[error(
        "{url} is not the file expected: its SHA-256 checksum is {found}, not {expected}; the download was removed"
    )]
    Mismatch {
        /// The address.
        url: String,
        /// The digits it should have.
        expected: String,
        /// The digits it has, as many as are expected.
        found: String,
    },
    /// A file that is there is not the one published.
    #[error(
        "{} is damaged: its SHA-256 checksum is {found}, not {expected}; remove it to download it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The digits it should have.
        expected: String,
        /// The digits it has, as many as are expected.
        found: String,
    },
    /// Another process downloads the same file.
    #[error("{} is being downloaded by another process; wait until that is done", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no place for the cache.
    #[error("there is no folder for downloads; set RESIDUAL_CACHE to one")]
    NoCache,
}

impl FetchError {
    /// Whether something asked for is wrong, rather than a failure on the way.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Mirror(_))
    }

    /// What makes an error of the system one that says what was tried on which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }
}
