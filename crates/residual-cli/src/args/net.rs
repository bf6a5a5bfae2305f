use residual_model::{ModelError, NetName, PUBLISHED};

/// The name of a network, as an argument or as `--net`.
#[derive(clap::Args)]
pub(crate) struct NetArg {
    /// Network, such as resnet20, plain20, dense-resnet20 or resnet18
    ///
    /// `residual models` lists more.
    #[arg(value_name = "NET", value_parser = net)]
    net: Option<NetName>,
    /// The same as the argument NET
    #[arg(long = "net", value_name = "NET", conflicts_with = "net", value_parser = net)]
    net_flag: Option<NetName>,
}

impl NetArg {
    /// The network, if one is given.
    pub(crate) fn get(&self) -> Option<NetName> {
        self.net.or(self.net_flag)
    }
}

/// Parses the name of a network. The error for an unknown name suggests a similar one.
pub(crate) fn net(text: &str) -> Result<NetName, String> {
    text.parse().map_err(|error: ModelError| match similar(text) {
        Some(name) if matches!(error, ModelError::UnknownName(_)) => format!("{error}; did you mean {name}?"),
        _ => error.to_string(),
    })
}

/// The most similar name of a network, if any is similar enough: a published one, or one of the same depth.
fn similar(text: &str) -> Option<String> {
    const FAMILIES: [&str; 6] = ["resnet", "plain", "dense-resnet", "dense-plain", "preact_resnet", "cifar-resnet"];
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(text);
    let depth: String = wanted.chars().filter(char::is_ascii_digit).collect();
    let of_depth = FAMILIES.iter().map(|family| format!("{family}{depth}"));
    let names = PUBLISHED.iter().map(ToString::to_string).chain(of_depth);
    let valid = names.filter(|name| name.parse::<NetName>().is_ok());
    let scored = valid.map(|name| (strsim::osa_distance(&plain(&name), &wanted), name));
    // The first of equally similar names: families without a prefix come before those with one.
    scored.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= 2).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_names_are_corrected() {
        let cases = [
            ("resent20", "resnet20"),
            ("ResNet20", "resnet20"),
            ("resnet-26", "resnet26"),
            ("Resnet_50", "resnet50"),
            ("dense_resnet12", "dense-resnet12"),
            ("preact-resnet110", "preact_resnet110"),
            ("wide-resnet50-2", "wide_resnet50_2"),
            ("plin20", "plain20"),
        ];
        for (typed, meant) in cases {
            let error = net(typed).unwrap_err();
            assert!(error.ends_with(&format!("; did you mean {meant}?")), "{error}");
        }
        assert!(!net("vgg16").unwrap_err().contains("did you mean"));
        assert!(net("resnet21").unwrap_err().ends_with("try 20 or 26"));
        assert_eq!(net("resnet20").unwrap().depth, 20);
    }
}
