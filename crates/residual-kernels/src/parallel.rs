//! Loops on the thread pool.

use rayon::prelude::*;

/// Calls `f` for each item, on the calling thread if `serial` is true, otherwise on the thread pool.
pub(crate) fn for_each<T: Send>(items: impl Iterator<Item = T>, serial: bool, f: impl Fn(T) + Sync + Send) {
    if serial {
        return items.for_each(f);
    }
    items.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(f);
}

/// The number of images per task, if tasks prefer to have at least `together` images: there are at most `most` tasks, and a
/// multiple of `multiple`, so that all threads have equally many.
pub(crate) fn images_per_task(batch: usize, together: usize, most: usize, multiple: usize) -> usize {
    let tasks = batch.div_ceil(together).min(most).next_multiple_of(multiple);
    batch.div_ceil(tasks.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::images_per_task;

    #[test]
    fn threads_have_equally_many_tasks() {
        assert_eq!(images_per_task(128, 12, 16, 2), 11);
        assert_eq!(images_per_task(8, 3, 16, 2), 2);
        assert_eq!(images_per_task(128, 1, 16, 2), 8);
        assert_eq!(images_per_task(2, 1, 16, 4), 1);
        assert_eq!(images_per_task(0, 1, 16, 4), 1);
    }
}
