use super::FamilySettings;
use crate::LabError;
use residual_data::{DataConfig, DataName};
use residual_model::{
    Activation, Architecture, BlockKind, BlockShape, BranchScale, Family, NetName, NetworkConfig, ShortcutOption,
    StrideAt,
};
use residual_train::{Evaluate, Schedule, TrainConfig};
use serde::{Deserialize, Serialize};

/// A family of networks that differ in depth alone. Those with convolutions have three stages, for small images.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = LabError, parse_err_fn = unknown)]
pub enum SweepFamily {
    /// Fully connected; any even depth.
    Dense,
    /// Basic blocks of two 3x3 convolutions; depths 6n+2 (He et al. 2015, section 4.2).
    Conv,
    /// Bottlenecks of a 1x1, a 3x3 and a 1x1 convolution; depths 9n+2.
    Bottleneck,
    /// Basic blocks with norms and ReLUs before the convolutions; depths 6n+2 (He et al. 2016).
    Preact,
    /// Bottlenecks with norms and ReLUs before the convolutions; depths 9n+2 (He et al. 2016).
    PreactBottleneck,
}

fn unknown(name: &str) -> LabError {
    let known = <SweepFamily as strum::VariantNames>::VARIANTS.join(", ");
    LabError::Setting(format!("unknown family `{name}`; expected one of {known}"))
}

/// The depth from which a family has other defaults, if any of its nets is deeper.
const DEEP: usize = 200;

