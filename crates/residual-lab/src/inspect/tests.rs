//! Tests of each measurement on cases with known answers.

use super::{
    activations, alpha, gradients, landscape, lesion, paths, shattered,
    subject::{cross_entropies, values},
    *,
};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use residual_backend::Backend;
use residual_data::{Batch, DataName};
use residual_model::{BlockOptions, InitConfig, Network, Norm};
use residual_train::{Device, StopFlag, TrainConfig};

fn device() -> Device {
    Backend::Flex.probe().unwrap().device
}

fn config(net: &str, change: impl Fn(BlockOptions) -> BlockOptions) -> TrainConfig {
    let config = TrainConfig::new(net.parse().unwrap(), DataName::Synthetic).unwrap();
    let blocks = change(config.network.blocks);
    let network = config.network.clone().with_blocks(blocks);
    config.with_network(network)
}

fn subject(net: &str) -> Subject {
    Subject::fresh(config(net, |blocks| blocks), &device()).unwrap()
}

fn quiet(_: usize, _: usize) {}

/// A network in which the last layer of every main path is zero.
fn with_dead_blocks(net: &str) -> TrainConfig {
    let config = config(net, |blocks| blocks);
    let init = InitConfig { zero_init: true, ..config.network.init };
    let network = config.network.clone().with_init(init);
    config.with_network(network)
}

type Matrix = Vec<Vec<f64>>;

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().map(|row| (0..b[0].len()).map(|j| row.iter().zip(b).map(|(x, r)| x * r[j]).sum()).collect()).collect()
}

fn transposed(a: &Matrix) -> Matrix {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

fn matrix(data: &TensorData) -> Matrix {
    let values: Vec<f64> = data.iter::<f64>().collect();
    values.chunks(data.shape()[1]).map(<[f64]>::to_vec).collect()
}

/// With positive inputs and weights, every ReLU is the identity: `logits = x W₁ W₂ W₃ W₄`, and the gradient of each
/// weight is a product of matrices.
#[test]
fn gradients_of_a_linear_network_are_products_of_matrices() {
    struct Positive;
    impl ModuleMapper for Positive {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.inner().abs().mul_scalar(0.1)).map(|t| Tensor::from_inner(t).require_grad())
        }
    }
    let config = config("dense-plain4", |blocks| BlockOptions { norm: Norm::None, ..blocks });
    let device = device().autodiff();
    let network = config.network.clone().with_width(6).init(&device).map(&mut Positive);
    let [samples, features, classes] = [5, config.data.describe().unwrap().shape.iter().product::<usize>(), 4];
    let shape = config.data.describe().unwrap().shape;
    let pixels: Vec<f32> = (0..samples * features).map(|i| 0.1 + (i * 7 % 11) as f32 / 11.0).collect();
    let labels: Vec<usize> = (0..samples).map(|i| i % classes).collect();
    let batch = Batch {
        images: Tensor::from_data(TensorData::new(pixels.clone(), [samples, shape[0], shape[1], shape[2]]), &device),
        labels: Tensor::from_data(TensorData::new(labels.iter().map(|&l| l as i32).collect(), [samples]), &device),
        targets: None,
        number: 0,
    };
    let mut weights = Vec::new();
    residual_model::parameters::for_each_parameter(&network, |parameter| {
        if parameter.path.ends_with(".weight") {
            weights.push(matrix(&parameter.data()));
        }
    });
    assert_eq!(weights.len(), 4);
    let mut inputs: Vec<Matrix> =
        vec![pixels.chunks(features).map(|r| r.iter().map(|&x| f64::from(x)).collect()).collect()];
    for weight in &weights {
        inputs.push(product(&inputs[inputs.len() - 1], weight));
    }
    // ∂L/∂logits = (softmax - one-hot) / samples
    let mut delta: Matrix = inputs[4]
        .iter()
        .zip(&labels)
        .map(|(scores, &label)| {
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
            let p = scores.iter().map(|s| (s - most).exp() / sum);
            p.enumerate().map(|(c, p)| (p - f64::from(u8::from(c == label))) / samples as f64).collect()
        })
        .collect();
    let mut expected = Vec::new();
    for layer in (0..4).rev() {
        let gradient = product(&transposed(&inputs[layer]), &delta);
        expected.push(gradient.iter().flatten().map(|g| g * g).sum::<f64>().sqrt());
        delta = product(&delta, &transposed(&weights[layer]));
    }
    expected.reverse();
    let found = gradients::by_layer(&network, &batch);
    assert_eq!(found.len(), 4);
    for ((_, found), expected) in found.iter().zip(&expected) {
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    }
    let (layers, norms): (Vec<String>, Vec<f64>) = found.into_iter().unzip();
    let state = GradientState::Trained;
    let norms = vec![LayerGradients { network: 0, state, norms }];
    let gradients = Gradients { images: samples, inits: 0, layers: vec![layers], norms };
    assert_eq!(gradients.block_layers(0), ["blocks.0.linear1", "blocks.0.linear2"]);
    assert_eq!(gradients.block_norms(&gradients.norms[0]), gradients.norms[0].norms[1..3]);
}

