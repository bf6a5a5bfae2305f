use super::{InspectionView, rows};
use crate::{
    chart::{Axis, Figure, Line, Panel, positive_range},
    palette,
    words::{counted, labels, listed},
};
use residual_lab::{PathGradients, Paths, SubjectInfo};

pub(super) fn view(subjects: &[SubjectInfo], paths: &Paths) -> InspectionView {
    let labels = labels(subjects);
    let finding = finding(&labels, paths);
    InspectionView {
        details: details(subjects, &labels, paths),
        figure: figure(subjects, &labels, paths, &finding),
        table: table(&labels, paths),
        finding,
    }
}

fn finding(labels: &[String], paths: &Paths) -> String {
    let range = |of: &PathGradients| {
        let (mean, from, to) = of.effective_length();
        mean.is_finite().then(|| format!("{from} to {to} of the {} blocks in {}", of.blocks(), labels[of.network]))
    };
    let ranges = listed(paths.networks.iter().filter_map(range));
    if ranges.is_empty() {
        return "No gradient reaches the input.".into();
    }
    format!("Paths through {ranges} carry 95 % of the gradient at the input.")
}

fn details(subjects: &[SubjectInfo], labels: &[String], paths: &Paths) -> Vec<String> {
    let detail = |of: &PathGradients| {
        let (label, blocks, depth) = (&labels[of.network], of.blocks(), subjects[of.network].depth);
        let (mean, ..) = of.effective_length();
        if !mean.is_finite() {
            return format!("{label}: no gradient reaches the input.");
        }
        let layers_per_block = (depth as f64 - 2.0) / blocks.max(1) as f64;
        format!(
            "{label}: the mean path passes through {mean:.1} of {blocks} blocks, an effective depth of {:.0} of {depth} \
             layers.",
            2.0 + mean * layers_per_block,
        )
    };
    let mut details: Vec<String> = paths.networks.iter().map(detail).collect();
    if paths.networks.len() < subjects.len() {
        details.push("A plain net has a single path, through all its blocks.".into());
    }
    details
}

fn figure(subjects: &[SubjectInfo], labels: &[String], paths: &Paths, finding: &str) -> Figure {
    let colors = palette::colors(subjects);
    let line = |of: &PathGradients, points: Vec<(f64, f64)>, unit: &str| {
        let value = |y: f64| if unit.is_empty() { format!("{y:.2e}") } else { format!("{y:.2}{unit}") };
        let label = &labels[of.network];
        let tip = |&(k, y): &(f64, f64)| format!("{label}, paths through {k} blocks: {}", value(y));
        Line { tips: points.iter().map(tip).collect(), points, ..Line::new(label, &colors[of.network]) }
    };
    let single =
        |of: &PathGradients| line(of, of.means().into_iter().map(|(length, norm)| (length as f64, norm)).collect(), "");
    let all = |of: &PathGradients| {
        let shares = of.shares().into_iter().enumerate();
        line(of, shares.map(|(length, share)| (length as f64, 100.0 * share)).collect(), " %")
    };
    let single: Vec<Line> = paths.networks.iter().map(single).collect();
    let all: Vec<Line> = paths.networks.iter().map(all).collect();
    let (least, most) = positive_range(single.iter().flat_map(|line| &line.points).map(|p| p.1));
    let longest = single.iter().flat_map(|line| &line.points).fold(1.0f64, |x, p| x.max(p.0));
    let highest = all.iter().flat_map(|line| &line.points).fold(0.0f64, |y, p| y.max(p.1));
    let x = || Axis::until("blocks on the path", longest);
    let norm = Axis::log("gradient norm", least, most);
    Figure {
        title: "Gradient at the input by path length".into(),
        subtitle: format!("{} training images; {} per length", paths.images, counted(paths.draws, "random path")),
        description: finding.into(),
        panels: vec![
            Panel::new("A single path".into(), x(), norm, single),
            Panel::new("All paths of a length".into(), x(), Axis::from_zero("share of the gradient, %", highest), all),
        ],
    }
}

fn table(labels: &[String], paths: &Paths) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for of in &paths.networks {
        for (length, norms) in of.lengths.iter().zip(&of.norms) {
            for (draw, norm) in norms.iter().enumerate() {
                let (label, blocks) = (labels[of.network].clone(), of.blocks().to_string());
                all.push([label, blocks, length.to_string(), (draw + 1).to_string(), format!("{norm:e}")]);
            }
        }
    }
    rows(["network", "blocks", "length", "draw", "gradient_norm"], all)
}
