//! Writes files as `torch.save` does. Their pickles have protocol 2, like PyTorch's.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A Python value.
#[derive(Clone)]
pub(crate) enum Py {
    None,
    Int(i32),
    Float(f64),
    Text(String),
    List(Vec<Py>),
    Tuple(Vec<Py>),
    Dict(Vec<(Py, Py)>),
    /// The module and the name of a class or function.
    Global(&'static str, &'static str),
    /// A call with its arguments.
    Call(Box<Py>, Vec<Py>),
    /// An object without `__init__` called, and its attributes.
    Built(Box<Py>, Box<Py>),
    /// An object, and values appended to it.
    Extended(Box<Py>, Vec<Py>),
    /// An object, and values set by key.
    Updated(Box<Py>, Vec<(Py, Py)>),
    Tensor(View),
}

/// A view of a storage of floats.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) values: Vec<f32>,
    pub(crate) offset: i32,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// The layout of a file.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    Zip(CompressionMethod),
    /// A stored zip archive with the end records of zip64, whose name in it has this many characters.
    Zip64(usize),
    Legacy,
}

pub(crate) fn text(text: &str) -> Py {
    Py::Text(text.into())
}

pub(crate) fn dict<'a>(pairs: impl IntoIterator<Item = (&'a str, Py)>) -> Py {
    Py::Dict(pairs.into_iter().map(|(key, value)| (text(key), value)).collect())
}

pub(crate) fn call(module: &'static str, name: &'static str, args: Vec<Py>) -> Py {
    Py::Call(Box::new(Py::Global(module, name)), args)
}

/// A contiguous tensor.
pub(crate) fn tensor(shape: &[usize], values: &[f32]) -> Py {
    let strides = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    Py::Tensor(View { values: values.into(), offset: 0, shape: shape.into(), strides })
}

/// Writes a file and returns its path.
pub(crate) fn save(folder: &Path, name: &str, value: &Py, layout: Layout) -> PathBuf {
    let path = folder.join(name);
    let mut pickler = Pickler { out: vec![0x80, 2], storages: Vec::new(), legacy: matches!(layout, Layout::Legacy) };
    pickler.write(value);
    pickler.out.push(b'.');
    match layout {
        Layout::Zip(method) => zip(&path, &pickler.entries("archive"), method),
        Layout::Zip64(length) => std::fs::write(&path, zip64(&pickler.entries(&"a".repeat(length)))).unwrap(),
        Layout::Legacy => {
            let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
            file.extend(b"\x80\x02}X\x0d\0\0\0little_endian\x88s.");
            file.extend(pickler.out);
            file.extend(b"\x80\x02](");
            let mut data = Vec::new();
            for (i, values) in pickler.storages.iter().enumerate() {
                let key = i.to_string();
                file.extend([&b"X"[..], &(key.len() as u32).to_le_bytes(), key.as_bytes()].concat());
                data.extend((values.len() as u64).to_le_bytes());
                data.extend(bytes(values));
            }
            file.extend(b"e.");
            file.extend(data);
            std::fs::write(&path, file).unwrap();
        }
    }
    path
}

/// Writes a zip archive.
pub(crate) fn zip(path: &Path, entries: &[(String, Vec<u8>)], method: CompressionMethod) {
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    for (name, data) in entries {
        archive.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(data).unwrap();
    }
    archive.finish().unwrap();
}

/// A zip archive as PyTorch's writer makes it: stored entries, and the end records of zip64 whatever the size.
fn zip64(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    let push16 = |out: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    let push32 = |out: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    let push64 = |out: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    for (name, data) in entries {
        let (start, size) = (file.len() as u32, data.len() as u32);
        file.extend(b"PK\x03\x04");
        push16(&mut file, &[0, 0, 0, 0, 0]);
        push32(&mut file, &[crc32(data), size, size]);
        push16(&mut file, &[name.len() as u16, 0]);
        file.extend([name.as_bytes(), data].concat());
        directory.extend(b"PK\x01\x02");
        push16(&mut directory, &[0, 0, 0, 0, 0, 0]);
        push32(&mut directory, &[crc32(data), size, size]);
        push16(&mut directory, &[name.len() as u16, 0, 0, 0, 0]);
        push32(&mut directory, &[0, start]);
        directory.extend(name.as_bytes());
    }
    let (start, size, count) = (file.len() as u64, directory.len() as u64, entries.len() as u64);
    file.extend(directory);
    let end = file.len() as u64;
    file.extend(b"PK\x06\x06");
    push64(&mut file, &[44]);
    push16(&mut file, &[45, 45]);
    push32(&mut file, &[0, 0]);
    push64(&mut file, &[count, count, size, start]);
    file.extend(b"PK\x06\x07");
    push32(&mut file, &[0]);
    push64(&mut file, &[end]);
    push32(&mut file, &[1]);
    file.extend(b"PK\x05\x06");
    push16(&mut file, &[0, 0, count as u16, count as u16]);
    push32(&mut file, &[size as u32, start as u32]);
    push16(&mut file, &[0]);
    file
}

