//! Parameter ids of a training.
//!
//! Burn gives every parameter a random id, and keys the state of an optimizer by them. A training gives its network the
//! hashes of the parameters' paths instead: then the bytes of a checkpoint are a function of the configuration, and
//! the state in it finds its parameters in any process. A network that leaves the training gets new ids, so that it can
//! be part of a module beside others.

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Bytes, Tensor},
};
use burn_pack::{Error, Reader, Writer};
use fnv::FnvHasher;
use std::hash::Hasher;

/// Gives every parameter the id of its path.
pub(crate) fn by_path<M: Module>(module: M) -> M {
    module.map(&mut Assign { path: Vec::new(), id: of_path })
}

/// Gives every parameter a new id.
pub(crate) fn unique<M: Module>(module: M) -> M {
    module.map(&mut Assign { path: Vec::new(), id: |_| ParamId::new() })
}

fn of_path(path: &str) -> ParamId {
    let mut hasher = FnvHasher::default();
    hasher.write(path.as_bytes());
    hasher.finish().into()
}

struct Assign {
    path: Vec<String>,
    id: fn(&str) -> ParamId,
}

impl ModuleMapper for Assign {
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

/// A record of a module whose field `network` has its parameters' ids by path, with those of running statistics too,
/// which a module keeps to itself.
pub(crate) fn canonical_module(record: Bytes) -> Result<Vec<u8>, Error> {
    canonical(record, |name, _| Some(of_path(name.strip_prefix("network.").unwrap_or(name)).val()))
}

/// A record of an optimizer, its tensors in the order of their names.
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
