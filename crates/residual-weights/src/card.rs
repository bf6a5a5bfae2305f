use crate::{WeightsError, file::json_reason};
use residual_data::Preprocessing;
use residual_fetch::read_text;
use residual_model::NetworkConfig;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The longest card in bytes.
const MAX_LEN: u64 = 16 << 20;

/// Metadata that a weights file does not contain, stored as JSON in a file next to it. The card of
/// `resnet20.safetensors` is `resnet20.safetensors.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The network.
    pub network: NetworkConfig,
    /// The preprocessing of the network's input images, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// The names of the classes, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

impl Card {
    /// The path of the card for a weights file.
    pub fn path(weights: &Path) -> PathBuf {
        let mut name = weights.as_os_str().to_owned();
        name.push(".json");
        name.into()
    }

    /// Reads the card of a weights file, or returns `None` if there is no card.
    ///
    /// # Errors
    /// If the card cannot be read or is not the JSON of a card, if its network or its preprocessing is invalid, or if
    /// the number of labels differs from the number of classes.
    pub fn of(weights: &Path) -> Result<Option<Self>, WeightsError> {
        let path = Self::path(weights);
        let text = match read_text(&path, MAX_LEN) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WeightsError::io("read", &path)(error)),
        };
        Self::parse(&text, &path).map(Some)
    }

    /// Parses a card from JSON. Error messages name `path` as the source.
    ///
    /// # Errors
    /// The same as for [`Self::of`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, WeightsError> {
        let bad = |reason: String| WeightsError::bad_file(path, reason);
        let card: Self =
            serde_json::from_str(text).map_err(|error| bad(format!("is not a valid card: {}", json_reason(&error))))?;
        let valid = card
            .network
            .validate()
            .map_err(|e| e.to_string())
            .and_then(|()| card.preprocessing.as_ref().map_or(Ok(()), Preprocessing::validate));
        valid.map_err(|reason| bad(format!("is not a valid card: {reason}")))?;
        if let Some(labels) = card.labels.as_ref().filter(|labels| labels.len() != card.network.classes) {
            return Err(bad(format!("has {} labels for {} classes", labels.len(), card.network.classes)));
        }
        Ok(card)
    }

    /// The card as JSON.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a card is plain data");
        text.push('\n');
        text
    }
}