/// Compares with gradient descent, computed step by step on the first batches of the first epoch.
#[test]
fn training_steps_match_gradient_descent() {
    let device = device().autodiff();
    let mut config = config("dense-resnet4", |blocks| BlockOptions { norm: Norm::None, ..blocks });
    config.optimizer = residual_train::Algorithm::Sgd { momentum: 0.0, nesterov: false }.into();
    config.optimizer.weight_decay = 0.0;
    config.schedule = residual_train::Schedule { decay: residual_train::Decay::Constant, ..config.schedule };
    let subject = Subject::fresh(config, &device).unwrap();
    let loader = residual_data::Loader::new(subject.dataset.train.clone(), subject.config.batch_size, &device)
        .with_order(residual_data::Order::Shuffled { seed: subject.config.seed });
    let batches: Vec<Batch> = loader.batches().map(Result::unwrap).collect();
    assert!(batches.len() > 2);
    let mut network = subject.config.init(&device).train();
    for (i, batch) in batches.iter().take(3).enumerate() {
        let found = gradients::after(&subject, i, &StopFlag::default()).unwrap();
        close(
            &values(found.forward(batch.images.clone().inner())),
            &values(network.forward(batch.images.clone()).inner()),
        );
        let loss = cross_entropies(network.forward(batch.images.clone()), batch.labels.clone()).mean();
        let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &network);
        let mut sgd = burn::optim::SgdConfig::new().init();
        network = sgd.step(subject.config.schedule.lr, network, gradients);
    }
}

#[test]
fn growth_is_the_factor_of_a_geometric_sequence() {
    let norms: Vec<f64> = (0..9).map(|layer| 3.0 * 1.25f64.powi(-layer)).collect();
    assert!((gradients::growth(&norms) - 1.25).abs() < 1e-12);
}

/// The factor is `π/(π-1)` for wide layers and large batches (Yang et al. 2019).
#[test]
fn the_covariance_of_dense_gradients_grows_by_the_published_factor() {
    let config = TrainConfig::new("dense-plain32".parse().unwrap(), DataName::Digits).unwrap();
    let network = config.network.clone().with_width(192);
    let subject = Subject::fresh(config.with_network(network), &device()).unwrap();
    let device = device().autodiff();
    let batch = subject.training_images(512, &device).unwrap();
    let factors: Vec<f64> = (0..3)
        .map(|seed| {
            let network = subject.config.clone().with_seed(seed).init(&device).train();
            let layers = gradients::by_layer(&network, &batch).into_iter();
            let blocks: Vec<f64> =
                layers.filter(|(path, _)| path.contains("main_path")).map(|(_, norm)| norm).collect();
            gradients::growth(&blocks).powi(2)
        })
        .collect();
    let theory = std::f64::consts::PI / (std::f64::consts::PI - 1.0);
    let mean = crate::Spread::of(&factors).mean;
    assert!((mean / theory - 1.0).abs() < 0.1, "{factors:?} against {theory}");
}

