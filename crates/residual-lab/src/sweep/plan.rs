use super::SweepConfig;
use crate::LabError;
use residual_data::{DataConfig, DataName};
use residual_model::{BlockKind, BlockOptions, Family, NetName, ShortcutOption};
use residual_train::{Evaluate, Optimizer, Schedule, TrainConfig, TrainError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One training of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The family.
    pub family: Family,
    /// Plain if α is 0, otherwise residual.
    pub kind: BlockKind,
    /// Weighted layers.
    pub depth: usize,
    /// The skip strength α.
    pub alpha: f64,
    /// The seed of the initial weights and of the order of samples.
    pub seed: u64,
}

impl fmt::Display for RunSpec {
    /// `dense-plain-56-seed0`, or `dense-residual-56-alpha0.5-seed0` if the skip strength is neither 0 nor 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, kind, depth, alpha, seed } = self;
        write!(f, "{family}-{kind}-{depth}")?;
        if *alpha != 0.0 && *alpha != 1.0 {
            // All digits of 1e308 would be too long for the name of a file.
            match alpha.to_string() {
                digits if digits.len() > 30 => write!(f, "-alpha{alpha:e}")?,
                digits => write!(f, "-alpha{digits}")?,
            }
        }
        write!(f, "-seed{seed}")
    }
}

impl SweepConfig {
    /// All trainings, in the order of the results: by family, then by skip strength, depth and seed.
    pub fn plan(&self) -> Vec<RunSpec> {
        let mut plan = Vec::new();
        for &family in &self.families {
            for &alpha in &self.alphas {
                let kind = if alpha == 0.0 { BlockKind::Plain } else { BlockKind::Residual };
                for &depth in self.depths(family) {
                    let seeds = self.first_seed..self.first_seed + self.seeds;
                    plan.extend(seeds.map(|seed| RunSpec { family, kind, depth, alpha, seed }));
                }
            }
        }
        plan
    }

