use burn::{
    optim::{self, LearningRate, RecordState, StateSink, StateSource},
    tensor::{Device, Tensor},
};

/// Adadelta (Zeiler 2012, algorithm 1), as in PyTorch. Burn has no such optimizer.
#[derive(Clone, Debug)]
pub(super) struct Adadelta {
    pub(super) rho: f64,
    pub(super) eps: f64,
    pub(super) weight_decay: f64,
}

/// The averages of the squared gradients and of the squared updates.
#[derive(Clone)]
pub(super) struct AdadeltaState<const D: usize> {
    square_avg: Tensor<D>,
    acc_delta: Tensor<D>,
}

impl<const D: usize> RecordState for AdadeltaState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "square_avg", self.square_avg.clone().into_data());
        out.push_tensor(prefix, "acc_delta", self.acc_delta.clone().into_data());
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let mut take = |leaf| Some(Tensor::from_data(src.take_tensor(prefix, leaf)?, device));
        Some(Self { square_avg: take("square_avg")?, acc_delta: take("acc_delta")? })
    }
}

impl optim::Optimizer for Adadelta {
    type State<const D: usize> = AdadeltaState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdadeltaState<D>>,
    ) -> (Tensor<D>, Option<AdadeltaState<D>>) {
        let average = |old: Option<Tensor<D>>, square: Tensor<D>| {
            let new = square.mul_scalar(1.0 - self.rho);
            old.map_or(new.clone(), |old| old.mul_scalar(self.rho) + new)
        };
        let gradient =
            if self.weight_decay == 0.0 { gradient } else { weight.clone().mul_scalar(self.weight_decay) + gradient };
        let (square_avg, acc_delta) = state.map(|state| (state.square_avg, state.acc_delta)).unzip();
        let square_avg = average(square_avg, gradient.clone().square());
        let scale = match &acc_delta {
            Some(acc_delta) => acc_delta.clone().add_scalar(self.eps).sqrt(),
            None => square_avg.zeros_like().add_scalar(self.eps).sqrt(),
        };
        let delta = scale / square_avg.clone().add_scalar(self.eps).sqrt() * gradient;
        let acc_delta = average(acc_delta, delta.clone().square());
        (weight - delta.mul_scalar(lr), Some(AdadeltaState { square_avg, acc_delta }))
    }

    fn to_device<const D: usize>(state: AdadeltaState<D>, device: &Device) -> AdadeltaState<D> {
        AdadeltaState { square_avg: state.square_avg.to_device(device), acc_delta: state.acc_delta.to_device(device) }
    }
}
