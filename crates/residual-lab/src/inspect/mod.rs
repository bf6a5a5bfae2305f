//! Measurements inside networks that show why shortcuts help.
//!
//! Each measurement returns an [`Inspection`]: plain data that [`Inspection::write`] stores as JSON. No measurement
//! changes the network or the run directory.

mod activations;
mod alpha;
mod config;
mod gradients;
mod landscape;
mod lesion;
mod paths;
mod shattered;
mod subject;
#[cfg(test)]
mod tests;

pub use activations::{ActivationState, Activations, BlockScale};
pub use alpha::{SkipStrength, SkipStrengthRun};
pub use config::InspectConfig;
pub(crate) use config::OnStep;
pub use gradients::{GradientState, Gradients, Growth, LayerGradients};
pub use landscape::Landscape;
pub use lesion::{BlockError, Lesion, LesionErrors};
pub use paths::{PathGradients, Paths};
pub use shattered::Shattered;
pub use subject::{Subject, SubjectInfo, is_equal_error};

use crate::LabError;
use residual_train::{Environment, TrainError, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The measurements inside networks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, strum::VariantArray, strum::VariantNames,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = LabError, parse_err_fn = unknown_measurement)]
pub enum Measurement {
    /// Norms of the gradients of the weights, by layer.
    Gradients,
    /// Standard deviations of the outputs of blocks and layers.
    Activations,
    /// The test error with one block removed, with several removed, and with blocks swapped.
    Lesion,
    /// The errors after training with skip strengths from 0 to 1.
    Alpha,
    /// The gradient at the input, by path length.
    Paths,
    /// The loss on a plane around the weights.
    Landscape,
    /// The autocorrelation of gradients at neighbouring inputs.
    Shattered,
}

impl Measurement {
    /// All measurements, in the order of a report.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;
}

fn unknown_measurement(word: &str) -> LabError {
    let expected = <Measurement as strum::VariantNames>::VARIANTS.join(", ");
    LabError::Setting(format!("unknown measurement `{word}`; expected {expected}"))
}

/// The values of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "measurement", content = "values", rename_all = "kebab-case")]
pub enum Measured {
    /// [`Measurement::Gradients`]
    Gradients(Gradients),
    /// [`Measurement::Activations`]
    Activations(Activations),
    /// [`Measurement::Lesion`]
    Lesion(Lesion),
    /// [`Measurement::Alpha`]
    Alpha(SkipStrength),
    /// [`Measurement::Paths`]
    Paths(Paths),
    /// [`Measurement::Landscape`]
    Landscape(Landscape),
    /// [`Measurement::Shattered`]
    Shattered(Shattered),
}

/// The largest number of networks in an inspection.
const MOST_SUBJECTS: usize = 100;

/// The result of a measurement inside networks, with a record of how it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The measured networks.
    pub subjects: Vec<SubjectInfo>,
    /// The command that repeats the measurement.
    pub command: String,
    /// The machine and the backend.
    pub environment: Environment,
    /// The values.
    #[serde(flatten)]
    pub measured: Measured,
}

impl Inspection {
    /// Measures networks side by side. `command` is the command that repeats the measurement; it is only recorded.
    /// `on_step` is called with the number of finished steps and the total number of steps, from several threads.
    ///
    /// # Errors
    /// If a setting is out of range, the measurement does not apply to the networks, a sample cannot be read, or the stop
    /// flag is set ([`TrainError::Stopped`]).
    pub fn measure(
        measurement: Measurement,
        subjects: &[Subject],
        config: &InspectConfig,
        command: String,
        environment: Environment,
        on_step: OnStep<'_>,
    ) -> Result<Self, LabError> {
        Self::check(measurement, subjects, config)?;
        let config = &InspectConfig { jobs: Subject::jobs(subjects, config)?, ..config.clone() };
        let measured = match measurement {
            Measurement::Gradients => Measured::Gradients(gradients::measure(subjects, config, on_step)?),
            Measurement::Activations => Measured::Activations(activations::measure(subjects, config, on_step)?),
            Measurement::Lesion => Measured::Lesion(lesion::measure(subjects, config, on_step)?),
            Measurement::Alpha => Measured::Alpha(alpha::measure(subjects, config, on_step)?),
            Measurement::Paths => Measured::Paths(paths::measure(subjects, config, on_step)?),
            Measurement::Landscape => Measured::Landscape(landscape::measure(subjects, config, on_step)?),
            Measurement::Shattered => Measured::Shattered(shattered::measure(subjects, config, on_step)?),
        };
        Ok(Self { subjects: subjects.iter().map(Subject::info).collect(), command, environment, measured })
    }

