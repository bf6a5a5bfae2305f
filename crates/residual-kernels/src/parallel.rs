//! Loops on the thread pool.

use rayon::{Yield, prelude::*};
use std::{
    cell::Cell,
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Calls `f` for each item, on the calling thread if `serial` is true, otherwise on the thread pool.
pub(crate) fn for_each<T: Send>(items: impl Iterator<Item = T>, serial: bool, f: impl Fn(T) + Sync + Send) {
    if serial {
        return items.for_each(f);
    }
    items.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(f);
}

/// The time for which idle threads wait for the next operation before they sleep. Without it, they would fall asleep between the
/// operations of a network, and waking a thread takes as long as a small layer.
const STAY_AWAKE: Duration = Duration::from_micros(100);

/// The number of threads that [`stay_awake`] or soon will.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The number of operations that run on this thread. All but the last wait.
    static OPERATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Runs an operation on a thread of the pool, whose other threads stay awake. On a pool thread, the parallel loops of `f` exchange
/// work directly. Outside the pool, each loop would put the calling thread to sleep and wake it again.
pub(crate) fn run_in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    /// Ends the operation, also if it panics.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            OPERATIONS.set(OPERATIONS.get() - 1);
        }
    }

    rayon::scope(|_| {
        OPERATIONS.set(OPERATIONS.get() + 1);
        let _end = End;
        let (own, others) = (rayon::current_thread_index(), rayon::current_num_threads() - 1);
        if others > 0 && AWAKE.compare_exchange(0, others, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            rayon::spawn_broadcast(move |context| {
                if Some(context.index()) == own {
                    return;
                }
                if OPERATIONS.get() == 0 {
                    stay_awake();
                }
                AWAKE.fetch_sub(1, Ordering::Relaxed);
            });
        }
        f()
    })
}

/// Executes tasks of the pool until there have been none for [`STAY_AWAKE`].
fn stay_awake() {
    let mut last = Instant::now();
    while last.elapsed() < STAY_AWAKE {
        match rayon::yield_now() {
            Some(Yield::Executed) => last = Instant::now(),
            _ => thread::yield_now(),
        }
    }
}

/// Values that tasks write at the same time.
pub(crate) struct SharedOutput<'a>(*mut f32, PhantomData<&'a mut [f32]>);

// SAFETY: only unsafe code can write through the pointer, and has to see to it that tasks write different values.
unsafe impl Send for SharedOutput<'_> {}

// SAFETY: as above.
unsafe impl Sync for SharedOutput<'_> {}

impl<'a> SharedOutput<'a> {
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        Self(values.as_mut_ptr(), PhantomData)
    }

    /// A pointer to the value at this offset.
    pub(crate) fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// The number of images per task, if tasks prefer to have at least `together` images: there are at most `most` tasks, and a
/// multiple of `multiple`, so that all threads have equally many.
pub(crate) fn images_per_task(batch: usize, together: usize, most: usize, multiple: usize) -> usize {
    let tasks = batch.div_ceil(together).min(most).next_multiple_of(multiple);
    batch.div_ceil(tasks.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_equally_many_tasks() {
        assert_eq!(images_per_task(128, 12, 16, 2), 11);
        assert_eq!(images_per_task(8, 3, 16, 2), 2);
        assert_eq!(images_per_task(128, 1, 16, 2), 8);
        assert_eq!(images_per_task(2, 1, 16, 4), 1);
        assert_eq!(images_per_task(0, 1, 16, 4), 1);
    }

    #[test]
    fn idle_threads_work_and_then_sleep() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sum = AtomicUsize::new(0);
        pool.install(|| {
            run_in_pool(|| {
                for_each(0..100, false, |i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(sum.into_inner(), 4950);
        let start = Instant::now();
        while AWAKE.load(Ordering::Relaxed) > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "threads do not sleep");
            thread::yield_now();
        }
    }
}
