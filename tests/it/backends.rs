//! Compares networks between backends, and the fused kernels with Burn's operations.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    nn::loss::CrossEntropyLossConfig,
    optim::{GradientsParams, SgdConfig, momentum::MomentumConfig},
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
use std::{env, io::Write, sync::LazyLock};

const NETS: [&str; 4] = ["resnet8", "plain8", "dense-resnet6", "dense-plain6"];

/// Backends that need neither a GPU nor a driver, so a build that contains them can always compare them.
const CPU_BACKENDS: [Backend; 2] = [Backend::Flex, Backend::NdArray];

/// The environment variable that names the backends to compare with flex, separated by commas.
const VARIABLE: &str = "RESIDUAL_BACKENDS";

/// The result of opening each backend to compare with flex: the backends named by [`VARIABLE`] or, if it is not set,
/// all other backends of this build. Each result is printed once.
static OPENED: LazyLock<Vec<(Backend, Result<Device, String>)>> = LazyLock::new(|| {
    let backends: Vec<Backend> = match env::var(VARIABLE) {
        Ok(names) => names.split(',').map(|name| name.parse().unwrap()).collect(),
        Err(_) => Backend::compiled().into_iter().filter(|&backend| backend != Backend::Flex).collect(),
    };
    if backends.is_empty() {
        print("flex is the only backend of this build; there is nothing to compare it with");
    }
    let open = |backend: Backend| match backend.probe() {
        Ok(hardware) => {
            print(&format!("backend {backend}: compared with flex ({})", hardware.name));
            (backend, Ok(hardware.device))
        }
        Err(error) => {
            print(&format!("backend {backend}: SKIPPED: {error}"));
            (backend, Err(error.to_string()))
        }
    };
    backends.into_iter().map(open).collect()
});

/// The backends to compare with flex, without those that cannot be opened.
///
/// # Panics
/// If a backend that is named by [`VARIABLE`] or is one of [`CPU_BACKENDS`] cannot be opened.
fn others() -> Vec<(Backend, Device)> {
    let opened = |(backend, device): &(Backend, Result<Device, String>)| match device {
        Ok(device) => Some((*backend, device.clone())),
        Err(error) => {
            let optional = env::var_os(VARIABLE).is_none() && !CPU_BACKENDS.contains(backend);
            assert!(optional, "backend {backend} cannot be compared with flex: {error}");
            None
        }
    };
    OPENED.iter().filter_map(opened).collect()
}

/// The tolerances of a backend: of logits and gradients of small and of full-size networks, relative to the largest value.
struct Tolerances {
    logits: f32,
    gradients: f32,
    full_logits: f32,
    full_gradients: f32,
}

impl Tolerances {
    /// With autotuning, CUDA may choose kernels that round the factors of products to TensorFloat-32, with 11 significant bits
    /// instead of 24, whichever are fastest.
    fn of(backend: Backend) -> Self {
        match backend {
            Backend::Cuda if cfg!(feature = "autotune") => {
                Self { logits: 5e-3, gradients: 5e-2, full_logits: 1e-2, full_gradients: 2e-1 }
            }
            _ => Self { logits: 1e-5, gradients: 1e-4, full_logits: 1e-4, full_gradients: 1e-2 },
        }
    }
}

/// Writes to standard error directly, because the test harness captures the output of `eprintln!`.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[test]
fn cpu_backends_are_always_compared() {
    let compared = others();
    if cfg!(feature = "ndarray") && env::var_os(VARIABLE).is_none() {
        assert!(compared.iter().any(|(backend, _)| *backend == Backend::NdArray), "ndarray was not compared with flex");
    }
}

fn network(name: &str, device: &Device) -> Network {
    let config = NetworkConfig::new(name.parse().unwrap(), [1, 8, 8], 10).with_width(8);
    config.with_seed(2).init(device)
}

/// A batch of eight 8x8 images with one channel.
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

/// The largest absolute difference divided by the largest absolute value of `a`.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs())) / scale
}

fn assert_close(label: &str, a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let mut most = 0.0f32;
    for ((path, a), (other, b)) in a.iter().zip(b) {
        assert_eq!(path, other);
        let d = difference(a, b);
        assert!(d < tolerance, "{label} of {path} differ by {d}");
        most = most.max(d);
    }
    print(&format!("{label} differ by up to {most:.1e}"));
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
        network = optimizer.step(0.01, network, grads);
    }
    collect(&network.valid(), None)
}

#[test]
fn every_backend_agrees_with_flex() {
    let flex = Backend::Flex.open().unwrap();
    for (backend, device) in others() {
        let Tolerances { logits: tolerance, gradients: of_gradients, .. } = Tolerances::of(backend);
        for name in NETS {
            let logits = |device: &Device| -> Vec<f32> {
                network(name, device).forward(images(device)).into_data().iter::<f32>().collect()
            };
            let d = difference(&logits(&flex), &logits(&device));
            assert!(d < tolerance, "logits of {name} on {backend} differ by {d}");
            let label = |what: &str| format!("{what} of {name} on {backend}");
            assert_close(&label("gradients"), &gradients(name, &flex), &gradients(name, &device), of_gradients);
            let weights = [&flex, &device].map(|device| after_three_steps(name, device));
            assert_close(&label("weights"), &weights[0], &weights[1], of_gradients);
        }
    }
}

