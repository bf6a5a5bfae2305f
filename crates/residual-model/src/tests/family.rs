//! Tests of ImageNet, bottleneck, pre-activation, grouped and wide networks, and of operations on whole networks.

use super::{Double, check_gradients, device, double, gradients, non_negative, parameters};
use crate::{stochastic_depth::survivors, *};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Distribution, Tensor},
};
use strum::VariantArray;

fn config(name: &str) -> NetworkConfig {
    let name: NetName = name.parse().unwrap();
    let (image, classes) = if name.family.is_for_small_images() || name.family == Family::Dense {
        ([3, 32, 32], 10)
    } else {
        ([3, 224, 224], 1000)
    };
    NetworkConfig::new(name, image, classes)
}

fn small(name: &str) -> NetworkConfig {
    NetworkConfig::new(name.parse().unwrap(), [3, 16, 16], 10).with_width(4)
}

fn conv(network: &Network) -> &ConvBackbone {
    let Backbone::Conv(backbone) = &network.backbone else { panic!("expected a convolutional network") };
    backbone
}

/// The networks of He et al. 2015, Xie et al. 2017 and Zagoruyko & Komodakis 2016 with torchvision's counts, and those
/// of He et al. 2016.
#[test]
fn networks_have_the_published_parameters() {
    let published = [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnet50_v1", 25_557_032),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x8d", 88_791_336),
        ("wide_resnet50_2", 68_883_240),
        ("wide_resnet101_2", 126_886_696),
    ];
    for (name, parameters) in published {
        assert_eq!(config(name).summary().parameters(), parameters, "{name}");
    }
    let modules = [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("resnext50_32x4d", 25_028_904)];
    for (name, parameters) in modules {
        assert_eq!(summary::trainable_parameters(&config(name).init(&device())), parameters, "{name}");
    }
    // He et al. 2016 report 1.7M and, in table 4, 10.2M.
    let millions = |name: &str| (config(name).summary().parameters() as f64 / 1e5).round() / 10.0;
    assert_eq!([millions("preact_resnet164"), millions("preact_resnet1001")], [1.7, 10.3]);
}

/// torchvision reports multiply-adds as GFLOPS.
#[test]
fn networks_have_the_published_multiply_adds() {
    let published = [
        ("resnet18", 1.81),
        ("resnet34", 3.66),
        ("resnet50", 4.09),
        ("resnet101", 7.80),
        ("resnet152", 11.51),
        ("resnext50_32x4d", 4.23),
        ("wide_resnet50_2", 11.40),
    ];
    for (name, giga) in published {
        let ours = config(name).summary().multiply_adds() as f64 / 1e9;
        assert!((ours - giga).abs() < 0.006, "{name}: {ours}");
    }
    // With the stride in the first 1x1 convolution, ResNet-50 needs fewer (He et al. 2015, table 1: 3.8 billion).
    assert!((config("resnet50_v1").summary().multiply_adds() as f64 / 1e9 - 3.8).abs() < 0.06);
}

#[test]
fn published_networks_have_the_depth_in_their_name() {
    for name in PUBLISHED {
        let config = config(name);
        assert_eq!(config.name().to_string(), *name);
        let plain = config.with_kind(BlockKind::Plain);
        let weighted = plain.summary().rows().iter().filter(|row| row.multiply_adds > 0).count();
        assert_eq!(weighted, plain.name().depth, "{name}");
    }
}

#[test]
fn summaries_match_the_modules() {
    let names = [
        "resnet18",
        "plain34",
        "resnet50_v1",
        "plain50",
        "preact_resnet18",
        "preact_resnet50",
        "preact_plain20",
        "preact_resnet29",
        "resnext50_32x4d",
        "wide_resnet50_2",
    ];
    for name in names {
        for shortcut in [ShortcutOption::Projection, ShortcutOption::ProjectAll, ShortcutOption::ZeroPad] {
            for &norm in Norm::VARIANTS {
                let config = NetworkConfig::new(name.parse().unwrap(), [2, 16, 16], 7).with_width(16);
                let config = config.with_shortcut(shortcut).with_norm(norm);
                let counted = summary::trainable_parameters(&config.init(&device())) as u64;
                assert_eq!(config.summary().parameters(), counted, "{name} {shortcut} {norm}");
            }
        }
    }
}

