use crate::{
    Usage,
    args::{pixels, words},
    output::{self, Progress},
};
use clap::Subcommand;
use residual_data::{DEFAULT_MAX_PIXELS, DataConfig, DataName, Report, SplitReport, check, export, shown, shown_path};
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
    /// the unreadable and the duplicate files, and what was left out.
    #[command(verbatim_doc_comment)]
    Check {
        /// Directory of the dataset
        dir: PathBuf,
        /// Dataset [default: recognised from the files]
        #[arg(long, value_name = "NAME")]
        data: Option<DataName>,
        /// Largest number of pixels of an image
        ///
        /// Default: 89478485, above which Pillow warns of a decompression
        /// bomb. Decoding may need 16 bytes of memory per pixel.
        #[arg(long, value_name = "PIXELS", verbatim_doc_comment, default_value_t = DEFAULT_MAX_PIXELS, hide_default_value = true, value_parser = pixels())]
        max_pixels: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the images of a dataset as PNG files, in a folder per class
    ///
    /// Writes DIR/train/CLASS/INDEX.png and DIR/test/CLASS/INDEX.png, for
    /// example to try `residual predict` and `--data folder`.
    #[command(verbatim_doc_comment)]
    Export {
        /// Dataset, such as digits
        #[arg(value_parser = words::<DataName>())]
        name: DataName,
        /// New or empty directory to write to
        dir: PathBuf,
        /// Directory of the dataset's files
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Write only this many samples of each split, evenly spaced
        #[arg(long)]
        samples: Option<usize>,
    },
}

/// Runs the command `data`.
pub(crate) fn data(args: &DataCommandArgs) -> anyhow::Result<()> {
    match &args.command {
        DataCommand::List { json } => list(*json),
        DataCommand::Fetch { name, data_dir } => fetch(*name, data_dir.as_deref()),
        DataCommand::Check { dir, data, max_pixels, json } => check_folder(dir, *data, *max_pixels, *json),
        DataCommand::Export { name, dir, data_dir, samples } => {
            let config = DataConfig { dir: data_dir.clone(), samples: *samples, ..(*name).into() };
            let [train, test] = export(&config, dir)?;
            output::print(&format!("{}: {train} training images and {test} test images\n", dir.display()))
        }
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

fn check_folder(dir: &Path, name: Option<DataName>, max_pixels: u64, json: bool) -> anyhow::Result<()> {
    if name.is_some_and(|name| !name.has_files()) {
        return Err(
            Usage("digits and synthetic are embedded in the program; there are no files to check".into()).into()
        );
    }
    let report = check(dir, name, max_pixels)?;
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

/// The report in lines of at most 80 columns, except for long names of files.
fn text(dir: &Path, report: &Report) -> String {
    let classes = report.splits[0].counts.len();
    let noun = if classes == 1 { "class" } else { "classes" };
    let mut text = format!("{}: {}, {classes} {noun}\n", shown_path(dir), report.dataset);
    for (name, split) in ["training", "test"].iter().zip(&report.splits) {
        split_text(&mut text, name, split, &report.classes);
    }
    if !report.notes.is_empty() {
        text.push('\n');
        report.notes.iter().for_each(|note| wrap(&mut text, note));
    }
    let within = |path: &str| {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.into());
        shown_path(Path::new(path).strip_prefix(dir).unwrap_or(Path::new(path)))
    };
    if !report.unreadable.is_empty() {
        let _ = writeln!(text, "\n{} unreadable", report.unreadable.len());
        for (path, reason) in &report.unreadable {
            let _ = writeln!(text, "  {} {reason}", within(&path.to_string_lossy()));
        }
    }
    let groups = report.duplicates.len();
    let _ = writeln!(text, "\n{groups} {} of identical images", if groups == 1 { "group" } else { "groups" });
    for group in &report.duplicates {
        let mut names: Vec<String> = group.iter().take(MOST_NAMES).map(|name| within(name)).collect();
        if group.len() > names.len() {
            names.push(format!("{} more", group.len() - names.len()));
        }
        let _ = writeln!(text, "  {}", names.join(" = "));
    }
    text
}

/// The largest number of names printed for a group of identical images. JSON has all of them.
const MOST_NAMES: usize = 10;

fn split_text(text: &mut String, name: &str, split: &SplitReport, classes: &[String]) {
    /// More classes than this are not listed one by one.
    const MANY: usize = 20;
    const SHOWN: usize = 5;
    let numbers = |values: &[f32]| values.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(" ");
    let [[low, narrow], [high, wide]] = split.sizes;
    let size = if split.sizes[0] == split.sizes[1] {
        format!("{narrow}x{low} pixels")
    } else {
        format!("{narrow}x{low} to {wide}x{high} pixels")
    };
    let (mean, std) = (numbers(&split.statistics.mean), numbers(&split.statistics.std));
    if split.samples == 0 {
        let _ = writeln!(text, "\n{name}: no samples");
        return;
    }
    let noun = if split.samples == 1 { "sample" } else { "samples" };
    let _ = writeln!(text, "\n{name}: {} {noun} of {size}", split.samples);
    let _ = writeln!(text, "  mean {mean}, standard deviation {std}");
    let mut counts: Vec<(usize, String)> = split
        .counts
        .iter()
        .enumerate()
        .map(|(class, &count)| (count, classes.get(class).map_or_else(|| class.to_string(), |name| shown(name))))
        .collect();
    let line = |text: &mut String, (count, class): &(usize, String)| {
        let _ = writeln!(text, "  {count:>7}  {class}");
    };
    if counts.len() <= MANY {
        counts.iter().for_each(|entry| line(text, entry));
        return;
    }
    counts.sort();
    let (least, most) = (counts[0].0, counts[counts.len() - 1].0);
    if least == most {
        let _ = writeln!(text, "  {least} per class");
        return;
    }
    let _ = writeln!(text, "  {least} to {most} per class; the smallest and the largest classes:");
    counts[..SHOWN].iter().for_each(|entry| line(text, entry));
    let _ = writeln!(text, "      ...  {} more", counts.len() - 2 * SHOWN);
    counts[counts.len() - SHOWN..].iter().for_each(|entry| line(text, entry));
}

/// Appends a paragraph in lines of at most 80 columns, all but the first of them indented.
fn wrap(text: &mut String, paragraph: &str) {
    const COLUMNS: usize = 80;
    let mut line = String::new();
    for word in paragraph.split_whitespace() {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line = format!("  {word}");
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_data::Normalization;

    #[test]
    fn a_thousand_classes_fit_into_a_screen() {
        let split = SplitReport {
            samples: 500_500,
            counts: (1..=1000).rev().collect(),
            sizes: [[100, 75], [1200, 1600]],
            statistics: Normalization { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] },
        };
        let report = Report {
            dataset: DataName::Folder,
            classes: (1..=1000).map(|class| format!("class-{class:04}")).collect(),
            splits: [split.clone(), SplitReport { counts: vec![7; 1000], ..split }],
            unreadable: vec![(std::path::absolute("photos").unwrap().join("a/1.png"), "is empty".into())],
            duplicates: Vec::new(),
            notes: vec!["photos: left out 3 .heic and 1 .svg files in unsupported formats, and one more note".into()],
        };
        let text = text(Path::new("photos"), &report);
        assert!(text.lines().count() < 40 && text.lines().all(|line| line.len() <= 80), "{text}");
        for line in [
            "        1  class-1000",
            "     1000  class-0001",
            "      ...  990 more",
            "  7 per class",
            "  a/1.png is empty",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
