//! Files that are there whole or not at all.

use crate::TrainError;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// Writes a file beside its place and renames it into it, so that a reader sees the old content or
/// the new and nothing between.
///
/// # Errors
/// If the file cannot be written; its old content is then still there.
pub fn write(path: &Path, content: &[u8]) -> Result<(), TrainError> {
    let result = || -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let mut file = fs::File::create(&temporary)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&temporary, path));
        #[cfg(unix)]
        if let (Ok(()), Some(folder)) = (&renamed, path.parent()) {
            // The name too is to outlast a failing machine; a file system that cannot tell is none to fail for.
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
        }
        if renamed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        renamed
    };
    result().map_err(|source| TrainError::Io { action: "write", path: path.into(), source })
}

/// Writes a value as indented JSON.
///
/// # Errors
/// As [`write()`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), TrainError> {
    let mut json = serde_json::to_string_pretty(value)
        .map_err(|error| TrainError::bad_file(path, format!("cannot be written as JSON: {error}")))?;
    json.push('\n');
    write(path, json.as_bytes())
}

/// Reads a value from JSON.
///
/// # Errors
/// If the file cannot be read, or does not hold such a value.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text =
        fs::read_to_string(path).map_err(|source| TrainError::Io { action: "read", path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|error| TrainError::bad_file(path, format!("is not usable: {error}")))
}

/// Removes a file, or a folder with all that is in it, if it is there.
///
/// # Errors
/// If it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<(), TrainError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(TrainError::Io { action: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Creates a folder and its parents.
///
/// # Errors
/// If that is not possible.
pub fn create_dir(path: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(path).map_err(|source| TrainError::Io { action: "create", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_rubbish() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_json(&path, &[1, 2]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), [1, 2]);
        let error = write(&dir.path().join("missing/b.json"), b"x").unwrap_err().to_string();
        assert!(error.starts_with("cannot write") && error.contains("b.json"), "{error}");
        // A folder in the file's place makes the rename fail.
        fs::create_dir(dir.path().join("c")).unwrap();
        assert!(write(&dir.path().join("c"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
