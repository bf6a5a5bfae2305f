use super::{
    FamilySettings, Line, Setting, SweepConfig, SweepFamily, Tuned,
    setting::{short, usual_branch_scale},
};
use crate::LabError;
use residual_model::{BlockKind, BlockOptions};
use residual_train::{TrainConfig, TrainError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One training of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The family.
    pub family: SweepFamily,
    /// Plain if α is 0, otherwise residual.
    pub kind: BlockKind,
    /// Weighted layers.
    pub depth: usize,
    /// The skip strength α.
    pub alpha: f64,
    /// What the axes vary.
    #[serde(flatten)]
    pub setting: Setting,
    /// The seed of the initial weights and of the order of samples.
    pub seed: u64,
}

impl RunSpec {
    /// The line of the figure to which it belongs.
    pub fn line(&self) -> Line {
        (self.family, self.kind, self.alpha, self.setting)
    }
}

impl fmt::Display for RunSpec {
    /// `dense-plain-56-seed0`, or `dense-residual-56-alpha0.5-adam-lr0.001-seed0` with a skip strength other than 0 and 1,
    /// and what the axes vary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, kind, depth, alpha, setting, seed } = self;
        write!(f, "{family}-{kind}-{depth}")?;
        if *alpha != 0.0 && *alpha != 1.0 {
            write!(f, "-alpha{}", short(*alpha))?;
        }
        write!(f, "{}-seed{seed}", setting.suffix())
    }
}

impl SweepConfig {
    /// All trainings with these learning rates, in the order of the results: by family, then by what the axes vary, skip
    /// strength, depth and seed.
    pub fn plan(&self, tuned: &[Tuned]) -> Vec<RunSpec> {
        let seeds = || self.first_seed..self.first_seed + self.seeds;
        let mut plan = Vec::new();
        for family in &self.families {
            for setting in self.settings() {
                let chosen = tuned.iter().find(|t| (t.family, t.setting) == (family.family, setting));
                let setting = Setting { lr: chosen.map(|tuned| tuned.lr).or(setting.lr), ..setting };
                plan.extend(
                    self.nets(family, setting).flat_map(|spec| seeds().map(move |seed| RunSpec { seed, ..spec })),
                );
            }
        }
        plan
    }

    /// The trainings by which the learning rates are chosen.
    pub(super) fn grid(&self) -> Vec<RunSpec> {
        let mut grid = Vec::new();
        for family in &self.families {
            for setting in self.settings() {
                for lr in self.rates(family.family, setting) {
                    grid.extend(self.nets(family, Setting { lr: Some(lr), ..setting }));
                }
            }
        }
        grid
    }

    /// The nets of every skip strength and depth, with the first seed.
    fn nets<'a>(&'a self, family: &'a FamilySettings, setting: Setting) -> impl Iterator<Item = RunSpec> + 'a {
        self.alphas.iter().flat_map(move |&alpha| {
            let kind = if alpha == 0.0 { BlockKind::Plain } else { BlockKind::Residual };
            let (family, seed) = (family.family, self.first_seed);
            let depths = self.family(family).map_or(&[][..], |settings| &settings.depths);
            depths.iter().map(move |&depth| RunSpec { family, kind, depth, alpha, setting, seed })
        })
    }

    /// The number of trainings, those by which learning rates are chosen included.
    pub fn trainings(&self) -> usize {
        let plan = self.plan(&[]).len();
        // The first seed's trainings at the chosen rates are part of the grid.
        let grid = self.grid().len();
        if grid == 0 { plan } else { grid + plan - plan / self.seeds as usize }
    }

