//! Reads Python's pickle format, protocols 0 to 5, as data. Nothing in a pickle is imported or executed: a class or a
//! function is a name, and a call is recorded with its arguments.
//!
//! ```
//! use residual_data::formats::pickle::{Node, Pickle};
//!
//! let file = b"\x80\x02}U\x05imageU\x04\x00\xff\x80\x01s."; // {"image": "\x00\xff\x80\x01"} in Python 2
//! let pickle = Pickle::read(&file[..], file.len() as u64)?;
//! let Node::Dict(entries) = pickle.node(pickle.root()) else { panic!("not a dictionary") };
//! let (key, value) = entries[0];
//! assert_eq!(pickle.text(key), Some("image"));
//! assert_eq!(pickle.content(value, file), Some(&[0, 0xff, 0x80, 1][..]));
//! # Ok::<(), residual_data::formats::pickle::PickleError>(())
//! ```

mod error;
mod machine;

pub use error::PickleError;
use machine::Machine;
use std::{io::BufRead, ops::Range};

/// The index of a value. Values that a pickle shares have one index, so a pickle may contain itself.
pub type Id = u32;

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A text of at most 4096 bytes of UTF-8. It may be bytes that happen to be UTF-8, because Python 2 does not
    /// distinguish them. Texts of protocol 0 keep their backslash escapes.
    Text(Box<str>),
    /// Bytes, or a text that is longer or not UTF-8: their range in the input, in bytes from the start of the pickle.
    Bytes(Range<u64>),
    /// A value that is not kept, such as a float or an integer of more than 64 bits.
    Opaque,
    /// A list or a set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dictionary: the keys and the values in the order of the pickle. A key may occur more than once; in Python, the
    /// last one counts.
    Dict(Vec<(Id, Id)>),
    /// A class or a function: the module that defines it, and its name in the module.
    Global(Box<(Box<str>, Box<str>)>),
    /// The result of a call that was not made.
    Object(Box<Object>),
    /// A value that is stored outside of the pickle, by its persistent id.
    Persistent(Id),
}

/// The result of a call that was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The class or the function.
    pub class: Id,
    /// The arguments, a tuple unless the file is damaged.
    pub args: Id,
    /// The argument of the object's `__setstate__`, which is usually the dictionary of its attributes.
    pub state: Option<Id>,
    /// The values appended to it, if it is a kind of list.
    pub items: Vec<Id>,
    /// The values set by key, if it is a kind of dictionary.
    pub pairs: Vec<(Id, Id)>,
}

/// The values of a pickle. They refer to each other by index, so that deep nesting cannot overflow the stack.
#[derive(Clone, Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads one pickle, up to its end and no further. Bytes and long texts are skipped, not stored.
    ///
    /// `file_size` is the size in bytes of the file that holds the pickle, which may be compressed. It bounds the
    /// memory: the values take at most 64 MiB and 10 bytes for each byte of the file, and never more than 1 GiB.
    ///
    /// # Errors
    /// If the pickle is incomplete, has an unknown opcode, uses a missing value, is longer than 1 GiB, or has too many
    /// values for its file.
    pub fn read(input: impl BufRead, file_size: u64) -> Result<Self, PickleError> {
        let (nodes, root) = Machine::new(input, file_size).run()?;
        Ok(Self { nodes, root })
    }

    /// The index of the pickled value.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The indices of all values.
    pub fn ids(&self) -> Range<Id> {
        0..self.nodes.len() as Id
    }

    /// The value with this index.
    ///
    /// # Panics
    /// If the index is not one of this pickle.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// A text, if the value is one of at most 4096 bytes of UTF-8.
    ///
    /// # Panics
    /// If the index is not one of this pickle.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The content of bytes or a text of any length, of which `input` is the whole input from the start of the pickle.
    ///
    /// # Panics
    /// If the index is not one of this pickle.
    pub fn content<'a>(&'a self, id: Id, input: &'a [u8]) -> Option<&'a [u8]> {
        match self.node(id) {
            Node::Text(text) => Some(text.as_bytes()),
            Node::Bytes(range) => input.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?),
            _ => None,
        }
    }

    /// The elements of a tuple or a list.
    ///
    /// # Panics
    /// If the index is not one of this pickle.
    pub fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// A non-negative integer.
    ///
    /// # Panics
    /// If the index is not one of this pickle.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The module and the name of a class or a function.
    ///
    /// # Panics
    /// If the index is not one of this pickle.
    pub fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.node(id) {
            Node::Global(names) => Some((&names.0, &names.1)),
            _ => None,
        }
    }
}
