//! Weights from a file, a training's folder or a published name, and the network they belong to.

use super::usual;
use crate::{
    Usage,
    args::{ModelArgs, NetworkArgs, StartArgs},
    output::Progress,
};
use residual_backend::Hardware;
use residual_data::{DataConfig, Preprocessing};
use residual_model::{NetName, Network, NetworkConfig, summary::thousands};
use residual_train::{Device, RunDir, Start};
use residual_weights::{Card, Checkpoint, Format, LoadOptions, NameMap, Published, WeightsError, load};
use std::path::{Path, PathBuf};

/// A file of weights, and what is known about them.
pub(crate) struct Weights {
    path: PathBuf,
    card: Option<Card>,
    /// The dataset of the training they come from.
    data: Option<DataConfig>,
    options: LoadOptions,
}

/// A network with its weights, ready to predict.
pub(crate) struct Model {
    pub(crate) network: Network,
    pub(crate) card: Card,
    pub(crate) data: Option<DataConfig>,
    pub(crate) hardware: Hardware,
}

impl StartArgs {
    /// The weights that were asked for, if any, by absolute paths.
    pub(crate) fn resolve(&self, ignore_head: bool) -> anyhow::Result<Option<Start>> {
        if self.weights.is_none() && self.pretrained.is_none() {
            return match ignore_head || self.name_map.is_some() {
                true => Err(Usage("--ignore-head and --name-map need --weights or --pretrained".into()).into()),
                false => Ok(None),
            };
        }
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        let (weights, name_map) = (absolute(&self.weights)?, absolute(&self.name_map)?);
        Ok(Some(Start { weights, pretrained: self.pretrained.clone(), ignore_head, name_map }))
    }
}

/// Downloads published weights unless they are here, with a progress bar.
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
    /// What was asked for; published weights are downloaded if need be.
    pub(crate) fn of(start: &Start) -> anyhow::Result<Self> {
        let names = start.name_map.as_deref().map(NameMap::read).transpose()?.unwrap_or_default();
        let options = LoadOptions { ignore_head: start.ignore_head, names };
        match (&start.pretrained, &start.weights) {
            (Some(name), _) => {
                let published = Published::find(name)?;
                Ok(Self { path: fetch(&published)?, card: Some(published.card()), data: None, options })
            }
            (None, Some(path)) => Self::open(path, options),
            (None, None) => Err(Usage("which weights? name a file with --weights, or --pretrained NAME".into()).into()),
        }
    }

    /// A file, or the folder of a finished training.
    fn open(path: &Path, options: LoadOptions) -> anyhow::Result<Self> {
        let in_a_run = ["best.bpk", "model.bpk"].iter().any(|name| path.ends_with(name));
        let run = match (path.is_dir(), path.parent()) {
            (true, _) => RunDir::open(path)?,
            (false, Some(folder)) if in_a_run && let Ok(run) = RunDir::open(folder) => run,
            _ => return Ok(Self { path: path.into(), card: Card::of(path)?, data: None, options }),
        };
        let config = run.config()?;
        let labels = run.class_names()?.filter(|names| names.len() == config.network.classes);
        let card = Card { network: config.network, preprocessing: Some(run.preprocessing()?), labels };
        let path = if path.is_dir() { run.model()? } else { path.into() };
        Ok(Self { path, card: Some(card), data: Some(config.data), options })
    }

    /// Puts them into a network.
    pub(crate) fn put_into(&self, network: &mut Network) -> Result<(), WeightsError> {
        load(network, &Checkpoint::read(&self.path)?, &self.options).map(|_| ())
    }

    /// The network with these weights, and its card: what is known, with what was asked for changed.
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
                return Err(Usage(format!("{file} holds a {}, not a {net}", card.network.name())).into());
            }
            (Some(card), _) => card.clone(),
            (None, Some(net)) => self.guess(net, &checkpoint),
            (None, None) => {
                return Err(
                    Usage(format!("which network's weights {file} holds is not known; name it with --net")).into()
                );
            }
        };
        let init = card.network.init;
        card.network = args.apply(card.network, init)?;
        // A network far larger than its file is not allocated to find that out.
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

    /// The network of this name with the channels, width and classes that the file's first and last
    /// layers have. ImageNet nets with ImageNet's classes are taken to know its preprocessing.
    fn guess(&self, net: NetName, checkpoint: &Checkpoint) -> Card {
        let canonical = |name: &str| residual_weights::names::canonical(&self.options.names.apply(name));
        let shape = |wanted: &str| {
            checkpoint.entries().find(|(name, _)| canonical(name) == wanted).map(|(_, entry)| entry.shape().to_vec())
        };
        let ([channels, side, _], classes) = usual(net);
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

impl ModelArgs {
    /// The network with its weights.
    pub(crate) fn open(&self) -> anyhow::Result<Model> {
        let weights = Weights::of(&self.start.resolve(false)?.unwrap_or_default())?;
        let (_, hardware) = self.backend.open()?;
        let (network, mut card) = weights.network(self.net, &self.network, &hardware.device.clone().inner())?;
        match (&self.mean, &self.std) {
            (Some(mean), Some(std)) => {
                let (mean, std) = (mean.clone(), std.clone());
                let [_, side, _] = image(&card.network);
                let known = card.preprocessing.unwrap_or_else(|| Preprocessing::imagenet(side, side));
                card.preprocessing = Some(Preprocessing { mean, std, ..known });
            }
            (None, None) => {}
            _ => return Err(Usage("--mean and --std go together".into()).into()),
        }
        if let Some(preprocessing) = &card.preprocessing {
            preprocessing.validate().map_err(Usage)?;
        }
        Ok(Model { network, card, data: weights.data, hardware })
    }
}

/// The image a network is described for.
fn image(network: &NetworkConfig) -> [usize; 3] {
    network.as_conv().map_or_else(
        || {
            let side = network.features().isqrt().max(1);
            [1, side, side]
        },
        |conv| conv.image,
    )
}

impl Model {
    /// Fails unless the network takes images `[channels, height, width]`.
    pub(crate) fn check_image(&self, [channels, height, width]: [usize; 3]) -> anyhow::Result<()> {
        let (values, features) = (channels * height * width, self.card.network.features());
        let text = match self.card.network.as_conv() {
            Some(conv) if conv.image[0] != channels => {
                format!("the images have {channels} channel(s), the network takes {}", conv.image[0])
            }
            None if values != features => format!("the images have {values} values, the network takes {features}"),
            _ => return Ok(()),
        };
        Err(Usage(text).into())
    }
}
