//! Conversion between parameter naming schemes.
//!
//! All names are converted to torchvision's, such as `conv1.weight`, `bn1.running_mean`, `layer1.0.downsample.0.weight`
//! and `fc.bias`. The final norm of pre-activation nets, which torchvision lacks, is `bn`.
//!
//! | this crate | torchvision | timm `resnetv2` | public CIFAR checkpoints |
//! |---|---|---|---|
//! | `layer1.0.main_path.conv1.weight` | `layer1.0.conv1.weight` | `stages.0.blocks.0.conv1.weight` | `layer1.0.conv1.weight` |
//! | `layer1.0.main_path.bn1.gamma` | `layer1.0.bn1.weight` | `stages.0.blocks.0.norm1.weight` | `layer1.0.bn1.weight` |
//! | `layer1.0.shortcut.conv.weight` | `layer1.0.downsample.0.weight` | `stages.0.blocks.0.downsample.conv.weight` | `layer1.0.shortcut.0.weight` |
//! | `bn.gamma` | | `norm.weight` | `bn.weight` |
//! | `fc.weight` | `fc.weight` | `head.fc.weight` | `linear.weight` |

use crate::WeightsError;
use regex::Regex;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt, fs,
    path::Path,
    sync::LazyLock,
};

/// Converts a parameter path of this project to torchvision's name.
///
/// ```
/// use residual_weights::names::torchvision;
///
/// assert_eq!(torchvision("layer1.0.main_path.bn1.gamma"), "layer1.0.bn1.weight");
/// assert_eq!(torchvision("layer2.0.shortcut.conv.weight"), "layer2.0.downsample.0.weight");
/// ```
pub fn torchvision(path: &str) -> String {
    let parts = path.split('.').filter(|part| *part != "main_path").collect::<Vec<_>>();
    let mut name = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let after_shortcut = i > 0 && parts[i - 1] == "shortcut";
        name.push(match *part {
            "shortcut" => "downsample",
            "conv" | "linear" if after_shortcut => "0",
            "bn" if after_shortcut => "1",
            "gamma" => "weight",
            "beta" => "bias",
            other => other,
        });
    }
    name.join(".")
}

/// Converts a parameter name of any scheme in the [module's table](self) to torchvision's name.
pub fn canonical(name: &str) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let rules = [
            (r"^stem\.conv\.", "conv1."),
            (r"^stem\.norm\.", "bn1."),
            (r"^stages\.(\d+)\.blocks\.(\d+)\.", "layer{$1}.$2."),
            (r"\.norm(\d)\.", ".bn$1."),
            (r"\.downsample\.conv\.", ".downsample.0."),
            (r"\.downsample\.norm\.", ".downsample.1."),
            (r"\.shortcut\.(\d)\.", ".downsample.$1."),
            (r"^norm\.", "bn."),
            (r"^head\.fc\.", "fc."),
            (r"^linear\.", "fc."),
        ];
        rules.map(|(pattern, new)| (Regex::new(pattern).expect("the pattern is valid"), new)).into()
    });
    let mut name = torchvision(name);
    for (pattern, new) in RULES.iter() {
        name = pattern.replace(&name, *new).into_owned();
    }
    // timm counts stages from 0.
    match name.strip_prefix("layer{").and_then(|rest| rest.split_once('}')) {
        Some((stage, rest)) => format!("layer{}{rest}", stage.parse::<usize>().unwrap_or(0).saturating_add(1)),
        None => name,
    }
}

/// Whether a tensor is the batch counter of a norm, which networks of this project do not have or need.
pub fn is_batch_counter(name: &str) -> bool {
    name == "num_batches_tracked" || name.ends_with(".num_batches_tracked")
}

/// The keys under which training scripts store state other than the network's weights.
const TRAINING_STATE: [&str; 9] =
    ["optimizer", "optim", "scheduler", "lr_scheduler", "scaler", "state_dict_ema", "ema", "callbacks", "loops"];

/// Removes training state, then strips the name prefixes added by training scripts (`state_dict.`), by wrappers such as
/// `DataParallel` and Lightning (`module.`, `model.`), and by this project's checkpoints (`network.`).
///
/// A prefix is stripped only if all remaining tensors have it. Otherwise the names stay as they are, and `load`
/// reports the unknown ones.
pub(crate) fn unnest<T>(entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let is_state = |name: &str| name.split_once('.').is_some_and(|(first, _)| TRAINING_STATE.contains(&first));
    let mut entries: BTreeMap<String, T> = entries.into_iter().filter(|(name, _)| !is_state(name)).collect();
    let wrappers = ["state_dict.", "model_state_dict.", "model.", "net.", "module.", "network."];
    while let Some(wrapper) = wrappers.iter().find(|w| entries.keys().all(|name| name.starts_with(**w)))
        && !entries.is_empty()
    {
        entries = strip(entries, wrapper);
    }
    entries
}

