//! Conversion between parameter naming schemes.
//!
//! All names are converted to torchvision's, such as `conv1.weight`, `bn1.running_mean`, `layer1.0.downsample.0.weight`
//! and `fc.bias`. The final norm of pre-activation nets, which torchvision lacks, is `bn`.
//!
//! | source | first convolution | a block's first convolution and norm | shortcut | head |
//! |---|---|---|---|---|
//! | torchvision | `conv1` | `layer1.0.conv1`, `layer1.0.bn1` | `layer2.0.downsample.0` | `fc` |
//! | this crate | `conv1` | `layer1.0.main_path.conv1`, `.bn1` | `layer2.0.shortcut.conv` | `fc` |
//! | timm's `resnetv2` | `stem.conv` | `stages.0.blocks.0.conv1`, `.norm1` | `stages.1.blocks.0.downsample.conv` | `head.fc` |
//! | Hugging Face | `resnet.embedder.embedder.convolution` | `resnet.encoder.stages.0.layers.0.layer.0.convolution`, `.normalization` | `….shortcut.convolution` | `classifier.1` |
//! | OpenMMLab | `backbone.conv1` | `backbone.layer1.0.conv1`, `.bn1` | `backbone.layer2.0.downsample.0` | `head.fc` |
//! | ResNeXt-DenseNet (CIFAR) | `conv_1_3x3` | `stage_1.0.conv_a`, `.bn_a` | | `classifier` |
//! | pytorch-cifar100 | `conv1.0` | `conv2_x.0.residual_function.0`, `.1` | `conv3_x.0.shortcut.0` | `fc` |
//! | pytorch-cifar, pytorch_resnet_cifar10 | `conv1` | `layer1.0.conv1`, `.bn1` | `layer2.0.shortcut.0` | `linear` |

/// Converts a parameter path of this project to torchvision's name.
///
/// ```
/// use residual_weights::names::torchvision;
///
/// assert_eq!(torchvision("layer1.0.main_path.bn1.gamma"), "layer1.0.bn1.weight");
/// assert_eq!(torchvision("layer2.0.shortcut.conv.weight"), "layer2.0.downsample.0.weight");
/// ```
pub fn torchvision(path: &str) -> String {
    translated(path).join(".")
}

/// The parts of torchvision's name.
fn translated(path: &str) -> Vec<&str> {
    let mut name = Vec::with_capacity(16);
    let mut before = "";
    for part in path.split('.').filter(|part| *part != "main_path") {
        let after_shortcut = before == "shortcut";
        before = part;
        name.push(match part {
            "shortcut" => "downsample",
            "conv" | "linear" if after_shortcut => "0",
            "bn" if after_shortcut => "1",
            "gamma" => "weight",
            "beta" => "bias",
            other => other,
        });
    }
    name
}

/// Converts a parameter name of any scheme in the [module's table](self) to torchvision's name.
///
/// The parts that `DataParallel`, `torch.compile` and other wrappers of modules add inside a name are removed.
pub fn canonical(name: &str) -> String {
    let mut parts = translated(name);
    let mut is_first = true;
    parts.retain(|part| std::mem::take(&mut is_first) || !WRAPPERS.contains(part));
    let parts = match &parts[..] {
        ["backbone" | "resnet", rest @ ..] if !rest.is_empty() => rest,
        parts => parts,
    };
    if let Some((stage, block, rest)) = stage(parts) {
        return format!("layer{stage}.{block}.{}", in_block(rest));
    }
    match parts {
        ["stem", "conv", rest @ ..]
        | ["embedder", "embedder", "convolution", rest @ ..]
        | ["conv_1_3x3", rest @ ..]
        | ["conv1", "0", rest @ ..] => join("conv1", rest),
        ["stem", "norm", rest @ ..]
        | ["embedder", "embedder", "normalization", rest @ ..]
        | ["bn_1", rest @ ..]
        | ["conv1", "1", rest @ ..] => join("bn1", rest),
        ["norm", rest @ ..] => join("bn", rest),
        ["head", "fc", rest @ ..] | ["classifier", "1", rest @ ..] | ["linear" | "classifier" | "head", rest @ ..] => {
            join("fc", rest)
        }
        parts => parts.join("."),
    }
}

/// The parts of names that wrappers of modules add: `DataParallel`, `torch.compile`, FSDP, activation checkpointing,
/// Lightning Fabric.
const WRAPPERS: [&str; 5] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

/// The stage, counted from 1, the block, and the name in the block.
fn stage<'a>(parts: &'a [&'a str]) -> Option<(usize, &'a str, &'a [&'a str])> {
    match parts {
        ["stages", stage, "blocks", block, rest @ ..] | ["encoder", "stages", stage, "layers", block, rest @ ..] => {
            Some((stage.parse::<usize>().ok()?.checked_add(1)?, block, rest))
        }
        [stage, block, rest @ ..] => {
            let same = stage.strip_prefix("layer").or_else(|| stage.strip_prefix("stage_"));
            let number = match same {
                Some(number) => number.parse().ok()?,
                // The stages of the paper's table 1 are conv2_x to conv5_x.
                None => stage.strip_prefix("conv")?.strip_suffix("_x")?.parse::<usize>().ok()?.checked_sub(1)?,
            };
            Some((number, block, rest))
        }
        _ => None,
    }
}

