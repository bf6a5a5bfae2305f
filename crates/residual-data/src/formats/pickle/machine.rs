//! A pickle machine that builds plain data. It knows the opcodes of the protocols 0 to 5, imports nothing and calls
//! nothing: a class or a function is a name, and calling one only records its arguments.
//!
//! The opcodes are those of Python's `pickletools`.

use super::{Id, Node, Object, PickleError};
use std::{
    collections::HashMap,
    io::{self, BufRead, Read, Take},
};

const NONE: Id = 0;
const TRUE: Id = 1;
const FALSE: Id = 2;
const OPAQUE: Id = 3;
const NO_ARGS: Id = 4;

/// The longest text that is kept. Keys, classes and storages have shorter names.
const MAX_TEXT: u64 = 4096;
/// The longest pickle, most of which may be skipped arrays.
const MAX_BYTES: u64 = 1 << 30;
/// The memory that a pickle may take however small its file is, and in any file, in bytes.
const MEMORY: std::ops::Range<u64> = 64 << 20..1 << 30;
/// The memory that a pickle may take for each byte of its file. A list of large numbers takes 8.
const MEMORY_PER_BYTE: u64 = 10;
/// What the allocator adds to an allocation.
const OVERHEAD: usize = 16;

type Result<T> = std::result::Result<T, PickleError>;

pub(super) struct Machine<R> {
    input: Take<R>,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// The heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// The numbers of one and two bytes, once they occur.
    small: Vec<Id>,
    /// The memory that the values take, and the largest that they may take, in bytes.
    memory: u64,
    max_memory: u64,
}

impl<R: BufRead> Machine<R> {
    pub(super) fn new(input: R, file_size: u64) -> Self {
        let constants = [Node::None, Node::Bool(true), Node::Bool(false), Node::Opaque, Node::Tuple(Vec::new())];
        Self {
            input: input.take(MAX_BYTES),
            nodes: constants.into(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            small: Vec::new(),
            memory: 0,
            max_memory: file_size.saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY.start).min(MEMORY.end),
        }
    }

