//! Sums of tensors that a training step takes beside its network: running averages and the optimizer's step.

use rayon::prelude::*;

/// Stochastic gradient descent: `d = g + weight_decay · w`, `v ← momentum · v + d`, `w ← w - lr · v`, or with Nesterov's
/// momentum `w ← w - lr · (momentum · v + d)`. The first step takes `v = d`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub lr: f32,
    /// The momentum.
    pub momentum: f32,
    /// Whether it is Nesterov's (Sutskever et al. 2013).
    pub nesterov: bool,
    /// The weight decay.
    pub weight_decay: f32,
}

/// Numbers that a thread works on at a time.
const CHUNK: usize = 1 << 15;

impl Sgd {
    /// Writes the new weight and velocity from the old ones and the gradient; the velocity is overwritten, and read
    /// unless this is the first step.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn step(&self, weight: &[f32], gradient: &[f32], velocity: &mut [f32], first: bool, out: &mut [f32]) {
        let len = weight.len();
        assert_eq!([gradient.len(), velocity.len(), out.len()], [len; 3], "the length of a parameter");
        if len <= CHUNK {
            return self.step_chunk(weight, gradient, velocity, first, out);
        }
        let old = weight.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK));
        let new = velocity.par_chunks_mut(CHUNK).zip(out.par_chunks_mut(CHUNK));
        old.zip(new).for_each(|((w, g), (v, out))| self.step_chunk(w, g, v, first, out));
    }

    fn step_chunk(&self, weight: &[f32], gradient: &[f32], velocity: &mut [f32], first: bool, out: &mut [f32]) {
        let Self { lr, momentum, nesterov, weight_decay } = *self;
        let numbers = out.iter_mut().zip(velocity).zip(weight.iter().zip(gradient));
        for ((out, v), (w, g)) in numbers {
            let d = w * weight_decay + g;
            *v = if first { d } else { d + *v * momentum };
            let step = if nesterov { *v * momentum + d } else { *v };
            *out = w - step * lr;
        }
    }
}

/// `to += from`
pub(crate) fn add_to(to: &mut [f32], from: &[f32]) {
    let add = |(to, from): (&mut [f32], &[f32])| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(add);
}

/// `(1 - weight) · a + weight · b`, in a new vector.
///
/// # Panics
/// If lengths differ.
pub fn average(a: &[f32], b: &[f32], weight: f64) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "the lengths of what is averaged");
    let (old, new) = ((1.0 - weight) as f32, weight as f32);
    a.iter().zip(b).map(|(a, b)| a * old + b * new).collect()
}