#[test]
fn removing_a_block_that_adds_zero_changes_nothing() {
    let device = device();
    let subject = Subject::fresh(with_dead_blocks("resnet20"), &device).unwrap();
    let batch = subject.test_images(64, &device).unwrap();
    let network = subject.initial(&batch.images);
    for block in activations::by_block(&network, &batch.images) {
        assert_eq!(block.ratio, 0.0);
        assert_eq!(block.responses[1], 0.0);
        assert!(block.output > 0.0);
    }
    let three = InspectConfig { draws: 3, ..InspectConfig::default() };
    let found = lesion::errors(&network, batch.clone(), &three, 0, &quiet).unwrap();
    assert_eq!(found.without_block.len(), 9);
    assert!(found.without_block.iter().all(|without| without.error == found.intact));
    assert!(found.removed.iter().flatten().all(|error| *error == found.intact));

    let alive = Subject::fresh(config("resnet20", |blocks| blocks), &device).unwrap();
    let network = alive.initial(&batch.images);
    let ratios: Vec<f64> = activations::by_block(&network, &batch.images).iter().map(|block| block.ratio).collect();
    assert!(ratios.iter().all(|&ratio| ratio > 0.1), "{ratios:?}");
}

/// Compares with networks assembled block by block.
#[test]
fn a_removed_block_leaves_only_its_shortcut() {
    let device = device();
    for (net, change) in [
        ("resnet20", (|blocks| BlockOptions { skip_strength: 0.5, ..blocks }) as fn(BlockOptions) -> BlockOptions),
        ("plain20", |blocks| blocks),
        ("dense-resnet8", |blocks| blocks),
        ("dense-plain8", |blocks| blocks),
        ("resnet20", |blocks| BlockOptions { last_survival: 0.5, ..blocks }),
    ] {
        let subject = Subject::fresh(config(net, change), &device).unwrap();
        let alpha = subject.config.network.blocks.skip_strength;
        let batch = subject.test_images(64, &device).unwrap();
        let network = subject.initial(&batch.images);
        let blocks = network.blocks();
        let labels: Vec<f64> = values(batch.labels.clone().float());
        let error = |a: Tensor<4>| {
            let best = values(network.head(a).argmax(1).float());
            best.iter().zip(&labels).filter(|(best, label)| best != label).count() as f64 / labels.len() as f64
        };
        // A bypassed block that keeps the shape returns its input times α, as the input is nonnegative after a ReLU.
        let bypass = |i: usize, a: Tensor<4>| {
            let whole = blocks[i].forward(a.clone());
            let left = blocks[i].bypass(a.clone());
            if a.dims() == whole.dims() {
                close(&values(left.clone()), &values(a.mul_scalar(if net.contains("plain") { 1.0 } else { alpha })));
            }
            left
        };
        let config = InspectConfig { draws: 2, ..InspectConfig::default() };
        let found = lesion::errors(&network, batch.clone(), &config, 0, &quiet).unwrap();
        let run = |gone: &dyn Fn(usize) -> bool| {
            let stem = network.stem(batch.images.clone());
            (0..blocks.len()).fold(stem, |a, i| if gone(i) { bypass(i, a) } else { blocks[i].forward(a) })
        };
        assert_eq!(found.intact, error(run(&|_| false)));
        for (gone, without) in found.without_block.iter().enumerate() {
            assert_eq!(without.error, error(run(&|i| i == gone)), "{net} without {gone}");
        }
        // There is only one way to remove all blocks.
        let none = error(run(&|_| true));
        assert_eq!(found.removed[blocks.len() - 1], [none; 2]);
        assert!(!found.swapped.is_empty());
        assert!(found.without_block.iter().any(|without| without.error != found.intact), "{net}");
    }
}

