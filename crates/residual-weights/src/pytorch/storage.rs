use super::{Legacy, Zip};

/// The storages of a PyTorch file, which hold the values of its tensors.
pub(super) enum Storages {
    Zip(Zip),
    Legacy(Legacy),
}

impl Storages {
    /// The number of bytes of all storages, unpacked.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Zip(zip) => zip.bytes(),
            Self::Legacy(legacy) => legacy.bytes(),
        }
    }

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
