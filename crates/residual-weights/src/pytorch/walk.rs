//! Finds the tensors in the values of a pickle.

use super::{Id, Made, Node, Object, Pickle};
use crate::ranges::check_name;
use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

/// The largest depth at which tensors may be nested.
const MAX_DEPTH: usize = 64;

/// The name of a value in its container.
#[derive(Clone, Copy)]
enum Key {
    /// A key of a dictionary or an attribute of an object.
    Node(Id),
    /// A position in a list.
    Index(usize),
    /// The container's own name.
    Same,
}

/// A container on the path to a tensor, or the tensor.
struct Visit {
    node: Id,
    key: Key,
    /// The position of the enclosing container's visit.
    parent: Option<usize>,
    depth: usize,
}

/// All tensors in dictionaries, lists, tuples, modules and other objects, by the keys that lead to them, joined by
/// dots. For an `nn.Module` these are the names in its `state_dict()`. `file_size` is in bytes.
///
/// # Errors
/// If there are more paths to tensors, or longer names, than in any real file of this size.
pub(super) fn tensors(pickle: &Pickle, file_size: u64) -> Result<BTreeMap<String, Made>, String> {
    const TOO_MANY: &str = "its tensors are nested in too many ways";
    // A tensor that is stored in two places takes at least 16 bytes of the file for the second one, and its name fewer
    // than 4 times the bytes of its keys.
    let max_visits = (1 << 18) + (file_size / 16).min(1 << 20) as usize;
    let max_names = (1 << 24) + file_size.saturating_mul(4).min(1 << 28) as usize;
    let graph = Graph::of(pickle);
    let holds = graph.holds_tensors().ok_or(TOO_MANY)?;
    let mut tensors = BTreeMap::new();
    let mut made: HashMap<Id, Made> = HashMap::new();
    let mut children: HashMap<Id, Rc<[(Key, Id)]>> = HashMap::new();
    let mut visits = vec![Visit { node: pickle.root(), key: Key::Same, parent: None, depth: 0 }];
    let (mut at, mut length, mut seen) = (0, 0, 0);
    while at < visits.len() {
        let Visit { node, depth, .. } = visits[at];
        if let Some(tensor) = made.get(&node).cloned().or_else(|| Made::of(pickle, node)) {
            let name = name(pickle, &visits, at);
            check_name(&name)?;
            length += name.len();
            made.insert(node, tensor.clone());
            tensors.insert(name, tensor);
        } else if depth < MAX_DEPTH {
            let inside = children.entry(node).or_insert_with(|| {
                let mut inside = Vec::new();
                graph.for_each_child(node, &mut |key, child| {
                    if holds[child as usize] {
                        inside.push((key, child));
                    }
                });
                inside.into()
            });
            for &(key, child) in inside.clone().iter() {
                seen += 1;
                if seen > max_visits {
                    return Err(TOO_MANY.into());
                }
                if !is_inside(&visits, at, child) {
                    visits.push(Visit { node: child, key, parent: Some(at), depth: depth + 1 });
                }
            }
        }
        if length > max_names {
            return Err(TOO_MANY.into());
        }
        at += 1;
    }
    Ok(tensors)
}

/// The values of a pickle and what they contain.
struct Graph<'a> {
    pickle: &'a Pickle,
    /// The states of an `nn.Module`: the dictionaries that make up its `state_dict()`.
    modules: HashMap<Id, [Id; 3]>,
}

impl<'a> Graph<'a> {
    fn of(pickle: &'a Pickle) -> Self {
        let module = |id: Id| {
            let Node::Dict(pairs) = pickle.node(id) else { return None };
            let is_part = |key: &Id| matches!(pickle.text(*key), Some("_parameters" | "_buffers" | "_modules"));
            let parts: Vec<Id> = pairs.iter().filter(|(key, _)| is_part(key)).map(|(_, part)| *part).take(4).collect();
            Some((id, parts.try_into().ok()?))
        };
        Self { pickle, modules: pickle.ids().filter_map(module).collect() }
    }

