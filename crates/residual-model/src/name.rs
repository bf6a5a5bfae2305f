//! Names of networks, the same in the API and on the command line.

use crate::{BlockKind, ModelError, StrideAt};
use alloc::{collections::BTreeSet, format, string::ToString};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// A family of networks: everything that a name says except the depth and whether the network is plain or residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Fully-connected networks of any even depth: an input layer, blocks of two layers, and an output layer.
    Dense,
    /// Convolutional networks of depth 6n+2 for small images (He et al. 2015, section 4.2).
    Conv,
    /// Pre-activation networks for small images (He et al. 2016). They have bottlenecks at depth 164 and at depths that
    /// are 9n+2 but not 6n+2, and basic blocks at all other depths 6n+2.
    Preact,
    /// ImageNet networks (He et al. 2015, table 1): depths 18 and 34 with basic blocks, and depths 50, 101 and 152 with
    /// bottlenecks that have their stride in this convolution.
    ImageNet(StrideAt),
    /// ImageNet networks of the same depths with pre-activation blocks.
    PreactImageNet,
    /// ImageNet networks with grouped 3x3 convolutions (Xie et al. 2017): the number of groups, and the number of
    /// channels per group in the first stage.
    Grouped(usize, usize),
    /// ImageNet networks whose 3x3 convolutions are wider by this factor (Zagoruyko & Komodakis 2016).
    Wide(usize),
    /// Any other convolutional network. Its name cannot be parsed.
    Custom,
}

/// The depths of ImageNet networks, with the number of blocks in each stage.
const IMAGENET: [(usize, [usize; 4]); 5] =
    [(18, [2, 2, 2, 2]), (34, [3, 4, 6, 3]), (50, [3, 4, 6, 3]), (101, [3, 4, 23, 3]), (152, [3, 8, 36, 3])];

/// The number of blocks in each stage of an ImageNet network of this depth.
pub(crate) fn imagenet_stages(depth: usize) -> Option<[usize; 4]> {
    IMAGENET.iter().find(|(d, _)| *d == depth).map(|(_, stages)| *stages)
}

/// Whether a pre-activation network for small images has bottlenecks at this depth.
pub(crate) fn preact_has_bottlenecks(depth: usize) -> bool {
    depth == 164 || !fits(depth, 6, 8)
}

fn fits(depth: usize, step: usize, least: usize) -> bool {
    depth >= least && (depth - least).is_multiple_of(step)
}

