//! The same network on every backend.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    nn::loss::CrossEntropyLossConfig,
    optim::{
        GradientsParams, SgdConfig, lr_scheduler::module_lr_scheduler::ModuleLearningRate, momentum::MomentumConfig,
    },
    store::ModuleRecord,
    tensor::{Bytes, Device, Gradients, Int, Tensor, TensorData},
};
use residual::{
    backend::Backend,
    model::{
        ConvPath, ConvPathConfig, ConvShortcut, Kernels, Network, NetworkConfig, PlainBlock, PlainBlockConfig,
        ResidualBlock, ResidualBlockConfig,
    },
};
use std::io::Write;

const NETS: [&str; 4] = ["resnet8", "plain8", "dense-resnet6", "dense-plain6"];

/// What is compared with flex: every other backend of this build that answers; or those that the variable
/// `RESIDUAL_BACKENDS` names, separated by commas, all of which have to answer.
fn others() -> Vec<(Backend, Device)> {
    let named = std::env::var("RESIDUAL_BACKENDS").ok();
    let backends: Vec<Backend> = match &named {
        Some(names) => names.split(',').map(|name| name.parse().unwrap()).collect(),
        None => Backend::compiled().into_iter().filter(|&backend| backend != Backend::Flex).collect(),
    };
    let device = |backend: Backend| match backend.probe() {
        Ok(hardware) => {
            say(&format!("backend {backend}: compared with flex ({})", hardware.name));
            Some((backend, hardware.device))
        }
        Err(error) => {
            assert!(named.is_none(), "backend {backend}: {error}");
            say(&format!("backend {backend}: SKIPPED: {error}"));
            None
        }
    };
    backends.into_iter().filter_map(device).collect()
}

/// Says so past the test harness, which keeps what passing tests print to itself.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn network(name: &str, device: &Device) -> Network {
    let config = NetworkConfig::new(name.parse().unwrap(), [1, 8, 8], 10).with_width(8);
    config.with_seed(2).init(device)
}

/// Eight small images.
fn images(device: &Device) -> Tensor<4> {
    images_of([8, 1, 8, 8], device)
}

fn images_of(shape: [usize; 4], device: &Device) -> Tensor<4> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919) % 997) as f32 / 499.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn loss(network: &Network, images: Tensor<4>) -> Tensor<1> {
    let device = images.device();
    let samples = images.dims()[0];
    let labels: Vec<i32> = (0..samples as i32).map(|i| i % 10).collect();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [samples]), &device);
    CrossEntropyLossConfig::new().init(&device).forward(network.forward(images), labels)
}

struct Collect<'a> {
    path: Vec<String>,
    grads: Option<&'a Gradients>,
    values: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.grads {
            Some(grads) => param.val().grad(grads),
            None => Some(param.val().inner()),
        };
        if let Some(tensor) = tensor {
            self.values.push((self.path.join("."), tensor.into_data().iter::<f32>().collect()));
        }
    }
}

fn collect(network: &Network, grads: Option<&Gradients>) -> Vec<(String, Vec<f32>)> {
    let mut collect = Collect { path: Vec::new(), grads, values: Vec::new() };
    network.visit(&mut collect);
    collect.values
}

/// The largest difference relative to the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs())) / scale
}

fn assert_close(what: &str, a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for ((path, a), (other, b)) in a.iter().zip(b) {
        assert_eq!(path, other);
        let d = difference(a, b);
        assert!(d < tolerance, "{what} of {path} differ by {d}");
    }
}

fn gradients(name: &str, device: &Device) -> Vec<(String, Vec<f32>)> {
    let device = device.clone().autodiff();
    let network = network(name, &device);
    collect(&network, Some(&loss(&network, images(&device)).backward()))
}

