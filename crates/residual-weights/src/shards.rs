//! Weights in several files, with an index that names the file of each tensor.

use crate::{Checkpoint, Entry, Format, WeightsError, file::json_reason};
use residual_data::shown;
use residual_fetch::read_text;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// The longest index in bytes.
const MAX_INDEX: u64 = 64 << 20;
/// The largest number of files.
const MAX_FILES: usize = 1000;

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
#[derive(Deserialize)]
struct Index {
    /// The file that holds each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Reads the tensors of an index from the files beside it. Also returns the number of bytes of all their values.
///
/// # Errors
/// If the index is invalid or names a file outside its folder, or one of its files cannot be read or lacks a tensor.
pub(crate) fn read(path: &Path) -> Result<(Format, BTreeMap<String, Entry>, u64), WeightsError> {
    let bad = |reason: String| WeightsError::bad_file(path, reason);
    let text = read_text(path, MAX_INDEX).map_err(WeightsError::io("read", path))?;
    let Index { weight_map } = serde_json::from_str(&text).map_err(|error| {
        bad(format!("is JSON, but not an index of weights in several files: {}", json_reason(&error)))
    })?;
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in weight_map {
        files.entry(file).or_default().push(name);
    }
    if files.len() > MAX_FILES {
        return Err(bad(format!("names {} files; expected at most {MAX_FILES}", files.len())));
    }
    let mut format = None;
    let mut entries = BTreeMap::new();
    let mut held = 0u64;
    for (file, names) in files {
        let parts: Vec<Component<'_>> = Path::new(&file).components().collect();
        if !matches!(parts[..], [Component::Normal(_)]) || file.contains(['/', '\\']) {
            return Err(bad(format!("names the file `{}`; expected a file in the same folder", shown(&file))));
        }
        let shard = Checkpoint::read_shard(&path.with_file_name(&file)).map_err(|error| match error {
            WeightsError::Io { source, .. } => bad(format!("names {}, which cannot be read: {source}", shown(&file))),
            error => error,
        })?;
        if *format.get_or_insert(shard.format()) != shard.format() {
            return Err(bad(format!("names files of several formats, such as {}", shown(&file))));
        }
        held = held.saturating_add(shard.held_bytes());
        for name in names {
            let entry = shard.get(&name).ok_or_else(|| {
                bad(format!("says that {} holds the tensor `{}`, but it does not", shown(&file), shown(&name)))
            })?;
            entries.insert(name, entry.clone());
        }
    }
    Ok((format.unwrap_or(Format::Safetensors), entries, held))
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
    use std::fs;

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
