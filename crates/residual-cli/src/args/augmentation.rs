use super::{Reset, or_word};
use residual_data::Augmentation;

/// Random augmentation of the training images.
#[derive(Clone, clap::Args)]
#[group(id = "augmentation", multiple = true)]
pub(crate) struct AugmentationArgs {
    /// Pad each side with this many zeros, then crop at a random position
    #[arg(long, help_heading = "Augmentation", value_name = "PIXELS")]
    pub(crate) crop_padding: Option<usize>,
    /// Flip horizontally with probability 1/2
    #[arg(long, help_heading = "Augmentation", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) flip: Option<bool>,
    /// Crop a random part, at least this fraction of the area, and resize it
    ///
    /// none: do not.
    #[arg(long, help_heading = "Augmentation", value_name = "FRACTION", allow_negative_numbers = true,
        value_parser = or_word::<f64>("none"))]
    pub(crate) resized_crop: Option<Reset<f64>>,
    /// Set a random square with this side to zero
    #[arg(long, help_heading = "Augmentation", value_name = "PIXELS")]
    pub(crate) cutout: Option<usize>,
    /// Fill a random rectangle with noise, with this probability
    #[arg(long, help_heading = "Augmentation", value_name = "PROBABILITY", allow_negative_numbers = true)]
    pub(crate) erase: Option<f64>,
    /// Mixup: mix pairs of images by fractions drawn from Beta(ALPHA, ALPHA)
    #[arg(long, help_heading = "Augmentation", value_name = "ALPHA", allow_negative_numbers = true)]
    pub(crate) mixup: Option<f64>,
    /// Label smoothing: move EPSILON of a label's probability to all classes
    ///
    /// Each class gets EPSILON / classes, the true class too.
    #[arg(long, help_heading = "Augmentation", value_name = "EPSILON", allow_negative_numbers = true)]
    pub(crate) label_smoothing: Option<f64>,
}

impl AugmentationArgs {
    /// Overrides the settings whose flags are set.
    pub(crate) fn apply(&self, augmentation: &Augmentation) -> Augmentation {
        Augmentation {
            crop: self.crop_padding.unwrap_or(augmentation.crop),
            flip: self.flip.unwrap_or(augmentation.flip),
            resized_crop: Reset::or(self.resized_crop.as_ref(), augmentation.resized_crop),
            cutout: self.cutout.unwrap_or(augmentation.cutout),
            erase: self.erase.unwrap_or(augmentation.erase),
            mixup: self.mixup.unwrap_or(augmentation.mixup),
            label_smoothing: self.label_smoothing.unwrap_or(augmentation.label_smoothing),
        }
    }
}
