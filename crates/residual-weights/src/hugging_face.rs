use crate::{WeightsError, file::json_reason};
use residual_data::{Preprocessing, shown};
use residual_fetch::read_text;
use residual_model::{Family, NetName, NetworkConfig, StrideAt};
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, io, path::Path};

/// The content of the files that Hugging Face puts beside weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HuggingFace {
    /// The preprocessing of the network's images, from `preprocessor_config.json`.
    pub preprocessing: Option<Preprocessing>,
    /// The names of the classes, in order, from `config.json`.
    pub labels: Option<Vec<String>>,
    /// A line on each file that is not used and each file's settings that are not followed.
    pub notes: Vec<String>,
}

/// The settings of `ConvNextImageProcessor`, which ResNets use. It resizes the shorter side to `size / crop_pct` and
/// crops a square of `size` from the centre, if `size` is below 384.
#[derive(Deserialize)]
struct Preprocessor {
    /// The newer name of the type. Files may have both.
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    size: Size,
    crop_pct: Option<f64>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    rescale_factor: Option<f64>,
    /// Pillow's number of the interpolation.
    resample: Option<u8>,
    image_mean: Option<Vec<f32>>,
    image_std: Option<Vec<f32>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Shorter { shortest_edge: usize },
}

#[derive(Deserialize)]
struct Config {
    model_type: Option<String>,
    id2label: Option<BTreeMap<usize, String>>,
    /// Whether a bottleneck has its stride in the first convolution.
    #[serde(default)]
    downsample_in_bottleneck: bool,
}

impl HuggingFace {
    /// Reads the files beside weights of a network. Missing, invalid and unsuitable content is left out, with a note
    /// unless it is missing.
    ///
    /// # Errors
    /// If `config.json` puts the stride of the bottlenecks in another convolution than the network does.
    pub fn beside(weights: &Path, network: &NetworkConfig) -> Result<Self, WeightsError> {
        let (mut notes, mut labels, mut preprocessing) = (Vec::new(), None, None);
        let path = weights.with_file_name("config.json");
        match read::<Config>(&path) {
            Ok(Some(config)) if config.is_resnet() => {
                config.check_stride(&path, network.name())?;
                labels = config.labels(network.classes).unwrap_or_else(|reason| {
                    notes.push(format!("{}: {reason}; the classes have no names", path.display()));
                    None
                });
            }
            Ok(Some(Config { model_type, .. })) => notes.push(format!(
                "{} is of the model `{}`, not `resnet`; it is not used",
                path.display(),
                shown(&model_type.unwrap_or_default())
            )),
            Ok(None) => {}
            Err(reason) => notes.push(format!("{} {reason}; it is not used", path.display())),
        }
        let path = weights.with_file_name("preprocessor_config.json");
        match read::<Preprocessor>(&path).and_then(|found| found.map(|it| it.preprocessing(network)).transpose()) {
            Ok(Some((known, unfollowed))) => {
                if !unfollowed.is_empty() {
                    let unfollowed = unfollowed.join(", ");
                    notes.push(format!("{}: not followed: {unfollowed}", path.display()));
                }
                preprocessing = Some(known);
            }
            Ok(None) => {}
            Err(reason) => notes.push(format!("{} {reason}; it is not used", path.display())),
        }
        Ok(Self { preprocessing, labels, notes })
    }
}

impl Config {
    fn is_resnet(&self) -> bool {
        self.model_type.as_deref().is_none_or(|model| model == "resnet")
    }

    fn check_stride(&self, path: &Path, net: NetName) -> Result<(), WeightsError> {
        let Family::ImageNet(ours) = net.family else { return Ok(()) };
        let theirs = if self.downsample_in_bottleneck { StrideAt::First } else { StrideAt::Middle };
        if net.depth < 50 || ours == theirs {
            return Ok(());
        }
        let right = NetName { family: Family::ImageNet(theirs), ..net };
        let set = self.downsample_in_bottleneck;
        let reason = format!("says `downsample_in_bottleneck: {set}`, so the network is {right}, not {net}");
        Err(WeightsError::bad_file(path, reason))
    }