fn after_three_steps(name: &str, device: &Device) -> Vec<(String, Vec<f32>)> {
    let device = device.clone().autodiff();
    let mut network = network(name, &device);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
    for _ in 0..3 {
        let grads = GradientsParams::from_grads(loss(&network, images(&device)).backward(), &network);
        optimizer.step_scalar_lr(&mut network, grads);
    }
    collect(&network.valid(), None)
}

trait Step {
    fn step_scalar_lr(&mut self, network: &mut Network, grads: GradientsParams);
}

impl Step for burn::optim::ModuleOptimizer {
    fn step_scalar_lr(&mut self, network: &mut Network, grads: GradientsParams) {
        *network = self.step(ModuleLearningRate::from(0.01), network.clone(), grads);
    }
}

#[test]
fn logits_gradients_and_three_steps_agree() {
    let flex = Backend::Flex.open().unwrap();
    for (backend, device) in others() {
        for name in NETS {
            let logits = |device: &Device| -> Vec<f32> {
                network(name, device).forward(images(device)).into_data().iter::<f32>().collect()
            };
            let d = difference(&logits(&flex), &logits(&device));
            assert!(d < 1e-5, "logits of {name} on {backend} differ by {d}");
            assert_close("gradients", &gradients(name, &flex), &gradients(name, &device), 1e-4);
            assert_close("weights", &after_three_steps(name, &flex), &after_three_steps(name, &device), 1e-4);
        }
    }
}

/// Where kernels are chosen by timing, those of small shapes are not those of real trainings.
#[test]
#[ignore = "minutes on a software adapter"]
fn networks_of_full_size_agree() {
    let flex = Backend::Flex.open().unwrap();
    for (backend, device) in others() {
        for (name, image, batch) in [
            ("resnet20", [3, 32, 32], 128),
            ("plain20", [3, 32, 32], 128),
            ("resnet110", [3, 32, 32], 32),
            ("resnet50", [3, 224, 224], 4),
        ] {
            let [channels, height, width] = image;
            let shape = [batch, channels, height, width];
            let network = |device: &Device| NetworkConfig::new(name.parse().unwrap(), image, 10).init(device);
            let logits = |device: &Device| -> Vec<f32> {
                network(device).forward(images_of(shape, device)).into_data().iter::<f32>().collect()
            };
            let d = difference(&logits(&flex), &logits(&device));
            say(&format!("{name} on {backend}: logits differ by {d:.1e}"));
            assert!(d < 1e-4, "logits of {name} on {backend} differ by {d}");
            // In deeper nets norms over the batch amplify rounding beyond any bound.
            if name.ends_with("20") {
                let gradients = |device: &Device| {
                    let device = device.clone().autodiff();
                    let network = network(&device);
                    collect(&network, Some(&loss(&network, images_of(shape, &device)).backward()))
                };
                assert_close("gradients", &gradients(&flex), &gradients(&device), 1e-2);
            }
        }
    }
}

/// Basic blocks, plain and residual, convolutional, dense and pre-activation.
const FUSED: [&str; 5] = ["resnet8", "plain8", "dense-resnet6", "dense-plain6", "preact_resnet8"];
/// Bottlenecks, groups, projections, the large stem. Their images end as few pixels, so that a norm sees few numbers: one
/// ReLU that clips on one side of rounding and not on the other moves all gradients. Those are held against PyTorch's.
const FUSED_SCORES: [&str; 4] = ["resnet18", "resnet50", "resnext50_8x8d", "preact_resnet29"];

#[test]
fn kernels_compute_what_burns_operations_do() {
    for backend in [Backend::Flex, Backend::NdArray].into_iter().filter(|backend| backend.is_compiled()) {
        let device = backend.open().unwrap();
        for name in FUSED.into_iter().chain(FUSED_SCORES) {
            let of = |kernels: Kernels| {
                kernels.scope(|| {
                    let logits = network(name, &device).forward(images(&device)).into_data().iter::<f32>().collect();
                    (vec![("logits".to_string(), logits)], gradients(name, &device), after_three_steps(name, &device))
                })
            };
            let (fused, reference) = (of(Kernels::Fused), of(Kernels::Reference));
            assert_close(name, &fused.0, &reference.0, 1e-5);
            if FUSED.contains(&name) {
                assert_close(name, &fused.1, &reference.1, 1e-4);
                assert_close(name, &fused.2, &reference.2, 1e-4);
            }
            assert_eq!(of(Kernels::Recompute), fused, "{name}, recomputed");
        }
    }
}

