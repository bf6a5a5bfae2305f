//! Starts threads. Where the system refuses them, the caller gets an error, not a panic.

use crate::DataError;
use rayon::ThreadPoolBuilder;
use std::{
    error::Error,
    sync::{Mutex, OnceLock},
    thread,
};

/// Starts the threads of rayon's global pool, unless they are running. Without this call, the first parallel operation
/// starts them, and panics if the system refuses.
///
/// # Errors
/// If the threads cannot be started.
pub fn start_threads() -> Result<(), DataError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    // A thread of another pool uses that one.
    if rayon::current_thread_index().is_some() {
        return Ok(());
    }
    let started = STARTED.get_or_init(|| match ThreadPoolBuilder::new().build_global() {
        // Without a source, the error says that they are running.
        Err(error) if error.source().is_some() => Err(error.to_string()),
        _ => Ok(()),
    });
    started.clone().map_err(DataError::Threads)
}

/// Checks that the system allows this many more threads at a time, for libraries that panic if it does not.
///
/// # Errors
/// If the system refuses one of them.
pub fn check_threads(more: usize) -> Result<(), DataError> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let wait = || drop(gate.lock());
        let refused = (0..more).find_map(|_| thread::Builder::new().spawn_scoped(scope, wait).err());
        drop(closed);
        refused.map_or(Ok(()), |error| Err(DataError::Threads(error.to_string())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_threads_can_be_started_repeatedly() {
        for _ in 0..3 {
            start_threads().unwrap();
            check_threads(5).unwrap();
        }
    }
}
