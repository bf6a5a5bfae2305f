use crate::{
    Usage,
    args::{DataArgs, ModelArgs, Reset, fit_side},
    classes::ClassNames,
    model::Model,
    output::{self, log, percent},
};
use clap::ValueEnum;
use residual_data::{DataConfig, DataName, Dataset, HeldOut, Preprocessing, Relabeled, Source, escaped, shown};
use residual_train::{Predictions, files, predict};
use std::{
    collections::HashSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Measure the error of a network with given weights on a dataset
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual eval --weights runs/resnet20-digits-0
  residual eval --net resnet20 --weights resnet20.th --data digits
  residual eval --weights runs/resnet20-digits-0 --predictions predicted.txt")]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Split of the dataset
    ///
    /// validation: the training samples that a training held out.
    /// Default: all for a folder that has no split of its own and was not
    /// trained on, else test.
    #[arg(long, value_enum, verbatim_doc_comment)]
    pub(crate) split: Option<SplitName>,
    /// File of the names of the network's classes, one per line
    ///
    /// Default: the names in the weights' card or run.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Samples per batch
    #[arg(long, default_value_t = 128)]
    pub(crate) batch_size: usize,
    /// Write the predicted class of each sample to this file, one per line
    ///
    /// A .csv file has the sample's file or number, its class, and the
    /// predicted class. Classes are names if they are known, else numbers.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub(crate) predictions: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A split that can be evaluated on.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum SplitName {
    Train,
    Validation,
    Test,
    All,
}

impl SplitName {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::All => "all",
        }
    }
}

/// Runs the command `eval`.
pub(crate) fn eval(args: &EvalArgs) -> anyhow::Result<()> {
    if args.batch_size == 0 {
        return Err(Usage("the batch size must be at least 1".into()).into());
    }
    if let Some(path) = args.predictions.as_ref().filter(|path| path.exists()) {
        return Err(Usage(format!("{} exists; choose another file for the predictions", path.display())).into());
    }
    let model = args.model.open()?;
    let data = data_of(args, &model)?;
    let dataset = load(&data, args, &model)?;
    dataset.notes.iter().for_each(|note| log!("note: {note}"));
    model.check_image(dataset.shape())?;
    let split = args.split.unwrap_or_else(|| default_split(&data, &dataset, &model));
    // Samples that --validation holds out replace the test samples.
    let split = if split == SplitName::Test && data.validation > 0 { SplitName::Validation } else { split };
    let source = match split {
        SplitName::Train => dataset.train.clone(),
        SplitName::Validation | SplitName::Test => dataset.test.clone(),
        SplitName::All => dataset.all(),
    };
    if source.is_empty() {
        return Err(Usage(format!("{data} has no samples in the split `{}`", split.name())).into());
    }
    let batch_size = args.batch_size.min(source.len());
    model.check_memory(source.shape(), batch_size, "choose a smaller --batch-size or --side")?;
    let network = &model.card.network;
    let names = ClassNames::of(args.labels.as_deref(), &model.card)?;
    let source = with_labels_of(&names, &source, &data, network.classes)?;
    let predictions = predict(&model.network, &source, batch_size, &model.hardware.device)?;
    if let Some(path) = &args.predictions {
        files::write(path, predictions_file(path, &predictions, &*source, &names).as_bytes())?;
    }
    let name = network.name().to_string();
    let top5 = (network.classes > 5).then(|| predictions.top_k_error(5));
    let table = predictions.confusion();
    if args.json {
        let mut value = serde_json::json!({
            "network": name,
            "data": data.to_string(),
            "split": split.name(),
            "samples": predictions.labels.len(),
            "loss": predictions.loss,
            "error": predictions.top_k_error(1),
        });
        if let Some(names) = names.known() {
            value["classes"] = serde_json::json!(names);
        }
        if let Some(top5) = top5 {
            value["top5_error"] = top5.into();
        }
        if table.len() <= LARGEST_TABLE {
            value["confusion"] = serde_json::json!(table);
        } else {
            let pair = |(count, label, predicted): (usize, usize, usize)| serde_json::json!({ "count": count, "true": names.name(label), "predicted": names.name(predicted) });
            value["confusions"] = confusions(&table).into_iter().map(pair).collect();
        }
        return output::print_json(&value);
    }
    let error = percent(predictions.top_k_error(1));
    let mut text = match split {
        SplitName::All => format!("error {error} on all images\n"),
        split => format!("{} error {error}\n", split.name()),
    };
    if let Some(top5) = top5 {
        let _ = writeln!(text, "top-5 error {}", percent(top5));
    }
    let _ = writeln!(text, "loss {:.4} over {} images of {data}, {name}", predictions.loss, predictions.labels.len());
    add_confusions(&mut text, &predictions, &table, &names);
    output::print(&text)
}

