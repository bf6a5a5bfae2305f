//! Trainings with the shortcut weakened (He et al. 2016, "Identity Mappings", Table 1).

use super::{
    InspectConfig, Measurement, Subject, Watch,
    subject::{each, listed, numbered},
};
use crate::{
    LabError,
    chart::{Axis, Figure, Line, Marker, Panel},
    figures,
    statistics::Spread,
};
use residual_model::{BlockKind, BlockOptions};
use residual_train::{Evaluate, TrainConfig, TrainError, Training};

/// The skip strengths: 0 is the plain net, 1 the residual net.
const ALPHAS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// What a training came to: fractions misclassified, 1 where it diverged.
#[derive(Clone, Copy)]
pub(super) struct Errors {
    pub(super) train: f64,
    pub(super) test: f64,
    diverged: bool,
}

/// The subject's training with another skip strength and seed.
fn training(subject: &Subject, alpha: f64, seed: u64) -> TrainConfig {
    let config = subject.config.clone().with_seed(seed);
    let blocks = config.network.blocks;
    let blocks = match alpha {
        // The plain net itself, to whose blocks nothing is added, scaled or left out.
        0.0 => BlockOptions { kind: BlockKind::Plain, last_survival: 1.0, ..blocks },
        _ => BlockOptions { kind: BlockKind::Residual, skip_strength: alpha, ..blocks },
    };
    let network = config.network.clone().with_blocks(blocks);
    TrainConfig { evaluate: Evaluate::AtEnd, patience: None, ..config.with_network(network) }
}

/// Trains the subject with this skip strength and seed.
pub(super) fn errors(subject: &Subject, alpha: f64, seed: u64) -> Result<Errors, LabError> {
    let config = training(subject, alpha, seed);
    match Training::with_data(config, subject.dataset.clone(), subject.device.clone())?.run() {
        Ok(outcome) => Ok(Errors { train: outcome.train.error, test: outcome.test.error, diverged: false }),
        Err(TrainError::Diverged { .. }) => Ok(Errors { train: 1.0, test: 1.0, diverged: true }),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn measure(subjects: &[Subject], config: &InspectConfig, watch: Watch<'_>) -> Result<Measurement, LabError> {
    // A plain net and its residual twin are the ends of one line.
    let same = |a: &Subject, b: &Subject| {
        let json = |s: &Subject| serde_json::to_value(training(s, 1.0, 0)).ok();
        json(a) == json(b)
    };
    let distinct: Vec<usize> =
        (0..subjects.len()).filter(|&i| !subjects[..i].iter().any(|other| same(other, &subjects[i]))).collect();
    let mut jobs = Vec::new();
    for &i in &distinct {
        let first = subjects[i].config.seed;
        for alpha in ALPHAS {
            jobs.extend((0..config.seeds).map(|k| (i, alpha, first.wrapping_add(k))));
        }
    }
    let found = each(jobs.len(), config, watch, |job| {
        let (i, alpha, seed) = jobs[job];
        errors(&subjects[i], alpha, seed)
    })?;

    // Of the residual nets, which lines end with.
    let name = |&i: &usize| training(&subjects[i], 1.0, 0).network.name().to_string();
    let names = numbered(distinct.iter().map(name).collect());
    let label =
        |i: usize| distinct.iter().zip(&names).find(|(of, _)| **of == i).map_or_else(String::new, |f| f.1.clone());
    let of = |i: usize, alpha: f64, part: fn(&Errors) -> f64| -> Vec<f64> {
        jobs.iter()
            .zip(&found)
            .filter(|(job, _)| (job.0, job.1) == (i, alpha))
            .map(|(_, errors)| part(errors))
            .collect()
    };
    let panel = |title: &str, unit: &str, part: fn(&Errors) -> f64| {
        let line = |(k, &i): (usize, &usize)| {
            let spreads = ALPHAS.map(|alpha| (alpha, Spread::of(&of(i, alpha, part))));
            Line {
                marker: Some(Marker::Square),
                points: spreads.iter().map(|(alpha, error)| (*alpha, 100.0 * error.mean)).collect(),
                spread: spreads.iter().map(|(_, error)| 100.0 * error.std).collect(),
                dots: ALPHAS.iter().flat_map(|&a| of(i, a, part).into_iter().map(move |e| (a, 100.0 * e))).collect(),
                ..Line::new(&label(i), &figures::color(BlockKind::Residual, k))
            }
        };
        let most = found.iter().map(part).fold(0.0, f64::max);
        let x = Axis { ticks: ALPHAS.to_vec(), range: (-0.03, 1.03), ..Axis::from_zero("skip strength α", 1.0) };
        let lines = distinct.iter().enumerate().map(line).collect();
        Panel::new(title.into(), x, Axis::from_zero(unit, 100.0 * most), lines)
    };
    let sentence = |&i: &usize| {
        let said = ALPHAS.map(|alpha| {
            let error = Spread::of(&of(i, alpha, |errors| errors.train));
            format!("{:.1} % at α = {alpha}", 100.0 * error.mean)
        });
        let diverged = jobs.iter().zip(&found).filter(|(job, errors)| job.0 == i && errors.diverged).count();
        let diverged = match diverged {
            0 => String::new(),
            n => format!(" {} diverged, which counts as 100 %.", figures::counted(n, "training")),
        };
        format!("{}: training error {}.{diverged}", label(i), said.join(", "))
    };
    let details = distinct.iter().map(sentence).collect();
    let fall = |&i: &usize| {
        let [from, to] = [0.0, 1.0].map(|alpha| 100.0 * Spread::of(&of(i, alpha, |errors| errors.train)).mean);
        format!("from {from:.1} % at α = 0 to {to:.1} % at α = 1 in {}", label(i))
    };
    let finding = format!("The training error goes {}.", listed(distinct.iter().map(fall)));
    let header = ["network", "alpha", "seed", "train_error", "test_error"];
    let row = |(&(i, alpha, seed), errors): (&(usize, f64, u64), &Errors)| {
        vec![
            label(i),
            alpha.to_string(),
            seed.to_string(),
            format!("{:.6}", errors.train),
            format!("{:.6}", errors.test),
        ]
    };
    let figure = Figure {
        title: "Error against the strength of the shortcut".into(),
        subtitle: format!(
            "{} for each; α = 0 is the plain net, α = 1 the residual net",
            figures::counted(config.seeds as usize, "seed")
        ),
        description: finding.clone(),
        columns: 2,
        panels: vec![
            panel("Training error", "training error, %", |errors| errors.train),
            panel("Test error", "test error, %", |errors| errors.test),
        ],
    };
    let table = std::iter::once(header.map(String::from).to_vec()).chain(jobs.iter().zip(&found).map(row)).collect();
    Ok(Measurement { finding, details, figure, table })
}
