//! Reads and writes files. A new file appears under its name only once it is complete.

use crate::TrainError;
use residual_data::{escaped, shown};
use residual_fetch::{open_regular, read_text, write_atomic};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, io, path::Path};

/// Writes a file atomically: to a temporary file in the same directory, which is then renamed. A reader sees either the
/// old or the new content.
///
/// # Errors
/// If the file cannot be written. The old content is then kept.
pub fn write(path: &Path, content: &[u8]) -> Result<(), TrainError> {
    write_atomic(path, content).map_err(|source| TrainError::Io { action: "write", path: path.into(), source })
}

/// Writes a value as indented JSON. The file is replaced atomically, as by [`write()`].
///
/// # Errors
/// If the value cannot be encoded, or the file cannot be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), TrainError> {
    let mut json = serde_json::to_string_pretty(value)
        .map_err(|error| TrainError::bad_file(path, format!("cannot be written as JSON: {error}")))?;
    json.push('\n');
    write(path, json.as_bytes())
}

/// Reads a value from a JSON file.
///
/// # Errors
/// If the file cannot be read, or is not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text =
        read_text(path, MAX_BYTES).map_err(|source| TrainError::Io { action: "read", path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|error| TrainError::bad_file(path, unusable(&error)))
}

/// The most bytes that are read of a file.
const MAX_BYTES: u64 = 256 << 20;

/// Why JSON cannot be used, phrased to follow the file's name. What the error quotes is escaped, and shortened if it is
/// long.
pub(crate) fn unusable(error: &serde_json::Error) -> String {
    const LONG: usize = 1000;
    let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    match text.strip_suffix(&place) {
        Some(cause) if cause.len() > LONG => format!("is not usable: {}{place}", shown(cause)),
        _ if text.len() > LONG => format!("is not usable: {}", shown(&text)),
        _ => format!("is not usable: {}", escaped(&text)),
    }
}

/// Writes rows as CSV with a header.
///
/// # Errors
/// The same as for [`write()`].
pub fn write_csv<R: Serialize>(path: &Path, rows: impl IntoIterator<Item = R>) -> Result<(), TrainError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let result = rows.into_iter().try_for_each(|row| writer.serialize(row));
    let bytes = result.map_err(|e| e.to_string()).and_then(|()| writer.into_inner().map_err(|e| e.to_string()));
    write(path, &bytes.map_err(|e| TrainError::bad_file(path, format!("cannot be written: {e}")))?)
}

/// Reads the rows that [`write_csv`] wrote.
///
/// # Errors
/// If the file cannot be read or does not contain such rows.
pub fn read_csv<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>, TrainError> {
    let bad = |e: csv::Error| TrainError::bad_file(path, format!("is not usable: {e}"));
    let file = open_regular(path).map_err(|source| TrainError::Io { action: "read", path: path.into(), source })?;
    csv::Reader::from_reader(file).deserialize().collect::<Result<_, _>>().map_err(bad)
}

/// Removes a file, or a directory with its content. Does nothing if the path does not exist.
///
/// # Errors
/// If the path exists and cannot be removed.
pub fn remove(path: &Path) -> Result<(), TrainError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(TrainError::Io { action: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Creates a directory and its parents.
///
/// # Errors
/// If the directory cannot be created.
pub fn create_dir(path: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(path).map_err(|source| TrainError::Io { action: "create", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_files_round_trip_and_errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_json(&path, &[1, 2]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), [1, 2]);
        let error = write(&dir.path().join("missing/b.json"), b"x").unwrap_err().to_string();
        assert!(error.starts_with("cannot write") && error.contains("b.json"), "{error}");
        let error = read_json::<u8>(&path).unwrap_err().to_string();
        assert!(error.contains("a.json is not usable: "), "{error}");
    }
}