    /// Whether each value is a tensor or contains one. `None` if objects share more than those of real files do.
    fn holds_tensors(&self) -> Option<Vec<bool>> {
        let ids = self.pickle.ids();
        // The containers of the value `i` are `containers[starts[i]..starts[i + 1]]`.
        let mut starts = vec![0u32; ids.len() + 1];
        let (mut edges, max_edges) = (0u64, 8 * (ids.len() as u64 + self.references()));
        for id in ids.clone() {
            self.for_each_child(id, &mut |_, child| {
                starts[child as usize + 1] += 1;
                edges += 1;
            });
            if edges > max_edges.min(u32::MAX.into()) {
                return None;
            }
        }
        for id in ids.clone() {
            starts[id as usize + 1] += starts[id as usize];
        }
        let mut ends = starts.clone();
        let mut containers = vec![0; edges as usize];
        for id in ids.clone() {
            self.for_each_child(id, &mut |_, child| {
                containers[ends[child as usize] as usize] = id;
                ends[child as usize] += 1;
            });
        }
        let mut found: Vec<Id> = ids.filter(|id| Made::of(self.pickle, *id).is_some()).collect();
        let mut holds = vec![false; starts.len() - 1];
        found.iter().for_each(|id| holds[*id as usize] = true);
        while let Some(id) = found.pop() {
            for &container in &containers[starts[id as usize] as usize..starts[id as usize + 1] as usize] {
                if !holds[container as usize] {
                    holds[container as usize] = true;
                    found.push(container);
                }
            }
        }
        Some(holds)
    }

    /// The number of elements of all containers.
    fn references(&self) -> u64 {
        let count = |id| match self.pickle.node(id) {
            Node::List(items) | Node::Tuple(items) => items.len(),
            Node::Dict(pairs) => 2 * pairs.len(),
            Node::Object(object) => 3 + object.items.len() + 2 * object.pairs.len(),
            _ => 0,
        };
        self.pickle.ids().map(|id| count(id) as u64).sum()
    }

    fn for_each_child(&self, id: Id, f: &mut impl FnMut(Key, Id)) {
        match self.pickle.node(id) {
            Node::List(items) | Node::Tuple(items) => list(items, f),
            Node::Dict(pairs) => dict(pairs, f),
            Node::Object(object) => {
                if let Some(parts) = object.state.and_then(|state| self.modules.get(&state)) {
                    parts.iter().for_each(|part| f(Key::Same, *part));
                    return;
                }
                match self.pickle.elements(object.args).unwrap_or_default() {
                    // Python 2 writes `OrderedDict([[key, value], ..])`.
                    [entries] if self.is_ordered_dict(object) => {
                        for &entry in self.pickle.elements(*entries).unwrap_or_default() {
                            if let Some(&[key, value]) = self.pickle.elements(entry) {
                                f(Key::Node(key), value);
                            }
                        }
                    }
                    [arg] => f(Key::Same, *arg),
                    _ => f(Key::Same, object.args),
                }
                list(&object.items, f);
                dict(&object.pairs, f);
                if let Some(state) = object.state {
                    f(Key::Same, state);
                }
            }
            _ => {}
        }
    }

    fn is_ordered_dict(&self, object: &Object) -> bool {
        self.pickle.global(object.class) == Some(("collections", "OrderedDict"))
    }
}

/// Whether a container is the visited one or encloses it. A model may refer to the trainer that refers to it.
fn is_inside(visits: &[Visit], at: usize, node: Id) -> bool {
    std::iter::successors(Some(&visits[at]), |visit| visit.parent.map(|parent| &visits[parent]))
        .any(|visit| visit.node == node)
}

fn list(items: &[Id], f: &mut impl FnMut(Key, Id)) {
    items.iter().enumerate().for_each(|(i, &item)| f(Key::Index(i), item));
}

fn dict(pairs: &[(Id, Id)], f: &mut impl FnMut(Key, Id)) {
    pairs.iter().for_each(|&(key, value)| f(Key::Node(key), value));
}

fn name(pickle: &Pickle, visits: &[Visit], at: usize) -> String {
    let way = std::iter::successors(Some(&visits[at]), |visit| visit.parent.map(|parent| &visits[parent]));
    let mut keys: Vec<String> = way.filter_map(|visit| key(pickle, visit.key)).collect();
    keys.reverse();
    keys.join(".")
}

fn key(pickle: &Pickle, key: Key) -> Option<String> {
    match key {
        Key::Same => None,
        Key::Index(index) => Some(index.to_string()),
        Key::Node(id) => Some(match pickle.node(id) {
            Node::Text(text) => text.to_string(),
            Node::Int(value) => value.to_string(),
            Node::Bool(value) => value.to_string(),
            Node::Global(names) => names.1.to_string(),
            Node::None => "None".into(),
            _ => "?".into(),
        }),
    }
}
