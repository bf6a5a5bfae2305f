//! The program's arguments: one variant per command, whose file in `commands` has its arguments and its code.

use crate::{
    commands::{
        BenchArgs, CompareArgs, CompletionsArgs, ConvertArgs, DataCommandArgs, DevicesArgs, EvalArgs, InspectArgs,
        ModelsArgs, PredictArgs, RecipesArgs, ReportArgs, SummaryArgs, SweepArgs, TrainArgs, WeightsArgs, bench,
        compare, completions, convert, data, devices, eval, inspect, models, predict, recipes, report, summary, sweep,
        train, weights,
    },
    output,
    signals::stop_flag,
    threads,
};
use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::ffi::OsString;

/// Trains plain and residual networks and shows what shortcuts do
///
/// `residual sweep` draws the figure of the ResNet lecture: training error
/// against depth.
#[derive(Parser)]
#[command(name = "residual", version, verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Sweep(Box<SweepArgs>),
    Train(Box<TrainArgs>),
    Report(ReportArgs),
    Compare(CompareArgs),
    Inspect(InspectArgs),
    Predict(PredictArgs),
    Eval(EvalArgs),
    Models(ModelsArgs),
    Summary(SummaryArgs),
    Weights(WeightsArgs),
    Convert(ConvertArgs),
    Data(DataCommandArgs),
    Recipes(RecipesArgs),
    Bench(BenchArgs),
    Devices(DevicesArgs),
    Completions(CompletionsArgs),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if let Self::Train(_) | Self::Sweep(_) | Self::Inspect(_) = self {
            output::never_block().map_err(threads::refused)?;
        }
        if let Some(number) = self.threads() {
            threads::start(number)?;
        }
        match self {
            Self::Sweep(args) => sweep(&args, &stop_flag()?),
            Self::Train(args) => train(&args),
            Self::Report(args) => report(&args),
            Self::Compare(args) => compare(&args),
            Self::Inspect(args) => inspect(&args, &stop_flag()?),
            Self::Predict(args) => predict(&args),
            Self::Eval(args) => eval(&args),
            Self::Models(args) => models(&args),
            Self::Summary(args) => summary(&args),
            Self::Weights(args) => weights(&args),
            Self::Convert(args) => convert(&args),
            Self::Data(args) => data(&args),
            Self::Recipes(args) => recipes(&args),
            Self::Bench(args) => bench(&args),
            Self::Devices(args) => devices(&args),
            Self::Completions(args) => completions(&args),
        }
    }
}

impl Command {
    /// The number of threads that the flags give, if it is a command that computes.
    fn threads(&self) -> Option<Option<usize>> {
        Some(match self {
            Self::Sweep(args) => args.backend.threads,
            Self::Train(args) => args.backend.threads,
            Self::Inspect(args) => args.backend.threads,
            Self::Predict(args) => args.model.backend.threads,
            Self::Eval(args) => args.model.backend.threads,
            Self::Bench(args) => args.backend.threads,
            Self::Data(_) => None,
            _ => return None,
        })
    }
}

