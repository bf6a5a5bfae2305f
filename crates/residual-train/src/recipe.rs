use crate::{Decay, Evaluate, Optimizer, Schedule, TrainConfig, TrainError, Warmup};
use residual_data::{Augmentation, DataConfig, DataName, Normalize};
use residual_model::{Family, NetName};
use std::{fmt, str::FromStr};

/// A published way to train, or one of our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// [`TrainConfig::new`]: ten epochs by a cosine, for small datasets such as the digits.
    #[default]
    Digits,
    /// He et al. 2015, section 4.2: batches of 128, rate 0.1 divided by 10 at 32k and 48k of 64k iterations, weight decay
    /// 1e-4, flips and crops with 4 pixels around, per-pixel mean; from 110 layers on at 0.01 until the training error is
    /// below 80 %. All 50,000 images are trained on; 45,000 with 5,000 held out by `validation`.
    He2015Cifar,
    /// He et al. 2016, appendix: the same, at 0.01 for the first 400 iterations.
    He2016Preact,
    /// ImageNet as torchvision's reference trains it: 90 epochs in batches of 256, rate 0.1 divided by 10 every 30 epochs,
    /// weight decay 1e-4, random resized crops and flips.
    Imagenet90,
    /// Ours, for a CPU: fifteen epochs in batches of 128, one cycle of the rate to 0.2 and down to 0 (Smith & Topin
    /// 2018), Nesterov momentum, weight decay 5e-4, flips and crops. In 30 minutes on two cores ResNet-20 came to a test
    /// error of 11.0 %, its plain twin to 13.5 % (one seed each; `results/cifar10`).
    QuickCifar,
}

/// What of a recipe's length is other than the recipe says. Warm-up, milestones and epochs follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// Passes over the training set.
    pub epochs: Option<usize>,
    /// Samples in a batch.
    pub batch_size: Option<usize>,
    /// Batches for a step.
    pub accumulate: Option<usize>,
}

impl Recipe {
    /// Every recipe there is.
    pub const ALL: &[Self] = &[Self::Digits, Self::He2015Cifar, Self::He2016Preact, Self::Imagenet90, Self::QuickCifar];

    /// What it is, in a line.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Digits => "10 epochs of batches of 64, cosine from 0.05: for small datasets",
            Self::He2015Cifar => {
                "He et al. 2015: 64k iterations of 128, 0.1 divided by 10 at 32k and 48k, flip and crop"
            }
            Self::He2016Preact => "He et al. 2016: the same after 400 iterations at 0.01",
            Self::Imagenet90 => {
                "90 epochs of batches of 256, 0.1 divided by 10 every 30, random resized crops and flips"
            }
            Self::QuickCifar => {
                "15 epochs of batches of 128, one cycle to 0.2: resnet20 to 11 % in half an hour on 2 cores"
            }
        }
    }

    /// The dataset it is for.
    pub fn data(self) -> DataConfig {
        match self {
            Self::Digits => DataName::Digits.into(),
            Self::He2015Cifar | Self::He2016Preact => {
                DataConfig { normalize: Normalize::Pixel, ..DataName::Cifar10.into() }
            }
            Self::Imagenet90 => DataName::Folder.into(),
            Self::QuickCifar => DataConfig { normalize: Normalize::Channel, ..DataName::Cifar10.into() },
        }
    }

    /// The configuration for a network and data, seed 0.
    ///
    /// # Errors
    /// If there is no such network, or the dataset's folder cannot be used.
    pub fn config(self, net: NetName, data: DataConfig) -> Result<TrainConfig, TrainError> {
        self.config_of(net, data, Length::default())
    }

    /// The configuration for a network and data, of another length: the papers' iterations stay what they are, and
    /// what is a part of the training, such as a third or a number of epochs, stays that part.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn config_of(self, net: NetName, data: DataConfig, length: Length) -> Result<TrainConfig, TrainError> {
        let mut config = TrainConfig::new(net, data)?;
        config.batch_size = length.batch_size.unwrap_or(self.batch_size());
        config.accumulate = length.accumulate.unwrap_or(config.accumulate);
        let batches = config.data.describe()?.train.div_ceil(config.batch_size.max(1));
        let steps = batches.div_ceil(config.accumulate.max(1)).max(1);
        let epochs = |usual: usize| length.epochs.unwrap_or(usual);
        let flip_and_crop = Augmentation { crop: 4, flip: true, ..Augmentation::default() };
        let by_ten = |lr: f64, milestones: Vec<usize>, warmup: Warmup| Schedule {
            lr,
            decay: Decay::Step { milestones, factor: 0.1 },
            warmup,
        };
        let cifar = |warmup: Warmup| TrainConfig {
            epochs: epochs(64_000usize.div_ceil(steps)),
            iterations: Some(64_000),
            augmentation: flip_and_crop.clone(),
            schedule: by_ten(0.1, vec![32_000, 48_000], warmup),
            evaluate: Evaluate::TestEveryEpoch,
            ..config.clone()
        };
        Ok(match self {
            Self::Digits => TrainConfig { epochs: epochs(config.epochs), ..config },
            Self::He2015Cifar => cifar(match net.depth >= 110 && net.family != Family::Dense {
                true => Warmup::UntilError { lr: 0.01, threshold: 0.8 },
                false => Warmup::None,
            }),
            Self::He2016Preact => cifar(Warmup::Constant { lr: 0.01, iterations: 400 }),
            Self::Imagenet90 => TrainConfig {
                epochs: epochs(90),
                augmentation: Augmentation { resized_crop: Some(0.08), flip: true, ..Augmentation::default() },
                schedule: by_ten(
                    0.1,
                    [1, 2].map(|third| epochs(90).saturating_mul(steps) * third / 3).into(),
                    Warmup::None,
                ),
                evaluate: Evaluate::TestEveryEpoch,
                ..config
            },
            Self::QuickCifar => TrainConfig {
                epochs: epochs(15),
                augmentation: flip_and_crop,
                optimizer: Optimizer { nesterov: true, weight_decay: 5e-4, ..config.optimizer.clone() },
                schedule: Schedule {
                    lr: 0.2,
                    decay: Decay::Linear,
                    warmup: Warmup::Linear { iterations: (epochs(15).saturating_mul(steps) / 5).max(1) },
                },
                evaluate: Evaluate::TestEveryEpoch,
                ..config
            },
        })
    }

    fn batch_size(self) -> usize {
        match self {
            Self::Digits => 64,
            Self::Imagenet90 => 256,
            _ => 128,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Digits => "digits",
            Self::He2015Cifar => "he2015-cifar",
            Self::He2016Preact => "he2016-preact",
            Self::Imagenet90 => "imagenet-90",
            Self::QuickCifar => "quick-cifar",
        })
    }
}

