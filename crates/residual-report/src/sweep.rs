//! The parts of a sweep, and its settings, in words.

use crate::words::{counted, listed};
use residual_lab::{FamilySettings, Series, Setting, SweepConfig, SweepFamily, SweepResults, Tuned};
use residual_model::{BlockOptions, Norm, ShortcutOption, Stem};
use residual_train::{Augmentation, Decay, Optimizer, Schedule, TrainConfig, Warmup};
use serde_json::Value;

/// The family and the setting of each panel of a sweep's figure.
pub(crate) fn panels(results: &SweepResults) -> Vec<(SweepFamily, Setting)> {
    panels_of(&results.series)
}

/// The families and settings of series: the first setting of each family, then the second, and so on, so that the families
/// stand side by side.
pub(crate) fn panels_of(series: &[Series]) -> Vec<(SweepFamily, Setting)> {
    let mut families: Vec<(SweepFamily, Vec<Setting>)> = Vec::new();
    for Series { family, setting, .. } in series {
        match families.iter_mut().find(|(other, _)| other == family) {
            Some((_, settings)) if settings.contains(setting) => {}
            Some((_, settings)) => settings.push(*setting),
            None => families.push((*family, vec![*setting])),
        }
    }
    let most = families.iter().map(|(_, settings)| settings.len()).max().unwrap_or_default();
    let row = |i: usize| families.iter().filter_map(move |(family, settings)| Some((*family, *settings.get(i)?)));
    (0..most).flat_map(row).collect()
}

/// A text, followed by a setting if it varies anything.
pub(crate) fn with_setting(text: &str, setting: Setting) -> String {
    match setting.to_string() {
        words if words.is_empty() => text.into(),
        words => format!("{text}, {words}"),
    }
}

/// The blocks of a family: `dense blocks`.
pub(crate) fn blocks(family: SweepFamily) -> &'static str {
    match family {
        SweepFamily::Dense => "dense blocks",
        SweepFamily::Conv => "convolutional blocks",
        SweepFamily::Bottleneck => "bottlenecks",
        SweepFamily::Preact => "pre-activation blocks",
        SweepFamily::PreactBottleneck => "pre-activation bottlenecks",
    }
}

/// The nets whose learning rate is at the edge of the grid, in a sentence that begins with a space; empty if there are none.
pub(crate) fn at_the_edge(tuned: &[Tuned]) -> String {
    let edge = tuned.iter().filter(|tuned| tuned.is_at_the_edge());
    let nets: Vec<String> = edge.map(|tuned| with_setting(&format!("{} nets", tuned.family), tuned.setting)).collect();
    match nets.len() {
        0 => String::new(),
        _ => format!(" A rate beyond the grid may be better for: {}.", nets.join("; ")),
    }
}

/// Why there is no verdict.
pub(crate) fn no_verdict(results: &SweepResults) -> String {
    if results.is_finished() {
        return "No verdict: a verdict needs plain and residual nets at two or more depths.".into();
    }
    format!(
        "No verdict yet: {} of {} trainings have finished. Rerun the command of the sweep to resume it.",
        results.runs.len(),
        results.planned
    )
}

/// The dataset of a sweep.
pub(crate) fn data(config: &SweepConfig) -> String {
    let mut data: Vec<String> = config.families.iter().map(|settings| settings.training.data.to_string()).collect();
    data.dedup();
    listed(data)
}

/// The networks and the data of a sweep: `dense and conv nets on digits`.
pub(crate) fn subject(config: &SweepConfig) -> String {
    let families = config.families.iter().map(|settings| settings.family.to_string());
    format!("{} nets on {}", listed(families), data(config))
}

/// The settings of a sweep, in sentences.
pub(crate) fn settings(config: &SweepConfig) -> String {
    let first = config.first_seed;
    let seeds = match config.seeds {
        0 | 1 => format!("Seed {first}."),
        n => format!("Seeds {first} to {}.", first + n - 1),
    };
    let mut sentences: Vec<String> = config.families.iter().map(|family| of_family(config, family)).collect();
    sentences.insert(0, format!("Data: {}.", data(config)));
    sentences.push(seeds);
    let without_parameters = config.families.iter().all(|family| {
        !matches!(family.training.network.blocks.shortcut, ShortcutOption::Projection | ShortcutOption::ProjectAll)
    });
    sentences.push(if without_parameters {
        "Plain and residual nets have the same settings, the same parameters and the same initial weights; shortcuts have no \
         parameters (option A)."
            .into()
    } else {
        "Plain and residual nets have the same settings; the shortcuts of residual nets have parameters of their own.".into()
    });
    sentences.join(" ")
}

