use super::*;
use crate::TrainConfig;
use residual_data::DataName;

#[test]
fn optimizers_round_trip_through_json_and_unknown_fields_are_rejected() {
    for &kind in OptimizerKind::ALL {
        let optimizer = Optimizer { clip: Some(1.0), rates: vec![(Part::Head, 2.0)], ..Optimizer::new(kind) };
        let json = serde_json::to_string(&optimizer).unwrap();
        assert!(json.starts_with(&format!("{{\"name\":\"{kind}\"")), "{json}");
        assert_eq!(serde_json::from_str::<Optimizer>(&json).unwrap(), optimizer);
        let typo = json.replace("\"weight_decay\"", "\"decay\"");
        assert!(serde_json::from_str::<Optimizer>(&typo).unwrap_err().to_string().contains("decay"));
        let other = json.replace("\"clip\"", "\"clips\"");
        assert!(serde_json::from_str::<Optimizer>(&other).unwrap_err().to_string().contains("clips"), "{json}");
    }
    let unnamed = r#"{"momentum": 0.8, "weight_decay": 0.1, "decay_all": false, "rates": []}"#;
    let sgd = Algorithm::Sgd { momentum: 0.8, nesterov: false };
    let expected = Optimizer { weight_decay: 0.1, decay_all: false, ..sgd.into() };
    assert_eq!(serde_json::from_str::<Optimizer>(unnamed).unwrap(), expected);
}

#[test]
fn names_match_their_json_and_unknown_names_are_rejected() {
    for &kind in OptimizerKind::ALL {
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        assert_eq!(kind.to_string().parse::<OptimizerKind>().unwrap(), kind);
        assert_eq!(OptimizerKind::from(&Algorithm::new(kind)), kind);
        Optimizer::new(kind).validate().unwrap();
    }
    assert_eq!(
        "adma".parse::<OptimizerKind>().unwrap_err().to_string(),
        "unknown optimizer `adma`; expected one of sgd, adam, adamw, rmsprop, adagrad, adadelta, adan, lion, lamb, muon"
    );
}

#[test]
fn settings_of_another_optimizer_are_refused() {
    let overrides = OptimizerOverrides { beta3: Some(0.5), ..OptimizerOverrides::default() };
    let error = Algorithm::new(OptimizerKind::Adam).with(&overrides).unwrap_err().to_string();
    assert_eq!(error, "beta3 is a setting of adan, but the optimizer is adam");
    let overrides = OptimizerOverrides { momentum: Some(0.5), ..OptimizerOverrides::default() };
    let error = Algorithm::new(OptimizerKind::Lion).with(&overrides).unwrap_err().to_string();
    assert_eq!(error, "momentum is a setting of sgd, rmsprop, muon, but the optimizer is lion");
    let rmsprop = Algorithm::new(OptimizerKind::RmsProp).with(&overrides).unwrap();
    assert_eq!(rmsprop, Algorithm::RmsProp { rho: 0.99, momentum: 0.5, eps: 1e-8, centered: false });
}

#[test]
fn settings_out_of_range_are_named() {
    let error = |overrides: &OptimizerOverrides, kind| {
        Algorithm::new(kind).with(overrides).unwrap().validate().unwrap_err().to_string()
    };
    let none = OptimizerOverrides::default;
    for beta in [1.0, -0.1, 0.999_999_999_99] {
        let overrides = OptimizerOverrides { beta2: Some(beta), ..none() };
        let expected = format!("beta2 must be at least 0 and below 1, not {beta}");
        assert_eq!(error(&overrides, OptimizerKind::AdamW), expected);
    }
    let nan = OptimizerOverrides { beta2: Some(f64::NAN), ..none() };
    let refused = Algorithm::new(OptimizerKind::AdamW).with(&nan).unwrap_err().to_string();
    assert_eq!(refused, "beta2 must be a finite number");
    let eps = |eps| error(&OptimizerOverrides { eps: Some(eps), ..none() }, OptimizerKind::Adagrad);
    assert_eq!(eps(0.0), "eps must be a positive number, not 0");
    // Zero as a 32-bit number.
    assert!(eps(1e-60).starts_with("eps must be a positive number"));
    let steps = OptimizerOverrides { ns_steps: Some(0), ..none() };
    assert_eq!(error(&steps, OptimizerKind::Muon), "ns-steps must be from 1 to 99, not 0");
}

#[test]
fn another_optimizer_starts_from_its_usual_settings() {
    let config = crate::Recipe::He2015Cifar
        .config("resnet110".parse().unwrap(), crate::DataConfig { dir: None, ..DataName::Cifar10.into() })
        .unwrap();
    let adam = config.clone().with_optimizer(OptimizerKind::Adam);
    assert_eq!((adam.schedule.lr, &adam.optimizer), (1e-3, &Optimizer::new(OptimizerKind::Adam)));
    // The recipe warms up at a tenth of the peak.
    assert_eq!(adam.schedule.warmup, crate::Warmup::UntilError { lr: 0.01 * 1e-3 / 0.1, threshold: 0.8 });
    let same = config.clone().with_optimizer(OptimizerKind::Sgd);
    assert_eq!((same.schedule, same.optimizer), (config.schedule, config.optimizer));
}

/// The names of the tensors of the optimizer's state after a step, without the parameters they belong to.
fn state(optimizer: Optimizer) -> Vec<String> {
    use burn::{optim::GradientsParams, tensor::Tensor};
    let device = crate::Device::flex().autodiff();
    let config = TrainConfig::new("dense-resnet4".parse().unwrap(), DataName::Synthetic).unwrap();
    let network = crate::ids::assign_by_path(config.init(&device));
    let loss = network.forward_training(Tensor::ones([3, 1, 8, 8], &device), 0, 0).sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &network);
    let mut built = optimizer.init(&network);
    built.step(0.1, network, gradients);
    let bytes = built.into_bytes().unwrap();
    let tensors = burn_pack::Reader::from_bytes(bytes).unwrap().into_tensors().unwrap();
    tensors.into_iter().map(|tensor| tensor.name).collect()
}

#[test]
fn the_number_of_values_of_state_matches_burns() {
    let parameters = state(Optimizer::default()).len();
    for &kind in OptimizerKind::ALL {
        let algorithm = Algorithm::new(kind);
        if kind != OptimizerKind::Muon {
            let expected = parameters as u64 * algorithm.state_values();
            assert_eq!(state(algorithm.into()).len() as u64, expected, "{kind}");
        }
    }
    let centered = Algorithm::RmsProp { rho: 0.9, momentum: 0.9, eps: 1e-8, centered: true };
    assert_eq!(state(centered.clone().into()).len() as u64, parameters as u64 * centered.state_values());
    let amsgrad = Algorithm::Adam { beta1: 0.9, beta2: 0.9, eps: 1e-8, amsgrad: true };
    assert_eq!(state(amsgrad.clone().into()).len() as u64, parameters as u64 * amsgrad.state_values());
}

#[test]
fn muon_trains_the_weights_between_the_stem_and_the_head() {
    let names = state(Optimizer::new(OptimizerKind::Muon));
    let of = |part: &str| names.iter().filter(|name| name.contains(part)).count();
    // Two weights of one block. AdamW has two moments of the weights of the first and the last layer, the bias of the last,
    // and the scale and shift of three norms.
    assert_eq!((of("velocity"), of("moment_1"), of("moment_2"), names.len()), (2, 9, 9, 20), "{names:?}");
}