#[test]
fn plain_networks_start_with_the_weights_of_their_residual_twins() {
    for [plain, residual] in [["plain50", "resnet50"], ["preact_plain29", "preact_resnet29"], ["plain18", "resnet18"]] {
        let [plain, mut residual] = [plain, residual].map(|name| parameters(&small(name).init(&device())));
        residual.retain(|path, _| !path.contains(".shortcut."));
        assert!(plain.len() > 20 && plain == residual);
    }
}

#[test]
fn zero_init_makes_pre_activation_blocks_the_identity() {
    let blocks = BlockOptions { shortcut: ShortcutOption::ZeroPad, ..BlockOptions::default() };
    for name in ["preact_resnet20", "preact_resnet29"] {
        let config = small(name).with_blocks(blocks).with_init(InitConfig { seed: 1, zero_init: true });
        let network = config.init(&device());
        let block = &conv(&network).layer1.blocks[1];
        let channels = config.stages()[0].channels;
        // Negative values also pass, because no ReLU follows the addition.
        let a = non_negative([2, channels, 5, 5]) - 1.0;
        block.forward(a.clone()).into_data().assert_eq(&a.into_data(), true);
        let plain = config.with_kind(BlockKind::Plain).init(&device());
        let a = non_negative([2, channels, 5, 5]);
        conv(&plain).layer1.blocks[1].forward(a.clone()).into_data().assert_eq(&a.zeros_like().into_data(), true);
    }
}

#[test]
fn bottleneck_and_pre_activation_gradients_match_finite_differences() {
    let device = device().autodiff();
    let bottleneck = |stride, groups| Bottleneck { channels: 4, groups, stride };
    for (stride, groups) in [(StrideAt::First, 1), (StrideAt::Middle, 2)] {
        let path = ConvPathConfig::new(2, 6).with_stride(2).bottleneck(bottleneck(stride, groups));
        check_gradients(
            || ResidualBlockConfig::new(path.clone()).with_seed(0).init(&device).map(&mut Double),
            |block| {
                let out = block.forward(double([3, 2, 5, 5], 0));
                (out.clone() * double(out.dims(), 3)).sum()
            },
        );
    }
    let blocks = BlockOptions { skip_strength: 0.7, ..BlockOptions::default() };
    for shortcut in [ShortcutOption::ZeroPad, ShortcutOption::Projection] {
        let config = NetworkConfig::conv([2, 5, 5], 3, [1, 1])
            .with_width(3)
            .with_activation(Activation::Pre)
            .with_blocks(BlockOptions { shortcut, ..blocks });
        check_gradients(
            || config.init(&device).map(&mut Double),
            |network| {
                let out = network.forward(double([4, 2, 5, 5], 0));
                (out.clone() * double(out.dims(), 3)).sum()
            },
        );
    }
}

#[test]
fn output_stride_keeps_resolution_and_parameters() {
    let image = Tensor::<4>::ones([1, 3, 64, 64], &device());
    for (output_stride, sizes) in [(None, [16, 8, 4, 2]), (Some(16), [16, 8, 4, 4]), (Some(8), [16, 8, 8, 8])] {
        let config = NetworkConfig::new("resnet50".parse().unwrap(), [3, 64, 64], 10).with_width(4);
        let parameters = config.summary().parameters();
        let config = config.with_output_stride(output_stride);
        assert_eq!(config.summary().parameters(), parameters);
        let features = config.init(&device()).features(image.clone());
        for ((stage, size), listed) in features.stages.iter().zip(sizes).zip(config.stages()) {
            assert_eq!(stage.dims(), [1, listed.channels, size, size]);
            assert_eq!(listed.stride.map(|stride| 64 / stride), Some(size));
        }
        let rows = config.summary();
        let last = rows.rows().iter().rfind(|row| row.output.len() == 3).unwrap();
        assert_eq!(last.output[1..], [sizes[3], sizes[3]]);
    }
}

