//! A module's tensors by path.

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

/// Calls a function with every tensor of a module, in the module's order.
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
