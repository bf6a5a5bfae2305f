//! Compares the memory that a command needs with that of the machine.

use crate::{Usage, model::Model};
use residual_train::Memory;

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
        let shortage = Memory::shortage(memory.total()).filter(|_| self.backend.uses_main_memory());
        let Some(shortage) = shortage else { return Ok(()) };
        let images = if batch_size == 1 { "an image".into() } else { format!("batches of {batch_size} images") };
        Err(Usage(format!("{name} on {images} of {width}x{height} pixels needs about {shortage}; {remedy}")).into())
    }
}