/// Stem, blocks and head make up the network, and joined branches make up a block.
#[test]
fn the_parts_of_a_network_compute_the_whole() {
    let device = device();
    for net in ["resnet20", "plain20", "dense-plain8", "dense-resnet8", "preact_resnet20", "preact_plain20"] {
        let subject = subject(net);
        let images = subject.test_images(16, &device).unwrap().images;
        let network = subject.initial(&images);
        let whole = values(network.forward(images.clone()));
        let blocks = network.blocks();
        assert_eq!(blocks.len(), subject.config.network.block_count());
        let a = blocks.iter().fold(network.stem(images.clone()), |a, block| {
            let joined = block.join(block.branches(a.clone()));
            let whole = block.forward(a.clone());
            assert_eq!(block.bypass(a.clone()).dims(), whole.dims(), "{net} {}", block.name);
            assert_eq!(block.responses(a).last().unwrap().dims(), whole.dims());
            close(&values(joined.clone()), &values(whole));
            joined
        });
        close(&values(network.head(a)), &whole);
    }
}

fn close(a: &[f64], b: &[f64]) {
    let scale = b.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * scale), "{a:?} {b:?}");
}

/// Inference after calibration computes the same as the forward pass of a training step.
#[test]
fn inference_after_calibration_matches_training() {
    let device = device();
    for net in ["plain20", "resnet20", "dense-resnet8"] {
        let subject = subject(net);
        let images = subject.test_images(32, &device).unwrap().images;
        let fresh = subject.config.init(&device.clone().autodiff());
        let before = values(fresh.valid().forward(images.clone()));
        let calibrated = fresh.calibrated(images.clone());
        // The original network is unchanged.
        assert_eq!(before, values(fresh.valid().forward(images.clone())));
        let training = values(fresh.clone().train().forward(Tensor::from_inner(images.clone())).inner());
        close(&values(calibrated.forward(images.clone())), &training);
    }
}

/// If the main path is zero, a block with an identity shortcut is `g(α a)`, so predictions do not depend on α > 0.
#[test]
fn predictions_of_pure_shortcuts_do_not_depend_on_alpha() {
    let config = with_dead_blocks("dense-resnet8");
    let mut config = TrainConfig { epochs: 1, ..config };
    config.schedule.lr = 1e-12;
    config.optimizer.weight_decay = 0.0;
    let subject = Subject::fresh(config, &device()).unwrap();
    let error = |alpha| alpha::errors(&subject, alpha, 0, &StopFlag::default()).unwrap().0;
    let whole = error(1.0);
    assert_eq!([error(0.25), error(0.5)], [whole; 2]);
    // At α = 0 the head sees zeros, and its equal biases choose the first class.
    let classes = subject.dataset.classes() as f64;
    assert!((error(0.0) - (1.0 - 1.0 / classes)).abs() < 0.05, "{}", error(0.0));
}

/// `½ ‖w‖²` is a quadratic along any direction.
#[test]
fn the_landscape_of_a_quadratic_is_a_paraboloid() {
    let device = device();
    let subject = subject("dense-resnet4");
    let images = subject.training_images(8, &device).unwrap().images;
    let network = subject.initial(&images);
    let weights = |network: &Network| {
        let mut all = Vec::new();
        residual_model::parameters::for_each_parameter(network, |parameter| {
            if parameter.path.ends_with(".weight") {
                all.extend(parameter.data().iter::<f64>());
            }
        });
        all
    };
    let quadratic = |network: &Network| weights(network).iter().map(|w| w * w / 2.0).sum::<f64>();
    let plane = landscape::Plane::new(network.clone(), 7);
    let found = landscape::scan(&plane, 5, &InspectConfig::default(), &quiet, quadratic).unwrap();
    let w = weights(&network);
    let difference = |x, y| -> Vec<f64> { weights(&plane.at(x, y)).iter().zip(&w).map(|(a, b)| a - b).collect() };
    let (first, second) = (difference(1.0, 0.0), difference(0.0, 1.0));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (k, found) in found.iter().enumerate() {
        let (x, y) = (landscape::offset(k % 5, 5), landscape::offset(k / 5, 5));
        let expected = (dot(&w, &w) + x * x * dot(&first, &first) + y * y * dot(&second, &second)) / 2.0
            + x * dot(&w, &first)
            + y * dot(&w, &second)
            + x * y * dot(&first, &second);
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    }
    // Filter normalisation gives each filter's direction the norm of the filter, so the directions have the weights'
    // norm.
    assert!((dot(&first, &first) / dot(&w, &w) - 1.0).abs() < 1e-4);
    assert!(first != second);
}

