use super::model::Weights;
use crate::{Usage, args::ConvertArgs, output};
use residual_backend::Backend;
use residual_model::summary::{thousands, trainable_parameters};
use residual_weights::{Card, LoadOptions, NameMap, save};

/// Converts weights.
pub(crate) fn convert(args: &ConvertArgs) -> anyhow::Result<()> {
    if args.to.exists() && !args.force {
        return Err(Usage(format!("{} exists; --force replaces it", args.to.display())).into());
    }
    let extension = args.to.extension().and_then(|extension| extension.to_str());
    if !matches!(extension, Some("safetensors" | "bpk")) {
        return Err(residual_weights::WeightsError::Extension { path: args.to.clone() }.into());
    }
    let names = args.name_map.as_deref().map(NameMap::read).transpose()?.unwrap_or_default();
    let weights = Weights::open(&args.from, LoadOptions { ignore_head: false, names })?;
    let (network, card) = weights.network(args.net, &args.network, &Backend::Flex.open()?)?;
    // The old card must not come to describe the new weights.
    Card::remove(&args.to)?;
    save(&network, &args.to)?;
    card.write(&args.to)?;
    output::print(&format!(
        "{}: {} with {} parameters\n",
        args.to.display(),
        card.network.name(),
        thousands(trainable_parameters(&network) as u64)
    ))
}
