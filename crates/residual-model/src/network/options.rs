use crate::{
    BlockKind, BranchScale, ModelError, Norm, ResidualBlockConfig, ShortcutOption, init::InitConfig, stochastic_depth,
};
use alloc::string::ToString;
use serde::{Deserialize, Serialize};

/// What the blocks of a network are like, whatever its family.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockOptions {
    /// Plain or residual.
    pub kind: BlockKind,
    /// What a shortcut does where shapes differ.
    pub shortcut: ShortcutOption,
    /// α, the factor of the shortcut.
    pub skip_strength: f64,
    /// s, the factor of the main path in a residual block.
    pub branch_scale: BranchScale,
    /// The norm after each layer.
    pub norm: Norm,
    /// Stochastic depth: the probability that the last block takes part in a training step; 1 is
    /// without. Earlier blocks take part more often, see [`stochastic_depth::survival`].
    pub last_survival: f64,
}

impl Default for BlockOptions {
    /// Residual, option B, `α = s = 1`, batch norm, no stochastic depth.
    fn default() -> Self {
        Self {
            kind: BlockKind::default(),
            shortcut: ShortcutOption::default(),
            skip_strength: 1.0,
            branch_scale: BranchScale::default(),
            norm: Norm::default(),
            last_survival: 1.0,
        }
    }
}

impl BlockOptions {
    /// The defaults, of this kind.
    pub fn of_kind(kind: BlockKind) -> Self {
        Self { kind, ..Self::default() }
    }

    pub(super) fn validate(&self) -> Result<(), ModelError> {
        let range = |name, expected, value: f64| Err(ModelError::Range { name, expected, value: value.to_string() });
        if !(self.skip_strength.is_finite() && self.skip_strength >= 0.0) {
            return range("the skip strength", "a finite number of at least 0", self.skip_strength);
        }
        if !(self.last_survival > 0.0 && self.last_survival <= 1.0) {
            return range("the survival probability", "above 0 and at most 1", self.last_survival);
        }
        if self.kind == BlockKind::Plain && self.last_survival < 1.0 {
            return range("the survival probability", "1 in a plain net, whose blocks all count", self.last_survival);
        }
        Ok(())
    }

    /// Whether blocks whose shapes differ, or do not, have a projection.
    pub(super) fn projects(&self, shapes_differ: bool) -> bool {
        self.kind == BlockKind::Residual && self.shortcut.projects(shapes_differ)
    }

    /// The configuration of a block with this path, one of so many, counted from 1.
    pub(super) fn block<C>(&self, path: C, block: usize, blocks: usize, init: &InitConfig) -> ResidualBlockConfig<C> {
        ResidualBlockConfig {
            main_path: path,
            shortcut: self.shortcut,
            skip_strength: self.skip_strength,
            branch_scale: self.branch_scale.factor(blocks),
            survival: stochastic_depth::survival(block, blocks, self.last_survival),
            seed: Some(init.seed),
            zero_init: init.zero_init,
        }
    }
}
