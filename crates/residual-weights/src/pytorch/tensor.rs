use super::{Id, Node, Object, Pickle, storage::Storages};
use crate::dtype::Dtype;
use residual_data::shown;
use std::sync::Arc;

/// A tensor of a PyTorch file: a view of a storage.
#[derive(Clone)]
pub(crate) struct Tensor {
    storages: Arc<Storages>,
    view: Arc<View>,
}

/// The element `[i, j, ..]` is the storage's element `offset + i * strides[0] + j * strides[1] + ..`.
#[derive(Clone, PartialEq)]
pub(super) struct View {
    storage: StorageRef,
    offset: usize,
    shape: Arc<[usize]>,
    strides: Vec<usize>,
}

/// A storage as a pickle describes it.
#[derive(Clone, PartialEq)]
pub(super) struct StorageRef {
    pub(super) key: String,
    pub(super) dtype: Dtype,
    /// The number of elements.
    len: usize,
    /// The index of the first element, if the storage is a part of the storage with this key.
    start: usize,
}

/// The tensor that a call in a pickle creates.
#[derive(Clone)]
pub(super) enum Made {
    View(Arc<View>),
    /// A tensor without an array of values in the file, and its kind, such as `sparse`.
    Other(Arc<str>),
}

impl Made {
    /// The tensor that an object of a pickle stands for, if it is a tensor.
    pub(super) fn of(pickle: &Pickle, id: Id) -> Option<Self> {
        let Node::Object(object) = pickle.node(id) else { return None };
        Self::by_call(pickle, object.class, object, 0)
    }

    fn by_call(pickle: &Pickle, function: Id, call: &Object, depth: usize) -> Option<Self> {
        const MAX_DEPTH: usize = 8;
        let args = pickle.elements(call.args)?;
        let (module, name) = pickle.global(function)?;
        if !module.starts_with("torch") || depth > MAX_DEPTH {
            return None;
        }
        let inner = |id: &Id| match pickle.node(*id) {
            Node::Object(object) => Self::by_call(pickle, object.class, object, depth + 1),
            _ => None,
        };
        match name {
            "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" => {
                let view = View::of(pickle, args, name == "_rebuild_tensor_v3");
                Some(view.map_or_else(|| Self::Other("damaged".into()), |view| Self::View(Arc::new(view))))
            }
            "_rebuild_parameter" | "_rebuild_parameter_with_state" | "Parameter" | "Variable" => {
                args.first().and_then(inner)
            }
            "_rebuild_from_type_v2" => {
                let [function, _class, args, ..] = args[..] else { return None };
                let call = Object { class: function, args, state: None, items: Vec::new(), pairs: Vec::new() };
                Self::by_call(pickle, function, &call, depth + 1)
            }
            "_rebuild_qtensor" => Some(Self::Other("quantized".into())),
            _ => {
                let kind = shown(name.strip_prefix("_rebuild_")?).replace("_tensor", "").replace("_no_storage", "");
                Some(Self::Other(kind.replace('_', " ").into()))
            }
        }
    }
}

impl View {
    /// The arguments are the storage, the offset, the shape and the strides. The seventh argument of
    /// `_rebuild_tensor_v3` is the dtype, because its storages are bytes.
    fn of(pickle: &Pickle, args: &[Id], has_dtype: bool) -> Option<Self> {
        const MAX_RANK: usize = 16;
        let [storage, offset, shape, strides, ..] = args[..] else { return None };
        let mut storage = StorageRef::of(pickle, storage)?;
        if has_dtype {
            let (_, name) = pickle.global(*args.get(6)?)?;
            let bytes = storage.len.checked_mul(storage.dtype.size())?;
            storage.dtype = dtype(name)?;
            storage.len = bytes / storage.dtype.size();
        }
        let sizes = |id| {
            let sizes = pickle.elements(id).filter(|sizes| sizes.len() <= MAX_RANK)?;
            sizes.iter().map(|&id| pickle.size(id)).collect::<Option<Vec<_>>>()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        let offset = pickle.size(offset)?.checked_add(storage.start)?;
        (shape.len() == strides.len()).then(|| Self { storage, offset, shape: shape.into(), strides })
    }

    /// The number of elements from the first to the last one, in the order of the storage.
    fn span(&self) -> Option<usize> {
        let mut steps = self.shape.iter().zip(&self.strides);
        steps.try_fold(1usize, |span, (size, stride)| span.checked_add((size - 1).checked_mul(*stride)?))
    }
}

const LARGE: &str = "its shape is too large for its storage";

impl Tensor {
    pub(super) fn new(view: Arc<View>, storages: Arc<Storages>) -> Self {
        Self { storages, view }
    }

