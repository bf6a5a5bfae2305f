use crate::{
    Usage,
    output::{self, Progress},
};
use clap::Subcommand;
use residual_data::{DataName, Report, check};
use serde::Serialize;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// List, download and check datasets
#[derive(clap::Args)]
pub(crate) struct DataCommandArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// List datasets and their directories
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download a dataset and verify it; resume an interrupted download
    ///
    /// The directory is $RESIDUAL_CACHE/data/NAME, by default in the system's cache
    /// directory. RESIDUAL_MIRROR can name another server, which has the same files
    /// in a directory with the dataset's name.
    #[command(verbatim_doc_comment)]
    Fetch {
        /// Dataset: cifar10, cifar100, mnist or fashion-mnist
        name: DataName,
        /// Directory to download to
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Check every sample of a dataset in a directory
    ///
    /// Prints the number of samples per class, the mean and standard deviation,
    /// and the unreadable and the duplicate files.
    #[command(verbatim_doc_comment)]
    Check {
        /// Directory of the dataset
        dir: PathBuf,
        /// Dataset [default: recognised from the files]
        #[arg(long, value_name = "NAME")]
        data: Option<DataName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command `data`.
pub(crate) fn data(args: &DataCommandArgs) -> anyhow::Result<()> {
    match &args.command {
        DataCommand::List { json } => list(*json),
        DataCommand::Fetch { name, data_dir } => fetch(*name, data_dir.as_deref()),
        DataCommand::Check { dir, data, json } => check_folder(dir, *data, *json),
    }
}

#[derive(Serialize)]
struct Line {
    name: String,
    folder: Option<PathBuf>,
    present: bool,
    megabytes: Option<f64>,
}

fn list(json: bool) -> anyhow::Result<()> {
    let line = |name: &DataName| -> anyhow::Result<Line> {
        let folder = (name.has_files() && *name != DataName::Folder).then(|| name.default_dir()).transpose()?;
        let present = !name.has_files() || folder.as_ref().is_some_and(|folder| name.is_in(folder));
        let megabytes = name.download_bytes().map(|bytes| bytes as f64 / 1e6);
        Ok(Line { name: name.to_string(), folder, present, megabytes })
    };
    let lines = DataName::ALL.iter().map(line).collect::<anyhow::Result<Vec<_>>>()?;
    if json {
        return output::print_json(&lines);
    }
    let mut text = String::new();
    for Line { name, folder, present, megabytes } in lines {
        let place = match (folder, megabytes) {
            (Some(folder), _) if present => folder.display().to_string(),
            (_, Some(megabytes)) => format!("not downloaded; `residual data fetch {name}` downloads {megabytes:.0} MB"),
            _ if present => "embedded in the program".into(),
            _ => "your own images: --data folder --data-dir DIR".into(),
        };
        let _ = writeln!(text, "{name:<14} {place}");
    }
    output::print(&text)
}

fn fetch(name: DataName, dir: Option<&Path>) -> anyhow::Result<()> {
    let dir = match dir {
        Some(dir) => dir.to_path_buf(),
        None => name.cache_dir()?,
    };
    let mirror = residual_fetch::mirror()?;
    let mut bar: Option<Progress> = None;
    let result = name.fetch(&dir, mirror.as_deref(), &mut |done| {
        let total = name.download_bytes().unwrap_or_default();
        let bar = bar.get_or_insert_with(|| {
            let bar = Progress::new(total, done);
            bar.line(&format!("downloading {name} ({:.0} MB)", total as f64 / 1e6));
            bar
        });
        bar.set(done);
    });
    if let Some(bar) = bar {
        bar.finish();
    }
    result?;
    output::print(&format!("{}\n", dir.display()))
}

fn check_folder(dir: &Path, name: Option<DataName>, json: bool) -> anyhow::Result<()> {
    if name.is_some_and(|name| !name.has_files()) {
        return Err(
            Usage("digits and synthetic are embedded in the program; there are no files to check".into()).into()
        );
    }
    let report = check(dir, name)?;
    if json {
        output::print_json(&report)?;
    } else {
        output::print(&text(dir, &report))?;
    }
    match report.unreadable.len() {
        0 => Ok(()),
        1 => anyhow::bail!("1 unusable file"),
        count => anyhow::bail!("{count} unusable files"),
    }
}

fn text(dir: &Path, report: &Report) -> String {
    let mut text = format!("{}: {}, {} classes\n", dir.display(), report.dataset, report.splits[0].counts.len());
    let numbers = |values: &[f32]| values.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(" ");
    for (name, split) in ["training", "test"].iter().zip(&report.splits) {
        let [[low, narrow], [high, wide]] = split.sizes;
        let size = if split.sizes[0] == split.sizes[1] {
            format!("{low}x{narrow} pixels")
        } else {
            format!("{low}x{narrow} to {high}x{wide} pixels")
        };
        let (mean, std) = (numbers(&split.statistics.mean), numbers(&split.statistics.std));
        let _ = writeln!(text, "\n{name}: {} samples of {size}, mean {mean}, standard deviation {std}", split.samples);
        let (least, most) = (split.counts.iter().min(), split.counts.iter().max());
        if report.classes.is_empty() && least == most {
            let _ = writeln!(text, "  {} per class", least.copied().unwrap_or_default());
            continue;
        }
        for (class, count) in split.counts.iter().enumerate() {
            let class = report.classes.get(class).cloned().unwrap_or_else(|| class.to_string());
            let _ = writeln!(text, "  {count:>7}  {class}");
        }
    }
    if !report.unreadable.is_empty() {
        let _ = writeln!(text, "\n{} unreadable", report.unreadable.len());
        for (path, reason) in &report.unreadable {
            let _ = writeln!(text, "  {} {reason}", path.display());
        }
    }
    let _ = writeln!(text, "\n{} groups of identical images", report.duplicates.len());
    for group in &report.duplicates {
        let _ = writeln!(text, "  {}", group.join(" = "));
    }
    text
}
