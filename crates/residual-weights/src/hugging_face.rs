use residual_data::Preprocessing;
use serde::Deserialize;
use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

/// What the files that Hugging Face puts beside weights say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HuggingFace {
    /// The preprocessing of the network's images, from `preprocessor_config.json`.
    pub preprocessing: Option<Preprocessing>,
    /// The names of the classes, in order, from `config.json`.
    pub labels: Option<Vec<String>>,
}

/// The settings of `ConvNextImageProcessor`, which ResNets have. It resizes the shorter side to `size / crop_pct` and
/// crops a square of `size` from the centre, if `size` is below 384.
#[derive(Deserialize)]
struct Preprocessor {
    #[serde(alias = "feature_extractor_type")]
    image_processor_type: String,
    size: Size,
    #[serde(default = "crop_pct")]
    crop_pct: f64,
    image_mean: Vec<f32>,
    image_std: Vec<f32>,
}

fn crop_pct() -> f64 {
    224.0 / 256.0
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Shorter { shortest_edge: usize },
}

#[derive(Deserialize)]
struct Config {
    id2label: BTreeMap<usize, String>,
}

impl HuggingFace {
    /// Reads the files beside weights of a network with this number of classes. What is missing, invalid or does not
    /// fit is left out.
    pub fn beside(weights: &Path, classes: usize) -> Self {
        let preprocessor = read::<Preprocessor>(&weights.with_file_name("preprocessor_config.json"));
        let labels = read::<Config>(&weights.with_file_name("config.json")).map(|config| config.id2label);
        // The keys are sorted and distinct, so they are 0, 1, .. if the last one is `classes - 1`.
        let labels = labels.filter(|labels| {
            labels.len() == classes && labels.last_key_value().is_some_and(|(last, _)| *last == classes - 1)
        });
        Self {
            preprocessing: preprocessor.and_then(Preprocessor::preprocessing),
            labels: labels.map(|labels| labels.into_values().collect()),
        }
    }
}

impl Preprocessor {
    fn preprocessing(self) -> Option<Preprocessing> {
        let (Size::Side(crop) | Size::Shorter { shortest_edge: crop }) = self.size;
        let resize = (crop as f64 / self.crop_pct) as usize;
        let (mean, std) = (self.image_mean, self.image_std);
        let preprocessing = Preprocessing { resize, mean, std, ..Preprocessing::imagenet(resize, crop) };
        let is_known = self.image_processor_type.starts_with("ConvNext") && crop < 384;
        (is_known && preprocessing.validate().is_ok()).then_some(preprocessing)
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    const MAX_LEN: u64 = 1 << 22;
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_LEN).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The preprocessor is that of `microsoft/resnet-50`.
    #[test]
    fn the_files_beside_weights_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("model.safetensors");
        assert_eq!(HuggingFace::beside(&weights, 2), HuggingFace::default());
        let preprocessor = r#"{ "crop_pct": 0.875, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "ConvNextFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224 }"#;
        fs::write(weights.with_file_name("preprocessor_config.json"), preprocessor).unwrap();
        fs::write(weights.with_file_name("config.json"), r#"{ "id2label": { "1": "dog", "0": "cat" } }"#).unwrap();
        let read = HuggingFace::beside(&weights, 2);
        assert_eq!(read.preprocessing, Some(Preprocessing::imagenet(256, 224)));
        assert_eq!(read.labels, Some(vec!["cat".into(), "dog".into()]));
        assert_eq!(HuggingFace::beside(&weights, 3).labels, None);
        let other = preprocessor.replace("ConvNext", "ViT");
        fs::write(weights.with_file_name("preprocessor_config.json"), other).unwrap();
        assert_eq!(HuggingFace::beside(&weights, 2).preprocessing, None);
    }
}
