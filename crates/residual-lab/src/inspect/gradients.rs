//! `‖∂L/∂W‖` by layer.
//!
//! With batch norm, gradients of plain nets at initialisation explode towards the input: for wide dense layers with
//! ReLUs their covariance grows by `π/(π-1)` a layer (Yang et al. 2019, "A Mean Field Theory of Batch Normalization",
//! section 4).

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{colors, each, labels, listed, norm, training_images, values},
};
use crate::{
    LabError,
    chart::{Axis, Figure, Line, Panel},
    figures,
    statistics::Spread,
};
use burn::{module::Module, optim::GradientsParams, tensor::activation::log_softmax};
use residual_data::Batch;
use residual_model::{BlockKind, BlockOptions, BranchScale, Family, Network, Norm, parameters::for_each_parameter};
use residual_train::{Event, StopFlag, Training};

/// A layer's path and `‖∂L/∂W‖`.
pub(super) type LayerNorm = (String, f64);

/// The layers of the blocks' main paths, in order, for the mean cross-entropy of a batch. The network is one that
/// trains.
pub(super) fn by_layer(network: &Network, batch: &Batch) -> Vec<LayerNorm> {
    let logits = network.forward(batch.images.clone());
    let [samples, _] = logits.dims();
    let labels = batch.labels.clone().reshape([samples, 1]);
    let loss = log_softmax(logits, 1).gather(1, labels).mean().neg();
    let gradients = GradientsParams::from_grads(loss.backward(), network);
    let mut norms = Vec::new();
    for_each_parameter(network, |parameter| {
        if !(parameter.path.contains(".main_path.") && parameter.path.ends_with(".weight")) {
            return;
        }
        let gradient = match parameter.shape.len() {
            2 => gradients.get::<2>(parameter.id).map(values),
            _ => gradients.get::<4>(parameter.id).map(values),
        };
        let layer = parameter.path.trim_end_matches(".weight").replace(".main_path", "");
        norms.push((layer, norm(&gradient.unwrap_or_default())));
    });
    norms
}

/// The factor by which norms grow from each layer to the one before it: `exp(-slope)` of the least-squares line through
/// their logarithms.
pub(super) fn growth(norms: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> = norms
        .iter()
        .enumerate()
        .filter(|(_, norm)| norm.is_finite() && **norm > 0.0)
        .map(|(i, norm)| (i as f64, norm.ln()))
        .collect();
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (above, below) =
        points.iter().fold((0.0, 0.0), |(a, b), p| (a + (p.0 - x) * (p.1 - y), b + (p.0 - x) * (p.0 - x)));
    (-above / below).exp()
}

/// What is measured at once.
enum Job {
    Initial { norm: Norm, seed: u64 },
    After { steps: usize },
    Trained,
}

/// Norms by layer, and of what.
struct Measured {
    subject: usize,
    job: Job,
    layers: Vec<LayerNorm>,
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    let mut jobs = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let first = subject.config.network.init_config().seed;
        for norm in [Norm::Batch, Norm::None] {
            jobs.extend((0..config.inits).map(|k| (i, Job::Initial { norm, seed: first.wrapping_add(k) })));
        }
        jobs.extend(config.steps.iter().map(|&steps| (i, Job::After { steps })));
        jobs.extend(subject.is_trained().then_some((i, Job::Trained)));
    }
    let layers = each(jobs.len(), config, watch, |i| {
        let (subject, job) = &jobs[i];
        layers(&subjects[*subject], job, config.samples)
    })?;
    let measured: Vec<Measured> =
        jobs.into_iter().zip(layers).map(|((subject, job), layers)| Measured { subject, job, layers }).collect();

    let labels = labels(subjects);
    let mut panels: Vec<Panel> = [(Norm::Batch, "with batch norm"), (Norm::None, "without norm")]
        .iter()
        .map(|(norm, words)| initial_panel(subjects, &labels, &measured, *norm, words))
        .collect();
    panels.extend((0..subjects.len()).filter_map(|i| training_panel(subjects, &labels, &measured, i)));
    let details = (0..subjects.len()).map(|i| sentence(&subjects[i], &labels[i], i, &measured)).collect();
    let ratio = |i| format!("{} in {}", rounded(Growth::of(&measured, i, Norm::Batch).in_all), labels[i]);
    let finding = format!(
        "At initialisation with batch norm, the first layer's gradient is larger than the last's by a factor of {}.",
        listed((0..subjects.len()).map(ratio))
    );
    let figure = Figure {
        title: "Norm of the loss's gradient by layer".into(),
        subtitle: format!(
            "{} initialisations, {}; geometric means, from the input to the output",
            config.inits,
            training_images(subjects, config.samples)
        ),
        description: finding.clone(),
        columns: 2,
        panels,
    };
    Ok(Measurement { finding, details, figure, table: table(&labels, &measured) })
}

