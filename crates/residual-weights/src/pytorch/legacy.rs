use super::{BIG_ENDIAN, Node, Pickle, Problem, StorageRef};
use crate::file::DataFile;
use residual_data::shown;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Seek},
    ops::Range,
};

/// The layout of PyTorch before 1.6: five pickles (a magic number, a version, the system, the object and the list of
/// its storages), followed by the number of elements and the elements of each storage.
pub(super) struct Legacy {
    file: DataFile,
    /// The bytes of each storage.
    storages: HashMap<String, Range<u64>>,
}

/// The magic number 0x1950a86a20f9469cfc6c in binary pickles.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The same number in pickles of the protocols 0 and 1.
const MAGIC_TEXT: &[u8] = b"119547037146038801333356";

impl Legacy {
    /// Whether a file that starts like this has the legacy layout.
    pub(super) fn detect(start: &[u8]) -> bool {
        let start = &start[..start.len().min(64)];
        start.windows(MAGIC.len()).any(|window| window == MAGIC)
            || start.windows(MAGIC_TEXT.len()).any(|window| window == MAGIC_TEXT)
    }

    /// Opens a file and returns the pickle of its object.
    ///
    /// # Errors
    /// If the file is damaged, is in big-endian byte order, or has a storage of unknown type.
    pub(super) fn open(file: File) -> Result<(Self, Pickle), Problem> {
        let mut reader = BufReader::new(file);
        let size = reader.get_ref().metadata().map_err(|error| error.to_string())?.len();
        let read_pickle = |reader: &mut _| Pickle::read(reader, size).map_err(|error| error.to_string());
        read_pickle(&mut reader)?;
        let version = read_pickle(&mut reader)?;
        if version.size(version.root()) != Some(1001) {
            return Err("its layout has an unknown version".into());
        }
        if is_big_endian(&read_pickle(&mut reader)?) {
            return Err(BIG_ENDIAN);
        }
        let object = read_pickle(&mut reader)?;
        let keys = read_pickle(&mut reader)?;
        let sizes: HashMap<String, usize> = object
            .ids()
            .filter_map(|id| StorageRef::of(&object, id))
            .map(|storage| (storage.key, storage.dtype.size()))
            .collect();
        let mut at = reader.stream_position().map_err(|error| error.to_string())?;
        let file = DataFile::new(reader.into_inner()).map_err(|error| error.to_string())?;
        let mut storages = HashMap::new();
        for &key in keys.elements(keys.root()).ok_or("its list of storages is missing")? {
            let key = StorageRef::key(&keys, key).ok_or("its list of storages is damaged")?;
            let size = sizes.get(&key).ok_or_else(|| format!("the type of its storage {} is unknown", shown(&key)))?;
            let count = file.read(at..at + 8).map_err(|_| CUT)?;
            let count = count.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let bytes = count.checked_mul(*size as u64).ok_or(CUT)?;
            let next = (at + 8).checked_add(bytes).filter(|next| *next <= file.len()).ok_or(CUT)?;
            storages.insert(key, at + 8..next);
            at = next;
        }
        Ok((Self { file, storages }, object))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.storages.values().map(|range| range.end - range.start).sum()
    }

    pub(super) fn storage(&self, key: &str, start: u64, len: u64) -> Result<Vec<u8>, String> {
        let range = self.storages.get(key).ok_or_else(|| format!("the file has no storage {}", shown(key)))?;
        let size = range.end - range.start;
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(format!("its storage has {size} bytes, but {len} bytes at offset {start} are needed"));
        }
        let start = range.start + start;
        self.file.read(start..start + len).map_err(|error| error.to_string())
    }
}

const CUT: &str = "its storages end early, perhaps because a download was interrupted";

fn is_big_endian(system: &Pickle) -> bool {
    let Node::Dict(pairs) = system.node(system.root()) else { return false };
    let is_little = pairs.iter().find(|(key, _)| system.text(*key) == Some("little_endian"));
    is_little.is_some_and(|(_, value)| matches!(system.node(*value), Node::Bool(false)))
}
