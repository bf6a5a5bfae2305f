//! A module's tensors by path, and as a file.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData},
};

/// A floating-point tensor of a module: a parameter, or a running statistic.
pub struct Parameter<'a> {
    /// Where it is, such as `layer1.0.main_path.bn1.running_mean`.
    pub path: &'a str,
    /// Its id.
    pub id: ParamId,
    /// Its shape.
    pub shape: Vec<usize>,
    data: &'a dyn Fn() -> TensorData,
}

impl Parameter<'_> {
    /// Reads its values from the device.
    pub fn data(&self) -> TensorData {
        (self.data)()
    }
}

/// Calls a function with every floating-point tensor of a module, in the module's order.
pub fn for_each_parameter<M: Module>(module: &M, f: impl FnMut(Parameter<'_>)) {
    module.visit(&mut Visitor { path: Vec::new(), f });
}

struct Visitor<F> {
    path: Vec<String>,
    f: F,
}

impl<F: FnMut(Parameter<'_>)> ModuleVisitor for Visitor<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (path, shape) = (self.path.join("."), param.lazy_shape().to_vec());
        (self.f)(Parameter { path: &path, id: param.id, shape, data: &|| param.val().into_data() });
    }
}

/// The content of a file in Burn's format (`.bpk`) with a module's floating-point tensors, which
/// `ModuleRecord::load` reads.
///
/// Unlike Burn's own, it holds no parameter ids: equal modules give equal bytes, and every module that loads it
/// gets ids of its own, so that two of them can be parts of one.
///
/// # Errors
/// If the names, shapes and types of the tensors take more than 4 GB.
#[cfg(feature = "std")]
pub fn to_burnpack<M: Module>(module: &M) -> Result<Vec<u8>, burn_pack::Error> {
    let mut tensors = Vec::new();
    for_each_parameter(module, |parameter| {
        let (bytes, shape, dtype) = parameter.data().into_parts();
        tensors.push(burn_pack::Tensor::new(parameter.path.into(), dtype, shape, None, bytes));
    });
    Ok(burn_pack::Writer::new(tensors).into_bytes()?.to_vec())
}
