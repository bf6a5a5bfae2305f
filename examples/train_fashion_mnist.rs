//! Trains a residual network on Fashion-MNIST.
//!
//!     cargo run --release -- data fetch fashion-mnist        (or install Debian's package dataset-fashion-mnist)
//!     cargo run --release --example train_fashion_mnist [FOLDER] [SAMPLES]
//!
//! FOLDER contains the dataset's files; by default, the downloaded or installed files are used. SAMPLES is the maximum
//! number of training images and of test images.
//!
//! You should see one line per epoch, and a final test error of about 7 % after about 20 minutes on two cores. With
//! 2000 samples, the test error is about 19 % after one or two minutes.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    data::DataConfig,
    train::{Algorithm, Augmentation, DataName, Evaluate, Event, Optimizer, Schedule, Split, TrainConfig, Training},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend::choose(None, std::env::var("BURN_DEVICE").ok().as_deref())?;
    let mut args = std::env::args().skip(1);
    let data = DataConfig {
        dir: args.next().map(Into::into),
        samples: args.next().map(|samples| samples.parse()).transpose()?,
        ..DataName::FashionMnist.into()
    };

    let config = TrainConfig {
        epochs: 10,
        batch_size: 128,
        augmentation: Augmentation { crop: 2, flip: true, ..Augmentation::default() },
        optimizer: Optimizer { weight_decay: 5e-4, ..Algorithm::Sgd { momentum: 0.9, nesterov: true }.into() },
        schedule: Schedule::cosine(0.1),
        evaluate: Evaluate::TestEveryEpoch,
        ..TrainConfig::new("resnet20".parse()?, data)?
    };
    let outcome = Training::new(config, backend.open()?)?
        .with_workers(2)
        .with_observer(|event| {
            if let Event::Epoch(rows) = event
                && let Some(test) = rows.iter().rfind(|row| row.split == Split::Test)
            {
                println!("epoch {:>2}: test error {:.2} %", test.epoch, 100.0 * test.error);
            }
        })
        .run()?;

    println!(
        "resnet20 on Fashion-MNIST, {backend}: training error {:.2} %, test error {:.2} %, {:.0} s",
        100.0 * outcome.train.error,
        100.0 * outcome.test.error,
        outcome.seconds
    );
    Ok(())
}
