//! Every kernel against the textbook's sums in `f64`, and gradients against finite differences of
//! those.

use crate::{Buffer, Conv, Layer, Level, MaxPool, Norm, Path, Shortcut, Wanted};
use proptest::prelude::*;

const EPSILON: f64 = 1e-5;

/// A path with its own numbers, in `f64`.
#[derive(Clone)]
struct Case {
    image: [usize; 2],
    batch: usize,
    input: Vec<f64>,
    layers: Vec<Tower>,
    shortcut: Around,
    scale: f64,
    relu: bool,
    dy: Vec<f64>,
}

#[derive(Clone)]
struct Tower {
    conv: Conv,
    norm: Kind,
    weight: Vec<f64>,
    gain: Vec<f64>,
    bias: Vec<f64>,
    mean: Vec<f64>,
    variance: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    None,
    Batch,
    Running,
}

#[derive(Clone)]
enum Around {
    None,
    Input(f64),
    Tensor(Vec<f64>, f64),
}

/// `z` by its definition.
fn convolve(conv: &Conv, image: [usize; 2], batch: usize, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let [height, width] = conv.output(image).unwrap();
    let [inputs, outputs] = conv.channels;
    let (group_inputs, group_outputs) = (inputs / conv.groups, outputs / conv.groups);
    let [rows, columns] = conv.kernel;
    let mut z = vec![0.0; batch * height * width * outputs];
    for n in 0..batch {
        for y in 0..height {
            for x_ in 0..width {
                for o in 0..outputs {
                    let mut sum = 0.0;
                    for i in 0..group_inputs {
                        for ky in 0..rows {
                            for kx in 0..columns {
                                let v = (y * conv.stride + ky * conv.dilation).wrapping_sub(conv.padding);
                                let u = (x_ * conv.stride + kx * conv.dilation).wrapping_sub(conv.padding);
                                if v < image[0] && u < image[1] {
                                    let channel = o / group_outputs * group_inputs + i;
                                    sum += x[((n * image[0] + v) * image[1] + u) * inputs + channel]
                                        * weight[((o * group_inputs + i) * rows + ky) * columns + kx];
                                }
                            }
                        }
                    }
                    z[((n * height + y) * width + x_) * outputs + o] = sum;
                }
            }
        }
    }
    z
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let around = match &self.shortcut {
            Around::None => "none",
            Around::Input(_) => "input",
            Around::Tensor(..) => "tensor",
        };
        let layers: Vec<_> = self.layers.iter().map(|layer| (layer.conv, layer.norm)).collect();
        write!(f, "{} images of {:?}, relu {}, shortcut {around}, {layers:#?}", self.batch, self.image, self.relu)
    }
}

impl Case {
    fn output_image(&self) -> [usize; 2] {
        self.layers.iter().fold(self.image, |image, layer| layer.conv.output(image).unwrap())
    }

    fn forward(&self) -> Vec<f64> {
        self.forward_and_variance().0
    }

