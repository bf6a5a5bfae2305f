//! CIFAR's files for Python: pickled dictionaries of numbers, texts and NumPy arrays of bytes.

use crate::formats::pickle::{Id, Node, Object, Pickle, PickleError};

/// A dictionary in a file. Its large arrays are not copied.
pub(crate) struct Dictionary<'a> {
    file: &'a [u8],
    pickle: Pickle,
}

impl<'a> Dictionary<'a> {
    /// Reads the pickle that a file starts with.
    ///
    /// # Errors
    /// If [`Pickle::read`] fails. A file without a dictionary has no entries.
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, PickleError> {
        Ok(Self { file, pickle: Pickle::read(file, file.len() as u64)? })
    }

    /// The texts of a list with this number of elements.
    pub(crate) fn texts(&self, key: &str, count: usize) -> Option<Vec<String>> {
        let list = self.list(key).filter(|list| list.len() == count)?;
        list.iter().map(|item| self.text(*item).map(String::from)).collect()
    }

    /// The numbers of a list.
    pub(crate) fn numbers(&self, key: &str) -> Option<Vec<i64>> {
        self.list(key)?.iter().map(|item| self.number(*item)).collect()
    }

    /// The bytes of a two-dimensional NumPy array of unsigned bytes in row-major order, and its shape.
    pub(crate) fn array(&self, key: &str) -> Option<(&[u8], [usize; 2])> {
        let array = self.call(self.get(key)?)?;
        let (shape, kind, is_row_major, bytes) = match array.state {
            // Up to protocol 4: version, shape, type, whether the order is column-major, and the bytes.
            Some(state) => {
                let &[_, shape, kind, column_major, bytes] = self.pickle.elements(state)? else { return None };
                (shape, kind, self.number(column_major) == Some(0), bytes)
            }
            // Protocol 5: the arguments of `_frombuffer`.
            None => {
                let &[bytes, kind, shape, order] = self.pickle.elements(array.args)? else { return None };
                (shape, kind, self.content(order) == Some(b"C"), bytes)
            }
        };
        let &[rows, columns] = self.pickle.elements(shape)? else { return None };
        let kind = self.pickle.elements(self.call(kind)?.args)?.first()?;
        let is_bytes = matches!(self.content(*kind)?, b"u1" | b"|u1");
        let shape = [self.pickle.size(rows)?, self.pickle.size(columns)?];
        (is_bytes && is_row_major).then_some((self.content(bytes)?, shape))
    }

    fn get(&self, key: &str) -> Option<Id> {
        let Node::Dict(entries) = self.pickle.node(self.pickle.root()) else { return None };
        entries.iter().rev().find(|(name, _)| self.content(*name) == Some(key.as_bytes())).map(|(_, value)| *value)
    }

    fn list(&self, key: &str) -> Option<&[Id]> {
        self.pickle.elements(self.get(key)?)
    }

    fn call(&self, id: Id) -> Option<&Object> {
        if let Node::Object(object) = self.pickle.node(id) { Some(object) } else { None }
    }

    /// An integer; Python's booleans are 0 and 1.
    fn number(&self, id: Id) -> Option<i64> {
        match self.pickle.node(id) {
            Node::Int(number) => Some(*number),
            Node::Bool(value) => Some((*value).into()),
            _ => None,
        }
    }

    /// A short text, or bytes that are one.
    fn text(&self, id: Id) -> Option<&str> {
        const MAX_LEN: usize = 4096;
        let content = self.content(id).filter(|content| content.len() <= MAX_LEN)?;
        std::str::from_utf8(content).ok()
    }

    /// The content of a text or of bytes. Both are keys: Python 3 can read Python 2's texts as bytes.
    fn content(&self, id: Id) -> Option<&[u8]> {
        self.pickle.content(id, self.file)
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
        let dictionary = Dictionary::read(&file).unwrap();
        assert_eq!(dictionary.array("data").unwrap(), (&[1u8, 2, 3, 4, 5, 6][..], [2, 3]));
        assert_eq!(dictionary.numbers("labels").unwrap(), [7, 9]);
        assert!(
            dictionary.numbers("data").is_none()
                && dictionary.array("labels").is_none()
                && dictionary.texts("x", 1).is_none()
        );
        let file = names("label_names", &["cat", "dog"]);
        assert_eq!(Dictionary::read(&file).unwrap().texts("label_names", 2).unwrap(), ["cat", "dog"]);
        assert_eq!(Dictionary::read(&file).unwrap().texts("label_names", 3), None);
    }

    #[test]
    fn large_arrays_are_not_copied() {
        for pixel in [b'a', 0xff] {
            let file = batch(&[pixel; 2 * 3072], 3072, "labels", &[1, 2]);
            let dictionary = Dictionary::read(&file).unwrap();
            let (pixels, shape) = dictionary.array("data").unwrap();
            assert_eq!((pixels, shape), (&[pixel; 2 * 3072][..], [2, 3072]));
            assert!(file.as_ptr_range().contains(&pixels.as_ptr()));
        }
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
        assert_eq!(Dictionary::read(&file).unwrap().array("data").unwrap(), (&[1u8, 2, 3, 4, 5, 6][..], [2, 3]));
    }

    #[test]
    fn other_arrays_are_not_taken_for_bytes() {
        let file = batch(&[1, 2], 1, "labels", &[0, 0]);
        let replaced = |from: &[u8], to: &[u8]| {
            let at = file.windows(from.len()).position(|window| window == from).unwrap();
            [&file[..at], to, &file[at + from.len()..]].concat()
        };
        assert!(Dictionary::read(&replaced(b"u1", b"i1")).unwrap().array("data").is_none());
        assert!(Dictionary::read(&replaced(b"tb\x89T", b"tb\x88T")).unwrap().array("data").is_none());
    }

    #[test]
    fn damaged_files_are_rejected() {
        let file = batch(&[1, 2, 3, 4], 2, "labels", &[1, 2]);
        for length in 0..file.len() {
            assert!(Dictionary::read(&file[..length]).is_err(), "{length}");
        }
        for (at, byte) in (0..file.len()).flat_map(|at| [0, 0x52, 0x62, 0xff].map(|byte| (at, byte))) {
            let mut damaged = file.clone();
            damaged[at] = byte;
            // Neither panics.
            if let Ok(dictionary) = Dictionary::read(&damaged) {
                let _ = (dictionary.array("data"), dictionary.numbers("labels"));
            }
        }
    }
}