/// Gradients pass through a block with a zero main path only by its shortcut.
#[test]
fn without_main_paths_the_gradient_takes_the_shortest_path() {
    let device = device();
    let subject = Subject::fresh(with_dead_blocks("dense-resnet8"), &device).unwrap();
    let images = subject.training_images(16, &device).unwrap().images;
    let network = subject.initial(&images).train().freeze();
    let batch = subject.training_images(16, &device.clone().autodiff()).unwrap();
    let along = |through: [bool; 3]| paths::gradient_along(&network, &batch, &through);
    assert!(along([false; 3]) > 0.0);
    assert_eq!([along([true, false, false]), along([false, true, true]), along([true; 3])], [0.0; 3]);
    let shares = paths::shares(3, &[(0, 2.0), (1, 0.0), (2, 0.0), (3, 0.0)]);
    assert_eq!(paths::effective_length(&shares), (0.0, 0, 0));
}

/// Without shortcuts, zero main paths block the gradient, and all scores are equal.
#[test]
fn a_network_without_gradients_has_no_shares_and_no_correlation() {
    let dead = with_dead_blocks("dense-resnet8");
    let blocks = BlockOptions { skip_strength: 0.0, ..dead.network.blocks };
    let network = dead.network.clone().with_blocks(blocks);
    let subject = Subject::fresh(dead.with_network(network), &device()).unwrap();
    let config = InspectConfig { samples: 16, draws: 2, ..InspectConfig::default() };
    let subjects = std::slice::from_ref(&subject);
    let paths = paths::measure(subjects, &config, &quiet).unwrap();
    assert!(paths.networks[0].norms.iter().flatten().all(|norm| *norm == 0.0));
    assert!(paths.networks[0].effective_length().0.is_nan());
    let shattered = shattered::measure(subjects, &config, &quiet).unwrap();
    assert!(shattered.autocorrelations(0).is_empty());
}

/// If all paths carry the same gradient, the shares are binomial.
#[test]
fn shares_of_equal_paths_are_binomial() {
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    let all: Vec<(usize, f64)> = (0..=4).map(|k| (k, 0.3)).collect();
    assert!(close(&paths::shares(4, &all), &[1.0, 4.0, 6.0, 4.0, 1.0].map(|c| c / 16.0)));
    // Norms are interpolated between measured lengths.
    assert!(close(&paths::shares(4, &[(0, 0.3), (4, 0.3)]), &[1.0, 4.0, 6.0, 4.0, 1.0].map(|c| c / 16.0)));
    // If each block multiplies the gradient by 0.2, the shares are binomial with probability 0.2 / 1.2.
    let found = paths::shares(6, &[(0, 3.0), (3, 3.0 * 0.2f64.powi(3)), (6, 3.0 * 0.2f64.powi(6))]);
    let binomial = [1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0];
    let expected: Vec<f64> = (0..7).map(|k| binomial[k] * 0.2f64.powi(k as i32) / 1.2f64.powi(6)).collect();
    assert!(close(&found, &expected), "{found:?} {expected:?}");
    let (mean, from, to) = paths::effective_length(&paths::shares(100, &[(0, 1.0), (100, 1.0)]));
    assert!((mean - 50.0).abs() < 1e-9 && from == 40 && to == 60, "{mean} {from} {to}");
}

#[test]
fn autocorrelation_of_known_sequences() {
    let wave: Vec<f64> = (0..4096).map(|i| (f64::from(i) * std::f64::consts::TAU / 16.0).cos()).collect();
    let found = shattered::autocorrelation(&wave, 16).unwrap();
    for (lag, r) in found.iter().enumerate() {
        let expected = (lag as f64 * std::f64::consts::TAU / 16.0).cos();
        assert!((r - expected).abs() < 0.01, "{lag}: {r} {expected}");
    }
    let alternating: Vec<f64> = (0..1000).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    assert!((shattered::autocorrelation(&alternating, 1).unwrap()[1] + 0.999).abs() < 1e-9);
    assert!(shattered::autocorrelation(&[2.0; 10], 3).is_none());
}

