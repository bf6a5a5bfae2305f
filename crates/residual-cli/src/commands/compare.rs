use crate::{args::CompareArgs, output};
use residual_lab::Comparison;
use residual_train::files;

/// Shows trainings side by side.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let comparison = Comparison::read(&args.runs)?;
    if let Some(path) = &args.figure {
        files::write(path, comparison.svg().as_bytes())?;
    }
    if args.json { output::print_json(&comparison) } else { output::print(&comparison.markdown()) }
}