    /// The trainings whose networks [`Sweep::explain`](super::Sweep::explain) measures: the shallowest and the deepest
    /// plain and residual nets of a family, with the first seed, in order of depth.
    pub fn explained(&self, family: Family) -> Vec<RunSpec> {
        let mut specs = self.plan();
        specs.retain(|spec| {
            spec.family == family && spec.seed == self.first_seed && (spec.alpha == 0.0 || spec.alpha == 1.0)
        });
        let depths = specs.iter().map(|spec| spec.depth);
        let ends = [depths.clone().min(), depths.max()];
        specs.retain(|spec| ends.contains(&Some(spec.depth)));
        specs.sort_by_key(|spec| spec.depth);
        specs
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// If a setting is out of range. The error names the first such setting.
    pub fn validate(&self) -> Result<(), LabError> {
        self.check_plan()?;
        if let Some(depths) = &self.depths {
            let mut families = self.families.iter();
            families.try_for_each(|f| depths.iter().try_for_each(|&d| f.check_depth(d)))?;
        }
        let first = |spec: &&RunSpec| spec.seed == self.first_seed;
        Ok(self.plan().iter().filter(first).try_for_each(|&spec| self.training(spec)?.validate())?)
    }

    /// Checks the settings that decide how many trainings there are.
    pub(super) fn check_plan(&self) -> Result<(), LabError> {
        let setting = |text: &str| Err(LabError::Setting(text.into()));
        if self.families.is_empty() || self.depths.as_ref().is_some_and(Vec::is_empty) || self.alphas.is_empty() {
            return setting("a sweep needs at least one family, one depth and one skip strength");
        }
        if self.seeds == 0 {
            return setting("seeds must be at least 1, not 0");
        }
        if self.first_seed.checked_add(self.seeds).is_none() || self.seeds > 1000 {
            return setting("seeds must be at most 1000, and the last seed must be below 2^64");
        }
        let depths = self.families.iter().map(|&family| self.depths(family).len()).sum::<usize>();
        let trainings = depths.saturating_mul(self.alphas.len()).saturating_mul(self.seeds as usize);
        if trainings > MOST_TRAININGS {
            return setting(&format!("a sweep has at most {MOST_TRAININGS} trainings, not {trainings}"));
        }
        if has_duplicates(&self.families) {
            return setting("a family is given twice");
        }
        if has_duplicates(&self.alphas) {
            return setting("a skip strength is given twice");
        }
        if self.depths.as_ref().is_some_and(|depths| has_duplicates(depths)) {
            return setting("a depth is given twice");
        }
        Ok(())
    }

    /// The dataset. Images from a folder have the same size for all networks: 32 by 32 unless configured otherwise.
    pub(super) fn dataset(&self) -> DataConfig {
        let side = (self.data.name == DataName::Folder).then_some(32);
        DataConfig { side: self.data.side.or(side), ..self.data.clone() }
    }

    /// The configuration of one training.
    pub(super) fn training(&self, spec: RunSpec) -> Result<TrainConfig, TrainError> {
        let RunSpec { family, kind, depth, alpha, seed } = spec;
        let config = TrainConfig::new(NetName { family, kind, depth }, self.dataset())?;
        let blocks = BlockOptions {
            kind,
            shortcut: ShortcutOption::ZeroPad,
            skip_strength: alpha,
            branch_scale: self.branch_scale(),
            norm: self.norm,
            last_survival: 1.0,
        };
        let width = match family {
            Family::Dense => self.dense_width,
            _ => self.conv_width,
        };
        let network = config.network.clone().with_blocks(blocks).with_width(width);
        Ok(TrainConfig {
            batch_size: self.batch_size,
            evaluate: Evaluate::AtEnd,
            optimizer: Optimizer { clip: self.clip(family), ..config.optimizer.clone() },
            ..config
                .with_network(network)
                .with_epochs(self.epochs(family))
                .with_schedule(Schedule::cosine(self.lr(family)))
                .with_seed(seed)
        })
    }

    /// The expected cost of a training, in units of one epoch of one dense layer.
    pub(super) fn work(&self, spec: RunSpec) -> u64 {
        let layer = match spec.family {
            Family::Dense => 1,
            _ => 10,
        };
        layer * spec.depth as u64 * self.epochs(spec.family) as u64
    }
}

/// The largest number of trainings in a sweep.
pub(super) const MOST_TRAININGS: usize = 10_000;

fn has_duplicates<T: PartialEq>(values: &[T]) -> bool {
    (1..values.len()).any(|i| values[..i].contains(&values[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::to_value;

    fn error(change: impl Fn(&mut SweepConfig)) -> String {
        let mut config = SweepConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn both_kinds_train_with_the_same_settings() {
        let config = SweepConfig::default();
        let plan = config.plan();
        for spec in plan.iter().filter(|spec| spec.kind == BlockKind::Plain) {
            let twin = RunSpec { kind: BlockKind::Residual, alpha: 1.0, ..*spec };
            assert!(plan.contains(&twin));
            let [mut plain, mut residual] = [*spec, twin].map(|s| to_value(config.training(s).unwrap()).unwrap());
            for json in [&mut plain, &mut residual] {
                let blocks = json["network"]["blocks"].as_object_mut().unwrap();
                assert!(blocks.remove("kind").is_some() && blocks.remove("skip_strength").is_some());
            }
            assert_eq!(plain, residual);
        }
    }

    #[test]
    fn deep_sweeps_clip_the_gradients_of_all_nets_equally() {
        let mut config = SweepConfig::default();
        assert_eq!([Family::Dense, Family::Conv].map(|f| (config.epochs(f), config.lr(f))), [(20, 0.02), (7, 0.05)]);
        assert!(config.plan().iter().all(|spec| config.training(*spec).unwrap().optimizer.clip.is_none()));
        config.depths = Some(vec![20, 1202]);
        assert!(config.plan().iter().all(|spec| config.training(*spec).unwrap().optimizer.clip == Some(2.0)));
        config.clip = Some(7.0);
        assert!(config.plan().iter().all(|spec| config.training(*spec).unwrap().optimizer.clip == Some(7.0)));
    }

    #[test]
    fn invalid_settings_are_named() {
        assert!(error(|c| c.depths = Some(vec![8, 21])).contains("no dense network has depth 21"));
        assert!(
            error(|c| c.depths = Some(vec![10])).contains("no conv network has depth 10: depths are 6n+2; try 8 or 14")
        );
        assert_eq!(error(|c| c.seeds = 0), "seeds must be at least 1, not 0");
        assert_eq!(error(|c| c.epochs = Some(0)), "epochs must be at least 1, not 0");
        assert!(error(|c| c.lr = Some(f64::NAN)).starts_with("the learning rate must be"));
        assert!(error(|c| c.alphas = vec![-1.0]).starts_with("the skip strength must be"));
        assert_eq!(error(|c| c.families = vec![Family::Conv, Family::Conv]), "a family is given twice");
        assert_eq!(error(|c| c.alphas = vec![1.0, 1.0]), "a skip strength is given twice");
        assert_eq!(error(|c| c.depths = Some(vec![8, 8])), "a depth is given twice");
    }

    #[test]
    fn the_plan_has_every_combination_once() {
        let plan = SweepConfig::default().plan();
        assert_eq!(plan.len(), (6 + 5) * 2 * 3);
        assert!((0..plan.len()).all(|i| !plan[..i].contains(&plan[i])));
        assert_eq!(plan[0].to_string(), "dense-plain-4-seed0");
        assert_eq!(RunSpec { alpha: 0.25, ..plan[0] }.to_string(), "dense-plain-4-alpha0.25-seed0");
        assert_eq!(RunSpec { alpha: 1e308, ..plan[0] }.to_string(), "dense-plain-4-alpha1e308-seed0");
    }

    #[test]
    fn the_shallowest_and_deepest_nets_of_the_first_seed_are_explained() {
        let config = SweepConfig { first_seed: 5, alphas: vec![0.0, 0.5, 1.0], ..SweepConfig::default() };
        let names: Vec<String> = config.explained(Family::Conv).iter().map(RunSpec::to_string).collect();
        assert_eq!(
            names,
            ["conv-plain-8-seed5", "conv-residual-8-seed5", "conv-plain-56-seed5", "conv-residual-56-seed5"]
        );
    }
}
