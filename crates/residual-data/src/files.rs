//! Reading files.

use crate::DataError;
use residual_fetch::read_regular;
use std::{io, path::Path, thread, time::Duration};

/// The most bytes that are read of a file that holds a dataset's samples: 1 GiB and a header.
const MAX_BYTES: u64 = (1 << 30) + (1 << 10);

/// Reads a file of a dataset. Errors name the dataset if the file does not exist.
pub(crate) fn read_file(dataset: &'static str, path: &Path) -> Result<Vec<u8>, DataError> {
    retry(|| read_regular(path, MAX_BYTES)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DataError::Missing { dataset, path: path.into() },
        _ => DataError::Io { action: "read", path: path.into(), source: error },
    })
}

/// The pauses before a failed operation is repeated, in milliseconds.
const PAUSES: [u64; 3] = [50, 200, 800];

/// Repeats an operation that fails for a temporary reason, as on network drives.
pub(crate) fn retry<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for pause in PAUSES {
        match operation() {
            Err(error) if may_pass(&error) => thread::sleep(Duration::from_millis(pause)),
            result => return result,
        }
    }
    operation()
}

fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    /// `EIO`, an input/output error, which has no [`io::ErrorKind`].
    const EIO: i32 = 5;
    matches!(
        error.kind(),
        Kind::Interrupted
            | Kind::WouldBlock
            | Kind::TimedOut
            | Kind::StaleNetworkFileHandle
            | Kind::ResourceBusy
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
    ) || cfg!(unix) && error.raw_os_error() == Some(EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_may_pass_are_retried() {
        let attempts = |failures: usize, error: fn() -> io::Error| {
            let mut attempts = 0;
            let result = retry(|| {
                attempts += 1;
                if attempts <= failures { Err(error()) } else { Ok(7) }
            });
            (attempts, result.ok())
        };
        assert_eq!(attempts(2, || io::ErrorKind::StaleNetworkFileHandle.into()), (3, Some(7)));
        assert_eq!(attempts(9, || io::ErrorKind::Interrupted.into()), (4, None));
        assert_eq!(attempts(1, || io::ErrorKind::NotFound.into()), (1, None));
        #[cfg(unix)]
        assert_eq!(attempts(1, || io::Error::from_raw_os_error(5)), (2, Some(7)));
    }
}
