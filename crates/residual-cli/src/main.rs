//! The binary `residual`: parse, call, print.
//!
//! Results go to stdout, progress and errors to stderr. Exit code 0 is success, 1 a failure, 2 a
//! wrong request, 130 an interruption.

#![allow(clippy::print_stderr)]

mod args;
mod commands;
mod output;

use args::{Args, Command};
use clap::Parser;
use residual_backend::BackendError;
use residual_data::DataError;
use residual_lab::LabError;
use residual_model::ModelError;
use residual_train::{StopFlag, TrainError};
use residual_weights::WeightsError;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    match on_a_large_stack(move || run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {}{}", one_line(&error), tip(&error).unwrap_or_default());
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// The error and its causes, those that it does not tell itself.
fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        _ if text.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Sweep(args) => commands::sweep(args, &stop_on_ctrl_c()?),
        Command::Train(args) => commands::train(args, &stop_on_ctrl_c()?),
        Command::Report(args) => commands::report(&args),
        Command::Compare(args) => commands::compare(&args),
        Command::Inspect(args) => commands::inspect(&args),
        Command::Predict(args) => commands::predict(&args),
        Command::Eval(args) => commands::eval(&args),
        Command::Models(args) => commands::models(&args),
        Command::Summary(args) => commands::summary(&args),
        Command::Weights(args) => commands::weights(&args),
        Command::Convert(args) => commands::convert(&args),
        Command::Data(args) => commands::data(&args),
        Command::Recipes(args) => commands::recipes(&args),
        Command::Bench(args) => commands::bench(args),
        Command::Devices(args) => commands::devices(&args),
    }
}

/// A run that was asked to stop; the text says how to go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);

/// A request that cannot be granted as it is; the text says what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The first Ctrl-C (or SIGTERM) asks to stop, the second stops at once.
fn stop_on_ctrl_c() -> anyhow::Result<StopFlag> {
    let stop = StopFlag::default();
    let handle = stop.clone();
    ctrlc::set_handler(move || {
        if handle.is_set() {
            #[allow(clippy::exit)]
            std::process::exit(130);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
        handle.set();
    })?;
    Ok(stop)
}

/// Burn has helpers that recurse over a graph; those of a thousand layers need room.
fn on_a_large_stack<T: Send + 'static>(f: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(f)?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// How the error goes on: which flag or command helps, which the libraries do not know.
fn tip(error: &anyhow::Error) -> Option<String> {
    let lab = error.downcast_ref::<LabError>();
    let train = lab.map_or_else(
        || error.downcast_ref::<TrainError>(),
        |lab| if let LabError::Train(train) = lab { Some(train) } else { None },
    );
    let data = train.map_or_else(
        || error.downcast_ref::<DataError>(),
        |train| if let TrainError::Data(data) = train { Some(data) } else { None },
    );
    Some(match (lab, train, data, error.downcast_ref::<BackendError>()) {
        (Some(LabError::Occupied { .. }), ..) => " with --out, or replace it with --force".into(),
        (Some(LabError::Untrained { network }), ..) => {
            format!("; train it with `residual train --net {network}` and name its folder")
        }
        (_, Some(TrainError::Occupied { finished: true, .. }), ..) => ", or replace it with --force".into(),
        (_, Some(TrainError::Occupied { finished: false, .. }), ..) => {
            ", go on with --resume, or replace it with --force".into()
        }
        (_, _, Some(DataError::WhichFolder), _) => "; name it with --data-dir".into(),
        (_, _, _, Some(BackendError::NotCompiled(backend))) => format!("; rebuild with `--features {backend}`"),
        _ => return None,
    })
}

/// Whether what was asked for is wrong, rather than something that happened on the way.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<BackendError>()
        || error.is::<ModelError>()
        || error.is::<Usage>()
        || error.downcast_ref::<DataError>().is_some_and(DataError::is_usage)
        || error.downcast_ref::<residual_fetch::FetchError>().is_some_and(residual_fetch::FetchError::is_usage)
        || error.downcast_ref::<WeightsError>().is_some_and(WeightsError::is_usage)
        || error.downcast_ref::<TrainError>().is_some_and(TrainError::is_usage)
        || error.downcast_ref::<LabError>().is_some_and(LabError::is_usage)
}
