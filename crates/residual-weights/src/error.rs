use crate::Cause;
use residual_data::shown;
use residual_fetch::FetchError;
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// An error while reading, writing or downloading weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that failed, as a verb such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file has the wrong format or content.
    #[error("{} {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// The problem, phrased to follow the path, such as `is empty`.
        reason: String,
    },
    /// A checkpoint belongs to a different network.
    #[error("{} does not fit the network: {differences}{cause}{}", path.display(), after_semicolon(left_aside))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The differences between the checkpoint and the network.
        differences: Box<Differences>,
        /// The likely cause of the differences.
        cause: Box<Cause>,
        /// A line that names the dictionary that was read and what was left aside, if anything was.
        left_aside: Option<String>,
    },
    /// Several dictionaries of a file fit the network equally well.
    #[error("{} has several dictionaries that fit the network equally well: {}", path.display(), all_shown(keys).join(" and "))]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// The keys of two of the dictionaries.
        keys: Vec<String>,
    },
    /// A file has no tensors under a key.
    #[error("{} has no tensors under `{}`; expected {}", path.display(), shown(key), keys_or_none(available))]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The keys under which the file has weights of the network. An empty key stands for the whole file.
        available: Vec<String>,
    },
    /// A name map contains an invalid regular expression.
    #[error("{}: `{}` is not a valid regular expression: {}", path.display(), shown(pattern), shown(reason))]
    Pattern {
        /// The file.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// The error in the pattern.
        reason: String,
    },
    /// A rule of a name map makes a name longer than 4096 bytes.
    #[error("the rule `{}` of the name map makes a name longer than 4096 bytes", shown(pattern))]
    LongName {
        /// The pattern of the rule.
        pattern: String,
    },
    /// No published weights have this name.
    #[error("unknown pretrained weights `{}`; expected one of {expected}", shown(name))]
    Unpublished {
        /// The name.
        name: String,
        /// All published names, separated by commas.
        expected: String,
    },
    /// The file extension does not name a format that can be written.
    #[error("cannot write {}; expected a name that ends in .safetensors or .bpk", path.display())]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// A download failed.
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

    /// Whether the request itself is invalid, such as an unknown name. Otherwise a file, a download or the system is at
    /// fault.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_usage(),
            Self::Unpublished { .. } | Self::Extension { .. } | Self::Pattern { .. } => true,
            Self::Ambiguous { .. } | Self::Key { .. } | Self::LongName { .. } => true,
            Self::Io { .. } | Self::BadFile { .. } | Self::Mismatch { .. } => false,
        }
    }
}

/// The differences between a checkpoint and a network. All names are torchvision's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Tensors of the network that are not in the file.
    pub missing: Vec<String>,
    /// Tensors of the file that are not in the network.
    pub unknown: Vec<String>,
    /// Tensors whose shapes differ: the name, the shape in the network and the shape in the file.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Differences {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unknown.is_empty() && self.shapes.is_empty()
    }

    /// Whether the only difference is the number of classes in the head.
    pub fn only_head_differs(&self) -> bool {
        let in_head = |(name, ..): &(String, _, _)| name.starts_with("fc.");
        self.missing.is_empty() && self.unknown.is_empty() && self.shapes.iter().all(in_head) && !self.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |(name, ours, theirs): &(String, Vec<usize>, Vec<usize>)| {
            format!("{} is {}, not {ours:?}", shown(name), shown(&format!("{theirs:?}")))
        };
        let parts = [
            ("missing", first_few(&self.missing, name_shown)),
            ("unknown", first_few(&self.unknown, name_shown)),
            ("wrong shape", first_few(&self.shapes, shape)),
        ];
        let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
        let text: Vec<String> = parts.map(|(kind, names)| format!("{kind}: {names}")).collect();
        f.write_str(&text.join("; "))
    }
}

fn after_semicolon(text: &Option<String>) -> String {
    text.as_ref().map_or(String::new(), |text| format!("; {text}"))
}

fn keys_or_none(keys: &[String]) -> String {
    let (whole, keys): (Vec<String>, Vec<String>) = keys.iter().cloned().partition(String::is_empty);
    let few = first_few(&keys, name_shown);
    match (whole.is_empty(), keys.is_empty()) {
        (true, true) => "no key, because no dictionary in it fits the network".into(),
        (false, true) => "no key, because the file as a whole fits the network".into(),
        (true, false) => few,
        (false, false) => format!("{few}, or no key"),
    }
}

/// The first few items of a list as texts, and the number of items left out.
pub(crate) fn first_few<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    const SHOWN: usize = 5;
    let few = items.iter().take(SHOWN).map(text).collect::<Vec<_>>().join(", ");
    match items.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{few} and {more} more"),
        _ => few,
    }
}

/// A name as errors show it: short, on one line, and an empty one as `""`.
#[allow(clippy::ptr_arg)]
pub(crate) fn name_shown(name: &String) -> String {
    if name.is_empty() { "\"\"".into() } else { shown(name) }
}

fn all_shown(names: &[String]) -> Vec<String> {
    names.iter().map(name_shown).collect()
}
