//! `‖∂L/∂W‖` by layer.
//!
//! With batch norm, gradients of plain nets at initialisation explode towards the input: for wide dense layers with
//! ReLUs their covariance grows by `π/(π-1)` a layer (Yang et al. 2019, "A Mean Field Theory of Batch Normalization",
//! section 4).

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{colors, cross_entropies, each, labels, listed, norm, training_images, values},
};
use crate::{
    LabError,
    chart::{Axis, Figure, Line, Panel},
    figures,
    statistics::Spread,
};
use burn::{module::Module, optim::GradientsParams};
use residual_data::Batch;
use residual_model::{BlockKind, BlockOptions, BranchScale, Family, Network, Norm, parameters::for_each_parameter};
use residual_train::{Evaluate, TrainConfig, TrainError, Training};

/// A layer's path and `‖∂L/∂W‖`.
pub(super) type LayerNorm = (String, f64);

/// All layers, in order, for the mean cross-entropy of a batch. The network is one that trains.
pub(super) fn by_layer(network: &Network, batch: &Batch) -> Vec<LayerNorm> {
    let loss = cross_entropies(network.forward(batch.images.clone()), batch.labels.clone()).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), network);
    let mut norms = Vec::new();
    for_each_parameter(network, |parameter| {
        let Some(layer) = parameter.path.strip_suffix(".weight") else { return };
        let gradient = match parameter.shape.len() {
            2 => gradients.get::<2>(parameter.id).map(values),
            _ => gradients.get::<4>(parameter.id).map(values),
        };
        norms.push((layer.to_string(), norm(&gradient.unwrap_or_default())));
    });
    norms
}

/// Those of the blocks' main paths, by shorter names.
pub(super) fn of_blocks(layers: &[LayerNorm]) -> Vec<LayerNorm> {
    let name = |path: &str| path.contains(".main_path.").then(|| path.replace(".main_path", ""));
    layers.iter().filter_map(|(path, norm)| Some((name(path)?, *norm))).collect()
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

/// Fails unless the subject's training has these steps, and can be done again.
pub(super) fn check(subject: &Subject, config: &InspectConfig) -> Result<(), LabError> {
    if config.steps.is_empty() {
        return Ok(());
    }
    subject.check_start()?;
    let training = &subject.config;
    let steps = training.steps(subject.dataset.train.len().div_ceil(training.batch_size));
    match config.steps.iter().find(|&&step| step > steps) {
        Some(step) => {
            let name = subject.name();
            Err(LabError::Setting(format!("the training of {name} has {steps} steps, none with the number {step}")))
        }
        None => Ok(()),
    }
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    let mut jobs = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let first = subject.config.network.init.seed;
        for norm in [Norm::Batch, Norm::None] {
            jobs.extend((0..config.inits).map(|k| (i, Job::Initial { norm, seed: first.wrapping_add(k) })));
        }
        let stages = !config.steps.is_empty() || (subject.is_trained() && subject.check_start().is_ok());
        jobs.extend(stages.then_some((i, Job::After { steps: 0 })));
        jobs.extend(config.steps.iter().filter(|&&steps| steps > 0).map(|&steps| (i, Job::After { steps })));
        jobs.extend(subject.is_trained().then_some((i, Job::Trained)));
    }
    let read = |subject: &Subject| subject.training_images(config.samples, &subject.device.clone().autodiff());
    let batches = subjects.iter().map(read).collect::<Result<Vec<Batch>, LabError>>()?;
    let layers = each(jobs.len(), config, watch, |i| {
        let (subject, job) = &jobs[i];
        layers(&subjects[*subject], job, &batches[*subject])
    })?;
    let measured: Vec<Measured> = jobs
        .into_iter()
        .zip(layers)
        .filter_map(|((subject, job), layers)| Some(Measured { subject, job, layers: layers? }))
        .collect();

    let labels = labels(subjects);
    let mut panels: Vec<Panel> = [(Norm::Batch, "with batch norm"), (Norm::None, "without norm")]
        .iter()
        .map(|(norm, words)| initial_panel(subjects, &labels, &measured, *norm, words))
        .collect();
    panels.extend((0..subjects.len()).filter_map(|i| training_panel(subjects, &labels, &measured, i)));
    let details = (0..subjects.len()).map(|i| sentence(&subjects[i], &labels[i], i, &measured)).collect();
    let ratio = |i| format!("{} in {}", rounded(Growth::of(&measured, i, Norm::Batch).in_all), labels[i]);
    let finding = format!(
        "At initialisation with batch norm, the gradient of the blocks' first layer is that of their last times {}.",
        listed((0..subjects.len()).map(ratio))
    );
    let figure = Figure {
        title: "Norm of the loss's gradient by layer".into(),
        subtitle: format!(
            "{}, {}; geometric means, from the input to the output, blocks unscaled",
            figures::counted(config.inits as usize, "initialisation"),
            training_images(subjects, config.samples)
        ),
        description: finding.clone(),
        columns: 2,
        panels,
    };
    Ok(Measurement { finding, details, figure, table: table(&labels, &measured) })
}

/// `None` of a training that diverged before.
fn layers(subject: &Subject, job: &Job, batch: &Batch) -> Result<Option<Vec<LayerNorm>>, LabError> {
    let device = subject.device.clone().autodiff();
    let network = match job {
        Job::Initial { norm, seed } => initial(subject, *norm, *seed).init(&device).train(),
        Job::After { steps } => match after(subject, *steps) {
            Err(LabError::Train(TrainError::Diverged { .. })) => return Ok(None),
            network => network?.train(),
        },
        Job::Trained => subject.trained().expect("only of trained subjects").train(),
    };
    Ok(Some(by_layer(&network, batch)))
}

