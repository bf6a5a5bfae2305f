//! Reads and writes files. A new file appears under its name only once it is complete.

pub use residual_fetch::{Lock, is_unfinished, remove_unfinished};

use crate::TrainError;
use residual_data::{escaped, shown};
use residual_fetch::{FetchError, open_regular, read_text, write_atomic};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

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

/// Reads a file. A pipe or a device, which may have no end, is not read.
///
/// # Errors
/// If the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, TrainError> {
    let mut content = Vec::new();
    let read = open_regular(path).and_then(|mut file| file.read_to_end(&mut content));
    read.map_err(|source| TrainError::Io { action: "read", path: path.into(), source })?;
    Ok(content)
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
    parse_csv(&read(path)?).map_err(|reason| TrainError::bad_file(path, format!("is not usable: {reason}")))
}

/// Parses the content of a file that [`write_csv`] wrote.
///
/// # Errors
/// If it does not contain such rows. The error says what is wrong, and where.
pub fn parse_csv<R: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<R>, String> {
    let rows = csv::Reader::from_reader(bytes).into_deserialize().collect::<Result<_, _>>();
    rows.map_err(|error| residual_data::shown(&error.to_string()))
}

/// Those of the paths that exist. Each is the path of a file that this program writes, so that it may be removed.
///
/// # Errors
/// If there is anything but a file at one of the paths, such as a directory or a symbolic link: this program did not
/// write it.
pub fn written(paths: impl IntoIterator<Item = PathBuf>) -> Result<Vec<PathBuf>, TrainError> {
    let exists = |path: &PathBuf| kind_of(path, fs::FileType::is_file).transpose();
    paths.into_iter().filter_map(|path| exists(&path).map(|found| found.map(|()| path))).collect()
}

/// Whether there is a directory at a path. Like [`written`], it does not follow a symbolic link.
///
/// # Errors
/// If there is anything else at the path.
pub fn is_written_dir(path: &Path) -> Result<bool, TrainError> {
    Ok(kind_of(path, fs::FileType::is_dir)?.is_some())
}

/// Checks what is at a path, if there is anything.
fn kind_of(path: &Path, is_right: impl Fn(&fs::FileType) -> bool) -> Result<Option<()>, TrainError> {
    match fs::symlink_metadata(path) {
        Ok(found) if is_right(&found.file_type()) => Ok(Some(())),
        Ok(found) => {
            let kind = match found.file_type() {
                kind if kind.is_symlink() => "a symbolic link",
                kind if kind.is_dir() => "a directory",
                _ => "not a directory",
            };
            Err(TrainError::bad_file(path, format!("is in the way: it is {kind}, which this program did not write")))
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TrainError::Io { action: "read", path: path.into(), source }),
    }
}

/// Removes files, as returned by [`written`].
///
/// # Errors
/// If a file exists and cannot be removed.
pub fn remove(paths: &[PathBuf]) -> Result<(), TrainError> {
    for path in paths {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(TrainError::Io { action: "remove", path: path.into(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Locks a directory, so that no other process of this program writes into it. The lock is the file `.lock` in it.
///
/// # Errors
/// If another process holds the lock, or the lock file cannot be created.
pub fn lock_directory(path: &Path) -> Result<Lock, TrainError> {
    residual_fetch::lock_directory(path).map_err(|error| match error {
        FetchError::Io { action, path, source } => TrainError::Io { action, path, source },
        _ => TrainError::bad_file(path, "is locked by another process"),
    })
}

/// Whether a path is that of the lock file in a directory.
pub fn is_lock(path: &Path) -> bool {
    path.ends_with(residual_fetch::LOCK)
}

/// Fails if a locked directory is no longer at its path.
///
/// # Errors
/// If it was removed, renamed or replaced.
pub fn check_in_place(lock: &Lock, directory: &Path) -> Result<(), TrainError> {
    if lock.is_in_place() {
        return Ok(());
    }
    Err(TrainError::bad_file(directory, "was removed or renamed while this process was writing into it"))
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
    #[cfg(unix)]
    #[test]
    fn only_files_may_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [a, link, folder, missing] = ["a", "link", "folder", "missing"].map(|name| dir.path().join(name));
        fs::write(&a, "x").unwrap();
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert_eq!(written([a.clone(), missing.clone()]).unwrap(), std::slice::from_ref(&a));
        let error = |path: &PathBuf| written([a.clone(), path.clone()]).unwrap_err().to_string();
        assert!(error(&folder).ends_with("folder is in the way: it is a directory, which this program did not write"));
        assert!(error(&link).ends_with("link is in the way: it is a symbolic link, which this program did not write"));
        assert!(is_written_dir(&folder).unwrap() && !is_written_dir(&missing).unwrap());
        assert!(is_written_dir(&link).is_err() && is_written_dir(&a).is_err());
        remove(&[a.clone(), missing]).unwrap();
        assert!(!a.exists() && remove(std::slice::from_ref(&folder)).is_err() && folder.exists());
    }
}
