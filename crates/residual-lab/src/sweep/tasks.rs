//! Sweeps whose trainings run in several processes, such as the tasks of a scheduler's job array.
//!
//! Processes share the folder only. Each writes into the run directories of its own trainings, which it locks.

use super::{
    RunSpec, Sweep, SweepResults,
    run::{OnProgress, Progress, State, flat},
    store::Store,
};
use crate::LabError;
use serde::Serialize;
use std::{cmp::Reverse, path::Path};

/// A training of a sweep, as a task of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Its number, which stays the same when the sweep grows.
    pub task: usize,
    /// The name of the training.
    pub name: String,
    /// The expected cost, in units of one epoch of one dense layer.
    pub work: u64,
}

/// Tasks that run in one job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The numbers of the tasks.
    pub tasks: Vec<usize>,
    /// The names of the trainings.
    pub names: Vec<String>,
    /// The expected cost of all of them.
    pub work: u64,
}

impl Job {
    /// Divides tasks among jobs of at most `most` tasks, so that the jobs have about equal work: each task, in the given
    /// order, goes to the job with the least work so far. With the longest tasks first, the longest job takes at most 4/3 of
    /// the least time possible if the number of tasks in a job is not the limit (Graham 1969).
    ///
    /// # Panics
    /// If `most` is 0.
    pub fn pack(tasks: &[Task], most: usize) -> Vec<Self> {
        assert!(most > 0, "a job must have at least 1 task");
        let mut jobs = vec![Self::default(); tasks.len().div_ceil(most)];
        for task in tasks {
            let open = jobs.iter_mut().filter(|job| job.tasks.len() < most);
            let job = open.min_by_key(|job| job.work).expect("the jobs have room for all tasks");
            job.tasks.push(task.task);
            job.names.push(task.name.clone());
            job.work += task.work;
        }
        jobs
    }
}

impl Sweep {
    /// Prepares the folder for trainings in several processes, and returns the trainings that have not finished, the longest
    /// first. If learning rates are chosen from a grid, these are the trainings of the grid until all of them have finished.
    ///
    /// # Errors
    /// The same as for [`Self::run`], apart from those of trainings.
    pub fn plan(&self, folder: &Path, progress: OnProgress<'_>) -> Result<Vec<Task>, LabError> {
        let store = self.claim(folder, progress)?;
        let state = self.state(&store)?;
        Ok(self.tasks(&store, state.missing()))
    }

    /// Runs some of the trainings of a sweep that [`Self::plan`] prepared, and writes into their run directories only, so
    /// that several processes can run at the same time. Trainings that have finished are not repeated.
    ///
    /// # Errors
    /// If the folder holds no sweep or one with other settings, a number is not that of a training, another process runs one
    /// of the trainings, a training needs more memory than there is, fails or is stopped, or a file cannot be written.
    pub fn run_tasks(&self, folder: &Path, tasks: &[usize], progress: OnProgress<'_>) -> Result<(), LabError> {
        let store = Store::shared(folder, &self.config)?;
        let specs = tasks.iter().map(|&task| store.spec(&self.config, task)).collect::<Result<Vec<_>, _>>()?;
        store.check_settings(&self.config, &specs, self.here())?;
        let tuned = self.tuned(&self.finished(&store, &self.config.grid(), &[])?);
        let mut results = self.finished(&store, &specs, &tuned)?;
        let jobs = self.parallel()?.min(specs.len());
        self.announce(&store, &[], &[], &specs, &results, progress)?;
        self.run_missing(&store, &specs, &mut results, &tuned, jobs, progress)?;
        match flat(&results).len() {
            done if done < specs.len() => Err(LabError::Stopped { done, total: specs.len() }),
            _ => Ok(()),
        }
    }

    /// Writes the results of the trainings that have finished, and returns them and the trainings that have not. There are no
    /// results until all learning rates are chosen.
    ///
    /// # Errors
    /// The same as for [`Self::plan`].
    pub fn collect(
        &self,
        folder: &Path,
        progress: OnProgress<'_>,
    ) -> Result<(Option<SweepResults>, Vec<Task>), LabError> {
        let store = self.claim(folder, progress)?;
        let state = self.state(&store)?;
        let missing = self.tasks(&store, state.missing());
        let State { tried, tuned, plan, results, .. } = state;
        if results.iter().all(Option::is_none) {
            return Ok((None, missing));
        }
        tuned.iter().for_each(|tuned| progress(Progress::Tuned(tuned)));
        let results = self.record(&store, tuned, plan.len(), &results, &tried)?;
        Ok((Some(results), missing))
    }

    fn tasks(&self, store: &Store, specs: Vec<RunSpec>) -> Vec<Task> {
        let task = |spec: RunSpec| {
            let name = spec.to_string();
            let task = store.task(&name).expect("every training that may run has a number");
            Task { task, name, work: self.config.work(spec) }
        };
        let mut tasks: Vec<Task> = specs.into_iter().map(task).collect();
        tasks.sort_by_key(|task| (Reverse(task.work), task.task));
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_about_equal_work() {
        let work = [56, 56, 32, 32, 20, 20, 8, 8];
        let task = |(task, work)| Task { task, name: format!("net{task}"), work };
        let tasks: Vec<Task> = work.into_iter().enumerate().map(task).collect();
        let jobs = Job::pack(&tasks, 3);
        assert_eq!(jobs.iter().map(|job| job.work).collect::<Vec<_>>(), [84, 76, 72]);
        assert_eq!(jobs[0].tasks, [0, 4, 7]);
        assert!(jobs.iter().all(|job| job.tasks.len() <= 3));
        assert_eq!(Job::pack(&tasks, 1).len(), 8);
        assert!(Job::pack(&[], 2).is_empty());
    }
}
