//! Memory that is used again.

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A cache line of numbers: vectors loaded from its start never straddle two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Numbers at the start of a cache line. A dropped buffer is kept for the next of its length, as
/// long as all buffers together take no more memory than those in use at one time did.
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Default)]
struct Idle {
    /// The oldest first.
    buffers: Vec<Vec<Line>>,
    lines: usize,
    in_use: usize,
    most_in_use: usize,
}

static IDLE: Mutex<Idle> = Mutex::new(Idle { buffers: Vec::new(), lines: 0, in_use: 0, most_in_use: 0 });

fn idle() -> MutexGuard<'static, Idle> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Buffer {
    /// The alignment of its first number, in bytes.
    pub const ALIGNMENT: usize = align_of::<Line>();

    /// A buffer of `len` numbers, of any value.
    pub fn new(len: usize) -> Self {
        let count = len.div_ceil(16);
        let found = {
            let mut idle = idle();
            idle.in_use += count;
            idle.most_in_use = idle.most_in_use.max(idle.in_use);
            let found = idle.buffers.iter().rposition(|lines| lines.len() == count);
            match found {
                Some(at) => {
                    idle.lines -= count;
                    Some(idle.buffers.remove(at))
                }
                None => {
                    let keep = idle.most_in_use - idle.in_use;
                    idle.shrink(keep);
                    None
                }
            }
        };
        Self { lines: found.unwrap_or_else(|| vec![Line([0.0; 16]); count]), len }
    }

    /// A buffer of `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Idle {
    /// Frees the oldest until no more than `keep` lines are left.
    fn shrink(&mut self, keep: usize) {
        let mut freed = 0;
        let mut count = 0;
        while self.lines - freed > keep {
            freed += self.buffers[count].len();
            count += 1;
        }
        self.lines -= freed;
        self.buffers.drain(..count);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = mem::take(&mut self.lines);
        let mut idle = idle();
        idle.in_use -= lines.len();
        idle.lines += lines.len();
        idle.buffers.push(lines);
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen numbers without padding, and `len` is at most sixteen times the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} numbers", self.len)
    }
}
