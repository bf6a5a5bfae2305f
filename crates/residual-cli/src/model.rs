//! Loads weights from a file, a run directory or by a published name, and builds their network.

use crate::{Usage, args::NetworkArgs, output::Progress};
use residual_backend::Hardware;
use residual_data::{DataConfig, Preprocessing};
use residual_model::{Family, NetName, Network, NetworkConfig, summary::thousands};
use residual_train::{Device, RunDir, Start};
use residual_weights::{Card, Checkpoint, Format, LoadOptions, NameMap, Published, WeightsError, load};
use std::path::{Path, PathBuf};

/// A file of weights and the facts known about it.
pub(crate) struct Weights {
    path: PathBuf,
    card: Option<Card>,
    /// The dataset they were trained on, if they come from a run directory.
    pub(crate) data: Option<DataConfig>,
    options: LoadOptions,
}

/// A network with its weights, ready to predict.
pub(crate) struct Model {
    pub(crate) network: Network,
    pub(crate) card: Card,
    pub(crate) data: Option<DataConfig>,
    pub(crate) hardware: Hardware,
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
        let total = progress.total.unwrap_or((f64::from(published.megabytes) * 1e6) as u64);
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
        let options = LoadOptions { ignore_head: start.ignore_head, names };
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

    /// Loads the weights into a network.
    pub(crate) fn put_into(&self, network: &mut Network) -> Result<(), WeightsError> {
        load(network, &Checkpoint::read(&self.path)?, &self.options).map(|_| ())
    }

    /// The network with these weights, and its card with the settings overridden whose flags are set.
    pub(crate) fn network(
        &self,
        net: Option<NetName>,
        args: &NetworkArgs,
        device: &Device,
    ) -> anyhow::Result<(Network, Card)> {
        let file = self.path.display();
        let checkpoint = Checkpoint::read(&self.path)?;
        let mut card = match (&self.card, net) {
            (Some(card), Some(net)) if card.network.name() != net => {
                return Err(Usage(format!("{file} holds {}, not {net}", card.network.name())).into());
            }
            (Some(card), _) => card.clone(),
            (None, Some(net)) => self.guess(net, &checkpoint),
            (None, None) => {
                return Err(
                    Usage(format!("the network of the weights in {file} is unknown; give it with --net")).into()
                );
            }
        };
        let init = card.network.init;
        card.network = args.apply(card.network, init)?;
        // Detects a network far larger than the file before allocating it.
        let elements = |shape: &[usize]| shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        let held = checkpoint.entries().fold(0u64, |sum, (_, entry)| sum.saturating_add(elements(entry.shape())));
        let parameters = card.network.summary().parameters();
        if held.saturating_mul(16) < parameters {
            let (held, parameters) = (thousands(held), thousands(parameters));
            anyhow::bail!("{file} holds {held} values, but {} has {parameters} parameters", card.network.name());
        }
        let mut network = card.network.init(device);
        load(&mut network, &checkpoint, &self.options)?;
        Ok((network, card))
    }

    /// A card for a file without one. Channels, width and classes are read off the file's first and last layers. An
    /// ImageNet net with 1000 classes gets ImageNet's preprocessing.
    fn guess(&self, net: NetName, checkpoint: &Checkpoint) -> Card {
        let canonical = |name: &str| residual_weights::names::canonical(&self.options.names.apply(name));
        let shape = |wanted: &str| {
            checkpoint.entries().find(|(name, _)| canonical(name) == wanted).map(|(_, entry)| entry.shape().to_vec())
        };
        let ([channels, side, _], classes) = published_for(net);
        let classes = shape("fc.bias").and_then(|s| s.first().copied()).unwrap_or(classes);
        let (image, width) = match (shape("conv1.weight").as_deref(), shape("linear1.weight").as_deref()) {
            (Some(&[width, channels, _, _]), _) => ([channels, side, side], Some(width)),
            (_, Some(&[a, b])) => {
                let (width, features) = if checkpoint.format() == Format::Burnpack { (b, a) } else { (a, b) };
                ([1, 1, features], Some(width))
            }
            _ => ([channels, side, side], None),
        };
        let network = NetworkConfig::new(net, image, classes);
        let network = match width {
            Some(width) => network.with_width(width),
            None => network,
        };
        let is_imagenet = (image, classes) == ([3, 224, 224], 1000);
        Card { network, preprocessing: is_imagenet.then(|| Preprocessing::imagenet(256, 224)), labels: None }
    }
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
