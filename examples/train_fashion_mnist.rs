//! Trains a residual network and its plain twin on Fashion-MNIST.
//!
//!     cargo run --release -- data fetch fashion-mnist        (or Debian's package dataset-fashion-mnist)
//!     cargo run --release --example train_fashion_mnist [FOLDER] [SAMPLES]
//!
//! You should see the residual network's test error at about 6 %, and the plain one's half a point above; five epochs
//! of each take about ten minutes on two cores. With 2000 samples, a quarter of a minute, errors are about 20 %.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    data::DataConfig,
    train::{Augmentation, DataName, Evaluate, Optimizer, Schedule, TrainConfig, Training},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend::choose(None, std::env::var("BURN_DEVICE").ok().as_deref())?;
    let mut args = std::env::args().skip(1);
    let data = DataConfig {
        dir: args.next().map(Into::into),
        samples: args.next().map(|samples| samples.parse()).transpose()?,
        ..DataName::FashionMnist.into()
    };

    for net in ["resnet20", "plain20"] {
        let config = TrainConfig {
            epochs: 5,
            batch_size: 128,
            augmentation: Augmentation { crop: 2, flip: true, ..Augmentation::default() },
            optimizer: Optimizer { momentum: 0.9, nesterov: true, weight_decay: 5e-4, ..Optimizer::default() },
            schedule: Schedule::cosine(0.1),
            evaluate: Evaluate::AtEnd,
            ..TrainConfig::new(net.parse()?, data.clone())?
        };
        let outcome = Training::new(config, backend.open()?)?.with_workers(2).run()?;
        println!(
            "{net:<8} training error {:.2} %, test error {:.2} %, {:.0} s",
            100.0 * outcome.train.error,
            100.0 * outcome.test.error,
            outcome.seconds
        );
    }
    Ok(())
}
