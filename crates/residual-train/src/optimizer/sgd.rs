//! Stochastic gradient descent.

use burn::{
    optim::{self, LearningRate, RecordState, StateSink, StateSource},
    tensor::{DType, Device, Tensor},
};
use residual_kernels::bridge;

/// Stochastic gradient descent with the same results and the same state as Burn's `Sgd`. On a CPU, it updates a
/// parameter in one operation; Burn needs seven. On other devices, it uses Burn's operations.
#[derive(Clone, Debug)]
pub(super) struct Sgd {
    pub(super) momentum: f64,
    pub(super) nesterov: bool,
    pub(super) weight_decay: f64,
}

#[derive(Clone)]
pub(super) struct SgdState<const D: usize> {
    velocity: Tensor<D>,
}

/// The tensor names are those of Burn's `Sgd`.
impl<const D: usize> RecordState for SgdState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "momentum.velocity", self.velocity.clone().into_data());
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let velocity = src.take_tensor(prefix, "momentum.velocity")?;
        Some(Self { velocity: Tensor::from_data(velocity, device) })
    }
}

impl Sgd {
    /// Returns the new weight and velocity.
    fn update<const D: usize>(
        &self,
        lr: f64,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        velocity: Option<Tensor<D>>,
    ) -> (Tensor<D>, Tensor<D>) {
        let f32s = weight.dtype() == DType::F32 && gradient.dtype() == DType::F32;
        if f32s && bridge::runs_on(&weight.device()) {
            let sgd = residual_kernels::Sgd {
                lr: lr as f32,
                momentum: self.momentum as f32,
                nesterov: self.nesterov,
                weight_decay: self.weight_decay as f32,
            };
            return bridge::sgd(sgd, weight, gradient, velocity);
        }
        let d = weight.clone().mul_scalar(self.weight_decay) + gradient;
        let velocity = match velocity {
            Some(velocity) => d.clone() + velocity.mul_scalar(self.momentum),
            None => d.clone(),
        };
        let step = if self.nesterov { velocity.clone().mul_scalar(self.momentum) + d } else { velocity.clone() };
        (weight - step.mul_scalar(lr), velocity)
    }
}

impl optim::Optimizer for Sgd {
    type State<const D: usize> = SgdState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<SgdState<D>>,
    ) -> (Tensor<D>, Option<SgdState<D>>) {
        let (weight, velocity) = self.update(lr, tensor, grad, state.map(|state| state.velocity));
        (weight, Some(SgdState { velocity }))
    }

    fn to_device<const D: usize>(state: SgdState<D>, device: &Device) -> SgdState<D> {
        SgdState { velocity: state.velocity.to_device(device) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::{
        module::Module,
        nn::{Linear, LinearConfig},
        optim::{GradientsParams, ModuleOptimizer, SgdConfig, decay::WeightDecayConfig, momentum::MomentumConfig},
        tensor::{Distribution, TensorData, Tolerance},
    };
    use residual_backend::Backend;

    /// Burn's SGD with the same settings.
    fn burn_sgd(Sgd { momentum, nesterov, weight_decay }: &Sgd) -> ModuleOptimizer {
        let momentum = MomentumConfig::new().with_momentum(*momentum).with_dampening(0.0).with_nesterov(*nesterov);
        let decay = WeightDecayConfig::new(*weight_decay as f32);
        SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay)).init()
    }

    fn values(linear: &Linear) -> Vec<f32> {
        linear.weight.val().into_data().iter::<f32>().collect()
    }

    /// A step overwrites the gradient and the velocity, unless somebody else uses them.
    #[test]
    fn a_step_keeps_tensors_that_are_shared() {
        let backends = Backend::compiled().into_iter().filter(|backend| backend.uses_main_memory());
        let sgd = Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
        for backend in backends {
            let device = backend.open().unwrap();
            let weight = Tensor::<2>::zeros([2, 3], &device);
            let gradient = Tensor::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
            let (first, velocity) = sgd.update(1.0, weight.clone(), gradient.clone(), None);
            assert_eq!(velocity.to_data(), gradient.to_data());
            assert_eq!(first.to_data(), gradient.clone().neg().to_data());
            // The second gradient is not contiguous.
            let transposed = Tensor::<2>::from_data([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], &device).transpose();
            let (second, last) = sgd.update(1.0, first.clone(), transposed.clone(), Some(velocity.clone()));
            last.to_data().assert_approx_eq::<f32>(&gradient.clone().mul_scalar(1.9).to_data(), Tolerance::default());
            second
                .to_data()
                .assert_approx_eq::<f32>(&gradient.clone().mul_scalar(-2.9).to_data(), Tolerance::default());
            let kept = [&gradient, &transposed, &velocity, &first.neg()].map(Tensor::to_data);
            for values in kept {
                assert_eq!(values, TensorData::from([[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]]));
            }
            assert_eq!(weight.to_data(), TensorData::from([[0.0f32; 3]; 2]));
        }
    }

    #[test]
    fn results_and_state_match_burns_sgd() {
        let device = Device::flex().autodiff();
        // Large enough for several threads, and not contiguous.
        let [inputs, outputs] = [210, 170];
        let x = Tensor::<2>::random([8, inputs], Distribution::Normal(0.0, 1.0), &device);
        for nesterov in [false, true] {
            let sgd = Sgd { momentum: 0.9, nesterov, weight_decay: 1e-2 };
            let mut theirs = burn_sgd(&sgd);
            let mut own: ModuleOptimizer = sgd.into();
            let start = LinearConfig::new(inputs, outputs).init(&device);
            let (mut a, mut b) = (start.clone(), start);
            for step in 0..5 {
                let train = |linear: Linear, optimizer: &mut ModuleOptimizer| {
                    let loss = linear.forward(x.clone()).powi_scalar(2).mean();
                    let grads = GradientsParams::from_grads(loss.backward(), &linear);
                    optimizer.step(0.1, linear, grads)
                };
                (a, b) = (train(a, &mut own), train(b, &mut theirs));
                assert_eq!(values(&a), values(&b), "step {step}, nesterov {nesterov}");
                if step == 2 {
                    // This optimizer must be able to load the state of Burn's.
                    own = own.load_record(theirs.to_record());
                }
            }
            assert!(a.num_params() > 1 << 15);
        }
    }
}
