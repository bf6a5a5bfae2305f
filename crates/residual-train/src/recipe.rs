use crate::{Algorithm, Decay, Evaluate, Optimizer, Schedule, TrainConfig, TrainError, Warmup};
use residual_data::{Augmentation, DataConfig, DataName, Normalize};
use residual_model::{Family, NetName};

/// A set of training hyperparameters, from the literature or from this project.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = TrainError, parse_err_fn = unknown_recipe)]
pub enum Recipe {
    /// [`TrainConfig::new`]: ten epochs with cosine decay, for small datasets such as the digits.
    #[default]
    Digits,
    /// He et al. 2015, section 4.2: batches of 128, 64k iterations, a learning rate of 0.1 that is divided by 10 after
    /// 32k and 48k iterations, weight decay 1e-4, flips, crops with a padding of 4 pixels, and per-pixel mean
    /// subtraction. Networks of 110 or more layers train at a learning rate of 0.01 until the training error falls
    /// below 80 %. The recipe trains on all 50,000 images, or on 45,000 if `validation` is set to 5,000.
    #[strum(serialize = "he2015-cifar")]
    He2015Cifar,
    /// He et al. 2016, appendix: as [`Self::He2015Cifar`], but with a learning rate of 0.01 for the first 400
    /// iterations.
    #[strum(serialize = "he2016-preact")]
    He2016Preact,
    /// ImageNet, as in torchvision's reference training: 90 epochs in batches of 256, a learning rate of 0.1 that is
    /// divided by 10 every 30 epochs, weight decay 1e-4, random resized crops and flips.
    #[strum(serialize = "imagenet-90")]
    Imagenet90,
    /// This project's recipe for CPUs: fifteen epochs in batches of 128, one cycle of the learning rate up to 0.2 and
    /// down to 0 (Smith & Topin 2018), Nesterov momentum, weight decay 5e-4, flips and crops. In 30 minutes on two
    /// cores, ResNet-20 reached a test error of 11.0 %, and its plain twin reached 13.5 % (one seed each;
    /// `results/cifar10`).
    QuickCifar,
}

fn unknown_recipe(name: &str) -> TrainError {
    TrainError::unknown::<Recipe>("recipe", name)
}

/// Settings that replace those of a recipe. The recipe derives its warm-up, its milestones and its number of epochs
/// from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecipeOverrides {
    /// The number of passes over the training set.
    pub epochs: Option<usize>,
    /// The number of samples per batch.
    pub batch_size: Option<usize>,
    /// The number of batches per optimizer step.
    pub accumulate: Option<usize>,
}

