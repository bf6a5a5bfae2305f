use super::AdjustLr;
use burn::{
    optim::{
        self, AdjustLrFn, LearningRate, MuonConfig, MuonState, Optimizer, decay::WeightDecayConfig,
        momentum::MomentumConfig,
    },
    tensor::{Device, Tensor},
};

/// Burn's Muon, for the weights of dense layers and convolutions. Burn's takes only matrices, and expects one row per
/// output to adjust the learning rate, but Burn's dense layers store one column per output.
#[derive(Clone)]
pub(super) struct Muon {
    inner: optim::Muon,
}

impl Muon {
    pub(super) fn new(momentum: f64, nesterov: bool, ns_steps: usize, adjust_lr: AdjustLr, weight_decay: f64) -> Self {
        let momentum = MomentumConfig::new().with_momentum(momentum).with_dampening(0.0).with_nesterov(nesterov);
        let adjust = match adjust_lr {
            AdjustLr::Original => AdjustLrFn::Original,
            AdjustLr::MatchRmsAdamw => AdjustLrFn::MatchRmsAdamW,
        };
        let config = MuonConfig::new().with_momentum(momentum).with_ns_steps(ns_steps).with_adjust_lr_fn(adjust);
        Self { inner: config.with_weight_decay(Some(WeightDecayConfig::new(weight_decay as f32))).build() }
    }
}

impl Optimizer for Muon {
    type State<const D: usize> = MuonState<2>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<MuonState<2>>,
    ) -> (Tensor<D>, Option<MuonState<2>>) {
        let shape = weight.dims();
        let to_matrix = |tensor: Tensor<D>| match D {
            2 => tensor.reshape([shape[0] as i32, -1]).transpose(),
            _ => tensor.reshape([shape[0] as i32, -1]),
        };
        let (weight, state) = self.inner.step(lr, to_matrix(weight), to_matrix(gradient), state);
        let weight = if D == 2 { weight.transpose() } else { weight };
        (weight.reshape(shape), state)
    }

    fn to_device<const D: usize>(state: MuonState<2>, device: &Device) -> MuonState<2> {
        <optim::Muon as Optimizer>::to_device(state, device)
    }
}

/// An optimizer whose learning rate is multiplied by a factor.
#[derive(Clone)]
pub(super) struct Scaled<O> {
    pub(super) optimizer: O,
    pub(super) factor: f64,
}

impl<O: Optimizer> Optimizer for Scaled<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<O::State<D>>,
    ) -> (Tensor<D>, Option<O::State<D>>) {
        self.optimizer.step(self.factor * lr, weight, gradient, state)
    }

    fn to_device<const D: usize>(state: O::State<D>, device: &Device) -> O::State<D> {
        O::to_device(state, device)
    }
}
