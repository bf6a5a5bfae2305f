//! The memory that the kernels keep for reuse is limited. The test has a process of its own, because it measures the
//! memory of the whole process.
#![cfg(target_os = "linux")]

use residual_kernels::{Buffer, Conv, ConvNorm, NeedsGradient, Norm, Path, Shortcut, SimdLevel, Weight, trim};

/// The resident memory of this process, in MiB.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / (1 << 20) as f64
}

/// A training step of two layers with 16 channels on one image.
fn step(side: usize) {
    let conv = Conv::same([16, 16], 3);
    let weight: Vec<f32> = (0..conv.weights()).map(|i| (i % 7) as f32 * 0.1 - 0.3).collect();
    // A `Vec` would leave its memory to the allocator of the C library.
    let mut input = Buffer::new(side * side * 16);
    input.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 11) as f32 * 0.1);
    let layer = ConvNorm {
        conv,
        weight: Weight::OutputsFirst(&weight),
        gain: None,
        bias: None,
        norm: Norm::Batch { epsilon: 1e-5 },
    };
    let path = Path {
        layers: vec![layer; 2],
        input: &input,
        image: [side; 2],
        scale: 1.0,
        shortcut: Shortcut::None,
        relu: true,
    };
    let level = SimdLevel::detect();
    let (_, saved) = path.train(level, true);
    let needs = NeedsGradient { input: true, shortcut: false, parameters: true };
    path.gradients(level, saved, &input, needs);
}

#[test]
fn memory_kept_for_reuse_is_limited_and_decays() {
    step(16);
    let before = resident();
    let sides = || (32..=480).step_by(16);
    let mut highest: f64 = 0.0;
    for side in sides() {
        step(side);
        highest = highest.max(resident());
    }
    // The largest step holds four images of 14 MiB and two padded ones at a time.
    assert!(highest - before < 200.0, "{before} MiB before, {highest} MiB at most over growing images");

    let large = resident();
    for _ in 0..2500 {
        step(64);
    }
    let small = resident();
    assert!(
        small < before + (large - before) / 2.0,
        "{before} MiB before, {large} MiB with large images, then {small}"
    );

    sides().for_each(step);
    trim();
    let trimmed = resident();
    // The C library keeps some of the memory that it gets back.
    assert!(trimmed < before + (large - before) / 3.0, "{before} MiB before, {trimmed} MiB after trimming");
    step(16);
}
