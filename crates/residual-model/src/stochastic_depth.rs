//! Stochastic depth: each training step skips the main paths of randomly chosen residual blocks (Huang et al. 2016,
//! "Deep Networks with Stochastic Depth").

use alloc::vec::Vec;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

/// The survival probability of a block under the linear decay rule (eq. 4): `p_l = 1 - l/L · (1 - p_L)` for block l of
/// L, counted from 1. `last` is `p_L`.
///
/// ```
/// use residual_model::stochastic_depth::survival;
///
/// assert_eq!(survival(54, 54, 0.5), 0.5);
/// assert_eq!(survival(27, 54, 0.5), 0.75);
/// ```
pub fn survival(block: usize, blocks: usize, last: f64) -> f64 {
    1.0 - block as f64 / blocks as f64 * (1.0 - last)
}

/// Draws the blocks whose main paths take part in a training step, and returns `true` for each block that survives. The
/// result is a pure function of the seed, the step and the probabilities.
pub fn survivors(seed: u64, step: u64, probabilities: &[f64]) -> Vec<bool> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(step);
    probabilities.iter().map(|&p| rng.random::<f64>() < p).collect()
}