    /// The output, and the smallest variance that a norm measures in the batch.
    fn forward_and_variance(&self) -> (Vec<f64>, f64) {
        let mut least = f64::INFINITY;
        let mut image = self.image;
        let mut a = self.input.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let channels = layer.conv.channels[1];
            let mut z = convolve(&layer.conv, image, self.batch, &a, &layer.weight);
            image = layer.conv.output(image).unwrap();
            for c in 0..channels {
                let values: Vec<f64> = z[c..].iter().step_by(channels).copied().collect();
                let count = values.len() as f64;
                let (mean, variance) = match layer.norm {
                    Kind::None => (0.0, 1.0 - EPSILON),
                    Kind::Running => (layer.mean[c], layer.variance[c]),
                    Kind::Batch => {
                        let mean = values.iter().sum::<f64>() / count;
                        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
                        least = least.min(variance);
                        (mean, variance)
                    }
                };
                for v in z[c..].iter_mut().step_by(channels) {
                    *v = layer.gain[c] * (*v - mean) / (variance + EPSILON).sqrt() + layer.bias[c];
                    if i + 1 < self.layers.len() {
                        *v = v.max(0.0);
                    }
                }
            }
            a = z;
        }
        let channels = [self.layers[0].conv.channels[0], self.layers.last().unwrap().conv.channels[1]];
        let stride: usize = self.layers.iter().map(|layer| layer.conv.stride).product();
        let before = channels[1].saturating_sub(channels[0]) / 2;
        for (at, v) in a.iter_mut().enumerate() {
            let (pixel, c) = (at / channels[1], at % channels[1]);
            let (row, x) = (pixel / image[1], pixel % image[1]);
            let (n, y) = (row / image[0], row % image[0]);
            *v *= self.scale;
            *v += match &self.shortcut {
                Around::None => 0.0,
                Around::Tensor(values, strength) => strength * values[at],
                Around::Input(strength) => match c.checked_sub(before).filter(|c| *c < channels[0]) {
                    Some(c) => {
                        let from = ((n * self.image[0] + y * stride) * self.image[1] + x * stride) * channels[0] + c;
                        strength * self.input[from]
                    }
                    None => 0.0,
                },
            };
            if self.relu {
                *v = v.max(0.0);
            }
        }
        (a, least)
    }

    fn loss(&self) -> f64 {
        self.forward().iter().zip(&self.dy).map(|(y, dy)| y * dy).sum()
    }

    /// `∂loss/∂v` of the number that `at` finds, by central differences; `None` near a ReLU's corner.
    fn difference(&self, at: impl Fn(&mut Self) -> &mut f64) -> Option<f64> {
        let slope = |step: f64| {
            let moved = |step: f64| {
                let mut case = self.clone();
                *at(&mut case) += step;
                case.loss()
            };
            (moved(step) - moved(-step)) / (2.0 * step)
        };
        let (near, far) = (slope(1e-6), slope(1e-5));
        ((near - far).abs() < 1e-4 * (1.0 + near.abs())).then_some(near)
    }

    /// Calls `f` with the same path for the kernels.
    fn run<R>(&self, f: impl FnOnce(&Path, &[f32]) -> R) -> R {
        let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
        let numbers: Vec<[Vec<f32>; 5]> = self
            .layers
            .iter()
            .map(|l| [&l.weight, &l.gain, &l.bias, &l.mean, &l.variance].map(|values| narrow(values)))
            .collect();
        let layers = self.layers.iter().zip(&numbers).map(|(layer, [weight, gain, bias, mean, variance])| Layer {
            conv: layer.conv,
            weight,
            gain: Some(gain),
            bias: Some(bias),
            norm: match layer.norm {
                Kind::None => Norm::None,
                Kind::Batch => Norm::Batch { epsilon: EPSILON as f32 },
                Kind::Running => Norm::Running { mean, variance, epsilon: EPSILON as f32 },
            },
        });
        let input = narrow(&self.input);
        let tensor = match &self.shortcut {
            Around::Tensor(values, _) => narrow(values),
            _ => Vec::new(),
        };
        let path = Path {
            layers: layers.collect(),
            input: &input,
            image: self.image,
            scale: self.scale as f32,
            shortcut: match &self.shortcut {
                Around::None => Shortcut::None,
                Around::Input(strength) => Shortcut::Input { strength: *strength as f32 },
                Around::Tensor(_, strength) => Shortcut::Tensor { values: &tensor, strength: *strength as f32 },
            },
            relu: self.relu,
        };
        f(&path, &narrow(&self.dy))
    }
}

/// The largest difference, as a share of the largest number.
fn distance(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / scale).fold(0.0, f64::max)
}

/// Numbers that look random, from -1 to 1.
fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn conv() -> impl Strategy<Value = Conv> {
    let odd = prop_oneof![1usize..6, Just(16), Just(17), Just(32), Just(40)];
    (odd.clone(), odd, prop_oneof![Just(1usize), Just(3), 1usize..5], 1usize..3, 0usize..3, 1usize..3, 1usize..4)
        .prop_map(|(inputs, outputs, kernel, stride, padding, dilation, groups)| Conv {
            channels: [inputs * groups, outputs * groups],
            kernel: [kernel, if kernel == 2 { 3 } else { kernel }],
            stride,
            padding,
            dilation,
            groups,
        })
}

fn tower(conv: Conv, norm: Kind, seed: u64) -> Tower {
    let outputs = conv.channels[1];
    let spread = 1.0 / ((conv.weights() / outputs) as f64).sqrt();
    Tower {
        conv,
        norm,
        weight: numbers(seed + 1, conv.weights()).iter().map(|v| v * spread).collect(),
        gain: if norm == Kind::None { vec![1.0; outputs] } else { numbers(seed + 2, outputs) },
        bias: numbers(seed + 3, outputs),
        mean: numbers(seed + 4, outputs),
        variance: numbers(seed + 5, outputs).iter().map(|v| v + 1.5).collect(),
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::None), Just(Kind::Batch), Just(Kind::Running)]
}

