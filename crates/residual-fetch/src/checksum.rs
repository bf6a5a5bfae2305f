use crate::{FetchError, open_regular};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read},
    path::Path,
};

/// The minimum length of a checksum prefix, in hexadecimal digits.
const MIN_PREFIX: usize = 8;

/// The expected SHA-256 checksum of a file, in hexadecimal digits of either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// All 64 digits.
    Full(String),
    /// The first digits, at least 8, as in the name `resnet18-f37072fd.pth`.
    Prefix(String),
}

impl Checksum {
    /// The digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        match self {
            Self::Full(digits) | Self::Prefix(digits) => digits,
        }
    }

    /// Checks that all digits are hexadecimal and that their number is allowed.
    pub(crate) fn check(&self) -> Result<(), FetchError> {
        let (lengths, expected) = match self {
            Self::Full(_) => (64..=64, "64"),
            Self::Prefix(_) => (MIN_PREFIX..=64, "8 to 64"),
        };
        let digits = self.digits();
        if lengths.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Ok(());
        }
        Err(FetchError::InvalidChecksum { digits: digits.into(), expected })
    }

    /// How the file's checksum differs from the expected one, phrased to follow the file's name and a colon.
    pub(crate) fn mismatch(&self, path: &Path) -> Result<Option<String>, FetchError> {
        self.check()?;
        let (mut found, expected) = (sha256_file(path).map_err(FetchError::io("read", path))?, self.digits());
        found.truncate(expected.len());
        Ok((!found.eq_ignore_ascii_case(expected)).then(|| format!("its SHA-256 checksum is {found}, not {expected}")))
    }
}

/// The SHA-256 checksum of a regular file, as 64 lower-case hexadecimal digits.
///
/// # Errors
/// If the file cannot be read, and as for [`open_regular`].
pub fn sha256_file(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = open_regular(path.as_ref())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Checks that a file has the expected checksum.
///
/// # Errors
/// If the file cannot be read, its checksum differs, or `checksum` is not valid.
pub fn verify(path: impl AsRef<Path>, checksum: &Checksum) -> Result<(), FetchError> {
    let path = path.as_ref();
    match checksum.mismatch(path)? {
        None => Ok(()),
        Some(reason) => Err(FetchError::Damaged { path: path.into(), reason }),
    }
}
