use residual_data::shown;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
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
        std::fs::write(&path, b"abcdef").unwrap();
        let file = DataFile::new(File::open(&path).unwrap()).unwrap();
        assert_eq!((file.len(), file.read(2..4).unwrap()), (6, b"cd".to_vec()));
        for range in [0..7, 6..u64::MAX, Range { start: 4, end: 2 }] {
            assert!(file.read(range).is_err());
        }
    }
}