/// Paths of one to three layers, of which the first may be any convolution.
fn case() -> impl Strategy<Value = Case> {
    let more = proptest::collection::vec((prop_oneof![Just(1usize), Just(3)], 1usize..20, kind()), 0..3);
    (conv(), kind(), more, 1usize..6, 1usize..9, 1usize..9, 0usize..3, any::<bool>(), any::<u32>()).prop_filter_map(
        "the kernel is larger than the image",
        |(conv, norm, more, batch, height, width, around, relu, seed)| {
            let seed = u64::from(seed);
            let image = [height, width];
            conv.output(image)?;
            let mut convs = vec![(conv, norm)];
            for (kernel, channels, norm) in more {
                let before = convs.last().unwrap().0.channels[1];
                convs.push((Conv::same([before, channels], kernel), norm));
            }
            let layers: Vec<Tower> = convs
                .into_iter()
                .enumerate()
                .map(|(i, (conv, norm))| tower(conv, norm, seed + 10 * i as u64))
                .collect();
            let mut case = Case {
                image,
                batch,
                input: numbers(seed + 100, batch * height * width * conv.channels[0]),
                layers,
                shortcut: Around::None,
                scale: 0.7,
                relu,
                dy: Vec::new(),
            };
            let output = case.output_image();
            let outputs = case.layers.last().unwrap().conv.channels[1];
            let count = batch * output[0] * output[1] * outputs;
            case.dy = numbers(seed + 101, count);
            case.shortcut = match around {
                1 => Around::Tensor(numbers(seed + 102, count), 0.8),
                2 if output == image.map(|side| side.div_ceil(conv.stride)) && conv.channels[0] <= outputs => {
                    Around::Input(0.9)
                }
                _ => Around::None,
            };
            Some(case)
        },
    )
}

/// A block with an identity shortcut and norms by given statistics.
fn inferred_case(convs: &[Conv], image: [usize; 2], batch: usize, relu: bool, seed: u32) -> Case {
    let mut case = Case {
        image,
        batch,
        input: numbers(u64::from(seed), batch * image[0] * image[1] * convs[0].channels[0]),
        layers: convs.iter().map(|conv| tower(*conv, Kind::Running, u64::from(seed))).collect(),
        shortcut: Around::Input(0.9),
        scale: 0.7,
        relu,
        dy: Vec::new(),
    };
    case.dy = numbers(u64::from(seed), case.input.len());
    case
}

const ALL: Wanted = Wanted { input: true, shortcut: true, parameters: true };

