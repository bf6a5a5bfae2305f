//! Trains a residual network on CIFAR-10 in half an hour on a CPU.
//!
//!     cargo run --release -- data fetch cifar10
//!     cargo run --release --example train_cifar10 [FOLDER] [SAMPLES]
//!
//! FOLDER contains the dataset's files; by default, the downloaded files are used. SAMPLES is the maximum number of
//! training images and of test images.
//!
//! You should see one line per epoch, and a final test error of about 11 % after about 30 minutes on two cores. With
//! 2000 samples, the test error is about 43 % after one or two minutes. To run the same training with checkpoints, use
//! `residual train --net resnet20 --recipe quick-cifar`.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    data::DataConfig,
    train::{
        Algorithm, Augmentation, DataName, Decay, Evaluate, Event, Normalize, Optimizer, Schedule, Split, TrainConfig,
        Training, Warmup,
    },
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let data = DataConfig {
        dir: args.next().map(Into::into),
        samples: args.next().map(|samples| samples.parse()).transpose()?,
        normalize: Normalize::Channel,
        ..DataName::Cifar10.into()
    };
    let (epochs, batch_size) = (15, 128);
    let steps = data.describe()?.train.div_ceil(batch_size);

    let config = TrainConfig {
        epochs,
        batch_size,
        augmentation: Augmentation { crop: 4, flip: true, ..Augmentation::default() },
        optimizer: Optimizer { weight_decay: 5e-4, ..Algorithm::Sgd { momentum: 0.9, nesterov: true }.into() },
        // One cycle: the learning rate rises for three epochs, then falls to zero.
        schedule: Schedule { lr: 0.2, decay: Decay::Linear, warmup: Warmup::Linear { iterations: 3 * steps } },
        evaluate: Evaluate::TestEveryEpoch,
        ..TrainConfig::new("resnet20".parse()?, data)?
    };

    let backend = Backend::choose(None, std::env::var("BURN_DEVICE").ok().as_deref())?;
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
        "resnet20 on CIFAR-10, {backend}: training error {:.2} %, test error {:.2} %, {:.0} s",
        100.0 * outcome.train.error,
        100.0 * outcome.test.error,
        outcome.seconds
    );
    Ok(())
}
