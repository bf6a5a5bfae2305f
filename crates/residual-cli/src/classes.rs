//! The names of a network's classes.

use crate::Usage;
use anyhow::Context;
use residual_data::class_list;
use residual_fetch::read_text;
use residual_weights::Card;
use std::path::Path;

/// The names of a network's classes, if they are known.
pub(crate) struct ClassNames(Option<Vec<String>>);

impl ClassNames {
    /// The names in the file, one per line. Without a file, those in the card of the weights.
    pub(crate) fn of(file: Option<&Path>, card: &Card) -> anyhow::Result<Self> {
        match file {
            Some(path) => Ok(Self(Some(read(path, card.network.classes)?))),
            None => Ok(Self(card.labels.clone())),
        }
    }

    /// All names, if they are known.
    pub(crate) fn known(&self) -> Option<&[String]> {
        self.0.as_deref()
    }

    /// The name of a class, or its number if the names are unknown.
    pub(crate) fn name(&self, class: usize) -> String {
        self.known().map_or_else(|| class.to_string(), |names| names[class].clone())
    }
}

/// The most bytes that are read of a file of names.
const MAX_BYTES: u64 = 16 << 20;

/// Reads names from a text file, one per line.
fn read(path: &Path, classes: usize) -> anyhow::Result<Vec<String>> {
    let text = read_text(path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
    let names = class_list(&text);
    if names.len() != classes {
        let text = format!("{} has {} lines, but the network has {classes} classes", path.display(), names.len());
        return Err(Usage(text).into());
    }
    Ok(names)
}
