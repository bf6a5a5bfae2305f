use crate::{
    Usage,
    args::NetworkArgs,
    model::{Filled, Weights},
    output::{self, log},
};
use residual_backend::Backend;
use residual_model::{
    NetName,
    summary::{thousands, trainable_parameters},
};
use residual_train::Start;
use residual_weights::{Format, save_with_card};
use std::path::PathBuf;

/// Convert weights between PyTorch, safetensors and burnpack
///
/// Reads any of these and writes .safetensors, with torchvision's names, or .bpk.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual convert resnet18-f37072fd.pth resnet18.safetensors --net resnet18
  residual convert runs/resnet20-digits-0 resnet20.safetensors
  residual convert resnet20.safetensors resnet20.bpk")]
pub(crate) struct ConvertArgs {
    /// File of weights, or the directory of a finished run
    pub(crate) from: PathBuf,
    /// File to write, which ends in .safetensors or .bpk
    pub(crate) to: PathBuf,
    /// Network of the weights [default: from the file's card or the run]
    #[arg(long, help_heading = "Weights")]
    pub(crate) net: Option<NetName>,
    /// JSON file that renames the weights' tensors
    ///
    /// It holds one object: regular expressions as keys, replacements as
    /// values.
    #[arg(long, help_heading = "Weights", value_name = "FILE", verbatim_doc_comment)]
    pub(crate) name_map: Option<PathBuf>,
    /// Dictionary of the file that holds the weights, such as model_ema
    ///
    /// Dots separate the keys on the way to it.
    /// Default: the one that fits the network best, trained weights before
    /// their average.
    #[arg(long, help_heading = "Weights", value_name = "KEY", verbatim_doc_comment)]
    pub(crate) weights_key: Option<String>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Convert weights that have NaN or infinite values, with a note
    #[arg(long)]
    pub(crate) allow_nan: bool,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

/// Runs the command `convert`.
pub(crate) fn convert(args: &ConvertArgs) -> anyhow::Result<()> {
    if args.to.exists() && !args.force {
        return Err(Usage(format!("{} exists; replace it with --force", args.to.display())).into());
    }
    Format::to_write(&args.to)?;
    let (weights, name_map, key) = (Some(args.from.clone()), args.name_map.clone(), args.weights_key.clone());
    let weights = Weights::of(&Start { weights, name_map, key, ..Start::default() })?;
    let Filled { network, card, convention, not_finite } =
        weights.network(args.net, &args.network, &Backend::Flex.open()?)?;
    if let Some(convention) = convention {
        log!("{convention}");
    }
    match not_finite {
        Some(not_finite) if args.allow_nan => log!("note: {not_finite}"),
        Some(not_finite) => anyhow::bail!("{not_finite}; nothing was written; convert them with --allow-nan"),
        None => {}
    }
    save_with_card(&network, &card, &args.to)?;
    output::print(&format!(
        "{}: {} with {} parameters\n",
        args.to.display(),
        card.network.name(),
        thousands(trainable_parameters(&network) as u64)
    ))
}
