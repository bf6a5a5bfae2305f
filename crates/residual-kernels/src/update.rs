//! The updates after the forward and backward passes of a training step: running averages and the SGD step.

use rayon::prelude::*;

/// Stochastic gradient descent: `d = g + weight_decay · w`, `v ← momentum · v + d`, `w ← w - lr · v`. With Nesterov
/// momentum, `w ← w - lr · (momentum · v + d)`. The first step sets `v = d`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub lr: f32,
    /// The momentum.
    pub momentum: f32,
    /// Whether to use Nesterov momentum (Sutskever et al. 2013).
    pub nesterov: bool,
    /// The weight decay.
    pub weight_decay: f32,
}

/// The number of values per parallel task.
const CHUNK: usize = 1 << 15;

impl Sgd {
    /// Performs one step: writes the new weight to `out` and updates `velocity` in place. If `first` is true, the old
    /// velocity is not read.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn step(&self, weight: &[f32], gradient: &[f32], velocity: &mut [f32], first: bool, out: &mut [f32]) {
        let len = weight.len();
        assert_eq!(
            [gradient.len(), velocity.len(), out.len()],
            [len; 3],
            "the gradient, the velocity and the output must have the length of the weight"
        );
        if len <= CHUNK {
            return self.step_chunk(weight, gradient, velocity, first, out);
        }
        let old = weight.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK));
        let new = velocity.par_chunks_mut(CHUNK).zip(out.par_chunks_mut(CHUNK));
        old.zip(new).for_each(|((w, g), (v, out))| self.step_chunk(w, g, v, first, out));
    }

    fn step_chunk(&self, weight: &[f32], gradient: &[f32], velocity: &mut [f32], first: bool, out: &mut [f32]) {
        let Self { lr, momentum, nesterov, weight_decay } = *self;
        let values = out.iter_mut().zip(velocity).zip(weight.iter().zip(gradient));
        for ((out, v), (w, g)) in values {
            let d = w * weight_decay + g;
            *v = if first { d } else { d + *v * momentum };
            let step = if nesterov { *v * momentum + d } else { *v };
            *out = w - step * lr;
        }
    }
}

/// `to += from`
#[cfg(feature = "burn")]
pub(crate) fn add_to(to: &mut [f32], from: &[f32]) {
    let add = |(to, from): (&mut [f32], &[f32])| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(add);
}

/// The weighted average `(1 - weight) · a + weight · b`.
///
/// # Panics
/// If lengths differ.
pub fn average(a: &[f32], b: &[f32], weight: f64) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "the averaged slices must have the same length");
    let (old, new) = ((1.0 - weight) as f32, weight as f32);
    a.iter().zip(b).map(|(a, b)| a * old + b * new).collect()
}
