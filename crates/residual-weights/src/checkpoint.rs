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

/// The tensors of a file, by the names the file gives them.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    entries: BTreeMap<String, Entry>,
}

/// What a file of weights is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `torch.save`, as a zip archive or in the older layouts.
    PyTorch,
    /// Safetensors.
    Safetensors,
    /// Burn's own, with the names and layouts of this project.
    Burnpack,
}

impl Format {
    /// What a file of this name is written as: safetensors or burnpack.
    ///
    /// # Errors
    /// If its name ends in neither `.safetensors` nor `.bpk`.
    pub fn to_write(path: &Path) -> Result<Self, WeightsError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("bpk") => Ok(Self::Burnpack),
            _ => Err(WeightsError::Extension { path: path.into() }),
        }
    }
}

/// One tensor of a file. Its values are read when they are asked for.
#[derive(Clone)]
pub struct Entry {
    shape: Vec<usize>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    PyTorch(pytorch_reader::Tensor),
    /// Where the values are in the file's bytes.
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
    /// Reads the names and shapes of a file; the format is told from its content.
    ///
    /// Nothing in a PyTorch file is executed: its pickle is parsed as data. A checkpoint nested under
    /// `state_dict`, `model` or the like is read from there.
    ///
    /// # Errors
    /// If the file cannot be read, is of none of the formats, is damaged, or holds no tensors.
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
            return Err(WeightsError::bad_file(path, "holds no tensors"));
        }
        Ok(Self { path: path.into(), format, entries })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of file it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The tensors by name, in alphabetical order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Reads a tensor's values, converted to f32.
    ///
    /// # Errors
    /// If they cannot be read, or are no floating-point numbers.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| WeightsError::bad_file(&self.path, format!("has no tensor {name}")))?;
        entry.values().map_err(|reason| WeightsError::bad_file(&self.path, format!("is damaged at {name}: {reason}")))
    }
}

impl Entry {
    /// The shape, as the file has it.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn values(&self) -> Result<Vec<f32>, String> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("its shape is too large")?;
        let values = match &self.source {
            Source::Values(values) => values.to_vec(),
            Source::PyTorch(tensor) => {
                let bytes = guarded(|| tensor.read().map_err(|e| e.to_string()))?;
                match tensor.dtype() {
                    DType::F32 => convert(&bytes, f32::from_ne_bytes),
                    DType::F64 => convert(&bytes, |b| f64::from_ne_bytes(b) as f32),
                    DType::F16 => convert(&bytes, |b| f16::from_ne_bytes(b).to_f32()),
                    DType::BF16 => convert(&bytes, |b| bf16::from_ne_bytes(b).to_f32()),
                    other => return Err(format!("it holds {other:?}, not floating-point numbers")),
                }
            }
            Source::Bytes { file, start, end, dtype } => {
                let bytes = &file[*start..*end];
                match dtype {
                    Dtype::F32 => convert(bytes, f32::from_le_bytes),
                    Dtype::F64 => convert(bytes, |b| f64::from_le_bytes(b) as f32),
                    Dtype::F16 => convert(bytes, |b| f16::from_le_bytes(b).to_f32()),
                    Dtype::BF16 => convert(bytes, |b| bf16::from_le_bytes(b).to_f32()),
                    other => return Err(format!("it holds {other:?}, not floating-point numbers")),
                }
            }
        };
        if values.len() == elements { Ok(values) } else { Err(format!("{} of {elements} values", values.len())) }
    }
}

fn convert<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| f(chunk)).collect()
}

fn read_pytorch(path: &Path) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let reader = guarded(|| PytorchReader::new(path).map_err(|e| e.to_string())).map_err(|reason| {
        let reason = format!("is not a checkpoint this program can read (PyTorch, safetensors or burnpack): {reason}");
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
        .map_err(|error| WeightsError::bad_file(path, format!("is not a whole safetensors file: {error}")))?;
    let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let start = data.as_ptr() as usize - file.as_ptr() as usize;
        let source = Source::Bytes { file: file.clone(), start, end: start + data.len(), dtype: view.dtype() };
        (name.to_string(), Entry { shape: view.shape().to_vec(), source })
    };
    Ok(names::unnest(tensors.iter().map(entry).collect()))
}

fn read_burnpack(path: &Path) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let bad = |reason: String| WeightsError::bad_file(path, format!("is not a whole burnpack file: {reason}"));
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
    guarded(read).map(names::unnest).map_err(bad)
}

/// Runs what reads untrusted bytes; should it panic, that is an error too.
fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("its structure is broken".into()))
}
