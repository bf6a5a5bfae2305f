//! A pickle machine that builds plain data. It knows the opcodes of the protocols 0 to 5, imports nothing and calls
//! nothing: a class or a function is a name, and calling one only records its arguments.
//!
//! The opcodes are those of Python's `pickletools`.

use super::{Id, Node, Object, Pickle};
use std::{
    collections::HashMap,
    io::{self, BufRead, Read},
};

const NONE: Id = 0;
const TRUE: Id = 1;
const FALSE: Id = 2;
const OPAQUE: Id = 3;
const NO_ARGS: Id = 4;

/// The longest text that is kept. Texts name tensors, classes and storages.
const MAX_TEXT: u64 = 4096;
/// The longest pickle, most of which may be skipped arrays.
const MAX_BYTES: u64 = 1 << 30;
/// The largest number of values, references to values, and pieces of 32 bytes of text.
const MAX_SIZE: usize = 1 << 24;

/// Reads one pickle, and leaves the input after its end.
///
/// # Errors
/// If the pickle is incomplete, has an unknown opcode, is too large or too long, or uses values that are not there.
pub(super) fn read_pickle(input: &mut impl BufRead) -> Result<Pickle, String> {
    let mut input = input.take(MAX_BYTES);
    let constants = [Node::None, Node::Bool(true), Node::Bool(false), Node::Opaque, Node::Tuple(Vec::new())];
    let machine = Machine {
        input: &mut input,
        nodes: constants.into(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        size: 0,
    };
    machine.run()
}

struct Machine<'a, R> {
    input: &'a mut R,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// The heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    size: usize,
}

