use crate::{
    Usage,
    args::{ImageNetworkArgs, NetArg},
    output,
};
use std::fmt::Write;

/// Show a network's layers, shapes, parameters and multiply-adds
#[derive(clap::Args)]
pub(crate) struct SummaryArgs {
    #[command(flatten)]
    pub(crate) net: NetArg,
    #[command(flatten)]
    pub(crate) network: ImageNetworkArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `summary`.
pub(crate) fn summary(args: &SummaryArgs) -> anyhow::Result<()> {
    let Some(net) = args.net.get() else {
        return Err(Usage("no network given; name one, such as `residual summary resnet20`".into()).into());
    };
    let (network, image) = args.network.describe(net)?;
    let summary = network.summary();
    if args.json {
        return output::print_json(&serde_json::json!({
            "network": net.to_string(),
            "layers": summary.rows(),
            "parameters": summary.parameters(),
            "multiply_adds": summary.multiply_adds(),
        }));
    }
    let mut text = String::new();
    let [channels, height, width] = image;
    let _ = writeln!(text, "{}, images {channels}x{height}x{width}, {} classes\n", net, network.classes);
    let _ = write!(text, "{summary}");
    output::print(&text)
}
