//! Loops on the thread pool.

use rayon::Yield;
use std::{
    cell::Cell,
    marker::PhantomData,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Calls `f` for each item, on the calling thread if `serial` is true, otherwise on the thread pool. Each thread begins with its own
/// part of the items, so that it often finds in its cache what it wrote in the loop before, and then helps the others with theirs.
pub(crate) fn for_each<T: Send>(items: impl Iterator<Item = T>, serial: bool, f: impl Fn(T) + Sync + Send) {
    if serial {
        return items.for_each(f);
    }
    let items: Vec<T> = items.collect();
    let (count, threads) = (items.len(), rayon::current_num_threads().min(items.len()));
    if threads <= 1 {
        return items.into_iter().for_each(f);
    }
    let mut items = items.into_iter();
    let parts =
        divide(count, threads).map(|part| Mutex::new(items.by_ref().take(part.len()).collect::<Vec<_>>().into_iter()));
    let parts: Vec<_> = parts.collect();
    let take = |part: usize| parts[part].lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let own = rayon::current_thread_index().map_or(0, |thread| thread % threads);
        for part in (own..threads).chain(0..own) {
            while let Some(item) = take(part) {
                f(item);
            }
        }
    };
    let busy = AtomicUsize::new(threads - 1);
    rayon::scope(|scope| {
        let _operation = Operation::start();
        for _ in 1..threads {
            scope.spawn(|_| {
                work();
                busy.fetch_sub(1, Ordering::Release);
            });
        }
        work();
        stay_awake_while(|| busy.load(Ordering::Acquire) > 0);
    });
}

/// The time for which threads wait for the next operation, or for the others to finish a loop, before they sleep. Without it, they
/// would fall asleep between the layers of a network, and waking a thread takes as long as a small layer.
const STAY_AWAKE: Duration = Duration::from_micros(300);

/// The number of threads that stay awake after an operation, or soon will.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The number of operations and loops that this thread has begun and not finished. The last runs, or waits for others.
    static OPERATIONS: Cell<usize> = const { Cell::new(0) };
}

/// An operation or loop of this thread, until it is dropped.
struct Operation;

impl Operation {
    fn start() -> Self {
        OPERATIONS.set(OPERATIONS.get() + 1);
        Self
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        OPERATIONS.set(OPERATIONS.get() - 1);
    }
}

/// Runs an operation on a thread of the pool, whose other threads stay awake. On a pool thread, the parallel loops of `f` exchange
/// work directly. Outside the pool, each loop would put the calling thread to sleep and wake it again.
pub(crate) fn run_in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        let _operation = Operation::start();
        let (own, others) = (rayon::current_thread_index(), rayon::current_num_threads() - 1);
        if others > 0 && AWAKE.compare_exchange(0, others, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            rayon::spawn_broadcast(move |context| {
                if Some(context.index()) == own {
                    return;
                }
                if OPERATIONS.get() == 0 {
                    stay_awake_while(|| true);
                }
                AWAKE.fetch_sub(1, Ordering::Relaxed);
            });
        }
        f()
    })
}

/// Executes tasks of the pool while a condition is true, until there have been none for [`STAY_AWAKE`].
fn stay_awake_while(condition: impl Fn() -> bool) {
    let mut last = Instant::now();
    while condition() && last.elapsed() < STAY_AWAKE {
        match rayon::yield_now() {
            Some(Yield::Executed) => last = Instant::now(),
            _ => thread::yield_now(),
        }
    }
}

/// Divides `count` into consecutive parts, whose sizes differ by at most one.
#[inline(always)]
pub(crate) fn divide(count: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |part| part * count / parts..(part + 1) * count / parts)
}

/// Values that tasks write at the same time.
pub(crate) struct SharedOutput<'a>(*mut f32, PhantomData<&'a mut [f32]>);

// SAFETY: writing through the pointer is unsafe, and whoever does it must make sure that no two tasks access the same value.
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
    fn every_item_is_processed_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for count in [0, 1, 2, 5, 100] {
                let mut counts = vec![[0; 3]; count];
                pool.install(|| {
                    for_each(counts.iter_mut(), false, |counts| {
                        for_each(counts.iter_mut(), false, |count| *count += 1);
                    });
                });
                assert!(counts.iter().flatten().all(|count| *count == 1), "{count} items on {threads} threads");
            }
        }
    }

    #[test]
    #[should_panic(expected = "item 70")]
    fn a_panic_in_a_loop_reaches_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| for_each(0..100, false, |i| assert!(i != 70, "item {i}")));
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
