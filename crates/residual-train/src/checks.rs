use crate::{Decay, TrainConfig, TrainError, Warmup};
use residual_data::Dataset;
use residual_model::{Norm, Part, Stem};
use std::fmt;

/// Something unusual about a training: it is allowed, but the user should know about it before the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// One of the dataset's [`notes`](residual_data::Dataset::notes).
    Data(String),
    /// The training set has fewer samples than a batch.
    SmallSet {
        /// The number of training samples.
        samples: usize,
        /// The configured batch size.
        batch_size: usize,
    },
    /// The stem is meant for images of 224x224 pixels, but the images are small.
    LargeStem {
        /// The name of the network.
        network: String,
        /// The height and width of the images.
        image: [usize; 2],
        /// The height and width of the last stage's output.
        output: [usize; 2],
    },
    /// Milestones of the schedule lie at or past the end of the training, so they have no effect.
    Milestones {
        /// These milestones.
        unused: Vec<usize>,
        /// The number of all milestones.
        count: usize,
        /// The number of iterations of the training.
        iterations: usize,
    },
    /// The training ends within its warm-up.
    WarmUp {
        /// The number of iterations of the warm-up.
        warm_up: usize,
        /// The number of iterations of the training.
        iterations: usize,
    },
    /// The network has more classes than the dataset.
    UnusedClasses {
        /// The number of classes of the network.
        network: usize,
        /// The number of classes of the dataset.
        data: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(note) => f.write_str(note),
            Self::SmallSet { samples, batch_size } => {
                write!(f, "the training set has only {samples} samples, less than the batch size of {batch_size}")
            }
            Self::LargeStem { network, image: [height, width], output } => write!(
                f,
                "the 7x7 stem of {network} is for large images: from {height}x{width} pixels, {}x{} are left after the \
                 last stage",
                output[0], output[1]
            ),
            Self::Milestones { unused, count, iterations } => {
                let never = if unused.len() == *count { "the learning rate never falls: " } else { "" };
                let unused: Vec<String> = unused.iter().map(ToString::to_string).collect();
                let (word, verb) = if unused.len() == 1 { ("milestone", "is") } else { ("milestones", "are") };
                let unused = unused.join(", ");
                write!(f, "{never}the {word} {unused} {verb} past the last of {iterations} iterations")
            }
            Self::WarmUp { warm_up, iterations } => write!(
                f,
                "the training ends within its warm-up: it has {iterations} iterations, and the warm-up {warm_up}"
            ),
            Self::UnusedClasses { network, data } => {
                write!(f, "the network has {network} classes, but the dataset only {data}")
            }
        }
    }
}

/// The image side below which the 7x7 stem is too large: the last stage's output would be smaller than 2x2.
const SMALLEST_FOR_LARGE_STEM: usize = 64;

impl TrainConfig {
    /// Checks that the network can learn from the dataset. Returns notes on what is allowed but unusual.
    ///
    /// # Errors
    /// If the dataset has fewer than two classes, or a batch norm would see a single value per channel, which it would
    /// turn into zero. This happens in a batch of one image if a layer's output has one pixel.
    pub fn check_data(&self, dataset: &Dataset) -> Result<Vec<Note>, TrainError> {
        let (samples, classes) = (dataset.train.len(), dataset.classes());
        if classes < 2 {
            let named = dataset.train.class_names().and_then(|names| names.into_iter().next());
            let named = named.map(|name| format!(", {name}")).unwrap_or_default();
            return Err(TrainError::Mismatch(format!(
                "the dataset has only one class{named}; a classifier needs at least two"
            )));
        }
        self.check_batch_norm(samples)?;
        let mut notes: Vec<Note> = dataset.notes.iter().cloned().map(Note::Data).collect();
        if samples < self.batch_size {
            notes.push(Note::SmallSet { samples, batch_size: self.batch_size });
        }
        if let Some(conv) = self.network.as_conv()
            && conv.stem == Stem::Large
            && let [_, height, width] = conv.image
            && height.min(width) < SMALLEST_FOR_LARGE_STEM
        {
            let summary = self.network.summary();
            let output = summary.rows().iter().rev().find_map(|row| match row.output[..] {
                [_, height, width] => Some([height, width]),
                _ => None,
            });
            let network = self.network.name().to_string();
            notes.push(Note::LargeStem { network, image: [height, width], output: output.unwrap_or([1, 1]) });
        }
        notes.extend(self.schedule_notes(samples));
        if self.network.classes > classes {
            notes.push(Note::UnusedClasses { network: self.network.classes, data: classes });
        }
        Ok(notes)
    }

