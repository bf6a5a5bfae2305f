use crate::{args::SummaryArgs, output};
use anyhow::anyhow;
use residual_model::{Family, InitConfig, ModelError, NetName, NetworkConfig};
use std::fmt::Write;

/// Shows a network's layers.
pub(crate) fn summary(args: &SummaryArgs) -> anyhow::Result<()> {
    let (usual, classes) = usual(args.net);
    let image = match &args.image {
        Some(text) => parse_image(text)?,
        None => usual,
    };
    let network = args.network.apply(NetworkConfig::new(args.net, image, classes), InitConfig::default())?;
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
    let _ = writeln!(text, "{}, images {channels}x{height}x{width}, {} classes\n", args.net, network.classes());
    let _ = write!(text, "{summary}");
    output::print(&text)
}

/// The images and classes a network was published for: CIFAR-10's or ImageNet's.
pub(crate) fn usual(net: NetName) -> ([usize; 3], usize) {
    match net.family {
        Family::Dense | Family::Conv | Family::Preact | Family::Custom => ([3, 32, 32], 10),
        _ => ([3, 224, 224], 1000),
    }
}

pub(crate) fn parse_image(text: &str) -> anyhow::Result<[usize; 3]> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
    sizes.and_then(|sizes| <[usize; 3]>::try_from(sizes).ok()).ok_or_else(|| {
        anyhow!(ModelError::UnknownWord {
            what: "image size",
            word: text.into(),
            expected: "channels, height and width such as 3x32x32",
        })
    })
}
