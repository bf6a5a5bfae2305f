use super::{BackendArgs, NetworkArgs, StartArgs, net};
use crate::{
    Usage,
    model::{Filled, Model, Weights},
    output::log,
};
use residual_data::Preprocessing;
use residual_model::{NetName, NetworkConfig};

/// Weights, the facts about them that their file may lack, and a device.
#[derive(clap::Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    pub(crate) start: StartArgs,
    /// Network of the weights [default: from the file's card or the run]
    #[arg(long, help_heading = "Weights", value_parser = net)]
    pub(crate) net: Option<NetName>,
    /// Mean of each channel, for pixels from 0 to 1, separated by commas
    #[arg(long, help_heading = "Weights", value_delimiter = ',', allow_negative_numbers = true, value_parser = number)]
    pub(crate) mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, separated by commas
    #[arg(long, help_heading = "Weights", value_delimiter = ',', value_parser = number)]
    pub(crate) std: Option<Vec<f32>>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
}

impl ModelArgs {
    /// Opens the device and loads the network with its weights.
    pub(crate) fn open(&self) -> anyhow::Result<Model> {
        check_scale("--mean", self.mean.as_deref())?;
        check_scale("--std", self.std.as_deref())?;
        let weights = Weights::of(&self.start.resolve(false)?.unwrap_or_default())?;
        let (backend, hardware) = self.backend.open()?;
        let device = hardware.device.clone().inner();
        let Filled { network, mut card, convention, not_finite } = weights.network(self.net, &self.network, &device)?;
        if let Some(not_finite) = not_finite {
            log!("note: {not_finite}");
        }
        let mut size_convention = None;
        match (&self.mean, &self.std) {
            (Some(mean), Some(std)) => {
                check_channels("--mean", mean, &card.network)?;
                check_channels("--std", std, &card.network)?;
                let (mean, std) = (mean.clone(), std.clone());
                let [_, side, _] = image(&card.network);
                let is_convention = convention.is_some() || card.preprocessing.is_none();
                let known = card.preprocessing.unwrap_or_else(|| Preprocessing::imagenet(side, side));
                size_convention = is_convention.then(|| {
                    let (file, Preprocessing { resize, crop, .. }) = (weights.path().display(), &known);
                    format!(
                        "{file} does not specify the image size; using resize {resize}, crop {crop}; set it with \
                         --resize and --crop"
                    )
                });
                card.preprocessing = Some(Preprocessing { mean, std, ..known });
            }
            (None, None) => convention.into_iter().for_each(|convention| log!("{convention}")),
            _ => return Err(Usage("--mean and --std must be given together".into()).into()),
        }
        if let Some(preprocessing) = &card.preprocessing {
            preprocessing.validate().map_err(Usage)?;
        }
        Ok(Model { network, card, data: weights.data, backend, hardware, size_convention })
    }
}

/// Parses a number with or without spaces around it.
fn number(text: &str) -> Result<f32, std::num::ParseFloatError> {
    text.trim().parse()
}

/// Fails if means or standard deviations are for pixels from 0 to 255.
fn check_scale(flag: &str, values: Option<&[f32]>) -> Result<(), Usage> {
    match values.and_then(|values| values.iter().find(|value| value.abs() > 1.0)) {
        Some(value) => Err(Usage(format!("{flag} must be for pixels from 0 to 1, but one of its values is {value}"))),
        None => Ok(()),
    }
}

/// Fails unless there is a value for each channel of a convolutional network's images.
fn check_channels(flag: &str, values: &[f32], network: &NetworkConfig) -> Result<(), Usage> {
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    match network.as_conv().map(|conv| conv.image[0]) {
        Some(channels) if channels != values.len() => Err(Usage(format!(
            "{flag} has {}, but the network takes images of {}",
            plural(values.len(), "value"),
            plural(channels, "channel")
        ))),
        _ => Ok(()),
    }
}

/// The shape `[channels, height, width]` of a network's images. A dense network is assumed to take square grey images.
fn image(network: &NetworkConfig) -> [usize; 3] {
    network.as_conv().map_or_else(
        || {
            let side = network.features().isqrt().max(1);
            [1, side, side]
        },
        |conv| conv.image,
    )
}