    /// Checks that the networks can be measured, without reading samples.
    ///
    /// # Errors
    /// As for [`Self::measure`], except for errors in samples.
    pub fn check(measurement: Measurement, subjects: &[Subject], config: &InspectConfig) -> Result<(), LabError> {
        config.validate()?;
        if subjects.is_empty() {
            return Err(LabError::Setting("no network to measure; name a run directory or a network".into()));
        }
        if subjects.len() > MOST_SUBJECTS {
            return Err(LabError::Setting(format!("at most {MOST_SUBJECTS} networks can be measured side by side")));
        }
        match measurement {
            Measurement::Gradients => subjects.iter().try_for_each(|subject| gradients::check(subject, config))?,
            Measurement::Lesion => subjects.iter().try_for_each(lesion::check)?,
            Measurement::Alpha => subjects.iter().try_for_each(Subject::check_start)?,
            Measurement::Paths => paths::check(subjects)?,
            Measurement::Activations | Measurement::Landscape | Measurement::Shattered => {}
        }
        Subject::jobs(subjects, config).map(|_| ())
    }

    /// The measurement.
    pub fn measurement(&self) -> Measurement {
        match self.measured {
            Measured::Gradients(_) => Measurement::Gradients,
            Measured::Activations(_) => Measurement::Activations,
            Measured::Lesion(_) => Measurement::Lesion,
            Measured::Alpha(_) => Measurement::Alpha,
            Measured::Paths(_) => Measurement::Paths,
            Measured::Landscape(_) => Measurement::Landscape,
            Measured::Shattered(_) => Measurement::Shattered,
        }
    }

    /// Writes `MEASUREMENT.json` into a folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        files::create_dir(folder)?;
        Ok(files::write_json(&path(folder, self.measurement()), self)?)
    }

    /// Reads a measurement from a folder.
    ///
    /// # Errors
    /// If the file is missing or invalid.
    pub fn read(folder: &Path, measurement: Measurement) -> Result<Self, LabError> {
        let path = path(folder, measurement);
        let inspection: Self = files::read_json(&path)?;
        if inspection.measurement() == measurement && inspection.is_complete() {
            return Ok(inspection);
        }
        let reason = format!("does not hold a complete measurement `{measurement}`");
        Err(TrainError::BadFile { path, reason }.into())
    }

    /// Checks that the files of a measurement may be written into a folder: `MEASUREMENT.json`, `MEASUREMENT.csv` and
    /// `MEASUREMENT.svg` are all missing, or an earlier measurement wrote them.
    ///
    /// # Errors
    /// If one of the files exists and is not from a measurement.
    pub fn check_replaceable(folder: &Path, measurement: Measurement) -> Result<(), LabError> {
        let data = path(folder, measurement);
        let other = match Self::read(folder, measurement) {
            Ok(_) => None,
            Err(_) if data.exists() => Some(data),
            Err(_) => ["csv", "svg"].map(|end| data.with_extension(end)).into_iter().find(|path| path.exists()),
        };
        let reason = "was not written by an inspection; move it away or choose another directory".into();
        other.map_or(Ok(()), |path| Err(TrainError::BadFile { path, reason }.into()))
    }

    /// Whether the values have the shapes that their documentation states. They do, unless they are from a file that was
    /// edited.
    pub fn is_complete(&self) -> bool {
        let networks = self.subjects.len();
        (1..=MOST_SUBJECTS).contains(&networks)
            && match &self.measured {
                Measured::Gradients(gradients) => gradients.is_consistent(networks),
                Measured::Activations(activations) => activations.states.iter().all(|state| state.network < networks),
                Measured::Lesion(lesion) => lesion.networks.len() == networks,
                Measured::Alpha(skip_strength) => {
                    let most = [skip_strength.networks.len(), skip_strength.alphas.len()];
                    most.iter().all(|&length| length <= MOST_SUBJECTS)
                        && skip_strength.runs.iter().all(|run| run.network < skip_strength.networks.len())
                }
                Measured::Paths(paths) => paths.is_consistent(networks),
                Measured::Landscape(landscape) => landscape.is_consistent(networks),
                Measured::Shattered(shattered) => shattered.is_consistent(networks),
            }
    }

    /// Reads all measurements in a folder, in the order of [`Measurement::ALL`].
    ///
    /// # Errors
    /// If a file is invalid.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, LabError> {
        let found = Measurement::ALL.iter().filter(|&&measurement| path(folder, measurement).exists());
        found.map(|&measurement| Self::read(folder, measurement)).collect()
    }

    /// The folders that contain measurements: the folder itself, followed by its subfolders in order of name.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn folders(folder: &Path) -> Result<Vec<PathBuf>, LabError> {
        let unreadable = |source| TrainError::Io { action: "read", path: folder.into(), source };
        let mut folders = vec![folder.to_path_buf()];
        for entry in folder.read_dir().map_err(unreadable)? {
            folders.push(entry.map_err(unreadable)?.path());
        }
        folders[1..].sort();
        folders.retain(|folder| Measurement::ALL.iter().any(|&measurement| path(folder, measurement).exists()));
        Ok(folders)
    }
}

/// `FOLDER/MEASUREMENT.json`
fn path(folder: &Path, measurement: Measurement) -> PathBuf {
    folder.join(format!("{measurement}.json"))
}
