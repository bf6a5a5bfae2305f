//! Files of the weights of a small network.

use crate::torch::{Layout, Py, call, save, tensor, text};
use burn::tensor::Device;
use residual_model::{Network, NetworkConfig};
use residual_weights::{Checkpoint, LoadOptions, Loaded, WeightsError, load, tensors};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use zip::CompressionMethod;

pub(crate) const STORED: Layout = Layout::Zip(CompressionMethod::Stored);

pub(crate) fn config() -> NetworkConfig {
    NetworkConfig::new("resnet8".parse().unwrap(), [3, 16, 16], 10).with_width(4).with_shortcut("B".parse().unwrap())
}

pub(crate) fn network(seed: u64) -> Network {
    config().with_seed(seed).init(&Device::flex())
}

/// The state dictionary of the network with this seed, with a prefix before each name.
pub(crate) fn state(seed: u64, prefix: &str) -> Py {
    renamed(seed, |name| format!("{prefix}{name}"))
}

pub(crate) fn renamed(seed: u64, name: impl Fn(&str) -> String) -> Py {
    let tensors = tensors(&network(seed));
    let pairs = tensors.iter().map(|(n, (shape, values))| (text(&name(n)), tensor(shape, values)));
    Py::Updated(Box::new(call("collections", "OrderedDict", vec![])), pairs.collect())
}

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn save(&self, value: &Py) -> PathBuf {
        save(self.path(), "net.pth", value, STORED)
    }
}

pub(crate) fn read(path: &Path, options: &LoadOptions) -> Result<(Network, Loaded), WeightsError> {
    let mut ours = network(99);
    let loaded = Checkpoint::read(path).and_then(|checkpoint| load(&mut ours, &checkpoint, options))?;
    Ok((ours, loaded))
}

/// Fails unless the file gives the weights of the network with this seed. Returns what was left aside.
#[track_caller]
pub(crate) fn holds(path: &Path, seed: u64) -> Option<String> {
    let (ours, loaded) = read(path, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.tensors, 47);
    assert!(tensors(&ours) == tensors(&network(seed)));
    loaded.left_aside
}

#[track_caller]
pub(crate) fn refused(path: &Path) -> String {
    let Err(error) = read(path, &LoadOptions::default()) else { panic!("the file was accepted") };
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

pub(crate) fn scalar(value: f32) -> Py {
    tensor(&[], &[value])
}

/// Writes tensors of the network with this seed as a safetensors file.
pub(crate) fn write_safetensors(path: &Path, seed: u64, name: impl Fn(&str) -> Option<String>) {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&network(seed))
        .into_iter()
        .filter_map(|(n, (shape, values))| {
            Some((name(&n)?, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}
