use crate::WeightsError;
use residual_data::Preprocessing;
use residual_model::NetworkConfig;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

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
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WeightsError::io("read", &path)(error)),
        };
        let card: Self = serde_json::from_str(&text)
            .map_err(|error| WeightsError::bad_file(&path, format!("is not a valid card: {error}")))?;
        let valid = card
            .network
            .validate()
            .map_err(|e| e.to_string())
            .and_then(|()| card.preprocessing.as_ref().map_or(Ok(()), Preprocessing::validate));
        valid.map_err(|reason| WeightsError::bad_file(&path, format!("is not a valid card: {reason}")))?;
        if let Some(labels) = card.labels.as_ref().filter(|labels| labels.len() != card.network.classes) {
            let reason = format!("has {} labels for {} classes", labels.len(), card.network.classes);
            return Err(WeightsError::bad_file(&path, reason));
        }
        Ok(Some(card))
    }

    /// Removes the card of a weights file, if there is one.
    ///
    /// # Errors
    /// If the card exists and cannot be removed.
    pub fn remove(weights: &Path) -> Result<(), WeightsError> {
        let path = Self::path(weights);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(WeightsError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Writes the card next to a weights file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, weights: &Path) -> Result<(), WeightsError> {
        let path = Self::path(weights);
        let mut text = serde_json::to_string_pretty(self).expect("a card is plain data");
        text.push('\n');
        residual_fetch::write_atomic(&path, text.as_bytes()).map_err(WeightsError::io("write", &path))
    }
}
