use crate::WeightsError;
use residual_data::Preprocessing;
use residual_model::NetworkConfig;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a weights file does not say. Kept beside it as JSON: `resnet20.safetensors` has its card in
/// `resnet20.safetensors.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The network.
    pub network: NetworkConfig,
    /// What is done to an image first, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// What the classes are called, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

impl Card {
    /// The card's file for these weights.
    pub fn path(weights: &Path) -> PathBuf {
        let mut name = weights.as_os_str().to_owned();
        name.push(".json");
        name.into()
    }

    /// Reads the card of these weights, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is no card of a network that exists.
    pub fn of(weights: &Path) -> Result<Option<Self>, WeightsError> {
        let path = Self::path(weights);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WeightsError::io("read", &path)(error)),
        };
        let card: Self = serde_json::from_str(&text)
            .map_err(|error| WeightsError::bad_file(&path, format!("does not describe weights: {error}")))?;
        let valid = card
            .network
            .validate()
            .map_err(|e| e.to_string())
            .and_then(|()| card.preprocessing.as_ref().map_or(Ok(()), Preprocessing::validate));
        valid.map_err(|reason| WeightsError::bad_file(&path, format!("is not usable: {reason}")))?;
        if let Some(labels) = card.labels.as_ref().filter(|labels| labels.len() != card.network.classes) {
            let reason = format!("has {} labels for {} classes", labels.len(), card.network.classes);
            return Err(WeightsError::bad_file(&path, reason));
        }
        Ok(Some(card))
    }

    /// Removes the card of these weights, if there is one.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(weights: &Path) -> Result<(), WeightsError> {
        let path = Self::path(weights);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(WeightsError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Writes the card beside these weights.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, weights: &Path) -> Result<(), WeightsError> {
        let path = Self::path(weights);
        let mut text = serde_json::to_string_pretty(self).expect("a card is plain data");
        text.push('\n');
        residual_fetch::write_whole(&path, text.as_bytes()).map_err(WeightsError::io("write", &path))
    }
}
