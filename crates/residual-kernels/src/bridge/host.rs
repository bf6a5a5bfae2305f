//! Backends whose tensors lie in the program's memory.

use crate::{Buffer, Conv, Prepared, average};
use burn::{
    backend::{Backend, TensorMetadata, tensor::FloatTensor},
    tensor::TensorData,
};
use std::{fmt, sync::Arc};

pub(super) const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];
const CHANNELS_SECOND: [usize; 4] = [0, 3, 1, 2];

/// A tensor's numbers, channels-last.
pub(super) fn image_numbers<B: Host>(tensor: FloatTensor<B>) -> Numbers {
    match tensor.rank() {
        4 => B::numbers(B::float_permute(tensor, &CHANNELS_LAST)),
        _ => B::numbers(tensor),
    }
}

/// A tensor of numbers that lie channels-last.
pub(super) fn image_tensor<B: Host>(buffer: Buffer, shape: [usize; 4]) -> FloatTensor<B> {
    B::float_permute(B::tensor(buffer, &shape), &CHANNELS_SECOND)
}

/// A tensor's numbers, row-major, kept alive.
#[derive(Clone)]
pub(super) struct Numbers(Arc<dyn AsRef<[f32]> + Send + Sync>);

impl Numbers {
    pub(super) fn slice(&self) -> &[f32] {
        (*self.0).as_ref()
    }

    fn new(numbers: impl AsRef<[f32]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(numbers))
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers", self.slice().len())
    }
}

/// A backend whose tensors lie in the program's memory.
pub(super) trait Host: Backend {
    /// The numbers of a tensor, without copying them where they lie row-major.
    fn numbers(tensor: FloatTensor<Self>) -> Numbers;

    /// A tensor of these numbers, row-major.
    fn tensor(buffer: Buffer, shape: &[usize]) -> FloatTensor<Self>;

    /// A weight as inference reads it, kept for as long as the weight lives where the backend lets one know.
    fn prepared(weight: &FloatTensor<Self>, conv: &Conv) -> Arc<Prepared> {
        Arc::new(Prepared::new(conv, Self::numbers(weight.clone()).slice()))
    }

    /// `(1 - weight) · tensor + weight · other`
    fn averaged(tensor: FloatTensor<Self>, other: &[f32], weight: f64) -> FloatTensor<Self> {
        let shape = tensor.shape();
        Self::small_tensor(average(Self::numbers(tensor).slice(), other, weight), &shape)
    }

    /// A tensor of a few numbers.
    fn small_tensor(values: Vec<f32>, shape: &[usize]) -> FloatTensor<Self> {
        Self::float_from_data(TensorData::new(values, shape.to_vec()), &Default::default())
    }
}

#[cfg(feature = "flex")]
mod flex {
    use super::{Host, Numbers};
    use crate::{Buffer, Conv, Prepared, strided::gather};
    use burn::{
        backend::{Flex, tensor::FloatTensor},
        tensor::{DType, Shape},
    };
    use burn_flex::{FlexTensor, Layout};
    use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};
    use std::{
        collections::HashMap,
        mem::MaybeUninit,
        sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    };

    /// Prepared weights by the place of their numbers. A place cannot be taken by others while a `Weak` holds
    /// it, and Burn moves numbers to another before it changes them while one does: what is found is true.
    static PREPARED: LazyLock<Mutex<HashMap<usize, Entry>>> = LazyLock::new(Mutex::default);

    struct Entry {
        weight: Weak<Bytes>,
        layout: Layout,
        conv: Conv,
        prepared: Arc<Prepared>,
    }

    /// A contiguous tensor.
    struct Contiguous(FlexTensor);

    impl AsRef<[f32]> for Contiguous {
        fn as_ref(&self) -> &[f32] {
            let layout = self.0.layout();
            &self.0.storage()[layout.start_offset()..][..layout.shape().num_elements()]
        }
    }

    impl Host for Flex {
        fn numbers(tensor: FloatTensor<Self>) -> Numbers {
            if tensor.is_contiguous() {
                return Numbers::new(Contiguous(tensor));
            }
            let layout = tensor.layout();
            let shape = layout.shape().to_vec();
            Numbers::new(gather(tensor.storage(), layout.start_offset(), &shape, layout.strides()))
        }

        fn prepared(weight: &FloatTensor<Self>, conv: &Conv) -> Arc<Prepared> {
            let data = weight.data_arc();
            let mut entries = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
            let place = Arc::as_ptr(&data) as usize;
            if let Some(entry) = entries.get(&place)
                && entry.weight.strong_count() > 0
                && (&entry.layout, &entry.conv) == (weight.layout(), conv)
            {
                return entry.prepared.clone();
            }
            entries.retain(|_, entry| entry.weight.strong_count() > 0);
            let prepared = Arc::new(Prepared::new(conv, Self::numbers(weight.clone()).slice()));
            let (layout, conv) = (weight.layout().clone(), *conv);
            let entry = Entry { weight: Arc::downgrade(&data), layout, conv, prepared: prepared.clone() };
            entries.insert(place, entry);
            prepared
        }

        fn tensor(buffer: Buffer, shape: &[usize]) -> FloatTensor<Self> {
            let bytes = size_of_val(&*buffer);
            // SAFETY: all of a buffer is initialised, and that many bytes are in it.
            let bytes = unsafe { Bytes::from_controller(Box::new(Memory(buffer)), bytes) };
            FlexTensor::new(bytes, Layout::contiguous(Shape::from(shape.to_vec())), DType::F32)
        }
    }

    /// A buffer as Burn's bytes, which goes back to be used again when they are dropped.
    struct Memory(Buffer);

    impl AllocationController for Memory {
        fn alloc_align(&self) -> usize {
            Buffer::ALIGNMENT
        }

        fn property(&self) -> AllocationProperty {
            AllocationProperty::Other
        }

        unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
            let numbers: &mut [f32] = &mut self.0;
            let bytes = size_of_val(numbers);
            // SAFETY: these are the buffer's bytes, borrowed with it; the caller writes none that are uninitialised.
            Ok(unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), bytes) })
        }

        fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
            let numbers: &[f32] = &self.0;
            // SAFETY: these are the buffer's bytes, borrowed with it.
            Ok(unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) })
        }
    }
}

#[cfg(feature = "ndarray")]
mod ndarray {
    use super::{Host, Numbers};
    use crate::Buffer;
    use burn::{
        backend::{NdArray, tensor::FloatTensor},
        tensor::TensorData,
    };
    use burn_ndarray::NdArrayTensor;

    /// A tensor of `f32` in standard layout.
    struct Standard(NdArrayTensor);

    impl AsRef<[f32]> for Standard {
        fn as_ref(&self) -> &[f32] {
            match &self.0 {
                NdArrayTensor::F32(storage) => storage.view().to_slice().expect("the layout was checked"),
                _ => unreachable!("the number type was checked"),
            }
        }
    }

    impl Host for NdArray {
        fn numbers(tensor: FloatTensor<Self>) -> Numbers {
            let copy = match &tensor {
                NdArrayTensor::F32(storage) if storage.view().is_standard_layout() => None,
                NdArrayTensor::F32(storage) => Some(storage.view().iter().copied().collect::<Vec<f32>>()),
                _ => panic!("the kernels compute in f32"),
            };
            match copy {
                None => Numbers::new(Standard(tensor)),
                Some(copy) => Numbers::new(copy),
            }
        }

        fn tensor(buffer: Buffer, shape: &[usize]) -> FloatTensor<Self> {
            NdArrayTensor::from_data(TensorData::new(buffer.to_vec(), shape.to_vec()))
        }
    }
}
