use super::words;
use crate::{Interrupted, Usage, output, signals, threads};
use residual_backend::{Backend, BackendError, Hardware};
use residual_model::Kernels;

/// The backend and its kernels.
#[derive(clap::Args)]
pub(crate) struct BackendArgs {
    /// Backend: see `residual devices` [default: BURN_DEVICE, else flex]
    #[arg(long, help_heading = "Backend", value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Code that computes blocks on flex and ndarray [default: fused]
    ///
    /// fused: one kernel per block.
    /// recompute: the same, but only each block's input is kept for the
    /// backward pass, which recomputes the rest: less memory, more time.
    /// reference: Burn's operations one by one.
    #[arg(long, help_heading = "Backend", value_name = "KIND", verbatim_doc_comment, value_parser = words::<Kernels>())]
    pub(crate) kernels: Option<Kernels>,
    /// Short for --kernels recompute: less memory, more time, same result
    #[arg(long, help_heading = "Backend")]
    pub(crate) recompute: bool,
    /// Threads that compute on a CPU [default: the number of cores]
    #[arg(long, help_heading = "Backend", value_name = "THREADS", value_parser = thread_number)]
    pub(crate) threads: Option<usize>,
}

/// Parses a number of threads.
pub(crate) fn thread_number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=threads::MOST).contains(number));
    number.ok_or_else(|| format!("invalid number of threads `{text}`; expected 1 to {}", threads::MOST))
}

impl BackendArgs {
    /// Opens the device and selects the kernels.
    pub(crate) fn open(&self) -> anyhow::Result<(Backend, Hardware)> {
        let backend = choose(self.backend.as_deref())?;
        let hardware = backend.probe()?;
        self.select(backend, &hardware)?;
        Ok((backend, hardware))
    }

    /// Opens the devices with these names, which have one backend, or else the one of [`Self::open`], and selects the
    /// kernels.
    pub(crate) fn open_all(&self, names: &[String]) -> anyhow::Result<(Backend, Vec<Hardware>)> {
        let Some((first, others)) = names.split_first() else {
            return self.open().map(|(backend, hardware)| (backend, vec![hardware]));
        };
        let (backend, hardware) = Backend::device(first.trim())?;
        let mut devices = vec![hardware];
        for name in others {
            let (other, hardware) = Backend::device(name.trim())?;
            if other != backend {
                return Err(Usage(format!("{first} and {name} have different backends")).into());
            }
            // Several devices on one processor only show that they compute the same.
            if !backend.uses_main_memory() && devices.iter().any(|device| device.id == hardware.id) {
                return Err(Usage(format!("{} is named twice", hardware.id)).into());
            }
            devices.push(hardware);
        }
        self.select(backend, &devices[0])?;
        Ok((backend, devices))
    }

    fn select(&self, backend: Backend, hardware: &Hardware) -> Result<(), Usage> {
        let kernels = match (self.kernels, self.recompute) {
            (Some(Kernels::Reference), true) => {
                return Err(Usage("--recompute cannot be combined with --kernels reference".into()));
            }
            (_, true) => Kernels::Recompute,
            (kernels, false) => kernels.unwrap_or_default(),
        };
        kernels.select();
        if kernels == Kernels::Recompute && Kernels::on(&hardware.device) == Kernels::Reference {
            return Err(Usage(format!("recompute kernels need the backend flex or ndarray, not {backend}")));
        }
        Ok(())
    }
}

/// The backend with this name, else the one in `BURN_DEVICE`, else flex.
pub(crate) fn choose(name: Option<&str>) -> Result<Backend, BackendError> {
    Backend::choose(name, std::env::var("BURN_DEVICE").ok().as_deref())
}

/// Makes the backend Burn's default, by restarting the program with `BURN_DEVICE` set.
///
/// Burn restores an optimizer's state on its default device, which only this environment variable can change. Without
/// it the default is the first backend compiled in, even if its hardware is missing.
///
/// # Errors
///
/// [`Restart`], for `main`, if the program has to restart.
pub(crate) fn make_default(backend: Backend) -> Result<(), Restart> {
    let is_default = std::env::var(BURN_DEVICE).is_ok_and(|name| name == backend.name());
    if is_default { Ok(()) } else { Err(Restart(backend)) }
}

const BURN_DEVICE: &str = "BURN_DEVICE";

/// The program has to restart with this backend as Burn's default.
#[derive(Debug, thiserror::Error)]
#[error("the program has to restart with {BURN_DEVICE}={}", .0.name())]
pub(crate) struct Restart(Backend);

impl Restart {
    /// Restarts the program. It returns if that fails, or if a signal arrived.
    ///
    /// Handlers run on the main thread if it is free, and replacing the program ends all threads but the calling one:
    /// only the main thread cannot cut off a handler and lose its signal.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        output::flush();
        let mut again = std::process::Command::new(std::env::current_exe()?);
        again.args(std::env::args_os().skip(1)).env(BURN_DEVICE, self.0.name());
        #[cfg(unix)]
        {
            if signals::end_the_program() {
                return Err(Interrupted("stopped before anything was computed".into()).into());
            }
            Err(std::os::unix::process::CommandExt::exec(&mut again).into())
        }
        #[cfg(not(unix))]
        #[allow(clippy::exit)]
        {
            // Ctrl-C is for the program that trains, which this one waits for.
            let _heard = signals::stop_flag()?;
            std::process::exit(again.status()?.code().unwrap_or(1));
        }
    }
}