fn in_block(parts: &[&str]) -> String {
    match parts {
        ["downsample", "0" | "conv" | "convolution", rest @ ..] => join("downsample.0", rest),
        ["downsample", "1" | "norm" | "bn" | "normalization", rest @ ..] => join("downsample.1", rest),
        ["layer", "0", "convolution", rest @ ..]
        | ["residual_function", "0", rest @ ..]
        | ["conv_a" | "conv_reduce", rest @ ..] => join("conv1", rest),
        ["layer", "0", "normalization", rest @ ..]
        | ["residual_function", "1", rest @ ..]
        | ["norm1" | "bn_a" | "bn_reduce", rest @ ..] => join("bn1", rest),
        ["layer", "1", "convolution", rest @ ..]
        | ["residual_function", "3", rest @ ..]
        | ["conv_b" | "conv_conv", rest @ ..] => join("conv2", rest),
        ["layer", "1", "normalization", rest @ ..]
        | ["residual_function", "4", rest @ ..]
        | ["norm2" | "bn_b" | "bn_conv", rest @ ..] => join("bn2", rest),
        ["layer", "2", "convolution", rest @ ..]
        | ["residual_function", "6", rest @ ..]
        | ["conv_expand", rest @ ..] => join("conv3", rest),
        ["layer", "2", "normalization", rest @ ..]
        | ["residual_function", "7", rest @ ..]
        | ["norm3" | "bn_expand", rest @ ..] => join("bn3", rest),
        parts => parts.join("."),
    }
}

fn join(start: &str, rest: &[&str]) -> String {
    [&[start], rest].concat().join(".")
}

/// The naming scheme of a file's tensors. Each source prepares images in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// torchvision's names, which many others use.
    Torchvision,
    /// timm's names for `resnetv2`.
    Timm,
    /// The names of Hugging Face's `transformers`.
    HuggingFace,
    /// Any other names.
    Other,
}

impl Naming {
    /// The scheme in which this is the name of the first convolution's weight.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "conv1.weight" | "backbone.conv1.weight" => Self::Torchvision,
            "stem.conv.weight" => Self::Timm,
            _ if name.ends_with("embedder.convolution.weight") => Self::HuggingFace,
            _ => Self::Other,
        }
    }
}

/// Whether a tensor is the batch counter of a norm, which networks of this project do not have or need.
pub fn is_batch_counter(name: &str) -> bool {
    name == "num_batches_tracked" || name.ends_with(".num_batches_tracked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_converted_to_torchvisions_names() {
        let cases = [
            ("layer1.0.main_path.conv1.weight", "layer1.0.conv1.weight"),
            ("layer3.5.shortcut.bn.running_var", "layer3.5.downsample.1.running_var"),
            ("stages.0.blocks.2.norm3.bias", "layer1.2.bn3.bias"),
            ("stages.3.blocks.0.downsample.conv.weight", "layer4.0.downsample.0.weight"),
            ("stem.conv.weight", "conv1.weight"),
            ("norm.running_mean", "bn.running_mean"),
            ("head.fc.weight", "fc.weight"),
            ("linear.bias", "fc.bias"),
            ("layer2.0.shortcut.1.weight", "layer2.0.downsample.1.weight"),
            ("resnet.embedder.embedder.convolution.weight", "conv1.weight"),
            ("resnet.embedder.embedder.normalization.bias", "bn1.bias"),
            ("resnet.encoder.stages.1.layers.3.layer.2.normalization.weight", "layer2.3.bn3.weight"),
            ("resnet.encoder.stages.2.layers.0.shortcut.convolution.weight", "layer3.0.downsample.0.weight"),
            ("resnet.encoder.stages.2.layers.0.shortcut.normalization.bias", "layer3.0.downsample.1.bias"),
            ("classifier.1.weight", "fc.weight"),
            ("backbone.layer4.2.conv3.weight", "layer4.2.conv3.weight"),
            ("backbone.conv1.weight", "conv1.weight"),
            ("conv_1_3x3.weight", "conv1.weight"),
            ("bn_1.running_mean", "bn1.running_mean"),
            ("stage_3.8.conv_b.weight", "layer3.8.conv2.weight"),
            ("stage_1.0.bn_a.bias", "layer1.0.bn1.bias"),
            ("classifier.bias", "fc.bias"),
            ("conv1.0.weight", "conv1.weight"),
            ("conv1.1.running_var", "bn1.running_var"),
            ("conv2_x.0.residual_function.0.weight", "layer1.0.conv1.weight"),
            ("conv5_x.2.residual_function.4.bias", "layer4.2.bn2.bias"),
            ("conv5_x.2.residual_function.6.weight", "layer4.2.conv3.weight"),
            ("conv3_x.0.shortcut.1.weight", "layer2.0.downsample.1.weight"),
            ("layer1._orig_mod.0.module.conv1.weight", "layer1.0.conv1.weight"),
            ("linear1.weight", "linear1.weight"),
            ("blocks.0.main_path.linear2.bias", "blocks.0.linear2.bias"),
        ];
        for (name, expected) in cases {
            assert_eq!(canonical(name), expected);
            assert_eq!(canonical(expected), expected);
        }
    }
}
