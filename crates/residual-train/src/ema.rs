use crate::{TrainConfig, gradients::weighted_sum};
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    store::ModuleRecord,
    tensor::Tensor,
};
use residual_model::Network;

/// An exponential moving average of a network's weights and running statistics: `e ← d · e + (1 - d) · w` after every
/// step, with `d = min(decay, (1 + t) / (10 + t))` at step t. Early steps have a small d, so the average quickly
/// forgets the initial weights.
pub(crate) struct Ema {
    network: Network,
    decay: f64,
    step: usize,
}

impl Ema {
    /// Starts the average at the weights of the network.
    pub(crate) fn new(config: &TrainConfig, network: &Network, decay: f64) -> Self {
        let average = config.init(&network.devices()[0].clone().inner());
        let mut ema = Self { network: average, decay, step: 0 };
        ema.lerp(&network.valid(), 0.0);
        ema
    }

    /// Updates the average with the weights after a step.
    pub(crate) fn update(&mut self, network: &Network) {
        let t = self.step as f64;
        self.step += 1;
        self.lerp(network, self.decay.min((1.0 + t) / (10.0 + t)));
    }

    /// `e ← d · e + (1 - d) · w`, with the decay d.
    fn lerp(&mut self, network: &Network, decay: f64) {
        let mut tensors = TensorCollector(Vec::new());
        network.visit(&mut tensors);
        let mut lerp = Lerp { other: tensors.0.into_iter(), decay };
        self.network = self.network.clone().map(&mut lerp);
    }

    /// The network with the averaged weights.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn into_network(self) -> Network {
        self.network
    }

    /// Restores the average from the record written after `step` steps.
    pub(crate) fn restore(&mut self, record: ModuleRecord, step: usize) {
        self.network = self.network.clone().load_record(record);
        self.step = step;
    }
}

/// Collects all tensors of a module, flattened, in the module's order.
struct TensorCollector(Vec<Tensor<1>>);

impl ModuleVisitor for TensorCollector {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().without_autodiff().flatten(0, D - 1));
    }
}

/// Interpolates between the tensors of two modules.
struct Lerp {
    other: std::vec::IntoIter<Tensor<1>>,
    decay: f64,
}

impl ModuleMapper for Lerp {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let other = self.other.next().expect("both networks have the same parameters");
        param.map(|value| {
            let other = other.reshape(value.dims());
            weighted_sum(value, other, [self.decay, 1.0 - self.decay], 1.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use residual_data::DataName;
    use residual_model::parameters::for_each_parameter;

    fn values(network: &Network) -> Vec<f32> {
        let mut values = Vec::new();
        for_each_parameter(network, |parameter| values.extend(parameter.data().iter::<f32>()));
        values
    }

    #[test]
    fn updates_follow_the_formula() {
        let config = TrainConfig::new("resnet8".parse().unwrap(), DataName::Synthetic).unwrap();
        let networks = [0, 1, 2].map(|seed| config.clone().with_seed(seed).init(&Device::flex().autodiff()));
        let mut ema = Ema::new(&config, &networks[0], 0.15);
        assert_eq!(values(ema.network()), values(&networks[0].valid()));
        ema.update(&networks[1].valid());
        ema.update(&networks[2].valid());
        // The decays are min(0.15, 1/10) and min(0.15, 2/11).
        let [a, b, c] = networks.map(|network| values(&network.valid()));
        let expected = (0..a.len()).map(|i| 0.15 * (0.1 * a[i] + 0.9 * b[i]) + 0.85 * c[i]);
        let differs = values(ema.network()).iter().zip(expected).any(|(x, y)| (x - y).abs() > 1e-6);
        assert!(!differs);
    }
}