/// The network as it would start with this norm and seed, main paths unscaled.
fn initial(subject: &Subject, norm: Norm, seed: u64) -> residual_model::NetworkConfig {
    let config = subject.config.clone().with_seed(seed).network;
    let blocks = BlockOptions { norm, branch_scale: BranchScale::One, ..config.blocks };
    config.with_blocks(blocks)
}

/// The network after so many steps of its training.
pub(super) fn after(subject: &Subject, steps: usize) -> Result<Network, LabError> {
    let device = subject.device.clone().autodiff();
    if steps == 0 {
        return Ok(subject.config.init(&device).valid());
    }
    let config = TrainConfig { evaluate: Evaluate::AtEnd, patience: None, ema: None, ..subject.config.clone() };
    Ok(Training::with_data(config, subject.dataset.clone(), device)?.with_stop_after(steps).run()?.network)
}

/// All initialisations of a subject.
fn of<'a>(measured: &'a [Measured], subject: usize, wanted: Norm) -> impl Iterator<Item = Vec<f64>> + 'a {
    measured.iter().filter_map(move |m| match m.job {
        Job::Initial { norm, .. } if norm == wanted && m.subject == subject => {
            Some(of_blocks(&m.layers).into_iter().map(|(_, norm)| norm).collect())
        }
        _ => None,
    })
}

fn initial_panel(subjects: &[Subject], labels: &[String], measured: &[Measured], norm: Norm, words: &str) -> Panel {
    let colors = colors(subjects);
    let line = |i: usize| {
        let inits: Vec<Vec<f64>> = of(measured, i, norm).collect();
        let names = measured.iter().find(|m| m.subject == i).map(|m| of_blocks(&m.layers)).unwrap_or_default();
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
    let stages: Vec<(String, &Measured)> = measured
        .iter()
        .filter(|m| m.subject == i)
        .filter_map(|m| match m.job {
            Job::After { steps } => Some((format!("step {steps}"), m)),
            Job::Trained => Some(("trained".to_string(), m)),
            Job::Initial { .. } => None,
        })
        .collect();
    let last = stages.len().checked_sub(1).filter(|&last| last > 0)?;
    let line = |(k, (label, m)): (usize, &(String, &Measured))| {
        let color = figures::shaded(subject.kind(), k as f64 / last as f64);
        let layers = of_blocks(&m.layers);
        let tip = |(layer, norm): &LayerNorm| format!("{label}, {layer}: {norm:.2e}");
        Line {
            points: layers.iter().enumerate().map(|(l, (_, norm))| (l as f64 + 1.0, *norm)).collect(),
            tips: layers.iter().map(tip).collect(),
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

/// How a subject's gradients grow towards the input at initialisation; not finite where they are not.
struct Growth {
    /// By how much a layer: the mean over initialisations, and half its 95 % interval.
    factor: f64,
    half_width: f64,
    /// From the last layer to the first.
    in_all: f64,
}

impl Growth {
    fn of(measured: &[Measured], subject: usize, norm: Norm) -> Self {
        let inits: Vec<Vec<f64>> = of(measured, subject, norm).collect();
        let factors: Vec<f64> = inits.iter().map(|norms| growth(norms)).collect();
        let ratio =
            |norms: &Vec<f64>| norms.first().zip(norms.last()).map_or(f64::NAN, |(first, last)| (first / last).ln());
        let ratios: Vec<f64> = inits.iter().map(ratio).collect();
        Self {
            factor: Spread::of(&factors).mean,
            half_width: Spread::half_width(&factors),
            in_all: Spread::of(&ratios).mean.exp(),
        }
    }

    /// `by a factor of 1.133 ± 0.006`
    fn words(&self) -> String {
        let Self { factor, half_width, .. } = self;
        match (factor.is_finite(), *half_width > 0.0) {
            (true, true) => format!("by a factor of {factor:.3} ± {half_width:.3}"),
            (true, false) => format!("by a factor of {factor:.3}"),
            (false, _) => "by no finite factor in some initialisation".into(),
        }
    }
}

/// `plain56: towards the input the gradient grows by a factor of 1.133 ± 0.006 a layer …`
fn sentence(subject: &Subject, label: &str, i: usize, measured: &[Measured]) -> String {
    let [normed, bare] = [Norm::Batch, Norm::None].map(|norm| Growth::of(measured, i, norm));
    let plain = subject.kind() == BlockKind::Plain;
    let theory = match (plain, subject.config.network.name().family) {
        (true, Family::Dense) => format!(
            ", its covariance by {:.3} (theory for wide layers: π/(π-1) = {:.3})",
            normed.factor * normed.factor,
            std::f64::consts::PI / (std::f64::consts::PI - 1.0)
        ),
        _ => String::new(),
    };
    let sure = normed.half_width > 0.0 && normed.factor - normed.half_width > 1.0 && normed.in_all > 10.0;
    let textbook = match plain && sure {
        true => " It does not vanish, as textbooks have it: it explodes.",
        false => "",
    };
    let interval = if normed.half_width > 0.0 { " (95 % intervals of means)" } else { "" };
    format!(
        "{label}: towards the input the gradient grows {} a layer with batch norm{theory}, and without {}{interval}.\
         {textbook}",
        normed.words(),
        bare.words()
    )
}

/// `3.2`, `718`, `4e6`
fn rounded(ratio: f64) -> String {
    match ratio {
        r if !r.is_finite() => "no finite number".into(),
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
