//! One training on several devices or in several processes. Each is a rank, which has the network, the optimizer and every R-th batch.
//!
//! R ranks take the steps of one device with `accumulate` batches to the bit: gradients are added in the order of the
//! batches, and running statistics are updated in that order too. So a run may go on with another number of ranks.

#[cfg(feature = "mpi")]
mod processes;

#[cfg(feature = "mpi")]
pub use processes::Processes;

use crate::{
    TrainError,
    evaluate::{BatchMetrics, READ_EVERY, read_pending},
    gradients::{divide, flatten, scale, unflatten},
    learner::{Learner, forward_backward},
};
use burn::{
    module::{Flag, Module, ModuleMapper, Param},
    optim::GradientsParams,
    tensor::{Tensor, TensorData},
};
use residual_data::Batch;
use residual_model::{Network, Norm, parameters::is_running_statistic};
use std::{
    fmt,
    rc::Rc,
    sync::mpsc::{Receiver, Sender, channel},
};

/// How ranks exchange numbers.
pub(crate) trait Communicator {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Sends `parts[r]` to rank r, and returns what each rank sent to this one, in the order of the ranks. All parts have
    /// the same length.
    ///
    /// # Errors
    /// If a rank has ended.
    fn exchange(&self, parts: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, TrainError>;
}

/// Ranks that are threads of one process.
pub(crate) struct Threads {
    rank: usize,
    senders: Vec<Sender<Vec<f32>>>,
    receivers: Vec<Receiver<Vec<f32>>>,
}

impl Threads {
    /// The communicators of `size` threads.
    pub(crate) fn connected(size: usize) -> Vec<Self> {
        let mut receivers: Vec<Vec<Receiver<Vec<f32>>>> = (0..size).map(|_| Vec::new()).collect();
        let connect = |_| {
            let to = |receivers: &mut Vec<Receiver<Vec<f32>>>| {
                let (sender, receiver) = channel();
                receivers.push(receiver);
                sender
            };
            receivers.iter_mut().map(to).collect::<Vec<Sender<Vec<f32>>>>()
        };
        let senders: Vec<_> = (0..size).map(connect).collect();
        let pairs = senders.into_iter().zip(receivers).enumerate();
        pairs.map(|(rank, (senders, receivers))| Self { rank, senders, receivers }).collect()
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.senders.len()
    }

    fn exchange(&self, parts: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, TrainError> {
        for (sender, part) in self.senders.iter().zip(parts) {
            sender.send(part).map_err(|_| TrainError::Rank)?;
        }
        self.receivers.iter().map(|receiver| receiver.recv().map_err(|_| TrainError::Rank)).collect()
    }
}

/// The ranks of a run, as one of them sees them.
#[derive(Clone)]
pub(crate) struct Ranks(Rc<dyn Communicator>);

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranks({} of {})", self.0.rank(), self.0.size())
    }
}

/// The batches of one optimizer step so far.
#[derive(Default)]
pub(crate) struct Group {
    /// This rank's slice of the sum of the gradients, each weighted by its number of samples.
    sum: Option<Vec<f32>>,
    /// Whether a batch has a gradient of each parameter.
    present: Vec<bool>,
    batches: usize,
    samples: usize,
}

impl Group {
    pub(crate) fn len(&self) -> usize {
        self.batches
    }
}

/// What all ranks know after each of them has computed a batch.
pub(crate) struct Round {
    /// The metrics of the batches, in their order.
    pub(crate) metrics: Vec<BatchMetrics>,
    /// Whether a rank is to stop.
    pub(crate) stop: bool,
    /// Whether rank 0 is to write a checkpoint.
    pub(crate) due: bool,
}

/// The numbers before the flags of gradients and the statistics in what ranks send each other about a batch: samples, loss,
/// errors, stop, due.
const HEAD: usize = 5;

