use crate::{args::ImageNetworkArgs, output};
use residual_model::NetName;
use std::fmt::Write;

/// Show a network's layers, shapes, parameters and multiply-adds
#[derive(clap::Args)]
pub(crate) struct SummaryArgs {
    /// Network: one that `residual models` lists, or another depth
    pub(crate) net: NetName,
    #[command(flatten)]
    pub(crate) network: ImageNetworkArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `summary`.
pub(crate) fn summary(args: &SummaryArgs) -> anyhow::Result<()> {
    let (network, image) = args.network.describe(args.net)?;
    let summary = network.summary();
    if args.json {
        return output::print_json(&serde_json::json!({
            "network": args.net.to_string(),
            "layers": summary.rows(),
            "parameters": summary.parameters(),
            "multiply_adds": summary.multiply_adds(),
        }));
    }
    let mut text = String::new();
    let [channels, height, width] = image;
    let _ = writeln!(text, "{}, images {channels}x{height}x{width}, {} classes\n", args.net, network.classes);
    let _ = write!(text, "{summary}");
    output::print(&text)
}
