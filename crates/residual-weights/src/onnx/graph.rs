//! A graph of operators, as ONNX's `GraphProto`.

use super::message::Message;
use crate::Precision;
use std::io::{self, Write};

/// The types of tensors, as in `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    F32 = 1,
    U8 = 2,
    I64 = 7,
    F16 = 10,
}

/// An attribute of an operator.
pub(super) enum Attribute<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
}

/// The values of an initializer.
enum Values<'a> {
    /// Computed when they are written, so that only one layer's weights are in memory in addition to the network.
    Floats(Precision, Box<dyn Fn() -> Vec<f32> + 'a>),
    Ints(Vec<i64>),
}

/// A constant tensor.
struct Initializer<'a> {
    name: String,
    shape: Vec<usize>,
    values: Values<'a>,
}

/// A graph. Its operators are in the order of execution, as ONNX demands.
pub(super) struct Graph<'a> {
    nodes: Message,
    initializers: Vec<Initializer<'a>>,
    /// How [`Self::weight`] stores weights.
    precision: Precision,
}

/// The name and dimensions of an input or output. A dimension is a number, or the name of a number.
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) data_type: Type,
    pub(super) shape: Vec<Dimension>,
}

pub(super) enum Dimension {
    Batch,
    Size(usize),
}

/// The field of `GraphProto` that holds initializers, and that of `TensorProto` that holds their values.
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

impl<'a> Graph<'a> {
    pub(super) fn new(precision: Precision) -> Self {
        Self { nodes: Message::default(), initializers: Vec::new(), precision }
    }

    /// Adds an operator and returns the name of its output, which is that of the operator.
    pub(super) fn node(
        &mut self,
        operator: &str,
        name: impl Into<String>,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        let name = name.into();
        let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(1, input));
        let node = node.bytes(2, &name).bytes(3, &name).bytes(4, operator);
        let node = attributes.iter().fold(node, |node, (name, value)| {
            let attribute = Message::default().bytes(1, name);
            let attribute = match value {
                Attribute::Float(value) => attribute.float(2, *value).int(20, 1),
                Attribute::Int(value) => attribute.int(3, *value).int(20, 2),
                Attribute::Ints(values) => values.iter().fold(attribute, |a, value| a.int(8, *value)).int(20, 7),
            };
            node.message(5, &attribute)
        });
        self.nodes = std::mem::take(&mut self.nodes).message(1, &node);
        name
    }

    /// Adds a constant of 32-bit floats and returns its name.
    pub(super) fn constant(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        values: impl Fn() -> Vec<f32> + 'a,
    ) -> String {
        self.initializer(name.into(), shape, Values::Floats(Precision::Full, Box::new(values)))
    }

    /// Adds a weight and returns its name as 32-bit floats, which is that of a conversion if the graph stores 16-bit
    /// floats.
    pub(super) fn weight(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        values: impl Fn() -> Vec<f32> + 'a,
    ) -> String {
        let name = self.initializer(name.into(), shape, Values::Floats(self.precision, Box::new(values)));
        if self.precision == Precision::Full {
            return name;
        }
        self.node("Cast", format!("{name}.float"), &[&name], &[("to", Attribute::Int(Type::F32 as i64))])
    }

    /// Adds a constant of integers and returns its name.
    pub(super) fn integers(&mut self, name: impl Into<String>, values: Vec<i64>) -> String {
        self.initializer(name.into(), &[values.len()], Values::Ints(values))
    }

    fn initializer(&mut self, name: String, shape: &[usize], values: Values<'a>) -> String {
        self.initializers.push(Initializer { name: name.clone(), shape: shape.to_vec(), values });
        name
    }

    /// The graph without its initializers.
    fn head(&self, name: &str, input: &Port, output: &Port) -> Message {
        let graph = self.nodes.clone().bytes(2, name);
        graph.message(11, &input.message()).message(12, &output.message())
    }

    /// Writes the field of a model that holds this graph. `limit` is the greatest length.
    ///
    /// # Errors
    /// If the field would be longer, a value does not fit into 16 bits, or the output cannot be written.
    pub(super) fn write(
        &self,
        field: u32,
        name: &str,
        [input, output]: [&Port; 2],
        limit: u64,
        to: &mut impl Write,
    ) -> Result<(), GraphError> {
        let head = self.head(name, input, output);
        let len = head.len() + self.initializers.iter().map(Initializer::field_len).sum::<u64>();
        if len > limit {
            return Err(GraphError::TooLong(len));
        }
        to.write_all(Message::start(field, len).as_bytes())?;
        to.write_all(head.as_bytes())?;
        self.initializers.iter().try_for_each(|initializer| initializer.write(to))
    }
}

