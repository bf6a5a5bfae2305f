//! The files that `torch.save` writes: as zip archives, which TorchScript writes too, or in the layout of PyTorch
//! before 1.6. Their pickles are read as data; nothing in them is executed.

mod legacy;
mod storage;
mod tensor;
mod walk;
mod zip;

use legacy::Legacy;
use residual_data::formats::pickle::{Id, Node, Object, Pickle};
use std::{collections::BTreeMap, fs::File, sync::Arc};
use storage::Storages;
pub(crate) use tensor::Tensor;
use tensor::{Made, StorageRef};
use zip::Zip;

/// A tensor of a file.
pub(crate) enum Found {
    Tensor(Tensor),
    /// A tensor without an array of values, and its kind, such as `sparse`.
    Other(Arc<str>),
}

/// Why a file cannot be read.
pub(crate) enum Problem {
    /// The file is damaged in this way.
    Damaged(String),
    /// The file is of another kind. The text is phrased to follow the file's name, and says what to do.
    Foreign(&'static str),
}

impl<T: Into<String>> From<T> for Problem {
    fn from(reason: T) -> Self {
        Self::Damaged(reason.into())
    }
}

const BIG_ENDIAN: Problem = Problem::Foreign("is in big-endian byte order; save it on a little-endian machine");

/// Whether a file that starts like this is a PyTorch file.
pub(crate) fn detect(start: &[u8]) -> bool {
    is_zip(start) || Legacy::detect(start)
}

fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// Finds the tensors of a file with the full names that they have in it, such as `state_dict.module.fc.bias`, and the
/// number of bytes of its storages.
pub(crate) fn read(file: File, start: &[u8]) -> Result<(BTreeMap<String, Found>, u64), Problem> {
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let (storages, pickle) = if is_zip(start) {
        let zip = Zip::open(file)?;
        let pickle = zip.pickle()?;
        (Storages::Zip(zip), pickle)
    } else {
        let (legacy, pickle) = Legacy::open(file)?;
        (Storages::Legacy(legacy), pickle)
    };
    let tensors = walk::tensors(&pickle, size)?;
    if tensors.is_empty() && matches!(&storages, Storages::Zip(zip) if zip.is_torch_script()) {
        return Err(Problem::Foreign("is a frozen TorchScript program; save the module's state_dict() instead"));
    }
    let held = storages.bytes();
    let storages = Arc::new(storages);
    let found = |made| match made {
        Made::View(view) => Found::Tensor(Tensor::new(view, storages.clone())),
        Made::Other(kind) => Found::Other(kind),
    };
    Ok((tensors.into_iter().map(|(name, made)| (name, found(made))).collect(), held))
}