    /// Reads one pickle. Returns its values and the index of the pickled one.
    pub(super) fn run(mut self) -> Result<(Vec<Node>, Id)> {
        loop {
            match self.byte()? {
                b'.' => {
                    let root = self.pop()?;
                    return Ok((self.nodes, root));
                }
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
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
            b'K' => self.small::<1>(),
            b'M' => self.small::<2>(),
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
                self.push_text(line.trim_matches(['\'', '"']).into())
            }
            b'V' => {
                let line = self.line()?;
                self.push_text(line.into())
            }
            b'U' | 0x8c => self.number::<1>().and_then(|len| self.string(len)),
            b'T' | b'X' => self.number::<4>().and_then(|len| self.string(len)),
            0x8d => self.number::<8>().and_then(|len| self.string(len)),
            b'C' => self.number::<1>().and_then(|len| self.bytes(len)),
            b'B' => self.number::<4>().and_then(|len| self.bytes(len)),
            0x8e | 0x96 => self.number::<8>().and_then(|len| self.bytes(len)),
            0x97 => self.push(OPAQUE),
            0x98 => Ok(()),
            // Containers.
            b'(' => {
                self.marks.push(self.stack.len());
                self.take_memory(0)
            }
            b']' | 0x8f => self.push_node(Node::List(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            b')' => self.push(NO_ARGS),
            b'l' | 0x91 => self.marked().and_then(|items| self.push_node(Node::List(items))),
            b't' => self.marked().and_then(|items| self.push_node(Node::Tuple(items))),
            b'd' => self.marked().and_then(|items| self.push_node(Node::Dict(pairs(&items).collect()))),
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
                let (&class, args) = items.split_first().ok_or(PickleError::NoValue)?;
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
                self.push_text(line.into())?;
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
            _ => Err(PickleError::UnknownOpcode { opcode, at: self.position() - 1 }),
        }
    }

    /// Counts memory that stays in use, and checks it together with the stack's.
    fn take_memory(&mut self, bytes: usize) -> Result<()> {
        self.memory += bytes as u64;
        let stack = size_of_val(&self.stack[..]) + size_of_val(&self.marks[..]);
        if self.memory + stack as u64 > self.max_memory { Err(PickleError::TooManyValues) } else { Ok(()) }
    }

    fn node(&mut self, node: Node) -> Result<Id> {
        let content = match &node {
            Node::Text(text) => text.len() + OVERHEAD,
            Node::List(items) | Node::Tuple(items) => allocated(items),
            Node::Dict(pairs) => allocated(pairs),
            Node::Global(names) => size_of_val(&**names) + names.0.len() + names.1.len() + 3 * OVERHEAD,
            Node::Object(_) => size_of::<Object>() + OVERHEAD,
            _ => 0,
        };
        self.take_memory(size_of::<Node>() + content)?;
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as Id)
    }

    fn push(&mut self, id: Id) -> Result<()> {
        self.stack.push(id);
        self.take_memory(0)
    }

    fn push_node(&mut self, node: Node) -> Result<()> {
        let id = self.node(node)?;
        self.push(id)
    }

    fn push_text(&mut self, text: Box<str>) -> Result<()> {
        self.push_node(Node::Text(text))
    }

    fn push_object(&mut self, class: Id, args: Id) -> Result<()> {
        let object = Object { class, args, state: None, items: Vec::new(), pairs: Vec::new() };
        self.push_node(Node::Object(Box::new(object)))
    }

    fn push_global(&mut self, module: Id, name: Id) -> Result<()> {
        let text = |id: Id| match &self.nodes[id as usize] {
            Node::Text(text) => Ok(text.clone()),
            _ => Err(PickleError::ClassName),
        };
        let global = Node::Global(Box::new((text(module)?, text(name)?)));
        self.push_node(global)
    }

    fn global_lines(&mut self) -> Result<()> {
        let (module, name) = (self.line()?.into(), self.line()?.into());
        self.push_node(Node::Global(Box::new((module, name))))
    }

    fn top(&self) -> Result<Id> {
        let base = self.marks.last().copied().unwrap_or(0);
        self.stack.get(base..).and_then(|items| items.last()).copied().ok_or(PickleError::NoValue)
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// Takes the values above the newest mark, and the mark.
    fn marked(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or(PickleError::NoValue)?;
        let items = self.stack[mark..].to_vec();
        self.stack.truncate(mark);
        Ok(items)
    }

    /// Appends to a list or a set. Nothing happens to other values, which have no elements.
    fn append(&mut self, new: &[Id]) -> Result<()> {
        let target = self.top()?;
        let grown = match &mut self.nodes[target as usize] {
            Node::List(items) => extend(items, new.iter().copied()),
            Node::Object(object) => extend(&mut object.items, new.iter().copied()),
            _ => 0,
        };
        self.take_memory(grown)
    }

    fn set(&mut self, new: &[Id]) -> Result<()> {
        let target = self.top()?;
        let grown = match &mut self.nodes[target as usize] {
            Node::Dict(entries) => extend(entries, pairs(new)),
            Node::Object(object) => extend(&mut object.pairs, pairs(new)),
            _ => 0,
        };
        self.take_memory(grown)
    }

    fn get(&mut self, key: u64) -> Result<()> {
        let id = *self.memo.get(&key).ok_or(PickleError::NotStored)?;
        self.push(id)
    }

    fn put(&mut self, key: u64) -> Result<()> {
        /// A slot of the table, when half of them are used.
        const SLOT: usize = 2 * size_of::<(u64, Id, u8)>();
        let id = self.top()?;
        if self.memo.insert(key, id).is_none() { self.take_memory(SLOT) } else { Ok(()) }
    }

    fn string(&mut self, len: u64) -> Result<()> {
        if len > MAX_TEXT {
            return self.bytes(len);
        }
        let start = self.position();
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        match String::from_utf8(bytes) {
            Ok(text) => self.push_text(text.into()),
            Err(_) => self.push_node(Node::Bytes(start..self.position())),
        }
    }

    fn bytes(&mut self, len: u64) -> Result<()> {
        let start = self.position();
        self.skip(len)?;
        self.push_node(Node::Bytes(start..self.position()))
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, len: u64) -> Result<()> {
        if len > 8 {
            return self.skip(len).and_then(|()| self.push(OPAQUE));
        }
        let mut bytes = [0; 8];
        self.fill(&mut bytes[..len as usize])?;
        if len > 0 && bytes[len as usize - 1] & 0x80 != 0 {
            bytes[len as usize..].fill(0xff);
        }
        self.push_node(Node::Int(i64::from_le_bytes(bytes)))
    }

    /// A number of one or two bytes. Lists of millions of them are common, so equal ones share a value.
    fn small<const N: usize>(&mut self) -> Result<()> {
        let value = self.number::<N>()?;
        self.small.resize(1 << 16, NONE);
        if self.small[value as usize] == NONE {
            self.small[value as usize] = self.node(Node::Int(value.cast_signed()))?;
        }
        self.push(self.small[value as usize])
    }

    fn byte(&mut self) -> Result<u8> {
        self.number::<1>().map(|byte| byte as u8)
    }

    /// A little-endian unsigned integer.
    fn number<const N: usize>(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes[..N])?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn line_number(&mut self) -> Result<u64> {
        self.line()?.parse().map_err(|_| PickleError::Number)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let read = self.input.by_ref().take(MAX_TEXT).read_until(b'\n', &mut line);
        read.map_err(|error| self.problem(error))?;
        match line.pop() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').into()),
            _ if line.len() as u64 + 1 == MAX_TEXT => Err(PickleError::LongLine),
            _ => Err(self.end()),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.input.read_exact(bytes).map_err(|error| self.problem(error))
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(len), &mut io::sink());
        if skipped.map_err(|error| self.problem(error))? == len { Ok(()) } else { Err(self.end()) }
    }

    /// The number of bytes that were read.
    fn position(&self) -> u64 {
        MAX_BYTES - self.input.limit()
    }

    fn problem(&self, error: io::Error) -> PickleError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.end(),
            _ => PickleError::Io(error),
        }
    }

    /// Why there are no more bytes.
    fn end(&self) -> PickleError {
        if self.input.limit() == 0 { PickleError::TooLong } else { PickleError::EndsEarly }
    }
}

