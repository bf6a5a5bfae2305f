use crate::{model::fetch, output};
use clap::Subcommand;
use residual_weights::{Published, published::PUBLISHED};
use std::fmt::Write;

/// List and download published weights
#[derive(clap::Args)]
pub(crate) struct WeightsArgs {
    #[command(subcommand)]
    pub(crate) command: WeightsCommand,
}

#[derive(Subcommand)]
pub(crate) enum WeightsCommand {
    /// List published weights and show which are downloaded
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download weights by name into the cache directory and verify them
    ///
    /// The directory is $RESIDUAL_CACHE/weights, by default in the system's cache
    /// directory. RESIDUAL_MIRROR can name another server that has the same files.
    #[command(verbatim_doc_comment)]
    Fetch {
        /// Names that `residual weights list` shows
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Runs the command `weights`.
pub(crate) fn weights(args: &WeightsArgs) -> anyhow::Result<()> {
    match &args.command {
        WeightsCommand::List { json } => list(*json),
        WeightsCommand::Fetch { names } => {
            let published = names.iter().map(|name| Published::find(name)).collect::<Result<Vec<_>, _>>()?;
            for weights in published {
                output::print(&format!("{}\n", fetch(&weights)?.display()))?;
            }
            Ok(())
        }
    }
}

fn list(json: bool) -> anyhow::Result<()> {
    if json {
        let mut rows = Vec::new();
        for weights in PUBLISHED {
            let path = weights.path()?;
            rows.push(serde_json::json!({
                "name": weights.name, "file": weights.file, "url": weights.source()?.url,
                "megabytes": weights.megabytes, "top1_accuracy": weights.accuracy,
                "path": path.display().to_string(), "present": path.is_file(),
            }));
        }
        return output::print_json(&rows);
    }
    let mut text = format!("{:<20} {:>6} {:>8}  file\n", "name", "MB", "top-1 %");
    for weights in PUBLISHED {
        let note = if weights.path()?.is_file() { "  (downloaded)" } else { "" };
        let (name, size, accuracy) = (weights.name, weights.megabytes, weights.accuracy);
        let _ = writeln!(text, "{name:<20} {size:>6.0} {accuracy:>8.2}  {}{note}", weights.file);
    }
    text += "\nTop-1 accuracy on the ImageNet validation set, as stated by torchvision.\n\
             Licence: that of torchvision, BSD-3-Clause.\n";
    output::print(&text)
}
