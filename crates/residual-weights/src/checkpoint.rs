use crate::{
    WeightsError,
    dtype::Dtype,
    foreign,
    pytorch::{self, Found, Problem},
    shards,
};
use burn::tensor::TensorData;
use burn_pack::Reader;
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The tensors of a weights file, with the names that they have in the file.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    entries: BTreeMap<String, Entry>,
}

/// The format of a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Written by `torch.save`, as a zip archive or in the legacy layouts.
    PyTorch,
    /// Safetensors.
    Safetensors,
    /// Burn's own format, with the parameter names and layouts of this project.
    Burnpack,
}

impl Format {
    /// The format in which a file with this name is written. The extension selects safetensors or burnpack.
    ///
    /// # Errors
    /// If the name does not end in `.safetensors` or `.bpk`.
    pub fn to_write(path: &Path) -> Result<Self, WeightsError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("bpk") => Ok(Self::Burnpack),
            _ => Err(WeightsError::Extension { path: path.into() }),
        }
    }
}

/// One tensor of a file. Its values are converted to f32 on demand, by [`Checkpoint::values`].
#[derive(Clone)]
pub struct Entry {
    shape: Vec<usize>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    PyTorch(pytorch::Tensor),
    /// The byte range `start..end` of the file.
    Bytes {
        file: Arc<Vec<u8>>,
        start: usize,
        end: usize,
        dtype: Dtype,
    },
    Values(Arc<Vec<f32>>),
    /// A tensor without an array of values, and its kind, such as `sparse`.
    Other(String),
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shape)
    }
}

impl Checkpoint {
    /// Reads the names and shapes of a file's tensors. The format is detected from the content, not from the name. An
    /// index of weights in several files, `*.index.json`, stands for all of them.
    ///
    /// The pickle of a PyTorch file is parsed as data; no code in it is executed. A tensor's name consists of all keys
    /// that lead to it, as in `state_dict.module.fc.bias`; [`load`](crate::load) selects the dictionary that fits.
    ///
    /// # Errors
    /// If the file cannot be read, is not in a known format, is damaged, or contains no tensors.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        Self::open(path, Shards::Allowed)
    }

    /// Reads a file that an index names.
    pub(crate) fn read_shard(path: &Path) -> Result<Self, WeightsError> {
        Self::open(path, Shards::Refused)
    }

    fn open(path: &Path, shards: Shards) -> Result<Self, WeightsError> {
        let mut file = File::open(path).map_err(WeightsError::io("read", path))?;
        let mut start = Vec::new();
        file.by_ref().take(512).read_to_end(&mut start).map_err(WeightsError::io("read", path))?;
        let (format, entries) = match &start[..] {
            [] => return Err(WeightsError::bad_file(path, "is empty")),
            [b'B', b'U', b'R', b'N', ..] | [b'N', b'R', b'U', b'B', ..] => (Format::Burnpack, read_burnpack(path)?),
            start if is_json(start) && shards == Shards::Allowed => shards::read(path)?,
            // The length of the header, and the header.
            [_, _, _, _, _, _, _, _, b'{', ..] => (Format::Safetensors, read_safetensors(path)?),
            start if pytorch::detect(start) => (Format::PyTorch, read_pytorch(path, file, start)?),
            start => {
                let kind = foreign::recognise(path, start);
                let kind = kind.unwrap_or("is not a PyTorch, safetensors or burnpack file");
                return Err(WeightsError::bad_file(path, kind));
            }
        };
        if entries.is_empty() {
            return Err(WeightsError::bad_file(path, "contains no tensors"));
        }
        Ok(Self { path: path.into(), format, entries })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// All tensors with their names, in alphabetical order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The tensor with this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Reads the values of a tensor in row-major order, converted to f32.
    ///
    /// # Errors
    /// If there is no tensor with this name, its values cannot be read, or its dtype is not a floating-point type.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| WeightsError::bad_file(&self.path, format!("has no tensor `{name}`")))?;
        entry
            .values()
            .map_err(|reason| WeightsError::bad_file(&self.path, format!("has an invalid tensor `{name}`: {reason}")))
    }
}

