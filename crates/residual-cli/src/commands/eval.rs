use crate::{
    Usage,
    args::{DataArgs, ModelArgs},
    output::{self, percent},
};
use clap::ValueEnum;
use residual_data::{DataName, Normalization};
use residual_train::{Predictions, files, predict};
use std::{fmt::Write, path::PathBuf};

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
    #[arg(long, value_enum, default_value = "test")]
    pub(crate) split: SplitName,
    /// Samples per batch
    #[arg(long, default_value_t = 128)]
    pub(crate) batch_size: usize,
    /// Write the predicted class of each sample to this file, one per line
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A split that can be evaluated on.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SplitName {
    Train,
    Test,
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
    let mut data = args.data.apply(model.data.clone().unwrap_or_default())?;
    if let (DataName::Folder, None, Some(network)) = (data.name, data.side, model.card.network.as_conv()) {
        data.side = Some(network.image[1]);
    }
    // The normalisation the weights were trained with; if unknown, the dataset's own.
    let dataset = match &model.card.preprocessing {
        Some(known) => {
            data.ignore_exif |= known.ignore_exif;
            data.load_normalized(Normalization { mean: known.mean.clone(), std: known.std.clone() })?
        }
        None => data.load()?,
    };
    let network = &model.card.network;
    model.check_image(dataset.shape())?;
    let (source, split) = match args.split {
        SplitName::Train => (&dataset.train, "training"),
        SplitName::Test => (&dataset.test, "test"),
    };
    let predictions = predict(&model.network, source, args.batch_size, &model.hardware.device)?;
    if let Some(path) = &args.predictions {
        let lines: String = predictions.predicted.iter().map(|class| format!("{class}\n")).collect();
        files::write(path, lines.as_bytes())?;
    }
    let name = network.name().to_string();
    if args.json {
        return output::print_json(&serde_json::json!({
            "network": name,
            "data": data.to_string(),
            "split": split,
            "samples": predictions.labels.len(),
            "loss": predictions.loss,
            "error": predictions.top_k_error(1),
            "top5_error": predictions.top_k_error(5),
            "confusion": predictions.confusion(),
        }));
    }
    let mut text = format!(
        "{split} error {}\ntop-5 error {}\nloss {:.4} over {} images of {data}, {name}\n",
        percent(predictions.top_k_error(1)),
        percent(predictions.top_k_error(5)),
        predictions.loss,
        predictions.labels.len()
    );
    confusion(&mut text, &predictions);
    output::print(&text)
}

/// Appends the confusion table. With many classes it appends the most frequent confusions instead.
fn confusion(text: &mut String, predictions: &Predictions) {
    const WIDEST: usize = 20;
    let table = predictions.confusion();
    if table.len() <= WIDEST {
        *text += "\ntrue class (row) against predicted class (column)\n";
        let _ = writeln!(text, "{:>6}{}", "", (0..table.len()).map(|c| format!("{c:>6}")).collect::<String>());
        for (label, row) in table.iter().enumerate() {
            let _ = writeln!(text, "{label:>6}{}", row.iter().map(|n| format!("{n:>6}")).collect::<String>());
        }
        return;
    }
    let pairs =
        table.iter().enumerate().flat_map(|(label, row)| row.iter().enumerate().map(move |(c, &n)| (n, label, c)));
    let mut pairs: Vec<_> = pairs.filter(|&(n, label, c)| n > 0 && label != c).collect();
    pairs.sort_by(|a, b| b.cmp(a));
    *text += "\nmost frequent confusions: count, true class, predicted class\n";
    for (n, label, c) in pairs.into_iter().take(10) {
        let _ = writeln!(text, "{n:>6}{label:>6}{c:>6}");
    }
}
