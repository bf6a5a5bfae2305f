//! Blocks, stages and networks as fields of user-defined modules.

use super::{device, gradients, non_negative, parameters};
use crate::*;
use burn::{
    module::{Module, ParamId},
    nn::{Linear, LinearConfig, conv::Conv2d, conv::Conv2dConfig},
    optim::{GradientsParams, SgdConfig},
    store::ModuleRecord,
    tensor::{Bytes, Device, Distribution, Tensor, activation::relu},
};
use std::collections::{BTreeMap, BTreeSet};

const LR: f64 = 0.1;

/// Two plain blocks, wide enough that not all units of a layer are dead for any random weights.
#[derive(Module, Debug)]
struct TwoBlocks {
    a: PlainBlock<DensePath>,
    b: PlainBlock<DensePath>,
}

impl TwoBlocks {
    fn new(device: &Device) -> Self {
        let block = || PlainBlockConfig::new(DensePathConfig::new(16, 16)).init(device);
        Self { a: block(), b: block() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.b.forward(self.a.forward(x))
    }
}

/// Residual blocks, a pre-activation block and a stage, between two of Burn's layers. The last residual block is used
/// twice.
#[derive(Module, Debug)]
struct Mixed {
    conv: Conv2d,
    blocks: Vec<ResidualBlock<ConvPath, ConvShortcut>>,
    preact: PreactResidualBlock,
    stage: Stage,
    linear: Linear,
}

impl Mixed {
    fn new(device: &Device) -> Self {
        let path = || ConvPathConfig::new(4, 4);
        Self {
            conv: Conv2dConfig::new([3, 4], [1, 1]).init(device),
            blocks: (0..3).map(|_| ResidualBlockConfig::new(path()).init(device)).collect(),
            preact: ResidualBlockConfig::new(path().preactivated()).init(device),
            stage: StageConfig::new(ConvPathConfig::new(4, 6).with_stride(2), 2).init(device),
            linear: LinearConfig::new(6, 5).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let a = relu(self.conv.forward(images));
        let a = self.blocks.iter().fold(a, |a, block| block.forward(a));
        let a = self.blocks[2].forward(a);
        let a = self.stage.forward(self.preact.forward(a));
        self.linear.forward(a.mean_dims(&[2, 3]).flatten(1, 3))
    }
}

/// Two networks in one module.
#[derive(Module, Debug)]
struct Pair {
    student: Network,
    teacher: Network,
}

impl Pair {
    fn new(device: &Device) -> Self {
        let network = |seed| cifar_resnet(8).with_width(4).with_seed(seed).init(device);
        Self { student: network(1), teacher: network(2) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.student.forward(images.clone()) * self.teacher.forward(images)
    }
}

fn ids<M: Module>(module: &M) -> Vec<ParamId> {
    let mut ids = Vec::new();
    parameters::for_each_parameter(module, |parameter| ids.push(parameter.id));
    ids
}

fn loss<const D: usize>(output: Tensor<D>) -> Tensor<1> {
    let weights = non_negative(output.dims()).to_device(&output.device()) - 0.7;
    (output * weights).sum()
}

/// Asserts that every parameter has its own id and gradient, and that one step of SGD moves it by its gradient.
fn assert_trains<M: Module>(module: M, forward: impl Fn(&M) -> Tensor<1>) {
    let all = ids(&module);
    assert_eq!(all.iter().map(burn::module::ParamId::val).collect::<BTreeSet<_>>().len(), all.len(), "ids are shared");
    let before = parameters(&module);
    let grads = forward(&module).backward();
    let expected = gradients(&module, &grads);
    let trained: BTreeSet<&String> = before.keys().filter(|path| !path.contains(".running_")).collect();
    assert_eq!(expected.keys().collect::<BTreeSet<_>>(), trained, "every parameter has a gradient");

    let grads = GradientsParams::from_grads(grads, &module);
    assert_eq!(grads.len(), trained.len());
    let after = parameters(&SgdConfig::new().init().step(LR, module, grads));
    for path in trained {
        for ((before, after), gradient) in before[path].iter().zip(&after[path]).zip(&expected[path]) {
            let moved = before - LR * gradient;
            assert!((after - moved).abs() <= 1e-6 * (1.0 + moved.abs()), "{path}: {after}, not {moved}");
        }
        assert!(expected[path].iter().any(|gradient| *gradient != 0.0), "{path} has no gradient");
    }
}

fn images(device: &Device) -> Tensor<4> {
    non_negative([4, 3, 8, 8]).to_device(device)
}

#[test]
fn two_blocks_in_a_module_train_independently() {
    let device = device().autodiff();
    let x = non_negative([8, 16]).to_device(&device);
    assert_trains(TwoBlocks::new(&device), |module| loss(module.forward(x.clone())));
}

#[test]
fn blocks_train_with_burns_layers() {
    let device = device().autodiff();
    assert_trains(Mixed::new(&device), |module| loss(module.forward(images(&device))));
}

#[test]
fn two_networks_in_a_module_train_independently() {
    let device = device().autodiff();
    assert_trains(Pair::new(&device), |module| loss(module.forward(images(&device))));
}

/// The kernels and Burn's operations sum in different orders, so their results differ by rounding errors. Bit-identical
/// results would mean that the same code ran twice.
#[test]
fn kernels_run_in_user_defined_modules() {
    let device = device().autodiff();
    assert_eq!(Kernels::on(&device), Kernels::Fused);
    let module = Mixed::new(&device);
    let images = Tensor::<4>::random([16, 3, 16, 16], Distribution::Default, &device);
    let pass = |kernels: Kernels| -> Vec<f32> {
        kernels.scope(|| module.forward(images.clone())).into_data().iter::<f32>().collect()
    };
    let (fused, reference) = (pass(Kernels::Fused), pass(Kernels::Reference));
    let largest = reference.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = fused.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(worst > 0.0 && worst < 1e-3 * largest, "{worst} of {largest}");
}

#[test]
fn records_of_user_defined_modules_save_and_load() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.bpk");
    let module = Mixed::new(&device());
    module.clone().into_record().save(&path).unwrap();
    let loaded = Mixed::new(&device()).load_record(ModuleRecord::load(&path).unwrap());
    assert_eq!(parameters(&loaded), parameters(&module));
    loaded.forward(images(&device())).into_data().assert_eq(&module.forward(images(&device())).into_data(), true);
    // Burn's records keep the parameter ids, because the optimizer's state is stored by id.
    let restored: BTreeMap<String, ParamId> = by_path(&loaded);
    assert!(by_path(&module).iter().all(|(path, id)| path.contains(".running_") || restored[path] == *id));
}

fn by_path<M: Module>(module: &M) -> BTreeMap<String, ParamId> {
    let mut ids = BTreeMap::new();
    parameters::for_each_parameter(module, |parameter| {
        ids.insert(parameter.path.to_string(), parameter.id);
    });
    ids
}

#[test]
fn burnpack_bytes_are_reproducible_and_load_with_new_ids() {
    let network = || cifar_resnet(8).with_width(4).with_seed(3).init(&device());
    let bytes = parameters::to_burnpack(&network()).unwrap();
    assert_eq!(bytes, parameters::to_burnpack(&network()).unwrap());
    let load = || {
        let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes.clone())).unwrap();
        cifar_resnet(8).with_width(4).with_seed(9).init(&device()).load_record(record)
    };
    let pair = Pair { student: load(), teacher: load() };
    assert_eq!(parameters(&pair.student), parameters(&network()));
    let all = ids(&pair);
    assert_eq!(all.iter().map(burn::module::ParamId::val).collect::<BTreeSet<_>>().len(), all.len(), "ids are shared");
}