impl Family {
    /// Checks that the family has a network of this depth.
    ///
    /// # Errors
    /// [`ModelError::Depth`], which names the nearest valid depths.
    pub fn check_depth(self, depth: usize) -> Result<(), ModelError> {
        let (is_valid, rule): (fn(usize) -> bool, _) = match self {
            Self::Dense => (|d| fits(d, 2, 2), "depths are even"),
            Self::Conv => (|d| fits(d, 6, 8), "depths are 6n+2"),
            Self::Preact => (|d| fits(d, 6, 8) || fits(d, 9, 11), "depths are 6n+2 or 9n+2"),
            Self::ImageNet(StrideAt::Middle) | Self::PreactImageNet => {
                (|d| imagenet_stages(d).is_some(), "depths are 18, 34, 50, 101 and 152")
            }
            Self::ImageNet(StrideAt::First) | Self::Grouped(..) | Self::Wide(_) => {
                (|d| d >= 50 && imagenet_stages(d).is_some(), "depths are 50, 101 and 152")
            }
            Self::Custom => (|_| true, ""),
        };
        if is_valid(depth) {
            return Ok(());
        }
        // The nearest valid depths are within 10 of `depth`, below 20, or ImageNet depths.
        let candidates =
            (depth.saturating_sub(10)..=depth.saturating_add(10)).chain(0..20).chain(IMAGENET.map(|(d, _)| d));
        let valid: BTreeSet<usize> = candidates.filter(|&d| is_valid(d)).collect();
        let (below, above) = (valid.range(..depth).next_back(), valid.range(depth..).take(2));
        let mut nearest = below.into_iter().chain(above).take(2).map(ToString::to_string);
        let nearest = match (nearest.next(), nearest.next()) {
            (Some(a), Some(b)) => format!("{a} or {b}"),
            (a, _) => a.unwrap_or_default(),
        };
        Err(ModelError::Depth { family: self.name(), depth, rule, nearest })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Conv => "conv",
            Self::Preact => "pre-activation",
            Self::ImageNet(StrideAt::Middle) => "ImageNet",
            Self::ImageNet(StrideAt::First) => "ImageNet v1",
            Self::PreactImageNet => "pre-activation ImageNet",
            Self::Grouped(..) => "ResNeXt",
            Self::Wide(_) => "wide ImageNet",
            Self::Custom => "custom",
        }
    }

    /// Whether the networks of this family are for small images. ImageNet, dense and custom networks are not.
    pub fn is_for_small_images(self) -> bool {
        matches!(self, Self::Conv | Self::Preact)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The parsed name of a network, such as `resnet20`, `plain34`, `preact_resnet164` or `resnext50_32x4d`.
///
/// | name | network |
/// |---|---|
/// | `dense-resnet20`, `dense-plain20` | fully connected, any even depth |
/// | `resnet20` … `resnet1202`, `plain20` … | small images, depth 6n+2 |
/// | `cifar-resnet50`, `cifar-resnet152` | small images, where the name without `cifar-` means an ImageNet network |
/// | `preact_resnet110`, `preact_resnet164`, `preact_resnet1001` | small images, pre-activation |
/// | `resnet18`, `34`, `50`, `101`, `152`, `plain18` … | ImageNet, bottlenecks with the stride in the 3x3 convolution |
/// | `resnet50_v1`, `101_v1`, `152_v1` | ImageNet, bottlenecks with the stride in the first 1x1 convolution |
/// | `preact_resnet18`, `34`, `50`, `101`, `152` | ImageNet, pre-activation |
/// | `resnext50_32x4d`, `resnext101_32x8d`, any groups and widths | ImageNet, grouped |
/// | `wide_resnet50_2`, `wide_resnet101_2`, any factor | ImageNet, wide |
///
/// Replace `resnet` by `plain`, or `resnext` by `plainx`, to name the plain twin.
///
/// ```
/// use residual_model::{BlockKind, Family, NetName};
///
/// let name: NetName = "dense-plain20".parse()?;
/// assert_eq!(name, NetName { family: Family::Dense, kind: BlockKind::Plain, depth: 20 });
/// assert_eq!(name.to_string(), "dense-plain20");
/// # Ok::<(), residual_model::ModelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetName {
    /// The family.
    pub family: Family,
    /// Whether the network is plain or residual.
    pub kind: BlockKind,
    /// The number of weighted layers on the main path.
    pub depth: usize,
}

/// The names of published networks, from small to large within each family. `residual models` lists them.
pub const PUBLISHED: &[&str] = &[
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet1202",
    "plain20",
    "plain32",
    "plain44",
    "plain56",
    "plain110",
    "preact_resnet110",
    "preact_resnet164",
    "preact_resnet1001",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "plain18",
    "plain34",
    "plain50",
    "resnet50_v1",
    "resnet101_v1",
    "resnet152_v1",
    "preact_resnet18",
    "preact_resnet34",
    "preact_resnet50",
    "preact_resnet101",
    "preact_resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
];

impl fmt::Display for NetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.depth;
        let net = match self.kind {
            BlockKind::Plain => "plain",
            BlockKind::Residual => "resnet",
        };
        match self.family {
            Family::Dense => write!(f, "dense-{net}{depth}"),
            Family::Conv if imagenet_stages(depth).is_some() => write!(f, "cifar-{net}{depth}"),
            Family::Conv | Family::ImageNet(StrideAt::Middle) => write!(f, "{net}{depth}"),
            Family::ImageNet(StrideAt::First) => write!(f, "{net}{depth}_v1"),
            Family::Preact if imagenet_stages(depth).is_some() => write!(f, "cifar-preact_{net}{depth}"),
            Family::Preact | Family::PreactImageNet => write!(f, "preact_{net}{depth}"),
            Family::Grouped(groups, width) => {
                let next = if self.kind == BlockKind::Plain { "plainx" } else { "resnext" };
                write!(f, "{next}{depth}_{groups}x{width}d")
            }
            Family::Wide(factor) => write!(f, "wide_{net}{depth}_{factor}"),
            Family::Custom => write!(f, "custom-{net}{depth}"),
        }
    }
}

impl FromStr for NetName {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let unknown = || ModelError::UnknownName(name.into());
        let parsed = parse(name).ok_or_else(unknown)?;
        parsed.family.check_depth(parsed.depth)?;
        Ok(parsed)
    }
}