    pub(crate) fn shape(&self) -> &Arc<[usize]> {
        &self.view.shape
    }

    /// Whether both are the same view of the same storage.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.storages, &other.storages) && self.view == other.view
    }

    /// Reads the values in row-major order, converted to f32.
    ///
    /// # Errors
    /// If the view is larger than its storage, repeats its elements more often than weights do, its dtype is not a
    /// floating-point type, or the file is damaged.
    pub(crate) fn values(&self) -> Result<Vec<f32>, String> {
        /// A view may have this number of elements however few it repeats, and repeat them this many times.
        const MAX_REPEATED: usize = 1 << 20;
        const MAX_TIMES: usize = 16;
        let View { storage, offset, shape, strides } = &*self.view;
        storage.dtype.check()?;
        let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).ok_or(LARGE)?;
        if elements == 0 {
            return Ok(Vec::new());
        }
        let span = self.view.span().filter(|span| {
            let end = offset.checked_sub(storage.start).and_then(|offset| offset.checked_add(*span));
            end.is_some_and(|end| end <= storage.len)
        });
        let span = span.ok_or("it is larger than its storage")?;
        if elements > span.saturating_mul(MAX_TIMES).max(MAX_REPEATED) {
            return Err(LARGE.into());
        }
        let bytes = |elements: usize| (elements as u64).checked_mul(storage.dtype.size() as u64).ok_or(LARGE);
        let window = self.storages.read(&storage.key, bytes(*offset)?, bytes(span)?)?;
        let is_row_major = {
            let mut step = 1;
            shape.iter().zip(strides).rev().all(|(&size, &stride)| {
                let fits = size == 1 || stride == step;
                step *= size;
                fits
            })
        };
        if is_row_major {
            return storage.dtype.to_f32(&window);
        }
        let size = storage.dtype.size();
        let mut indices = vec![0; shape.len()];
        let mut at = 0;
        let mut gathered = Vec::with_capacity(elements * size);
        for _ in 0..elements {
            gathered.extend_from_slice(&window[at * size..][..size]);
            for axis in (0..shape.len()).rev() {
                indices[axis] += 1;
                // The stride of an axis of one element may be any number.
                at = at.wrapping_add(strides[axis]);
                if indices[axis] < shape[axis] {
                    break;
                }
                at = at.wrapping_sub(strides[axis].wrapping_mul(shape[axis]));
                indices[axis] = 0;
            }
        }
        storage.dtype.to_f32(&gathered)
    }
}

impl StorageRef {
    /// The persistent id is `("storage", type, key, location, elements)`. In the legacy layout, a sixth element is
    /// `None` or the part of the storage, `(key, first element, elements)`.
    pub(super) fn of(pickle: &Pickle, id: Id) -> Option<Self> {
        let Node::Persistent(id) = pickle.node(id) else { return None };
        let [_, class, key, _, len, ref rest @ ..] = pickle.elements(*id)?[..] else { return None };
        let (_, class) = pickle.global(class)?;
        let dtype = dtype(class.strip_suffix("Storage").unwrap_or(class))?;
        let (key, len) = (Self::key(pickle, key)?, pickle.size(len)?);
        match rest.first().and_then(|part| pickle.elements(*part)) {
            Some(&[_, start, part]) => Some(Self { key, dtype, len: pickle.size(part)?, start: pickle.size(start)? }),
            _ => Some(Self { key, dtype, len, start: 0 }),
        }
    }

    /// The key of a storage, a text or a number.
    pub(super) fn key(pickle: &Pickle, id: Id) -> Option<String> {
        const MAX_LEN: usize = 256;
        let text = pickle.text(id).filter(|text| text.len() <= MAX_LEN).map(String::from);
        text.or_else(|| pickle.size(id).map(|number| number.to_string()))
    }
}

/// The dtype of a storage class of PyTorch, named without `Storage`, or of a `torch.dtype`.
fn dtype(name: &str) -> Option<Dtype> {
    let size = match name {
        "Half" | "float16" => return Some(Dtype::F16),
        "BFloat16" | "bfloat16" => return Some(Dtype::BF16),
        "Float" | "float32" => return Some(Dtype::F32),
        "Double" | "float64" => return Some(Dtype::F64),
        "Byte" | "Char" | "Bool" | "Untyped" | "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" => 1,
        "Short" => 2,
        "Int" | "QInt32" => 4,
        "Long" | "ComplexFloat" => 8,
        "ComplexDouble" => 16,
        name if name.starts_with("float8") => return Some(Dtype::Other { name: "float8".into(), size: 1 }),
        "uint16" => 2,
        "uint32" => 4,
        "uint64" => 8,
        _ => return None,
    };
    Some(Dtype::Other { name: name.into(), size })
}
