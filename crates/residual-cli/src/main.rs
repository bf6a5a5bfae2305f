//! The binary `residual`: parse, call, print.
//!
//! Results go to stdout, progress and errors to stderr. The exit code is 0 for success, 1 for a failure, 2 for an
//! invalid request and 130 for an interruption.

mod args;
mod classes;
mod cli;
mod command_line;
mod commands;
mod job;
mod memory;
mod model;
mod output;
mod removed;
mod signals;
mod table;
mod threads;

use args::Restart;
use clap::Parser;
use output::log;
use residual_backend::BackendError;
use residual_data::DataError;
use residual_lab::LabError;
use residual_model::{ModelError, ShortcutOption};
use residual_train::TrainError;
use residual_weights::{Cause, WeightsError};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = signals::install() {
        log!("error: cannot handle signals: {error}");
        return ExitCode::FAILURE;
    }
    let args = cli::Args::try_parse_from(cli::with_joined_bools(std::env::args_os()))
        .unwrap_or_else(|error| cli::with_tip(error).exit());
    let result = on_a_large_stack(move || args.command.run()).or_else(|error| match error.downcast::<Restart>() {
        Ok(restart) => restart.run(),
        Err(error) => Err(error),
    });
    let code = result.as_ref().map_or_else(report, |()| 0);
    output::flush();
    ExitCode::from(code)
}

/// Prints an error, and returns the program's exit code.
fn report(error: &anyhow::Error) -> u8 {
    if error.is::<Interrupted>() {
        log!("{error}");
        return 130;
    }
    job::let_the_first_report();
    output::error_line(&format!("error: {}{}", one_line(error), tip(error).unwrap_or_default()));
    if is_usage(error) { 2 } else { 1 }
}

/// The error and its causes on one line, without the causes that the text already contains. A text of thousands of
/// characters, which only a damaged file can cause, loses its middle.
fn one_line(error: &anyhow::Error) -> String {
    const HALF: usize = 1000;
    let text = error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        _ if text.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    });
    let text = text.replace('\n', "\\n");
    let length = text.chars().count();
    if length <= 2 * HALF {
        return text;
    }
    let part = |skipped| text.chars().skip(skipped).take(HALF).collect::<String>();
    format!("{} … {}", part(0), part(length - HALF))
}

/// A run that was interrupted. The text says how to resume.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);

/// An invalid request. The text says what would be valid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Burn recurses over the graph of a network, which overflows the default stack at a thousand layers.
fn on_a_large_stack<T: Send + 'static>(f: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(f).map_err(threads::refused)?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The end of an error message: the flag or command that helps, which the libraries do not know.
fn tip(error: &anyhow::Error) -> Option<String> {
    match error.downcast_ref::<WeightsError>() {
        Some(WeightsError::Mismatch { cause, .. }) => return mismatch_tip(cause),
        Some(WeightsError::Ambiguous { .. }) => return Some("; choose one with --weights-key".into()),
        Some(WeightsError::Key { available, .. }) if available.iter().any(String::is_empty) => {
            return Some("; leave out --weights-key".into());
        }
        _ => {}
    }
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
        (Some(LabError::Folder { .. }), ..) => " with --out".into(),
        (Some(LabError::MixedProcessors { .. }), ..) => "; accept them with --mixed-processors".into(),
        (Some(LabError::Untrained { network }), ..) => {
            format!("; train it with `residual train --net {network}` and give its run directory")
        }
        (_, Some(TrainError::Occupied { finished: true, .. }), ..) => ", or replace it with --force".into(),
        (_, Some(TrainError::Occupied { finished: false, .. }), ..) => {
            ", resume it with --resume, or replace it with --force".into()
        }
        (_, _, Some(DataError::FolderRequired), _) => "; give it with --data-dir".into(),
        (_, _, Some(DataError::Missing { dataset, .. }), _) => {
            format!(" (`residual data fetch {dataset}`, or --data-dir)")
        }
        (_, _, Some(DataError::UnknownClasses { .. }), _) => {
            "; if only the names differ, name the network's classes in their order with --labels".into()
        }
        (_, _, Some(DataError::Broken { number, .. }), _) => {
            format!("; skip them with --skip-broken {number}, or list them with `residual data check DIR`")
        }
        (_, _, Some(DataError::Pixels { .. }), _) => "; allow more with --max-pixels".into(),
        (_, _, Some(DataError::Image { .. }), _) | (_, Some(TrainError::Sample { .. }), ..) => {
            "; `residual data check DIR` lists all broken images, and --skip-broken N skips up to N".into()
        }
        (_, _, _, Some(BackendError::NotCompiled(backend))) => format!(", or rebuild with `--features {backend}`"),
        _ => return None,
    })
}