/// Splits a name into its parts without checking the depth.
fn parse(name: &str) -> Option<NetName> {
    use BlockKind::{Plain, Residual};
    let (dense, cifar) = (name.strip_prefix("dense-"), name.strip_prefix("cifar-"));
    let rest = dense.or(cifar).unwrap_or(name);
    let (preact, wide) = (rest.strip_prefix("preact_"), rest.strip_prefix("wide_"));
    let rest = preact.or(wide).unwrap_or(rest);
    let words =
        [("resnext", Residual, true), ("plainx", Plain, true), ("resnet", Residual, false), ("plain", Plain, false)];
    let (kind, grouped, rest) =
        words.into_iter().find_map(|(word, kind, grouped)| Some((kind, grouped, rest.strip_prefix(word)?)))?;
    let (depth, suffix) = match rest.split_once('_') {
        Some((depth, suffix)) => (number(depth)?, Some(suffix)),
        None => (number(rest)?, None),
    };
    let imagenet = imagenet_stages(depth).is_some() && cifar.is_none();
    let family = match (dense.is_some(), cifar.is_some(), preact.is_some(), wide.is_some(), grouped, suffix) {
        (true, false, false, false, false, None) => Family::Dense,
        (false, _, false, false, false, None) if !imagenet => Family::Conv,
        (false, false, false, false, false, None) => Family::ImageNet(StrideAt::Middle),
        (false, false, false, false, false, Some("v1")) => Family::ImageNet(StrideAt::First),
        (false, _, true, false, false, None) if !imagenet => Family::Preact,
        (false, false, true, false, false, None) => Family::PreactImageNet,
        (false, false, false, true, false, Some(factor)) => Family::Wide(number(factor)?),
        (false, false, false, false, true, Some(suffix)) => {
            let (groups, width) = suffix.strip_suffix('d')?.split_once('x')?;
            Family::Grouped(number(groups)?, number(width)?)
        }
        _ => return None,
    };
    Some(NetName { family, kind, depth })
}

/// Parses a number of at most six digits. Rejects signs and leading zeros, so that each number has one spelling.
fn number(digits: &str) -> Option<usize> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain && digits.len() <= 6 { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str) -> String {
        name.parse::<NetName>().unwrap_err().to_string()
    }

    #[test]
    fn parsed_names_display_as_written() {
        let more = [
            "plain8",
            "cifar-resnet50",
            "cifar-plain152",
            "dense-plain4",
            "preact_resnet20",
            "preact_plain29",
            "cifar-preact_resnet50",
            "plain50_v1",
            "plainx50_32x4d",
            "resnext152_8x16d",
            "wide_plain101_3",
        ];
        for name in PUBLISHED.iter().chain(&more) {
            assert_eq!(name.parse::<NetName>().unwrap().to_string(), *name);
        }
        assert_eq!("cifar-resnet20".parse(), "resnet20".parse::<NetName>());
    }

    #[test]
    fn names_give_the_family() {
        let family = |name: &str| name.parse::<NetName>().unwrap().family;
        assert_eq!(family("resnet50"), Family::ImageNet(StrideAt::Middle));
        assert_eq!(family("cifar-resnet50"), Family::Conv);
        assert_eq!(family("resnet50_v1"), Family::ImageNet(StrideAt::First));
        assert_eq!(family("preact_resnet164"), Family::Preact);
        assert_eq!(family("preact_resnet50"), Family::PreactImageNet);
        assert_eq!(family("resnext50_32x4d"), Family::Grouped(32, 4));
    }

    #[test]
    fn errors_suggest_the_nearest_depths() {
        assert!(error("resnet21").ends_with("depths are 6n+2; try 20 or 26"));
        assert!(error("resnet3").ends_with("; try 8 or 14"));
        assert!(error("dense-resnet21").ends_with("depths are even; try 20 or 22"));
        assert!(error("dense-plain0").ends_with("; try 2 or 4"));
        assert!(error("wide_resnet34_2").ends_with("depths are 50, 101 and 152; try 50 or 101"));
        assert!(error("resnext200_32x4d").ends_with("; try 152"));
    }

    #[test]
    fn unknown_names_are_rejected() {
        let names = [
            "",
            "resnet",
            "vgg16",
            "dense-",
            "foo-resnet20",
            "resnet+20",
            "resnet020",
            "resnet99999999999999999999",
            "resnext50",
            "resnext50_32",
            "wide_resnet50",
            "dense-preact_resnet20",
            "resnet20_v2",
            "custom-resnet12",
        ];
        for name in names {
            assert!(error(name).starts_with("unknown network"), "{name}");
        }
    }
}
