//! Checks of the ranges of settings.

use crate::TrainError;

/// Fails if a number is 0.
pub(crate) fn at_least_one(name: &'static str, value: usize) -> Result<(), TrainError> {
    if value == 0 {
        return Err(TrainError::Setting { name, expected: "at least 1", value: value.to_string() });
    }
    Ok(())
}

/// Fails if a number is NaN or infinite, or a condition does not hold for it. `expected` describes the condition.
pub(crate) fn within(
    name: &'static str,
    value: f64,
    expected: &'static str,
    holds: impl Fn(f64) -> bool,
) -> Result<(), TrainError> {
    if value.is_finite() && holds(value) {
        return Ok(());
    }
    Err(TrainError::Setting { name, expected, value: value.to_string() })
}
