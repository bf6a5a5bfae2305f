//! Trains a network on your own images: a folder with one sub-folder of images per class.
//!
//!     cargo run --release --example train_image_folder FOLDER [SIDE]
//!
//! Images are cropped to SIDE x SIDE pixels (default: 64). If the folder has sub-folders `train` and `val`, the images
//! in `val` are the test images; otherwise, about one fifth of the images is held out for the test.
//!
//! You should see the classes, and one line per epoch. 500 images of 64x64 pixels take about a minute on two cores. The
//! error after ten epochs depends on the images. The example `finetune` shows how to start from pretrained weights.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    data::{DataConfig, Folder, Source},
    train::{Algorithm, Augmentation, DataName, Event, Optimizer, Schedule, Split, TrainConfig, Training},
};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("expected a folder of images as the first argument")?);
    let side = args.next().map_or(Ok(64), |side| side.parse())?;
    let data = DataConfig { dir: Some(dir.clone()), side: Some(side), ..DataName::Folder.into() };
    let (train, test) = Folder::open(&dir, data.load()?.preprocessing)?;
    println!("{} classes: {}", train.classes(), train.class_names().unwrap_or_default().join(", "));
    println!("{} training images, {} test images", train.files().len(), test.files().len());

    let config = TrainConfig {
        epochs: 10,
        batch_size: 32,
        // Random crops of at least a quarter of the image's area, flipped at random.
        augmentation: Augmentation { resized_crop: Some(0.25), flip: true, ..Augmentation::default() },
        optimizer: Optimizer { weight_decay: 1e-4, ..Algorithm::Sgd { momentum: 0.9, nesterov: false }.into() },
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
