use super::{Setting, SweepFamily};
use crate::LabError;
use residual_data::DataConfig;
use residual_model::{BranchScale, Norm};
use residual_train::{OptimizerKind, TrainConfig};
use serde::{Deserialize, Serialize};

/// Settings of a depth sweep, which trains every combination of family, depth, skip strength, seed, and what up to two
/// further axes vary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// The families, each with its depths and the settings of its trainings.
    pub families: Vec<FamilySettings>,
    /// Skip strengths α: 0 is a plain net, 1 is a residual net.
    pub alphas: Vec<f64>,
    /// The number of seeds.
    pub seeds: u64,
    /// The first seed; the others follow it.
    pub first_seed: u64,
    /// The factor of the main path in residual blocks; `None` means 1 with batch norm, and `1/√L` for L blocks without a
    /// norm.
    #[serde(default)]
    pub branch_scale: Option<BranchScale>,
    /// The axis of optimizers, each with its usual settings unless it is the families' own; empty if there is none.
    #[serde(default)]
    pub optimizers: Vec<OptimizerKind>,
    /// The axis of learning rates; empty if there is none.
    #[serde(default)]
    pub lrs: Vec<f64>,
    /// The axis of batch sizes; empty if there is none.
    #[serde(default)]
    pub batch_sizes: Vec<usize>,
    /// The axis of norms; empty if there is none.
    #[serde(default)]
    pub norms: Vec<Norm>,
    /// The factors of the usual learning rate among which the rate of each optimizer is chosen, by [`Tuned::RULE`]; empty
    /// for the usual rates.
    ///
    /// [`Tuned::RULE`]: super::Tuned::RULE
    #[serde(default)]
    pub lr_grid: Vec<f64>,
}

/// A family of a sweep: its depths, and the settings of its trainings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilySettings {
    /// The family.
    pub family: SweepFamily,
    /// The depths, in weighted layers.
    pub depths: Vec<usize>,
    /// The settings of every training. The sweep replaces the depth, the kind of block, the skip strength, the branch
    /// scale, the seeds, and what its axes vary.
    pub training: TrainConfig,
}

impl SweepConfig {
    /// The factors of [`Self::lr_grid`] that `residual sweep` uses for several optimizers.
    pub const LR_GRID: [f64; 4] = [0.1, 0.3, 1.0, 3.0];

    /// Plain and residual nets of these families with their [usual](SweepFamily::usual) depths and settings, and three
    /// seeds. On the embedded digits, dense and convolutional nets take a few minutes on two cores.
    ///
    /// # Errors
    /// If the dataset's directory cannot be used.
    pub fn usual(families: &[SweepFamily], data: impl Into<DataConfig>) -> Result<Self, LabError> {
        let data = data.into();
        let usual = |&family: &SweepFamily| family.usual(data.clone(), family.usual_depths());
        Ok(Self::of(families.iter().map(usual).collect::<Result<_, _>>()?))
    }

    /// Plain and residual nets of these families with three seeds.
    pub fn of(families: Vec<FamilySettings>) -> Self {
        Self {
            families,
            alphas: vec![0.0, 1.0],
            seeds: 3,
            first_seed: 0,
            branch_scale: None,
            optimizers: Vec::new(),
            lrs: Vec::new(),
            batch_sizes: Vec::new(),
            norms: Vec::new(),
            lr_grid: Vec::new(),
        }
    }

    /// Sets the depths of every family.
    pub fn with_depths(mut self, depths: &[usize]) -> Self {
        self.families.iter_mut().for_each(|family| family.depths = depths.to_vec());
        self
    }

    /// Changes the settings of every family's trainings.
    pub fn with_training(mut self, change: impl Fn(&mut TrainConfig)) -> Self {
        self.families.iter_mut().for_each(|family| change(&mut family.training));
        self
    }

    /// The settings of a family.
    pub fn family(&self, family: SweepFamily) -> Option<&FamilySettings> {
        self.families.iter().find(|settings| settings.family == family)
    }

    /// Whether the learning rate of each optimizer is chosen from a grid.
    pub fn is_tuned(&self) -> bool {
        !self.lr_grid.is_empty()
    }

    /// The settings that the axes give, other than learning rates chosen from the grid.
    pub(super) fn settings(&self) -> Vec<Setting> {
        fn axis<T: Copy>(values: &[T]) -> Vec<Option<T>> {
            if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
        }
        let mut settings = Vec::new();
        for optimizer in axis(&self.optimizers) {
            for lr in axis(&self.lrs) {
                for batch_size in axis(&self.batch_sizes) {
                    for norm in axis(&self.norms) {
                        settings.push(Setting { optimizer, lr, batch_size, norm });
                    }
                }
            }
        }
        settings
    }
}