    /// The trainings among which [`Sweep::explain`](super::Sweep::explain) chooses the networks that it measures: the plain
    /// and residual nets of a family with the first setting and the first seed, in order of depth.
    pub(super) fn explained(&self, family: SweepFamily, tuned: &[Tuned]) -> Vec<RunSpec> {
        let mut specs = self.plan(tuned);
        specs.retain(|spec| {
            spec.family == family && spec.seed == self.first_seed && (spec.alpha == 0.0 || spec.alpha == 1.0)
        });
        let setting = specs.first().map(|spec| spec.setting);
        specs.retain(|spec| Some(spec.setting) == setting);
        specs.sort_by_key(|spec| spec.depth);
        specs
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// If a setting is out of range. The error names the first such setting.
    pub fn validate(&self) -> Result<(), LabError> {
        self.check_plan()?;
        for family in &self.families {
            family.depths.iter().try_for_each(|&depth| family.family.check_depth(depth))?;
            let network = family.training.network.name();
            if (network.family == residual_model::Family::Dense) != (family.family == SweepFamily::Dense) {
                let name = family.family;
                return Err(LabError::Setting(format!("the settings of the {name} nets are those of {network}")));
            }
        }
        for FamilySettings { family, training, .. } in &self.families {
            if training.start.is_some() {
                let text = format!("the {family} nets of a sweep start from new weights, not from given ones");
                return Err(LabError::Setting(text));
            }
            if training.network.init.zero_init && self.alphas.contains(&0.0) {
                let text =
                    "zero initialisation of the last layers is for residual nets: plain blocks would output only zeros";
                return Err(LabError::Setting(text.into()));
            }
            if self.settings().into_iter().any(|setting| has_duplicates(&self.rates(*family, setting))) {
                let text = "two factors of the learning-rate grid give the same learning rate";
                return Err(LabError::Setting(text.into()));
            }
        }
        let first = |spec: &RunSpec| spec.seed == self.first_seed;
        let plan = if self.is_tuned() { self.grid() } else { self.plan(&[]) };
        Ok(plan.into_iter().filter(first).try_for_each(|spec| self.training(spec)?.validate())?)
    }

    /// Checks the settings that decide how many trainings there are.
    pub(super) fn check_plan(&self) -> Result<(), LabError> {
        let setting = |text: &str| Err(LabError::Setting(text.into()));
        let is_empty = |family: &FamilySettings| family.depths.is_empty();
        if self.families.is_empty() || self.families.iter().any(is_empty) || self.alphas.is_empty() {
            return setting("a sweep needs at least one family, one depth and one skip strength");
        }
        if self.seeds == 0 {
            return setting("seeds must be at least 1, not 0");
        }
        if self.first_seed.checked_add(self.seeds).is_none() || self.seeds > 1000 {
            return setting("seeds must be at most 1000, and the last seed must be below 2^64");
        }
        let axes = [self.optimizers.len(), self.lrs.len(), self.batch_sizes.len(), self.norms.len()];
        if axes.iter().filter(|&&values| values > 1).count() > 2 {
            return setting(
                "a sweep has at most two axes beside depth and skip strength, of optimizers, learning rates, batch sizes \
                 and norms",
            );
        }
        if self.is_tuned() && !self.lrs.is_empty() {
            return setting("learning rates are either given or chosen from a grid, not both");
        }
        if let Some(factor) = self.lr_grid.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
            return setting(&format!("the factors of the learning-rate grid must be positive numbers, not {factor}"));
        }
        let depths = self.families.iter().map(|family| family.depths.len()).sum::<usize>();
        let settings = axes.into_iter().fold(1, |product: usize, values| product.saturating_mul(values.max(1)));
        let nets = depths.saturating_mul(self.alphas.len()).saturating_mul(settings);
        if self.lr_grid.len() > MOST_FACTORS {
            return setting(&format!("the learning-rate grid has at most {MOST_FACTORS} factors"));
        }
        let trainings =
            nets.saturating_mul(self.seeds as usize).saturating_add(nets.saturating_mul(self.lr_grid.len()));
        if trainings > MOST_TRAININGS {
            return setting(&format!("a sweep has at most {MOST_TRAININGS} trainings, not {trainings}"));
        }
        let families: Vec<SweepFamily> = self.families.iter().map(|family| family.family).collect();
        for (name, twice) in [
            ("a family", has_duplicates(&families)),
            ("a skip strength", has_duplicates(&self.alphas)),
            ("a depth", self.families.iter().any(|family| has_duplicates(&family.depths))),
            ("an optimizer", has_duplicates(&self.optimizers)),
            ("a learning rate", has_duplicates(&self.lrs)),
            ("a batch size", has_duplicates(&self.batch_sizes)),
            ("a norm", has_duplicates(&self.norms)),
            ("a factor of the learning-rate grid", has_duplicates(&self.lr_grid)),
        ] {
            if twice {
                return setting(&format!("{name} is given twice"));
            }
        }
        Ok(())
    }

