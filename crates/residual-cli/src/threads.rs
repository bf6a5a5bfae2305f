//! The threads that compute on a CPU.

use crate::output::log;
use anyhow::Context;

/// The most threads that compute.
pub(crate) const MOST: usize = 256;

/// What an error says before its cause if a thread cannot be started.
pub(crate) const REFUSED: &str =
    "cannot start a thread; a limit on threads or processes may be too low (see `ulimit -u`)";

/// Starts the threads that compute: as many as given, else as in `RAYON_NUM_THREADS`, else one per core.
///
/// # Errors
/// If the system refuses to start a thread.
pub(crate) fn start(number: Option<usize>) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(number.or_else(requested).unwrap_or_default());
    pool.build_global().context(REFUSED)
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
