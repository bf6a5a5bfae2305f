use crate::{WeightsError, names};
use burn::tensor::TensorData;
use burn_pack::Reader;
use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
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
    PyTorch(pytorch_reader::Tensor),
    /// The byte range `start..end` of the file.
    Bytes {
        file: Arc<Vec<u8>>,
        start: usize,
        end: usize,
        dtype: Dtype,
    },
    Values(Arc<Vec<f32>>),
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shape)
    }
}

impl Checkpoint {
    /// Reads the names and shapes of a file's tensors. The format is detected from the content, not from the name.
    ///
    /// The pickle of a PyTorch file is parsed as data; no code in it is executed. If the tensors are nested under
    /// `state_dict`, `model` or a similar key, that prefix is removed from their names.
    ///
    /// # Errors
    /// If the file cannot be read, is not in a known format, is damaged, or contains no tensors.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let mut start = [0; 9];
        let mut file = File::open(path).map_err(WeightsError::io("read", path))?;
        let mut len = 0;
        while len < start.len() {
            match file.read(&mut start[len..]).map_err(WeightsError::io("read", path))? {
                0 => break,
                n => len += n,
            }
        }
        if len == 0 {
            return Err(WeightsError::bad_file(path, "is empty"));
        }
        let (format, entries) = if start.starts_with(b"BURN") || start.starts_with(b"NRUB") {
            (Format::Burnpack, read_burnpack(path)?)
        } else if len == start.len() && start[8] == b'{' {
            (Format::Safetensors, read_safetensors(path)?)
        } else {
            (Format::PyTorch, read_pytorch(path)?)
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

    fn values(&self) -> Result<Vec<f32>, String> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("its shape is too large")?;
        let values = match &self.source {
            Source::Values(values) => values.to_vec(),
            Source::PyTorch(tensor) => {
                let bytes = catch_panics(|| tensor.read().map_err(|e| e.to_string()))?;
                match tensor.dtype() {
                    DType::F32 => convert(&bytes, f32::from_ne_bytes),
                    DType::F64 => convert(&bytes, |b| f64::from_ne_bytes(b) as f32),
                    DType::F16 => convert(&bytes, |b| f16::from_ne_bytes(b).to_f32()),
                    DType::BF16 => convert(&bytes, |b| bf16::from_ne_bytes(b).to_f32()),
                    other => return Err(format!("its dtype is {other:?}; expected a floating-point type")),
                }
            }
            Source::Bytes { file, start, end, dtype } => {
                let bytes = &file[*start..*end];
                match dtype {
                    Dtype::F32 => convert(bytes, f32::from_le_bytes),
                    Dtype::F64 => convert(bytes, |b| f64::from_le_bytes(b) as f32),
                    Dtype::F16 => convert(bytes, |b| f16::from_le_bytes(b).to_f32()),
                    Dtype::BF16 => convert(bytes, |b| bf16::from_le_bytes(b).to_f32()),
                    other => return Err(format!("its dtype is {other:?}; expected a floating-point type")),
                }
            }
        };
        if values.len() == elements {
            Ok(values)
        } else {
            Err(format!("it has {} values, but its shape requires {elements}", values.len()))
        }
    }
}

fn convert<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| f(chunk)).collect()
}

fn read_pytorch(path: &Path) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let reader = catch_panics(|| PytorchReader::new(path).map_err(|e| e.to_string())).map_err(|reason| {
        let reason = format!("is not a PyTorch, safetensors or burnpack file: {reason}");
        WeightsError::bad_file(path, reason)
    })?;
    let tensors = reader.into_tensors().into_iter();
    let entry =
        |tensor: pytorch_reader::Tensor| Entry { shape: tensor.shape().to_vec(), source: Source::PyTorch(tensor) };
    Ok(names::unnest(tensors.map(|(name, tensor)| (name, entry(tensor))).collect()))
}

fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let file = Arc::new(fs::read(path).map_err(WeightsError::io("read", path))?);
    let tensors = SafeTensors::deserialize(&file)
        .map_err(|error| WeightsError::bad_file(path, format!("is not a valid safetensors file: {error}")))?;
    let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let start = data.as_ptr() as usize - file.as_ptr() as usize;
        let source = Source::Bytes { file: file.clone(), start, end: start + data.len(), dtype: view.dtype() };
        (name.to_string(), Entry { shape: view.shape().to_vec(), source })
    };
    Ok(names::unnest(tensors.iter().map(entry).collect()))
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
    catch_panics(read).map(names::unnest).map_err(bad)
}

/// Runs a parser of untrusted bytes and turns a panic into an error.
fn catch_panics<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("its structure is invalid".into()))
}
