//! Trains a residual network on the embedded digits.
//!
//!     cargo run --release --example train_digits
//!
//! You should see one line per epoch, a training error that reaches 0 %, and a test error of about 4 %. The example
//! takes about ten seconds on two cores.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    train::{DataName, Event, Schedule, Split, TrainConfig, Training},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // BURN_DEVICE names the backend, such as ndarray or wgpu; flex is the default.
    let backend = Backend::choose(None, std::env::var("BURN_DEVICE").ok().as_deref())?;
    let config = TrainConfig::new("resnet20".parse()?, DataName::Digits)?
        .with_epochs(10)
        .with_schedule(Schedule::cosine(0.05))
        .with_seed(0);

    let outcome = Training::new(config, backend.open()?)?
        .with_observer(|event| {
            if let Event::Epoch(rows) = event {
                for row in rows.iter().rev().take(3).filter(|row| row.split == Split::Train) {
                    println!("epoch {:>2}: loss {:.4}, training error {:.2} %", row.epoch, row.loss, 100.0 * row.error);
                }
            }
        })
        .run()?;

    println!(
        "after {} steps in {:.1} s on {backend}: training error {:.2} %, test error {:.2} %",
        outcome.iterations,
        outcome.seconds,
        100.0 * outcome.train.error,
        100.0 * outcome.test.error
    );
    Ok(())
}
