//! A small depth sweep by the library: dense nets of 4, 20 and 56 layers, plain and residual, two
//! seeds each, all with the same settings.
//!
//!     cargo run --release --example plain_vs_residual
//!
//! You should see a table in which the plain nets' training error rises to tens of per cent at 56
//! layers while the residual nets' stays low, and the verdict "shown". The figure is in
//! `runs/plain_vs_residual/index.html`. Takes about 15 seconds on two cores; a second time nothing
//! is left to train.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use residual::{
    backend::Backend,
    lab::{Progress, Sweep, SweepConfig},
    model::Family,
};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = SweepConfig {
        families: vec![Family::Dense],
        depths: Some(vec![4, 20, 56]),
        seeds: 2,
        ..SweepConfig::default()
    };
    let folder = Path::new("runs/plain_vs_residual");
    let backend = Backend::Flex;
    let results = Sweep::new(config, backend, backend.probe()?)?.run(folder, &|event| {
        if let Progress::Finished(run) = event {
            eprintln!("{}: training error {:.1} %", run.spec, 100.0 * run.train_error);
        }
    })?;

    println!("\n{}\nThe figure: {}", results.report(), folder.join("index.html").display());
    Ok(())
}
