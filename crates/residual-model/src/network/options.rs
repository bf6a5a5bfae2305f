use crate::{
    BlockKind, BranchScale, ModelError, Norm, ResidualBlockConfig, ShortcutOption, init::InitConfig, stochastic_depth,
};
use alloc::string::ToString;
use serde::{Deserialize, Serialize};

/// The options of a network's blocks, common to all families.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockOptions {
    /// Whether the blocks are plain or residual.
    pub kind: BlockKind,
    /// The kind of shortcut where input and output shapes differ.
    pub shortcut: ShortcutOption,
    /// The skip strength α: the factor of the shortcut.
    pub skip_strength: f64,
    /// The branch scale s: the factor of the main path in a residual block.
    pub branch_scale: BranchScale,
    /// The norm after each layer.
    pub norm: Norm,
    /// The probability that the last block takes part in a training step with stochastic depth. Earlier blocks take
    /// part more often; see [`stochastic_depth::survival`]. 1 disables stochastic depth.
    pub last_survival: f64,
}

impl Default for BlockOptions {
    /// Residual blocks with option B shortcuts, `α = s = 1` and batch norm, without stochastic depth.
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
    /// The default options for blocks of this kind.
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
            return range("the survival probability", "1 in a plain network", self.last_survival);
        }
        Ok(())
    }

    /// Whether a block has a projection shortcut, given whether its input and output shapes differ.
    pub(super) fn projects(&self, shapes_differ: bool) -> bool {
        self.kind == BlockKind::Residual && self.shortcut.projects(shapes_differ)
    }

    /// The configuration of block `block` of `blocks`, counted from 1, with this main path.
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
