//! Access to the values of tensors in host memory.

use crate::{Buffer, Conv, PreparedWeight, SimdLevel, Weight, weighted_sum};
use burn::{
    backend::{Backend, TensorMetadata, tensor::FloatTensor},
    tensor::TensorData,
};
use std::{fmt, sync::Arc};

/// The axes of `[batch, channels, height, width]` in channels-last order.
pub(super) const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];

/// The inverse of [`CHANNELS_LAST`].
const CHANNELS_SECOND: [usize; 4] = [0, 3, 1, 2];

/// The values of a tensor, in channels-last order for rank 4 and in row-major order otherwise.
pub(super) fn channels_last_values<B: HostBackend>(tensor: FloatTensor<B>) -> TensorValues {
    match tensor.rank() {
        4 => B::values(B::float_permute(tensor, &CHANNELS_LAST)),
        _ => B::values(tensor),
    }
}

/// A tensor `[batch, channels, height, width]` from channels-last values; `shape` is
/// `[batch, height, width, channels]`.
pub(super) fn channels_last_tensor<B: HostBackend>(buffer: Buffer, shape: [usize; 4]) -> FloatTensor<B> {
    B::float_permute(B::tensor(buffer, &shape), &CHANNELS_SECOND)
}

/// The row-major values of a tensor, with shared ownership.
#[derive(Clone)]
pub(super) struct TensorValues(Arc<dyn AsRef<[f32]> + Send + Sync>);

impl TensorValues {
    pub(super) fn slice(&self) -> &[f32] {
        (*self.0).as_ref()
    }

    fn new(values: impl AsRef<[f32]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(values))
    }
}

impl fmt::Debug for TensorValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.slice().len())
    }
}

/// The values of a weight: `[out, in / groups, kernel height, kernel width]`, or `[in, out]` as in Burn's linear layers.
#[derive(Clone)]
pub(super) struct WeightValues {
    values: TensorValues,
    inputs_first: bool,
}

impl WeightValues {
    pub(super) fn new<B: HostBackend>(weight: FloatTensor<B>) -> Self {
        Self { inputs_first: weight.rank() == 2, values: B::values(weight) }
    }

    pub(super) fn weight(&self) -> Weight<'_> {
        let values = self.values.slice();
        if self.inputs_first { Weight::InputsFirst(values) } else { Weight::OutputsFirst(values) }
    }

    fn prepare(&self, level: SimdLevel, conv: &Conv, image: [usize; 2]) -> Arc<PreparedWeight> {
        Arc::new(PreparedWeight::new(level, conv, image, self.weight()))
    }
}

/// A backend whose tensors are in host memory.
pub(super) trait HostBackend: Backend {
    /// The values of a tensor in row-major order. The values of a contiguous tensor are not copied.
    fn values(tensor: FloatTensor<Self>) -> TensorValues;

    /// Lets `write` overwrite the values of a tensor, in row-major order, and returns the tensor and the result of `write`. The
    /// values are copied first if another tensor shares them.
    fn overwrite<R>(tensor: FloatTensor<Self>, write: impl FnOnce(&mut [f32]) -> R) -> (FloatTensor<Self>, R);

    /// A tensor from row-major values.
    fn tensor(buffer: Buffer, shape: &[usize]) -> FloatTensor<Self>;

    /// The weight prepared for inference on images of this height and width. The flex backend caches it until the weight is
    /// dropped.
    fn prepared(level: SimdLevel, weight: &FloatTensor<Self>, conv: &Conv, image: [usize; 2]) -> Arc<PreparedWeight> {
        WeightValues::new::<Self>(weight.clone()).prepare(level, conv, image)
    }

    /// Computes `(weights[0] · a + weights[1] · b) / divisor`.
    fn weighted_sum(a: FloatTensor<Self>, b: FloatTensor<Self>, weights: [f32; 2], divisor: f32) -> FloatTensor<Self> {
        let shape = a.shape();
        assert_eq!(shape, b.shape(), "the tensors of a weighted sum must have the same shape");
        let (a, b) = (Self::values(a), Self::values(b));
        Self::small_tensor(weighted_sum(a.slice(), b.slice(), weights, divisor), &shape)
    }

    /// A tensor from a vector of row-major values, such as the gradient of a weight.
    fn small_tensor(values: Vec<f32>, shape: &[usize]) -> FloatTensor<Self> {
        Self::float_from_data(TensorData::new(values, shape.to_vec()), &Default::default())
    }
}

#[cfg(feature = "flex")]
pub(crate) use flex::trim;

