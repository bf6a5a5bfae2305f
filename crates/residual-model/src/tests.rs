//! Tests of blocks, shortcuts, initial weights and the published numbers of parameters.

mod family;
mod foreign;

use crate::*;
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{DType, Device, Distribution, Tensor, TensorData},
};
use std::collections::BTreeMap;
use strum::VariantArray;

fn device() -> Device {
    Device::flex()
}

/// The values of every parameter by path.
fn parameters<M: Module>(module: &M) -> BTreeMap<String, Vec<f64>> {
    let mut all = BTreeMap::new();
    parameters::for_each_parameter(module, |parameter| {
        all.insert(parameter.path.into(), parameter.data().iter::<f64>().collect());
    });
    all
}

fn non_negative<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| ((i * 7919) % 101) as f32 / 50.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

#[test]
fn zero_init_makes_residual_blocks_the_identity_and_plain_blocks_zero() {
    for &norm in Norm::VARIANTS {
        for device in [device(), device().autodiff()] {
            let a = non_negative([2, 4, 5, 5]).to_device(&device);
            let path = ConvPathConfig::new(4, 4).with_norm(norm);
            let residual = ResidualBlockConfig::new(path.clone()).with_zero_init(true).init(&device);
            residual.forward(a.clone()).into_data().assert_eq(&a.to_data(), true);
            let plain = PlainBlockConfig::new(path).with_zero_init(true).init(&device);
            plain.forward(a.clone()).into_data().assert_eq(&a.zeros_like().to_data(), true);

            let a = non_negative([3, 6]).to_device(&device);
            let path = DensePathConfig::new(6, 6).with_norm(norm);
            let residual = ResidualBlockConfig::new(path.clone()).with_zero_init(true).init(&device);
            residual.forward(a.clone()).into_data().assert_eq(&a.to_data(), true);
            let plain = PlainBlockConfig::new(path).with_zero_init(true).init(&device);
            plain.forward(a.clone()).into_data().assert_eq(&a.zeros_like().to_data(), true);
        }
    }
}

#[test]
fn skip_strength_zero_gives_the_plain_block() {
    let a = non_negative([2, 4, 5, 5]);
    let path = ConvPathConfig::new(4, 4);
    let plain = PlainBlockConfig::new(path.clone()).with_seed(3).init(&device()).forward(a.clone());
    let residual = ResidualBlockConfig::new(path.clone()).with_seed(3).with_skip_strength(0.0);
    let residual = residual.init(&device()).forward(a.clone());
    residual.into_data().assert_eq(&plain.to_data(), true);
    let half = ResidualBlockConfig::new(path).with_skip_strength(0.5).with_zero_init(true).init(&device());
    half.forward(a.clone()).into_data().assert_eq(&(a * 0.5).to_data(), true);
}

#[test]
fn shortcuts_match_the_shape_of_the_main_path() {
    let a = non_negative([2, 4, 5, 7]);
    for &option in ShortcutOption::VARIANTS {
        for (out, stride, size) in [(4, 1, [5, 7]), (4, 2, [3, 4]), (7, 1, [5, 7]), (7, 2, [3, 4])] {
            let path = ConvPathConfig::new(4, out).with_stride(stride);
            let block = ResidualBlockConfig::new(path).with_shortcut(option).init(&device());
            assert_eq!(block.forward(a.clone()).dims(), [2, out, size[0], size[1]], "{option} {out} {stride}");
            let projects = match option {
                ShortcutOption::ZeroPad | ShortcutOption::ZeroPadAfter => false,
                ShortcutOption::Projection => out != 4 || stride != 1,
                ShortcutOption::ProjectAll => true,
            };
            assert_eq!(block.shortcut.conv.is_some(), projects);
        }
    }
}

