//! Measurements inside some of a sweep's nets, for `residual sweep --explain`.

use super::{Progress, RunResult, RunSpec, Sweep, SweepResults, run::OnProgress, store};
use crate::{InspectConfig, Inspection, LabError, Measurement, Subject, is_equal_error};
use residual_model::BlockKind;
use residual_train::{TrainError, files};
use std::path::{Path, PathBuf};

const MEASUREMENTS: [Measurement; 4] =
    [Measurement::Gradients, Measurement::Activations, Measurement::Lesion, Measurement::Landscape];

impl Sweep {
    /// Measures inside [`SweepResults::networks`], and writes `inspect/FAMILY/MEASUREMENT.json` for each family and
    /// measurement. Measurements of the same networks that exist already are not repeated. Networks that
    /// diverged are left out.
    ///
    /// `command` takes a measurement, the run directories and the output folder, and returns the command that repeats
    /// the measurement.
    ///
    /// # Errors
    /// If the folder does not hold this sweep, a file cannot be read or written, or the sweep is stopped. Finished
    /// measurements are kept.
    pub fn explain(
        &self,
        folder: &Path,
        command: &dyn Fn(Measurement, &[PathBuf], &Path) -> String,
        progress: OnProgress<'_>,
    ) -> Result<(), LabError> {
        let store = self.claim(folder, progress)?;
        let config = InspectConfig { jobs: self.jobs, stop: self.stop.clone(), ..InspectConfig::default() };
        for (family, runs) in SweepResults::networks(folder)? {
            let subjects = runs.iter().map(|run| Subject::of_run(run, &self.device));
            let subjects = subjects.collect::<Result<Vec<Subject>, LabError>>()?;
            let out = store::inspect_dir(folder, family);
            let names: Vec<String> = subjects.iter().map(|subject| subject.info().to_string()).collect();
            // The command names the run directories, which differ if the settings do.
            let is_missing = |measurement: &Measurement| {
                !Inspection::read(&out, *measurement).is_ok_and(|inspection| {
                    let subjects: Vec<String> = inspection.subjects.iter().map(ToString::to_string).collect();
                    subjects == names && inspection.command == command(*measurement, &runs, &out)
                })
            };
            let missing: Vec<Measurement> = MEASUREMENTS.into_iter().filter(is_missing).collect();
            if subjects.is_empty() || missing.is_empty() {
                continue;
            }
            store.check_in_place()?;
            files::create_dir(&out)?;
            // An inspection may write into the same folder.
            let lock = files::lock_directory(&out)?;
            let measured = missing.into_iter().try_for_each(|measurement| {
                progress(Progress::Measuring { family, measurement });
                let (command, environment) = (command(measurement, &runs, &out), self.environment.clone());
                let found = Inspection::measure(measurement, &subjects, &config, command, environment, &|_, _| {});
                store.check_in_place()?;
                found?.write(&out)
            });
            lock.remove();
            match measured {
                Err(LabError::Train(TrainError::Stopped)) => {
                    let trainings = self.config.trainings();
                    return Err(LabError::Stopped { done: trainings, total: trainings });
                }
                measured => measured?,
            }
        }
        Ok(())
    }
}

/// The depths of [`SweepResults::networks`], given the networks among which to choose and the results of trainings.
pub(super) fn depths(specs: &[RunSpec], results: &[RunResult]) -> Vec<usize> {
    let error = |spec: &RunSpec| results.iter().find(|run| run.spec == *spec).map(|run| run.train_error);
    let twins = specs.iter().filter(|spec| spec.kind == BlockKind::Plain).filter_map(|plain| {
        let residual = specs.iter().find(|spec| spec.kind == BlockKind::Residual && spec.depth == plain.depth)?;
        Some((plain.depth, error(plain)?, error(residual)?))
    });
    let twins: Vec<(usize, f64, f64)> = twins.collect();
    let equal = twins.iter().rfind(|(_, plain, residual)| is_equal_error(*plain, *residual));
    let closest = || twins.iter().min_by(|a, b| (a.1 - a.2).abs().total_cmp(&(b.1 - b.2).abs()));
    let ends = [specs.first(), specs.last()].into_iter().flatten().map(|spec| spec.depth);
    ends.chain(equal.or_else(closest).map(|(depth, ..)| *depth)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RunStatus, Setting, SweepFamily};

    #[test]
    fn the_ends_and_the_deepest_twins_of_equal_error_are_measured() {
        let result = |kind: BlockKind, (depth, train_error): (usize, f64)| RunResult {
            spec: RunSpec {
                family: SweepFamily::Conv,
                kind,
                depth,
                alpha: if kind == BlockKind::Plain { 0.0 } else { 1.0 },
                setting: Setting::default(),
                seed: 0,
            },
            train_error,
            test_error: 0.5,
            train_loss: None,
            test_loss: None,
            parameters: 1,
            iterations: 1,
            seconds: 1.0,
            status: RunStatus::Finished,
            curve: Vec::new(),
        };
        let chosen = |plain: [f64; 4], residual: [f64; 4]| {
            let of = |kind, errors: [f64; 4]| [8, 20, 32, 56].into_iter().zip(errors).map(move |run| result(kind, run));
            let mut runs: Vec<RunResult> =
                of(BlockKind::Plain, plain).chain(of(BlockKind::Residual, residual)).collect();
            runs.sort_by_key(|run| run.spec.depth);
            let specs: Vec<RunSpec> = runs.iter().map(|run| run.spec).collect();
            depths(&specs, &runs)
        };
        assert_eq!(chosen([0.0, 0.009, 0.3, 0.7], [0.0, 0.0, 0.0, 0.01]), [8, 56, 20]);
        assert_eq!(chosen([0.2, 0.05, 0.3, 0.7], [0.0, 0.0, 0.0, 0.01]), [8, 56, 20]);
        assert_eq!(chosen([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]), [8, 56, 56]);
    }
}
