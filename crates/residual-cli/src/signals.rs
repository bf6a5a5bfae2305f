//! Signals that stop a run.

use crate::{output::log, threads::refused};
use anyhow::Context;
use residual_train::StopFlag;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How long a second signal is taken for a repetition of the first: `timeout` sends its signal to the program and to
/// its process group.
const REPETITION: Duration = Duration::from_millis(500);

/// How often the flag is checked for the message to the user.
const POLL: Duration = Duration::from_millis(50);

/// What the handlers of SIGINT, SIGTERM and SIGHUP read and set.
#[derive(Default)]
struct Flags {
    /// A signal ends the program, because nothing reads the stop flag.
    ends: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Another signal ends the program.
    again: Arc<AtomicBool>,
}

static FLAGS: OnceLock<Flags> = OnceLock::new();

/// Installs the handlers. Until [`stop_flag`] is called, signals end the program as if there were none. Signals that
/// were ignored when the program started, for example by `nohup`, remain ignored (on Linux).
///
/// While signal-hook registers a handler, it loses the signals that arrive. So they wait in the meantime, which needs
/// a program without other threads: the first thing that `main` does.
///
/// The handlers only set flags, so nothing that happens to the terminal can keep a signal from being heard.
pub(crate) fn install() -> std::io::Result<()> {
    #[cfg(unix)]
    let waiting = nix::sys::signal::SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let flags = Flags { ends: Arc::new(AtomicBool::new(true)), ..Flags::default() };
    let ignored = ignored();
    let is_heard = |signal: &i32| ignored >> (signal - 1) & 1 == 0;
    for signal in [SIGINT, SIGTERM].into_iter().filter(is_heard) {
        flag::register_conditional_default(signal, flags.ends.clone())?;
        flag::register_conditional_shutdown(signal, 130, flags.again.clone())?;
        flag::register(signal, flags.stop.clone())?;
    }
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGXFSZ};
        if is_heard(&SIGHUP) {
            flag::register_conditional_default(SIGHUP, flags.ends.clone())?;
            flag::register(SIGHUP, flags.stop.clone())?;
        }
        // A write beyond a limit on the size of files (`ulimit -f`) is an error instead of the end of the program.
        flag::register(SIGXFSZ, Arc::default())?;
    }
    let _ = FLAGS.set(flags);
    #[cfg(unix)]
    waiting.thread_set_mask()?;
    Ok(())
}

/// A flag that the first SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal was closed) sets. Another SIGINT or SIGTERM
/// ends the program immediately.
pub(crate) fn stop_flag() -> anyhow::Result<StopFlag> {
    let Flags { ends, stop, again } = FLAGS.get().context("the handlers of signals are not installed")?;
    ends.store(false, Ordering::SeqCst);
    let watch = || {
        while !stop.load(Ordering::SeqCst) {
            thread::sleep(POLL);
        }
        log!("stopping after this step; press Ctrl-C again to stop immediately");
        thread::sleep(REPETITION);
        again.store(true, Ordering::SeqCst);
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map_err(refused)?;
    Ok(StopFlag::from(stop.clone()))
}

/// From now on a signal ends the program again. Returns whether one has set the stop flag before.
#[cfg(unix)]
pub(crate) fn end_the_program() -> bool {
    FLAGS.get().is_some_and(|flags| {
        flags.ends.store(true, Ordering::SeqCst);
        flags.stop.load(Ordering::SeqCst)
    })
}

/// The ignored signals: bit `n - 1` is set if signal `n` is ignored.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