#[test]
fn zero_padding_subsamples_and_places_zeros_by_option() {
    let a = non_negative([1, 2, 4, 4]);
    let values: Vec<f32> = a.to_data().try_to_vec().unwrap();
    let at = |channel: usize, y: usize, x: usize| values[(channel * 4 + y) * 4 + x];
    for (option, first) in [(ShortcutOption::ZeroPad, 1), (ShortcutOption::ZeroPadAfter, 0)] {
        for kernels in [Kernels::Fused, Kernels::Reference] {
            let block = ResidualBlockConfig::new(ConvPathConfig::new(2, 5).with_stride(2))
                .with_shortcut(option)
                .with_zero_init(true)
                .init(&device());
            let out: Vec<f32> = kernels.scope(|| block.forward(a.clone())).into_data().try_to_vec().unwrap();
            for channel in 0..5 {
                for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let is_input = (first..first + 2).contains(&channel);
                    let expected = if is_input { at(channel - first, 2 * y, 2 * x) } else { 0.0 };
                    assert_eq!(out[(channel * 2 + y) * 2 + x], expected, "{option} {kernels}");
                }
            }
            let dense = ResidualBlockConfig::new(DensePathConfig::new(2, 5))
                .with_shortcut(option)
                .with_zero_init(true)
                .init(&device());
            let out = kernels.scope(|| dense.forward(Tensor::from_floats([[3.0, 4.0]], &device())));
            let mut expected = [0.0f32; 5];
            expected[first..first + 2].copy_from_slice(&[3.0, 4.0]);
            assert_eq!(out.into_data().try_to_vec::<f32>().unwrap(), expected, "{option} {kernels}");
        }
    }
}

#[test]
#[should_panic(expected = "a zero-padding shortcut cannot go from 8 to 4 channels")]
fn zero_padding_with_fewer_output_channels_is_rejected() {
    ResidualBlockConfig::new(ConvPathConfig::new(8, 4)).with_shortcut(ShortcutOption::ZeroPad).init(&device());
}

#[test]
fn cifar_networks_have_the_published_parameters_and_depths() {
    let published = [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962), (1202, 19_421_274)];
    for (depth, parameters) in published {
        for &kind in BlockKind::VARIANTS {
            let config = cifar_resnet(depth).with_kind(kind);
            assert_eq!(config.summary().parameters(), parameters);
            assert_eq!(config.summary().rows().len(), depth);
            if depth <= 56 {
                assert_eq!(summary::trainable_parameters(&config.init(&device())) as u64, parameters);
            }
        }
    }
    assert_eq!(cifar_resnet(20).summary().multiply_adds(), 40_551_040);
}

#[test]
fn summaries_match_the_modules() {
    for shortcut in [ShortcutOption::ZeroPad, ShortcutOption::Projection, ShortcutOption::ProjectAll] {
        for &norm in Norm::VARIANTS {
            for name in ["resnet14", "plain14", "dense-resnet8", "dense-plain8", "dense-resnet2"] {
                let name: NetName = name.parse().unwrap();
                let blocks = BlockOptions { shortcut, norm, ..BlockOptions::of_kind(name.kind) };
                let config = NetworkConfig::new(name, [2, 8, 8], 7).with_width(6).with_blocks(blocks);
                let counted = summary::trainable_parameters(&config.init(&device())) as u64;
                assert_eq!(config.summary().parameters(), counted, "{name} {shortcut} {norm}");
                let tensors = parameters(&config.init(&device())).len() as u64;
                assert_eq!(config.summary().tensors(), tensors, "{name} {shortcut} {norm}");
            }
        }
    }
}

#[test]
fn plain_and_residual_twins_have_equal_parameters() {
    for [plain, residual] in [["plain14", "resnet14"], ["dense-plain8", "dense-resnet8"]] {
        let [plain, residual] = [plain, residual].map(|name| {
            let config = NetworkConfig::new(name.parse().unwrap(), [3, 8, 8], 10);
            parameters(&config.with_init(InitConfig { seed: 5, zero_init: false }).init(&device()))
        });
        assert!(plain.len() > 20 && plain == residual);
    }
}

#[test]
fn weights_depend_only_on_seed_and_path() {
    let build = |seed| {
        let init = InitConfig { seed, zero_init: false };
        parameters(&cifar_resnet(8).with_init(init).init(&device()))
    };
    let here = build(3);
    device().seed(99);
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(move || build(3))).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == here));
    assert_ne!(build(4), here);
    assert_ne!(here["layer1.0.main_path.conv1.weight"], here["layer1.0.main_path.conv2.weight"]);
    // A deeper network has the same weights at the same paths.
    let deeper = parameters(&cifar_resnet(14).with_seed(3).init(&device()));
    assert_eq!(deeper["layer1.0.main_path.conv1.weight"], here["layer1.0.main_path.conv1.weight"]);
}

