//! The updates after the forward and backward passes of a training step: weighted sums and the SGD step.

use crate::parallel::for_each;

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
    /// Performs one step: the new weight overwrites the gradient, and the new velocity overwrites the old one. If `first` is
    /// true, the old velocity is not read.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn step(&self, weight: &[f32], gradient: &mut [f32], velocity: &mut [f32], first: bool) {
        let len = weight.len();
        assert_eq!(
            [gradient.len(), velocity.len()],
            [len; 2],
            "the gradient and the velocity must have the length of the weight"
        );
        let chunks = weight.chunks(CHUNK).zip(gradient.chunks_mut(CHUNK).zip(velocity.chunks_mut(CHUNK)));
        for_each(chunks, len <= CHUNK, |(weight, (gradient, velocity))| {
            self.step_chunk(weight, gradient, velocity, first);
        });
    }

    fn step_chunk(&self, weight: &[f32], gradient: &mut [f32], velocity: &mut [f32], first: bool) {
        let Self { lr, momentum, nesterov, weight_decay } = *self;
        for (w, (g, v)) in weight.iter().zip(gradient.iter_mut().zip(velocity)) {
            let d = w * weight_decay + *g;
            *v = if first { d } else { d + *v * momentum };
            let step = if nesterov { *v * momentum + d } else { *v };
            *g = w - step * lr;
        }
    }
}

/// `to += from`
#[cfg(feature = "burn")]
pub(crate) fn add_to(to: &mut [f32], from: &[f32]) {
    let add = |(to, from): (&mut [f32], &[f32])| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    for_each(to.chunks_mut(CHUNK).zip(from.chunks(CHUNK)), from.len() <= CHUNK, add);
}

/// The weighted sum of two slices, divided by a number: `(weights[0] · a + weights[1] · b) / divisor`.
///
/// # Panics
/// If lengths differ.
pub fn weighted_sum(a: &[f32], b: &[f32], weights: [f32; 2], divisor: f32) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "the slices of a weighted sum must have the same length");
    let mut sum = vec![0.0; a.len()];
    let add = |(sum, (a, b)): (&mut [f32], (&[f32], &[f32]))| {
        for (sum, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
            *sum = (a * weights[0] + b * weights[1]) / divisor;
        }
    };
    let terms = a.chunks(CHUNK).zip(b.chunks(CHUNK));
    for_each(sum.chunks_mut(CHUNK).zip(terms), a.len() <= CHUNK, add);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighted_sums_of_any_length_follow_the_formula() {
        for len in [0, 1, CHUNK, 2 * CHUNK + 3] {
            let a: Vec<f32> = (0..len).map(|i| (i % 1000) as f32).collect();
            let b: Vec<f32> = (0..len).map(|i| 1.0 - (i % 777) as f32).collect();
            let sum = weighted_sum(&a, &b, [3.0, -2.0], 4.0);
            assert_eq!(sum, a.iter().zip(&b).map(|(a, b)| (3.0 * a - 2.0 * b) / 4.0).collect::<Vec<_>>());
        }
    }
}
