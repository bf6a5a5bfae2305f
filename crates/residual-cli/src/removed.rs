//! What `--force` removes, in words.

use std::path::{Path, PathBuf};

/// `removing 14 files from runs/a: summary.json, model.bpk, checkpoint/ (4 files)`
pub(crate) fn removed(folder: &Path, files: &[PathBuf]) -> String {
    let mut names: Vec<(String, usize)> = Vec::new();
    for file in files {
        let inside = file.strip_prefix(folder).unwrap_or(file);
        let mut parts = inside.components().map(|part| part.as_os_str().to_string_lossy());
        let first = parts.next().unwrap_or_default();
        let name = if parts.next().is_some() { format!("{first}/") } else { first.into_owned() };
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => names.push((name, 1)),
        }
    }
    let names = names.into_iter().map(|(name, count)| match count {
        _ if !name.ends_with('/') => name,
        1 => format!("{name} (1 file)"),
        count => format!("{name} ({count} files)"),
    });
    let files = if files.len() == 1 { "1 file".into() } else { format!("{} files", files.len()) };
    format!("removing {files} from {}: {}", folder.display(), names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_directories_are_counted() {
        let files = ["a/model.bpk", "a/checkpoint/1.ckpt", "a/checkpoint/2.ckpt", "a/runs/x.json"];
        let text = removed("a".as_ref(), &files.map(PathBuf::from));
        assert_eq!(text, "removing 4 files from a: model.bpk, checkpoint/ (2 files), runs/ (1 file)");
        assert_eq!(removed("a".as_ref(), &["a/b".into()]), "removing 1 file from a: b");
    }
}
