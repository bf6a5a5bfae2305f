use super::model::Weights;
use crate::{Usage, args::ConvertArgs, output};
use residual_model::summary::trainable_parameters;
use residual_train::Device;
use residual_weights::{LoadOptions, NameMap, save};

/// Converts weights.
pub(crate) fn convert(args: &ConvertArgs) -> anyhow::Result<()> {
    if args.to.exists() && !args.force {
        return Err(Usage(format!("{} exists; --force replaces it", args.to.display())).into());
    }
    let extension = args.to.extension().and_then(|extension| extension.to_str());
    if !matches!(extension, Some("safetensors" | "bpk")) {
        return Err(residual_weights::WeightsError::Extension { path: args.to.clone() }.into());
    }
    let names = match &args.name_map {
        Some(path) => NameMap::read(path)?,
        None => NameMap::default(),
    };
    let weights = Weights::open(&args.from, LoadOptions { ignore_head: false, names })?;
    let (_, hardware) = crate::args::BackendArgs { backend: None }.open()?;
    let device: Device = hardware.device.inner();
    let (network, card, known) = weights.network(args.net, &args.network, &device)?;
    save(&network, &args.to)?;
    if known {
        card.write(&args.to)?;
    }
    output::print(&format!(
        "{}: {} with {} parameters\n",
        args.to.display(),
        card.network.name(),
        residual_model::summary::thousands(trainable_parameters(&network) as u64)
    ))
}