    /// The configuration of one training.
    ///
    /// # Errors
    /// If the sweep has no such family.
    pub fn training(&self, spec: RunSpec) -> Result<TrainConfig, TrainError> {
        let RunSpec { family, kind, depth, alpha, setting, seed } = spec;
        let Some(FamilySettings { training, .. }) = self.family(family) else {
            return Err(TrainError::Conflict(format!("the sweep has no {family} nets")));
        };
        let mut config = setting.apply(training.clone());
        let blocks = config.network.blocks;
        config.network.blocks = BlockOptions {
            kind,
            // It has no effect in a plain block, whose settings are then those of any plain net.
            skip_strength: if kind == BlockKind::Plain { blocks.skip_strength } else { alpha },
            branch_scale: self.branch_scale.unwrap_or_else(|| usual_branch_scale(blocks.norm)),
            // A plain block cannot be skipped.
            last_survival: if kind == BlockKind::Plain { 1.0 } else { blocks.last_survival },
            ..blocks
        };
        config.network = family.at_depth(config.network, depth);
        Ok(config.with_seed(seed))
    }

    /// The expected cost of a training, in units of one epoch of one dense layer.
    pub(super) fn work(&self, spec: RunSpec) -> u64 {
        let layer = if spec.family == SweepFamily::Dense { 1 } else { 10 };
        let epochs = self.family(spec.family).map_or(0, |settings| settings.training.epochs);
        (spec.depth as u64).saturating_mul(layer).saturating_mul(epochs as u64)
    }
}

/// The largest number of trainings in a sweep.
pub(super) const MOST_TRAININGS: usize = 10_000;

/// The largest number of factors of a learning-rate grid.
const MOST_FACTORS: usize = 20;

