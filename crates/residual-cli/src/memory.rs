//! Compares the memory that a command needs with that of the machine.

use crate::{Usage, model::Model};
use residual_backend::Backend;
use residual_train::Memory;

/// Whether the backend keeps tensors in main memory.
pub(crate) fn on_the_cpu(backend: Backend) -> bool {
    matches!(backend, Backend::Flex | Backend::NdArray | Backend::Cpu)
}

pub(crate) fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// The most values of a layer's output for one image. The kernels index its padded values by 32 bits.
const MAX_VALUES: usize = 1 << 31;

impl Model {
    /// Fails if predictions for a batch of images of the shape `[channels, height, width]` need more memory than there
    /// is. `remedy` names the flag that helps.
    pub(crate) fn check_memory(&self, image: [usize; 3], batch_size: usize, remedy: &str) -> anyhow::Result<()> {
        let name = self.card.network.name();
        let [_, height, width] = image;
        let summary = self.card.network.clone().with_image(image).summary();
        let largest = summary.rows().iter().map(|row| row.output.iter().product::<usize>()).max().unwrap_or_default();
        if largest > MAX_VALUES {
            return Err(Usage(format!(
                "{name} on an image of {width}x{height} pixels has a layer of {largest} values, more than the limit of \
                 {MAX_VALUES}; {remedy}"
            ))
            .into());
        }
        let memory = Memory::of_predictions(&self.card.network, image, batch_size);
        if !on_the_cpu(self.backend) || memory.total() <= Memory::available() {
            return Ok(());
        }
        let (needed, available) = (gibibytes(memory.total()), gibibytes(Memory::available()));
        let images = if batch_size == 1 { "an image".into() } else { format!("batches of {batch_size} images") };
        Err(Usage(format!(
            "{name} on {images} of {width}x{height} pixels needs about {needed} of memory, but only {available} are \
             available; {remedy}"
        ))
        .into())
    }
}