/// The weights of wide layers are prepared by several threads, which may meanwhile run other forward passes.
#[test]
fn threads_can_share_a_network_whose_weights_are_not_prepared_yet() {
    use rayon::prelude::*;
    let device = device();
    let config = NetworkConfig::new("resnet14".parse().unwrap(), [3, 16, 16], 10).with_width(128);
    let image = |_| Tensor::random([1, 3, 16, 16], Distribution::Default, &device);
    let images: Vec<Tensor<4>> = (0..12).map(image).collect();
    let expected: Vec<TensorData> = {
        let network = config.init(&device);
        images.iter().map(|image| network.forward(image.clone()).into_data()).collect()
    };
    let (done, outputs) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        for _ in 0..40 {
            let network = config.init(&device);
            let forward = |image: &Tensor<4>| network.forward(image.clone()).into_data();
            done.send(pool.install(|| images.par_iter().map(forward).collect::<Vec<_>>())).unwrap();
        }
    });
    for _ in 0..40 {
        let outputs =
            outputs.recv_timeout(std::time::Duration::from_secs(60)).expect("the threads wait for each other");
        assert_eq!(outputs, expected);
    }
}

#[test]
fn weights_have_he_variance() {
    let weights = &parameters(&cifar_resnet(8).init(&device()))["layer3.0.main_path.conv2.weight"];
    let n = weights.len() as f64;
    let mean = weights.iter().sum::<f64>() / n;
    let variance = weights.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / n;
    let expected = 2.0 / (64.0 * 9.0);
    // With n = 36,864 draws, the relative standard error of the variance is √(2/n) = 0.7 %. The standard error of the
    // mean is std/√n.
    assert!((variance / expected - 1.0).abs() < 0.03, "{variance} is not {expected}");
    assert!(mean.abs() < 4.0 * (expected / n).sqrt());
}

/// Casts every parameter to f64.
struct Double;

impl ModuleMapper for Double {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let tracked = tensor.is_require_grad();
        let values: Vec<f64> = tensor.to_data().iter::<f64>().collect();
        let data = TensorData::new(values, tensor.dims());
        let tensor = Tensor::from_data(data, (&tensor.device(), DType::F64));
        Param::from_mapped_value(id, if tracked { tensor.require_grad() } else { tensor }, mapper)
    }
}

/// Adds `h` to the value at `index` of the parameter at path `target`.
struct Perturb<'a> {
    path: Vec<String>,
    target: &'a str,
    index: usize,
    h: f64,
}

impl ModuleMapper for Perturb<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.join(".") != self.target {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let mut values: Vec<f64> = tensor.to_data().iter::<f64>().collect();
        values[self.index] += self.h;
        let data = TensorData::new(values, tensor.dims());
        let perturbed = Tensor::from_data(data, (&tensor.device(), DType::F64));
        Param::from_mapped_value(id, perturbed, mapper)
    }
}

/// The gradient of every parameter by path.
fn gradients<M: Module>(module: &M, grads: &burn::tensor::Gradients) -> BTreeMap<String, Vec<f64>> {
    struct Collect<'a>(Vec<String>, &'a burn::tensor::Gradients, BTreeMap<String, Vec<f64>>);
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = param.val().grad(self.1) {
                self.2.insert(self.0.join("."), grad.into_data().iter::<f64>().collect());
            }
        }
    }
    let mut collect = Collect(Vec::new(), grads, BTreeMap::new());
    module.visit(&mut collect);
    collect.2
}

/// Compares the gradient from autodiff with central differences of `loss`, at three values of every parameter.
fn check_gradients<M: Module>(build: impl Fn() -> M, loss: impl Fn(&M) -> Tensor<1>) {
    let module = build();
    let analytic = gradients(&module, &loss(&module).backward());
    assert!(analytic.len() >= 4, "gradients are missing: {:?}", analytic.keys());
    let h = 1e-6;
    for (path, gradient) in &analytic {
        for index in [0, gradient.len() / 2, gradient.len() - 1] {
            let value = |h: f64| {
                let module = build().map(&mut Perturb { path: Vec::new(), target: path, index, h });
                loss(&module).into_data().iter::<f64>().next().unwrap()
            };
            let numeric = (value(h) - value(-h)) / (2.0 * h);
            let error = (numeric - gradient[index]).abs() / numeric.abs().max(1e-3);
            assert!(error < 1e-5, "{path}[{index}]: {} from autodiff, {numeric} from differences", gradient[index]);
        }
    }
}

