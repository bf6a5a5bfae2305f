use residual_fetch::FetchError;
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// What went wrong with a file of weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{} {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, as the rest of a sentence that begins with the file's name.
        reason: String,
    },
    /// A checkpoint of another network.
    #[error("{} does not fit the network: {differences}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// How they differ.
        differences: Differences,
    },
    /// A name map that is not usable.
    #[error("{}: `{pattern}` is not a regular expression: {reason}", path.display())]
    Pattern {
        /// The file.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No published weights of this name.
    #[error("no published weights are called `{name}`; expected one of {expected}")]
    Unpublished {
        /// The name.
        name: String,
        /// The names there are.
        expected: String,
    },
    /// A format that is not written.
    #[error("cannot tell from {} what to write; expected a name that ends in .safetensors or .bpk", path.display())]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// A download.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl WeightsError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }

    pub(crate) fn bad_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadFile { path: path.into(), reason: reason.into() }
    }

    /// Whether something asked for is wrong, rather than a failure on the way.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_usage(),
            _ => matches!(self, Self::Unpublished { .. } | Self::Extension { .. } | Self::Pattern { .. }),
        }
    }
}

/// How a checkpoint differs from a network. Names are torchvision's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Tensors of the network that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the network lacks.
    pub unknown: Vec<String>,
    /// Tensors of another shape: name, the network's shape, the file's.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Differences {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unknown.is_empty() && self.shapes.is_empty()
    }

    /// Whether the head alone has another number of classes.
    pub fn is_the_head_alone(&self) -> bool {
        let of_head = |(name, ..): &(String, _, _)| name.starts_with("fc.");
        self.missing.is_empty() && self.unknown.is_empty() && self.shapes.iter().all(of_head) && !self.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> =
            self.shapes.iter().map(|(name, ours, theirs)| format!("{name} is {theirs:?}, not {ours:?}")).collect();
        let parts = [("missing", &self.missing), ("unknown", &self.unknown), ("wrong shape", &shapes)];
        let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
        let text: Vec<String> = parts.map(|(what, names)| format!("{what}: {}", some(names))).collect();
        f.write_str(&text.join("; "))?;
        if self.is_the_head_alone() {
            f.write_str(" (the head alone differs: it has another number of classes)")?;
        }
        Ok(())
    }
}

/// The first names of a list, and how many more there are.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| name.escape_debug().to_string()).collect();
    let text = shown.join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{text} and {more} more"),
        _ => text,
    }
}
