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
use residual_weights::{
    Format, Precision,
    onnx::{self, OnnxOptions},
    save_with_card,
};
use std::path::{Path, PathBuf};

/// Convert weights: PyTorch, safetensors, burnpack, and to ONNX
///
/// Reads weights of any of the first three formats. Writes .safetensors, with
/// torchvision's names, .bpk, or .onnx, a model for ONNX Runtime and others.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  residual convert resnet18-f37072fd.pth resnet18.safetensors --net resnet18
  residual convert runs/resnet20-digits-0 resnet20.safetensors
  residual convert resnet20.safetensors resnet20.bpk
  residual convert runs/resnet20-digits-0 resnet20.onnx --preprocess --softmax"
)]
pub(crate) struct ConvertArgs {
    /// File of weights, or the directory of a finished run
    pub(crate) from: PathBuf,
    /// File to write, which ends in .safetensors, .bpk or .onnx
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
    /// Store 16-bit floats in .safetensors or .onnx, which halves the file
    #[arg(long)]
    pub(crate) half: bool,
    #[command(flatten)]
    pub(crate) onnx: OnnxArgs,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

/// How an ONNX model is written.
#[derive(clap::Args)]
pub(crate) struct OnnxArgs {
    /// Keep batch norms as operators instead of folding them into the layers
    #[arg(long, help_heading = "ONNX")]
    pub(crate) keep_norms: bool,
    /// Put out probabilities instead of class scores
    #[arg(long, help_heading = "ONNX")]
    pub(crate) softmax: bool,
    /// Take 8-bit pixels and normalise them in the model
    ///
    /// The input is then `pixels`, [batch, height, width, channels].
    #[arg(long, help_heading = "ONNX")]
    pub(crate) preprocess: bool,
}

impl OnnxArgs {
    /// Checks the file to write. Returns how to write it if it is an ONNX model.
    fn options(&self, to: &Path, precision: Precision) -> anyhow::Result<Option<OnnxOptions>> {
        let Self { keep_norms, softmax, preprocess } = *self;
        if to.extension().is_some_and(|extension| extension == "onnx") {
            return Ok(Some(OnnxOptions { keep_norms, precision, softmax, preprocess }));
        }
        let expected = |names| Usage(format!("cannot write {}; expected a name that ends in {names}", to.display()));
        let format = Format::to_write(to).map_err(|_| expected(".safetensors, .bpk or .onnx"))?;
        for (flag, is_set) in [("--keep-norms", keep_norms), ("--softmax", softmax), ("--preprocess", preprocess)] {
            if is_set {
                return Err(Usage(format!("{flag} is for ONNX models; {} is not one", to.display())).into());
            }
        }
        if precision == Precision::Half && format != Format::Safetensors {
            return Err(Usage(format!("--half is for .safetensors and .onnx, not for {}", to.display())).into());
        }
        Ok(None)
    }
}

/// Runs the command `convert`.
pub(crate) fn convert(args: &ConvertArgs) -> anyhow::Result<()> {
    if args.to.exists() && !args.force {
        return Err(Usage(format!("{} exists; replace it with --force", args.to.display())).into());
    }
    let precision = if args.half { Precision::Half } else { Precision::Full };
    let onnx = args.onnx.options(&args.to, precision)?;
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
    match onnx {
        Some(OnnxOptions { preprocess: true, .. }) if card.preprocessing.is_none() => {
            let from = args.from.display();
            return Err(Usage(format!(
                "--preprocess needs the preprocessing of the images, which {from} does not have"
            ))
            .into());
        }
        Some(options) => onnx::save(&network, &card, &args.to, options)?,
        None => save_with_card(&network, &card, &args.to, precision)?,
    }
    output::print(&format!(
        "{}: {} with {} parameters\n",
        args.to.display(),
        card.network.name(),
        thousands(trainable_parameters(&network) as u64)
    ))
}
