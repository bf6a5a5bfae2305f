//! Initial weights, drawn on the host.
//!
//! A parameter's values are a pure function of (seed, parameter path): the same network on every
//! backend, in any thread and in any order of creation, and the same for a plain net and its
//! residual twin, whose parameters have the same paths.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Tensor, TensorData},
};
use core::hash::Hasher;
use fnv::FnvHasher;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// How a network's weights start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitConfig {
    /// The seed of every draw.
    pub seed: u64,
    /// Whether the last layer of each block's main path starts at zero: the γ of its last batch
    /// norm (Goyal et al. 2017, section 5.1), or the last weight where there is no norm (Zhang et
    /// al. 2019). A residual block then starts as `g(shortcut(a))`, a plain one outputs 0.
    pub zero_init: bool,
}

/// A generator for one parameter: key from the seed, stream from the path.
///
/// The path's 64-bit FNV-1a hash picks one of ChaCha's 2⁶⁴ independent streams.
pub fn parameter_rng(seed: u64, path: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(path_hash(path));
    rng
}

fn path_hash(path: &str) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(path.as_bytes());
    hasher.finish()
}

/// Fills every parameter named `weight` from He's normal distribution, `N(0, 2 / fan_in)`
/// (He et al. 2015, "Delving Deep into Rectifiers", eq. 10), and leaves biases and norms alone.
///
/// `fan_in` is the number of inputs to one output: `d_input` of a linear layer, `channels · kernel
/// height · kernel width` of a convolution. Parameter ids become the hash of the path, so that
/// records of equal nets are equal.
pub fn he_normal<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut HeNormal { seed, path: Vec::new() })
}

/// As [`he_normal`], for a module that is a field of this name in its network.
pub(crate) fn he_normal_field<M: Module>(module: M, field: &str, seed: u64) -> M {
    module.map(&mut HeNormal { seed, path: [field.to_string()].into() })
}

struct HeNormal {
    seed: u64,
    path: Vec<String>,
}

impl ModuleMapper for HeNormal {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let (_, tensor, mapper) = param.consume();
        let id = ParamId::from(path_hash(&path));
        if self.path.last().is_none_or(|name| name != "weight") {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let shape: [usize; D] = tensor.dims();
        let values = normal(parameter_rng(self.seed, &path), shape, he_std(&shape));
        let drawn = Tensor::from_data(values, (&tensor.device(), tensor.dtype()));
        let drawn = if tensor.is_require_grad() { drawn.require_grad() } else { drawn };
        Param::from_mapped_value(id, drawn, mapper)
    }
}

/// `√(2 / fan_in)` for a linear weight `[d_input, d_output]` or a convolution `[out, in, kh, kw]`.
fn he_std(shape: &[usize]) -> f64 {
    let fan_in = match shape {
        [d_input, _] => *d_input,
        _ => shape[1..].iter().product(),
    };
    libm::sqrt(2.0 / fan_in as f64)
}

fn normal<const D: usize>(mut rng: ChaCha8Rng, shape: [usize; D], std: f64) -> TensorData {
    let draw = |_| -> f32 {
        let x: f64 = StandardNormal.sample(&mut rng);
        (x * std) as f32
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(draw).collect();
    TensorData::new(values, shape)
}

/// A parameter of the same shape, id and training state, all zero.
pub(crate) fn zeroed<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
    param.map(|t| {
        let zeros = Tensor::zeros(t.dims(), (&t.device(), t.dtype()));
        if t.is_require_grad() { zeros.require_grad() } else { zeros }
    })
}
