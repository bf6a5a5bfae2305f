//! Ranks that are processes, connected by MPI.

use super::Communicator;
use crate::TrainError;
use mpi::{
    environment::Universe,
    topology::SimpleCommunicator,
    traits::{Communicator as _, CommunicatorCollectives},
};
use std::fmt;

/// The processes of an MPI job, such as those that `mpirun -n 4 PROGRAM` starts. Each is a rank, which computes its part of
/// every training: see [`Training::with_processes`](crate::Training::with_processes).
///
/// Dropping it ends this process's part in the job (`MPI_Finalize`).
pub struct Processes {
    world: SimpleCommunicator,
    /// Ends MPI when it is dropped, which must be last.
    _universe: Universe,
}

impl Processes {
    /// Joins the job. The calling thread must run the trainings.
    ///
    /// # Errors
    /// If this process has joined before.
    pub fn join() -> Result<Self, TrainError> {
        let universe = mpi::initialize();
        let universe = universe.ok_or_else(|| TrainError::Conflict("this process uses MPI already".into()))?;
        Ok(Self { world: universe.world(), _universe: universe })
    }

    /// The number of this process, from 0. Process 0 writes the files of a training.
    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.world.size() as usize
    }

    /// Waits until all processes have come here.
    pub fn wait_for_all(&self) {
        self.world.barrier();
    }

    /// Ends all processes of the job with this exit code (`MPI_Abort`).
    pub fn abort(&self, code: u8) -> ! {
        self.world.abort(code.into())
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Processes({} of {})", self.rank(), self.size())
    }
}

impl Communicator for Processes {
    fn rank(&self) -> usize {
        self.rank()
    }

    fn size(&self) -> usize {
        self.size()
    }

    /// MPI ends the whole job if a process has ended, so there is no error to return.
    fn exchange(&self, parts: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, TrainError> {
        let length = parts[0].len();
        let own = parts.concat();
        let mut all = vec![0.0f32; own.len()];
        self.world.all_to_all_into(&own[..], &mut all[..]);
        Ok((0..self.size()).map(|rank| all[rank * length..][..length].to_vec()).collect())
    }
}