fn pairs(items: &[Id]) -> impl Iterator<Item = (Id, Id)> {
    items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value))
}

/// The memory that the items take, in bytes.
fn allocated<T>(items: &Vec<T>) -> usize {
    if items.capacity() == 0 { 0 } else { items.capacity() * size_of::<T>() + OVERHEAD }
}

/// Appends items and returns the memory that it took.
fn extend<T>(items: &mut Vec<T>, new: impl IntoIterator<Item = T>) -> usize {
    let before = allocated(items);
    items.extend(new);
    allocated(items) - before
}

#[cfg(test)]
mod tests {
    use super::{super::Pickle, *};
    use std::io::BufReader;

    fn read(bytes: &[u8]) -> Result<Pickle> {
        Pickle::read(bytes, bytes.len() as u64)
    }

    fn error(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
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
            let Node::Dict(pairs) = pickle.node(pickle.root()) else { panic!("{pickle:?}") };
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
        assert_eq!(pickle.elements(pickle.root()), Some(&[pickle.root()][..]));
    }

    #[test]
    fn bytes_and_binary_texts_are_found_in_the_input() {
        let long = "é".repeat(2049);
        let values: [(&[u8], &[u8]); 8] = [
            (b"U\x03", b"\x00\xff\x80"),
            (b"T\x03\0\0\0", b"\x00\xff\x80"),
            (b"C\x03", b"abc"),
            (b"B\x03\0\0\0", b"abc"),
            (b"\x8e\x03\0\0\0\0\0\0\0", b"abc"),
            (b"\x96\x00\0\0\0\0\0\0\0", b""),
            (b"X\x02\x10\0\0", long.as_bytes()),
            (b"\x8d\x02\x10\0\0\0\0\0\0", long.as_bytes()),
        ];
        for (opcode, content) in values {
            let start = 2 + opcode.len() as u64;
            let file = [b"\x80\x04", opcode, content, b"."].concat();
            let pickle = read(&file).unwrap();
            assert_eq!(pickle.node(pickle.root()), &Node::Bytes(start..start + content.len() as u64));
            assert_eq!(pickle.content(pickle.root(), &file), Some(content));
            assert_eq!(pickle.content(pickle.root(), &[]).unwrap_or_default(), b"");
        }
        let pickle = read(b"\x80\x02U\x02\xc3\xa9.").unwrap();
        assert_eq!(pickle.text(pickle.root()), Some("é"));
        assert_eq!(pickle.content(pickle.root(), &[]), Some("é".as_bytes()));
    }