fn strip<T>(entries: BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
    entries.into_iter().map(|(name, entry)| (name[prefix.len()..].to_string(), entry)).collect()
}

/// Renames tensors by regular expressions, for checkpoints with other naming schemes.
///
/// The map is a JSON object of patterns and replacements, which are applied one after another in the order of the file.
/// They are applied after prefixes such as `state_dict.` and `module.` have been removed from the names. In a
/// replacement, `$1` stands for the text matched by the first group:
///
/// ```json
/// { "^backbone\\.": "", "^classifier\\.1\\.": "fc." }
/// ```
#[derive(Clone, Debug, Default)]
pub struct NameMap(Vec<(Regex, String)>);

/// The entries of a JSON object of strings, in the order of the file.
struct Rules(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Rules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rules, A::Error> {
                let mut rules = Vec::new();
                while let Some(rule) = map.next_entry()? {
                    rules.push(rule);
                }
                Ok(Rules(rules))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl NameMap {
    /// Reads a map from a JSON file.
    ///
    /// # Errors
    /// If the file cannot be read, is not a JSON object of strings, or contains an invalid regular expression.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        Self::parse(&fs::read_to_string(path).map_err(WeightsError::io("read", path))?, path)
    }

    /// Parses a map from JSON. Error messages name `path` as the source.
    ///
    /// # Errors
    /// If `json` is not a JSON object of strings, or contains an invalid regular expression.
    pub fn parse(json: &str, path: &Path) -> Result<Self, WeightsError> {
        let Rules(rules) = serde_json::from_str(json).map_err(|error| {
            WeightsError::bad_file(path, format!("is not a JSON object of patterns and replacements: {error}"))
        })?;
        let rule = |(pattern, new): (String, String)| match Regex::new(&pattern) {
            Ok(regex) => Ok((regex, new)),
            Err(error) => {
                let reason = error.to_string().lines().last().unwrap_or_default().trim().to_string();
                Err(WeightsError::Pattern { path: path.into(), pattern, reason })
            }
        };
        rules.into_iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// Renames a tensor. If the name becomes longer than 4,096 bytes, which no real name is, the remaining patterns are
    /// not applied. A malicious map therefore cannot exhaust the memory.
    pub fn apply(&self, name: &str) -> String {
        const MAX_LEN: usize = 4096;
        self.0.iter().fold(name.to_string(), |name, (pattern, new)| {
            if name.len() <= MAX_LEN { pattern.replace_all(&name, new.as_str()).into_owned() } else { name }
        })
    }
}

/// The names that occur more than once.
pub(crate) fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_converted_to_torchvisions_names() {
        let cases = [
            ("layer1.0.main_path.conv1.weight", "layer1.0.conv1.weight"),
            ("layer3.5.shortcut.bn.running_var", "layer3.5.downsample.1.running_var"),
            ("stages.0.blocks.2.norm3.bias", "layer1.2.bn3.bias"),
            ("stages.3.blocks.0.downsample.conv.weight", "layer4.0.downsample.0.weight"),
            ("stem.conv.weight", "conv1.weight"),
            ("norm.running_mean", "bn.running_mean"),
            ("head.fc.weight", "fc.weight"),
            ("linear.bias", "fc.bias"),
            ("layer2.0.shortcut.1.weight", "layer2.0.downsample.1.weight"),
            ("linear1.weight", "linear1.weight"),
            ("blocks.0.main_path.linear2.bias", "blocks.0.linear2.bias"),
        ];
        for (name, expected) in cases {
            assert_eq!(canonical(name), expected);
            assert_eq!(canonical(expected), expected);
        }
    }

    #[test]
    fn prefixes_and_training_state_are_removed() {
        let unnested = |names: &[&str]| {
            unnest(names.iter().map(|n| (n.to_string(), ())).collect()).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(unnested(&["state_dict.module.fc.bias", "optimizer.state.0"]), ["fc.bias"]);
        assert_eq!(unnested(&["model.fc.bias"]), ["fc.bias"]);
        assert_eq!(unnested(&["module.fc.bias", "module.fc.weight"]), ["fc.bias", "fc.weight"]);
        assert_eq!(unnested(&["fc.bias"]), ["fc.bias"]);
        assert_eq!(unnested(&["state_dict.model.fc.bias", "callbacks.best"]), ["fc.bias"]);
        // If one tensor lacks the prefix, all names stay as they are.
        assert_eq!(unnested(&["state_dict.fc.bias", "stray"]), ["state_dict.fc.bias", "stray"]);
        assert_eq!(unnested(&["fc.bias", "net.extra"]), ["fc.bias", "net.extra"]);
    }
}
