//! Opens and reads regular files. Whoever hands over a file may have put a FIFO, a device or a link in its place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::Path,
};

/// Opens a regular file for reading. Links are followed.
///
/// # Errors
/// If the file cannot be opened, or is a folder, a FIFO, a socket or a device, which may never end.
pub fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(&fs::metadata(path)?)?;
    let mut options = File::options();
    options.read(true);
    // Otherwise, opening a FIFO waits until another process opens it for writing.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `most` bytes, and allocates no more than its size.
///
/// # Errors
/// If the file is larger, and as for [`open_regular`].
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let text = format!("it is larger than the limit of {most} bytes");
        io::Error::new(io::ErrorKind::FileTooLarge, text)
    };
    let file = open_regular(path)?;
    let size = file.metadata()?.len();
    if size > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX))?;
    // The file may grow, and some file systems do not report the size.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// Reads a text in UTF-8: see [`read_regular`].
///
/// # Errors
/// If the file is not valid UTF-8, and as for [`read_regular`].
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8");
    String::from_utf8(read_regular(path, most)?).map_err(invalid)
}

/// Makes opening a file fail if its path is a link, or a FIFO that nobody reads.
pub(crate) fn without_links(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "it is a folder" } else { "it is not a regular file" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        assert!(read_regular(&path, 3).unwrap_err().to_string().starts_with("it is larger than the limit of 3 bytes"));
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().to_string(), "it is not valid UTF-8");
        #[cfg(unix)]
        {
            // Sparse: reading it would need a terabyte.
            File::create(&path).unwrap().set_len(1 << 40).unwrap();
            assert_eq!(read_regular(&path, 1 << 30).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        }
        assert_eq!(read_regular(dir.path(), 4).unwrap_err().to_string(), "it is a folder");
        assert_eq!(read_regular(&dir.path().join("b"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A test of a FIFO that failed would never end.
    #[cfg(unix)]
    #[test]
    fn devices_and_fifos_are_refused_and_links_to_files_followed() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            assert_eq!(open_regular(path).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
        };
        refused(Path::new("/dev/zero"));
        let fifo = dir.path().join("fifo");
        if std::process::Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()) {
            refused(&fifo);
        }
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "content").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_text(&link, 9).unwrap(), "content");
        assert!(without_links(File::options().write(true)).open(&link).is_err());
        assert!(without_links(File::options().write(true)).open(&file).is_ok());
    }
}
