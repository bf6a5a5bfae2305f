use crate::TrainConfig;
use residual_data::{DataError, DataName};
use residual_model::{Kernels, NetworkConfig, summary::SummaryRow};
use serde::Serialize;

/// The expected peak memory of a training run on a CPU, in bytes.
///
/// Activations are the results of the forward pass that the backward pass reads. Their size depends on the kernels:
///
/// - fused: the output of every convolution and every block
/// - recompute: the output of every block, and the outputs of the convolutions in one block
/// - reference, Burn's operations: the result of every operation
///
/// On CIFAR-10, with networks of 20, 56 and 110 layers and batches of 32 and 128, and with networks whose weights take most of
/// the memory, for each kind of optimizer, the measured peak is within 15 % of the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The program itself, with its libraries and threads.
    pub program: u64,
    /// The dataset's samples, if they are held in memory, and the prefetched batches.
    pub data: u64,
    /// The weights, their moving average, the best weights so far, and the copies made while a checkpoint is written.
    pub weights: u64,
    /// The gradients and the optimizer's state.
    pub optimizer: u64,
    /// The results of the forward pass that are kept for the backward pass.
    pub activations: u64,
    /// Burn's records of the layers' parameters and operations, which do not depend on their sizes.
    pub records: u64,
    /// Temporary buffers of the operations.
    pub workspace: u64,
}

/// The peak memory of a run with a tiny network and a tiny dataset.
const PROGRAM: u64 = 43 << 20;

/// The memory that the kernels and the allocator keep for reuse, unless the activations are less than half of it.
const WORKSPACE: u64 = 48 << 20;

/// Burn's records of a layer: the nodes of the graph, the parameters and their names, and the entries of the optimizer.
/// Measured with networks of 2,000 to 20,000 layers of one or eight channels.
const LAYER_RECORDS: u64 = 57 << 10;

/// The records of a layer's moving average.
const AVERAGE_RECORDS: u64 = 16 << 10;

/// The number of results per layer that Burn's operations keep, each as large as the layer's output.
const REFERENCE_COPIES: u64 = 3;

const FLOAT: u64 = size_of::<f32>() as u64;

impl Memory {
    /// The expected peak memory of a run with these kernels.
    ///
    /// # Errors
    /// If the dataset cannot be described, because its directory or its settings are invalid.
    pub fn expected(config: &TrainConfig, kernels: Kernels) -> Result<Self, DataError> {
        let summary = config.network.summary();
        let batch = config.batch_size.min(config.data.describe()?.train) as u64;
        let weights = FLOAT * summary.parameters();
        let state = config.optimizer.algorithm.state_values();
        let activations = Activations::of(summary.rows(), FLOAT * batch);
        let kept = match kernels {
            Kernels::Fused => activations.layers + activations.blocks,
            Kernels::Recompute => activations.blocks + activations.largest_block,
            Kernels::Reference => REFERENCE_COPIES * activations.layers,
        };
        let average = 3 * u64::from(config.ema.is_some());
        // Beside the activations: the weights, the best weights, and what is left of their records and of the optimizer's.
        let copies = weights * (5 + state + average);
        let (optimizer, workspace) = ((1 + state) * weights, WORKSPACE.min(2 * kept).max(2 * activations.largest));
        // While a checkpoint is written, there are no activations, but more copies: as measured, 7.2 + 3.3 state in all.
        let in_checkpoint = weights.saturating_mul(72 + 33 * state + 10 * average) / 10;
        let weights =
            copies.max(in_checkpoint.saturating_sub(optimizer.saturating_add(kept).saturating_add(workspace)));
        Ok(Self {
            program: PROGRAM,
            data: data(config, batch)?,
            weights,
            optimizer,
            activations: kept,
            records: summary.rows().len() as u64 * (LAYER_RECORDS + config.ema.map_or(0, |_| AVERAGE_RECORDS)),
            workspace,
        })
    }

    /// The expected peak memory of predictions for a batch of images of the shape `[channels, height, width]`. Three
    /// results of the forward pass exist at a time: the input of a block, the output of its main path, and that of its
    /// shortcut.
    pub fn of_predictions(network: &NetworkConfig, image: [usize; 3], batch_size: usize) -> Self {
        /// While an image is resized, there are 4 channels of numbers and 3 of bytes for each of its pixels.
        const RESIZING: u64 = 4 * FLOAT + 3;
        let summary = network.clone().with_image(image).summary();
        let largest = Activations::of(summary.rows(), FLOAT.saturating_mul(batch_size as u64)).largest;
        let [channels, pixels] = [image[0] as u64, (image[1] * image[2]) as u64];
        let batches = (3 * FLOAT * channels).saturating_mul(pixels).saturating_mul(batch_size as u64);
        Self {
            program: PROGRAM,
            data: batches.saturating_add(RESIZING * pixels),
            // The file, and the network.
            weights: 2 * FLOAT * summary.parameters(),
            optimizer: 0,
            activations: largest.saturating_mul(2),
            records: summary.rows().len() as u64 * LAYER_RECORDS,
            workspace: WORKSPACE.max(largest),
        }
    }

    /// The expected peak memory of a run on this many devices in main memory, which share the program and the dataset.
    pub fn on_devices(self, number: usize) -> Self {
        let all = |bytes: u64| bytes.saturating_mul(number as u64);
        Self {
            program: self.program,
            data: self.data,
            weights: all(self.weights),
            optimizer: all(self.optimizer),
            activations: all(self.activations),
            records: all(self.records),
            workspace: all(self.workspace),
        }
    }

