use crate::{args::SummaryArgs, output};
use anyhow::anyhow;
use residual_model::{InitConfig, ModelError, NetworkConfig};
use std::fmt::Write;

/// Shows a network's layers.
pub(crate) fn summary(args: &SummaryArgs) -> anyhow::Result<()> {
    let image = parse_image(&args.image)?;
    let network = NetworkConfig::new(args.net, image, args.network.classes.unwrap_or(10));
    let network = args.network.apply(network, InitConfig::default());
    network.validate()?;
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
    let _ = writeln!(text, "{}, images {}, {} classes\n", args.net, args.image, network.classes());
    let _ = write!(text, "{summary}");
    output::print(&text)
}

fn parse_image(text: &str) -> anyhow::Result<[usize; 3]> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
    sizes.and_then(|sizes| <[usize; 3]>::try_from(sizes).ok()).ok_or_else(|| {
        anyhow!(ModelError::UnknownWord {
            what: "image size",
            word: text.into(),
            expected: "channels, height and width such as 3x32x32",
        })
    })
}