/// Why a graph was not written.
pub(super) enum GraphError {
    /// The graph would have this number of bytes.
    TooLong(u64),
    /// A value of this tensor does not fit into 16 bits.
    Overflow {
        tensor: String,
        value: f32,
    },
    Io(io::Error),
}

impl From<io::Error> for GraphError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Initializer<'_> {
    /// The tensor without its values.
    fn head(&self) -> Message {
        let dimensions = self.shape.iter().fold(Message::default(), |tensor, size| tensor.int(1, *size as i64));
        dimensions.int(2, self.data_type() as i64).bytes(8, &self.name)
    }

    fn data_type(&self) -> Type {
        match self.values {
            Values::Floats(Precision::Full, _) => Type::F32,
            Values::Floats(Precision::Half, _) => Type::F16,
            Values::Ints(_) => Type::I64,
        }
    }

    /// The number of bytes of the values.
    fn data_len(&self) -> u64 {
        let size = match self.data_type() {
            Type::U8 => 1,
            Type::F16 => 2,
            Type::F32 => 4,
            Type::I64 => 8,
        };
        size * self.shape.iter().map(|size| *size as u64).product::<u64>()
    }

    /// The number of bytes of the tensor.
    fn len(&self) -> u64 {
        self.head().len() + Message::start(RAW_DATA, self.data_len()).len() + self.data_len()
    }

    /// The number of bytes of the field that holds the tensor.
    fn field_len(&self) -> u64 {
        Message::start(INITIALIZER, self.len()).len() + self.len()
    }

    fn write(&self, to: &mut impl Write) -> Result<(), GraphError> {
        to.write_all(Message::start(INITIALIZER, self.len()).as_bytes())?;
        to.write_all(self.head().as_bytes())?;
        to.write_all(Message::start(RAW_DATA, self.data_len()).as_bytes())?;
        let data = self.data()?;
        assert_eq!(data.len() as u64, self.data_len(), "{} has values for another shape", self.name);
        Ok(to.write_all(&data)?)
    }

    fn data(&self) -> Result<Vec<u8>, GraphError> {
        match &self.values {
            Values::Ints(values) => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Values::Floats(precision, values) => {
                precision.encode(&values()).map_err(|value| GraphError::Overflow { tensor: self.name.clone(), value })
            }
        }
    }
}

impl Port {
    /// The `ValueInfoProto`.
    fn message(&self) -> Message {
        let shape = self.shape.iter().fold(Message::default(), |shape, dimension| {
            let dimension = match dimension {
                Dimension::Batch => Message::default().bytes(2, "batch"),
                Dimension::Size(size) => Message::default().int(1, *size as i64),
            };
            shape.message(1, &dimension)
        });
        let tensor = Message::default().int(1, self.data_type as i64).message(2, &shape);
        Message::default().bytes(1, self.name).message(2, &Message::default().message(1, &tensor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_that_is_too_long_is_refused_before_its_values_are_computed() {
        let mut graph = Graph::new(Precision::Full);
        graph.constant("weight", &[1 << 15, 1 << 14], || panic!("the values are computed"));
        let port = Port { name: "x", data_type: Type::F32, shape: vec![Dimension::Batch] };
        let mut written = Vec::new();
        match graph.write(7, "net", [&port, &port], (1 << 31) - 1, &mut written) {
            Err(GraphError::TooLong(len)) => assert!((1 << 31..(1 << 31) + 100).contains(&len), "{len}"),
            _ => panic!("it was written"),
        }
        assert!(written.is_empty());
    }
}
