use super::{Reset, or_word, words};
use crate::{Usage, output::log};
use clap::{builder::RangedU64ValueParser, value_parser};
use residual_data::{DataConfig, DataName, Normalize, recognize};
use residual_model::NetworkConfig;
use std::path::PathBuf;

/// The dataset.
#[derive(Clone, clap::Args)]
#[group(id = "dataset", multiple = true)]
pub(crate) struct DataArgs {
    /// Dataset [default: from the recipe, configuration or run, else digits]
    #[arg(long, help_heading = "Data", value_name = "NAME", value_parser = words::<DataName>())]
    pub(crate) data: Option<DataName>,
    /// Directory of the dataset's files
    ///
    /// Default: the directory that `residual data fetch` downloads to.
    /// Without --data, and if no recipe or configuration names a dataset in
    /// files, the dataset is recognised from the files.
    #[arg(long, help_heading = "Data", value_name = "DIR", verbatim_doc_comment)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Side of the square crop of images in `--data folder`, or `default`
    ///
    /// Default: 32 for nets for small images, else 224.
    #[arg(long, help_heading = "Data", value_name = "PIXELS", value_parser = or_word::<usize>("default"))]
    pub(crate) side: Option<Reset<usize>>,
    /// Use only this many training samples, evenly spaced, or `all`
    ///
    /// The test set is limited to the same number.
    #[arg(long, help_heading = "Data", value_parser = or_word::<usize>("all"))]
    pub(crate) samples: Option<Reset<usize>>,
    /// Hold out this many training samples and evaluate on them; 0 for none
    ///
    /// They replace the test set. They are the last training samples, or with
    /// `--data folder` about the same share of every class, chosen by hashes
    /// of the paths.
    #[arg(long, help_heading = "Data", value_name = "SAMPLES", verbatim_doc_comment)]
    pub(crate) validation: Option<usize>,
    /// Hold out images of `--data folder` in groups, by a regular expression
    ///
    /// It is matched with the path within the class folder. Images with the
    /// same first group in parentheses, or the same match, stay together:
    /// `(scene\d+)/`. `none` for no groups.
    #[arg(long, help_heading = "Data", value_name = "REGEX", verbatim_doc_comment)]
    pub(crate) group_by: Option<String>,
    /// Leave out at most this many broken images of `--data folder`
    ///
    /// Decodes every image once before the start. Without it, a broken image
    /// ends the command.
    #[arg(long, help_heading = "Data", value_name = "IMAGES", verbatim_doc_comment)]
    pub(crate) skip_broken: Option<usize>,
    /// Largest number of pixels of an image, or `default`
    ///
    /// Default: 89478485, above which Pillow warns of a decompression bomb.
    /// Decoding may need 16 bytes of memory per pixel.
    #[arg(long, help_heading = "Data", value_name = "PIXELS", verbatim_doc_comment, value_parser = or_word::<u64>("default"))]
    pub(crate) max_pixels: Option<Reset<u64>>,
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
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_exif: Option<bool>,
}

/// Parses a number of pixels.
pub(crate) fn pixels() -> RangedU64ValueParser {
    value_parser!(u64).range(1..)
}

/// Crops the images of a folder to the side that a network takes, unless a side is given.
pub(crate) fn fit_side(data: &mut DataConfig, network: &NetworkConfig) {
    if let (DataName::Folder, None, Some(network)) = (data.name, data.side, network.as_conv()) {
        data.side = Some(network.image[1]);
    }
}

impl DataArgs {
    /// Whether any of these flags is set.
    pub(crate) fn any(&self) -> bool {
        let Self { data, data_dir, side, samples, validation, group_by, skip_broken, max_pixels, normalize, no_exif } =
            self;
        let numbers = side.is_some() || samples.is_some() || validation.is_some() || skip_broken.is_some();
        let choices = max_pixels.is_some() || group_by.is_some() || normalize.is_some() || no_exif.is_some();
        data.is_some() || data_dir.is_some() || numbers || choices
    }

    /// Overrides the settings whose flags are set.
    pub(crate) fn apply(&self, data: DataConfig) -> anyhow::Result<DataConfig> {
        let Self {
            data: name,
            data_dir,
            side,
            samples,
            validation,
            group_by,
            skip_broken,
            max_pixels,
            normalize,
            no_exif,
        } = self;
        let name = name.or(self.recognized(&data)?);
        // Another dataset resets the other settings. A recipe's normalisation stays, except for folders, which have
        // their own.
        let data = match name {
            Some(DataName::Folder) if data.name != DataName::Folder => DataName::Folder.into(),
            Some(name) if name != data.name => DataConfig { normalize: data.normalize, ..name.into() },
            _ => data,
        };
        let folder = data.name == DataName::Folder;
        let of_folders = "--data folder";
        for (flag, unfit, expected) in [
            ("--data-dir", data_dir.is_some() && !data.name.has_files(), "datasets in files, such as --data folder"),
            ("--side", side.is_some() && !folder, of_folders),
            ("--no-exif", no_exif.is_some() && !folder, of_folders),
            ("--group-by", group_by.is_some() && !folder, of_folders),
            ("--skip-broken", skip_broken.is_some() && !folder, of_folders),
            ("--max-pixels", max_pixels.is_some() && !folder, of_folders),
            ("--normalize", normalize.is_some() && folder, "datasets other than --data folder"),
        ] {
            if unfit {
                return Err(Usage(format!("{flag} is for {expected}, but the dataset is {}", data.name)).into());
            }
        }
        Ok(DataConfig {
            name: data.name,
            dir: data_dir.as_ref().map(std::path::absolute).transpose()?.or(data.dir),
            side: Reset::or(side.as_ref(), data.side),
            samples: Reset::or(samples.as_ref(), data.samples),
            validation: validation.unwrap_or(data.validation),
            normalize: normalize.unwrap_or(data.normalize),
            ignore_exif: no_exif.unwrap_or(data.ignore_exif),
            skip_broken: skip_broken.unwrap_or(data.skip_broken),
            max_pixels: Reset::or(max_pixels.as_ref(), data.max_pixels),
            group_by: match group_by.as_deref() {
                Some("none") => None,
                Some(pattern) => Some(pattern.into()),
                None => data.group_by,
            },
        })
    }

    /// The dataset of a resumed training, in the directory that `--data-dir` names if it is given.
    pub(crate) fn moved(&self, data: DataConfig) -> anyhow::Result<DataConfig> {
        match &self.data_dir {
            Some(_) if !data.name.has_files() => {
                Err(Usage(format!("--data-dir is for datasets in files, but the dataset is {}", data.name)).into())
            }
            Some(dir) => Ok(DataConfig { dir: Some(std::path::absolute(dir)?), ..data }),
            None => Ok(data),
        }
    }

    /// The dataset recognised in `--data-dir`, if `--data` is not given and the dataset would otherwise be a built-in
    /// one.
    fn recognized(&self, data: &DataConfig) -> anyhow::Result<Option<DataName>> {
        match &self.data_dir {
            Some(dir) if self.data.is_none() && !data.name.has_files() => {
                let name = recognize(dir)?;
                log!("note: recognised {} as --data {name}", dir.display());
                Ok(Some(name))
            }
            _ => Ok(None),
        }
    }
}
