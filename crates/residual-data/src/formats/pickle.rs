//! The part of Python's pickle format that CIFAR's files for Python use: dictionaries, lists, tuples, numbers, texts and
//! NumPy arrays of bytes. Nothing in a file is executed: calls are kept as their arguments.

use std::{collections::HashMap, ops::Range};

/// The objects of a file. They refer to each other by index, so that no nesting is too deep to be dropped.
pub(crate) struct Pickle<'a> {
    bytes: &'a [u8],
    objects: Vec<Object>,
    root: usize,
}

enum Object {
    Other,
    Int(i64),
    /// The position of a text or of bytes in the file.
    Bytes(Range<usize>),
    Sequence(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// The result of a call: its arguments, and the state that is set afterwards.
    Call {
        arguments: usize,
        state: Option<usize>,
    },
}

/// A CIFAR file for Python has 150,000 objects at most.
const MAX_OPERATIONS: usize = 2_000_000;

impl<'a> Pickle<'a> {
    /// Reads a file of protocol 2 to 5.
    ///
    /// # Errors
    /// If the file is damaged, too large, or needs more than the known operations. The error is the reason.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut reader =
            Reader { bytes, at: 0, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        for _ in 0..MAX_OPERATIONS {
            if let Some(root) = reader.step()? {
                return Ok(Self { bytes, objects: reader.objects, root });
            }
        }
        Err(format!("it has more than {MAX_OPERATIONS} operations"))
    }

    /// The value of a key in the dictionary that the file holds.
    fn get(&self, key: &str) -> Option<&Object> {
        let Object::Dict(entries) = &self.objects[self.root] else { return None };
        let found = entries.iter().rev().find(|(name, _)| self.text(*name) == Some(key));
        found.map(|(_, value)| &self.objects[*value])
    }

    fn slice(&self, object: usize) -> Option<&'a [u8]> {
        if let Object::Bytes(range) = &self.objects[object] { Some(&self.bytes[range.clone()]) } else { None }
    }

    fn text(&self, object: usize) -> Option<&'a str> {
        self.slice(object).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let Object::Sequence(items) = self.get(key)? else { return None };
        items.iter().map(|item| self.text(*item).map(String::from)).collect()
    }

    /// The numbers of a list.
    pub(crate) fn numbers(&self, key: &str) -> Option<Vec<i64>> {
        let Object::Sequence(items) = self.get(key)? else { return None };
        let number = |item: &usize| if let Object::Int(number) = self.objects[*item] { Some(number) } else { None };
        items.iter().map(number).collect()
    }

    /// The bytes of a two-dimensional NumPy array of unsigned bytes in row-major order, and its shape.
    pub(crate) fn array(&self, key: &str) -> Option<(&'a [u8], [usize; 2])> {
        let Object::Call { arguments, state } = self.get(key)? else { return None };
        let (shape, kind, is_row_major, bytes) = match state {
            // Up to protocol 4: version, shape, type, whether the order is column-major, and the bytes.
            Some(state) => {
                let &[_, shape, kind, column_major, bytes] = self.sequence(*state)? else { return None };
                (shape, kind, matches!(self.objects[column_major], Object::Int(0)), bytes)
            }
            // Protocol 5: the arguments of `_frombuffer`.
            None => {
                let &[bytes, kind, shape, order] = self.sequence(*arguments)? else { return None };
                (shape, kind, self.text(order) == Some("C"), bytes)
            }
        };
        let side = |object: usize| {
            if let Object::Int(side) = self.objects[object] { usize::try_from(side).ok() } else { None }
        };
        let &[rows, columns] = self.sequence(shape)? else { return None };
        let Object::Call { arguments, .. } = self.objects[kind] else { return None };
        let is_bytes = matches!(self.text(*self.sequence(arguments)?.first()?)?, "u1" | "|u1");
        (is_bytes && is_row_major).then_some((self.slice(bytes)?, [side(rows)?, side(columns)?]))
    }

    fn sequence(&self, object: usize) -> Option<&[usize]> {
        if let Object::Sequence(items) = &self.objects[object] { Some(items) } else { None }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: HashMap<usize, usize>,
}

