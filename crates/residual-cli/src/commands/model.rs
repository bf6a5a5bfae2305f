//! Weights from a file, a training's folder or a published name, and the network they belong to.

use super::summary::usual;
use crate::{
    Usage,
    args::{ModelArgs, NetworkArgs, StartArgs},
    output::Progress,
};
use residual_backend::Hardware;
use residual_data::{DataName, Preprocessing};
use residual_model::{NetName, Network, NetworkConfig};
use residual_train::RunDir;
use residual_weights::{Card, Checkpoint, Format, LoadOptions, NameMap, Published, load};
use std::path::{Path, PathBuf};

/// A file of weights, and what is known about them.
pub(crate) struct Weights {
    path: PathBuf,
    card: Option<Card>,
    /// The dataset of the training they come from.
    pub(crate) data: Option<DataName>,
    options: LoadOptions,
}

/// A network with its weights, ready to predict.
pub(crate) struct Model {
    pub(crate) network: Network,
    pub(crate) card: Card,
    pub(crate) data: Option<DataName>,
    /// Whether the card's preprocessing is the weights' own, rather than a guess.
    pub(crate) preprocessing_known: bool,
    pub(crate) hardware: Hardware,
}

impl StartArgs {
    /// What a configuration says about the weights a training starts from.
    pub(crate) fn describe(&self) -> Option<String> {
        self.pretrained.clone().or(self.weights.as_ref().map(|path| path.display().to_string()))
    }

    /// The weights that were asked for, if any; published ones are downloaded if need be.
    pub(crate) fn open(&self) -> anyhow::Result<Option<Weights>> {
        let names = match &self.name_map {
            Some(path) => NameMap::read(path)?,
            None => NameMap::default(),
        };
        let options = LoadOptions { ignore_head: self.ignore_head, names };
        match (&self.pretrained, &self.weights) {
            (Some(name), _) => {
                let published = Published::find(name)?;
                let path = fetch(&published)?;
                Ok(Some(Weights { path, card: Some(published.card()), data: None, options }))
            }
            (None, Some(path)) => Weights::open(path, options).map(Some),
            (None, None) => Ok(None),
        }
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
    /// A file, or the folder of a finished training.
    pub(crate) fn open(path: &Path, options: LoadOptions) -> anyhow::Result<Self> {
        if !path.is_dir() {
            return Ok(Self { path: path.into(), card: Card::of(path)?, data: None, options });
        }
        let run = RunDir::open(path)?;
        let config = run.config()?;
        let card = Card { network: config.network, preprocessing: config.data.preprocessing()?, labels: None };
        Ok(Self { path: run.model()?, card: Some(card), data: Some(config.data), options })
    }

    /// Puts them into a network.
    pub(crate) fn put_into(&self, network: &mut Network) -> anyhow::Result<()> {
        load(network, &Checkpoint::read(&self.path)?, &self.options)?;
        Ok(())
    }

    /// The card: what is known, with what was asked for changed. Classes that are neither known nor
    /// asked for are those of the file's head.
    fn card(&self, net: Option<NetName>, args: &NetworkArgs, checkpoint: &Checkpoint) -> anyhow::Result<(Card, bool)> {
        let known = self.card.as_ref().filter(|card| net.is_none_or(|net| net == card.network.name()));
        let (mut card, is_known) = match (known, net) {
            (Some(card), _) => (card.clone(), true),
            (None, Some(net)) => (self.guess(net, checkpoint), usual(net).0[1] == 224),
            (None, None) => {
                let text =
                    format!("which network's weights {} holds is not known; name it with --net", self.path.display());
                return Err(Usage(text).into());
            }
        };
        let init = *card.network.init_config();
        card.network = args.apply(card.network, init)?;
        Ok((card, is_known))
    }

    /// The network of this name with the channels, width and classes that the file's first and last
    /// layers have, and ImageNet's preprocessing.
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
        let resize = if side == 224 { 256 } else { side };
        Card { network, preprocessing: Preprocessing::imagenet(resize, side), labels: None }
    }

    /// The network with these weights, and its card.
    pub(crate) fn network(
        &self,
        net: Option<NetName>,
        args: &NetworkArgs,
        device: &residual_train::Device,
    ) -> anyhow::Result<(Network, Card, bool)> {
        let checkpoint = Checkpoint::read(&self.path)?;
        let (card, known) = self.card(net, args, &checkpoint)?;
        let mut network = card.network.init(device);
        load(&mut network, &checkpoint, &self.options)?;
        Ok((network, card, known))
    }
}

impl ModelArgs {
    /// The network with its weights.
    pub(crate) fn open(&self) -> anyhow::Result<Model> {
        let Some(weights) = self.start.open()? else {
            return Err(
                Usage("which weights? name a file with --weights, or published ones with --pretrained".into()).into()
            );
        };
        let (_, hardware) = self.backend.open()?;
        let device = hardware.device.clone().inner();
        let (network, mut card, mut preprocessing_known) = weights.network(self.net, &self.network, &device)?;
        if let (Some(mean), Some(std)) = (&self.mean, &self.std) {
            card.preprocessing.mean.clone_from(mean);
            card.preprocessing.std.clone_from(std);
            preprocessing_known = true;
        } else if self.mean.is_some() != self.std.is_some() {
            return Err(Usage("--mean and --std go together".into()).into());
        }
        Ok(Model { network, card, data: weights.data, preprocessing_known, hardware })
    }
}

impl Model {
    /// Fails unless the network takes images `[channels, height, width]`.
    pub(crate) fn check_image(&self, [channels, height, width]: [usize; 3]) -> anyhow::Result<()> {
        let text = match &self.card.network {
            NetworkConfig::Conv(config) if config.image[0] != channels => {
                format!("the images have {channels} channel(s), the network takes {}", config.image[0])
            }
            NetworkConfig::Dense(config) if config.features != channels * height * width => {
                format!("the images have {} values, the network takes {}", channels * height * width, config.features)
            }
            _ => return Ok(()),
        };
        Err(Usage(text).into())
    }
}