/// Joins `--flip false` into `--flip=false`, which clap needs to distinguish the value from a following argument.
pub(crate) fn with_joined_bools(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let takes_bool = |word: &OsString| {
        let name = word.to_str().and_then(|word| word.strip_prefix("--"));
        let program = Args::command();
        let args = || program.get_subcommands().flat_map(clap::Command::get_arguments);
        name.is_some_and(|name| args().any(|arg| arg.get_long() == Some(name) && arg.is_require_equals_set()))
    };
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(flag) if (word == "true" || word == "false") && takes_bool(flag) => {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// Replaces clap's tip for an unknown flag, which is to pass it as a value. The new tip names a command that has the
/// flag, if there is one.
pub(crate) fn with_tip(mut error: clap::Error) -> clap::Error {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => flag.clone(),
        _ => return error,
    };
    if let Some(name) = flag.strip_prefix("--") {
        let has_flag = |command: &&clap::Command| command.get_arguments().any(|arg| arg.get_long() == Some(name));
        let program = Args::command();
        let tip = program.get_subcommands().find(has_flag).map(|command| {
            clap::builder::StyledStr::from(format!("`residual {}` has the flag {flag}", command.get_name()))
        });
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tip.into_iter().collect()));
    }
    error
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::command_line::split;

    /// Calls `f` with every command and subcommand, and with the words that name it.
    fn for_each_command(f: &mut impl FnMut(&str, &clap::Command)) {
        fn walk(path: &str, command: &clap::Command, f: &mut impl FnMut(&str, &clap::Command)) {
            f(path, command);
            for child in command.get_subcommands() {
                walk(&format!("{path} {}", child.get_name()), child, f);
            }
        }
        walk("residual", &Args::command(), f);
    }

    /// Every flag of every command, such as `--out`.
    pub(crate) fn flags() -> Vec<String> {
        let mut flags = Vec::new();
        for_each_command(&mut |_, command| {
            flags.extend(command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))));
        });
        flags
    }

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_has_help() {
        let mut commands = 0;
        for_each_command(&mut |path, command| {
            let has_text =
                |help: Option<&clap::builder::StyledStr>| help.is_some_and(|text| !text.to_string().is_empty());
            assert!(has_text(command.get_about()), "{path} has no help");
            for arg in command.get_arguments() {
                assert!(has_text(arg.get_help()), "{path}: {} has no help", arg.get_id());
            }
            commands += 1;
        });
        assert!(commands > 15);
    }

    /// `--help` indents the help of an argument by 10 columns, and does not wrap.
    #[test]
    fn help_fits_into_80_columns() {
        let check = |path: &str, texts: [Option<&clap::builder::StyledStr>; 3], columns: usize| {
            for line in texts.into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join("\n").lines() {
                assert!(line.chars().count() <= columns, "{path}: more than {columns} columns: {line}");
            }
        };
        for_each_command(&mut |path, command| {
            check(path, [command.get_about(), None, None], 69);
            check(path, [command.get_long_about(), command.get_after_help(), command.get_after_long_help()], 80);
            for arg in command.get_arguments() {
                check(&format!("{path} {}", arg.get_id()), [arg.get_help(), arg.get_long_help(), None], 70);
            }
        });
    }

    #[test]
    fn a_bool_flag_takes_a_value_but_no_other_argument() {
        let parsed = |line: &str| {
            let words = with_joined_bools(split(line).into_iter().map(OsString::from));
            let Command::Train(args) = Args::try_parse_from(words).unwrap().command else { panic!("{line}") };
            (args.training.augmentation.flip, args.net.get().map(|net| net.to_string()))
        };
        let net = Some("resnet8".to_string());
        assert_eq!(parsed("residual train --flip resnet8"), (Some(true), net.clone()));
        assert_eq!(parsed("residual train --flip false resnet8"), (Some(false), net.clone()));
        assert_eq!(parsed("residual train resnet8 --flip=false"), (Some(false), net));
    }

    #[test]
    fn unknown_flags_get_a_tip_that_helps() {
        let text = |line: &str| with_tip(Args::try_parse_from(split(line)).err().unwrap()).to_string();
        let error = text("residual train resnet20 --xyzzy 1");
        assert!(error.contains("unexpected argument '--xyzzy'") && !error.contains("tip"), "{error}");
        let error = text("residual train resnet20 --weightdecay 0");
        assert!(error.contains("--weight-decay") && !error.contains("as a value"), "{error}");
        let error = text("residual train resnet20 --what gradients");
        assert!(error.contains("tip: `residual inspect` has the flag --what"), "{error}");
    }

    #[test]
    fn every_example_in_help_parses() {
        let mut examples = 0;
        for_each_command(&mut |path, command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("residual ")) {
                if let Err(error) = Args::try_parse_from(split(line)) {
                    panic!("{path}: {line}: {error}");
                }
                examples += 1;
            }
        });
        assert!(examples > 25);
    }
}