/// The flag that helps with weights that do not fit the network.
fn mismatch_tip(cause: &Cause) -> Option<String> {
    Some(match cause {
        Cause::Shortcuts(ShortcutOption::ZeroPad) => "; try --shortcut A, or A-after".into(),
        Cause::Shortcuts(option) => format!("; try --shortcut {option}"),
        Cause::NoHead => "; `residual train` starts with a new head if --ignore-head is given".into(),
        Cause::Sizes { width: Some(width), .. } => format!("; give --width {width}"),
        Cause::Extra => "; drop them with a --name-map that replaces their whole names by an empty one".into(),
        Cause::Names => "; if its tensors only have other names, rename them with --name-map".into(),
        Cause::Shard { .. } | Cause::Classes | Cause::Blocks | Cause::Sizes { .. } | Cause::Incomplete => return None,
    })
}

/// Whether the error is an invalid request rather than a failure.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::split;

    #[test]
    fn tips_name_flags_and_commands_that_exist() {
        let occupied = |finished| TrainError::Occupied { path: "run".into(), finished };
        let tips = [
            tip(&LabError::Occupied { path: "sweep".into(), difference: "epochs 1, not 2".into() }.into()),
            tip(&LabError::Folder { path: "a".into(), reason: "b".into() }.into()),
            tip(&LabError::Untrained { network: "plain20".into() }.into()),
            tip(&LabError::Train(TrainError::Data(DataError::FolderRequired)).into()),
            tip(&occupied(true).into()),
            tip(&occupied(false).into()),
            tip(&DataError::FolderRequired.into()),
            tip(&DataError::Missing { dataset: "cifar10", path: "a".into() }.into()),
            tip(&BackendError::NotCompiled(residual_backend::Backend::Rocm).into()),
            tip(&DataError::UnknownClasses { unknown: "a".into(), unmatched: "b".into() }.into()),
            tip(&DataError::Broken { path: "a".into(), number: 3, most: 1, first: "b".into() }.into()),
            tip(&DataError::Image { path: "a".into(), reason: "b".into() }.into()),
            tip(&DataError::Pixels { path: "a".into(), width: 2, height: 2, most: 3 }.into()),
            tip(&TrainError::Sample { reason: "a".into() }.into()),
            tip(&WeightsError::Ambiguous { path: "a".into(), keys: Vec::new() }.into()),
            tip(&WeightsError::Key { path: "a".into(), key: "b".into(), available: vec![String::new()] }.into()),
            mismatch_tip(&Cause::Shortcuts(ShortcutOption::ZeroPad)),
            mismatch_tip(&Cause::Shortcuts(ShortcutOption::ProjectAll)),
            mismatch_tip(&Cause::NoHead),
            mismatch_tip(&Cause::Sizes { width: Some(8), channels: None, classes: None }),
            mismatch_tip(&Cause::Extra),
            mismatch_tip(&Cause::Names),
        ];
        // A flag of cargo.
        let flags = [cli::tests::flags(), vec!["--features".into()]].concat();
        for tip in tips {
            let tip = tip.unwrap();
            for flag in tip.split([' ', '`', ',', ';', '(', ')']).filter(|word| word.starts_with("--")) {
                assert!(flags.iter().any(|known| known == flag), "{tip}");
            }
            for command in tip.split('`').filter(|words| words.starts_with("residual ")) {
                assert!(cli::Args::try_parse_from(split(command)).is_ok(), "{tip}");
            }
        }
    }
}
