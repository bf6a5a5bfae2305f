//! Parameter ids during a training run.
//!
//! Burn gives every parameter a random id and uses it as the key of the parameter's optimizer state. A training run
//! replaces each id with a hash of the parameter's path. The bytes of a checkpoint then depend only on the
//! configuration, and any process can match the optimizer state in it to the parameters. At the end of the run, the
//! parameters get new unique ids, so that the network can be used in one module together with other networks.

use burn::{
    module::{Module, ModuleMapper, Param, ParamGroup, ParamId},
    tensor::{Bytes, Tensor},
};
use burn_pack::{Error, Reader, Writer};
use fnv::FnvHasher;
use residual_model::parameters::for_each_parameter;
use std::hash::Hasher;

/// Sets the id of every parameter to the hash of its path.
pub(crate) fn assign_by_path<M: Module>(module: M) -> M {
    module.map(&mut IdAssigner { path: Vec::new(), id: hash })
}

/// Gives every parameter a new unique id.
pub(crate) fn assign_unique<M: Module>(module: M) -> M {
    module.map(&mut IdAssigner { path: Vec::new(), id: |_| ParamId::new() })
}

/// The parameters whose paths satisfy a predicate.
pub(crate) fn group<M: Module>(module: &M, predicate: impl Fn(&str) -> bool) -> ParamGroup {
    let mut ids = Vec::new();
    for_each_parameter(module, |parameter| {
        if predicate(parameter.path) {
            ids.push(parameter.id);
        }
    });
    ParamGroup::from_ids(ids)
}

fn hash(path: &str) -> ParamId {
    let mut hasher = FnvHasher::default();
    hasher.write(path.as_bytes());
    hasher.finish().into()
}

struct IdAssigner {
    path: Vec<String>,
    id: fn(&str) -> ParamId,
}

impl ModuleMapper for IdAssigner {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.id = (self.id)(&self.path.join("."));
        param
    }
}

/// Rewrites the record of a module whose field `network` was passed to [`assign_by_path`]. That function cannot set the
/// ids of running statistics, because the module does not expose them. Here they get the hashes of their paths, too.
pub(crate) fn canonical_module(record: Bytes) -> Result<Vec<u8>, Error> {
    canonical(record, |name, _| Some(hash(name.strip_prefix("network.").unwrap_or(name)).val()))
}

/// Rewrites the record of an optimizer with its tensors sorted by name.
pub(crate) fn canonical_optimizer(record: Bytes) -> Result<Vec<u8>, Error> {
    canonical(record, |_, id| id)
}

fn canonical(record: Bytes, id: impl Fn(&str, Option<u64>) -> Option<u64>) -> Result<Vec<u8>, Error> {
    let reader = Reader::from_bytes(record)?;
    let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
    let mut tensors = reader.into_tensors()?;
    for tensor in &mut tensors {
        tensor.param_id = id(&tensor.name, tensor.param_id);
    }
    let writer = scalars.iter().fold(Writer::new(tensors), |writer, (key, value)| writer.with_scalar(key, *value));
    let writer = metadata.iter().fold(writer, |writer, (key, value)| writer.with_metadata(key, value));
    Ok(writer.into_bytes()?.to_vec())
}
