use super::{BIG_ENDIAN, Pickle, Problem};
use crate::file::read_exactly;
use residual_data::shown;
use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    sync::{Mutex, MutexGuard, PoisonError},
};
use zip::{
    CompressionMethod, ZipArchive, ZipReadOptions,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

/// The zip archive of PyTorch 1.6 and later: a pickle `data.pkl`, and beside it one file `data/KEY` per storage.
/// TorchScript has the same layout.
pub(super) struct Zip {
    archive: Mutex<Archive>,
    /// The folder of `data.pkl` in the archive, with a slash at the end. Empty if it is in no folder.
    root: String,
    /// The size of the file.
    packed: u64,
    /// The bytes of its entries that are stored, at most those of the file, and of the others, unpacked.
    stored: u64,
    unpacked: u64,
}

struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The compressed storages that were read, by their index. Each is unpacked once.
    unpacked: HashMap<usize, Vec<u8>>,
}

/// Compressed archives may unpack to 256 MiB, and to 64 bytes for each byte of the file. Weights shrink to a half at
/// most; a state of zeros shrinks more.
const MAX_UNPACKED: u64 = 256 << 20;
const MAX_RATIO: u64 = 64;

/// The end of the pickle's name in the archive.
const PICKLE: &str = "data.pkl";

impl Zip {
    /// Opens an archive.
    ///
    /// # Errors
    /// If the archive is damaged, has no pickle, or is in big-endian byte order.
    pub(super) fn open(file: File) -> Result<Self, Problem> {
        // Detecting the offset fails if the first entry's header is as long as the end records of a zip64 archive. That
        // is so if the archive's name has 21 characters.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let packed = file.metadata().map_err(|error| error.to_string())?.len();
        let archive = ZipArchive::with_config(config, BufReader::new(file)).map_err(|error| {
            format!("the zip archive is incomplete, perhaps because a download was interrupted ({error})")
        })?;
        let (mut stored, mut unpacked) = (0u64, 0u64);
        for index in 0..archive.len() {
            let entry = archive.by_index_data(index).map_err(|error| error.to_string())?;
            let is_stored = entry.compression() == CompressionMethod::Stored;
            let total = if is_stored { &mut stored } else { &mut unpacked };
            *total = total.saturating_add(entry.size());
        }
        let max_unpacked = MAX_UNPACKED.saturating_add(packed.saturating_mul(MAX_RATIO));
        if unpacked > max_unpacked {
            let reason = format!("it has {packed} bytes that unpack to {unpacked}; expected at most {max_unpacked}");
            return Err(reason.into());
        }
        let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(Cow::into_owned).collect();
        let roots = names.iter().filter_map(|name| name.strip_suffix(PICKLE));
        let root = roots.filter(|root| root.is_empty() || root.ends_with('/')).min_by_key(|root| root.len());
        let root = root.ok_or_else(|| Problem::Foreign(contents(&names)))?.to_string();
        let archive = Mutex::new(Archive { zip: archive, unpacked: HashMap::new() });
        let zip = Self { archive, root, packed, stored: stored.min(packed), unpacked };
        match zip.entry("byteorder", |entry| read_exactly(entry, 3)) {
            Ok(Ok(order)) if order == b"big" => Err(BIG_ENDIAN),
            _ => Ok(zip),
        }
    }

    pub(super) fn pickle(&self) -> Result<Pickle, String> {
        self.entry(PICKLE, |entry| Pickle::read(BufReader::new(entry), self.packed))?.map_err(|error| error.to_string())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.stored.saturating_add(self.unpacked)
    }

    fn archive(&self) -> MutexGuard<'_, Archive> {
        self.archive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is a TorchScript archive, which has code.
    pub(super) fn is_torch_script(&self) -> bool {
        self.archive().zip.index_for_name(&format!("{}constants.pkl", self.root)).is_some()
    }

    pub(super) fn storage(&self, key: &str, start: u64, len: u64) -> Result<Vec<u8>, String> {
        let name = format!("{}data/{key}", self.root);
        let archive = &mut *self.archive();
        let index = archive.zip.index_for_name(&name);
        let index = index.ok_or_else(|| format!("the archive has no file `{}`", shown(&name)))?;
        let damaged = |error: ZipError| format!("`{}` is damaged: {error}", shown(&name));
        let cut = |error: io::Error| format!("`{}` is damaged: {error}", shown(&name));
        let entry = archive.zip.by_index_raw(index).map_err(damaged)?;
        let (size, crc) = (entry.size(), entry.crc32());
        let is_stored = entry.compression() == CompressionMethod::Stored && entry.compressed_size() == size;
        if entry.encrypted() {
            return Err(format!("`{}` is encrypted", shown(&name)));
        }
        drop(entry);
        let end = start.checked_add(len).filter(|end| *end <= size).ok_or_else(|| {
            format!("`{}` has {size} bytes, but {len} bytes at offset {start} are needed", shown(&name))
        })?;
        if is_stored && len < size {
            let mut entry = archive.zip.by_index_seek(index).map_err(damaged)?;
            entry.seek(SeekFrom::Start(start)).map_err(cut)?;
            return read_exactly(entry, len).map_err(cut);
        }
        let part = |whole: &[u8]| whole[start as usize..end as usize].to_vec();
        if let Some(whole) = archive.unpacked.get(&index) {
            return Ok(part(whole));
        }
        // `torch.save` can leave out the checksum, which is then 0.
        let options = ZipReadOptions::new().ignore_crc32(crc == 0);
        let mut entry = archive.zip.by_index_with_options(index, options).map_err(damaged)?;
        if is_stored {
            let whole = read_exactly(&mut entry, size).map_err(cut)?;
            // Reading the end compares the checksum.
            io::copy(&mut entry.take(1), &mut io::sink()).map_err(cut)?;
            return Ok(whole);
        }
        let whole = read_exactly(&mut entry, size).map_err(cut)?;
        io::copy(&mut entry.take(1), &mut io::sink()).map_err(cut)?;
        let part = part(&whole);
        archive.unpacked.insert(index, whole);
        Ok(part)
    }

    fn entry<T>(&self, name: &str, read: impl FnOnce(&mut dyn Read) -> T) -> Result<T, String> {
        let archive = &mut *self.archive();
        let entry = archive.zip.by_name(&format!("{}{name}", self.root)).map_err(|error| format!("{name}: {error}"))?;
        let size = entry.size();
        Ok(read(&mut entry.take(size)))
    }
}

/// The kind of an archive without a pickle, as a text that follows the file's name.
fn contents(names: &[String]) -> &'static str {
    let has = |end: &str| names.iter().any(|name| name.ends_with(end));
    if has("model.weights.h5") {
        "is a Keras model; load it in Keras and save its weights as safetensors or PyTorch"
    } else if names.iter().all(|name| name.ends_with(".npy")) && !names.is_empty() {
        "holds NumPy arrays (.npz); save them in Python as safetensors"
    } else if has("archive_format") || has("models/model.json") {
        "is a program of torch.export; save the module's state_dict() instead"
    } else {
        "is a zip archive without PyTorch's data.pkl; unpack it and give the weights file in it"
    }
}
