//! The processes that `mpirun` starts to share a training.

use crate::{Interrupted, Usage, output, report};
use residual_train::{TrainError, Training};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};
#[cfg(feature = "mpi")]
use {residual_train::Processes, std::rc::Rc};

/// What Open MPI, MPICH and Slurm tell a process about its job.
fn told(names: [&str; 2]) -> Option<usize> {
    names.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// The number of processes that were started together with this one.
pub(crate) fn processes() -> usize {
    told(["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]).unwrap_or(1).max(1)
}

/// The number of them on this machine.
pub(crate) fn processes_here() -> usize {
    told(["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"]).unwrap_or(1).max(1)
}

/// Whether this is process 0, which writes the files and reports the progress.
pub(crate) fn is_first() -> bool {
    told(["OMPI_COMM_WORLD_RANK", "PMI_RANK"]).unwrap_or(0) == 0
}

/// Fails if `mpirun` started several processes but the program is built without MPI. Otherwise, silences all processes but
/// the first.
pub(crate) fn check() -> anyhow::Result<()> {
    let number = processes();
    if number > 1 && !cfg!(feature = "mpi") {
        let text =
            format!("this is one of {number} processes, but the program is built without MPI: add --features mpi");
        return Err(Usage(text).into());
    }
    if !is_first() {
        output::silence();
    }
    Ok(())
}

/// The processes that share a training; only this one if `mpirun` did not start it.
pub(crate) struct Job {
    #[cfg(feature = "mpi")]
    processes: Option<Rc<Processes>>,
}

#[cfg_attr(not(feature = "mpi"), allow(unused_variables, clippy::unused_self, reason = "there are no other processes"))]
impl Job {
    /// Joins the other processes. The program must not restart afterwards.
    #[cfg(feature = "mpi")]
    pub(crate) fn join() -> Result<Self, TrainError> {
        let processes = (processes() > 1).then(Processes::join).transpose()?;
        Ok(Self { processes: processes.map(Rc::new) })
    }

    #[cfg(not(feature = "mpi"))]
    pub(crate) fn join() -> Result<Self, TrainError> {
        Ok(Self {})
    }

    /// Shares a training with the other processes.
    ///
    /// # Errors
    /// If they cannot share the batches of a step.
    pub(crate) fn share(&self, training: Training) -> Result<Training, TrainError> {
        #[cfg(feature = "mpi")]
        if let Some(processes) = &self.processes {
            return training.with_processes(processes.clone());
        }
        Ok(training)
    }

    /// Waits until all processes have come here.
    pub(crate) fn wait_for_all(&self) {
        #[cfg(feature = "mpi")]
        if let Some(processes) = &self.processes {
            processes.wait_for_all();
        }
    }

    /// Runs this process's part. An error or a panic ends all processes, because the others would wait for this one.
    pub(crate) fn run(&self, part: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        match catch_unwind(AssertUnwindSafe(part)) {
            Ok(Err(error)) if !error.is::<Interrupted>() => {
                let code = if self.is_shared() { report(&error) } else { return Err(error) };
                self.abort(code);
                Err(error)
            }
            Ok(result) => result,
            Err(panic) => {
                self.abort(101);
                resume_unwind(panic)
            }
        }
    }

    fn is_shared(&self) -> bool {
        #[cfg(feature = "mpi")]
        return self.processes.is_some();
        #[cfg(not(feature = "mpi"))]
        false
    }

    fn abort(&self, code: u8) {
        #[cfg(feature = "mpi")]
        if let Some(processes) = &self.processes {
            output::flush();
            processes.abort(code);
        }
    }
}

/// All processes meet most errors. The first one reports them, and ends the others if they wait.
pub(crate) fn let_the_first_report() {
    if !is_first() {
        thread::sleep(Duration::from_secs(4));
    }
}
