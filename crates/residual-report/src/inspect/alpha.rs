use super::{InspectionView, rows};
use crate::{
    chart::{Axis, Figure, Line, Marker, Panel},
    palette,
    words::{counted, listed, numbered},
};
use residual_lab::{SkipStrength, SkipStrengthRun, Spread};
use residual_model::BlockKind;

/// Selects the training error or the test error of a training.
type Error = fn(&SkipStrengthRun) -> f64;

pub(super) fn view(skip_strength: &SkipStrength) -> InspectionView {
    let labels = numbered(&skip_strength.networks);
    let finding = finding(&labels, skip_strength);
    InspectionView {
        details: (0..labels.len()).map(|i| detail(&labels[i], i, skip_strength)).collect(),
        figure: figure(&labels, skip_strength, &finding),
        table: table(&labels, skip_strength),
        finding,
    }
}

fn errors(skip_strength: &SkipStrength, network: usize, alpha: f64, error: Error) -> Vec<f64> {
    skip_strength.runs(network, alpha).map(error).collect()
}

fn train_percent(skip_strength: &SkipStrength, network: usize, alpha: f64) -> f64 {
    100.0 * Spread::of(&errors(skip_strength, network, alpha, |run| run.train_error)).mean
}

fn finding(labels: &[String], skip_strength: &SkipStrength) -> String {
    let ends = |(i, label): (usize, &String)| {
        let [plain, residual] = [0.0, 1.0].map(|alpha| train_percent(skip_strength, i, alpha));
        format!("{plain:.1} % at α = 0 and {residual:.1} % at α = 1 in {label}")
    };
    format!("The mean training error is {}.", listed(labels.iter().enumerate().map(ends)))
}

fn detail(label: &str, i: usize, skip_strength: &SkipStrength) -> String {
    let error = |&alpha: &f64| format!("{:.1} % at α = {alpha}", train_percent(skip_strength, i, alpha));
    let errors: Vec<String> = skip_strength.alphas.iter().map(error).collect();
    let diverged = match skip_strength.runs.iter().filter(|run| run.network == i && run.diverged).count() {
        0 => String::new(),
        n => format!(" {} diverged and counted as 100 %.", counted(n, "training")),
    };
    format!("{label}: training error {}.{diverged}", errors.join(", "))
}

fn figure(labels: &[String], skip_strength: &SkipStrength, finding: &str) -> Figure {
    Figure {
        title: "Error against skip strength".into(),
        subtitle: format!(
            "{} per skip strength; α = 0 is the plain net, α = 1 the residual net",
            counted(skip_strength.seeds as usize, "seed")
        ),
        description: finding.into(),
        panels: vec![
            panel(labels, skip_strength, "Training error", "training error, %", |run| run.train_error),
            panel(labels, skip_strength, "Test error", "test error, %", |run| run.test_error),
        ],
    }
}

fn panel(labels: &[String], skip_strength: &SkipStrength, title: &str, unit: &str, error: Error) -> Panel {
    let alphas = &skip_strength.alphas;
    let line = |(i, label): (usize, &String)| {
        let of = |alpha: f64| errors(skip_strength, i, alpha, error);
        let spreads = alphas.iter().map(|&alpha| (alpha, Spread::of(&of(alpha))));
        Line {
            marker: Some(Marker::Square),
            points: spreads.clone().map(|(alpha, error)| (alpha, 100.0 * error.mean)).collect(),
            spread: spreads.map(|(_, error)| 100.0 * error.std).collect(),
            dots: alphas.iter().flat_map(|&a| of(a).into_iter().map(move |error| (a, 100.0 * error))).collect(),
            ..Line::new(label, &palette::color(BlockKind::Residual, i))
        }
    };
    let most = skip_strength.runs.iter().map(error).fold(0.0, f64::max);
    let x = Axis { ticks: alphas.clone(), range: (-0.03, 1.03), ..Axis::from_zero("skip strength α", 1.0) };
    let lines = labels.iter().enumerate().map(line).collect();
    Panel::new(title.into(), x, Axis::from_zero(unit, 100.0 * most), lines)
}

fn table(labels: &[String], skip_strength: &SkipStrength) -> Vec<Vec<String>> {
    let row = |run: &SkipStrengthRun| {
        let (train, test) = (format!("{:.6}", run.train_error), format!("{:.6}", run.test_error));
        [labels[run.network].clone(), run.alpha.to_string(), run.seed.to_string(), train, test]
    };
    rows(["network", "alpha", "seed", "train_error", "test_error"], skip_strength.runs.iter().map(row))
}
