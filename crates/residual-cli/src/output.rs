//! Prints results and progress.

use crate::table::aligned;
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};

/// Writes a result to stdout. A pipe that the reader has closed, as `head` does, is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a text with Markdown tables to stdout. On a terminal, the tables become aligned columns.
pub(crate) fn print_markdown(text: &str) -> anyhow::Result<()> {
    if io::stdout().is_terminal() { print(&aligned(text)) } else { print(text) }
}

/// Writes a value to stdout as indented JSON.
pub(crate) fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Formats a fraction: `12.34 %` for 0.1234.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// A progress bar if stderr is a terminal that can draw one, else lines of text only.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(crate) fn new(total: u64, done: u64) -> Self {
        if !io::stderr().is_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_position(done);
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
            bar.set_message(text.to_string());
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
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