    /// The sum of all parts.
    pub fn total(&self) -> u64 {
        let Self { program, data, weights, optimizer, activations, records, workspace } = self;
        [program, data, weights, optimizer, activations, records, workspace]
            .into_iter()
            .fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// By how much this number of bytes is too large: `3.2 GiB of memory, but only 1.0 GiB are available`. `None` if
    /// there is enough memory.
    pub fn shortage(bytes: u64) -> Option<String> {
        let available = Self::available();
        let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        (bytes > available).then(|| {
            format!("{:.1} GiB of memory, but only {:.1} GiB are available", gibibytes(bytes), gibibytes(available))
        })
    }

    /// The memory of this machine, in bytes, or the process's cgroup limit if that is lower. `u64::MAX` if the system
    /// does not say.
    pub fn available() -> u64 {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        if system.total_memory() == 0 {
            return u64::MAX;
        }
        system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory.min(system.total_memory()))
    }
}

fn data(config: &TrainConfig, batch: u64) -> Result<u64, DataError> {
    let shape = config.data.describe()?.shape;
    let values = shape.iter().product::<usize>() as u64;
    let (samples, bytes) = match config.data.name {
        DataName::Digits => (1797, FLOAT),
        DataName::Synthetic => (400, FLOAT),
        DataName::Cifar10 | DataName::Cifar100 => (60_000, 1),
        DataName::Mnist | DataName::FashionMnist => (70_000, 1),
        DataName::Folder => (0, 0),
    };
    // Three batches: two prefetched, one in use.
    Ok(samples * values * bytes + 3 * FLOAT * values * batch)
}

/// The sizes of a network's layer outputs, in bytes per batch.
struct Activations {
    /// All weighted layers, except those whose outputs the kernels recompute.
    layers: u64,
    /// All blocks and the stem.
    blocks: u64,
    /// The largest layer.
    largest: u64,
    /// The layers of the largest block.
    largest_block: u64,
}

impl Activations {
    fn of(rows: &[SummaryRow], scale: u64) -> Self {
        let block = |row: &SummaryRow| row.layer.rsplit_once('.').map_or(row.layer.clone(), |(block, _)| block.into());
        let size = |row: &SummaryRow| scale.saturating_mul(row.output.iter().product::<usize>() as u64);
        let mut activations = Self { layers: 0, blocks: 0, largest: 0, largest_block: 0 };
        for block in rows.chunk_by(|a, b| block(a) == block(b)) {
            let layers = block.iter().filter(|row| !is_cheap(row)).map(size).sum::<u64>();
            // A projection shortcut has an output of its own, in addition to the block's.
            let shortcut = block.iter().filter(|row| row.layer.ends_with(".shortcut")).map(size).sum::<u64>();
            activations.layers += layers;
            activations.blocks += shortcut + block.iter().map(size).next_back().unwrap_or_default();
            activations.largest = activations.largest.max(block.iter().map(size).max().unwrap_or_default());
            activations.largest_block = activations.largest_block.max(layers);
        }
        activations
    }
}

/// Whether a layer, such as the stem, takes so few multiply-adds per output value that the kernels recompute its
/// output.
fn is_cheap(row: &SummaryRow) -> bool {
    row.multiply_adds <= 32 * row.output.iter().product::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_of_a_small_network_match_a_count_by_hand() {
        let config = TrainConfig::new("resnet8".parse().unwrap(), DataName::Cifar10).unwrap();
        let config = TrainConfig { batch_size: 2, ..config };
        let memory = |kernels| Memory::expected(&config, kernels).unwrap();
        // Outputs of 16x32x32, 32x16x16 and 64x8x8 from two layers and a block each, the stem's block, and 10 scores.
        let [a, b, c] = [16 * 1024, 32 * 256, 64 * 64].map(|n: u64| 4 * 2 * n);
        let head = 4 * 2 * 10;
        assert_eq!(memory(Kernels::Fused).activations, a + 3 * (a + b + c) + 2 * head);
        assert_eq!(memory(Kernels::Recompute).activations, 2 * a + b + c + head + 2 * a);
        assert_eq!(memory(Kernels::Fused).data, 60_000 * 3072 + 3 * 2 * 4 * 3072);
        assert!(Memory::available() > 1 << 28);
    }

    /// Measured peaks of predictions for one image: 266 MB and 864 MB.
    #[test]
    fn the_expected_memory_of_predictions_is_that_measured() {
        let network = residual_model::NetworkConfig::new("resnet8".parse().unwrap(), [1, 8, 8], 10);
        for (side, measured) in [(1024, 266), (2048, 864)] {
            let expected = Memory::of_predictions(&network, [1, side, side], 1).total() >> 20;
            assert!(expected.abs_diff(measured) * 5 < measured, "{side}: {expected} MiB");
        }
        assert!(Memory::of_predictions(&network, [1, 8192, 8192], 1 << 24).total() > 1 << 56);
    }

    #[test]
    fn depth_and_batch_size_increase_the_total_and_recomputation_reduces_it() {
        let total = |net: &str, batch_size, kernels| {
            let config = TrainConfig::new(net.parse().unwrap(), DataName::Cifar10).unwrap();
            Memory::expected(&TrainConfig { batch_size, ..config }, kernels).unwrap().total()
        };
        let base = total("resnet20", 128, Kernels::Fused);
        assert!(total("resnet56", 128, Kernels::Fused) > base && total("resnet20", 256, Kernels::Fused) > base);
        assert!(total("resnet20", 128, Kernels::Recompute) < base && total("resnet20", 128, Kernels::Reference) > base);
    }
}
