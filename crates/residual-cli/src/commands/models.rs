use crate::{model::published_for, output};
use residual_model::{NetName, NetworkConfig, PUBLISHED, summary::thousands};
use std::fmt::Write;

/// List published networks with layers, parameters and multiply-adds
#[derive(clap::Args)]
pub(crate) struct ModelsArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `models`.
pub(crate) fn models(args: &ModelsArgs) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for name in PUBLISHED {
        let net: NetName = name.parse()?;
        let (image, classes) = published_for(net);
        let summary = NetworkConfig::new(net, image, classes).summary();
        let weights: Vec<&str> = residual_weights::published::PUBLISHED
            .iter()
            .filter(|weights| weights.net() == *name)
            .map(|weights| weights.name)
            .collect();
        rows.push((net, image, classes, summary.parameters(), summary.multiply_adds(), weights));
    }
    if args.json {
        let row = |(net, image, classes, parameters, multiply_adds, weights): &(NetName, _, _, _, _, _)| {
            serde_json::json!({
                "name": net.to_string(), "layers": net.depth, "image": image, "classes": classes,
                "parameters": parameters, "multiply_adds": multiply_adds, "weights": weights,
            })
        };
        return output::print_json(&rows.iter().map(row).collect::<Vec<_>>());
    }
    let mut text = format!(
        "{:<18} {:>6} {:>10} {:>7} {:>12} {:>15}  weights\n",
        "network", "layers", "image", "classes", "parameters", "multiply-adds"
    );
    for (net, [c, h, w], classes, parameters, multiply_adds, weights) in &rows {
        let line = format!(
            "{:<18} {:>6} {:>10} {classes:>7} {:>12} {:>15}  {}",
            net.to_string(),
            net.depth,
            format!("{c}x{h}x{w}"),
            thousands(*parameters),
            thousands(*multiply_adds),
            weights.join(" ")
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text += "\nNames for other depths, groups and widths follow the same patterns.\n\
             Each residual net has a plain twin, such as plain20 for resnet20.\n";
    output::print(&text)
}
