use crate::DataError;
use std::{fs, io, path::Path};

/// Reads a file of a dataset. Errors name the dataset if the file does not exist.
pub(crate) fn read_file(dataset: &'static str, path: &Path) -> Result<Vec<u8>, DataError> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DataError::Missing { dataset, path: path.into() },
        _ => DataError::Io { action: "read", path: path.into(), source: error },
    })
}