fn has_duplicates<T: PartialEq>(values: &[T]) -> bool {
    (1..values.len()).any(|i| values[..i].contains(&values[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_data::DataName;
    use residual_model::Norm;
    use residual_train::OptimizerKind;
    use serde_json::to_value;

    const BOTH: [SweepFamily; 2] = [SweepFamily::Dense, SweepFamily::Conv];

    fn usual() -> SweepConfig {
        SweepConfig::usual(&BOTH, DataName::Digits).unwrap()
    }

    fn error(change: impl Fn(&mut SweepConfig)) -> String {
        let mut config = usual();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn both_kinds_train_with_the_same_settings() {
        let config = usual();
        let plan = config.plan(&[]);
        for spec in plan.iter().filter(|spec| spec.kind == BlockKind::Plain) {
            let twin = RunSpec { kind: BlockKind::Residual, alpha: 1.0, ..*spec };
            assert!(plan.contains(&twin));
            let [mut plain, mut residual] = [*spec, twin].map(|s| to_value(config.training(s).unwrap()).unwrap());
            for json in [&mut plain, &mut residual] {
                let blocks = json["network"]["blocks"].as_object_mut().unwrap();
                assert!(blocks.remove("kind").is_some());
            }
            assert_eq!(plain, residual);
        }
    }

    #[test]
    fn deep_sweeps_clip_the_gradients_of_all_nets_equally() {
        let settings = |depths: &[usize]| {
            BOTH.map(|family| {
                let training = family.usual(DataName::Digits, depths).unwrap().training;
                (training.epochs, training.schedule.lr, training.optimizer.clip)
            })
        };
        assert_eq!(settings(&[20, 56]), [(20, 0.02, None), (7, 0.05, None)]);
        assert_eq!(settings(&[20, 1202]), [(30, 0.05, Some(2.0)), (10, 0.05, Some(2.0))]);
    }

    #[test]
    fn invalid_settings_are_named() {
        assert!(error(|c| c.families[0].depths = vec![8, 21]).contains("no dense network has depth 21"));
        assert!(
            error(|c| c.families[1].depths = vec![10])
                .contains("no conv network has depth 10: depths are 6n+2; try 8 or 14")
        );
        assert_eq!(error(|c| c.seeds = 0), "seeds must be at least 1, not 0");
        assert_eq!(error(|c| c.families[0].training.epochs = 0), "epochs must be at least 1, not 0");
        assert!(error(|c| c.lrs = vec![f64::NAN]).starts_with("the learning rate must be"));
        assert!(error(|c| c.alphas = vec![-1.0]).starts_with("the skip strength must be"));
        assert_eq!(error(|c| c.families[1] = c.families[0].clone()), "a family is given twice");
        assert_eq!(error(|c| c.alphas = vec![1.0, 1.0]), "a skip strength is given twice");
        assert_eq!(error(|c| c.families[0].depths = vec![8, 8]), "a depth is given twice");
        assert_eq!(
            error(|c| c.lr_grid = vec![0.0]),
            "the factors of the learning-rate grid must be positive numbers, not 0"
        );
        let three = error(|c| {
            (c.lrs, c.batch_sizes, c.norms) = (vec![0.1, 0.2], vec![32, 64], vec![Norm::Batch, Norm::None]);
        });
        assert!(three.starts_with("a sweep has at most two axes beside depth and skip strength"), "{three}");
        let mismatch = error(|c| c.families[0].training = c.families[1].training.clone());
        assert_eq!(mismatch, "the settings of the dense nets are those of resnet8");
    }

    #[test]
    fn the_plan_has_every_combination_once() {
        let config = SweepConfig { optimizers: vec![OptimizerKind::Sgd, OptimizerKind::Adam], ..usual() };
        let plan = config.plan(&[]);
        assert_eq!(plan.len(), (6 + 5) * 2 * 3 * 2);
        assert!((0..plan.len()).all(|i| !plan[..i].contains(&plan[i])));
        let plain = usual().plan(&[])[0];
        assert_eq!(plain.to_string(), "dense-plain-4-seed0");
        assert_eq!(RunSpec { alpha: 0.25, ..plain }.to_string(), "dense-plain-4-alpha0.25-seed0");
        assert_eq!(RunSpec { alpha: 1e308, ..plain }.to_string(), "dense-plain-4-alpha1e308-seed0");
        let setting = Setting {
            optimizer: Some(OptimizerKind::Adam),
            lr: Some(0.001),
            batch_size: Some(32),
            norm: Some(Norm::None),
        };
        assert_eq!(RunSpec { setting, ..plain }.to_string(), "dense-plain-4-adam-lr0.001-batch32-norm-none-seed0");
    }

    #[test]
    fn an_axis_changes_its_setting_alone() {
        let config = SweepConfig { norms: vec![Norm::Batch, Norm::None], ..usual() };
        let first = |norm| {
            let plan = config.plan(&[]);
            let spec = plan.into_iter().find(|spec| spec.setting.norm == Some(norm)).unwrap();
            to_value(config.training(spec).unwrap()).unwrap()
        };
        let (batch, mut none) = (first(Norm::Batch), first(Norm::None));
        none["network"]["blocks"]["norm"] = "batch".into();
        // Without a norm, the main path has another usual factor.
        none["network"]["blocks"]["branch_scale"] = batch["network"]["blocks"]["branch_scale"].clone();
        assert_eq!(batch, none);
    }

    #[test]
    fn the_rate_with_the_lowest_mean_error_over_both_kinds_is_chosen() {
        let config = SweepConfig {
            optimizers: vec![OptimizerKind::Sgd, OptimizerKind::Adam],
            lr_grid: vec![3.0, 0.3],
            ..usual().with_depths(&[8])
        };
        let grid = config.grid();
        assert_eq!(grid.len(), 2 * 2 * 2 * 2);
        assert_eq!(config.trainings(), grid.len() + 2 * 2 * 2 * 2);
        let adam = Setting { optimizer: Some(OptimizerKind::Adam), ..Setting::default() };
        assert_eq!(config.rates(SweepFamily::Dense, adam), [0.0003, 0.003]);
        let sgd = Setting { optimizer: Some(OptimizerKind::Sgd), ..Setting::default() };
        assert_eq!(config.rates(SweepFamily::Conv, sgd), [0.015, 0.15]);
        let runs: Vec<_> = grid
            .iter()
            .map(|&spec| super::super::RunResult {
                // The plain net prefers the low rate by less than the residual net prefers the high one.
                train_error: match (spec.kind, spec.setting.lr) {
                    (BlockKind::Plain, Some(0.0003)) => 0.5,
                    (BlockKind::Plain, _) => 0.6,
                    (_, Some(0.0003)) => 0.3,
                    _ => 0.1,
                },
                ..super::super::RunResult::untrained(spec)
            })
            .collect();
        let tuned = Tuned::choose(&config, SweepFamily::Dense, adam, &runs);
        assert_eq!((tuned.lr, tuned.rates.len()), (0.003, 2));
        assert!((tuned.rates[0].train_error - 0.4).abs() < 1e-12);
        let plan = config.plan(&[tuned]);
        let chosen = plan.iter().find(|spec| spec.setting.optimizer == Some(OptimizerKind::Adam)).unwrap();
        assert_eq!((chosen.setting.lr, chosen.family), (Some(0.003), SweepFamily::Dense));
    }
}
