use crate::{Usage, args::ReportArgs, output};
use residual_lab::Report;
use residual_train::files;

/// Writes one page of what was found.
pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let out = args.out.display();
    if args.out.extension().is_none_or(|ending| ending != "html") {
        return Err(Usage(format!("{out} is no page; expected a name that ends in .html")).into());
    }
    files::write(&args.out, Report::read(&args.folders)?.html().as_bytes())?;
    output::print(&format!("The report: {out}\n"))
}