/// A deterministic `f64` tensor with values between -1 and 1.
fn double<const D: usize>(shape: [usize; D], offset: usize) -> Tensor<D> {
    let n = shape.iter().product::<usize>();
    let values: Vec<f64> = (0..n).map(|i| (((i + offset) * 7919) % 997) as f64 / 499.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), (&device().autodiff(), DType::F64))
}

#[test]
fn block_gradients_match_finite_differences() {
    let device = device().autodiff();
    for &norm in Norm::VARIANTS {
        let path = ConvPathConfig::new(2, 3).with_stride(2).with_norm(norm);
        let dense = DensePathConfig::new(4, 6).with_norm(norm);
        let weighted_sum = |out: Tensor<4>| (out.clone() * double(out.dims(), 3)).sum();
        let weighted_sum_dense = |out: Tensor<2>| (out.clone() * double(out.dims(), 3)).sum();
        check_gradients(
            || PlainBlockConfig::new(path.clone()).with_seed(0).init(&device).map(&mut Double),
            |block| weighted_sum(block.forward(double([4, 2, 5, 5], 0))),
        );
        check_gradients(
            || PlainBlockConfig::new(dense.clone()).with_seed(0).init(&device).map(&mut Double),
            |block| weighted_sum_dense(block.forward(double([5, 4], 0))),
        );
        for option in [ShortcutOption::ZeroPad, ShortcutOption::ZeroPadAfter, ShortcutOption::Projection] {
            check_gradients(
                || {
                    let config = ResidualBlockConfig::new(path.clone()).with_shortcut(option).with_skip_strength(0.7);
                    config.with_branch_scale(0.5).with_seed(0).init(&device).map(&mut Double)
                },
                |block| weighted_sum(block.forward(double([4, 2, 5, 5], 0))),
            );
            check_gradients(
                || {
                    ResidualBlockConfig::new(dense.clone())
                        .with_shortcut(option)
                        .with_seed(0)
                        .init(&device)
                        .map(&mut Double)
                },
                |block| weighted_sum_dense(block.forward(double([5, 4], 0))),
            );
        }
    }
}

#[test]
fn training_1202_layers_does_not_overflow_the_stack() {
    let device = device().autodiff();
    let network = cifar_resnet(1202).with_width(2).init(&device);
    let images = Tensor::random([2, 3, 8, 8], Distribution::Default, &device);
    let grads = network.forward(images).powi_scalar(2).sum().backward();
    let Backbone::Conv(backbone) = &network.backbone else { panic!("expected a convolutional network") };
    let stem = backbone.conv1.weight.val().grad(&grads).expect("the gradient reaches the first layer");
    let norm: f64 = stem.powi_scalar(2).sum().into_data().iter::<f64>().next().unwrap();
    assert!(norm.is_finite() && norm > 0.0);
}

#[test]
fn branch_scale_keeps_deep_networks_without_norm_finite() {
    let largest = |branch_scale| {
        let blocks = BlockOptions { norm: Norm::None, branch_scale, ..BlockOptions::default() };
        let network = dense_resnet(402, 16, 10).with_blocks(blocks).init(&device());
        let logits: Vec<f32> = network.forward(non_negative([4, 16, 1, 1])).into_data().try_to_vec().unwrap();
        logits.iter().fold(0.0f32, |a, &b| if b.is_finite() { a.max(b.abs()) } else { f32::INFINITY })
    };
    assert!(largest(BranchScale::InverseSqrtDepth) < 1e3);
    assert!(largest(BranchScale::One) > 1e20);
}

#[test]
fn invalid_configurations_are_rejected() {
    let config = |classes, width| cifar_resnet(20).with_classes(classes).with_width(width).validate();
    assert_eq!(config(0, 16), Err(ModelError::Zero("classes")));
    assert_eq!(config(10, 0), Err(ModelError::Zero("width")));
    assert!(NetworkConfig::dense(5, 8, 10).validate().is_err());
    let blocks = BlockOptions { skip_strength: f64::NAN, ..BlockOptions::default() };
    assert!(NetworkConfig::dense(4, 8, 10).with_blocks(blocks).validate().is_err());
}