impl Reader<'_> {
    /// Executes one operation. Returns the file's object at its end.
    fn step(&mut self) -> Result<Option<usize>, String> {
        match self.take(1)?[0] {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Object::Other),
            0x88 => self.push(Object::Int(1)),
            0x89 => self.push(Object::Int(0)),
            b'K' => self.number(1)?,
            b'M' => self.number(2)?,
            b'J' => {
                let bytes = self.take(4)?;
                let number = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                self.push(Object::Int(number.into()));
            }
            0x8a => {
                let length = self.length(1)?;
                let bytes = self.take(length)?;
                let number = bytes.iter().rev().fold(0i64, |number, byte| number << 8 | i64::from(*byte));
                self.push(if length < 8 { Object::Int(number) } else { Object::Other });
            }
            b'G' => {
                self.take(8)?;
                self.push(Object::Other);
            }
            b'U' | b'C' | 0x8c => self.data(1)?,
            b'T' | b'B' | b'X' => self.data(4)?,
            0x8d | 0x8e | 0x96 => self.data(8)?,
            b'c' => {
                self.line()?;
                self.line()?;
                self.push(Object::Other);
            }
            0x93 => {
                self.pop()?;
                self.pop()?;
                self.push(Object::Other);
            }
            b']' | b')' | 0x8f => self.push(Object::Sequence(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Object::Sequence(items));
            }
            count @ 0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(count) - 0x84).ok_or("its stack is empty")?;
                let items = self.stack.split_off(start);
                self.push(Object::Sequence(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.insert(&items)?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                self.pop()?;
                self.push(Object::Call { arguments, state: None });
            }
            b'b' => {
                let new = self.pop()?;
                let object = self.top()?;
                if let Object::Call { state, .. } = &mut self.objects[object] {
                    *state = Some(new);
                }
            }
            b'q' => self.memorize(1)?,
            b'r' => self.memorize(4)?,
            0x94 => {
                let top = self.top()?;
                self.memo.insert(self.memo.len(), top);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            code => return Err(format!("the operation {code:#04x} at byte {} is not supported", self.at - 1)),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or("it is truncated")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn line(&mut self) -> Result<(), String> {
        let length = self.bytes[self.at..].iter().position(|byte| *byte == b'\n').ok_or("it is truncated")?;
        self.take(length + 1).map(|_| ())
    }

    /// A little-endian length of this many bytes.
    fn length(&mut self, bytes: usize) -> Result<usize, String> {
        let length = self.take(bytes)?.iter().rev().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
        usize::try_from(length).map_err(|_| "it is truncated".into())
    }

    fn push(&mut self, object: Object) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn number(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.length(bytes)?;
        self.push(Object::Int(number as i64));
        Ok(())
    }

    fn data(&mut self, bytes: usize) -> Result<(), String> {
        let length = self.length(bytes)?;
        let start = self.at;
        self.take(length)?;
        self.push(Object::Bytes(start..self.at));
        Ok(())
    }

    /// The top of the stack, above the last mark.
    fn top(&self) -> Result<usize, String> {
        let above_mark = self.stack.len() > self.marks.last().copied().unwrap_or(0);
        self.stack.last().copied().filter(|_| above_mark).ok_or("its stack is empty".into())
    }

    fn pop(&mut self) -> Result<usize, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn since_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, new: Vec<usize>) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.objects[list] {
            Object::Sequence(items) => items.extend(new),
            _ => return Err("it appends to what is no list".into()),
        }
        Ok(())
    }

    /// Inserts keys and values, which alternate.
    fn insert(&mut self, new: &[usize]) -> Result<(), String> {
        let dict = self.top()?;
        match &mut self.objects[dict] {
            Object::Dict(entries) => entries.extend(new.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => return Err("it inserts into what is no dictionary".into()),
        }
        Ok(())
    }

    fn memorize(&mut self, bytes: usize) -> Result<(), String> {
        let (key, top) = (self.length(bytes)?, self.top()?);
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), String> {
        let key = self.length(bytes)?;
        let object = self.memo.get(&key).copied().ok_or("it uses an object before it defines it")?;
        self.stack.push(object);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A dictionary as Python 2 pickles it with protocol 2: an array `[labels, columns]` of bytes, and labels.
    pub(crate) fn batch(pixels: &[u8], columns: u16, key: &str, labels: &[u8]) -> Vec<u8> {
        let mut file = b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03".to_vec();
        file.extend(b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01");
        file.extend([b'K', labels.len() as u8, b'M', columns as u8, (columns >> 8) as u8, 0x86]);
        file.extend(b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
        file.extend((pixels.len() as u32).to_le_bytes());
        file.extend(pixels);
        file.extend(b"tbU");
        file.extend([key.len() as u8]);
        file.extend([key.as_bytes(), b"q\x08]q\x09("].concat());
        labels.iter().for_each(|label| file.extend([b'K', *label]));
        file.extend(b"eu.");
        file
    }

    /// A dictionary of one list of texts.
    pub(crate) fn names(key: &str, names: &[&str]) -> Vec<u8> {
        let text = |text: &str| [&[b'U', text.len() as u8][..], text.as_bytes()].concat();
        let mut file = [&b"\x80\x02}q\x01"[..], &text(key), b"]q\x02("].concat();
        names.iter().for_each(|name| file.extend(text(name)));
        file.extend(b"es.");
        file
    }

    #[test]
    fn an_array_and_a_list_are_read() {
        let file = batch(&[1, 2, 3, 4, 5, 6], 3, "labels", &[7, 9]);
        let pickle = Pickle::read(&file).unwrap();
        assert_eq!(pickle.array("data").unwrap(), (&[1u8, 2, 3, 4, 5, 6][..], [2, 3]));
        assert_eq!(pickle.numbers("labels").unwrap(), [7, 9]);
        assert!(pickle.numbers("data").is_none() && pickle.array("labels").is_none() && pickle.texts("x").is_none());
        let file = names("label_names", &["cat", "dog"]);
        assert_eq!(Pickle::read(&file).unwrap().texts("label_names").unwrap(), ["cat", "dog"]);
    }

    /// Written by `pickle.dumps({b"data": numpy.array([[1, 2, 3], [4, 5, 6]], dtype="u1")}, protocol=5)`, NumPy 2.
    #[test]
    fn an_array_of_protocol_5_is_read() {
        let file = [
            &b"\x80\x05\x95\x86\0\0\0\0\0\0\0}\x94C\x04data\x94\x8c\x13numpy._core.numeric\x94"[..],
            b"\x8c\x0b_frombuffer\x94\x93\x94(\x96\x06\0\0\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x94",
            b"\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNN",
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t\x94bK\x02K\x03\x86\x94\x8c\x01C\x94t\x94R\x94s.",
        ];
        let file = file.concat();
        assert_eq!(Pickle::read(&file).unwrap().array("data").unwrap(), (&[1u8, 2, 3, 4, 5, 6][..], [2, 3]));
    }

    #[test]
    fn other_arrays_are_not_taken_for_bytes() {
        let file = batch(&[1, 2], 1, "labels", &[0, 0]);
        let replaced = |from: &[u8], to: &[u8]| {
            let at = file.windows(from.len()).position(|window| window == from).unwrap();
            [&file[..at], to, &file[at + from.len()..]].concat()
        };
        assert!(Pickle::read(&replaced(b"u1", b"i1")).unwrap().array("data").is_none());
        assert!(Pickle::read(&replaced(b"tb\x89T", b"tb\x88T")).unwrap().array("data").is_none());
    }

    #[test]
    fn damaged_files_are_rejected() {
        let file = batch(&[1, 2, 3, 4], 2, "labels", &[1, 2]);
        for length in 0..file.len() {
            assert!(Pickle::read(&file[..length]).is_err(), "{length}");
        }
        for (at, byte) in (0..file.len()).flat_map(|at| [0, 0x52, 0x62, 0xff].map(|byte| (at, byte))) {
            let mut damaged = file.clone();
            damaged[at] = byte;
            // Neither panics.
            if let Ok(pickle) = Pickle::read(&damaged) {
                let _ = (pickle.array("data"), pickle.numbers("labels"));
            }
        }
        let error = |bytes: &[u8]| Pickle::read(bytes).err().unwrap();
        assert_eq!(error(b"\x80\x02("), "it is truncated");
        assert_eq!(error(b"\x80\x02P"), "the operation 0x50 at byte 2 is not supported");
        assert_eq!(error(b"h\x05"), "it uses an object before it defines it");
        assert_eq!(error(&b"N".repeat(MAX_OPERATIONS + 1)), "it has more than 2000000 operations");
        // Deeply nested: dropped without recursion.
        let nested = [&b")"[..], &b"\x85".repeat(1_000_000), b"."].concat();
        assert!(Pickle::read(&nested).is_ok());
    }
}