    fn labels(self, classes: usize) -> Result<Option<Vec<String>>, String> {
        let Some(labels) = self.id2label else { return Ok(None) };
        let count = labels.len();
        if count != classes {
            let labels = if count == 1 { "label" } else { "labels" };
            return Err(format!("has {count} {labels} for {classes} classes"));
        }
        // The keys are sorted and distinct, so they are 0, 1, .. if the last one is `classes - 1`.
        if labels.last_key_value().is_some_and(|(last, _)| *last != classes - 1) {
            return Err(format!("its labels are not numbered from 0 to {}", classes - 1));
        }
        Ok(Some(labels.into_values().collect()))
    }
}

impl Preprocessor {
    /// The preprocessing, and the settings that it does not follow. An error is phrased to follow the file's name.
    fn preprocessing(self, network: &NetworkConfig) -> Result<(Preprocessing, Vec<String>), String> {
        /// From this side on, images are resized to a square without a crop.
        const UNCROPPED: usize = 384;
        const BILINEAR: u8 = 2;
        let kind = self.image_processor_type.as_ref().or(self.feature_extractor_type.as_ref());
        let kind = kind.ok_or("names no image processor")?;
        if !kind.starts_with("ConvNext") {
            return Err(format!("is of `{}`, not of ConvNextImageProcessor", shown(kind)));
        }
        let (Size::Side(crop) | Size::Shorter { shortest_edge: crop }) = self.size;
        if crop >= UNCROPPED {
            return Err(format!("has the size {crop}; only sizes below {UNCROPPED} are cropped from the centre"));
        }
        let resize = (crop as f64 / self.crop_pct.unwrap_or(224.0 / 256.0)) as usize;
        let channels = network.as_conv().map_or(3, |conv| conv.image[0]);
        let (mean, std) = match self.do_normalize {
            Some(false) => (vec![0.0; channels], vec![1.0; channels]),
            _ => (self.image_mean.ok_or("has no `image_mean`")?, self.image_std.ok_or("has no `image_std`")?),
        };
        if [mean.len(), std.len()] != [channels; 2] {
            let (means, stds) = (mean.len(), std.len());
            return Err(format!("has {means} means and {stds} deviations for {channels} channels"));
        }
        let preprocessing = Preprocessing { mean, std, ..Preprocessing::imagenet(resize, crop) };
        preprocessing.validate().map_err(|reason| format!("is invalid: {reason}"))?;
        let unfollowed = [
            (self.do_resize == Some(false)).then(|| format!("`do_resize: false`; images are resized to {resize}")),
            (self.do_rescale == Some(false)).then(|| "`do_rescale: false`; pixels are from 0 to 1".into()),
            self.rescale_factor
                .filter(|factor| self.do_rescale != Some(false) && (factor * 255.0 - 1.0).abs() > 1e-4)
                .map(|factor| format!("`rescale_factor: {factor}`; it is 1/255")),
            self.resample
                .filter(|filter| *filter != BILINEAR)
                .map(|filter| format!("`resample: {filter}`{}; images are resized bilinearly", filter_name(filter))),
        ];
        Ok((preprocessing, unfollowed.into_iter().flatten().collect()))
    }
}

/// Pillow's name of an interpolation in brackets.
fn filter_name(number: u8) -> &'static str {
    match number {
        0 => " (nearest)",
        1 => " (Lanczos)",
        3 => " (bicubic)",
        4 => " (box)",
        5 => " (Hamming)",
        _ => "",
    }
}

