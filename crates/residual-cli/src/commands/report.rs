use crate::{Usage, output};
use residual_lab::Inspection;
use residual_report::{Report, redraw};
use residual_train::files::{self, Lock};
use std::path::{Path, PathBuf};

/// Write one page of sweeps, trainings and inspections
///
/// The page is drawn from the recorded data. It is a single HTML file that needs
/// no network. A sweep's inspections are in its subdirectory `inspect`. Trainings
/// of your own, of several depths and seeds, are summarised like a sweep.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  residual report sweep
  residual report sweep inspect --out found.html
  residual report runs/plain20 runs/plain56 runs/resnet20 runs/resnet56
  residual report --redraw sweep"
)]
pub(crate) struct ReportArgs {
    /// Directories that `sweep`, `inspect` or `train` wrote
    #[arg(required = true, value_name = "DIR")]
    pub(crate) folders: Vec<PathBuf>,
    /// HTML file to write [default: report.html]
    #[arg(long, value_name = "FILE", conflicts_with = "redraw")]
    pub(crate) out: Option<PathBuf>,
    /// Redraw the tables, figures and page in each directory instead
    #[arg(long)]
    pub(crate) redraw: bool,
}

/// Runs the command `report`.
pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    if args.redraw {
        for folder in &args.folders {
            let locks = lock(folder)?;
            let redrawn = redraw(folder);
            locks.into_iter().for_each(Lock::remove);
            redrawn?;
            output::print(&format!("Redrawn: {}\n", folder.display()))?;
        }
        return Ok(());
    }
    let out = args.out.clone().unwrap_or_else(|| "report.html".into());
    if out.extension().is_none_or(|ending| ending != "html") {
        return Err(Usage(format!("{} is not a page; expected a name that ends in .html", out.display())).into());
    }
    let earlier = files::read(&out).ok().and_then(|page| String::from_utf8(page).ok());
    if out.exists() && !earlier.is_some_and(|page| Report::is_own(&page)) {
        anyhow::bail!("{} was not written by `residual report`; choose another name", out.display());
    }
    files::write(&out, Report::read(&args.folders)?.html().as_bytes())?;
    output::print(&format!("Report: {}\n", out.display()))
}

/// Locks a folder of a sweep or of inspections, and the folders of inspections in it.
fn lock(folder: &Path) -> anyhow::Result<Vec<Lock>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let inspect = folder.join("inspect");
    let mut folders = vec![folder.to_path_buf()];
    folders.extend(Inspection::folders(if inspect.is_dir() { &inspect } else { folder })?);
    folders.dedup();
    let mut locks = Vec::new();
    for folder in folders {
        match files::lock_directory(&folder) {
            Ok(lock) => locks.push(lock),
            Err(error) => {
                locks.into_iter().for_each(Lock::remove);
                return Err(error.into());
            }
        }
    }
    Ok(locks)
}
