//! Transfers weights to another task. A network learns the digits 0 to 4 and is saved as safetensors. It then gets a
//! new head and is trained on 40 images of the digits 5 to 9: first only the head, then all layers.
//!
//!     cargo run --release --example finetune
//!
//! You should see that the fine-tuned network has a lower test error than a network trained only on the 40 images. The
//! example takes about five seconds on two cores.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    data::{DataName, Dataset, Images, Source},
    model::Part,
    train::{TrainConfig, Training},
    weights::{Checkpoint, LoadOptions, load, save},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Backend::Flex.probe()?.device;
    let (old, new) = (task(0, usize::MAX)?, task(5, 40)?);
    let config = TrainConfig::new("resnet14".parse()?, DataName::Digits)?.with_epochs(8);
    let config = TrainConfig { batch_size: 16, ..config.clone().with_network(config.network.with_classes(5)) };

    let file = std::env::temp_dir().join("residual-finetune.safetensors");
    let pretrained = Training::with_data(config.clone(), old, device.clone())?.run()?;
    save(&pretrained.network, &file)?;
    println!("digits 0 to 4: test error {:.1} %, saved as {}", 100.0 * pretrained.test.error, file.display());

    let scratch = Training::with_data(config.clone().with_epochs(40), new.clone(), device.clone())?.run()?;
    println!("digits 5 to 9 from 40 images, from scratch: test error {:.1} %", 100.0 * scratch.test.error);

    // Phase 1: train only a new head, with the pretrained layers frozen. The features learned from five digits are not
    // enough for the other five, but phase 2 then does not start with a random head.
    let mut network = config.init(&device.clone().autodiff());
    load(&mut network, &Checkpoint::read(&file)?, &LoadOptions::default())?;
    let mut first = config.clone().with_epochs(20);
    first.freeze = vec![Part::Stem, Part::Stage(1), Part::Stage(2), Part::Stage(3)];
    let head = Training::with_data(first, new.clone(), device.clone())?.with_network(network.with_head(5, 1)).run()?;
    println!("digits 5 to 9 from the pretrained network, head only: test error {:.1} %", 100.0 * head.test.error);

    // Phase 2: train all layers, with a tenth of the learning rate for the stem and no weight decay on norms and
    // biases.
    let mut second = config.with_epochs(20);
    second.optimizer.rates = vec![(Part::Stem, 0.1)];
    second.optimizer.decay_all = false;
    let tuned = Training::with_data(second, new, device)?.with_network(head.network).run()?;
    println!("then all layers: test error {:.1} %", 100.0 * tuned.test.error);
    std::fs::remove_file(file)?;
    Ok(())
}

/// The five digits starting at `first` as classes 0 to 4, with up to `samples` training images and all test images.
fn task(first: usize, samples: usize) -> Result<Dataset, Box<dyn std::error::Error>> {
    let (train, test) = DataName::Digits.images()?;
    let pick = |images: &Images, samples: usize| {
        let values = images.shape().iter().product();
        let (mut pixels, mut labels, mut image) = (Vec::new(), Vec::new(), vec![0.0; values]);
        for i in 0..images.len() {
            let label = images.read(i, &mut image)?;
            if (first..first + 5).contains(&label) && labels.len() < samples {
                pixels.extend_from_slice(&image);
                labels.push((label - first) as u16);
            }
        }
        Images::new(images.shape(), 5, pixels, labels)
    };
    Ok(Dataset::standardized(pick(&train, samples)?, pick(&test, usize::MAX)?))
}