/// The dataset to measure: by default, the one that the weights were trained on. The whole split is measured unless
/// flags limit it, even if the training used less.
fn data_of(args: &EvalArgs, model: &Model) -> anyhow::Result<DataConfig> {
    let trained = model.data.clone().unwrap_or_default();
    let held_out = trained.validation;
    let mut data = args.data.apply(DataConfig { samples: None, validation: 0, ..trained.clone() })?;
    let same = is_same(&data, &trained);
    let of_training = matches!(args.split, Some(SplitName::Train | SplitName::Validation));
    if of_training && args.data.validation.is_none() && same {
        data.validation = held_out;
    }
    if args.split == Some(SplitName::Validation) && data.validation == 0 {
        let text = "the training held out no samples for validation; give their number with --validation";
        return Err(Usage(text.into()).into());
    }
    fit_side(&mut data, &model.card.network);
    Ok(data)
}

/// Whether both are the same dataset in the same place, however its path is spelled.
fn is_same(data: &DataConfig, trained: &DataConfig) -> bool {
    let place = |data: &DataConfig| data.dir.as_ref().map(|dir| fs::canonicalize(dir).unwrap_or_else(|_| dir.clone()));
    data.name == trained.name && place(data) == place(trained)
}

/// A folder that has no split of its own is measured whole, unless the weights were trained on a part of it.
fn default_split(data: &DataConfig, dataset: &Dataset, model: &Model) -> SplitName {
    let trained_on = model.data.as_ref().is_some_and(|trained| is_same(data, trained));
    if data.name == DataName::Folder && dataset.held_out == HeldOut::Chosen && !trained_on {
        SplitName::All
    } else {
        SplitName::Test
    }
}

