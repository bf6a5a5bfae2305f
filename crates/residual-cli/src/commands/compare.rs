use crate::{Usage, output};
use residual_lab::Comparison;
use residual_report::comparison;
use residual_train::files;
use std::path::PathBuf;

/// Compare runs: errors, parameters and time; plot error against epoch
///
/// For runs that differ in their seeds alone, also shows the mean and the
/// standard deviation. Finished runs that differ like those of a sweep, in
/// depth, kind, skip strength and seed, also get its verdict.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  residual compare runs/*
  residual compare runs/resnet20-cifar10-0 runs/plain20-cifar10-0 --figure e.svg"
)]
pub(crate) struct CompareArgs {
    /// Run directories, finished or not
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// SVG file to draw error against epoch into
    #[arg(long, value_name = "FILE")]
    pub(crate) figure: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `compare`.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    if let Some(path) = args.figure.as_ref().filter(|path| path.extension().is_none_or(|ending| ending != "svg")) {
        return Err(Usage(format!("{} is not a figure; expected a name that ends in .svg", path.display())).into());
    }
    let runs = Comparison::read(&args.runs)?;
    if let Some(path) = &args.figure {
        files::write(path, comparison::svg(&runs).as_bytes())?;
    }
    if args.json { output::print_json(&runs) } else { output::print_markdown(&comparison::markdown(&runs)) }
}
