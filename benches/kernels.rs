//! Benchmarks of the kernels on layers and blocks of networks for CIFAR and ImageNet. Run `cargo bench` in this
//! directory.
//!
//! The throughput is in floating-point operations: 1 Gelem/s is 1 GFLOP/s.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use residual_kernels::{ChannelPadding, Conv, ConvNorm, NeedsGradient, Norm, Path, Shortcut, SimdLevel, Weight};
use std::{hint::black_box, time::Duration};

/// Pseudorandom values between -1 and 1.
fn random_values(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The name, batch size, image height (equal to the width) and convolution of each layer.
fn layers() -> Vec<(&'static str, usize, usize, Conv)> {
    let strided = |channels, kernel| Conv { stride: 2, ..Conv::same(channels, kernel) };
    vec![
        ("3x3 16-16 @32", 64, 32, Conv::same([16, 16], 3)),
        ("3x3/2 16-32 @32", 64, 32, strided([16, 32], 3)),
        ("3x3 32-32 @16", 64, 16, Conv::same([32, 32], 3)),
        ("3x3 64-64 @8", 64, 8, Conv::same([64, 64], 3)),
        ("7x7/2 3-64 @224", 2, 224, Conv { padding: 3, ..strided([3, 64], 7) }),
        ("1x1 64-256 @56", 2, 56, Conv::same([64, 256], 1)),
        ("1x1 256-64 @56", 2, 56, Conv::same([256, 64], 1)),
        ("3x3 128-128 @28", 2, 28, Conv::same([128, 128], 3)),
        ("1x1/2 256-512 @56", 2, 56, strided([256, 512], 1)),
        ("3x3 256-256 @14", 2, 14, Conv::same([256, 256], 3)),
        ("3x3 512-512 @7", 8, 7, Conv::same([512, 512], 3)),
        ("1x1 512-2048 @7", 2, 7, Conv::same([512, 2048], 1)),
    ]
}

fn convolutions(criterion: &mut Criterion) {
    let level = SimdLevel::detect();
    for (name, batch, side, conv) in layers() {
        let input = random_values(batch * side * side * conv.channels[0]);
        let weight = random_values(conv.weights());
        let path = Path {
            layers: vec![ConvNorm { conv, weight: Weight::OutputsFirst(&weight), gain: None, bias: None, norm: Norm::None }],
            input: &input,
            image: [side; 2],
            scale: 1.0,
            shortcut: Shortcut::None,
            relu: false,
        };
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(2 * (batch * conv.multiply_adds([side; 2])) as u64));
        let weights = path.prepare(level);
        group.bench_function("forward", |b| b.iter(|| black_box(path.infer(level, &weights))));
        let (output, saved) = path.train(level, true);
        let dy = random_values(output.len());
        for (kind, input, parameters) in [("input gradient", true, false), ("weight gradient", false, true)] {
            let needs = NeedsGradient { input, shortcut: false, parameters };
            group.bench_function(kind, |b| {
                b.iter_batched(
                    || saved.clone(),
                    |saved| black_box(path.gradients(level, saved, &dy, needs)),
                    criterion::BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

/// Benchmarks the residual blocks of a CIFAR network, with batch norm.
fn blocks(criterion: &mut Criterion) {
    let level = SimdLevel::detect();
    for (channels, side) in [(16, 32), (32, 16), (64, 8)] {
        let batch = 64;
        let conv = Conv::same([channels; 2], 3);
        let [input, weight] = [batch * side * side * channels, conv.weights()].map(random_values);
        let [ones, zeros] = [1.0, 0.0].map(|v| vec![v; channels]);
        let (ones, zeros) = (&ones[..], &zeros[..]);
        let path = |norm| {
            let layer = ConvNorm { conv, weight: Weight::OutputsFirst(&weight), gain: Some(ones), bias: Some(zeros), norm };
            Path {
                layers: vec![layer; 2],
                input: &input,
                image: [side; 2],
                scale: 1.0,
                shortcut: Shortcut::Input { strength: 1.0, padding: ChannelPadding::BothSides },
                relu: true,
            }
        };
        let mut group = criterion.benchmark_group(format!("block {channels} @{side}"));
        let forward = 2 * (batch * 2 * conv.multiply_adds([side; 2])) as u64;
        group.throughput(Throughput::Elements(forward));
        let running = path(Norm::Running { mean: zeros, variance: ones, epsilon: 1e-5 });
        let weights = running.prepare(level);
        group.bench_function("inference", |b| b.iter(|| black_box(running.infer(level, &weights))));
        let path = path(Norm::Batch { epsilon: 1e-5 });
        group.throughput(Throughput::Elements(3 * forward));
        let dy = random_values(input.len());
        let needs = NeedsGradient { input: true, shortcut: false, parameters: true };
        for (kind, keep) in [("training", true), ("training, recomputed", false)] {
            group.bench_function(kind, |b| {
                b.iter(|| {
                    let (_, saved) = path.train(level, keep);
                    black_box(path.gradients(level, saved, &dy, needs))
                });
            });
        }
        group.finish();
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = kernels; config = quick(); targets = convolutions, blocks }
criterion_main!(kernels);