/// The predicted class of each sample, one per line, or in a CSV file the sample, its class and the predicted class.
fn predictions_file(path: &Path, predictions: &Predictions, source: &dyn Source, names: &ClassNames) -> String {
    let classes = predictions.labels.iter().zip(&predictions.predicted);
    if path.extension().is_none_or(|ending| ending != "csv") {
        return classes.map(|(_, &predicted)| names.name(predicted) + "\n").collect();
    }
    let quoted = |text: String| {
        if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    let row = |(i, (&label, &predicted)): (usize, (&usize, &usize))| {
        let sample = source.name(i).unwrap_or_else(|| i.to_string());
        [sample, names.name(label), names.name(predicted)].map(quoted).join(",") + "\n"
    };
    classes.enumerate().map(row).fold("sample,true,predicted\n".into(), |text, row| text + &row)
}

/// Loads the dataset with the preprocessing that the weights were trained with. If that is unknown, pixels are
/// normalised with the dataset's own statistics.
fn load(data: &DataConfig, args: &EvalArgs, model: &Model) -> anyhow::Result<Dataset> {
    let is_folder = data.name == DataName::Folder;
    let Some(known) = &model.card.preprocessing else {
        log!("note: the normalisation that these weights expect is unknown; using that of {data} (see --mean, --std)");
        if let (true, None, Some(side)) = (is_folder, &args.data.side, data.side) {
            log!("note: the size of images that they expect is unknown; using {side}x{side} pixels (see --side)");
        }
        return Ok(data.load()?);
    };
    if let (true, None, Some(convention)) = (is_folder, &args.data.side, &model.size_convention) {
        log!("note: {}", convention.replace("--resize and --crop", "--side"));
    }
    let mut preprocessing = Preprocessing { ignore_exif: known.ignore_exif || data.ignore_exif, ..known.clone() };
    if let Some(Reset(Some(side))) = args.data.side {
        preprocessing = Preprocessing {
            resize: known.resize.saturating_mul(side).div_ceil(known.crop),
            crop: side,
            ..preprocessing
        };
    }
    Ok(data.load_as(preprocessing)?)
}

/// The source with the network's labels. Classes are matched by name where both sides have names.
fn with_labels_of(
    names: &ClassNames,
    source: &Arc<dyn Source>,
    data: &DataConfig,
    classes: usize,
) -> anyhow::Result<Arc<dyn Source>> {
    let (Some(network), Some(own)) = (names.known(), source.class_names()) else {
        // Folders are numbered in the order of their names, so a missing folder would shift all labels behind it.
        if data.name == DataName::Folder && source.classes() != classes {
            let text = format!(
                "the folder has {} classes, the network {classes}, and the names of the network's classes are unknown; \
                 give them with --labels",
                source.classes()
            );
            return Err(Usage(text).into());
        }
        if data.name == DataName::Folder {
            log!("note: the network's class names are unknown; taking its classes in the order of the folders");
        }
        return Ok(source.clone());
    };
    if own == network {
        return Ok(source.clone());
    }
    let relabeled = Relabeled::new(source.clone(), network.to_vec())?;
    let own: HashSet<&String> = own.iter().collect();
    let missing: Vec<&String> = network.iter().filter(|name| !own.contains(name)).collect();
    if missing.is_empty() {
        log!("note: the classes of {data} are in another order than the network's; matching them by name");
    } else {
        let (count, more) = (missing.len(), if missing.len() > 5 { ", ..." } else { "" });
        let first: Vec<String> = missing.iter().take(5).map(|name| shown(name)).collect();
        let first = first.join(", ");
        log!("note: {data} has no samples of {count} of the network's {classes} classes: {first}{more}");
    }
    Ok(Arc::new(relabeled))
}

/// The largest number of classes for which JSON holds the whole confusion matrix.
const LARGEST_TABLE: usize = 20;

/// The confusions, most frequent first: count, true class, predicted class.
fn confusions(table: &[Vec<usize>]) -> Vec<(usize, usize, usize)> {
    let pairs =
        table.iter().enumerate().flat_map(|(label, row)| row.iter().enumerate().map(move |(c, &n)| (n, label, c)));
    let mut pairs: Vec<_> = pairs.filter(|&(n, label, c)| n > 0 && label != c).collect();
    pairs.sort_by_key(|&(n, label, c)| (std::cmp::Reverse(n), label, c));
    pairs
}

/// Appends the confusion matrix, or the most frequent confusions if the matrix does not fit into 80 columns.
fn add_confusions(text: &mut String, predictions: &Predictions, table: &[Vec<usize>], names: &ClassNames) {
    const COLUMNS: usize = 80;
    let largest = table.iter().flatten().max().copied().unwrap_or_default();
    let cell = largest.to_string().len().max(3) + 1;
    let room = COLUMNS.saturating_sub(table.len() * cell + 4).clamp(8, 40);
    let numbered = |class: usize| match names.known() {
        Some(names) if names[class] != class.to_string() => format!("{class:>3} {}", shortened(&names[class], room)),
        _ => format!("{class:>3}"),
    };
    let head = (0..table.len()).map(|class| numbered(class).chars().count()).max().unwrap_or_default();
    if head + table.len() * cell <= COLUMNS {
        *text += "\ntrue class (row) against predicted class (column)\n";
        let header: String = (0..table.len()).map(|class| format!("{class:>cell$}")).collect();
        let _ = writeln!(text, "{:head$}{header}", "");
        for (label, row) in table.iter().enumerate() {
            let row: String = row.iter().map(|n| format!("{n:>cell$}")).collect();
            let _ = writeln!(text, "{:head$}{row}", numbered(label));
        }
        return;
    }
    *text += &format!("\nmost frequent of {} confusions: count, true class, predicted class\n", {
        predictions.rank.iter().filter(|&&rank| rank > 0).count()
    });
    for (n, label, predicted) in confusions(table).into_iter().take(10) {
        let [label, predicted] = [label, predicted].map(|class| shortened(&names.name(class), 34));
        let _ = writeln!(text, "{n:>6}  {label:<34}  {predicted}");
    }
}

/// A name on one line of at most `columns` characters. The middle of a longer name is left out, because long names often
/// differ at their ends.
fn shortened(name: &str, columns: usize) -> String {
    let name: Vec<char> = escaped(name).chars().collect();
    if name.len() <= columns {
        return name.into_iter().collect();
    }
    let front = columns / 2;
    let back = columns - 1 - front;
    name[..front].iter().chain(&['…']).chain(&name[name.len() - back..]).collect()
}
