//! Memory that is used again.

use memmap2::MmapMut;
use std::{
    fmt, mem,
    ops::{Deref, DerefMut, RangeInclusive},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A cache line of numbers: vectors loaded from its start never straddle two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Buffers of this many lines (1 MiB) are mapped: freed, they go back to the system whole, and do not leave
/// holes between smaller ones.
const MAPPED: usize = 1 << 14;

enum Memory {
    Lines(Vec<Line>),
    Map(MmapMut),
}

impl Memory {
    fn new(lines: usize) -> Self {
        let map = (lines >= MAPPED).then(|| MmapMut::map_anon(lines * size_of::<Line>()).ok()).flatten();
        #[cfg(target_os = "linux")]
        if let Some(map) = &map {
            // A hint that a system without huge pages may refuse.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        map.map_or_else(|| Self::Lines(vec![Line([0.0; 16]); lines]), Self::Map)
    }

    fn lines(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Map(map) => map.len() / size_of::<Line>(),
        }
    }

    fn as_ptr(&self) -> *const f32 {
        match self {
            Self::Lines(lines) => lines.as_ptr().cast(),
            Self::Map(map) => map.as_ptr().cast(),
        }
    }

    fn as_mut_ptr(&mut self) -> *mut f32 {
        match self {
            Self::Lines(lines) => lines.as_mut_ptr().cast(),
            Self::Map(map) => map.as_mut_ptr().cast(),
        }
    }
}

/// Numbers at the start of a cache line. A dropped buffer is kept to be used again, as long as all buffers
/// together take no more memory than those in use at one time did.
pub struct Buffer {
    memory: Memory,
    len: usize,
}

/// Lines that inference keeps however many are in use: 64 MiB.
const ROOM: usize = 1 << 20;

struct Idle {
    /// The oldest first.
    buffers: Vec<Memory>,
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
        Self::within(len, 1)
    }

    /// The same, perhaps in memory for twice as many: for tensors whose sizes halve from stage to stage.
    pub(crate) fn roomy(len: usize) -> Self {
        Self::within(len, 2)
    }

    fn within(len: usize, times: usize) -> Self {
        let count = len.div_ceil(16);
        let found = {
            let mut idle = idle();
            let found = idle.take(count..=times * count);
            idle.in_use += found.as_ref().map_or(count, Memory::lines);
            idle.most_in_use = idle.most_in_use.max(idle.in_use);
            if found.is_none() {
                let keep = idle.most_in_use - idle.in_use;
                idle.shrink(if times > 1 { keep.max(ROOM) } else { keep });
            }
            found
        };
        Self { memory: found.unwrap_or_else(|| Memory::new(count)), len }
    }

    /// A buffer of `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Idle {
    /// The smallest buffer in a range of lines; the last of several.
    fn take(&mut self, range: RangeInclusive<usize>) -> Option<Memory> {
        let buffers = self.buffers.iter().enumerate().rev();
        let fitting = buffers.filter(|(_, memory)| range.contains(&memory.lines()));
        let at = fitting.min_by_key(|(_, memory)| memory.lines())?.0;
        self.lines -= self.buffers[at].lines();
        Some(self.buffers.remove(at))
    }

    /// Frees the oldest until no more than `keep` lines are left.
    fn shrink(&mut self, keep: usize) {
        let mut freed = 0;
        let mut count = 0;
        while self.lines - freed > keep {
            freed += self.buffers[count].lines();
            count += 1;
        }
        self.lines -= freed;
        self.buffers.drain(..count);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = mem::replace(&mut self.memory, Memory::Lines(Vec::new()));
        let mut idle = idle();
        idle.in_use -= memory.lines();
        idle.lines += memory.lines();
        idle.buffers.push(memory);
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the memory is initialised (a map with zeros), aligned for numbers, and has at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr(), self.len) }
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