/// Reads a JSON file, if there is one. An error is phrased to follow the file's name.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    const MAX_LEN: u64 = 1 << 22;
    let text = match read_text(path, MAX_LEN) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let parsed = serde_json::from_str(&text).map(Some);
    parsed.map_err(|error| format!("is not as Hugging Face writes it: {}", json_reason(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The preprocessor of `microsoft/resnet-50`, with the bilinear filter.
    const PREPROCESSOR: &str = r#"{ "crop_pct": 0.875, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "ConvNextFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "resample": 2, "size": 224 }"#;

    fn network(name: &str, classes: usize) -> NetworkConfig {
        NetworkConfig::new(name.parse().unwrap(), [3, 224, 224], classes)
    }

    fn preprocessor(text: &str) -> HuggingFace {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        HuggingFace::beside(&folder.path().join("model.safetensors"), &network("resnet50", 2)).unwrap()
    }

    fn config(text: &str, name: &str) -> Result<HuggingFace, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), text).unwrap();
        HuggingFace::beside(&folder.path().join("model.safetensors"), &network(name, 2)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_files_beside_weights_are_read() {
        let read = preprocessor(PREPROCESSOR);
        let expected = HuggingFace { preprocessing: Some(Preprocessing::imagenet(256, 224)), ..HuggingFace::default() };
        assert_eq!(read, expected);
        let both = PREPROCESSOR.replacen('{', r#"{ "image_processor_type": "ConvNextImageProcessor","#, 1);
        assert_eq!(preprocessor(&both), expected);
        let read = config(r#"{ "id2label": { "1": "dog", "0": "cat" } }"#, "resnet50").unwrap();
        let labels = Some(vec!["cat".into(), "dog".into()]);
        assert_eq!(read, HuggingFace { labels, ..HuggingFace::default() });
        let nothing = HuggingFace::beside(Path::new("no/model.safetensors"), &network("resnet50", 2));
        assert_eq!(nothing.unwrap(), HuggingFace::default());
    }

    #[test]
    fn images_are_not_normalised_if_the_file_says_so() {
        let read = preprocessor(&PREPROCESSOR.replace(r#""do_normalize": true"#, r#""do_normalize": false"#));
        let known = read.preprocessing.unwrap();
        assert_eq!((known.mean, known.std), (vec![0.0; 3], vec![1.0; 3]));
        assert!(read.notes.is_empty());
    }

    #[test]
    fn settings_that_are_not_followed_are_noted() {
        for (from, to, note) in [
            (r#""resample": 2"#, r#""resample": 3"#, "not followed: `resample: 3` (bicubic)"),
            (r#""do_resize": true"#, r#""do_resize": false"#, "not followed: `do_resize: false`"),
            (r#""size""#, r#""do_rescale": false, "size""#, "not followed: `do_rescale: false`"),
            (r#""size""#, r#""rescale_factor": 0.5, "size""#, "not followed: `rescale_factor: 0.5`"),
        ] {
            let read = preprocessor(&PREPROCESSOR.replace(from, to));
            assert!(read.preprocessing.is_some() && read.notes.len() == 1 && read.notes[0].contains(note), "{read:?}");
        }
        let usual = PREPROCESSOR.replace(r#""size""#, r#""rescale_factor": 0.00392156862745098, "size""#);
        assert!(preprocessor(&usual).notes.is_empty());
    }

    #[test]
    fn files_that_are_not_used_are_named() {
        for (text, note) in [
            (PREPROCESSOR.replace("ConvNext", "ViT"), "preprocessor_config.json is of `ViTFeatureExtractor`"),
            (PREPROCESSOR.replace("size\": 224", "size\": 384"), "has the size 384"),
            (PREPROCESSOR.replace("0.485, ", ""), "has 2 means and 3 deviations for 3 channels"),
            (PREPROCESSOR[..40].into(), "preprocessor_config.json is not as Hugging Face writes it"),
        ] {
            let read = preprocessor(&text);
            assert!(read.preprocessing.is_none() && read.notes.len() == 1, "{read:?}");
            assert!(read.notes[0].contains(note) && read.notes[0].ends_with("; it is not used"), "{read:?}");
        }
        for (text, note) in [
            (r#"{ "id2label": { "0": "cat" } }"#, "config.json: has 1 label for 2 classes"),
            (r#"{ "id2label": { "1": "cat", "2": "dog" } }"#, "its labels are not numbered from 0 to 1"),
            (r#"{ "model_type": "vit", "id2label": { "1": "dog", "0": "cat" } }"#, "of the model `vit`, not `resnet`"),
            ("{ \"id2label\":", "config.json is not as Hugging Face writes it"),
        ] {
            let read = config(text, "resnet50").unwrap();
            assert!(read.labels.is_none() && read.notes.len() == 1 && read.notes[0].contains(note), "{read:?}");
        }
    }

    #[test]
    fn the_stride_of_the_bottlenecks_must_be_the_networks() {
        let first = r#"{ "model_type": "resnet", "downsample_in_bottleneck": true }"#;
        let text = config(first, "resnet50").unwrap_err();
        assert!(
            text.ends_with("`downsample_in_bottleneck: true`, so the network is resnet50_v1, not resnet50"),
            "{text}"
        );
        let text = config("{}", "resnet50_v1").unwrap_err();
        assert!(text.ends_with("so the network is resnet50, not resnet50_v1"), "{text}");
        assert!(config(first, "resnet50_v1").is_ok() && config(first, "resnet18").is_ok());
    }
}
