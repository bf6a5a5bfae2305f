//! Weights in several files, with an index that names the file of each tensor.

use crate::{Checkpoint, Entry, Format, WeightsError};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
#[derive(Deserialize)]
struct Index {
    /// The file that holds each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Reads the tensors of an index from the files beside it.
///
/// # Errors
/// If the index is invalid or names a file outside its folder, or one of its files cannot be read or lacks a tensor.
pub(crate) fn read(path: &Path) -> Result<(Format, BTreeMap<String, Entry>), WeightsError> {
    let bad = |reason: String| WeightsError::bad_file(path, reason);
    let text = fs::read_to_string(path).map_err(WeightsError::io("read", path))?;
    let Index { weight_map } = serde_json::from_str(&text)
        .map_err(|error| bad(format!("is JSON, but not an index of weights in several files: {error}")))?;
    let mut format = Format::Safetensors;
    let mut entries = BTreeMap::new();
    for file in weight_map.values().collect::<BTreeSet<_>>() {
        let parts: Vec<Component<'_>> = Path::new(file).components().collect();
        if !matches!(parts[..], [Component::Normal(_)]) || file.contains(['/', '\\']) {
            return Err(bad(format!("names the file `{}`; expected a file in the same folder", file.escape_debug())));
        }
        let shard = Checkpoint::read_shard(&path.with_file_name(file)).map_err(|error| match error {
            WeightsError::Io { source, .. } => {
                bad(format!("names {}, which cannot be read: {source}", file.escape_debug()))
            }
            error => error,
        })?;
        format = shard.format();
        for name in weight_map.iter().filter(|(_, of)| *of == file).map(|(name, _)| name) {
            let entry = shard.get(name).ok_or_else(|| {
                bad(format!("says that {file} holds the tensor `{}`, but it does not", name.escape_debug()))
            })?;
            entries.insert(name.clone(), entry.clone());
        }
    }
    Ok((format, entries))
}

/// For a file that is one of several, such as `model-00001-of-00002.safetensors`: the number of files, and their index
/// if it exists.
pub(crate) fn shard(path: &Path) -> Option<(usize, Option<PathBuf>)> {
    let (stem, extension) = (path.file_stem()?.to_str()?, path.extension()?.to_str()?);
    let (start, count) = stem.rsplit_once("-of-")?;
    let (name, number) = start.rsplit_once('-')?;
    let (_, count): (usize, usize) = (number.parse().ok()?, count.parse().ok()?);
    let index = path.with_file_name(format!("{name}.{extension}.index.json"));
    Some((count, Some(index).filter(|index| index.is_file())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_recognised_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let shard = |name: &str| shard(&folder.path().join(name));
        assert_eq!(shard("pytorch_model-00001-of-00003.bin"), Some((3, None)));
        let index = folder.path().join("pytorch_model.bin.index.json");
        fs::write(&index, "{}").unwrap();
        assert_eq!(shard("pytorch_model-00001-of-00003.bin"), Some((3, Some(index))));
        assert_eq!(shard("best-of-5.pth"), None);
        assert_eq!(shard("model.safetensors"), None);
    }
}