#[test]
fn clones_and_forks_keep_values_and_ids() {
    let module = TwoBlocks::new(&device());
    let clone = module.clone();
    assert_eq!((parameters(&clone), ids(&clone)), (parameters(&module), ids(&module)));
    let fork = module.clone().fork(&device());
    assert_eq!((parameters(&fork), ids(&fork)), (parameters(&module), ids(&module)));
    // After `train`, a fork to an autodiff device trains.
    let training = module.clone().fork(&device().autodiff()).train();
    let x = non_negative([8, 16]).to_device(&device().autodiff());
    assert_trains(training, |module| loss(module.forward(x.clone())));
}

#[test]
fn only_unfrozen_blocks_train() {
    let device = device().autodiff();
    let x = non_negative([8, 16]).to_device(&device);
    for freeze in [Module::no_grad as fn(PlainBlock<DensePath>) -> _, Module::freeze] {
        let TwoBlocks { a, b } = TwoBlocks::new(&device);
        let module = TwoBlocks { a: freeze(a), b };
        let before = parameters(&module);
        let grads = loss(module.forward(x.clone())).backward();
        let with_gradient = gradients(&module, &grads);
        assert!(!with_gradient.is_empty() && with_gradient.keys().all(|path| path.starts_with("b.")));
        let grads = GradientsParams::from_grads(grads, &module);
        let after = parameters(&SgdConfig::new().init().step(LR, module, grads));
        for (path, values) in &after {
            let trained = path.starts_with("b.") && !path.contains(".running_");
            assert!(path.contains(".running_") || trained == (*values != before[path]), "{path}");
        }
    }
}

