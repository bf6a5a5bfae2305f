//! Initial weights.
//!
//! With a seed, initial weights are drawn on the host and are a pure function of (seed, parameter path). They are the
//! same on every backend, in any thread and in any order of creation. A plain network and its residual twin start with
//! the same weights, because they have the same parameter paths.
//!
//! Without a seed, the device's random generator draws the weights of a block or a stage, as it does for the layers of
//! `burn::nn`, so every module gets different weights. In both cases, the weights follow He's normal distribution.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use burn::{
    module::{Module, ModuleMapper, Param},
    nn::Initializer,
    tensor::{Tensor, TensorData},
};
use core::{f64::consts::SQRT_2, hash::Hasher};
use fnv::FnvHasher;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// The initial weights of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitConfig {
    /// The seed of all random numbers.
    pub seed: u64,
    /// Whether the last layer of each block's main path starts at zero: the γ of the last batch norm (Goyal et al.
    /// 2017, section 5.1), or the last weight if there is no norm (Zhang et al. 2019). A residual block then starts as
    /// `g(shortcut(a))`, and a plain block outputs 0.
    pub zero_init: bool,
}

/// He's normal distribution. The device's random generator draws a parameter when it is first read.
pub(crate) const HE_NORMAL: Initializer = Initializer::KaimingNormal { gain: SQRT_2, fan_out_only: false };

/// The random generator of one parameter: ChaCha8 with the key from the seed and the stream from the path.
///
/// The 64-bit FNV-1a hash of the path selects one of ChaCha's 2⁶⁴ independent streams.
pub fn parameter_rng(seed: u64, path: &str) -> ChaCha8Rng {
    let mut hasher = FnvHasher::default();
    hasher.write(path.as_bytes());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(hasher.finish());
    rng
}

/// Fills every parameter named `weight` from He's normal distribution, `N(0, 2 / fan_in)` (He et al. 2015, "Delving
/// Deep into Rectifiers", eq. 10). Biases and norms keep their values.
///
/// `fan_in` is the number of inputs to one output: `d_input` of a linear layer, `channels · kernel height · kernel
/// width` of a convolution. Parameters keep their ids. Linear layers must have Burn's default layout,
/// `LinearLayout::Row`.
///
/// ```
/// use burn::{nn::LinearConfig, tensor::Device};
/// use residual_model::init::he_normal;
///
/// let linear = || he_normal(LinearConfig::new(4, 2).init(&Device::flex()), 7);
/// linear().weight.val().into_data().assert_eq(&linear().weight.val().into_data(), true);
/// ```
pub fn he_normal<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut HeNormal { seed, path: Vec::new() })
}

/// Draws the weights with this seed, if there is one.
pub(crate) fn seeded<M: Module>(module: M, seed: Option<u64>) -> M {
    match seed {
        Some(seed) => he_normal(module, seed),
        None => module,
    }
}

/// The same as [`he_normal`], for a module that is the field `field` of its network.
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
        if self.path.last().is_none_or(|name| name != "weight") {
            return param;
        }
        let shape: [usize; D] = param.lazy_shape().dims();
        let values = normal(parameter_rng(self.seed, &self.path.join(".")), shape, he_std(&shape));
        fill(param, |device| Tensor::from_data(values, device))
    }
}

/// The standard deviation `√(2 / fan_in)` of a linear weight `[d_input, d_output]` or a convolution weight
/// `[out, in, kh, kw]`.
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

/// Replaces the value of a parameter without drawing its lazy initial value first. `value` is called with the
/// parameter's device.
fn fill<const D: usize>(
    param: Param<Tensor<D>>,
    value: impl FnOnce(&burn::tensor::Device) -> Tensor<D>,
) -> Param<Tensor<D>> {
    let (id, value) = (param.id, value(&param.lazy_device()));
    param.transform_for_load(value, id)
}

/// Sets all values of a parameter to zero.
pub(crate) fn zeroed<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
    let shape: [usize; D] = param.lazy_shape().dims();
    fill(param, |device| Tensor::zeros(shape, device))
}
