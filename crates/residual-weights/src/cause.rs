use crate::{error::Differences, shards};
use residual_model::ShortcutOption;
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

/// The likely cause of the differences between a file and a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The weights are split over several files, and this is one of them.
    Shard {
        /// The number of files.
        count: usize,
        /// The index of the files, if it is beside this one.
        index: Option<PathBuf>,
    },
    /// Only the head has another number of classes.
    Classes,
    /// Only the head is missing.
    NoHead,
    /// Only the shortcuts differ. The file's shortcuts are those of this option.
    Shortcuts(ShortcutOption),
    /// The file has more or fewer blocks.
    Blocks,
    /// The names are the same, but these sizes differ. All are `None` if only shapes of other layers differ.
    Sizes {
        /// The file's width, if it differs.
        width: Option<usize>,
        /// The channels of the file's images, if they differ.
        channels: Option<usize>,
        /// The file's classes, if they differ.
        classes: Option<usize>,
    },
    /// The file has tensors that the network lacks.
    Extra,
    /// Tensors are missing, and others are unknown.
    Names,
    /// The file lacks tensors of the network.
    Incomplete,
}

impl Cause {
    /// `wanted` and `given` are the names of the network's tensors and the file's.
    pub(crate) fn of(path: &Path, differences: &Differences, wanted: &BTreeSet<&str>, given: &BTreeSet<&str>) -> Self {
        let Differences { missing, unknown, shapes } = differences;
        if let Some((count, index)) = shards::shard(path) {
            return Self::Shard { count, index };
        }
        if differences.only_head_differs() {
            return Self::Classes;
        }
        let names = || missing.iter().chain(unknown).map(String::as_str);
        if shapes.is_empty() && unknown.is_empty() && missing.iter().all(|name| name.starts_with("fc.")) {
            return Self::NoHead;
        }
        if shapes.is_empty() && names().all(|name| name.contains(".downsample.")) {
            return Self::Shortcuts(shortcuts(given));
        }
        let in_other_blocks = |name: &str| {
            let other = if wanted.contains(name) { given } else { wanted };
            // The names that start with a text follow it in the order of names.
            block(name).is_some_and(|block| !other.range(block..).next().is_some_and(|name| name.starts_with(block)))
        };
        if names().next().is_some() && names().all(in_other_blocks) {
            return Self::Blocks;
        }
        match (missing.is_empty(), unknown.is_empty()) {
            (true, true) => sizes(differences),
            (true, false) => Self::Extra,
            (false, false) => Self::Names,
            (false, true) => Self::Incomplete,
        }
    }
}

/// The option whose shortcuts have these tensors.
fn shortcuts(given: &BTreeSet<&str>) -> ShortcutOption {
    let projected: BTreeSet<&str> =
        given.iter().filter(|name| name.contains(".downsample.")).filter_map(|name| block(name)).collect();
    // The first block of the first stage changes the shape if it is a bottleneck.
    let changes_shape = |block: &&str| match block.strip_prefix("layer").and_then(|rest| rest.split_once('.')) {
        Some(("1", "0.")) => given.contains("layer1.0.conv3.weight"),
        Some((_, number)) => number == "0.",
        None => false,
    };
    if projected.is_empty() {
        ShortcutOption::ZeroPad
    } else if projected.iter().all(changes_shape) {
        ShortcutOption::Projection
    } else {
        ShortcutOption::ProjectAll
    }
}

/// The start of a name up to the block's number and a dot: `layer1.0.` or `blocks.3.`.
fn block(name: &str) -> Option<&str> {
    let (end, _) = name.match_indices('.').nth(1)?;
    (name.starts_with("layer") || name.starts_with("blocks.")).then(|| &name[..=end])
}

/// The file's sizes that differ. `conv1.weight` is `[width, channels, ..]`, and `linear1.weight` is `[width, ..]`.
fn sizes(differences: &Differences) -> Cause {
    let differing = |wanted: &str, axis: usize| {
        let (_, ours, theirs) = differences.shapes.iter().find(|(name, ..)| name == wanted)?;
        theirs.get(axis).copied().filter(|size| ours.get(axis) != Some(size))
    };
    Cause::Sizes {
        width: differing("conv1.weight", 0).or_else(|| differing("linear1.weight", 0)),
        channels: differing("conv1.weight", 1),
        classes: differing("fc.weight", 0).or_else(|| differing("fc.bias", 0)),
    }
}

/// A text that follows the differences.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard { count, index: Some(index) } => {
                write!(f, "; it is one of {count} shards; give {}", index.display())
            }
            Self::Shard { count, index: None } => {
                write!(f, "; it is one of {count} shards; their index is not in its folder")
            }
            Self::Classes => f.write_str(" (only the head differs: it has a different number of classes)"),
            Self::NoHead => f.write_str(" (only the head is missing)"),
            Self::Shortcuts(option) => write!(f, " (only the shortcuts differ: those of the file are option {option})"),
            Self::Blocks => f.write_str("; the number of blocks differs; is it another network?"),
            Self::Sizes { width, channels, classes } => {
                let count = |size: &Option<usize>, one: &str, many: &str| {
                    size.map(|size| format!("{size} {}", if size == 1 { one } else { many }))
                };
                let width = width.map(|width| format!("width {width}"));
                let sizes = [width, count(channels, "channel", "channels"), count(classes, "class", "classes")];
                let sizes: Vec<String> = sizes.into_iter().flatten().collect();
                if sizes.is_empty() {
                    f.write_str("; is it another network?")
                } else {
                    write!(f, "; the file has {}", sizes.join(" and "))
                }
            }
            Self::Extra | Self::Names | Self::Incomplete => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortcuts_of_a_file_tell_its_option() {
        let option = |names: &[&str]| shortcuts(&names.iter().copied().collect());
        assert_eq!(option(&["conv1.weight"]), ShortcutOption::ZeroPad);
        assert_eq!(option(&["layer2.0.downsample.0.weight"]), ShortcutOption::Projection);
        let bottleneck = ["layer1.0.conv3.weight", "layer1.0.downsample.0.weight", "layer2.0.downsample.0.weight"];
        assert_eq!(option(&bottleneck), ShortcutOption::Projection);
        assert_eq!(option(&bottleneck[1..]), ShortcutOption::ProjectAll);
        assert_eq!(option(&["layer2.1.downsample.0.weight"]), ShortcutOption::ProjectAll);
        assert_eq!(option(&["blocks.0.downsample.0.weight"]), ShortcutOption::ProjectAll);
    }
}
