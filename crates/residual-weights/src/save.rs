use crate::{Card, Format, WeightsError, load::transpose, names::torchvision};
use burn::module::Module;
use half::f16;
use residual_fetch::{Staged, temporary, write_atomic};
use residual_model::parameters::{for_each_parameter, to_burnpack};
use safetensors::{
    Dtype,
    tensor::{SafeTensorError, TensorView},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

/// The shape and values of every tensor of a network, with torchvision's names and PyTorch's layouts. The weights of
/// linear layers have shape `[out, in]`.
pub fn tensors<M: Module>(network: &M) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut tensors = BTreeMap::new();
    // `valid` brings the running statistics up to date with the last training step.
    for_each_parameter(&network.valid(), |parameter| {
        let values: Vec<f32> = parameter.data().iter::<f32>().collect();
        let entry = match parameter.shape[..] {
            [input, output] => (vec![output, input], transpose(&values, input, output)),
            _ => (parameter.shape.clone(), values),
        };
        tensors.insert(torchvision(parameter.path), entry);
    });
    tensors
}

/// How the weights of a network are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Full,
    /// 16-bit floats (IEEE 754 binary16), which halve the file. The weights are rounded to about three digits.
    Half,
}

impl Precision {
    /// The values, little-endian.
    ///
    /// # Errors
    /// The first finite value that would become infinite.
    pub(crate) fn encode(self, values: &[f32]) -> Result<Vec<u8>, f32> {
        let overflows = |value: &&f32| value.is_finite() && !f16::from_f32(**value).is_finite();
        match self {
            Self::Full => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Self::Half => match values.iter().find(overflows) {
                Some(value) => Err(*value),
                None => Ok(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()),
            },
        }
    }
}

/// Writes the weights of a network to a file whose extension selects the format: `.safetensors` with torchvision's
/// names and PyTorch's layouts, which PyTorch can load, or `.bpk`, Burn's own format, without parameter ids.
///
/// The file is replaced atomically. Networks with equal weights are written as identical bytes.
///
/// # Errors
/// If the name does not end in `.safetensors` or `.bpk`, or the file cannot be written.
pub fn save<M: Module>(network: &M, path: &Path) -> Result<(), WeightsError> {
    write_atomic(path, &serialized(network, path, Precision::Full)?).map_err(WeightsError::io("write", path))
}

/// Writes the weights of a network, as [`save`] does, and their card. Both replace existing files. Only safetensors can
/// have half precision.
///
/// The new files take their names only when both are complete on the disk. A card never stands beside weights that it
/// does not describe: if the program is killed in between, the weights have no card.
///
/// # Errors
/// The same as for [`save`], or if half precision is requested for burnpack or for weights that do not fit into it. The old
/// files are then unchanged, unless only the card cannot take its name: the new weights then have no card.
pub fn save_with_card<M: Module>(
    network: &M,
    card: &Card,
    path: &Path,
    precision: Precision,
) -> Result<(), WeightsError> {
    let card_path = Card::path(path);
    if card_path.is_dir() {
        return Err(WeightsError::io("replace", &card_path)(io::ErrorKind::IsADirectory.into()));
    }
    let weights =
        Staged::write(path, &serialized(network, path, precision)?).map_err(WeightsError::io("write", path))?;
    let card = Staged::write(&card_path, card.to_json().as_bytes()).map_err(WeightsError::io("write", &card_path))?;
    let old = temporary(&card_path);
    let has_old = match fs::rename(&card_path, &old) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(WeightsError::io("replace", &card_path)(error)),
    };
    if let Err(error) = weights.publish() {
        if has_old {
            let _ = fs::rename(&old, &card_path);
        }
        return Err(WeightsError::io("write", path)(error));
    }
    if has_old {
        let _ = fs::remove_file(&old);
    }
    card.publish().map_err(WeightsError::io("write", &card_path))
}

/// The content of a file of weights. The extension of `path` selects the format.
fn serialized<M: Module>(network: &M, path: &Path, precision: Precision) -> Result<Vec<u8>, WeightsError> {
    let bad = |error: String| WeightsError::bad_file(path, format!("cannot be written: {error}"));
    match (Format::to_write(path)?, precision) {
        (Format::Safetensors, _) => to_safetensors(network, precision).map_err(bad),
        (_, Precision::Half) => Err(bad("burnpack files have full precision".into())),
        _ => to_burnpack(&network.valid()).map_err(|error| bad(error.to_string())),
    }
}

fn to_safetensors<M: Module>(network: &M, precision: Precision) -> Result<Vec<u8>, String> {
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = tensors(network)
        .into_iter()
        .map(|(name, (shape, values))| {
            let bytes = precision.encode(&values).map_err(|value| overflow(&name, value))?;
            Ok((name, (shape, bytes)))
        })
        .collect::<Result<_, String>>()?;
    let dtype = match precision {
        Precision::Full => Dtype::F32,
        Precision::Half => Dtype::F16,
    };
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .map(|(name, (shape, data))| Ok((name.as_str(), TensorView::new(dtype, shape.clone(), data)?)))
        .collect();
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    views.and_then(|views| safetensors::serialize(views, Some(metadata))).map_err(|error| error.to_string())
}

/// Why a tensor cannot be written with half precision.
pub(crate) fn overflow(tensor: &str, value: f32) -> String {
    format!("{tensor} has the value {value}, which does not fit into a 16-bit float")
}
