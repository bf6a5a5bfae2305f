//! The tensors of a module by path, and their serialisation.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData},
};

/// A floating-point tensor of a module: a parameter or a running statistic.
pub struct Parameter<'a> {
    /// The path in the module, such as `layer1.0.main_path.bn1.running_mean`.
    pub path: &'a str,
    /// The parameter id.
    pub id: ParamId,
    /// The shape.
    pub shape: Vec<usize>,
    data: &'a dyn Fn() -> TensorData,
}

impl Parameter<'_> {
    /// Reads the values from the device.
    pub fn data(&self) -> TensorData {
        (self.data)()
    }
}

/// Whether a tensor with this path is a running statistic of a norm.
pub fn is_running_statistic(path: &[String]) -> bool {
    path.last().is_some_and(|name| name == "running_mean" || name == "running_var")
}

/// Calls a function with every floating-point tensor of a module, in the order of `Module::visit`.
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

/// Serialises the floating-point tensors of a module in Burn's file format (`.bpk`), which `ModuleRecord::load` reads.
///
/// Unlike Burn's own records, the bytes contain no parameter ids. Modules with the same tensors therefore give the same
/// bytes. A module that loads them gets new ids, so that a larger module can contain two loaded copies.
///
/// # Errors
/// If the tensors' names, shapes and types together take more than 4 GiB.
#[cfg(feature = "std")]
pub fn to_burnpack<M: Module>(module: &M) -> Result<Vec<u8>, burn_pack::Error> {
    let mut tensors = Vec::new();
    for_each_parameter(module, |parameter| {
        let (bytes, shape, dtype) = parameter.data().into_parts();
        tensors.push(burn_pack::Tensor::new(parameter.path.into(), dtype, shape, None, bytes));
    });
    Ok(burn_pack::Writer::new(tensors).into_bytes()?.to_vec())
}
