//! Runs a small depth sweep: plain and residual dense networks of 4, 20 and 56 layers, each with two seeds. All other
//! settings are the same.
//!
//!     cargo run --release --example plain_vs_residual
//!
//! You should see the verdict "shown", and a table in which the training error of the plain networks rises to tens of
//! per cent at 56 layers, while that of the residual networks stays low. The figure is in
//! `runs/plain_vs_residual/index.html`. The example takes about 15 seconds on two cores. A second run finds the
//! finished results and trains nothing.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use residual::{
    backend::Backend,
    data::DataName,
    lab::{Progress, Sweep, SweepConfig, SweepFamily},
    report::{redraw, sweep_markdown},
};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usual = SweepConfig::usual(&[SweepFamily::Dense], DataName::Digits)?;
    let config = SweepConfig { seeds: 2, ..usual.with_depths(&[4, 20, 56]) };
    let folder = Path::new("runs/plain_vs_residual");
    let backend = Backend::Flex;
    let results = Sweep::new(config, backend, backend.probe()?)?.run(folder, &|event| {
        if let Progress::Finished(run) = event {
            eprintln!("{}: training error {:.1} %", run.spec, 100.0 * run.train_error);
        }
    })?;

    redraw(folder)?;
    println!("\n{}\nThe figure: {}", sweep_markdown(&results), folder.join("index.html").display());
    Ok(())
}
