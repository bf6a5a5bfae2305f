use super::words;
use crate::Usage;
use residual_data::{DataConfig, DataName, Normalize};
use std::path::PathBuf;

/// The dataset.
#[derive(clap::Args)]
#[group(id = "dataset", multiple = true)]
pub(crate) struct DataArgs {
    /// Dataset [default: from the recipe, configuration or run, else digits]
    #[arg(long, help_heading = "Data", value_name = "NAME", value_parser = words::<DataName>())]
    pub(crate) data: Option<DataName>,
    /// Directory of the dataset's files
    ///
    /// Default: the directory that `residual data fetch` downloads to.
    #[arg(long, help_heading = "Data", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Side of the square crop of images in `--data folder`
    ///
    /// Default: 32 for nets for small images, else 224.
    #[arg(long, help_heading = "Data", value_name = "PIXELS")]
    pub(crate) side: Option<usize>,
    /// Use only this many training samples, evenly spaced
    ///
    /// The test set is limited to the same number.
    #[arg(long, help_heading = "Data")]
    pub(crate) samples: Option<usize>,
    /// Hold out this many training samples and evaluate on them
    ///
    /// They replace the test set. They are the last training samples, or
    /// evenly spaced ones with `--data folder`.
    #[arg(long, help_heading = "Data", value_name = "SAMPLES", verbatim_doc_comment)]
    pub(crate) validation: Option<usize>,
    /// Statistics by which images are normalised [default: all]
    ///
    /// all: one mean and one standard deviation.
    /// channel: a mean and a standard deviation for each channel.
    /// pixel: a mean for each pixel, and one standard deviation.
    #[arg(long, help_heading = "Data", value_name = "BY", verbatim_doc_comment, value_parser = words::<Normalize>())]
    pub(crate) normalize: Option<Normalize>,
    /// Do not turn photos upright by their EXIF orientation
    ///
    /// torchvision does not turn them either.
    #[arg(long, help_heading = "Data")]
    pub(crate) no_exif: bool,
}

impl DataArgs {
    /// Whether any of these flags is set.
    pub(crate) fn any(&self) -> bool {
        let Self { data, data_dir, side, samples, validation, normalize, no_exif } = self;
        let sizes = [side, samples, validation].iter().any(|size| size.is_some());
        data.is_some() || data_dir.is_some() || sizes || normalize.is_some() || *no_exif
    }

    /// Overrides the settings whose flags are set.
    pub(crate) fn apply(&self, data: DataConfig) -> anyhow::Result<DataConfig> {
        let Self { data: name, data_dir, side, samples, validation, normalize, no_exif } = self;
        // Another dataset resets the other settings. A recipe's normalisation stays, except for folders, which have
        // their own.
        let data = match name {
            Some(DataName::Folder) if data.name != DataName::Folder => DataName::Folder.into(),
            Some(name) if *name != data.name => DataConfig { normalize: data.normalize, ..(*name).into() },
            _ => data,
        };
        let folder = data.name == DataName::Folder;
        for (flag, unfit, expected) in [
            ("--data-dir", data_dir.is_some() && !data.name.has_files(), "datasets in files, such as --data folder"),
            ("--side", side.is_some() && !folder, "--data folder"),
            ("--no-exif", *no_exif && !folder, "--data folder"),
            ("--normalize", normalize.is_some() && folder, "datasets other than --data folder"),
        ] {
            if unfit {
                return Err(Usage(format!("{flag} is for {expected}, but the dataset is {}", data.name)).into());
            }
        }
        Ok(DataConfig {
            name: data.name,
            dir: data_dir.as_ref().map(std::path::absolute).transpose()?.or(data.dir),
            side: side.or(data.side),
            samples: samples.or(data.samples),
            validation: validation.unwrap_or(data.validation),
            normalize: normalize.unwrap_or(data.normalize),
            ignore_exif: *no_exif || data.ignore_exif,
        })
    }
}
