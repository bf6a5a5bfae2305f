use super::model::Weights;
use crate::{Usage, args::ConvertArgs, output};
use residual_backend::Backend;
use residual_model::summary::{thousands, trainable_parameters};
use residual_train::Start;
use residual_weights::{Card, Format, save};

/// Converts weights.
pub(crate) fn convert(args: &ConvertArgs) -> anyhow::Result<()> {
    if args.to.exists() && !args.force {
        return Err(Usage(format!("{} exists; --force replaces it", args.to.display())).into());
    }
    Format::to_write(&args.to)?;
    let (weights, name_map) = (Some(args.from.clone()), args.name_map.clone());
    let weights = Weights::of(&Start { weights, name_map, ..Start::default() })?;
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