impl SweepFamily {
    /// All families.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The usual depths, in weighted layers.
    pub fn usual_depths(self) -> &'static [usize] {
        match self {
            Self::Dense => &[4, 12, 20, 32, 56, 110],
            Self::Conv | Self::Preact => &[8, 20, 32, 44, 56],
            Self::Bottleneck | Self::PreactBottleneck => &[11, 20, 29, 47, 56],
        }
    }

    /// Checks that the family has a network of this depth.
    ///
    /// # Errors
    /// If it does not. The error names the nearest depths.
    pub fn check_depth(self, depth: usize) -> Result<(), LabError> {
        match self.blocks() {
            None => Ok(Family::Dense.check_depth(depth)?),
            Some((BlockShape::Basic, _)) => Ok(Family::Conv.check_depth(depth)?),
            Some(_) if depth >= 11 && (depth - 2).is_multiple_of(9) => Ok(()),
            Some(_) => {
                let below = (depth.max(11) - 2) / 9 * 9 + 2;
                let text = format!(
                    "no {self} network has depth {depth}: depths are 9n+2; try {below} or {}",
                    below.saturating_add(9)
                );
                Err(LabError::Setting(text))
            }
        }
    }

    /// Whether the networks are fully connected.
    pub(super) fn is_dense(self) -> bool {
        self == Self::Dense
    }

    /// The convolutions of a block, and the position of norms and ReLUs. `None` for dense networks.
    fn blocks(self) -> Option<(BlockShape, Activation)> {
        match self {
            Self::Dense => None,
            Self::Conv => Some((BlockShape::Basic, Activation::Post)),
            Self::Bottleneck => Some((BlockShape::bottleneck(StrideAt::Middle), Activation::Post)),
            Self::Preact => Some((BlockShape::Basic, Activation::Pre)),
            Self::PreactBottleneck => Some((BlockShape::bottleneck(StrideAt::Middle), Activation::Pre)),
        }
    }

    /// The published network that is closest to the family's residual network of this depth. Recipes are made for it.
    pub fn published(self, depth: usize) -> NetName {
        let (family, depth) = match self {
            Self::Dense => (Family::Dense, depth),
            Self::Conv => (Family::Conv, depth),
            Self::Preact => (Family::Preact, depth),
            // Basic blocks of about the same depth; `at_depth` replaces them.
            Self::Bottleneck => (Family::Conv, depth.saturating_sub(2) / 6 * 6 + 2),
            Self::PreactBottleneck => (Family::Preact, depth.saturating_sub(2) / 6 * 6 + 2),
        };
        NetName { family, kind: BlockKind::Residual, depth }
    }

    /// A network with its blocks and depth replaced by those of the family's network of this depth.
    pub fn at_depth(self, mut network: NetworkConfig, depth: usize) -> NetworkConfig {
        match (&mut network.architecture, self.blocks()) {
            (Architecture::Conv(conv), Some((shape, activation))) => {
                let layers = if shape == BlockShape::Basic { 6 } else { 9 };
                conv.stages = vec![depth.saturating_sub(2) / layers; 3];
                (conv.shape, conv.activation) = (shape, activation);
            }
            (Architecture::Dense(dense), None) => dense.depth = depth,
            // A network of another family, which validation refuses.
            _ => {}
        }
        network
    }

    /// The usual settings for these depths on a dataset, made for the embedded digits: SGD with momentum 0.9, a cosine
    /// decay of the learning rate, and batches of 64.
    ///
    /// Dense nets train for 20 epochs at a learning rate of 0.02, others for 7 epochs at 0.05. If any net has more than
    /// 200 layers, these are 30 epochs at 0.05 for dense nets, and 10 epochs for others, and the gradients of all nets are
    /// clipped to a norm of 2: with hundreds of residual blocks, the gradient is a large sum, and the first step
    /// overshoots. Convolutional nets have a width of 8 on images of up to 8x8 pixels, and 16 on others.
    ///
    /// # Errors
    /// If the dataset's directory cannot be used.
    pub fn usual(self, data: impl Into<DataConfig>, depths: &[usize]) -> Result<FamilySettings, LabError> {
        let mut data = data.into();
        if data.name == DataName::Folder && data.side.is_none() {
            // The same for dense nets, which have no size of their own.
            data.side = Some(32);
        }
        let deepest = depths.iter().copied().max().unwrap_or(2);
        let (epochs, lr, clip) = match (self, deepest > DEEP) {
            (Self::Dense, false) => (20, 0.02, None),
            (Self::Dense, true) => (30, 0.05, Some(2.0)),
            (_, false) => (7, 0.05, None),
            (_, true) => (10, 0.05, Some(2.0)),
        };
        let config = TrainConfig::new(self.published(self.usual_depths()[0]), data)?;
        let mut training = config.with_epochs(epochs).with_schedule(Schedule::cosine(lr));
        training.evaluate = Evaluate::AtEnd;
        training.optimizer.clip = clip;
        training.network.blocks.shortcut = ShortcutOption::ZeroPad;
        training.network.blocks.branch_scale = BranchScale::One;
        Ok(FamilySettings { family: self, depths: depths.to_vec(), training })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_the_depth_and_blocks_of_their_family() {
        for &family in SweepFamily::ALL {
            let base = family.usual(DataName::Digits, family.usual_depths()).unwrap().training;
            for &depth in family.usual_depths() {
                family.check_depth(depth).unwrap();
                let network = family.at_depth(base.network.clone(), depth);
                network.validate().unwrap();
                assert_eq!(network.depth(), depth, "{family}");
                let blocks = network.as_conv().map(|conv| (conv.shape, conv.activation));
                assert_eq!(blocks, family.blocks());
            }
        }
    }

    #[test]
    fn wrong_depths_and_names_are_refused() {
        let error = |family: SweepFamily, depth| family.check_depth(depth).unwrap_err().to_string();
        assert_eq!(
            error(SweepFamily::Bottleneck, 32),
            "no bottleneck network has depth 32: depths are 9n+2; try 29 or 38"
        );
        assert!(error(SweepFamily::PreactBottleneck, 2).ends_with("try 11 or 20"));
        assert!(error(SweepFamily::Conv, 10).ends_with("depths are 6n+2; try 8 or 14"));
        assert!(error(SweepFamily::Dense, 21).ends_with("depths are even; try 20 or 22"));
        assert!("vgg".parse::<SweepFamily>().unwrap_err().to_string().contains("one of dense, conv, bottleneck"));
    }
}
