//! Finds the tensors in the values of a pickle.

use super::{Id, Made, Node, Object, Pickle};
use std::collections::BTreeMap;

/// The largest depth at which tensors may be nested.
const MAX_DEPTH: usize = 64;
/// The largest total number of tensors and of containers on the paths to them.
const MAX_VISITS: usize = 1 << 20;
/// The largest total length of all names, in bytes.
const MAX_NAMES: usize = 1 << 26;

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
/// dots. For an `nn.Module` these are the names in its `state_dict()`.
///
/// # Errors
/// If there are more paths to tensors, or longer names, than in any real file.
pub(super) fn tensors(pickle: &Pickle) -> Result<BTreeMap<String, Made>, String> {
    let holds = holds_tensors(pickle);
    let mut tensors = BTreeMap::new();
    let mut visits = vec![Visit { node: pickle.root(), key: Key::Same, parent: None, depth: 0 }];
    let (mut at, mut length) = (0, 0);
    while at < visits.len() {
        let Visit { node, depth, .. } = visits[at];
        if let Some(made) = Made::of(pickle, node) {
            let name = name(pickle, &visits, at);
            length += name.len();
            tensors.insert(name, made);
        } else if depth < MAX_DEPTH {
            for_each_child(pickle, node, &mut |key, child| {
                if holds[child as usize] && visits.len() <= MAX_VISITS && !is_inside(&visits, at, child) {
                    visits.push(Visit { node: child, key, parent: Some(at), depth: depth + 1 });
                }
            });
        }
        if visits.len() > MAX_VISITS || length > MAX_NAMES {
            return Err("its tensors are nested in too many ways".into());
        }
        at += 1;
    }
    Ok(tensors)
}

/// Whether each value is a tensor or contains one.
fn holds_tensors(pickle: &Pickle) -> Vec<bool> {
    let mut holds: Vec<bool> = pickle.ids().map(|id| Made::of(pickle, id).is_some()).collect();
    for _ in 0..MAX_DEPTH {
        let mut changed = false;
        // Most containers have smaller indices than their contents.
        for id in pickle.ids().rev() {
            if !holds[id as usize] {
                let mut any = false;
                for_each_child(pickle, id, &mut |_, child| any |= holds[child as usize]);
                holds[id as usize] = any;
                changed |= any;
            }
        }
        if !changed {
            break;
        }
    }
    holds
}

/// Whether a container is the visited one or encloses it. A model may refer to the trainer that refers to it.
fn is_inside(visits: &[Visit], at: usize, node: Id) -> bool {
    std::iter::successors(Some(&visits[at]), |visit| visit.parent.map(|parent| &visits[parent]))
        .any(|visit| visit.node == node)
}

fn for_each_child(pickle: &Pickle, id: Id, f: &mut impl FnMut(Key, Id)) {
    match pickle.node(id) {
        Node::List(items) | Node::Tuple(items) => list(items, f),
        Node::Dict(pairs) => dict(pairs, f),
        Node::Object(object) => {
            if let Some(parts) = module(pickle, object) {
                parts.for_each(|part| f(Key::Same, part));
                return;
            }
            match pickle.elements(object.args).unwrap_or_default() {
                // Python 2 writes `OrderedDict([[key, value], ..])`.
                &[entries] if is_ordered_dict(pickle, object) => {
                    for &entry in pickle.elements(entries).unwrap_or_default() {
                        if let Some(&[key, value]) = pickle.elements(entry) {
                            f(Key::Node(key), value);
                        }
                    }
                }
                &[arg] => f(Key::Same, arg),
                args => list(args, f),
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

fn list(items: &[Id], f: &mut impl FnMut(Key, Id)) {
    items.iter().enumerate().for_each(|(i, &item)| f(Key::Index(i), item));
}

fn dict(pairs: &[(Id, Id)], f: &mut impl FnMut(Key, Id)) {
    pairs.iter().for_each(|&(key, value)| f(Key::Node(key), value));
}

/// If the object is an `nn.Module`, the dictionaries that make up its `state_dict()`.
fn module<'a>(pickle: &'a Pickle, object: &Object) -> Option<impl Iterator<Item = Id> + use<'a>> {
    let Node::Dict(pairs) = pickle.node(object.state?) else { return None };
    let is_part = |key: &Id| matches!(pickle.text(*key), Some("_parameters" | "_buffers" | "_modules"));
    let parts = pairs.iter().filter(move |(key, _)| is_part(key)).map(|(_, part)| *part);
    (parts.clone().count() == 3).then_some(parts)
}

fn is_ordered_dict(pickle: &Pickle, object: &Object) -> bool {
    pickle.global(object.class) == Some(("collections", "OrderedDict"))
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
            Node::Global { name, .. } => name.to_string(),
            Node::None => "None".into(),
            _ => "?".into(),
        }),
    }
}
