//! Signals that stop a run.

use crate::{output::log, threads::refused};
use residual_train::StopFlag;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    sync::{
        Arc,
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

/// A flag that the first SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal was closed) sets. Another SIGINT or SIGTERM
/// ends the program immediately. Signals that were ignored when the program started, for example by `nohup`, remain
/// ignored (on Linux).
///
/// The handlers only set flags, so nothing that happens to the terminal can keep a signal from being heard.
pub(crate) fn stop_flag() -> anyhow::Result<StopFlag> {
    let stop = Arc::new(AtomicBool::new(false));
    let again = Arc::new(AtomicBool::new(false));
    let ignored = ignored();
    let is_heard = |signal: &i32| ignored >> (signal - 1) & 1 == 0;
    for signal in [SIGINT, SIGTERM].into_iter().filter(is_heard) {
        flag::register_conditional_shutdown(signal, 130, again.clone())?;
        flag::register(signal, stop.clone())?;
    }
    #[cfg(unix)]
    if is_heard(&signal_hook::consts::SIGHUP) {
        flag::register(signal_hook::consts::SIGHUP, stop.clone())?;
    }
    let flag = StopFlag::from(stop.clone());
    let watch = move || {
        while !stop.load(Ordering::SeqCst) {
            thread::sleep(POLL);
        }
        log!("stopping after this step; press Ctrl-C again to stop immediately");
        thread::sleep(REPETITION);
        again.store(true, Ordering::SeqCst);
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map_err(refused)?;
    Ok(flag)
}

/// Makes a write beyond a limit on the size of files (`ulimit -f`) an error instead of the end of the program.
pub(crate) fn survive_file_size_limit() {
    #[cfg(unix)]
    let _ = flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// The ignored signals: bit `n - 1` is set if signal `n` is ignored.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