impl Ranks {
    pub(crate) fn new(communicator: impl Communicator + 'static) -> Self {
        Self::of(Rc::new(communicator))
    }

    pub(crate) fn of(communicator: Rc<dyn Communicator>) -> Self {
        Self(communicator)
    }

    /// Fails if these bytes differ between ranks.
    pub(crate) fn check_equal(&self, bytes: &[u8], what: &str) -> Result<(), TrainError> {
        let all = self.gather(bytes.iter().map(|byte| f32::from(*byte)).collect())?;
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            return Err(TrainError::Conflict(format!("processes 0 and {rank} have different {what}")));
        }
        Ok(())
    }

    /// The bytes of rank 0, which the others do not have.
    pub(crate) fn broadcast(&self, own: &[u8]) -> Result<Vec<u8>, TrainError> {
        /// The most bytes that a rank sends at a time, as one number each.
        const CHUNK: usize = 1 << 20;
        let first = |bytes: &[u8]| -> Result<Vec<u8>, TrainError> {
            let all = self.gather(bytes.iter().map(|byte| f32::from(*byte)).collect())?;
            Ok(all[0].iter().map(|value| *value as u8).collect())
        };
        let length = first(&(own.len() as u64).to_le_bytes())?;
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes were sent")) as usize;
        let mut padded = own.to_vec();
        padded.resize(length, 0);
        padded.chunks(CHUNK).map(first).collect::<Result<Vec<_>, _>>().map(|chunks| chunks.concat())
    }

    /// The number of this rank, and the number of ranks.
    pub(crate) fn share(&self) -> (usize, usize) {
        (self.0.rank(), self.0.size())
    }

    /// Computes a batch on each rank, and adds the gradients and the statistics of all of them in the order of the ranks.
    /// Ranks beyond the last batch of an epoch have none. A group of one batch is not weighted.
    pub(crate) fn round(
        &self,
        learner: &Learner,
        batch: Option<Batch>,
        group: &mut Group,
        is_alone: bool,
        [stop, due]: [bool; 2],
    ) -> Result<Round, TrainError> {
        let before = statistics(learner);
        // What a batch adds to a statistic then is the statistic. Those of a block that the batch skips stay -0.
        set_statistics(learner, &vec![-0.0; before.len()]);
        let (gradients, own) = match batch {
            None => (GradientsParams::new(), BatchMetrics { loss: 0.0, errors: 0.0, samples: 0 }),
            Some(batch) => {
                let samples = batch.labels.dims()[0];
                let (gradients, metrics) = forward_backward(learner, batch);
                let network = learner.model().network;
                let weighted = if is_alone { gradients } else { scale(&network, gradients, samples as f64) };
                (weighted, read_pending(&mut vec![metrics])[0])
            }
        };
        let flag = |flag| if flag { 1.0 } else { 0.0 };
        let mut head = vec![own.samples as f32, own.loss, own.errors, flag(stop), flag(due)];
        let (values, present) = flatten(&learner.model().network, gradients);
        head.extend(present.iter().map(|present| flag(*present)));
        head.extend(statistics(learner));
        let heads = self.gather(head)?;
        let of_gradients = HEAD..HEAD + present.len();
        group.present.resize(present.len(), false);
        for head in &heads {
            let own = group.present.iter_mut().zip(&head[of_gradients.clone()]);
            own.for_each(|(present, flag)| *present |= *flag > 0.0);
        }
        let mut after = before;
        let keep = (1.0 - Norm::MOMENTUM) as f32;
        for head in heads.iter().filter(|head| head[0] > 0.0) {
            for (value, added) in after.iter_mut().zip(&head[of_gradients.end..]) {
                if added.to_bits() != (-0.0f32).to_bits() {
                    *value = *value * keep + added;
                }
            }
        }
        set_statistics(learner, &after);

        let slice = values.len().div_ceil(self.0.size()).max(1);
        let part = |r: usize| {
            let mut part: Vec<f32> = values.iter().skip(r * slice).take(slice).copied().collect();
            part.resize(slice, 0.0);
            part
        };
        let parts = self.0.exchange((0..self.0.size()).map(part).collect())?;
        for (part, head) in parts.into_iter().zip(&heads).filter(|(_, head)| head[0] > 0.0) {
            match &mut group.sum {
                None => group.sum = Some(part),
                Some(sum) => sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value),
            }
            group.batches += 1;
            group.samples += head[0] as usize;
        }
        let metrics = |head: &Vec<f32>| BatchMetrics { samples: head[0] as usize, loss: head[1], errors: head[2] };
        Ok(Round {
            metrics: heads.iter().filter(|head| head[0] > 0.0).map(metrics).collect(),
            stop: heads.iter().any(|head| head[3] > 0.0),
            due: heads[0][4] > 0.0,
        })
    }

    /// The mean gradient of a group over its samples. Empties the group.
    pub(crate) fn mean(&self, network: &Network, group: &mut Group) -> Result<GradientsParams, TrainError> {
        let Group { sum, present, batches, samples } = std::mem::take(group);
        let slices = self.gather(sum.unwrap_or_default())?;
        let sum = unflatten(network, &slices.concat(), &present);
        Ok(if batches == 1 { sum } else { divide(network, sum, samples as f64) })
    }

    /// The metrics of up to [`READ_EVERY`] batches of each rank, in the order of the batches, and whether a rank is to stop.
    pub(crate) fn in_turn(&self, own: &[BatchMetrics], stop: bool) -> Result<(Vec<BatchMetrics>, bool), TrainError> {
        let mut values = vec![f32::from(u8::from(stop))];
        for metrics in own {
            values.extend([metrics.samples as f32, metrics.loss, metrics.errors]);
        }
        values.resize(1 + 3 * READ_EVERY, 0.0);
        let all = self.gather(values)?;
        let mut metrics = Vec::new();
        for i in 0..READ_EVERY {
            for values in &all {
                let of = &values[1 + 3 * i..][..3];
                if of[0] > 0.0 {
                    metrics.push(BatchMetrics { samples: of[0] as usize, loss: of[1], errors: of[2] });
                }
            }
        }
        Ok((metrics, all.iter().any(|values| values[0] > 0.0)))
    }

    /// The same numbers from each rank, in the order of the ranks.
    fn gather(&self, own: Vec<f32>) -> Result<Vec<Vec<f32>>, TrainError> {
        self.0.exchange(vec![own; self.0.size()])
    }
}