impl<R: BufRead> Machine<'_, R> {
    fn run(mut self) -> Result<Pickle, String> {
        loop {
            match self.byte()? {
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle::new(self.nodes, root));
                }
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // Protocol version and frames.
            0x80 => self.byte().map(|_| ()),
            0x95 => self.number::<8>().map(|_| ()),
            // Constants and numbers.
            b'N' => self.push(NONE),
            0x88 => self.push(TRUE),
            0x89 => self.push(FALSE),
            b'I' | b'L' => {
                let line = self.line()?;
                match line.trim_end_matches('L') {
                    "01" => self.push(TRUE),
                    "00" => self.push(FALSE),
                    digits => self.push_node(digits.parse().map_or(Node::Opaque, Node::Int)),
                }
            }
            b'K' => self.int::<1>(),
            b'M' => self.int::<2>(),
            b'J' => {
                let value = self.number::<4>()? as u32;
                self.push_node(Node::Int(i64::from(value.cast_signed())))
            }
            0x8a => {
                let len = self.number::<1>()?;
                self.long(len)
            }
            0x8b => {
                let len = self.number::<4>()?;
                self.long(len)
            }
            b'F' => self.line().and_then(|_| self.push(OPAQUE)),
            b'G' => self.number::<8>().and_then(|_| self.push(OPAQUE)),
            // Text and bytes.
            b'S' => {
                let line = self.line()?;
                self.push_text(line.trim_matches(['\'', '"']))
            }
            b'V' => {
                let line = self.line()?;
                self.push_text(&line)
            }
            b'U' | 0x8c => self.number::<1>().and_then(|len| self.string(len)),
            b'T' | b'X' => self.number::<4>().and_then(|len| self.string(len)),
            0x8d => self.number::<8>().and_then(|len| self.string(len)),
            b'C' => self.number::<1>().and_then(|len| self.opaque(len)),
            b'B' => self.number::<4>().and_then(|len| self.opaque(len)),
            0x8e | 0x96 => self.number::<8>().and_then(|len| self.opaque(len)),
            0x97 => self.push(OPAQUE),
            0x98 => Ok(()),
            // Containers.
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b']' | 0x8f => self.push_node(Node::List(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            b')' => self.push(NO_ARGS),
            b'l' | 0x91 => self.marked().and_then(|items| self.push_node(Node::List(items))),
            b't' => self.marked().and_then(|items| self.push_node(Node::Tuple(items))),
            b'd' => self.marked().and_then(|items| self.push_node(Node::Dict(pairs(&items)))),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..=opcode - 0x85 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_node(Node::Tuple(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])
            }
            b'e' | 0x90 => self.marked().and_then(|items| self.append(&items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            b'u' => self.marked().and_then(|items| self.set(&items)),
            // Classes, functions and objects.
            b'c' => self.global_lines(),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                self.push_global(module, name)
            }
            0x82 => self.number::<1>().and_then(|_| self.push(OPAQUE)),
            0x83 => self.number::<2>().and_then(|_| self.push(OPAQUE)),
            0x84 => self.number::<4>().and_then(|_| self.push(OPAQUE)),
            b'R' | 0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.push_object(class, args)
            }
            0x92 => {
                let (_keywords, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.push_object(class, args)
            }
            b'o' => {
                let items = self.marked()?;
                let (&class, args) = items.split_first().ok_or(UNDERFLOW)?;
                let args = self.node(Node::Tuple(args.to_vec()))?;
                self.push_object(class, args)
            }
            b'i' => {
                let items = self.marked()?;
                let args = self.node(Node::Tuple(items))?;
                self.global_lines()?;
                let class = self.pop()?;
                self.push_object(class, args)
            }
            b'b' => {
                let (state, target) = (self.pop()?, self.top()?);
                if let Node::Object(object) = &mut self.nodes[target as usize] {
                    object.state = Some(state);
                }
                Ok(())
            }
            b'P' => {
                let line = self.line()?;
                self.push_text(&line)?;
                let id = self.pop()?;
                self.push_node(Node::Persistent(id))
            }
            b'Q' => {
                let id = self.pop()?;
                self.push_node(Node::Persistent(id))
            }
            // Stack and memo.
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.marked().map(|_| ()),
            b'2' => self.top().and_then(|id| self.push(id)),
            b'g' => self.line_number().and_then(|key| self.get(key)),
            b'h' => self.number::<1>().and_then(|key| self.get(key)),
            b'j' => self.number::<4>().and_then(|key| self.get(key)),
            b'p' => self.line_number().and_then(|key| self.put(key)),
            b'q' => self.number::<1>().and_then(|key| self.put(key)),
            b'r' => self.number::<4>().and_then(|key| self.put(key)),
            0x94 => self.put(self.memo.len() as u64),
            _ => Err(format!("its pickle has the unknown opcode {opcode:#04x}")),
        }
    }

    fn spend(&mut self, size: usize) -> Result<(), String> {
        self.size += size;
        if self.size > MAX_SIZE { Err("its pickle has too many values".into()) } else { Ok(()) }
    }

    fn node(&mut self, node: Node) -> Result<Id, String> {
        self.spend(1)?;
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as Id)
    }

    fn push(&mut self, id: Id) -> Result<(), String> {
        self.spend(1)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result<(), String> {
        let id = self.node(node)?;
        self.push(id)
    }

    fn push_text(&mut self, text: &str) -> Result<(), String> {
        self.spend(text.len() / 32)?;
        self.push_node(Node::Text(text.into()))
    }

    fn push_object(&mut self, class: Id, args: Id) -> Result<(), String> {
        let object = Object { class, args, state: None, items: Vec::new(), pairs: Vec::new() };
        self.spend(2)?;
        self.push_node(Node::Object(Box::new(object)))
    }

    fn push_global(&mut self, module: Id, name: Id) -> Result<(), String> {
        let text = |id: Id| match &self.nodes[id as usize] {
            Node::Text(text) => Ok(text.clone()),
            _ => Err("its pickle names a class by something that is not text"),
        };
        let global = Node::Global { module: text(module)?, name: text(name)? };
        self.push_node(global)
    }

    fn global_lines(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?.into(), self.line()?.into());
        self.push_node(Node::Global { module, name })
    }

    fn top(&self) -> Result<Id, String> {
        let base = self.marks.last().copied().unwrap_or(0);
        self.stack.get(base..).and_then(|items| items.last()).copied().ok_or_else(|| UNDERFLOW.into())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// Takes the values above the newest mark, and the mark.
    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or(UNDERFLOW)?;
        Ok(self.stack.split_off(mark))
    }

    /// Appends to a list. Other built-in values cannot hold tensors, so nothing happens to them.
    fn append(&mut self, new: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        match &mut self.nodes[target as usize] {
            Node::List(items) => items.extend(new),
            Node::Object(object) => object.items.extend(new),
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, new: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        match &mut self.nodes[target as usize] {
            Node::Dict(entries) => entries.extend(pairs(new)),
            Node::Object(object) => object.pairs.extend(pairs(new)),
            _ => {}
        }
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or("its pickle uses a value before it is stored")?;
        self.push(id)
    }

    fn put(&mut self, key: u64) -> Result<(), String> {
        let id = self.top()?;
        self.spend(1)?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn string(&mut self, len: u64) -> Result<(), String> {
        if len > MAX_TEXT {
            return self.opaque(len);
        }
        let mut bytes = vec![0; len as usize];
        self.input.read_exact(&mut bytes).map_err(cut)?;
        self.push_text(&String::from_utf8_lossy(&bytes))
    }

    /// Skips bytes.
    fn opaque(&mut self, len: u64) -> Result<(), String> {
        let skipped = io::copy(&mut self.input.by_ref().take(len), &mut io::sink()).map_err(cut)?;
        if skipped == len { self.push(OPAQUE) } else { Err(CUT.into()) }
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, len: u64) -> Result<(), String> {
        if len > 8 {
            return self.opaque(len);
        }
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes[..len as usize]).map_err(cut)?;
        if len > 0 && bytes[len as usize - 1] & 0x80 != 0 {
            bytes[len as usize..].fill(0xff);
        }
        self.push_node(Node::Int(i64::from_le_bytes(bytes)))
    }

    fn int<const N: usize>(&mut self) -> Result<(), String> {
        let value = self.number::<N>()?;
        self.push_node(Node::Int(value.cast_signed()))
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.number::<1>().map(|byte| byte as u8)
    }

    /// A little-endian unsigned integer.
    fn number<const N: usize>(&mut self) -> Result<u64, String> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes[..N]).map_err(cut)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn line_number(&mut self) -> Result<u64, String> {
        self.line()?.parse().map_err(|_| "its pickle has an invalid number".into())
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        self.input.by_ref().take(MAX_TEXT).read_until(b'\n', &mut line).map_err(cut)?;
        match line.pop() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').into()),
            _ => Err(CUT.into()),
        }
    }
}

