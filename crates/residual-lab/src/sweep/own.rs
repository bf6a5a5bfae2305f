//! Trainings that no sweep planned, summarised like those of a sweep.

use super::{
    FamilySettings, RunResult, RunSpec, Setting, SweepConfig, SweepFamily, SweepResults,
    results::{Places, Recorded},
    store::differences,
};
use crate::LabError;
use residual_data::shown;
use residual_model::BlockKind;
use residual_train::{RunDir, TrainConfig};
use std::path::Path;

impl SweepResults {
    /// The results of finished trainings in run directories. The trainings of a family may differ in depth, kind of block,
    /// skip strength and seed alone, and every network must have been trained with the same seeds.
    ///
    /// # Errors
    /// If a directory holds no finished training, a network is of no [`SweepFamily`], two trainings are the same, or other
    /// settings differ. The error names the difference.
    pub fn of_runs<P: AsRef<Path>>(paths: &[P]) -> Result<Self, LabError> {
        let mut families: Vec<FamilySettings> = Vec::new();
        let (mut runs, mut directories) = (Vec::<RunResult>::new(), Vec::new());
        for path in paths.iter().map(AsRef::as_ref) {
            let refused = |reason: String| LabError::Folder { path: path.into(), reason };
            let run = RunDir::open(path)?;
            let config = run.config()?;
            let spec = spec_of(&config).ok_or_else(|| {
                let known = <SweepFamily as strum::VariantNames>::VARIANTS.join(", ");
                refused(format!("holds {}, which is of none of the families {known}", config.network.name()))
            })?;
            if runs.iter().any(|run| run.spec == spec) {
                return Err(refused(format!("holds a second training of {spec}")));
            }
            let unfinished = || refused("holds no finished training with errors on both sets".into());
            runs.push(RunResult::of_run(spec, &run)?.ok_or_else(unfinished)?);
            directories.push(run);
            let shared = shared(spec.family, config);
            match families.iter_mut().find(|settings| settings.family == spec.family) {
                None => {
                    families.push(FamilySettings { family: spec.family, depths: vec![spec.depth], training: shared });
                }
                Some(FamilySettings { training, depths, .. }) => {
                    let [theirs, own] =
                        [&*training, &shared].map(|config| serde_json::to_value(config).unwrap_or_default());
                    if let differences @ [_, ..] = &differences("", &own, &theirs)[..] {
                        let text = format!("differs from the first {} net: {}", spec.family, differences.join(", "));
                        return Err(refused(text));
                    }
                    if !depths.contains(&spec.depth) {
                        depths.push(spec.depth);
                    }
                }
            }
        }
        let position = |family| families.iter().position(|settings| settings.family == family);
        runs.sort_by(|a, b| {
            let key = |run: &RunResult| (position(run.spec.family), run.spec.depth, run.spec.seed);
            a.spec.alpha.total_cmp(&b.spec.alpha).then(key(a).cmp(&key(b)))
        });
        families.iter_mut().for_each(|settings| settings.depths.sort_unstable());
        let seeds = check_seeds(&runs)?;
        let mut alphas: Vec<f64> = runs.iter().map(|run| run.spec.alpha).collect();
        alphas.dedup();
        let config = SweepConfig {
            alphas,
            seeds: seeds.len() as u64,
            first_seed: seeds.first().copied().unwrap_or_default(),
            ..SweepConfig::of(families)
        };
        let (planned, places) = (runs.len(), Places::of(&directories));
        let (command, tuned, grid) = (String::new(), Vec::new(), Vec::new());
        Ok(Recorded { config, command, places, planned, tuned, runs, grid }.into())
    }
}

/// The training of a sweep that a configuration describes. `None` if its network is of no family.
fn spec_of(config: &TrainConfig) -> Option<RunSpec> {
    let network = &config.network;
    let fits = |family: &&SweepFamily| {
        let depth = network.depth();
        family.check_depth(depth).is_ok() && family.at_depth(network.clone(), depth) == *network
    };
    let family =
        *SweepFamily::ALL.iter().find(|family| network.as_conv().is_none() == family.is_dense() && fits(family))?;
    let blocks = network.blocks;
    let alpha = if blocks.kind == BlockKind::Plain { 0.0 } else { blocks.skip_strength };
    let kind = if alpha == 0.0 { BlockKind::Plain } else { BlockKind::Residual };
    Some(RunSpec { family, kind, depth: network.depth(), alpha, setting: Setting::default(), seed: config.seed })
}

/// A configuration without what distinguishes the trainings of a family.
fn shared(family: SweepFamily, config: TrainConfig) -> TrainConfig {
    let mut config = config.with_seed(0);
    (config.network.blocks.kind, config.network.blocks.skip_strength) = (BlockKind::Residual, 1.0);
    config.network = family.at_depth(config.network, family.usual_depths()[0]);
    config
}

/// The seeds of every network, if they are the same and follow each other.
fn check_seeds(runs: &[RunResult]) -> Result<Vec<u64>, LabError> {
    let of = |spec: RunSpec| {
        let same = runs.iter().filter(move |run| RunSpec { seed: spec.seed, ..run.spec } == spec);
        same.map(|run| run.spec.seed).collect::<Vec<u64>>()
    };
    let listed = |seeds: &[u64]| seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let first = runs.first().map(|run| of(run.spec)).unwrap_or_default();
    if let Some(run) = runs.iter().find(|run| of(run.spec) != first) {
        let (own, net) = (of(run.spec), RunSpec { seed: 0, ..run.spec }.to_string());
        let net = net.trim_end_matches("-seed0");
        return Err(LabError::Setting(format!(
            "{} was trained with the seeds {}, but {} with {}; a mean needs the same seeds for every network",
            shown(net),
            listed(&own),
            shown(RunSpec { seed: 0, ..runs[0].spec }.to_string().trim_end_matches("-seed0")),
            listed(&first)
        )));
    }
    if first.windows(2).any(|pair| pair[0].checked_add(1) != Some(pair[1])) {
        return Err(LabError::Setting(format!("the seeds must follow each other, not be {}", listed(&first))));
    }
    Ok(first)
}
