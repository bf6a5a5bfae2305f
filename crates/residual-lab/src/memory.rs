//! The memory of trainings and passes that run at the same time.

use crate::LabError;
use residual_model::Kernels;
use residual_train::{Memory, TrainConfig, TrainError};

/// The number of trainings with these settings that fit into memory at the same time, at most `jobs` and at least 1.
///
/// # Errors
/// If not even one fits. `name` names it.
pub(crate) fn fitting(config: &TrainConfig, name: &str, kernels: Kernels, jobs: usize) -> Result<usize, LabError> {
    let expected = Memory::expected(config, kernels).map_err(TrainError::from)?.total();
    if let Some(shortage) = Memory::shortage(expected) {
        let images = config.batch_size;
        return Err(LabError::Setting(format!(
            "{name} on {images} images needs about {shortage}; try fewer images or a smaller width"
        )));
    }
    Ok(jobs.min(usize::try_from(Memory::available() / expected.max(1)).unwrap_or(usize::MAX)).max(1))
}