/// With autotuning, a backend may choose different kernels for full-size networks than for the small ones above.
#[test]
#[ignore = "takes minutes on a software adapter"]
fn full_size_networks_agree_with_flex() {
    let flex = Backend::Flex.open().unwrap();
    for (backend, device) in others() {
        let Tolerances { full_logits, full_gradients, .. } = Tolerances::of(backend);
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
            print(&format!("{name} on {backend}: logits differ by {d:.1e}"));
            assert!(d < full_logits, "logits of {name} on {backend} differ by {d}");
            // In deeper nets, batch norms amplify rounding errors too much for gradients to agree.
            if name.ends_with("20") {
                let gradients = |device: &Device| {
                    let device = device.clone().autodiff();
                    let network = network(&device);
                    collect(&network, Some(&loss(&network, images_of(shape, &device)).backward()))
                };
                let label = format!("gradients of {name} on {backend}");
                assert_close(&label, &gradients(&flex), &gradients(&device), full_gradients);
            }
        }
    }
}

/// Nets of basic blocks: plain and residual, convolutional, dense and pre-activation.
const GRADIENT_NETS: [&str; 5] = ["resnet8", "plain8", "dense-resnet6", "dense-plain6", "preact_resnet8"];
/// Nets with bottlenecks, groups, projections or the ImageNet stem. Only their logits are compared: their last feature
/// maps have few pixels, so batch norms average over few values, and a single ReLU input whose sign depends on rounding
/// changes all gradients. The parity tests of `residual-weights` compare their gradients with PyTorch's.
const LOGIT_NETS: [&str; 4] = ["resnet18", "resnet50", "resnext50_8x8d", "preact_resnet29"];

#[test]
fn fused_kernels_agree_with_burns_operations() {
    for backend in CPU_BACKENDS.into_iter().filter(|backend| backend.is_compiled()) {
        let device = backend.open().unwrap();
        for name in GRADIENT_NETS.into_iter().chain(LOGIT_NETS) {
            let of = |kernels: Kernels| {
                kernels.scope(|| {
                    let logits = network(name, &device).forward(images(&device)).into_data().iter::<f32>().collect();
                    (vec![("logits".to_string(), logits)], gradients(name, &device), after_three_steps(name, &device))
                })
            };
            let (fused, reference) = (of(Kernels::Fused), of(Kernels::Reference));
            assert_close(name, &fused.0, &reference.0, 1e-5);
            if GRADIENT_NETS.contains(&name) {
                assert_close(name, &fused.1, &reference.1, 1e-4);
                assert_close(name, &fused.2, &reference.2, 1e-4);
            }
            assert_eq!(of(Kernels::Recompute), fused, "{name} with recomputation");
        }
    }
}

/// Batches of wide dense layers are divided among threads.
#[test]
fn fused_kernels_of_wide_dense_layers_agree_with_burns_operations() {
    let device = Backend::Flex.open().unwrap();
    for batch in [96, 97] {
        let of = |kernels: Kernels| {
            kernels.scope(|| {
                let config = NetworkConfig::new("dense-resnet6".parse().unwrap(), [1, 8, 8], 10).with_width(128);
                let network = config.with_seed(2).init(&device.clone().autodiff());
                let images = images_of([batch, 1, 8, 8], &device.clone().autodiff());
                let gradients = collect(&network, Some(&loss(&network, images.clone()).backward()));
                let trained: Vec<f32> = network.forward(images.clone()).into_data().iter().collect();
                let inferred: Vec<f32> = network.valid().forward(images.inner()).into_data().iter().collect();
                (vec![("trained".to_string(), trained), ("inferred".to_string(), inferred)], gradients)
            })
        };
        let (fused, reference) = (of(Kernels::Fused), of(Kernels::Reference));
        assert_close("outputs", &fused.0, &reference.0, 1e-5);
        assert_close("gradients", &fused.1, &reference.1, 1e-4);
        assert_eq!(of(Kernels::Recompute), fused, "recomputation");
    }
}

#[test]
fn fused_kernels_support_frozen_stages() {
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
fn inference_uses_changed_weights() {
    struct Halve;
    impl ModuleMapper for Halve {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.mul_scalar(0.5))
        }
    }
    let device = Backend::Flex.open().unwrap();
    let mut network = network("resnet18", &device);
    let before = network.forward(images(&device));
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

/// A user-defined module.
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
fn a_custom_module_agrees_after_a_fork() {
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
        assert!(worst <= 1e-5 * largest, "{backend}: outputs differ by {worst}; the largest is {largest}");
    }
}
