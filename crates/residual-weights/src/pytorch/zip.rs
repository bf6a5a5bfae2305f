use super::{BIG_ENDIAN, Pickle, Problem, read_pickle, storage::read_exactly};
use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    sync::{Mutex, PoisonError},
};
use zip::{
    CompressionMethod, ZipArchive, ZipReadOptions,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

/// The zip archive of PyTorch 1.6 and later: a pickle `data.pkl`, and beside it one file `data/KEY` per storage.
/// TorchScript has the same layout.
pub(super) struct Zip {
    archive: Mutex<ZipArchive<BufReader<File>>>,
    /// The folder of `data.pkl` in the archive, with a slash at the end. Empty if it is in no folder.
    root: String,
}

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
        let archive = ZipArchive::with_config(config, BufReader::new(file)).map_err(|error| {
            format!("the zip archive is incomplete, perhaps because a download was interrupted ({error})")
        })?;
        let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(Cow::into_owned).collect();
        let roots = names.iter().filter_map(|name| name.strip_suffix(PICKLE));
        let root = roots.filter(|root| root.is_empty() || root.ends_with('/')).min_by_key(|root| root.len());
        let root = root.ok_or_else(|| Problem::Foreign(contents(&names)))?.to_string();
        let zip = Self { archive: Mutex::new(archive), root };
        match zip.entry("byteorder", |entry| read_exactly(entry, 3)) {
            Ok(order) if order == b"big" => Err(BIG_ENDIAN),
            _ => Ok(zip),
        }
    }

    pub(super) fn pickle(&self) -> Result<Pickle, String> {
        self.entry(PICKLE, |entry| Ok(read_pickle(entry)))?
    }

    /// Whether this is a TorchScript archive, which has code.
    pub(super) fn is_torch_script(&self) -> bool {
        let archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        archive.index_for_name(&format!("{}constants.pkl", self.root)).is_some()
    }

    pub(super) fn storage(&self, key: &str, start: u64, len: u64) -> Result<Vec<u8>, String> {
        let name = format!("{}data/{key}", self.root);
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let index = archive.index_for_name(&name).ok_or_else(|| format!("the archive has no file `{name}`"))?;
        let damaged = |error: ZipError| format!("`{name}` is damaged: {error}");
        let cut = |error: io::Error| format!("`{name}` is damaged: {error}");
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let (size, crc) = (entry.size(), entry.crc32());
        let is_stored = entry.compression() == CompressionMethod::Stored && entry.compressed_size() == size;
        drop(entry);
        let end = start.checked_add(len).filter(|end| *end <= size);
        let end =
            end.ok_or_else(|| format!("`{name}` has {size} bytes, but {len} bytes at offset {start} are needed"))?;
        if is_stored && len < size {
            let mut entry = archive.by_index_seek(index).map_err(damaged)?;
            entry.seek(SeekFrom::Start(start)).map_err(cut)?;
            return read_exactly(entry, len).map_err(cut);
        }
        // `torch.save` can leave out the checksum, which is then 0.
        let options = ZipReadOptions::new().ignore_crc32(crc == 0);
        let mut entry = archive.by_index_with_options(index, options).map_err(damaged)?;
        io::copy(&mut entry.by_ref().take(start), &mut io::sink()).map_err(cut)?;
        let bytes = read_exactly(&mut entry, len).map_err(cut)?;
        if end == size {
            // Reading the end compares the checksum.
            io::copy(&mut entry.take(1), &mut io::sink()).map_err(cut)?;
        }
        Ok(bytes)
    }

    fn entry<T>(&self, name: &str, read: impl FnOnce(&mut dyn BufRead) -> io::Result<T>) -> Result<T, String> {
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = archive.by_name(&format!("{}{name}", self.root)).map_err(|error| format!("{name}: {error}"))?;
        read(&mut BufReader::new(entry)).map_err(|error| format!("{name}: {error}"))
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
