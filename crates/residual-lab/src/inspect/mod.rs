//! Measurements inside networks: why shortcuts help.
//!
//! Each measurement makes an [`Inspection`]: a sentence with the number that matters, a figure, and a table with every
//! value. None of them changes the network or the run that it looks at.

mod activations;
mod alpha;
mod gradients;
mod landscape;
mod lesion;
mod paths;
mod shattered;
mod subject;
#[cfg(test)]
mod tests;

pub use subject::Subject;

use crate::{LabError, chart::Figure};
use residual_train::{Environment, TrainError, files};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Norms of the weights' gradients, layer by layer.
    Gradients,
    /// Scales of blocks' and layers' outputs.
    Activations,
    /// The error without a block, without several, and with blocks swapped.
    Lesion,
    /// The error as the skip strength goes from 0 to 1.
    Alpha,
    /// The gradient by the length of the path it takes.
    Paths,
    /// The loss around the weights.
    Landscape,
    /// How far gradients at neighbouring inputs agree.
    Shattered,
}

impl What {
    /// All of them, in the order of a report.
    pub const ALL: &[Self] =
        &[Self::Gradients, Self::Activations, Self::Lesion, Self::Alpha, Self::Paths, Self::Landscape, Self::Shattered];

    /// The measurement's heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Gradients => "Gradients by layer",
            Self::Activations => "Activations by block",
            Self::Lesion => "Blocks removed",
            Self::Alpha => "Strength of the shortcut",
            Self::Paths => "Paths by length",
            Self::Landscape => "The loss around the weights",
            Self::Shattered => "Gradients at neighbouring inputs",
        }
    }

    /// What is measured and why, in two sentences.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Gradients => {
                "The norm of the loss's gradient with respect to each layer's weights. If it grows or shrinks by a \
                 factor a layer, the first and the last layer of a deep net cannot both learn at one learning rate."
            }
            Self::Activations => {
                "The scale of what each block hands on, and how large a part of it the block itself computed. Blocks \
                 with shortcuts refine what they get; plain blocks replace it (He et al. 2015, Fig. 7)."
            }
            Self::Lesion => {
                "The test error of the trained net after single blocks are taken out, after several, and after blocks \
                 swap places. Residual nets behave like many short paths and lose little; plain nets are one path \
                 (Veit et al. 2016)."
            }
            Self::Alpha => {
                "The same net trained with its shortcuts multiplied by α: 0 is the plain net, 1 the residual net. It \
                 shows how much of an identity the shortcut has to be (He et al. 2016, Table 1)."
            }
            Self::Paths => {
                "The gradient that reaches the input along paths through just k blocks and around all others, times \
                 the number of such paths. Long paths carry little: the net is as deep as the paths that matter (Veit \
                 et al. 2016)."
            }
            Self::Landscape => {
                "The training loss along random directions from the weights, each filter's step in proportion to its \
                 weights. Smooth bowls are easy to descend, and deep nets without shortcuts lose them (Li et al. 2018)."
            }
            Self::Shattered => {
                "The gradient along a line of inputs, and its autocorrelation. In deep plain nets it looks like white \
                 noise, which no step of gradient descent can use; shortcuts keep neighbours alike (Balduzzi et al. \
                 2017)."
            }
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gradients => "gradients",
            Self::Activations => "activations",
            Self::Lesion => "lesion",
            Self::Alpha => "alpha",
            Self::Paths => "paths",
            Self::Landscape => "landscape",
            Self::Shattered => "shattered",
        })
    }
}

impl FromStr for What {
    type Err = LabError;

    fn from_str(word: &str) -> Result<Self, LabError> {
        Self::ALL.iter().copied().find(|what| what.to_string() == word).ok_or_else(|| {
            let expected = Self::ALL.iter().map(Self::to_string).collect::<Vec<_>>().join(", ");
            LabError::Setting(format!("nothing is called `{word}` that could be inspected; expected {expected}"))
        })
    }
}

/// How thoroughly networks are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectConfig {
    /// Images that a measurement looks at.
    pub samples: usize,
    /// Initialisations over which gradients are averaged.
    pub inits: u64,
    /// Training steps after which gradients are measured too.
    pub steps: Vec<usize>,
    /// Trainings for each skip strength.
    pub seeds: u64,
    /// Random choices of blocks, paths and lines of inputs that are averaged.
    pub draws: usize,
    /// Points along each direction of a landscape.
    pub points: usize,
    /// Measurements at a time, each on one core.
    pub jobs: usize,
}

