//! What `residual sweep --explain` adds: measurements inside the shallowest and the deepest nets, plain and residual.

use crate::{
    InspectConfig, Inspection, LabError, Progress, RunSpec, Subject, SweepConfig, What,
    sweep::{quoted, run_dir},
};
use residual_model::Family;
use residual_train::{Device, Environment, RunDir, StopFlag};
use std::path::Path;

/// What is measured.
const WHAT: [What; 4] = [What::Gradients, What::Activations, What::Lesion, What::Landscape];

/// The trainings that are looked into: of a family the shallowest and the deepest nets with the first seed, plain and
/// residual.
pub(crate) fn explained(config: &SweepConfig, family: Family) -> Vec<RunSpec> {
    let plan = config.plan();
    let of = |spec: &&RunSpec| {
        spec.family == family && spec.seed == config.first_seed && (spec.alpha == 0.0 || spec.alpha == 1.0)
    };
    let depths = || plan.iter().filter(of).map(|spec| spec.depth);
    let ends = [depths().min(), depths().max()];
    plan.iter().filter(of).filter(|spec| ends.contains(&Some(spec.depth))).copied().collect()
}

/// Measures the trainings whose networks a sweep kept, each family in a folder of `inspect/`.
///
/// # Errors
/// If a file cannot be read or written, or it is asked to stop.
pub(crate) fn explain(
    folder: &Path,
    config: &SweepConfig,
    environment: &Environment,
    device: &Device,
    jobs: usize,
    stop: &StopFlag,
    progress: &(dyn Fn(Progress<'_>) + Sync),
) -> Result<(), LabError> {
    let measure = InspectConfig { jobs, ..InspectConfig::default() };
    for &family in &config.families {
        let mut specs = explained(config, family);
        // One that diverged left no network.
        specs.retain(|&spec| RunDir::open(&run_dir(folder, spec)).is_ok_and(|run| run.model().is_ok()));
        specs.sort_by_key(|spec| spec.depth);
        let folders: Vec<_> = specs.iter().map(|&spec| run_dir(folder, spec)).collect();
        let subjects =
            folders.iter().map(|run| Subject::of_run(run, device)).collect::<Result<Vec<Subject>, LabError>>()?;
        let out = folder.join("inspect").join(family.to_string());
        for what in WHAT {
            if subjects.is_empty() || out.join(format!("{what}.json")).exists() {
                continue;
            }
            if stop.is_set() {
                let trainings = config.plan().len();
                return Err(LabError::Stopped { done: trainings, total: trainings });
            }
            progress(Progress::Measuring { family, what });
            let runs: Vec<String> = folders.iter().map(|run| quoted(&run.to_string_lossy())).collect();
            let command =
                format!("residual inspect {} --what {what} --out {}", runs.join(" "), quoted(&out.to_string_lossy()));
            Inspection::measure(what, &subjects, &measure, command, environment.clone(), &|_, _| {})?
                .write(&out, &what.to_string())?;
        }
    }
    Ok(())
}