#[cfg(feature = "flex")]
mod flex {
    use super::{HostBackend, TensorValues, WeightValues};
    use crate::{Buffer, Conv, PreparedWeight, SimdLevel, strided::to_contiguous};
    use burn::{
        backend::{Flex, tensor::FloatTensor},
        tensor::{DType, Shape},
    };
    use burn_flex::{FlexTensor, Layout};
    use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};
    use std::{
        collections::HashMap,
        mem::MaybeUninit,
        sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    };

    /// The prepared weights, keyed by the address of the weight's storage. Entries cannot be stale: while the `Weak`
    /// exists, the address is not reused, and Burn copies the values to new storage before it changes them.
    static PREPARED: LazyLock<Mutex<HashMap<usize, CacheEntry>>> = LazyLock::new(Mutex::default);

    struct CacheEntry {
        weight: Weak<Bytes>,
        layout: Layout,
        prepared: Arc<PreparedWeight>,
    }

    fn prepared_weights() -> MutexGuard<'static, HashMap<usize, CacheEntry>> {
        PREPARED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the cache of prepared weights.
    pub(crate) fn trim() {
        prepared_weights().clear();
    }

    /// A contiguous tensor.
    struct Contiguous(FlexTensor);

    impl AsRef<[f32]> for Contiguous {
        fn as_ref(&self) -> &[f32] {
            let layout = self.0.layout();
            &self.0.storage()[layout.start_offset()..][..layout.shape().num_elements()]
        }
    }

    impl HostBackend for Flex {
        fn values(tensor: FloatTensor<Self>) -> TensorValues {
            if tensor.is_contiguous() {
                return TensorValues::new(Contiguous(tensor));
            }
            let layout = tensor.layout();
            let shape = layout.shape().to_vec();
            TensorValues::new(to_contiguous(tensor.storage(), layout.start_offset(), &shape, layout.strides()))
        }

        fn overwrite<R>(tensor: FloatTensor<Self>, write: impl FnOnce(&mut [f32]) -> R) -> (FloatTensor<Self>, R) {
            let mut tensor = if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() };
            let (start, len) = (tensor.layout().start_offset(), tensor.layout().num_elements());
            let result = write(&mut tensor.storage_mut()[start..][..len]);
            (tensor, result)
        }

        fn prepared(
            level: SimdLevel,
            weight: &FloatTensor<Self>,
            conv: &Conv,
            image: [usize; 2],
        ) -> Arc<PreparedWeight> {
            let data = weight.data_arc();
            let address = Arc::as_ptr(&data) as usize;
            if let Some(entry) = prepared_weights().get(&address)
                && entry.weight.strong_count() > 0
                && entry.layout == *weight.layout()
                && entry.prepared.fits(conv, image)
            {
                return entry.prepared.clone();
            }
            // A thread that waits for the preparation on others may run their tasks, so it must not hold the lock.
            let prepared = WeightValues::new::<Self>(weight.clone()).prepare(level, conv, image);
            let entry = CacheEntry {
                weight: Arc::downgrade(&data),
                layout: weight.layout().clone(),
                prepared: prepared.clone(),
            };
            let mut entries = prepared_weights();
            entries.retain(|_, entry| entry.weight.strong_count() > 0);
            entries.insert(address, entry);
            prepared
        }

        fn tensor(buffer: Buffer, shape: &[usize]) -> FloatTensor<Self> {
            let bytes = size_of_val(&*buffer);
            // SAFETY: the buffer has this many bytes, all of them are initialised, and it is `Send` and `Sync`, as
            // asserted below.
            let bytes = unsafe { Bytes::from_controller(Box::new(BufferAllocation(buffer)), bytes) };
            FlexTensor::new(bytes, Layout::contiguous(Shape::from(shape.to_vec())), DType::F32)
        }
    }

    /// A buffer that is the memory of Burn's `Bytes`. Dropping the `Bytes` makes the memory available for reuse.
    struct BufferAllocation(Buffer);

    // `Bytes` can be sent to and shared with other threads, whatever holds its memory, so the buffer must be as well.
    const _: () = {
        const fn assert_send_and_sync<T: Send + Sync>() {}
        assert_send_and_sync::<BufferAllocation>();
    };

    impl AllocationController for BufferAllocation {
        fn alloc_align(&self) -> usize {
            Buffer::ALIGNMENT
        }

        fn property(&self) -> AllocationProperty {
            AllocationProperty::Other
        }

        unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
            let values: &mut [f32] = &mut self.0;
            let bytes = size_of_val(values);
            // SAFETY: the slice covers the buffer and borrows it. The caller must not write uninitialised bytes.
            Ok(unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), bytes) })
        }

        fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
            let values: &[f32] = &self.0;
            // SAFETY: the slice covers the buffer and borrows it.
            Ok(unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) })
        }
    }
}

#[cfg(feature = "ndarray")]
mod ndarray {
    use super::{HostBackend, TensorValues};
    use crate::Buffer;
    use burn::{
        backend::{NdArray, tensor::FloatTensor},
        tensor::TensorData,
    };
    use burn_ndarray::NdArrayTensor;

    /// An `f32` tensor in standard (row-major) layout.
    struct Standard(NdArrayTensor);

    impl AsRef<[f32]> for Standard {
        fn as_ref(&self) -> &[f32] {
            match &self.0 {
                NdArrayTensor::F32(storage) => storage.view().to_slice().expect("the layout was checked"),
                _ => unreachable!("the data type was checked"),
            }
        }
    }

    impl HostBackend for NdArray {
        fn values(tensor: FloatTensor<Self>) -> TensorValues {
            let copy = match &tensor {
                NdArrayTensor::F32(storage) if storage.view().is_standard_layout() => None,
                NdArrayTensor::F32(storage) => Some(storage.view().iter().copied().collect::<Vec<f32>>()),
                _ => panic!("the kernels support only f32 tensors"),
            };
            match copy {
                None => TensorValues::new(Standard(tensor)),
                Some(copy) => TensorValues::new(copy),
            }
        }

        fn overwrite<R>(tensor: FloatTensor<Self>, write: impl FnOnce(&mut [f32]) -> R) -> (FloatTensor<Self>, R) {
            let NdArrayTensor::F32(storage) = tensor else { panic!("the kernels support only f32 tensors") };
            let mut array = storage.into_owned();
            if !array.is_standard_layout() {
                array = array.as_standard_layout().into_owned().into_shared();
            }
            let result = write(array.as_slice_mut().expect("the layout is standard"));
            (NdArrayTensor::F32(array.into()), result)
        }

        fn tensor(buffer: Buffer, shape: &[usize]) -> FloatTensor<Self> {
            NdArrayTensor::from_data(TensorData::new(buffer.to_vec(), shape.to_vec()))
        }
    }
}
