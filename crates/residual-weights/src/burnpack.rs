//! The header of a burnpack file: a magic number, a version, the length of the metadata, and the metadata as CBOR.

use crate::{
    Entry,
    dtype::Dtype,
    file::DataFile,
    pairs::Pairs,
    ranges::{Descriptor, entries},
};
use burn::tensor::DType;
use residual_data::shown;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// The longest metadata in bytes, as in the library `burn-pack`.
const MAX_METADATA: u64 = 100 << 20;
/// The newest version of the format.
const VERSION: u16 = 1;
/// The bytes before the metadata.
const HEADER: u64 = 10;
/// The data start at a multiple of this many bytes.
const ALIGNMENT: u64 = 256;

/// The tensors of a file, whose values are read on demand, and the number of bytes that the values take.
///
/// # Errors
/// If the metadata are invalid, or two tensors overlap.
pub(crate) fn read(file: DataFile) -> Result<(BTreeMap<String, Entry>, u64), String> {
    let file = Arc::new(file);
    let header = file.read(0..HEADER).map_err(|error| error.to_string())?;
    let (version, length) = match header[..] {
        [b'N', b'R', b'U', b'B', v0, v1, l0, l1, l2, l3] => {
            (u16::from_le_bytes([v0, v1]), u64::from(u32::from_le_bytes([l0, l1, l2, l3])))
        }
        _ => return Err("it is in big-endian byte order".into()),
    };
    if version > VERSION {
        return Err(format!("it has version {version} of the format; expected at most {VERSION}"));
    }
    if length > MAX_METADATA {
        return Err(format!("its metadata claim {length} bytes; expected at most {MAX_METADATA}"));
    }
    let metadata =
        file.read(HEADER..HEADER + length).map_err(|_| "its metadata extend past the end of the file".to_string())?;
    let Metadata { tensors } = ciborium::from_reader(&metadata[..])
        .map_err(|error| format!("its metadata are damaged: {}", shown(&error.to_string())))?;
    drop(metadata);
    let data = (HEADER + length).next_multiple_of(ALIGNMENT);
    entries(&file, data, tensors.0.into_iter().map(|(name, tensor)| tensor.descriptor(name)).collect())
}

/// The metadata without what Burn adds for training.
#[derive(Deserialize)]
struct Metadata {
    tensors: Pairs<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: DType,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Tensor {
    fn descriptor(self, name: String) -> Descriptor {
        let Self { dtype, shape, data_offsets: (start, end) } = self;
        let bits = Some(8 * dtype.size() as u64);
        let (dtype, bits) = match dtype {
            DType::F64 => (Dtype::F64, bits),
            DType::F32 | DType::Flex32 => (Dtype::F32, bits),
            DType::F16 => (Dtype::F16, bits),
            DType::BF16 => (Dtype::BF16, bits),
            // Quantized values are packed.
            DType::QFloat(_) => (Dtype::Other { name: "QFloat".into(), size: 0 }, None),
            other => (Dtype::Other { name: format!("{other:?}"), size: other.size() }, bits),
        };
        Descriptor { name, dtype, bits, shape, range: start..end }
    }
}