impl Default for InspectConfig {
    fn default() -> Self {
        Self {
            samples: 512,
            inits: 10,
            steps: Vec::new(),
            seeds: 2,
            draws: 20,
            points: 21,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl InspectConfig {
    /// Fails unless something can be measured.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn validate(&self) -> Result<(), LabError> {
        let least = [
            ("images", self.samples, 2),
            ("inits", self.inits as usize, 1),
            ("seeds", self.seeds as usize, 1),
            ("draws", self.draws, 1),
            ("points", self.points, 3),
            ("jobs", self.jobs, 1),
        ];
        if let Some((name, value, least)) = least.iter().find(|(_, value, least)| value < least) {
            return Err(LabError::Setting(format!("{name} must be at least {least}, not {value}")));
        }
        let most =
            [("points", self.points, 1001), ("inits", self.inits as usize, 10_000), ("draws", self.draws, 10_000)];
        match most.iter().find(|(_, value, most)| value > most) {
            Some((name, value, most)) => Err(LabError::Setting(format!("{name} must be at most {most}, not {value}"))),
            None => Ok(()),
        }
    }
}

/// Who is told how much is done, and of how much.
pub(crate) type Watch<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// What a measurement found.
struct Measurement {
    finding: String,
    details: Vec<String>,
    figure: Figure,
    /// The header and the rows.
    table: Vec<Vec<String>>,
}

/// One measurement, as its files tell it: `NAME.json`, with `NAME.csv` and `NAME.svg` beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inspection {
    /// What was measured.
    pub what: What,
    /// On which networks, trained or fresh, and on which data.
    pub subject: String,
    /// The number that matters, in a sentence.
    pub finding: String,
    /// What else was found, a sentence or two on each network.
    #[serde(default)]
    pub details: Vec<String>,
    /// The command that measures it again.
    pub command: String,
    /// The machine.
    pub environment: Environment,
    /// The picture.
    pub(crate) figure: Figure,
    /// Every value: the header and the rows.
    #[serde(skip)]
    pub(crate) table: Vec<Vec<String>>,
}

impl Inspection {
    /// Measures networks side by side. `watch` hears how much is done, and of how much, from several threads.
    ///
    /// # Errors
    /// If a setting is wrong, the networks are not ones of which this can be measured, or a sample cannot be read.
    pub fn measure(
        what: What,
        subjects: &[Subject],
        config: &InspectConfig,
        command: String,
        environment: Environment,
        watch: Watch<'_>,
    ) -> Result<Self, LabError> {
        Self::check(what, subjects, config)?;
        let config = &InspectConfig { jobs: Subject::jobs(subjects, config)?, ..config.clone() };
        let Measurement { finding, details, figure, table } = match what {
            What::Gradients => gradients::measure(subjects, config, watch),
            What::Activations => activations::measure(subjects, config, watch),
            What::Lesion => lesion::measure(subjects, config, watch),
            What::Alpha => alpha::measure(subjects, config, watch),
            What::Paths => paths::measure(subjects, config, watch),
            What::Landscape => landscape::measure(subjects, config, watch),
            What::Shattered => shattered::measure(subjects, config, watch),
        }?;
        let subject = subject::described(subjects);
        Ok(Self { what, subject, finding, details, command, environment, figure, table })
    }

    /// Fails unless this can be measured.
    ///
    /// # Errors
    /// As [`Self::measure`]'s, but those of reading samples.
    pub fn check(what: What, subjects: &[Subject], config: &InspectConfig) -> Result<(), LabError> {
        config.validate()?;
        if subjects.is_empty() {
            return Err(LabError::Setting("which network? name a run or a network".into()));
        }
        match what {
            What::Gradients => subjects.iter().try_for_each(|subject| gradients::check(subject, config))?,
            What::Lesion => subjects.iter().try_for_each(lesion::check)?,
            What::Alpha => subjects.iter().try_for_each(Subject::check_start)?,
            What::Paths => paths::check(subjects)?,
            What::Activations | What::Landscape | What::Shattered => {}
        }
        subjects.iter().try_for_each(|subject| subject.check_memory(config.samples))
    }

    /// Every value that was measured: the header and the rows. Empty in an inspection that was read back, whose rows are
    /// in its CSV file.
    pub fn table(&self) -> &[Vec<String>] {
        &self.table
    }

    /// The picture.
    pub fn svg(&self) -> String {
        self.figure.to_svg()
    }

    /// Writes `NAME.csv`, `NAME.svg` and at last `NAME.json` into a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<(), LabError> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let failed = |error: String| TrainError::Learner(format!("cannot write CSV: {error}"));
        for row in &self.table {
            csv.write_record(row).map_err(|error| failed(error.to_string()))?;
        }
        let csv = csv.into_inner().map_err(|error| failed(error.to_string()))?;
        files::create_dir(folder)?;
        files::write(&folder.join(format!("{name}.csv")), &csv)?;
        files::write(&folder.join(format!("{name}.svg")), self.figure.to_svg().as_bytes())?;
        Ok(files::write_json(&folder.join(format!("{name}.json")), self)?)
    }

    /// The measurements of a folder and of the folders in it: by folder, in the order of [`What::ALL`], and then of their
    /// files' names.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, LabError> {
        let (mut found, folders) = Self::read_in(folder)?;
        for folder in folders {
            found.extend(Self::read_in(&folder)?.0);
        }
        Ok(found)
    }

    /// Those that lie in the folder itself, and the folders in it.
    fn read_in(folder: &Path) -> Result<(Vec<Self>, Vec<PathBuf>), LabError> {
        let unreadable = |source| TrainError::Io { action: "read", path: folder.into(), source };
        let (mut paths, mut folders) = (Vec::new(), Vec::new());
        for entry in folder.read_dir().map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "json") && path.with_extension("svg").exists() {
                paths.push(path);
            }
        }
        paths.sort();
        folders.sort();
        let mut found =
            paths.iter().map(|path| Ok(files::read_json(path)?)).collect::<Result<Vec<Self>, LabError>>()?;
        found.sort_by_key(|inspection| What::ALL.iter().position(|what| *what == inspection.what));
        Ok((found, folders))
    }
}
