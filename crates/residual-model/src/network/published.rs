//! A function for each published network, for use as in `resnet18(1000).init(&device)`.
//!
//! Each function returns the [`NetworkConfig`] of the network with the same [`NetName`], for ImageNet images (224x224)
//! or CIFAR images (32x32). `residual_weights` loads torchvision's weights into the networks that torchvision
//! publishes.

use super::NetworkConfig;
use crate::{BlockKind, Family, NetName, StrideAt};

const IMAGENET: [usize; 3] = [3, 224, 224];
const CIFAR: [usize; 3] = [3, 32, 32];

macro_rules! imagenet {
    ($($(#[$doc:meta])* $name:ident: $kind:ident, $family:expr, $depth:literal;)+) => {
        $(
            $(#[$doc])*
            pub fn $name(classes: usize) -> NetworkConfig {
                NetworkConfig::new(
                    NetName { family: $family, kind: BlockKind::$kind, depth: $depth },
                    IMAGENET,
                    classes,
                )
            }
        )+
    };
}

imagenet! {
    /// ResNet-18 (He et al. 2015, table 1): basic blocks, option B.
    resnet18: Residual, Family::ImageNet(StrideAt::Middle), 18;
    /// ResNet-34 (He et al. 2015, table 1): basic blocks, option B.
    resnet34: Residual, Family::ImageNet(StrideAt::Middle), 34;
    /// ResNet-50 as in torchvision ("v1.5"): bottlenecks (He et al. 2015, table 1) with the stride in the 3x3
    /// convolution.
    resnet50: Residual, Family::ImageNet(StrideAt::Middle), 50;
    /// ResNet-101 as in torchvision, see [`resnet50`].
    resnet101: Residual, Family::ImageNet(StrideAt::Middle), 101;
    /// ResNet-152 as in torchvision, see [`resnet50`].
    resnet152: Residual, Family::ImageNet(StrideAt::Middle), 152;
    /// The plain twin of [`resnet18`]: the 18-layer plain network of He et al. 2015, table 2.
    plain18: Plain, Family::ImageNet(StrideAt::Middle), 18;
    /// The plain twin of [`resnet34`]: the 34-layer plain network of He et al. 2015, table 2.
    plain34: Plain, Family::ImageNet(StrideAt::Middle), 34;
    /// The plain twin of [`resnet50`].
    plain50: Plain, Family::ImageNet(StrideAt::Middle), 50;
    /// ResNeXt-50 32x4d (Xie et al. 2017, table 1).
    resnext50_32x4d: Residual, Family::Grouped(32, 4), 50;
    /// ResNeXt-101 32x8d, as in torchvision.
    resnext101_32x8d: Residual, Family::Grouped(32, 8), 101;
    /// ResNeXt-101 64x4d (Xie et al. 2017, section 5.1).
    resnext101_64x4d: Residual, Family::Grouped(64, 4), 101;
    /// Wide ResNet-50-2 (Zagoruyko & Komodakis 2016, table 8): the 3x3 convolutions are twice as wide.
    wide_resnet50_2: Residual, Family::Wide(2), 50;
    /// Wide ResNet-101-2, as in torchvision.
    wide_resnet101_2: Residual, Family::Wide(2), 101;
    /// Pre-activation ResNet-18 (He et al. 2016).
    preact_resnet18: Residual, Family::PreactImageNet, 18;
    /// Pre-activation ResNet-50 (He et al. 2016).
    preact_resnet50: Residual, Family::PreactImageNet, 50;
}

fn cifar(family: Family, kind: BlockKind, depth: usize) -> NetworkConfig {
    NetworkConfig::new(NetName { family, kind, depth }, CIFAR, 10)
}

/// The residual network for CIFAR-10, with option A shortcuts (He et al. 2015, section 4.2). Its depth is 6n+2 with
/// n ≥ 1; in the paper, it is 20, 32, 44, 56, 110 or 1202.
///
/// # Panics
/// If the depth is not 6n+2 with n ≥ 1.
pub fn cifar_resnet(depth: usize) -> NetworkConfig {
    cifar(Family::Conv, BlockKind::Residual, depth)
}

/// The plain twin of [`cifar_resnet`].
///
/// # Panics
/// If the depth is not 6n+2 with n ≥ 1.
pub fn cifar_plain(depth: usize) -> NetworkConfig {
    cifar(Family::Conv, BlockKind::Plain, depth)
}

/// The pre-activation network for CIFAR-10 (He et al. 2016). Its depth is 6n+2 or 9n+2 with n ≥ 1. It has bottlenecks
/// at depth 164 and at depths that are 9n+2 but not 6n+2, and basic blocks otherwise. In the paper, the networks of
/// depth 164 and 1001 have bottlenecks.
///
/// # Panics
/// If the depth is neither 6n+2 nor 9n+2 with n ≥ 1.
pub fn preact_resnet(depth: usize) -> NetworkConfig {
    cifar(Family::Preact, BlockKind::Residual, depth)
}

/// The plain twin of [`preact_resnet`].
///
/// # Panics
/// If the depth is neither 6n+2 nor 9n+2 with n ≥ 1.
pub fn preact_plain(depth: usize) -> NetworkConfig {
    cifar(Family::Preact, BlockKind::Plain, depth)
}

/// The residual network of fully-connected blocks, for inputs with this number of features. Its depth is even.
///
/// # Panics
/// If the depth is odd or 0.
pub fn dense_resnet(depth: usize, features: usize, classes: usize) -> NetworkConfig {
    dense(BlockKind::Residual, depth, features, classes)
}

/// The plain twin of [`dense_resnet`].
///
/// # Panics
/// If the depth is odd or 0.
pub fn dense_plain(depth: usize, features: usize, classes: usize) -> NetworkConfig {
    dense(BlockKind::Plain, depth, features, classes)
}

fn dense(kind: BlockKind, depth: usize, features: usize, classes: usize) -> NetworkConfig {
    NetworkConfig::new(NetName { family: Family::Dense, kind, depth }, [features, 1, 1], classes)
}