#[test]
fn features_match_the_forward_pass() {
    for name in ["resnet20", "preact_resnet20", "resnet18", "dense-resnet8"] {
        let config = small(name);
        let network = config.init(&device());
        let images = non_negative([2, 3, 16, 16]);
        let Features { stages, embedding } = network.features(images.clone());
        assert_eq!(stages.len(), config.stages().len());
        for (stage, info) in stages.iter().zip(config.stages()) {
            assert_eq!(stage.dims()[1], info.channels, "{name}");
        }
        assert_eq!(embedding.dims(), [2, config.embedding()]);
        let logits = network.classify(embedding.clone());
        logits.into_data().assert_eq(&network.forward(images.clone()).into_data(), true);
        embedding.into_data().assert_eq(&network.backbone.forward(images).into_data(), true);
    }
}

#[test]
fn a_stage_gives_the_same_output_as_in_a_network() {
    let network = small("resnet20").with_seed(3).init(&device());
    let first = ConvPathConfig::new(4, 8).with_stride(2);
    let stage = StageConfig::new(first, 3).with_shortcut(ShortcutOption::ZeroPad);
    let record = conv(&network).layer2.clone().into_record();
    let stage = stage.init(&device()).load_record(record);
    let a = non_negative([2, 4, 6, 6]);
    let expected = conv(&network).layer2.forward(a.clone());
    stage.forward(a).into_data().assert_eq(&expected.into_data(), true);
}

#[test]
fn published_functions_match_published_names() {
    let by_function = [
        ("resnet18", resnet18(1000)),
        ("resnet34", resnet34(1000)),
        ("resnet50", resnet50(1000)),
        ("resnet101", resnet101(1000)),
        ("resnet152", resnet152(1000)),
        ("plain18", plain18(1000)),
        ("plain34", plain34(1000)),
        ("plain50", plain50(1000)),
        ("resnext50_32x4d", resnext50_32x4d(1000)),
        ("resnext101_32x8d", resnext101_32x8d(1000)),
        ("resnext101_64x4d", resnext101_64x4d(1000)),
        ("wide_resnet50_2", wide_resnet50_2(1000)),
        ("wide_resnet101_2", wide_resnet101_2(1000)),
        ("preact_resnet18", preact_resnet18(1000)),
        ("preact_resnet50", preact_resnet50(1000)),
        ("resnet56", cifar_resnet(56)),
        ("plain56", cifar_plain(56)),
        ("preact_resnet164", preact_resnet(164)),
        ("preact_plain110", preact_plain(110)),
        ("dense-resnet20", dense_resnet(20, 3072, 10)),
        ("dense-plain20", dense_plain(20, 3072, 10)),
    ];
    for (name, network) in by_function {
        assert_eq!(network, config(name), "{name}");
        assert_eq!(network.name().to_string(), name);
    }
}

#[test]
fn setting_one_option_keeps_the_others() {
    let config = resnet50(10).with_norm(Norm::None);
    assert_eq!(config.blocks.shortcut, ShortcutOption::Projection);
    assert_eq!(cifar_resnet(20).with_skip_strength(0.5).blocks.shortcut, ShortcutOption::ZeroPad);
    assert_eq!(BlockOptions::default().shortcut, ResidualBlockConfig::new(()).shortcut);
}

