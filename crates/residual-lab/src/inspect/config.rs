use crate::LabError;
use residual_train::StopFlag;

/// The numbers of samples, seeds and random choices of a measurement.
#[derive(Clone, Debug)]
pub struct InspectConfig {
    /// Images per measurement.
    pub samples: usize,
    /// Initialisations over which gradients are averaged, per network and norm.
    pub inits: u64,
    /// The numbers of optimizer steps after which gradients are also measured.
    pub steps: Vec<usize>,
    /// Trainings per skip strength.
    pub seeds: u64,
    /// Random choices of blocks, paths or lines of inputs over which results are averaged.
    pub draws: usize,
    /// Grid points along each direction of a landscape; an even number is rounded up to an odd one.
    pub points: usize,
    /// Tasks that run at the same time, each on one core. The results do not depend on it.
    pub jobs: usize,
    /// The flag that stops a measurement between two of its tasks.
    pub stop: StopFlag,
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
            stop: StopFlag::default(),
        }
    }
}

impl InspectConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// If a setting is out of range. The error names the first such setting.
    pub fn validate(&self) -> Result<(), LabError> {
        let most = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let ranges = [
            ("images", self.samples, 2, usize::MAX),
            ("inits", most(self.inits), 1, 10_000),
            ("seeds", most(self.seeds), 1, 1000),
            ("draws", self.draws, 1, 10_000),
            ("points", self.points, 3, 1001),
            ("jobs", self.jobs, 1, usize::MAX),
        ];
        for (name, value, least, most) in ranges {
            if value < least {
                return Err(LabError::Setting(format!("{name} must be at least {least}, not {value}")));
            }
            if value > most {
                return Err(LabError::Setting(format!("{name} must be at most {most}, not {value}")));
            }
        }
        Ok(())
    }
}

/// A callback that receives the number of finished steps and the total number of steps, from several threads.
pub(crate) type OnStep<'a> = &'a (dyn Fn(usize, usize) + Sync);
