//! Trains a network on your own images: a folder with a sub-folder of PNG or JPEG files for each class.
//!
//!     cargo run --release --example train_image_folder FOLDER [SIDE]
//!
//! Images are cropped to SIDE pixels, 64 if nothing else is said. Every fifth image of a class is held out, unless the
//! folder has `train` and `val`. You should see the classes, and one line an epoch. 500 images of 64x64 take about a
//! minute on two cores; how well ten epochs do depends on the images: `finetune` shows how to start from weights instead.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    data::{DataConfig, Folder, Source},
    train::{Augmentation, DataName, Event, Optimizer, Schedule, Split, TrainConfig, Training},
};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which folder? name it")?);
    let side = args.next().map_or(Ok(64), |side| side.parse())?;
    let data = DataConfig { dir: Some(dir.clone()), side: Some(side), ..DataName::Folder.into() };
    let (train, test) = Folder::open(&dir, data.load()?.preprocessing)?;
    println!("{} classes: {}", train.classes(), train.class_names().unwrap_or_default().join(", "));
    println!("{} images to train on, {} held out", train.files().len(), test.files().len());

    let config = TrainConfig {
        epochs: 10,
        batch_size: 32,
        // A part of the image of a quarter of its area or more, either way round.
        augmentation: Augmentation { resized_crop: Some(0.25), flip: true, ..Augmentation::default() },
        optimizer: Optimizer { momentum: 0.9, weight_decay: 1e-4, ..Optimizer::default() },
        schedule: Schedule::cosine(0.05),
        ..TrainConfig::new("resnet18".parse()?, data)?
    };
    let backend = Backend::choose(None, std::env::var("BURN_DEVICE").ok().as_deref())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let outcome = Training::new(config, backend.open()?)?
        .with_workers(cores)
        .with_observer(|event| {
            if let Event::Epoch(rows) = event {
                let error =
                    |split| rows.iter().rfind(|row| row.split == split).map_or(f64::NAN, |row| 100.0 * row.error);
                let (epoch, training, test) =
                    (rows.last().map_or(0, |row| row.epoch), error(Split::Train), error(Split::Test));
                println!("epoch {epoch:>2}: training error {training:.1} %, test error {test:.1} %");
            }
        })
        .run()?;
    println!("{} steps, {:.0} s", outcome.iterations, outcome.seconds);
    Ok(())
}
