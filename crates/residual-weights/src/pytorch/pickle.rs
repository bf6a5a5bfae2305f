//! The values of a pickle.

/// The index of a value. Values that a pickle shares have one index, so a pickle may contain itself.
pub(super) type Id = u32;

/// A value of a pickle.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Text(Box<str>),
    /// A value that can neither name nor describe a tensor: a float, bytes, a very large integer or a very long text.
    Opaque,
    /// A list or a set.
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or a function.
    Global {
        module: Box<str>,
        name: Box<str>,
    },
    Object(Box<Object>),
    /// A value that is stored outside of the pickle.
    Persistent(Id),
}

/// The result of a call that was not made.
#[derive(Debug)]
pub(super) struct Object {
    /// The class or the function.
    pub(super) class: Id,
    pub(super) args: Id,
    /// What the object's `__setstate__` would receive, which mostly is the dictionary of its attributes.
    pub(super) state: Option<Id>,
    /// The values appended to it, if it is a kind of list.
    pub(super) items: Vec<Id>,
    /// The values set by key, if it is a kind of dictionary.
    pub(super) pairs: Vec<(Id, Id)>,
}

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn new(nodes: Vec<Node>, root: Id) -> Self {
        Self { nodes, root }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a tuple or a list.
    pub(super) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// A non-negative integer.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The module and the name of a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.node(id) {
            Node::Global { module, name } => Some((module, name)),
            _ => None,
        }
    }
}
