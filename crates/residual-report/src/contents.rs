use crate::ReportError;
use residual_lab::{Inspection, SweepResults};
use std::path::{Path, PathBuf};

/// The data in a folder of a sweep or of inspections.
pub(crate) struct Contents {
    pub(crate) sweep: Option<SweepResults>,
    /// The inspections in each folder, with the path of the folder relative to this one.
    pub(crate) inspections: Vec<(PathBuf, Vec<Inspection>)>,
}

impl Contents {
    /// Reads a folder. It holds either a sweep, with inspections in its `inspect/`, or inspections in the folder itself
    /// and in its subfolders.
    pub(crate) fn read(folder: &Path) -> Result<Self, ReportError> {
        let wrong = |reason| Err(ReportError::Folder { path: folder.into(), reason });
        if !folder.is_dir() {
            return wrong("is not a directory; expected one that `residual sweep` or `residual inspect` wrote");
        }
        // Without results, the sweep is not finished: it was killed, or is still running.
        let is_sweep = ["results.json", "sweep.json"].iter().any(|name| folder.join(name).exists());
        let inspect = if is_sweep { folder.join("inspect") } else { folder.into() };
        let mut inspections = Vec::new();
        for found in if inspect.is_dir() { Inspection::folders(&inspect)? } else { Vec::new() } {
            let relative = found.strip_prefix(folder).unwrap_or(&found).to_path_buf();
            inspections.push((relative, Inspection::read_all(&found)?));
        }
        if !is_sweep && folder.join("config.json").exists() {
            return wrong("holds a training run, not a sweep or an inspection; `residual compare` shows training runs");
        }
        if !is_sweep && inspections.is_empty() {
            return wrong(
                "holds neither a sweep nor an inspection; expected one that `residual sweep` or `residual inspect` wrote",
            );
        }
        let sweep = if is_sweep { Some(SweepResults::read(folder)?) } else { None };
        Ok(Self { sweep, inspections })
    }
}
