use half::{bf16, f16};

/// The type of a tensor's elements in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F16,
    BF16,
    F32,
    F64,
    /// A type that is not used for weights, such as `I64`.
    Other {
        name: String,
        /// Bytes per element.
        size: usize,
    },
}

impl Dtype {
    /// Bytes per element.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other { size, .. } => *size,
        }
    }

    /// # Errors
    /// If this is not a floating-point type of 16, 32 or 64 bits.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Other { name, .. } => Err(format!("its dtype is {name}; expected F16, BF16, F32 or F64")),
            _ => Ok(()),
        }
    }

    /// Converts little-endian values.
    ///
    /// # Errors
    /// If this is not a floating-point type of 16, 32 or 64 bits.
    pub(crate) fn to_f32(&self, bytes: &[u8]) -> Result<Vec<f32>, String> {
        match self {
            Self::F16 => Ok(convert(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Self::BF16 => Ok(convert(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Self::F32 => Ok(convert(bytes, f32::from_le_bytes)),
            Self::F64 => Ok(convert(bytes, |b| f64::from_le_bytes(b) as f32)),
            Self::Other { .. } => self.check().map(|()| Vec::new()),
        }
    }
}

impl From<safetensors::Dtype> for Dtype {
    fn from(dtype: safetensors::Dtype) -> Self {
        match dtype {
            safetensors::Dtype::F16 => Self::F16,
            safetensors::Dtype::BF16 => Self::BF16,
            safetensors::Dtype::F32 => Self::F32,
            safetensors::Dtype::F64 => Self::F64,
            other => Self::Other { name: format!("{other:?}"), size: other.bitsize().div_ceil(8) },
        }
    }
}

fn convert<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| f(chunk)).collect()
}