/// The running statistics of all norms that are trained.
fn statistics(learner: &Learner) -> Vec<f32> {
    // `valid` folds in what the last batch added.
    drop(learner.model().valid());
    let mut visit = Statistics { path: Vec::new(), is_trained: false, new: None, old: Vec::new() };
    let _ = learner.model().map(&mut visit);
    visit.old
}

/// Replaces the running statistics of all norms that are trained.
fn set_statistics(learner: &Learner, values: &[f32]) {
    let mut visit = Statistics { path: Vec::new(), is_trained: false, new: Some(values), old: Vec::new() };
    let _ = learner.model().map(&mut visit);
}

/// Reads and replaces running statistics. All copies of a network share them.
struct Statistics<'a> {
    path: Vec<String>,
    is_trained: bool,
    new: Option<&'a [f32]>,
    old: Vec<f32>,
}

impl ModuleMapper for Statistics<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.is_trained = flag.is_enabled();
        flag
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_running_statistic(&self.path) || !self.is_trained {
            return param;
        }
        let Some(values) = &mut self.new else {
            self.old.extend(param.val().into_data().iter::<f32>());
            return param;
        };
        param.map(|tensor| {
            let (own, rest) = values.split_at(tensor.dims().iter().product());
            *values = rest;
            Tensor::from_data(TensorData::new(own.to_vec(), tensor.dims()), &tensor.device())
        })
    }
}
