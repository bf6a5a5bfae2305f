use super::{Legacy, Zip};
use std::io::{self, Read};

/// The storages of a PyTorch file, which hold the values of its tensors.
pub(super) enum Storages {
    Zip(Zip),
    Legacy(Legacy),
}

impl Storages {
    /// Reads `len` bytes of the storage `key`, from the byte `start`.
    ///
    /// # Errors
    /// If there is no such storage, it is shorter, or it cannot be read.
    pub(super) fn read(&self, key: &str, start: u64, len: u64) -> Result<Vec<u8>, String> {
        match self {
            Self::Zip(zip) => zip.storage(key, start, len),
            Self::Legacy(legacy) => legacy.storage(key, start, len),
        }
    }
}

/// Reads exactly `len` bytes. Allocates at most 256 MiB before it has read as much.
pub(super) fn read_exactly(input: impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len.min(1 << 28) as usize);
    input.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
