//! Prints results to stdout, and progress, notes and errors to stderr.
//!
//! Everything is escaped, because names in files may contain sequences that control a terminal. Writing to stderr never
//! fails, and once [`never_block`] is called it never waits for its reader either.

use crate::table::aligned;
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use residual_data::printable;
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Writes a line to stderr, formatted as by [`format!`].
macro_rules! log {
    ($($argument:tt)*) => {
        $crate::output::line(&format!($($argument)*))
    };
}
pub(crate) use log;

/// Writes a line to stderr.
pub(crate) fn line(text: &str) {
    if !IS_SILENT.load(Ordering::Relaxed) {
        error_line(text);
    }
}

static IS_SILENT: AtomicBool = AtomicBool::new(false);

/// From now on, nothing is written but errors.
pub(crate) fn silence() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

/// Writes a line to stderr, even if this process is silenced.
pub(crate) fn error_line(text: &str) {
    write_stderr(format!("{}\n", printable(text)).as_bytes());
}

fn write_stderr(bytes: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(bytes),
        None => drop(io::stderr().write_all(bytes)),
    }
}

/// What is still to be written to stderr.
#[derive(Default)]
struct Queue {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    is_writing: bool,
    is_stuck: bool,
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// The most bytes that wait for a reader of stderr. Further lines are dropped.
const MOST_PENDING: usize = 1 << 20;

/// How long the program waits for the reader of stderr before it prints a result or ends.
const PATIENCE: Duration = Duration::from_secs(2);

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        let mut pending = self.lock();
        if pending.bytes.len() + bytes.len() <= MOST_PENDING {
            pending.bytes.extend(bytes);
            self.changed.notify_all();
        }
    }

    /// Writes what is pushed. An error, for example of a closed terminal, concerns only what was to be written.
    fn write(&self) -> ! {
        let mut pending = self.lock();
        loop {
            while pending.bytes.is_empty() {
                pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let bytes = std::mem::take(&mut pending.bytes);
            pending.is_writing = true;
            drop(pending);
            drop(io::stderr().write_all(&bytes));
            pending = self.lock();
            (pending.is_writing, pending.is_stuck) = (false, false);
            self.changed.notify_all();
        }
    }
}

/// From now on, writing to stderr never waits for its reader, such as a pager that is not scrolled; a
/// separate thread waits instead.
pub(crate) fn never_block() -> io::Result<()> {
    let write = || QUEUE.get_or_init(Queue::default).write();
    thread::Builder::new().name("stderr".into()).spawn(write)?;
    QUEUE.get_or_init(Queue::default);
    Ok(())
}

/// Waits until everything is written to stderr, but not for a reader that has stopped reading.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        let is_busy = |p: &mut Pending| !p.is_stuck && (p.is_writing || !p.bytes.is_empty());
        if let Ok((mut pending, waited)) = queue.changed.wait_timeout_while(queue.lock(), PATIENCE, is_busy) {
            pending.is_stuck |= waited.timed_out();
        }
    }
}

/// Writes a result to stdout. A pipe that the reader has closed, as `head` does, is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_unescaped(&printable(text))
}

fn print_unescaped(text: &str) -> anyhow::Result<()> {
    if IS_SILENT.load(Ordering::Relaxed) {
        return Ok(());
    }
    flush();
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("cannot write to stdout"))
        }
        _ => Ok(()),
    }
}

/// Writes a text with Markdown tables to stdout. On a terminal, the tables become aligned columns.
pub(crate) fn print_markdown(text: &str) -> anyhow::Result<()> {
    if io::stdout().is_terminal() { print(&aligned(text)) } else { print(text) }
}

/// Writes a value to stdout as indented JSON.
pub(crate) fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    let mut json = String::new();
    // JSON has control characters only within its strings, and serde_json escapes only the first 32.
    for character in serde_json::to_string_pretty(value)?.chars() {
        if printable(character.encode_utf8(&mut [0; 4])).len() == character.len_utf8() {
            json.push(character);
        } else {
            write!(json, "\\u{:04x}", u32::from(character))?;
        }
    }
    print_unescaped(&format!("{json}\n"))
}

/// Formats a fraction: `12.34 %` for 0.1234.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// A progress bar if stderr is a terminal that can draw one, else lines of text only.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(crate) fn new(total: u64, done: u64) -> Self {
        if IS_SILENT.load(Ordering::Relaxed)
            || !io::stderr().is_terminal()
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
        {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(total), draw_target()).with_position(done);
        let template = "{bar:20} {percent:>3} %  {elapsed} elapsed, {eta} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.reset_eta();
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Self(Some(bar))
    }

    pub(crate) fn inc(&self, work: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(work);
        }
    }

    pub(crate) fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    pub(crate) fn message(&self, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(printable(text).into_owned());
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.println(printable(text)),
            None => line(text),
        }
    }

    /// The number of columns that a line above the bar has. `None` if lines may have any length.
    pub(crate) fn columns(&self) -> Option<usize> {
        self.0.as_ref().and_then(|_| Term::stderr().size_checked()).map(|(_, columns)| columns.into())
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Draws by way of [`write_stderr`].
#[cfg(unix)]
fn draw_target() -> ProgressDrawTarget {
    ProgressDrawTarget::term(Term::read_write_pair(io::stdin(), Stderr), 20)
}

#[cfg(not(unix))]
fn draw_target() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr()
}

/// [`write_stderr`] as a writer.
#[cfg(unix)]
#[derive(Debug)]
struct Stderr;

#[cfg(unix)]
impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_stderr(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for Stderr {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        io::stderr().as_raw_fd()
    }
}