/// `Dense nets: 20 epochs in batches of 64; sgd with momentum 0.9 and weight decay 0.0001; learning rate 0.02, cosine
/// decay; batch norm; width 64.`
fn of_family(config: &SweepConfig, FamilySettings { family, training, .. }: &FamilySettings) -> String {
    let TrainConfig { network, augmentation, epochs, iterations, batch_size, accumulate, optimizer, schedule, .. } =
        training;
    let BlockOptions { norm, last_survival, .. } = network.blocks;
    let sizes = if config.batch_sizes.is_empty() { vec![*batch_size] } else { config.batch_sizes.clone() };
    let sizes = listed(sizes.iter().map(ToString::to_string));
    let mut length = format!("{} in batches of {sizes}", counted(*epochs, "epoch"));
    if let Some(iterations) = iterations {
        length += &format!(", at most {iterations} iterations");
    }
    if *accumulate > 1 {
        length += &format!(", {accumulate} batches per step");
    }
    let optimizer = match &config.optimizers[..] {
        [] | [_] => of_optimizer(optimizer),
        several => {
            format!("{}, each with its usual settings", listed(several.iter().map(ToString::to_string)))
        }
    };
    let rate = match &config.lrs[..] {
        _ if config.is_tuned() => "the chosen learning rates".into(),
        [] => format!("learning rate {}", schedule.lr),
        lrs => format!("learning rate {}", listed(lrs.iter().map(ToString::to_string))),
    };
    let mut parts = vec![length, optimizer, of_schedule(&rate, schedule)];
    if *augmentation != Augmentation::default() {
        parts.push(of_augmentation(augmentation));
    }
    let norms = if config.norms.is_empty() { vec![norm] } else { config.norms.clone() };
    let words = |norm: &Norm| if *norm == Norm::Batch { "batch norm" } else { "no norm" }.to_string();
    parts.push(listed(norms.iter().map(words)));
    if norms.contains(&Norm::None) && config.branch_scale.is_none() {
        parts.push("without a norm, main paths scaled by 1/√(number of blocks)".into());
    }
    if network.blocks.shortcut != ShortcutOption::ZeroPad {
        parts.push(format!("shortcuts of option {}", network.blocks.shortcut));
    }
    if network.as_conv().is_some_and(|conv| conv.stem == Stem::Large) {
        parts.push("a 7x7 stem".into());
    }
    if network.init.zero_init {
        parts.push("last layers of main paths initialised to zero".into());
    }
    if let Some(scale) = config.branch_scale {
        parts.push(format!("branch scale: {scale}"));
    }
    if last_survival < 1.0 {
        parts.push(format!("stochastic depth of residual nets down to a survival probability of {last_survival}"));
    }
    if let Some(decay) = training.ema {
        parts.push(format!("weights averaged with decay {decay}"));
    }
    parts.push(format!("width {}", network.width));
    format!("{} nets: {}.", crate::words::capital(&family.to_string()), parts.join("; "))
}

/// `sgd with momentum 0.9 and weight decay 0.0001`
fn of_optimizer(optimizer: &Optimizer) -> String {
    let mut settings = Vec::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(&optimizer.algorithm) {
        for (name, value) in fields.iter().filter(|(name, _)| *name != "name") {
            let name = name.replace('_', "-");
            match value {
                Value::Bool(true) => settings.push(name),
                Value::Bool(false) => {}
                value => settings.push(format!("{name} {}", value.to_string().trim_matches('"'))),
            }
        }
    }
    let all = if optimizer.decay_all { "" } else { ", but not of norms and biases" };
    settings.push(format!("weight decay {}{all}", optimizer.weight_decay));
    if let Some(norm) = optimizer.clip {
        settings.push(format!("gradients clipped to a norm of {norm}"));
    }
    format!("{} with {}", optimizer.kind(), listed(settings))
}

/// `learning rate 0.1, multiplied by 0.1 after 32000 and 48000 iterations, after a warm-up of 400 iterations at 0.01`
fn of_schedule(rate: &str, Schedule { decay, warmup, .. }: &Schedule) -> String {
    let decay = match decay {
        Decay::Constant => "constant".into(),
        Decay::Cosine => "cosine decay".into(),
        Decay::Linear => "linear decay".into(),
        Decay::Step { milestones, factor } => {
            let milestones = milestones.iter().map(ToString::to_string);
            format!("multiplied by {factor} after {} iterations", listed(milestones))
        }
    };
    let warmup = match warmup {
        Warmup::None => String::new(),
        Warmup::Linear { iterations } => format!(", after a linear warm-up of {iterations} iterations"),
        Warmup::Constant { lr, iterations } => format!(", after a warm-up of {iterations} iterations at {lr}"),
        Warmup::UntilError { lr, threshold } => {
            format!(", after a warm-up at {lr} until the training error is below {} %", 100.0 * threshold)
        }
    };
    format!("{rate}, {decay}{warmup}")
}

fn of_augmentation(augmentation: &Augmentation) -> String {
    let Augmentation { crop, flip, resized_crop, cutout, erase, mixup, label_smoothing } = augmentation;
    let parts = [
        (*crop > 0).then(|| format!("crops with a padding of {crop} pixels")),
        flip.then(|| "flips".into()),
        resized_crop.map(|least| format!("random resized crops of at least {least} of the area")),
        (*cutout > 0).then(|| format!("cutout of {cutout} pixels")),
        (*erase > 0.0).then(|| format!("random erasing with probability {erase}")),
        (*mixup > 0.0).then(|| format!("mixup {mixup}")),
        (*label_smoothing > 0.0).then(|| format!("label smoothing {label_smoothing}")),
    ];
    listed(parts.into_iter().flatten())
}