/// A channel that hardly varies has a variance that is nothing but rounding, and through `1 / √(variance + ε)`
/// so has its gradient: few pixels, or a ReLU before that lets nothing through.
fn well_conditioned(case: &Case) -> bool {
    case.forward_and_variance().1 > 0.01
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn outputs_are_the_textbooks(case in case()) {
        prop_assume!(well_conditioned(&case));
        let expected = case.forward();
        case.run(|path, _| {
            for level in Level::available() {
                let (output, _) = path.train(level, true);
                prop_assert!(distance(&output, &expected) < 2e-5, "{level}: {}", distance(&output, &expected));
                if case.layers.iter().all(|layer| layer.norm != Kind::Batch) {
                    let output = path.infer(level, &path.prepare());
                    prop_assert!(distance(&output, &expected) < 2e-5, "inference, {level}: {}", distance(&output, &expected));
                }
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    #[test]
    fn wide_convolutions_are_the_textbooks(
        height in 1usize..12, width in 1usize..12, batch in 1usize..6, seed in any::<u32>(), relu in any::<bool>(),
        channels in prop_oneof![Just([64usize, 64]), Just([80, 64]), Just([64, 96])],
    ) {
        let case = inferred_case(&[Conv::same(channels, 3), Conv::same([channels[1], channels[0]], 3)], [height, width], batch, relu, seed);
        let expected = case.forward();
        case.run(|path, _| {
            for level in Level::available() {
                let output = path.infer(level, &path.prepare());
                prop_assert!(distance(&output, &expected) < 1e-5, "{level}: {}", distance(&output, &expected));
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    #[test]
    fn gradients_are_the_differences_of_the_textbooks_loss(case in case(), picks in proptest::collection::vec(any::<u32>(), 6)) {
        prop_assume!(well_conditioned(&case));
        case.run(|path, dy| {
            for level in Level::available() {
                let (output, saved) = path.train(level, true);
                let gradients = path.gradients(level, &output, saved, dy, ALL);
                let close = |name: &str, got: &[f32], at: &dyn Fn(&mut Case) -> &mut Vec<f64>, pick: u32| {
                    let index = pick as usize % got.len();
                    let largest = got.iter().fold(0.1f32, |m, v| m.max(v.abs()));
                    if let Some(expected) = case.difference(|case| &mut at(case)[index]) {
                        let error = (f64::from(got[index]) - expected).abs() / f64::from(largest);
                        prop_assert!(error < 2e-3, "{level}, {name}[{index}]: {} and {expected}", got[index]);
                    }
                    Ok(())
                };
                for pick in &picks {
                    close("input", gradients.input.as_ref().unwrap(), &|case| &mut case.input, *pick)?;
                    if let Some(shortcut) = &gradients.shortcut {
                        close("shortcut", shortcut, &|case| match &mut case.shortcut {
                            Around::Tensor(values, _) => values,
                            _ => unreachable!(),
                        }, *pick)?;
                    }
                    for (i, layer) in gradients.layers.iter().enumerate() {
                        close("weight", &layer.weight, &move |case| &mut case.layers[i].weight, *pick)?;
                        close("bias", &layer.bias, &move |case| &mut case.layers[i].bias, *pick)?;
                        close("gain", &layer.gain, &move |case| &mut case.layers[i].gain, *pick)?;
                    }
                }
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits(case in case()) {
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let results: Vec<_> = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.run(|path, dy| {
                let level = Level::detect();
                let (output, saved) = path.train(level, true);
                let gradients = path.gradients(level, &output, saved, dy, ALL);
                let weights: Vec<_> = gradients.layers.iter().map(|layer| bits(&layer.weight)).collect();
                (bits(&output), bits(&gradients.input.unwrap()), weights)
            }))
        }).into();
        prop_assert_eq!(&results[0], &results[1]);
        prop_assert_eq!(&results[0], &results[2]);
    }

    #[test]
    fn recomputing_gives_the_same_bits(case in case()) {
        case.run(|path, dy| {
            let level = Level::detect();
            let gradients = [true, false].map(|keep| {
                let (output, saved) = path.train(level, keep);
                path.gradients(level, &output, saved, dy, ALL)
            });
            let [kept, recomputed] = gradients.map(|g| g.layers.iter().map(|l| bits(&l.weight)).chain([bits(&g.input.unwrap())]).collect::<Vec<_>>());
            prop_assert_eq!(kept, recomputed);
            Ok::<(), TestCaseError>(())
        })?;
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_dropped_buffer_is_used_again() {
    let buffer = Buffer::zeros(123_457);
    let place = buffer.as_ptr();
    assert_eq!(place as usize % 64, 0);
    drop(buffer);
    assert_eq!(Buffer::new(123_457).as_ptr(), place);
}

#[test]
fn nan_and_infinity_reach_every_output_that_sees_them() {
    for channels in [8, 16, 64] {
        let conv = Conv::same([channels; 2], 3);
        let weight: Vec<f32> = numbers(1, conv.weights()).iter().map(|v| *v as f32).collect();
        let [ones, zeros] = [1.0f32, 0.0].map(|v| vec![v; channels]);
        let norm = Norm::Running { mean: &zeros, variance: &ones, epsilon: 1e-5 };
        for bad in [f32::NAN, f32::INFINITY] {
            let mut input = vec![0.5f32; 7 * 7 * channels];
            input[(3 * 7 + 3) * channels] = bad;
            let layer = Layer { conv, weight: &weight, gain: Some(&ones), bias: Some(&zeros), norm };
            let shortcut = Shortcut::Input { strength: 1.0 };
            let path = Path { layers: vec![layer], input: &input, image: [7, 7], scale: 1.0, shortcut, relu: true };
            for level in Level::available() {
                for output in [path.infer(level, &path.prepare()), path.train(level, true).0] {
                    let wild = |pixel: usize| output[pixel * channels..][..channels].iter().any(|v| !v.is_finite());
                    assert!((2..5).all(|y| (2..5).all(|x| wild(y * 7 + x))), "{bad} with {channels} channels, {level}");
                    assert!(!wild(0), "{bad} went too far");
                }
            }
        }
    }
    let pool = MaxPool { channels: 2, window: 3, stride: 2, padding: 1 };
    let mut image = vec![1.0f32; 5 * 5 * 2];
    image[(2 * 5 + 2) * 2] = f32::NAN;
    let output = pool.forward(Level::detect(), &image, [5, 5]);
    assert!(output[(3 + 1) * 2].is_nan() && output[(3 + 1) * 2 + 1] == 1.0);
}
