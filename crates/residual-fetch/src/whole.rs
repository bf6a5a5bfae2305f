use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Writes a file beside its place and renames it into it, so that a reader sees the old content or the new and nothing
/// between, even if the machine fails.
///
/// # Errors
/// If the file cannot be written; its old content is then still there.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    #[cfg(unix)]
    if let (Ok(()), Some(folder)) = (&renamed, path.parent()) {
        // The name too is to outlast a failing machine; a file system that cannot say so is no reason to fail.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    renamed
}

/// Whether a file is one that [`write_whole`] has not finished: `NAME.PROCESS.tmp`.
pub fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = name.strip_suffix(".tmp").and_then(|name| Some(name.rsplit_once('.')?.1));
    process.is_some_and(|process| !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes what a process that was killed in [`write_whole`] left in a folder. For whoever knows that nobody writes
/// there.
pub fn remove_unfinished(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if is_unfinished(&path) && path.is_file() {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_rubbish() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_whole(&path, b"old").unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(write_whole(&dir.path().join("missing/b"), b"x").is_err());
        // A folder in the file's place makes the rename fail.
        fs::create_dir(dir.path().join("c")).unwrap();
        assert!(write_whole(&dir.path().join("c"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.json", "a.json.123.tmp", "precious.tmp"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        remove_unfinished(dir.path());
        remove_unfinished(&dir.path().join("missing"));
        assert!(dir.path().join("a.json").exists() && dir.path().join("precious.tmp").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
