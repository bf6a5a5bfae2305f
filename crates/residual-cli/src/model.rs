//! Loads weights from a file, a run directory or by a published name, and builds their network.

use crate::{
    Usage,
    args::NetworkArgs,
    output::{Progress, log},
};
use residual_backend::{Backend, Hardware};
use residual_data::{DataConfig, Normalization, Preprocessing};
use residual_fetch::read_text;
use residual_model::{Family, NetName, Network, NetworkConfig, Stem, summary::thousands};
use residual_train::{Device, RunDir, Start};
use residual_weights::{
    Card, Checkpoint, Format, HuggingFace, LoadOptions, NameMap, Published, Selection, WeightsError, load,
    names::Naming,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of weights and the facts known about it.
pub(crate) struct Weights {
    path: PathBuf,
    card: Option<Card>,
    /// The dataset they were trained on, if they come from a run directory.
    pub(crate) data: Option<DataConfig>,
    options: LoadOptions,
}

/// A network with its weights.
pub(crate) struct Filled {
    pub(crate) network: Network,
    pub(crate) card: Card,
    /// A line that names the preprocessing assumed by convention, if the file does not specify it.
    pub(crate) convention: Option<String>,
    /// A line that names the file and its tensors with NaN or infinite values, if there are any.
    pub(crate) not_finite: Option<String>,
}

/// A network with its weights, ready to predict.
pub(crate) struct Model {
    pub(crate) network: Network,
    pub(crate) card: Card,
    pub(crate) data: Option<DataConfig>,
    pub(crate) backend: Backend,
    pub(crate) hardware: Hardware,
    /// A line that names the image size assumed by convention, if only the mean and the standard deviation were given.
    pub(crate) size_convention: Option<String>,
}

/// The image shape `[channels, height, width]` and the number of classes that a network was published for: those of
/// CIFAR-10 or ImageNet.
pub(crate) fn published_for(net: NetName) -> ([usize; 3], usize) {
    match net.family {
        Family::Dense | Family::Conv | Family::Preact | Family::Custom => ([3, 32, 32], 10),
        _ => ([3, 224, 224], 1000),
    }
}

/// Downloads published weights with a progress bar, unless they are in the cache. Returns the path of the file.
pub(crate) fn fetch(published: &Published) -> anyhow::Result<PathBuf> {
    let mut bar: Option<Progress> = None;
    let fetched = published.fetch(&mut |progress| {
        let total = progress.total.unwrap_or((f64::from(published.megabytes) * f64::from(1 << 20)) as u64);
        let bar = bar.get_or_insert_with(|| {
            let bar = Progress::new(total, progress.done);
            bar.line(&format!("downloading {} ({:.0} MB)", published.file, published.megabytes));
            bar
        });
        bar.set(progress.done);
    });
    if let Some(bar) = bar {
        bar.finish();
    }
    Ok(fetched?.0)
}

impl Weights {
    /// Finds the weights, downloading published ones if necessary.
    pub(crate) fn of(start: &Start) -> anyhow::Result<Self> {
        let names = start.name_map.as_deref().map(NameMap::read).transpose()?.unwrap_or_default();
        let options = LoadOptions { ignore_head: start.ignore_head, names, key: start.key.clone() };
        match (&start.pretrained, &start.weights) {
            (Some(name), _) => {
                let published = Published::find(name)?;
                Ok(Self { path: fetch(&published)?, card: Some(published.card()), data: None, options })
            }
            (None, Some(path)) => Self::open(path, options),
            (None, None) => Err(Usage("no weights given; use --weights FILE or --pretrained NAME".into()).into()),
        }
    }

    /// Opens a weights file or the directory of a finished run.
    fn open(path: &Path, options: LoadOptions) -> anyhow::Result<Self> {
        if let Some(file) = weights_in(path) {
            return Err(Usage(format!("{} is a folder; give {}", path.display(), file.display())).into());
        }
        if path.is_dir() && is_published(path) {
            return Err(Usage(format!(
                "{} is a folder and no training run; give the weights file in it",
                path.display()
            ))
            .into());
        }
        let in_a_run = ["best.bpk", "model.bpk"].iter().any(|name| path.ends_with(name));
        let run = match (path.is_dir(), path.parent()) {
            (true, _) => RunDir::open(path)?,
            (false, Some(directory)) if in_a_run && let Ok(run) = RunDir::open(directory) => run,
            _ => return Ok(Self { path: path.into(), card: Card::of(path)?, data: None, options }),
        };
        let config = run.config()?;
        let labels = run.class_names()?.filter(|names| names.len() == config.network.classes);
        let card = Card { network: config.network, preprocessing: Some(run.preprocessing()?), labels };
        let path = if path.is_dir() { run.model()? } else { path.into() };
        Ok(Self { path, card: Some(card), data: Some(config.data), options })
    }

    /// The names of the classes, if they are known.
    pub(crate) fn labels(&self) -> Option<Vec<String>> {
        self.card.as_ref().and_then(|card| card.labels.clone())
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the weights into the network of this configuration, and says what else the file holds. Returns the means
    /// and the standard deviations by which the weights expect images to be normalised, if they are known.
    pub(crate) fn put_into(
        &self,
        network: &mut Network,
        config: &NetworkConfig,
    ) -> Result<Option<Normalization>, WeightsError> {
        let checkpoint = Checkpoint::read(&self.path)?;
        let normalization = |Preprocessing { mean, std, .. }| Normalization { mean, std };
        let expected = match &self.card {
            Some(card) => card.preprocessing.clone().map(normalization),
            None => match checkpoint.select(network, &self.options)?.naming() {
                Naming::Timm => Some(Normalization { mean: vec![0.5; 3], std: vec![0.5; 3] }),
                Naming::HuggingFace => self.beside(config)?.preprocessing.map(normalization),
                Naming::Torchvision | Naming::Other => None,
            },
        };
        if let Some(not_finite) = self.load(network, &checkpoint)? {
            log!("note: {not_finite}");
        }
        Ok(expected)
    }

    /// Reads Hugging Face's files beside the weights. Prints notes on what is not followed.
    fn beside(&self, network: &NetworkConfig) -> Result<HuggingFace, WeightsError> {
        let beside = HuggingFace::beside(&self.path, network)?;
        beside.notes.iter().for_each(|note| log!("note: {note}"));
        Ok(beside)
    }

    /// Loads the weights. Returns a line on those that are NaN or infinite.
    fn load(&self, network: &mut Network, checkpoint: &Checkpoint) -> Result<Option<String>, WeightsError> {
        let loaded = load(network, checkpoint, &self.options)?;
        if let Some(left_aside) = loaded.left_aside {
            log!("{}: {left_aside}", self.path.display());
        }
        Ok(loaded.not_finite.map(|not_finite| format!("{}: {not_finite}", self.path.display())))
    }

    /// The network with these weights, and its card with the settings overridden whose flags are set.
    pub(crate) fn network(&self, net: Option<NetName>, args: &NetworkArgs, device: &Device) -> anyhow::Result<Filled> {
        let file = self.path.display();
        let checkpoint = Checkpoint::read(&self.path)?;
        let (mut card, convention) = match (&self.card, net) {
            (Some(card), Some(net)) if card.network.name() != net => {
                return Err(Usage(format!("{file} holds {}, not {net}", card.network.name())).into());
            }
            (Some(card), _) => (card.clone(), None),
            (None, Some(net)) => self.guess(net, args, &checkpoint, device)?,
            (None, None) => {
                return Err(
                    Usage(format!("the network of the weights in {file} is unknown; give it with --net")).into()
                );
            }
        };
        let init = card.network.init;
        card.network = args.apply(card.network, init)?;
        // Detects a network far larger than the file before allocating it. A value takes at least two bytes.
        let (held, parameters) = (checkpoint.held_bytes(), card.network.summary().parameters());
        if held.saturating_mul(2) < parameters {
            let (held, parameters) = (thousands(held), thousands(parameters));
            anyhow::bail!(
                "{file} holds {held} bytes of values, but {} has {parameters} parameters",
                card.network.name()
            );
        }
        let mut network = card.network.init(device);
        let not_finite = self.load(&mut network, &checkpoint)?;
        Ok(Filled { network, card, convention, not_finite })
    }

    /// A card for a file without one, and a line that names what is assumed by convention. Channels, width, stem and
    /// classes are read from the file's first and last layers.
    fn guess(
        &self,
        net: NetName,
        args: &NetworkArgs,
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> anyhow::Result<(Card, Option<String>)> {
        const NARROW: usize = 16;
        let ([channels, side, _], classes) = published_for(net);
        let network = NetworkConfig::new(net, [channels, side, side], classes);
        // Tensors are selected by name, and names depend on neither the width nor the image.
        let narrow = args.apply(network.clone().with_width(NARROW), network.init)?.init(device);
        let selection = checkpoint.select_by_name(&narrow, &self.options)?;
        let shape = |name: &str| selection.get(name).map(|entry| entry.shape().to_vec());
        let classes = shape("fc.bias").and_then(|shape| shape.first().copied()).unwrap_or(classes);
        let mut network = network.with_classes(classes);
        match (shape("conv1.weight").as_deref(), shape("linear1.weight").as_deref()) {
            (Some(&[width, channels, kernel, _]), _) => {
                network = network.with_image([channels, side, side]).with_width(width);
                if kernel == 3 && side > SMALL {
                    network = network.with_image([channels, SMALL, SMALL]).with_stem(Stem::Small);
                    let file = self.path.display();
                    log!("{file}: its first convolution is 3x3, so the stem is small and images are {SMALL}x{SMALL}");
                }
            }
            (_, Some(&[a, b])) => {
                let (width, features) = if checkpoint.format() == Format::Burnpack { (b, a) } else { (a, b) };
                network = network.with_image([1, 1, features]).with_width(width);
            }
            _ => {}
        }
        Ok(self.prepared(network, &selection)?)
    }

    /// Adds the preprocessing of the network's images and the names of its classes, if they are known.
    fn prepared(
        &self,
        network: NetworkConfig,
        selection: &Selection<'_>,
    ) -> Result<(Card, Option<String>), WeightsError> {
        let naming = selection.naming();
        let beside = match naming {
            Naming::HuggingFace => self.beside(&network)?,
            _ => HuggingFace::default(),
        };
        let is_imagenet = network.classes == 1000 && network.as_conv().is_some_and(|conv| conv.image == [3, 224, 224]);
        let (preprocessing, convention) = match (beside.preprocessing, naming) {
            (Some(known), _) => (Some(known), None),
            (None, _) if !is_imagenet => (None, None),
            (None, Naming::Timm) => {
                let half = vec![0.5; 3];
                let preprocessing =
                    Preprocessing { mean: half.clone(), std: half, ..Preprocessing::imagenet(256, 224) };
                (Some(preprocessing), Some("that of timm's resnetv2"))
            }
            (None, Naming::HuggingFace) => {
                (Some(Preprocessing::imagenet(256, 224)), Some("Hugging Face's for ImageNet"))
            }
            (None, Naming::Torchvision | Naming::Other) => {
                (Some(Preprocessing::imagenet(256, 224)), Some("torchvision's for ImageNet"))
            }
        };
        let said =
            preprocessing.as_ref().zip(convention).map(|(Preprocessing { resize, crop, mean, std, .. }, who)| {
                let file = self.path.display();
                format!(
                    "{file} does not specify the preprocessing; using {who}: resize {resize}, crop {crop}, mean \
                 {mean:?}, std {std:?}; set it with --mean and --std"
                )
            });
        Ok((Card { network, preprocessing, labels: beside.labels }, said))
    }
}

/// The side of CIFAR's images.
const SMALL: usize = 32;

/// The weights file in the folder of a published model.
fn weights_in(folder: &Path) -> Option<PathBuf> {
    let names =
        ["model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"];
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Whether a folder is not a training run but holds Hugging Face's `config.json` or a weights file of any program.
fn is_published(folder: &Path) -> bool {
    const ENDS: [&str; 11] =
        ["bin", "ckpt", "h5", "index", "keras", "msgpack", "onnx", "pb", "pt", "pth", "safetensors"];
    const MAX_CONFIG: u64 = 1 << 24;
    if let Ok(text) = read_text(&folder.join("config.json"), MAX_CONFIG) {
        let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        return config.get("model_type").is_some() || config.get("architectures").is_some();
    }
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_weights = |file: &Path| {
        let end = file.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
        end.is_some_and(|end| ENDS.contains(&end.as_str()) || end.starts_with("ckpt-"))
    };
    files.into_iter().any(|file| file.is_file() && is_weights(&file))
}

impl Model {
    /// Fails unless the network takes images of the shape `[channels, height, width]`.
    pub(crate) fn check_image(&self, [channels, height, width]: [usize; 3]) -> anyhow::Result<()> {
        let (values, features) = (channels * height * width, self.card.network.features());
        let text = match self.card.network.as_conv() {
            Some(conv) if conv.image[0] != channels => {
                format!("the images have {channels} channel(s), but the network takes {}", conv.image[0])
            }
            None if values != features => {
                format!("the images have {values} values, but the network takes {features}")
            }
            _ => return Ok(()),
        };
        Err(Usage(text).into())
    }
}
