use super::model::fetch;
use crate::{
    args::{WeightsArgs, WeightsCommand},
    output,
};
use residual_weights::{Published, published::PUBLISHED};
use std::fmt::Write;

/// Lists or downloads published weights.
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
        let here = if weights.path()?.is_file() { "  (here)" } else { "" };
        let (name, size, accuracy) = (weights.name, weights.megabytes, weights.accuracy);
        let _ = writeln!(text, "{name:<20} {size:>6.0} {accuracy:>8.2}  {}{here}", weights.file);
    }
    text += "\nTop-1 accuracy on ImageNet's validation set as torchvision states it. Licence: torchvision's, BSD-3-Clause.\n";
    output::print(&text)
}