impl Recipe {
    /// All recipes.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// A one-line description.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Digits => "10 epochs in batches of 64, cosine decay from lr 0.05; for small datasets",
            Self::He2015Cifar => {
                "He et al. 2015: 64k iterations in batches of 128, lr 0.1 divided by 10 at 32k and 48k, flips and crops"
            }
            Self::He2016Preact => "He et al. 2016: as he2015-cifar, but lr 0.01 for the first 400 iterations",
            Self::Imagenet90 => {
                "90 epochs in batches of 256, lr 0.1 divided by 10 every 30 epochs, random resized crops and flips"
            }
            Self::QuickCifar => {
                "15 epochs in batches of 128, one-cycle lr up to 0.2; resnet20: 11 % error in half an hour on 2 cores"
            }
        }
    }

    /// The dataset for which the recipe is designed.
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

    /// The configuration for a network and a dataset, with seed 0.
    ///
    /// # Errors
    /// If there is no such network, or the dataset's directory cannot be used.
    pub fn config(self, net: NetName, data: DataConfig) -> Result<TrainConfig, TrainError> {
        self.config_with(net, data, RecipeOverrides::default())
    }

    /// The configuration for a network and a dataset, with some of the recipe's settings replaced. Numbers of
    /// iterations that a paper states stay the same. Numbers of iterations that the recipe defines in epochs, or as a
    /// fraction of the run, are scaled.
    ///
    /// # Errors
    /// The same as [`Self::config`].
    pub fn config_with(
        self,
        net: NetName,
        data: DataConfig,
        overrides: RecipeOverrides,
    ) -> Result<TrainConfig, TrainError> {
        let mut config = TrainConfig::new(net, data)?;
        config.batch_size = overrides.batch_size.unwrap_or(self.batch_size());
        config.accumulate = overrides.accumulate.unwrap_or(config.accumulate);
        let batches = config.data.describe()?.train.div_ceil(config.batch_size.max(1));
        let steps = batches.div_ceil(config.accumulate.max(1)).max(1);
        let epochs = |usual: usize| overrides.epochs.unwrap_or(usual);
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
            Self::He2015Cifar if net.depth >= 110 && net.family != Family::Dense => {
                cifar(Warmup::UntilError { lr: 0.01, threshold: 0.8 })
            }
            Self::He2015Cifar => cifar(Warmup::None),
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
                optimizer: Optimizer { weight_decay: 5e-4, ..Algorithm::Sgd { momentum: 0.9, nesterov: true }.into() },
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(recipe: Recipe, net: &str) -> TrainConfig {
        let config = recipe.config(net.parse().unwrap(), recipe.data()).unwrap();
        config.validate().unwrap();
        config
    }

    #[test]
    fn he2015_cifar_matches_the_paper() {
        let config = config(Recipe::He2015Cifar, "resnet20");
        assert_eq!((config.batch_size, config.iterations, config.epochs), (128, Some(64_000), 164));
        let rate = |t| config.schedule.rate(t, 64_000, false);
        assert_eq!([rate(0), rate(31_999)], [0.1; 2]);
        assert!((rate(32_000) - 0.01).abs() < 1e-12 && (rate(63_999) - 0.001).abs() < 1e-12);
        assert_eq!((config.augmentation.crop, config.augmentation.flip), (4, true));
        assert_eq!((config.data.normalize, config.optimizer.weight_decay), (Normalize::Pixel, 1e-4));
    }

    #[test]
    fn deep_nets_start_at_a_low_learning_rate() {
        let deep = config(Recipe::He2015Cifar, "resnet110").schedule;
        assert_eq!((deep.rate(999, 64_000, false), deep.rate(999, 64_000, true)), (0.01, 0.1));
        let preact = config(Recipe::He2016Preact, "preact_resnet164").schedule;
        assert_eq!((preact.rate(399, 64_000, false), preact.rate(400, 64_000, false)), (0.01, 0.1));
    }

    #[test]
    fn quick_cifar_uses_one_learning_rate_cycle() {
        let config = config(Recipe::QuickCifar, "resnet20");
        let total = 15 * 391;
        let rates: Vec<f64> = (0..total).map(|t| config.schedule.rate(t, total, true)).collect();
        let peak = rates.iter().copied().fold(0.0, f64::max);
        assert!(rates[0] < 0.001 && rates[total - 1] < 1e-4 && (peak - 0.2).abs() < 1e-12, "{peak}");
    }

    #[test]
    fn overrides_scale_warm_up_milestones_and_epochs() {
        let config = |recipe: Recipe, overrides| {
            let data = DataConfig { dir: None, ..DataName::Cifar10.into() };
            recipe.config_with("resnet20".parse().unwrap(), data, overrides).unwrap()
        };
        let short = config(Recipe::QuickCifar, RecipeOverrides { epochs: Some(5), ..RecipeOverrides::default() });
        assert_eq!((short.epochs, short.schedule.warmup), (5, Warmup::Linear { iterations: 391 }));
        let accumulated =
            config(Recipe::QuickCifar, RecipeOverrides { accumulate: Some(2), ..RecipeOverrides::default() });
        assert_eq!(accumulated.schedule.warmup, Warmup::Linear { iterations: 3 * 196 });
        let large =
            config(Recipe::He2015Cifar, RecipeOverrides { batch_size: Some(256), ..RecipeOverrides::default() });
        assert_eq!((large.epochs, large.steps(196)), (327, 64_000));
        let small = config(Recipe::Imagenet90, RecipeOverrides { batch_size: Some(100), ..RecipeOverrides::default() });
        assert_eq!(small.schedule.decay, Decay::Step { milestones: vec![15_000, 30_000], factor: 0.1 });
    }

    #[test]
    fn names_round_trip_and_unknown_names_are_rejected() {
        for &recipe in Recipe::ALL {
            assert_eq!(recipe.to_string().parse::<Recipe>().unwrap(), recipe);
        }
        let error = "he2017".parse::<Recipe>().unwrap_err().to_string();
        assert!(error.starts_with("unknown recipe `he2017`; expected one of digits, he2015-cifar"), "{error}");
    }
}