impl Entry {
    /// The shape of the tensor in the file.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether both tensors are stored in the same place of one file.
    pub(crate) fn is_in_place_of(&self, other: &Self) -> bool {
        matches!((&self.source, &other.source), (Source::PyTorch(a), Source::PyTorch(b)) if a.is_same(b))
    }

    /// Whether both tensors have the same shape and, bit by bit, the same values.
    pub(crate) fn has_values_of(&self, other: &Self) -> bool {
        let bits = |entry: &Self| Some(entry.values().ok()?.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        self.shape == other.shape && bits(self).is_some_and(|ours| bits(other) == Some(ours))
    }

    fn values(&self) -> Result<Vec<f32>, String> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("its shape is too large")?;
        let values = match &self.source {
            Source::Values(values) => values.to_vec(),
            Source::PyTorch(tensor) => tensor.values()?,
            Source::Bytes { file, start, end, dtype } => dtype.to_f32(&file[*start..*end])?,
            Source::Other(kind) => return Err(format!("it is {kind}; expected a dense tensor with values")),
        };
        if values.len() == elements {
            Ok(values)
        } else {
            Err(format!("it has {} values, but its shape requires {elements}", values.len()))
        }
    }

    /// Whether the tensor has no array of values, so that its shape is unknown too.
    pub(crate) fn is_without_values(&self) -> bool {
        matches!(self.source, Source::Other(_))
    }
}

/// Whether a file may be the index of other files.
#[derive(Clone, Copy, PartialEq)]
enum Shards {
    Allowed,
    Refused,
}

/// Whether a file that starts like this is a JSON object. A safetensors file starts with a length, which has zero
/// bytes.
fn is_json(start: &[u8]) -> bool {
    start.trim_ascii_start().starts_with(b"{") && !start.iter().take(8).any(|byte| *byte == 0)
}

fn read_pytorch(path: &Path, mut file: File, start: &[u8]) -> Result<BTreeMap<String, Entry>, WeightsError> {
    file.rewind().map_err(WeightsError::io("read", path))?;
    let found = pytorch::read(file, start).map_err(|problem| match problem {
        Problem::Damaged(reason) => WeightsError::bad_file(path, format!("is a damaged PyTorch file: {reason}")),
        Problem::Foreign(kind) => WeightsError::bad_file(path, kind),
    })?;
    let entry = |found| match found {
        Found::Tensor(tensor) => Entry { shape: tensor.shape().to_vec(), source: Source::PyTorch(tensor) },
        Found::Other(kind) => Entry { shape: Vec::new(), source: Source::Other(kind) },
    };
    Ok(found.into_iter().map(|(name, found)| (name, entry(found))).collect())
}

fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let file = Arc::new(fs::read(path).map_err(WeightsError::io("read", path))?);
    let tensors = SafeTensors::deserialize(&file)
        .map_err(|error| WeightsError::bad_file(path, format!("is not a valid safetensors file: {error}")))?;
    let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let start = data.as_ptr() as usize - file.as_ptr() as usize;
        let source = Source::Bytes { file: file.clone(), start, end: start + data.len(), dtype: view.dtype().into() };
        (name.to_string(), Entry { shape: view.shape().to_vec(), source })
    };
    Ok(tensors.iter().map(entry).collect())
}

fn read_burnpack(path: &Path) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let bad = |reason: String| WeightsError::bad_file(path, format!("is not a valid burnpack file: {reason}"));
    let read = || {
        let mut entries = BTreeMap::new();
        for tensor in Reader::from_file(path).and_then(Reader::into_tensors).map_err(|e| e.to_string())? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(|e| e.to_string())?;
            let data = TensorData::from_bytes(bytes, shape.clone(), dtype);
            let values = data.convert::<f32>().try_to_vec::<f32>().map_err(|e| format!("{name}: {e:?}"))?;
            entries.insert(name, Entry { shape: shape.to_vec(), source: Source::Values(Arc::new(values)) });
        }
        Ok(entries)
    };
    catch_panics(read).map_err(bad)
}

/// Runs a parser of untrusted bytes and turns a panic into an error.
fn catch_panics<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("its structure is invalid".into()))
}
