//! The header of a safetensors file: its length in eight bytes, and JSON.

use crate::{
    Entry,
    file::{DataFile, json_reason},
    ranges::{Descriptor, entries},
};
use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// The longest header in bytes, as in the library `safetensors`.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a file, whose values are read on demand, and the number of bytes that the values take.
///
/// # Errors
/// If the header is invalid, or the tensors do not fill the rest of the file without gaps.
pub(crate) fn read(file: DataFile) -> Result<(BTreeMap<String, Entry>, u64), String> {
    let file = Arc::new(file);
    let length = file.read(0..8).map_err(|error| error.to_string())?;
    let length = length.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if length > MAX_HEADER {
        return Err(format!("its header claims {length} bytes; expected at most {MAX_HEADER}"));
    }
    let data = 8 + length;
    let header = file.read(8..data).map_err(|_| "its header extends past the end of the file".to_string())?;
    let Header(descriptors) =
        serde_json::from_slice(&header).map_err(|error| format!("its header: {}", json_reason(&error)))?;
    drop(header);
    let (entries, held) = entries(&file, data, descriptors)?;
    let rest = file.len() - data;
    if held == rest { Ok((entries, held)) } else { Err(format!("its tensors take {held} of {rest} bytes of data")) }
}

struct Header(Vec<Descriptor>);

#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut descriptors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let Info { dtype, shape, data_offsets: (start, end) } = map.next_value()?;
                    let bits = Some(dtype.bitsize() as u64);
                    descriptors.push(Descriptor { name, dtype: dtype.into(), bits, shape, range: start..end });
                }
                Ok(Header(descriptors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}