const UNDERFLOW: &str = "its pickle uses a value that is not there";
const CUT: &str = "its pickle ends early";

fn cut(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CUT.into(),
        _ => format!("its pickle cannot be read: {error}"),
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle, String> {
        read_pickle(&mut &bytes[..])
    }

    /// The pickles are those of CPython 3.12 for `{"a": [1, -2, None, True, (3,)]}`, in the protocols 0, 2 and 4.
    #[test]
    fn all_protocols_give_the_same_values() {
        let pickles: [&[u8]; 3] = [
            b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naNaI01\na(I3\ntp3\nas.",
            b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffN\x88K\x03\x85q\x03es.",
            b"\x80\x04\x95\x1b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffN\x88K\x03\x85\x94es.",
        ];
        for pickle in pickles {
            let pickle = read(pickle).unwrap();
            let Node::Dict(pairs) = pickle.node(pickle.root) else { panic!("{pickle:?}") };
            let [(key, value)] = pairs[..] else { panic!("{pickle:?}") };
            assert_eq!(pickle.text(key), Some("a"));
            let items: Vec<&Node> = pickle.elements(value).unwrap().iter().map(|&id| pickle.node(id)).collect();
            let [Node::Int(1), Node::Int(-2), Node::None, Node::Bool(true), Node::Tuple(last)] = items[..] else {
                panic!("{items:?}")
            };
            assert_eq!(pickle.size(last[0]), Some(3));
        }
    }

    #[test]
    fn a_list_may_contain_itself() {
        let pickle = read(b"]\x94h\0a.").unwrap();
        assert_eq!(pickle.elements(pickle.root), Some(&[pickle.root][..]));
    }

    #[test]
    fn broken_pickles_are_refused() {
        let cases: [(&[u8], &str); 7] = [
            (b"", CUT),
            (b"]", CUT),
            (b".", UNDERFLOW),
            (b"(.", UNDERFLOW),
            (b"h\x07.", "before it is stored"),
            (b"\xff.", "unknown opcode 0xff"),
            (b"X\xff\xff\xff\xffa.", CUT),
        ];
        for (pickle, expected) in cases {
            let error = read(pickle).unwrap_err();
            assert!(error.contains(expected), "{pickle:?}: {error}");
        }
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let error = read(&vec![b']'; MAX_SIZE]).unwrap_err();
        assert!(error.contains("too many values"), "{error}");
    }
}
