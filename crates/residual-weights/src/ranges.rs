//! Tensors whose values are ranges of a file, as in safetensors and burnpack.

use crate::{Entry, dtype::Dtype, file::DataFile};
use residual_data::shown;
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// The longest name of a tensor in bytes. Those of real files have at most a few hundred.
pub(crate) const MAX_NAME: usize = 4096;

/// What the header of a file says about a tensor.
pub(crate) struct Descriptor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    /// The number of bits of an element, if all elements have as many.
    pub(crate) bits: Option<u64>,
    pub(crate) shape: Vec<u64>,
    /// The bytes of the values, counted from the start of the data.
    pub(crate) range: Range<u64>,
}

/// The tensors of a file whose data start at the byte `data`, and the number of bytes that they take together.
///
/// # Errors
/// If two tensors overlap or have the same name, or the range of one does not fit its shape or lies beyond the file.
/// The tensors together thus have no more values than the file.
pub(crate) fn entries(
    file: &Arc<DataFile>,
    data: u64,
    descriptors: Vec<Descriptor>,
) -> Result<(BTreeMap<String, Entry>, u64), String> {
    let mut ranges = Vec::with_capacity(descriptors.len());
    let mut entries = BTreeMap::new();
    for Descriptor { name, dtype, bits, shape, range } in descriptors {
        check_name(&name)?;
        let bad = |reason: &str| format!("its tensor `{}` {reason}", shown(&name));
        if range.start > range.end {
            return Err(bad("ends before it starts"));
        }
        let len = range.end - range.start;
        let elements = shape.iter().try_fold(1u64, |elements, &size| elements.checked_mul(size));
        let expected = |bits| elements.and_then(|elements| elements.checked_mul(bits)).map(|bits| bits.div_ceil(8));
        if let Some(expected) = bits.map(expected)
            && expected != Some(len)
        {
            let required = expected.map_or("more than a file can have".into(), |bytes| bytes.to_string());
            return Err(bad(&format!("has {len} bytes; its shape and type require {required}")));
        }
        let Some(end) = data.checked_add(range.end).filter(|end| *end <= file.len()) else {
            return Err(bad("extends past the end of the file, perhaps because a download was interrupted"));
        };
        let start = end - len;
        if len > 0 {
            ranges.push(start..end);
        }
        let shape = shape.into_iter().map(usize::try_from).collect::<Result<Arc<[usize]>, _>>();
        let shape = shape.map_err(|_| bad("is too large"))?;
        let entry = Entry::in_range(shape, file.clone(), start..end, dtype);
        if let Some(name) = entries.insert(name.clone(), entry).map(|_| name) {
            return Err(format!("it has two tensors named `{}`", shown(&name)));
        }
    }
    ranges.sort_unstable_by_key(|range| range.start);
    if ranges.windows(2).any(|pair| pair[1].start < pair[0].end) {
        return Err("two of its tensors overlap".into());
    }
    Ok((entries, ranges.iter().map(|range| range.end - range.start).sum()))
}

/// # Errors
/// If the name of a tensor is longer than those of real files.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.len() <= MAX_NAME {
        Ok(())
    } else {
        Err(format!("the name of its tensor `{}` is longer than {MAX_NAME} bytes", shown(name)))
    }
}
