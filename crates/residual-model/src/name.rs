//! Names of networks, the same in the API and on the command line.

use crate::{BlockKind, ModelError};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A family of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Fully-connected nets of any even depth: one layer in, blocks of two, one layer out.
    Dense,
    /// Convolutional nets of depth 6n+2 for small images (He et al. 2015, section 4.2).
    Conv,
}

impl Family {
    /// Fails unless the family has a network of this depth.
    ///
    /// # Errors
    /// [`ModelError::Depth`], which names the nearest depths that exist.
    pub fn check_depth(self, depth: usize) -> Result<(), ModelError> {
        let (step, least, rule) = match self {
            Self::Dense => (2, 2, "depths are even"),
            Self::Conv => (6, 8, "depths are 6n+2"),
        };
        if depth >= least && (depth - least).is_multiple_of(step) {
            return Ok(());
        }
        let nearest = if depth < least {
            format!("{least} and {}", least + step)
        } else {
            let below = depth - (depth - least) % step;
            format!("{below} and {}", below + step)
        };
        Err(ModelError::Depth { family: self.name(), depth, rule, nearest })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Conv => "conv",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a name such as `resnet20`, `plain56`, `dense-resnet110` or `cifar-resnet50` says.
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
    /// Plain or residual.
    pub kind: BlockKind,
    /// Weighted layers on the main path.
    pub depth: usize,
}

/// Depths whose bare name belongs to an ImageNet network.
const IMAGENET_DEPTHS: [usize; 2] = [50, 152];

impl fmt::Display for NetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.family {
            Family::Dense => "dense-",
            Family::Conv if IMAGENET_DEPTHS.contains(&self.depth) => "cifar-",
            Family::Conv => "",
        };
        let kind = match self.kind {
            BlockKind::Plain => "plain",
            BlockKind::Residual => "resnet",
        };
        write!(f, "{prefix}{kind}{}", self.depth)
    }
}

impl FromStr for NetName {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let unknown = || ModelError::UnknownName(name.into());
        let (family, rest, prefixed) = match name.split_once('-') {
            Some(("dense", rest)) => (Family::Dense, rest, true),
            Some(("cifar", rest)) => (Family::Conv, rest, true),
            Some(_) => return Err(unknown()),
            None => (Family::Conv, name, false),
        };
        let (kind, digits) = if let Some(digits) = rest.strip_prefix("resnet") {
            (BlockKind::Residual, digits)
        } else if let Some(digits) = rest.strip_prefix("plain") {
            (BlockKind::Plain, digits)
        } else {
            return Err(unknown());
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(unknown());
        }
        let depth = digits.parse().map_err(|_| unknown())?;
        if !prefixed && IMAGENET_DEPTHS.contains(&depth) {
            return Err(ModelError::ImageNetName { name: name.into() });
        }
        family.check_depth(depth)?;
        Ok(Self { family, kind, depth })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str) -> String {
        name.parse::<NetName>().unwrap_err().to_string()
    }

    #[test]
    fn names_survive_a_round_trip() {
        for name in ["resnet20", "plain8", "resnet1202", "cifar-resnet50", "cifar-plain152", "dense-plain4"] {
            assert_eq!(name.parse::<NetName>().unwrap().to_string(), name);
        }
        assert_eq!("cifar-resnet20".parse(), "resnet20".parse::<NetName>());
    }

    #[test]
    fn a_wrong_depth_names_the_two_nearest() {
        assert!(error("resnet21").ends_with("depths are 6n+2; the nearest are 20 and 26"));
        assert!(error("resnet3").ends_with("the nearest are 8 and 14"));
        assert!(error("dense-resnet21").ends_with("depths are even; the nearest are 20 and 22"));
        assert!(error("dense-plain0").ends_with("the nearest are 2 and 4"));
    }

    #[test]
    fn imagenet_names_are_not_taken_silently() {
        assert!(error("resnet50").contains("write `cifar-resnet50`"));
    }

    #[test]
    fn other_words_are_unknown() {
        for name in ["", "resnet", "vgg16", "dense-", "foo-resnet20", "resnet+20", "resnet99999999999999999999"] {
            assert!(error(name).starts_with("unknown network"), "{name}");
        }
    }
}
