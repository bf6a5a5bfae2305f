//! Loops on the thread pool.

use rayon::prelude::*;

/// Calls `f` for each item, on the calling thread if `serial` is true, otherwise on the thread pool.
pub(crate) fn for_each<T: Send>(items: impl Iterator<Item = T>, serial: bool, f: impl Fn(T) + Sync + Send) {
    if serial {
        return items.for_each(f);
    }
    items.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(f);
}
