use crate::LabError;

/// How many samples, seeds and random choices a measurement takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectConfig {
    /// Images per measurement.
    pub samples: usize,
    /// Initialisations over which gradients are averaged.
    pub inits: u64,
    /// Optimizer steps after which gradients are measured too.
    pub steps: Vec<usize>,
    /// Trainings per skip strength.
    pub seeds: u64,
    /// Random choices of blocks, of paths or of lines of inputs, over which results are averaged.
    pub draws: usize,
    /// Points along each direction of a landscape.
    pub points: usize,
    /// Tasks that run at a time, each on one core. The results do not depend on it.
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
    /// Checks every setting.
    ///
    /// # Errors
    /// If a setting is out of its range; the first one is named.
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

/// A callback with the number of steps done and of all steps. It is called from several threads.
pub(crate) type OnStep<'a> = &'a (dyn Fn(usize, usize) + Sync);
