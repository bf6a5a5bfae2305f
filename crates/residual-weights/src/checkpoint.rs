use crate::{
    WeightsError, burnpack,
    dtype::Dtype,
    file::DataFile,
    foreign,
    pytorch::{self, Found, Problem},
    safetensors, shards,
};
use residual_data::shown;
use residual_fetch::open_regular;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The tensors of a weights file, with the names that they have in the file.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    entries: BTreeMap<String, Entry>,
    held: u64,
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

/// One tensor of a file. Its values are read and converted to f32 on demand, by [`Checkpoint::values`].
#[derive(Clone)]
pub struct Entry {
    shape: Arc<[usize]>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    PyTorch(pytorch::Tensor),
    Range {
        file: Arc<DataFile>,
        range: Range<u64>,
        dtype: Dtype,
    },
    /// A tensor without an array of values, and its kind, such as `sparse`.
    Other(Arc<str>),
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
        let io = || WeightsError::io("read", path);
        let mut file = open_regular(path).map_err(io())?;
        let mut start = Vec::new();
        file.by_ref().take(512).read_to_end(&mut start).map_err(io())?;
        file.rewind().map_err(io())?;
        let is_valid = |kind: &'static str| {
            move |reason| WeightsError::bad_file(path, format!("is not a valid {kind} file: {reason}"))
        };
        let (format, (entries, held)) = match &start[..] {
            [] => return Err(WeightsError::bad_file(path, "is empty")),
            [b'B', b'U', b'R', b'N', ..] | [b'N', b'R', b'U', b'B', ..] => {
                let file = DataFile::new(file).map_err(io())?;
                (Format::Burnpack, burnpack::read(file).map_err(is_valid("burnpack"))?)
            }
            start if is_json(start) && shards == Shards::Allowed => {
                let (format, entries, held) = shards::read(path)?;
                (format, (entries, held))
            }
            // The length of the header, and the header.
            [_, _, _, _, _, _, _, _, b'{', ..] => {
                let file = DataFile::new(file).map_err(io())?;
                (Format::Safetensors, safetensors::read(file).map_err(is_valid("safetensors"))?)
            }
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
        Ok(Self { path: path.into(), format, entries, held })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The number of bytes that the file has for the values of all tensors, unpacked if it is compressed. The shapes may
    /// claim more, because several tensors, and several elements of a tensor, may be stored in the same place.
    pub fn held_bytes(&self) -> u64 {
        self.held
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
        let bad = |reason: String| WeightsError::bad_file(&self.path, reason);
        let entry = entry.ok_or_else(|| bad(format!("has no tensor `{}`", shown(name))))?;
        entry.values().map_err(|reason| bad(format!("has an invalid tensor `{}`: {reason}", shown(name))))
    }
}

impl Entry {
    /// A tensor whose values are a range of bytes of a file.
    pub(crate) fn in_range(shape: Arc<[usize]>, file: Arc<DataFile>, range: Range<u64>, dtype: Dtype) -> Self {
        Self { shape, source: Source::Range { file, range, dtype } }
    }

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
        let is_same = |ours: &[f32], theirs: &[f32]| ours.iter().zip(theirs).all(|(a, b)| a.to_bits() == b.to_bits());
        self.shape == other.shape
            && self.values().is_ok_and(|ours| other.values().is_ok_and(|theirs| is_same(&ours, &theirs)))
    }

    fn values(&self) -> Result<Vec<f32>, String> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("its shape is too large")?;
        let values = match &self.source {
            Source::PyTorch(tensor) => tensor.values()?,
            Source::Range { file, range, dtype } => {
                dtype.check()?;
                dtype.to_f32(&file.read(range.clone()).map_err(|error| error.to_string())?)?
            }
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

/// The tensors of a PyTorch file, and the number of bytes that it has for their values.
fn read_pytorch(path: &Path, file: File, start: &[u8]) -> Result<(BTreeMap<String, Entry>, u64), WeightsError> {
    let (found, held) = pytorch::read(file, start).map_err(|problem| match problem {
        Problem::Damaged(reason) => WeightsError::bad_file(path, format!("is a damaged PyTorch file: {reason}")),
        Problem::Foreign(kind) => WeightsError::bad_file(path, kind),
    })?;
    let entry = |found| match found {
        Found::Tensor(tensor) => Entry { shape: tensor.shape().clone(), source: Source::PyTorch(tensor) },
        Found::Other(kind) => Entry { shape: Arc::new([]), source: Source::Other(kind) },
    };
    Ok((found.into_iter().map(|(name, found)| (name, entry(found))).collect(), held))
}