#[test]
fn measurements_round_trip_through_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let subjects = [subject("dense-plain4"), subject("dense-resnet4")];
    let hardware = Backend::Flex.probe().unwrap();
    let environment = Environment::here(Backend::Flex, &hardware);
    let config = InspectConfig {
        samples: 32,
        inits: 2,
        draws: 2,
        points: 3,
        seeds: 1,
        steps: vec![1, 2],
        jobs: 2,
        ..InspectConfig::default()
    };
    let measure = |measurement, subjects: &[Subject], config: &InspectConfig| {
        Inspection::measure(measurement, subjects, config, "command".into(), environment.clone(), &quiet)
    };
    for &measurement in Measurement::ALL.iter().filter(|&&measurement| measurement != Measurement::Lesion) {
        let measured = measure(measurement, &subjects, &config).unwrap();
        assert_eq!(measured.measurement(), measurement);
        measured.write(dir.path()).unwrap();
        assert_eq!(Inspection::read(dir.path(), measurement).unwrap(), measured);
        refuses_incomplete_files(&measured);
        // The values do not depend on the number of jobs.
        let one_job = InspectConfig { jobs: 1, ..config.clone() };
        assert_eq!(measure(measurement, &subjects, &one_job).unwrap(), measured);
    }
    assert_eq!(Inspection::read_all(dir.path()).unwrap().len(), Measurement::ALL.len() - 1);
    assert_eq!(
        Inspection::folders(dir.path().parent().unwrap()).unwrap().iter().filter(|f| **f == dir.path()).count(),
        1
    );
    let error = |measurement| measure(measurement, &subjects[..1], &config).unwrap_err().to_string();
    assert!(error(Measurement::Lesion).contains("needs a trained network"));
    assert!(error(Measurement::Paths).contains("dense-plain4 has a single path"));
    let error = "lesions".parse::<Measurement>().unwrap_err().to_string();
    assert!(error.starts_with("unknown measurement `lesions`; expected gradients, activations, lesion"), "{error}");
}

/// Cuts every list and raises every index in a measurement's file, one at a time. Reading either fails or gives a
/// measurement whose methods do not panic.
fn refuses_incomplete_files(measured: &Inspection) {
    fn places(json: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        match json {
            // The first element stands for all of them.
            serde_json::Value::Array(items) => {
                found.push(path.into());
                items.iter().take(1).for_each(|item| places(item, &format!("{path}/0"), found));
            }
            serde_json::Value::Object(items) => {
                items.iter().for_each(|(name, item)| places(item, &format!("{path}/{name}"), found));
            }
            serde_json::Value::Number(_) if path.ends_with("/network") => found.push(path.into()),
            _ => {}
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let json = serde_json::to_value(measured).unwrap();
    let mut found = Vec::new();
    places(&json, "", &mut found);
    assert!(found.len() > 1);
    let mut refused = 0;
    for place in found {
        let mut json = json.clone();
        match json.pointer_mut(&place).unwrap() {
            serde_json::Value::Array(items) => drop(items.pop()),
            number => *number = 1000.into(),
        }
        files::write_json(&path(dir.path(), measured.measurement()), &json).unwrap();
        match Inspection::read(dir.path(), measured.measurement()) {
            Err(error) => {
                assert!(error.to_string().contains(&format!("complete measurement `{}`", measured.measurement())));
                refused += 1;
            }
            Ok(read) => match &read.measured {
                Measured::Gradients(gradients) => _ = gradients.growth(0, Norm::Batch),
                Measured::Paths(paths) => _ = paths.networks.iter().map(PathGradients::effective_length).count(),
                Measured::Landscape(landscape) => _ = landscape.at_weights(0),
                Measured::Shattered(shattered) => _ = shattered.autocorrelations(0),
                _ => {}
            },
        }
    }
    assert!(refused > 0, "{}", measured.measurement());
}