#[test]
fn blocks_without_a_seed_draw_different_weights() {
    let block = || PlainBlockConfig::new(ConvPathConfig::new(8, 8)).init(&device());
    let weights = |block: &PlainBlock<ConvPath>| block.main_path.conv1.weight.val().into_data();
    assert_ne!(weights(&block()), weights(&block()));
    let seeded = || PlainBlockConfig::new(ConvPathConfig::new(8, 8)).with_seed(5).init(&device());
    assert_eq!(weights(&seeded()), weights(&seeded()));
    // Burn's initialiser draws them from He's normal distribution. Without a norm, there are biases, which are zero.
    let path = ConvPathConfig::new(64, 64).with_norm(Norm::None).init(&device());
    let values: Vec<f64> = path.conv1.weight.val().into_data().iter::<f64>().collect();
    let variance = values.iter().map(|w| w * w).sum::<f64>() / values.len() as f64;
    assert!((variance * 64.0 * 9.0 / 2.0 - 1.0).abs() < 0.03, "{variance}");
    let bias = path.conv1.bias.unwrap().val().into_data();
    assert!(bias.iter::<f64>().all(|b| b == 0.0));
}

#[test]
fn an_empty_batch_gives_an_empty_output_and_keeps_running_statistics() {
    for device in [device(), device().autodiff()] {
        let dense = PlainBlockConfig::new(DensePathConfig::new(6, 8)).init(&device);
        assert_eq!(dense.forward(Tensor::<2>::zeros([0, 6], &device)).dims(), [0, 8]);
        let path = ConvPathConfig::new(4, 8).with_stride(2);
        for shortcut in [ShortcutOption::ZeroPad, ShortcutOption::Projection] {
            let block = ResidualBlockConfig::new(path.clone()).with_shortcut(shortcut).init(&device);
            let before = parameters(&block);
            assert_eq!(block.forward(Tensor::<4>::zeros([0, 4, 9, 9], &device)).dims(), [0, 8, 5, 5]);
            assert_eq!(parameters(&block.valid()), before);
        }
        for config in [cifar_resnet(8), preact_resnet(20), resnet18(10), dense_resnet(4, 3 * 32 * 32, 10)] {
            let network = config.with_width(4).init(&device);
            assert_eq!(network.forward(Tensor::<4>::zeros([0, 3, 32, 32], &device)).dims(), [0, 10]);
        }
    }
}

#[test]
#[should_panic(expected = "axis 1 of an input of shape [2, 3, 8, 8] must match the input channels of the first layer")]
fn inputs_with_wrong_channels_are_rejected() {
    PlainBlockConfig::new(ConvPathConfig::new(4, 4))
        .init(&device())
        .forward(Tensor::<4>::ones([2, 3, 8, 8], &device()));
}

#[test]
#[should_panic(expected = "channels must be at least 1")]
fn zero_channels_are_rejected() {
    ConvPathConfig::new(4, 0).init(&device());
}

#[test]
#[should_panic(expected = "4 input channels and 4 output channels must be divisible by 3 groups")]
fn groups_that_do_not_divide_the_channels_are_rejected() {
    let bottleneck = Bottleneck { channels: 4, groups: 3, stride: StrideAt::Middle };
    PlainBlockConfig::new(ConvPathConfig::new(8, 8).bottleneck(bottleneck)).init(&device());
}

#[test]
#[should_panic(expected = "dense networks have no stem")]
fn setting_the_stem_of_a_dense_network_panics() {
    let _ = dense_resnet(4, 8, 2).with_stem(Stem::Large);
}