fn layers(subject: &Subject, job: &Job, samples: usize) -> Result<Vec<LayerNorm>, LabError> {
    let device = subject.device.clone().autodiff();
    let network = match job {
        Job::Initial { norm, seed } => initial(subject, *norm, *seed).init(&device).train(),
        Job::After { steps } => after(subject, *steps)?.train(),
        Job::Trained => subject.trained().expect("only of trained subjects").train(),
    };
    Ok(by_layer(&network, &subject.training_images(samples, &device)?))
}

/// The network as it would start with this norm and seed, main paths unscaled.
fn initial(subject: &Subject, norm: Norm, seed: u64) -> residual_model::NetworkConfig {
    let config = subject.config.clone().with_seed(seed).network;
    let blocks = BlockOptions { norm, branch_scale: BranchScale::One, ..*config.blocks() };
    config.with_blocks(blocks)
}

/// The network after so many steps of its training.
fn after(subject: &Subject, steps: usize) -> Result<Network, LabError> {
    let device = subject.device.clone().autodiff();
    if steps == 0 {
        return Ok(subject.config.init(&device).valid());
    }
    let (stop, mut taken) = (StopFlag::default(), 0);
    let flag = stop.clone();
    let training = Training::with_data(subject.config.clone(), subject.dataset.clone(), device)?
        .with_stop(stop)
        .with_observer(move |event| {
            if let Event::Step { .. } = event {
                taken += 1;
                if taken == steps {
                    flag.set();
                }
            }
        });
    let outcome = training.run()?;
    match outcome.iterations >= steps {
        true => Ok(outcome.network),
        false => Err(LabError::Setting(format!(
            "the training of {} has {} steps, none with the number {steps}",
            subject.name(),
            outcome.iterations
        ))),
    }
}

/// All initialisations of a subject.
fn of<'a>(measured: &'a [Measured], subject: usize, wanted: Norm) -> impl Iterator<Item = Vec<f64>> + 'a {
    measured.iter().filter_map(move |m| match m.job {
        Job::Initial { norm, .. } if norm == wanted && m.subject == subject => {
            Some(m.layers.iter().map(|(_, norm)| *norm).collect())
        }
        _ => None,
    })
}

fn initial_panel(subjects: &[Subject], labels: &[String], measured: &[Measured], norm: Norm, words: &str) -> Panel {
    let colors = colors(subjects);
    let line = |i: usize| {
        let inits: Vec<Vec<f64>> = of(measured, i, norm).collect();
        let names = measured.iter().find(|m| m.subject == i).map(|m| &m.layers[..]).unwrap_or_default();
        let point = |layer: usize| {
            let logs: Vec<f64> = inits.iter().map(|norms| norms[layer].ln()).collect();
            let Spread { mean, std } = Spread::of(&logs);
            let tip = format!("{}, {}: {:.2e}, times or over {:.2}", labels[i], names[layer].0, mean.exp(), std.exp());
            ((layer as f64 + 1.0, mean.exp()), tip)
        };
        let (points, tips) = (0..names.len()).map(point).unzip();
        Line { points, tips, ..Line::new(&labels[i], &colors[i]) }
    };
    panel(format!("At initialisation, {words}"), (0..subjects.len()).map(line).collect())
}

/// A subject's own norm, from the initialisation on.
fn training_panel(subjects: &[Subject], labels: &[String], measured: &[Measured], i: usize) -> Option<Panel> {
    let subject = &subjects[i];
    let own = subject.config.network.blocks().norm;
    let seed = subject.config.network.init_config().seed;
    let stages: Vec<(String, &Measured)> = measured
        .iter()
        .filter(|m| m.subject == i)
        .filter_map(|m| match m.job {
            Job::Initial { norm, seed: s } if norm == own && s == seed => Some(("step 0".to_string(), m)),
            Job::After { steps } => Some((format!("step {steps}"), m)),
            Job::Trained => Some(("trained".to_string(), m)),
            Job::Initial { .. } => None,
        })
        .collect();
    let last = stages.len().checked_sub(1).filter(|&last| last > 0)?;
    let line = |(k, (label, m)): (usize, &(String, &Measured))| {
        let color = figures::shaded(subject.kind(), k as f64 / last as f64);
        let tip = |(layer, norm): &LayerNorm| format!("{label}, {layer}: {norm:.2e}");
        Line {
            points: m.layers.iter().enumerate().map(|(l, (_, norm))| (l as f64 + 1.0, *norm)).collect(),
            tips: m.layers.iter().map(tip).collect(),
            ..Line::new(label, &color)
        }
    };
    Some(panel(format!("{} in training", labels[i]), stages.iter().enumerate().map(line).collect()))
}

