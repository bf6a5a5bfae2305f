//! The threads that compute on a CPU.

use crate::{job, output::log};
use rayon::{ThreadPool, ThreadPoolBuilder};
use residual_data::DataError;
use std::{fmt::Display, sync::OnceLock};

/// The most threads that compute.
pub(crate) const MOST: usize = 256;

/// The error if a thread cannot be started.
pub(crate) fn refused(error: impl Display) -> DataError {
    DataError::Threads(error.to_string())
}

/// Starts the threads that compute: as many as given, else as in `RAYON_NUM_THREADS`, else [`cores`].
///
/// The calling thread is one of them. Otherwise it would wait, and hand over each operation and its result: the small
/// networks lose a quarter of their speed to that.
///
/// # Errors
/// If the system refuses to start a thread.
pub(crate) fn start(number: Option<usize>) -> Result<(), DataError> {
    /// A pool of its own: in the global one, operations of other threads would wait for this thread.
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    let number = number.or_else(requested).unwrap_or_else(cores);
    let pool = ThreadPoolBuilder::new().use_current_thread().num_threads(number).build().map_err(refused)?;
    POOL.get_or_init(|| pool);
    Ok(())
}

/// This process's share of the cores, which the processes that `mpirun` started on this machine divide.
pub(crate) fn cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / job::processes_here()).max(1)
}

/// The number of threads in the environment variable of rayon, the library that runs them.
fn requested() -> Option<usize> {
    const RAYON_NUM_THREADS: &str = "RAYON_NUM_THREADS";
    let number = std::env::var(RAYON_NUM_THREADS).ok()?.parse().ok()?;
    if number > MOST {
        log!("note: {RAYON_NUM_THREADS} is {number}; using {MOST} threads");
    }
    Some(MOST.min(number))
}