#[test]
fn earlier_configuration_files_still_load() {
    let json = r#"{"family":"conv","image":[3,32,32],"classes":10,"stages":[3,3,3],"stem":"small","width":16,
        "shape":"basic","activation":"post","output_stride":null,
        "blocks":{"kind":"residual","shortcut":"zero-pad","skip_strength":1.0,"branch_scale":"one","norm":"batch",
        "last_survival":1.0},"init":{"seed":0,"zero_init":false}}"#;
    assert_eq!(serde_json::from_str::<NetworkConfig>(json).unwrap(), cifar_resnet(20));
    let dense = serde_json::to_string(&dense_plain(20, 64, 10)).unwrap();
    assert_eq!(serde_json::from_str::<NetworkConfig>(&dense).unwrap(), dense_plain(20, 64, 10));
}

#[test]
fn survivors_are_reproducible_and_follow_the_linear_decay_rule() {
    assert_eq!(survivors(1, 7, &[0.5; 64]), survivors(1, 7, &[0.5; 64]));
    assert_ne!(survivors(1, 7, &[0.5; 64]), survivors(1, 8, &[0.5; 64]));
    assert_ne!(survivors(1, 7, &[0.5; 64]), survivors(2, 7, &[0.5; 64]));
    let probabilities: Vec<f64> = (1..=9).map(|l| stochastic_depth::survival(l, 9, 0.5)).collect();
    let mut counts = [0.0; 9];
    for step in 0..4000 {
        for (count, survives) in counts.iter_mut().zip(survivors(3, step, &probabilities)) {
            *count += f64::from(u8::from(survives));
        }
    }
    // The standard error of a fraction of 4000 draws is below 0.008.
    for (count, p) in counts.iter().zip(probabilities) {
        assert!((count / 4000.0 - p).abs() < 0.035, "{count} of 4000 at {p}");
    }
}

/// If the only block has survival probability 1/2, a training step uses or skips its main path, and inference halves
/// it.
#[test]
fn stochastic_depth_skips_blocks_in_training_and_scales_them_in_inference() {
    let blocks = BlockOptions { last_survival: 0.5, ..BlockOptions::default() };
    for activation in [Activation::Post, Activation::Pre] {
        let config =
            NetworkConfig::conv([3, 6, 6], 4, [1]).with_width(3).with_blocks(blocks).with_activation(activation);
        let with = |last_survival, skip: f64| {
            let blocks = BlockOptions { last_survival, branch_scale: BranchScale::One, skip_strength: skip, ..blocks };
            config.clone().with_blocks(blocks).init(&device())
        };
        let images = non_negative([2, 3, 6, 6]);
        let network = with(0.5, 1.0);
        let whole = with(1.0, 1.0).forward(images.clone());
        let mut seen = [false; 2];
        for step in 0..20 {
            let survives = survivors(5, step, &[0.5])[0];
            seen[usize::from(survives)] = true;
            let logits = network.forward_training(images.clone(), 5, step);
            let same = logits.into_data() == whole.to_data();
            assert_eq!(same, survives);
        }
        assert_eq!(seen, [true, true]);
        let NetworkBlock::Post(Block::Residual(block)) = &conv(&network).layer1.blocks[0] else { continue };
        let a = non_negative([2, 3, 6, 6]);
        let expected = burn::tensor::activation::relu(block.main_path.forward(a.clone()) * 0.5 + a.clone());
        block.forward(a).into_data().assert_eq(&expected.into_data(), true);
    }
}

