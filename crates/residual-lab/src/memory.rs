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
    let available = Memory::available();
    if expected > available {
        let [expected, available] = [expected, available].map(|bytes| bytes as f64 / f64::from(1 << 30));
        return Err(LabError::Setting(format!(
            "{name} needs about {expected:.1} GiB of memory for {} images, but {available:.1} GiB are available; try \
             fewer images or a smaller width",
            config.batch_size
        )));
    }
    Ok(jobs.min(usize::try_from(available / expected.max(1)).unwrap_or(usize::MAX)).max(1))
}
