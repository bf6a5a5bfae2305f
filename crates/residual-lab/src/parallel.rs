//! Parallel tasks, each on one core.

use crate::LabError;
use rayon::{ThreadPool, ThreadPoolBuilder};
use residual_data::DataError;
use residual_train::TrainError;
use std::{
    fmt::Display,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::Builder,
};

/// The stack of each thread, in bytes. Burn walks the graph of a network recursively, so networks with a thousand
/// layers need a large stack.
const STACK: usize = 64 << 20;

/// Calls `f` with each number below `count` and returns the results in order. Up to `jobs` calls run at the same time,
/// each on a thread pool with one thread, so the results do not depend on `jobs`, nor on how many threads the system
/// allows, as long as it allows one call at a time. After an error, no further call starts, and the first error is
/// returned.
pub(crate) fn each<R: Send>(
    count: usize,
    jobs: usize,
    f: impl Fn(usize) -> Result<R, LabError> + Sync,
) -> Result<Vec<R>, LabError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new((0..count).map(|_| None).collect());
    let failure: Mutex<Option<LabError>> = Mutex::new(None);
    let work = |pool: &ThreadPool| -> Result<(), LabError> {
        loop {
            let i = next.fetch_add(1, Ordering::SeqCst);
            if i >= count {
                return Ok(());
            }
            let result = pool.install(|| f(i))?;
            lock(&results)[i] = Some(result);
        }
    };
    let worker = |pool: ThreadPool| {
        if let Err(error) = work(&pool) {
            next.store(count, Ordering::SeqCst);
            lock(&failure).get_or_insert(error);
        }
    };
    let cannot_start = |error: &dyn Display| TrainError::from(DataError::Threads(error.to_string()));
    std::thread::scope(|scope| {
        for started in 0..jobs.min(count) {
            let pool = ThreadPoolBuilder::new().num_threads(1).stack_size(STACK).build();
            let spawned = pool.map_err(|error| cannot_start(&error)).and_then(|pool| {
                let spawned = Builder::new().spawn_scoped(scope, move || worker(pool));
                spawned.map_err(|error| cannot_start(&error))
            });
            match spawned {
                Err(error) if started == 0 => return Err(error),
                // The threads that did start do all the work.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    })?;
    match lock(&failure).take() {
        Some(error) => Err(error),
        None => Ok(lock(&results).drain(..).flatten().collect()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_an_error_stops_the_calls() {
        for jobs in [1, 3, 100] {
            assert_eq!(each(50, jobs, |i| Ok(i * i)).unwrap(), (0..50).map(|i| i * i).collect::<Vec<_>>());
        }
        let begun = AtomicUsize::new(0);
        let failed = each(50, 1, |i| {
            begun.fetch_add(1, Ordering::SeqCst);
            if i == 3 { Err(LabError::Setting("no three".into())) } else { Ok(rayon::current_num_threads()) }
        });
        assert_eq!((failed.unwrap_err().to_string(), begun.into_inner()), ("no three".into(), 4));
        assert_eq!(each(2, 2, |_| Ok(rayon::current_num_threads())).unwrap(), [1, 1]);
        assert!(each(0, 2, Ok).unwrap().is_empty());
    }
}