#[test]
fn frozen_parts_get_no_gradients_and_keep_running_statistics() {
    let device = device().autodiff();
    for name in ["resnet8", "preact_resnet8"] {
        let network = small(name).init(&device).freeze_parts(&[Part::Stem, Part::Stage(1)]).unwrap();
        let before = parameters(&network);
        let images = Tensor::random([4, 3, 16, 16], Distribution::Default, &device);
        let grads = network.forward(images).powi_scalar(2).sum().backward();
        let with_gradient = gradients(&network, &grads);
        assert!(with_gradient.keys().all(|path| !Part::Stem.contains(path) && !Part::Stage(1).contains(path)));
        assert!(
            with_gradient.keys().any(|path| path.starts_with("layer2.")) && with_gradient.contains_key("fc.weight")
        );
        let after = parameters(&network.valid());
        let moved: Vec<&String> = before.keys().filter(|path| before[*path] != after[*path]).collect();
        assert!(!moved.is_empty() && moved.iter().all(|path| path.contains("running_") && !path.starts_with("layer1")));
    }
    // After an error, the network is unchanged and still trains.
    let network = small("resnet8").init(&device);
    let error = network.freeze_parts(&[Part::Stem, Part::Stage(4)]).unwrap_err();
    assert_eq!(error.to_string(), "the network has no part layer4, only stem, layer1, layer2, layer3, head");
    let grads = network.forward(Tensor::ones([2, 3, 16, 16], &device)).sum().backward();
    assert!(gradients(&network, &grads).contains_key("conv1.weight"));
}

/// Gives random values to every tensor, including running statistics.
struct Randomize;

impl ModuleMapper for Randomize {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let noise = tensor.random_like(Distribution::Uniform(0.5, 1.5));
        let random = if D == 1 { noise } else { tensor * noise };
        Param::from_mapped_value(id, random, mapper)
    }
}

#[test]
fn folding_batch_norms_keeps_the_output() {
    for name in
        ["resnet20", "preact_resnet20", "preact_resnet29", "resnet50", "plain34", "resnext50_32x4d", "dense-resnet8"]
    {
        let network = small(name).with_width(16).init(&device()).map(&mut Randomize);
        let images = Tensor::random([2, 3, 16, 16], Distribution::Normal(0.0, 1.0), &device());
        let whole: Vec<f32> = network.forward(images.clone()).into_data().iter::<f32>().collect();
        let folded_network = network.fold_batch_norm();
        let folded: Vec<f32> = folded_network.forward(images).into_data().iter::<f32>().collect();
        let largest = whole.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let worst = whole.iter().zip(&folded).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert!(worst <= 1e-5 * largest, "{name}: {worst} of {largest}");
        let norms = |network: &Network| parameters(network).keys().filter(|path| path.ends_with("gamma")).count();
        let preact_blocks = if name.starts_with("preact") { network.blocks().len() + 1 } else { 0 };
        assert_eq!(norms(&folded_network), preact_blocks, "{name}");
    }
}

#[test]
fn with_head_changes_only_the_head() {
    for name in ["resnet8", "dense-resnet8"] {
        let config = NetworkConfig::new(name.parse().unwrap(), [3, 8, 8], 10);
        let network = config.init(&device());
        let before = parameters(&network);
        let network = network.with_head(3, 7);
        assert_eq!(network.forward(non_negative([2, 3, 8, 8])).dims(), [2, 3]);
        let after = parameters(&network);
        assert!(before.iter().all(|(path, values)| path.starts_with("fc.") || after[path] == *values));
        assert_eq!(parameters(&config.init(&device()).with_head(3, 7)), after);
        assert_ne!(parameters(&config.init(&device()).with_head(3, 8)), after);
    }
}

#[test]
fn invalid_networks_are_rejected() {
    let error = |config: NetworkConfig| config.validate().unwrap_err().to_string();
    assert!(error(config("resnet18").with_output_stride(8)).contains("unset for basic blocks"));
    assert!(error(config("resnet50").with_output_stride(12)).contains("one of [4, 8, 16, 32], not 12"));
    assert!(error(NetworkConfig::conv([3, 8, 8], 10, [])).contains("the number of stages must be 1 to 4"));
    assert!(error(NetworkConfig::conv([3, 8, 8], 10, [1, 0])).contains("blocks in a stage must be at least 1"));
    let blocks = BlockOptions { last_survival: 0.0, ..BlockOptions::default() };
    assert!(error(config("resnet20").with_blocks(blocks)).contains("the survival probability must be above 0"));
    assert!(error(config("resnet50").with_width(0)).contains("width must be at least 1"));
}