impl FromStr for Recipe {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        Self::ALL.iter().copied().find(|recipe| recipe.to_string() == name).ok_or_else(|| {
            let expected = Self::ALL.iter().map(Self::to_string).collect::<Vec<_>>().join(", ");
            TrainError::Conflict(format!("unknown recipe `{name}`; expected one of {expected}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(recipe: Recipe, net: &str) -> TrainConfig {
        let config = recipe.config(net.parse().unwrap(), recipe.data()).unwrap();
        config.validate().unwrap();
        config
    }

    #[test]
    fn the_papers_recipe_is_the_papers() {
        let config = config(Recipe::He2015Cifar, "resnet20");
        assert_eq!((config.batch_size, config.iterations, config.epochs), (128, Some(64_000), 164));
        let rate = |t| config.schedule.rate(t, 64_000, false);
        assert_eq!([rate(0), rate(31_999)], [0.1; 2]);
        assert!((rate(32_000) - 0.01).abs() < 1e-12 && (rate(63_999) - 0.001).abs() < 1e-12);
        assert_eq!((config.augmentation.crop, config.augmentation.flip), (4, true));
        assert_eq!((config.data.normalize, config.optimizer.weight_decay), (Normalize::Pixel, 1e-4));
    }

    #[test]
    fn deep_nets_warm_up_until_they_learn() {
        let deep = config(Recipe::He2015Cifar, "resnet110").schedule;
        assert_eq!((deep.rate(999, 64_000, false), deep.rate(999, 64_000, true)), (0.01, 0.1));
        let preact = config(Recipe::He2016Preact, "preact_resnet164").schedule;
        assert_eq!((preact.rate(399, 64_000, false), preact.rate(400, 64_000, false)), (0.01, 0.1));
    }

    #[test]
    fn one_cycle_rises_and_falls() {
        let config = config(Recipe::QuickCifar, "resnet20");
        let total = 15 * 391;
        let rates: Vec<f64> = (0..total).map(|t| config.schedule.rate(t, total, true)).collect();
        let peak = rates.iter().copied().fold(0.0, f64::max);
        assert!(rates[0] < 0.001 && rates[total - 1] < 1e-4 && (peak - 0.2).abs() < 1e-12, "{peak}");
    }

    #[test]
    fn a_recipe_of_another_length_keeps_its_form() {
        let of = |recipe: Recipe, length| {
            let data = DataConfig { dir: None, ..DataName::Cifar10.into() };
            recipe.config_of("resnet20".parse().unwrap(), data, length).unwrap()
        };
        let short = of(Recipe::QuickCifar, Length { epochs: Some(5), ..Length::default() });
        assert_eq!((short.epochs, short.schedule.warmup), (5, Warmup::Linear { iterations: 391 }));
        let summed = of(Recipe::QuickCifar, Length { accumulate: Some(2), ..Length::default() });
        assert_eq!(summed.schedule.warmup, Warmup::Linear { iterations: 3 * 196 });
        let large = of(Recipe::He2015Cifar, Length { batch_size: Some(256), ..Length::default() });
        assert_eq!((large.epochs, large.steps(196)), (327, 64_000));
        let small = of(Recipe::Imagenet90, Length { batch_size: Some(100), ..Length::default() });
        assert_eq!(small.schedule.decay, Decay::Step { milestones: vec![15_000, 30_000], factor: 0.1 });
    }

    #[test]
    fn names_survive_a_round_trip_and_others_are_refused() {
        for &recipe in Recipe::ALL {
            assert_eq!(recipe.to_string().parse::<Recipe>().unwrap(), recipe);
        }
        let error = "he2017".parse::<Recipe>().unwrap_err().to_string();
        assert!(error.starts_with("unknown recipe `he2017`; expected one of digits, he2015-cifar"), "{error}");
    }
}