/// The checksum of zip archives.
fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

struct Pickler {
    out: Vec<u8>,
    storages: Vec<Vec<f32>>,
    legacy: bool,
}

impl Pickler {
    /// The entries of an archive with this name.
    fn entries(&self, archive: &str) -> Vec<(String, Vec<u8>)> {
        let mut entries = vec![(format!("{archive}/data.pkl"), self.out.clone())];
        entries.push((format!("{archive}/byteorder"), b"little".into()));
        entries.extend(self.storages.iter().enumerate().map(|(i, v)| (format!("{archive}/data/{i}"), bytes(v))));
        entries
    }

    fn write(&mut self, value: &Py) {
        match value {
            Py::None => self.out.push(b'N'),
            Py::Int(value) => self.out.extend([&b"J"[..], &value.to_le_bytes()].concat()),
            Py::Float(value) => self.out.extend([&b"G"[..], &value.to_be_bytes()].concat()),
            Py::Text(text) => {
                self.out.extend([&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat());
            }
            Py::List(items) => {
                self.out.extend(b"](");
                items.iter().for_each(|item| self.write(item));
                self.out.push(b'e');
            }
            Py::Tuple(items) => {
                self.out.push(b'(');
                items.iter().for_each(|item| self.write(item));
                self.out.push(b't');
            }
            Py::Dict(pairs) => {
                self.out.push(b'}');
                self.set(pairs);
            }
            Py::Global(module, name) => self.out.extend(format!("c{module}\n{name}\n").into_bytes()),
            Py::Call(function, args) => {
                self.write(function);
                self.write(&Py::Tuple(args.clone()));
                self.out.push(b'R');
            }
            Py::Built(class, state) => {
                self.write(class);
                self.out.extend(b")\x81");
                self.write(state);
                self.out.push(b'b');
            }
            Py::Extended(object, items) => {
                self.write(object);
                self.out.push(b'(');
                items.iter().for_each(|item| self.write(item));
                self.out.push(b'e');
            }
            Py::Updated(object, pairs) => {
                self.write(object);
                self.set(pairs);
            }
            Py::Tensor(view) => self.tensor(view),
        }
    }

    fn set(&mut self, pairs: &[(Py, Py)]) {
        self.out.push(b'(');
        for (key, value) in pairs {
            self.write(key);
            self.write(value);
        }
        self.out.push(b'u');
    }

    fn tensor(&mut self, view: &View) {
        let mut id = vec![
            text("storage"),
            Py::Global("torch", "FloatStorage"),
            text(&self.storages.len().to_string()),
            text("cuda:0"),
            Py::Int(view.values.len() as i32),
        ];
        if self.legacy {
            id.push(Py::None);
        }
        self.storages.push(view.values.clone());
        let sizes = |sizes: &[usize]| Py::Tuple(sizes.iter().map(|size| Py::Int(*size as i32)).collect());
        let hooks = call("collections", "OrderedDict", vec![]);
        self.write(&Py::Global("torch._utils", "_rebuild_tensor_v2"));
        self.out.push(b'(');
        self.write(&Py::Tuple(id));
        self.out.push(b'Q');
        for arg in [Py::Int(view.offset), sizes(&view.shape), sizes(&view.strides)] {
            self.write(&arg);
        }
        self.out.push(0x89);
        self.write(&hooks);
        self.out.extend(b"tR");
    }
}
