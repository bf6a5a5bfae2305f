//! The threads that compute on a CPU.

use crate::output::log;
use anyhow::Context;
use std::{
    sync::mpsc::{Sender, channel},
    thread,
};

/// The most threads that compute.
pub(crate) const MOST: usize = 256;

/// The threads that Burn and the progress bar start, and cannot start without a panic if there are too few.
const OTHERS: usize = 8;

/// Starts the threads that compute: as many as given, else as in `RAYON_NUM_THREADS`, else one per core.
///
/// # Errors
/// If the system refuses to start a thread.
pub(crate) fn start(number: Option<usize>) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(number.or_else(requested).unwrap_or_default());
    pool.build_global().context(REFUSED)?;
    let mut ends: Vec<Sender<()>> = Vec::new();
    for _ in 0..OTHERS {
        let (end, ended) = channel();
        ends.push(end);
        thread::Builder::new().spawn(move || ended.recv().is_ok()).context(REFUSED)?;
    }
    Ok(())
}

/// What an error says before its cause if a thread cannot be started.
pub(crate) const REFUSED: &str =
    "cannot start a thread; a limit on threads or processes may be too low (see `ulimit -u`)";

/// The number of threads in the environment variable that rayon, the library that runs them, reads.
fn requested() -> Option<usize> {
    const RAYON_NUM_THREADS: &str = "RAYON_NUM_THREADS";
    let number = std::env::var(RAYON_NUM_THREADS).ok()?.parse().ok()?;
    if number > MOST {
        log!("note: {RAYON_NUM_THREADS} is {number}; using {MOST} threads");
    }
    Some(MOST.min(number))
}