    /// What the schedule has no effect on in a training on this many samples.
    fn schedule_notes(&self, samples: usize) -> Vec<Note> {
        let iterations = self.steps(samples.div_ceil(self.batch_size.max(1)));
        let mut notes = Vec::new();
        if let Decay::Step { milestones, .. } = &self.schedule.decay {
            let unused: Vec<usize> = milestones.iter().copied().filter(|&m| m >= iterations).collect();
            if !unused.is_empty() {
                notes.push(Note::Milestones { unused, count: milestones.len(), iterations });
            }
        }
        if let Warmup::Linear { iterations: warm_up } | Warmup::Constant { iterations: warm_up, .. } =
            self.schedule.warmup
            && warm_up >= iterations
        {
            notes.push(Note::WarmUp { warm_up, iterations });
        }
        notes
    }

    /// Fails if a trained batch norm would see a single value per channel in a batch of one image.
    fn check_batch_norm(&self, samples: usize) -> Result<(), TrainError> {
        let last = if samples.is_multiple_of(self.batch_size) { self.batch_size } else { samples % self.batch_size };
        if self.network.blocks.norm != Norm::Batch || last != 1 {
            return Ok(());
        }
        let is_trained = |layer: &str| !self.freeze.iter().any(|part| part.contains(layer));
        let summary = self.network.summary();
        let single = summary.rows().iter().find(|row| {
            !Part::Head.contains(&row.layer) && is_trained(&row.layer) && row.output[1..].iter().product::<usize>() == 1
        });
        let Some(row) = single else { return Ok(()) };
        let batch = if self.batch_size == 1 || samples == 1 {
            "a batch has one image".into()
        } else {
            format!("the last batch of {samples} images in batches of {} has one image", self.batch_size)
        };
        let other = (self.batch_size + 1..).find(|size| samples % size != 1).unwrap_or(2);
        let advice = if samples == 1 { "add images".into() } else { format!("try a batch size of {other}") };
        Err(TrainError::Conflict(format!(
            "batch norm needs more than one value per channel, but {batch}, and {} has one output per channel; {advice}",
            row.layer
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataName, Device, Training};
    use residual_data::{Augmentation, Images};
    use residual_model::NetworkConfig;

    fn dataset(samples: usize, classes: usize, side: usize) -> Dataset {
        let images = |n: usize| {
            let pixels = (0..n * side * side).map(|i| (i % 7) as f32).collect();
            Images::new([1, side, side], classes, pixels, (0..n).map(|i| (i % classes) as u16).collect()).unwrap()
        };
        Dataset::standardized(images(samples), images(classes))
    }

    fn config(name: &str, side: usize, classes: usize, batch_size: usize) -> TrainConfig {
        let config = TrainConfig::new(name.parse().unwrap(), DataName::Digits).unwrap();
        let network = NetworkConfig::new(name.parse().unwrap(), [1, side, side], classes).with_width(4);
        TrainConfig { batch_size, ..config.with_network(network) }
    }

    fn error(config: &TrainConfig, dataset: &Dataset) -> String {
        config.check_data(dataset).unwrap_err().to_string()
    }

    #[test]
    fn a_batch_norm_of_one_value_is_refused() {
        let data = dataset(9, 2, 32);
        let text = error(&config("resnet18", 32, 2, 4), &data);
        assert!(text.contains("the last batch of 9 images in batches of 4 has one image"), "{text}");
        assert!(text.ends_with("layer4.0.conv1 has one output per channel; try a batch size of 5"), "{text}");
        assert!(error(&config("resnet18", 32, 2, 1), &data).contains("a batch has one image"));
        // Larger features, a longer last batch, no norm, or a frozen last stage.
        assert!(config("resnet18", 64, 2, 4).check_data(&dataset(9, 2, 64)).is_ok());
        assert!(config("resnet18", 32, 2, 5).check_data(&data).is_ok());
        let mut without = config("resnet18", 32, 2, 4);
        without.network = without.network.with_norm(Norm::None);
        assert!(without.check_data(&data).is_ok());
        let frozen = TrainConfig { freeze: vec![Part::Stage(4)], ..config("resnet18", 32, 2, 4) };
        assert!(frozen.check_data(&data).is_ok());
        assert!(error(&config("dense-resnet4", 8, 2, 4), &dataset(9, 2, 8)).contains("has one output per channel"));
    }

    #[test]
    fn one_class_is_refused_and_odd_sizes_are_noted() {
        assert!(error(&config("resnet8", 8, 2, 4), &dataset(8, 1, 8)).contains("has only one class"));
        let notes = |config: TrainConfig, data: &Dataset| config.check_data(data).unwrap();
        let data = dataset(8, 2, 32);
        assert_eq!(notes(config("resnet8", 32, 2, 4), &data), []);
        let small = Note::SmallSet { samples: 8, batch_size: 9 };
        assert_eq!(notes(config("resnet8", 32, 2, 9), &data), [small]);
        assert_eq!(notes(config("resnet8", 32, 5, 4), &data), [Note::UnusedClasses { network: 5, data: 2 }]);
        let stem = Note::LargeStem { network: "resnet18".into(), image: [32, 32], output: [1, 1] };
        assert_eq!(notes(config("resnet18", 32, 2, 4), &data), [stem]);
    }

    #[test]
    fn schedules_that_never_act_are_noted() {
        let notes = |decay: Decay, warmup: Warmup, iterations: Option<usize>| {
            let mut config = config("resnet8", 8, 2, 4).with_epochs(10);
            (config.schedule.decay, config.schedule.warmup, config.iterations) = (decay, warmup, iterations);
            let notes = config.check_data(&dataset(8, 2, 8)).unwrap();
            notes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        let step = |milestones: &[usize]| Decay::Step { milestones: milestones.into(), factor: 0.1 };
        let linear = |iterations| Warmup::Linear { iterations };
        // Ten epochs of two batches.
        assert_eq!(notes(step(&[10, 19]), linear(19), None), none);
        let never = ["the learning rate never falls: the milestones 20, 30 are past the last of 20 iterations"];
        assert_eq!(notes(step(&[20, 30]), Warmup::None, None), never);
        assert_eq!(notes(step(&[10, 20]), Warmup::None, None), ["the milestone 20 is past the last of 20 iterations"]);
        let ends = ["the training ends within its warm-up: it has 8 iterations, and the warm-up 9"];
        assert_eq!(notes(Decay::Cosine, Warmup::Constant { lr: 0.1, iterations: 9 }, Some(8)), ends);
    }

    /// The soft targets of label smoothing and mixup have a column for each class of the network.
    #[test]
    fn a_network_with_more_classes_than_the_data_learns_from_soft_targets() {
        let data = dataset(8, 2, 8);
        let augmentation = Augmentation { label_smoothing: 0.1, mixup: 0.2, ..Augmentation::default() };
        let config = TrainConfig { augmentation, ..config("resnet8", 8, 5, 4) }.with_epochs(1);
        let outcome = Training::with_data(config, data, Device::flex()).unwrap().run().unwrap();
        assert!(outcome.train.loss.is_finite());
    }
}
