//! Measurements inside a sweep's shallowest and deepest nets, for `residual sweep --explain`.

use super::{Progress, Sweep, SweepResults, run::OnProgress, store};
use crate::{InspectConfig, Inspection, LabError, Measurement, Subject};
use residual_train::{TrainError, files};
use std::path::{Path, PathBuf};

const MEASUREMENTS: [Measurement; 4] =
    [Measurement::Gradients, Measurement::Activations, Measurement::Lesion, Measurement::Landscape];

impl Sweep {
    /// Measures inside the networks that [`Sweep::run`] kept, and writes `inspect/FAMILY/MEASUREMENT.json` for each
    /// family and measurement. Measurements of the same networks that exist already are not repeated. Networks that
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
