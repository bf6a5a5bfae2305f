use crate::{Usage, args::CompareArgs, output};
use residual_lab::Comparison;
use residual_train::files;

/// Shows trainings side by side.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    if let Some(path) = args.figure.as_ref().filter(|path| path.extension().is_none_or(|ending| ending != "svg")) {
        return Err(Usage(format!("{} is no figure; expected a name that ends in .svg", path.display())).into());
    }
    let comparison = Comparison::read(&args.runs)?;
    if let Some(path) = &args.figure {
        files::write(path, comparison.svg().as_bytes())?;
    }
    if args.json { output::print_json(&comparison) } else { output::print(&comparison.markdown()) }
}
