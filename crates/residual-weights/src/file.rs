use residual_data::shown;
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// A regular file whose parts are read when they are needed.
#[derive(Debug)]
pub(crate) struct DataFile {
    file: Mutex<File>,
    len: u64,
}

impl DataFile {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file: Mutex::new(file), len })
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads a range of bytes. Nothing is allocated for a range beyond the end.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        if range.start > range.end || range.end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(range.start))?;
        read_exactly(&mut *file, range.end - range.start)
    }
}

/// Opens a regular file. Pipes and devices may never end, and opening a pipe waits for its writer.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let check = |metadata: fs::Metadata| match metadata {
        metadata if metadata.is_file() => Ok(()),
        metadata if metadata.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    };
    check(fs::metadata(path)?)?;
    let file = File::open(path)?;
    check(file.metadata()?)?;
    Ok(file)
}

/// Reads a text file of at most `max` bytes.
pub(crate) fn read_text(path: &Path, max: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max {
        let reason = format!("it is longer than {} MiB", max >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

/// Reads exactly `len` bytes. Allocates at most 1 MiB more than twice what it has read.
pub(crate) fn read_exactly(input: impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len.min(1 << 20) as usize);
    input.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What JSON's parser says, which may contain text of the file of any length.
pub(crate) fn json_reason(error: &serde_json::Error) -> String {
    shown(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_in_the_file_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"abcdef").unwrap();
        let file = DataFile::new(open(&path).unwrap()).unwrap();
        assert_eq!((file.len(), file.read(2..4).unwrap()), (6, b"cd".to_vec()));
        for range in [0..7, 6..u64::MAX, Range { start: 4, end: 2 }] {
            assert!(file.read(range).is_err());
        }
    }

    #[test]
    fn folders_and_long_texts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(open(folder.path()).unwrap_err().to_string(), "it is a folder");
        let path = folder.path().join("a");
        fs::write(&path, "a".repeat((1 << 20) + 1)).unwrap();
        assert_eq!(read_text(&path, 1 << 20).unwrap_err().to_string(), "it is longer than 1 MiB");
        assert_eq!(read_text(&path, 2 << 20).unwrap().len(), (1 << 20) + 1);
    }
}