#[test]
fn a_frozen_stage_keeps_its_statistics_and_passes_gradients_in_kernels_too() {
    let device = Backend::Flex.open().unwrap().autodiff();
    let of = |kernels: Kernels| {
        kernels.scope(|| {
            let network = network("resnet8", &device).freeze_parts(&["layer2".parse().unwrap()]).unwrap();
            let gradients = collect(&network, Some(&loss(&network, images(&device)).backward()));
            (collect(&network.valid(), None), gradients)
        })
    };
    let ((fused, fused_gradients), (reference, reference_gradients)) = (of(Kernels::Fused), of(Kernels::Reference));
    assert_close("weights", &fused, &reference, 1e-5);
    assert_close("gradients", &fused_gradients, &reference_gradients, 1e-4);
    assert!(fused_gradients.iter().any(|(path, _)| path.starts_with("layer1")));
    assert!(!fused_gradients.iter().any(|(path, _)| path.starts_with("layer2")));
}

#[test]
fn weights_changed_after_inference_are_seen() {
    let device = Backend::Flex.open().unwrap();
    let mut network = network("resnet18", &device);
    let before = network.forward(images(&device));
    struct Halve;
    impl ModuleMapper for Halve {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.mul_scalar(0.5))
        }
    }
    network = network.map(&mut Halve);
    let after = network.forward(images(&device));
    let reference = Kernels::Reference.scope(|| network.forward(images(&device)));
    let values = |t: Tensor<2>| t.into_data().iter::<f32>().collect::<Vec<_>>();
    let (before, after, reference) = (values(before), values(after), values(reference));
    assert!(difference(&before, &after) > 0.1);
    assert!(difference(&reference, &after) < 1e-5);
}

#[test]
fn a_record_saved_on_one_backend_loads_on_another() {
    let flex = Backend::Flex.open().unwrap();
    for (backend, device) in others() {
        let saved: Bytes = network("resnet8", &device).into_record().into_bytes().unwrap();
        let config = NetworkConfig::new("resnet8".parse().unwrap(), [1, 8, 8], 10).with_width(8);
        let other = config.with_seed(9).init(&flex);
        let loaded = other.try_load_record(ModuleRecord::from_bytes(saved).unwrap()).unwrap();
        assert_eq!(collect(&loaded, None), collect(&network("resnet8", &flex), None), "{backend}");
    }
}

/// A module of one's own.
#[derive(Module, Debug)]
struct Pair {
    plain: PlainBlock<ConvPath>,
    residual: ResidualBlock<ConvPath, ConvShortcut>,
}

impl Pair {
    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        self.residual.forward(self.plain.forward(images))
    }
}

#[test]
fn a_module_of_ones_own_computes_the_same_where_it_is_forked_to() {
    let flex = Device::flex();
    let pair = Pair {
        plain: PlainBlockConfig::new(ConvPathConfig::new(1, 6)).init(&flex),
        residual: ResidualBlockConfig::new(ConvPathConfig::new(6, 8).with_stride(2)).init(&flex),
    };
    let values =
        |pair: &Pair, device: &Device| -> Vec<f32> { pair.forward(images(device)).into_data().iter::<f32>().collect() };
    let expected = values(&pair, &flex);
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (backend, device) in others() {
        let forked = values(&pair.clone().fork(&device), &device);
        let worst = expected.iter().zip(&forked).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert!(worst <= 1e-5 * largest, "{backend}: {worst} of {largest}");
    }
}