fn panel(title: String, lines: Vec<Line>) -> Panel {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|p| p.1.is_finite() && p.1 > 0.0);
    let (least, most) = points().fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), p| (a.min(p.1), b.max(p.1)));
    let last = points().fold(1.0f64, |last, p| last.max(p.0));
    let y = Axis::log("gradient norm", least.min(most), most);
    Panel::new(title, Axis::until("layer of the blocks", last), y, lines)
}

/// How a subject's gradients grow towards the input at initialisation.
struct Growth {
    /// A layer: the mean over initialisations, and half its 95 % interval.
    factor: f64,
    half_width: f64,
    /// From the last layer to the first.
    in_all: f64,
    /// Whether it is a number in every initialisation.
    finite: bool,
}

impl Growth {
    fn of(measured: &[Measured], subject: usize, norm: Norm) -> Self {
        let inits: Vec<Vec<f64>> = of(measured, subject, norm).collect();
        let factors: Vec<f64> = inits.iter().map(|norms| growth(norms)).filter(|factor| factor.is_finite()).collect();
        let ratios = inits.iter().filter_map(|norms| Some((norms.first()? / norms.last()?).ln()));
        let ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
        Self {
            factor: Spread::of(&factors).mean,
            half_width: Spread::half_width(&factors),
            in_all: Spread::of(&ratios).mean.exp(),
            finite: ratios.len() == inits.len(),
        }
    }
}

/// `plain56: towards the input the gradient grows by a factor of 1.133 ± 0.006 a layer …`
fn sentence(subject: &Subject, label: &str, i: usize, measured: &[Measured]) -> String {
    let [normed, bare] = [Norm::Batch, Norm::None].map(|norm| Growth::of(measured, i, norm));
    let Growth { factor, half_width, .. } = normed;
    let plain = subject.kind() == BlockKind::Plain;
    let theory = match (plain, subject.config.network.name().family) {
        (true, Family::Dense) => format!(
            ", its covariance by {:.3} (theory for wide layers: π/(π-1) = {:.3})",
            factor * factor,
            std::f64::consts::PI / (std::f64::consts::PI - 1.0)
        ),
        _ => String::new(),
    };
    let textbook = match plain && factor - half_width > 1.0 && normed.in_all > 10.0 {
        true => " It does not vanish, as textbooks have it: it explodes.",
        false => "",
    };
    let bare = match bare.finite {
        true => format!("by {:.3} ± {:.3}", bare.factor, bare.half_width),
        false => "by no finite number in some initialisations".into(),
    };
    format!(
        "{label}: towards the input the gradient grows by a factor of {factor:.3} ± {half_width:.3} a layer with batch \
         norm{theory}, and without {bare} (95 % intervals of means).{textbook}"
    )
}

/// `3.2`, `718`, `4e6`
fn rounded(ratio: f64) -> String {
    match ratio {
        r if (0.1..10.0).contains(&r) => format!("{r:.1}"),
        r if (10.0..10_000.0).contains(&r) => format!("{r:.0}"),
        r => format!("{r:.0e}"),
    }
}

fn table(labels: &[String], measured: &[Measured]) -> Vec<Vec<String>> {
    let mut rows =
        vec![["network", "norm", "seed", "stage", "layer", "name", "gradient_norm"].map(String::from).to_vec()];
    for m in measured {
        let (norm, seed, stage) = match &m.job {
            Job::Initial { norm, seed } => (norm.to_string(), seed.to_string(), "initial".to_string()),
            Job::After { steps } => (String::new(), String::new(), format!("step {steps}")),
            Job::Trained => (String::new(), String::new(), "trained".to_string()),
        };
        for (l, (name, value)) in m.layers.iter().enumerate() {
            rows.push(vec![
                labels[m.subject].clone(),
                norm.clone(),
                seed.clone(),
                stage.clone(),
                (l + 1).to_string(),
                name.clone(),
                format!("{value:e}"),
            ]);
        }
    }
    rows
}