    #[test]
    fn the_input_is_left_after_the_pickle() {
        let mut input = &b"C\x01a.C\x02bc.rest"[..];
        for range in [2..3, 2..4] {
            let pickle = Pickle::read(&mut input, 9).unwrap();
            assert_eq!(pickle.node(pickle.root()), &Node::Bytes(range));
        }
        assert_eq!(input, b"rest");
    }

    #[test]
    fn broken_pickles_are_refused() {
        let cases: [(&[u8], &str); 11] = [
            (b"", "the pickle ends early"),
            (b"]", "the pickle ends early"),
            (b"X\xff\xff\xff\xffa.", "the pickle ends early"),
            (b"C\x02a", "the pickle ends early"),
            (b"Va", "the pickle ends early"),
            (b".", "the pickle uses a value that is not there"),
            (b"(.", "the pickle uses a value that is not there"),
            (b"h\x07.", "the pickle uses a value before it is stored"),
            (b"NN\x93.", "the pickle names a class by something that is not text"),
            (b"gx\n.", "the pickle has an invalid number"),
            (b"\x80\x02\xff.", "the pickle has the unknown opcode 0xff at byte 2"),
        ];
        for (pickle, expected) in cases {
            assert_eq!(error(pickle), expected, "{pickle:?}");
        }
    }

    #[test]
    fn the_lengths_of_lines_and_of_the_pickle_are_bounded() {
        let line = [&b"V"[..], &b"a".repeat(4095), b"\n."].concat();
        assert!(read(&line).is_ok());
        assert!(error(&[&b"Va"[..], &line[1..]].concat()).contains("a line of more than 4096 bytes"));
        let endless = BufReader::with_capacity(1 << 20, b"B\xff\xff\xff\xff".chain(io::repeat(0)));
        assert_eq!(Pickle::read(endless, 0).unwrap_err().to_string(), "the pickle is longer than 1 GiB");
    }

    /// Each of these took 8 to 600 bytes of memory for a byte of the file.
    #[test]
    fn memory_is_bounded_by_the_size_of_the_file() {
        const PACKED: u64 = 25_000;
        let repeated: [&[u8]; 9] =
            [b"}", b"]", b"]Na", b"N", b"(", b"(Nt", b"J\0\0\0\x01", b"X\x01\0\0\0a", b"ca\nb\n"];
        for values in repeated {
            let pickle = values.repeat(1000 * PACKED as usize / values.len());
            let error = Pickle::read(&pickle[..], PACKED).unwrap_err();
            assert_eq!(error.to_string(), "the pickle has too many values", "{values:?}");
        }
    }

    /// The position of a sampler over ImageNet, and labels of as many images.
    #[test]
    fn lists_of_millions_of_numbers_are_read() {
        let list = |item: &[u8]| {
            let thousand = [b"(", &item.repeat(1000)[..], b"e"].concat();
            [b"\x80\x02]q\0", &thousand.repeat(1300)[..], b"."].concat()
        };
        for item in [&b"K\x07"[..], b"M\x07\x07", b"J\x07\x07\x07\0", b"G\0\0\0\0\0\0\0\0", b"N"] {
            let pickle = read(&list(item)).unwrap();
            assert_eq!(pickle.elements(pickle.root()).unwrap().len(), 1_300_000);
        }
    }

    #[test]
    fn deep_nesting_needs_no_recursion() {
        assert!(read(&[&b")"[..], &b"\x85".repeat(1_000_000), b"."].concat()).is_ok());
    }
}
