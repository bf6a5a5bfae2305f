use crate::Usage;
use residual_train::Start;
use std::path::PathBuf;

/// The weights to start from.
#[derive(clap::Args)]
#[group(id = "start", multiple = true)]
pub(crate) struct StartArgs {
    /// File of weights, or the directory of a finished run
    ///
    /// Reads .pth, .pt, .th, .bin, .safetensors and .bpk, and the index
    /// .index.json of weights in several files.
    #[arg(long, help_heading = "Weights", value_name = "FILE", conflicts_with = "pretrained", verbatim_doc_comment)]
    pub(crate) weights: Option<PathBuf>,
    /// Published weights, downloaded if necessary
    ///
    /// `residual weights list` shows the names.
    #[arg(long, help_heading = "Weights", value_name = "NAME")]
    pub(crate) pretrained: Option<String>,
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
}

impl StartArgs {
    /// The weights that the flags name, if any, with absolute paths.
    pub(crate) fn resolve(&self, ignore_head: bool) -> anyhow::Result<Option<Start>> {
        if self.weights.is_none() && self.pretrained.is_none() {
            if ignore_head || self.name_map.is_some() || self.weights_key.is_some() {
                let text = "--ignore-head, --name-map and --weights-key need --weights or --pretrained";
                return Err(Usage(text.into()).into());
            }
            return Ok(None);
        }
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        let (weights, name_map) = (absolute(&self.weights)?, absolute(&self.name_map)?);
        let (pretrained, key) = (self.pretrained.clone(), self.weights_key.clone());
        Ok(Some(Start { weights, pretrained, ignore_head, name_map, key }))
    }
}
