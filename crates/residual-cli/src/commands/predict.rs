use crate::{
    Usage,
    args::{ModelArgs, pixels},
    classes::ClassNames,
    model::Model,
    output::{self, log, percent},
};
use burn::tensor::{Tensor, TensorData, activation::softmax};
use residual_data::{DEFAULT_MAX_PIXELS, DataError, Preprocessing, image_files, shown, shown_path};
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// Classify image files
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual predict --pretrained resnet50 --labels imagenet.txt dog.jpg cat.png
  residual predict --weights runs/resnet20-digits-0 seven.png
  residual predict --weights runs/resnet20-digits-0 digits/test")]
pub(crate) struct PredictArgs {
    /// Image files, or folders of them
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// File of class names, one per line
    ///
    /// Default: the names in the weights' card, else class numbers.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Number of most probable classes to print
    #[arg(long, default_value_t = 5)]
    pub(crate) top: usize,
    /// Length in pixels of the shorter side after resizing
    ///
    /// Default: from the preprocessing that belongs to the weights.
    #[arg(long)]
    pub(crate) resize: Option<usize>,
    /// Side of the square centre crop in pixels
    ///
    /// Default: from the preprocessing that belongs to the weights.
    #[arg(long)]
    pub(crate) crop: Option<usize>,
    /// Largest number of pixels of an image
    ///
    /// Default: 89478485, above which Pillow warns of a decompression bomb.
    /// Decoding may need 16 bytes of memory per pixel.
    #[arg(long, value_name = "PIXELS", verbatim_doc_comment, default_value_t = DEFAULT_MAX_PIXELS, hide_default_value = true, value_parser = pixels())]
    pub(crate) max_pixels: u64,
    /// Do not turn photos upright by their EXIF orientation
    ///
    /// torchvision does not turn them either.
    #[arg(long)]
    pub(crate) no_exif: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `predict`. Images that cannot be read are reported; the others are classified.
pub(crate) fn predict(args: &PredictArgs) -> anyhow::Result<()> {
    if args.top == 0 {
        return Err(Usage("--top must be at least 1".into()).into());
    }
    let model = args.model.open()?;
    let Some(mut preprocessing) = model.card.preprocessing.clone() else {
        let text = "the preprocessing of images for these weights is unknown; give it with --mean and --std";
        return Err(Usage(text.into()).into());
    };
    if let (None, None, Some(convention)) = (args.resize, args.crop, &model.size_convention) {
        log!("{convention}");
    }
    preprocessing.crop = args.crop.unwrap_or(preprocessing.crop);
    preprocessing.resize = args.resize.unwrap_or(preprocessing.resize.max(preprocessing.crop));
    preprocessing.ignore_exif |= args.no_exif;
    preprocessing.validate().map_err(Usage)?;
    model.check_image(preprocessing.shape())?;
    model.check_memory(preprocessing.shape(), 1, "take a smaller crop with --resize and --crop")?;
    let names = ClassNames::of(args.labels.as_deref(), &model.card)?;
    let label = |class: usize| match names.known() {
        Some(names) => names[class].clone(),
        None => format!("class {class}"),
    };

    let images = image_paths(&args.images)?;
    let (mut rows, mut text, mut failed) = (Vec::new(), String::new(), 0);
    for path in &images {
        let name = path.display().to_string();
        let probabilities = match classify(&model, &preprocessing, path, args.max_pixels) {
            Ok(probabilities) => probabilities,
            Err(error) => {
                let is_large = matches!(error.downcast_ref(), Some(DataError::Pixels { .. }));
                log!("error: {error}{}", if is_large { "; allow more with --max-pixels" } else { "" });
                rows.push(serde_json::json!({ "image": name, "error": error.to_string() }));
                failed += 1;
                continue;
            }
        };
        let mut classes: Vec<usize> = (0..probabilities.len()).collect();
        classes.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        classes.truncate(args.top);
        let _ = writeln!(text, "{}", shown_path(path));
        for &class in &classes {
            let _ = writeln!(text, "  {:>9}  {}", percent(f64::from(probabilities[class])), shown(&label(class)));
        }
        let top = |&class: &usize| serde_json::json!({ "class": class, "label": label(class), "probability": probabilities[class] });
        rows.push(serde_json::json!({ "image": name, "top": classes.iter().map(top).collect::<Vec<_>>() }));
    }
    if args.json {
        output::print_json(&rows)?;
    } else {
        output::print(&text)?;
    }
    match failed {
        0 => Ok(()),
        _ => anyhow::bail!("{failed} of {} images could not be classified", images.len()),
    }
}

/// The given files, and the images in the given folders and the folders within them.
fn image_paths(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for path in given {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let inside = image_files(path)?;
        if inside.is_empty() {
            return Err(Usage(format!("{} contains no image files", path.display())).into());
        }
        images.extend(inside);
    }
    Ok(images)
}

/// The probabilities of the classes.
fn classify(model: &Model, preprocessing: &Preprocessing, path: &Path, max_pixels: u64) -> anyhow::Result<Vec<f32>> {
    let pixels = preprocessing.read_up_to(path, max_pixels)?;
    let [channels, height, width] = preprocessing.shape();
    let image = TensorData::new(pixels, [1, channels, height, width]);
    let image = Tensor::<4>::from_data(image, &model.hardware.device.clone().inner());
    let probabilities: Vec<f32> = softmax(model.network.forward(image), 1).into_data().iter::<f32>().collect();
    if !probabilities.iter().all(|p| p.is_finite()) {
        anyhow::bail!("{}: the network's scores are NaN or infinite; check the weights", shown_path(path));
    }
    Ok(probabilities)
}
