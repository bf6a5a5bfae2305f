use super::sweep::default_jobs;
use crate::{
    Interrupted, Usage,
    args::{BackendArgs, DataArgs, NetworkArgs, net, words},
    command_line::quoted,
    model::{Filled, Weights},
    output::{self, Progress, log},
};
use residual_data::{DataConfig, DataName, Synthetic};
use residual_lab::{InspectConfig, Inspection, LabError, Measurement, Subject, SweepResults};
use residual_report::{InspectionView, draw_inspection};
use residual_train::{Device, Environment, Start, StopFlag, TrainConfig, TrainError, files};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Measure inside networks why shortcuts help: gradients, paths, lesions
///
/// A subject is the directory of a finished run, which is only read, a file of
/// weights, or the name of a network, which is measured at its initial weights.
/// The folder of a sweep stands for its shallowest and its deepest nets.
/// Without --data, a file of weights is measured on random images.
/// Each measurement writes NAME.csv, NAME.svg and NAME.json.
/// `residual report` makes a page of them.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Measurements:
  gradients    gradient norm of each layer, at initialisation and in training,
               with and without norm
  activations  scale of block outputs and layer responses, main path relative to
               input
  lesion       test error with blocks removed or swapped (trained networks)
  alpha        error of networks trained with weaker shortcuts
  paths        gradient by path length, effective depth (residual networks)
  landscape    loss around the weights
  shattered    autocorrelation of gradients at neighbouring inputs

Examples:
  residual inspect plain56 resnet56 --what gradients,activations
  residual inspect dense-plain32 --what gradients --width 256 --images 1024
  residual inspect runs/plain20 runs/resnet20 --what lesion,landscape
  residual inspect sweep --what lesion
  residual inspect resnet56.safetensors --data cifar10 --what lesion
  residual inspect runs/resnet20 --what gradients --steps 1,10,100
  residual inspect resnet32 --what alpha --epochs 7 --seeds 3"
)]
pub(crate) struct InspectArgs {
    /// Run directories, sweeps, files of weights, or names of networks
    #[arg(required = true, value_name = "RUN|FILE|NET")]
    pub(crate) subjects: Vec<PathBuf>,
    /// Measurements, separated by commas
    #[arg(long, default_value = "gradients,activations", value_delimiter = ',', value_name = "WHAT", value_parser = words::<Measurement>())]
    pub(crate) what: Vec<Measurement>,
    /// Directory for the results [default: inspect/SUBJECT-SUBJECT...]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Images to measure on [default: 512]
    #[arg(long, value_name = "IMAGES")]
    pub(crate) images: Option<usize>,
    /// Initialisations over which gradients are averaged [default: 10]
    #[arg(long)]
    pub(crate) inits: Option<u64>,
    /// Also measure gradients after these training steps, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) steps: Vec<usize>,
    /// Trainings per skip strength [default: 2]
    #[arg(long)]
    pub(crate) seeds: Option<u64>,
    /// Random draws of blocks, paths and lines of inputs [default: 20]
    #[arg(long)]
    pub(crate) draws: Option<usize>,
    /// Points along each direction of a landscape [default: 21]
    #[arg(long)]
    pub(crate) points: Option<usize>,
    /// Seed of a network given by name [default: 0]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Epochs of trainings of a network given by name [default: 10]
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Learning rate of trainings of a network given by name [default: 0.05]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// Parallel measurements, one core each [default: all cores, 1 on a GPU]
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print findings and all values as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `inspect`.
pub(crate) fn inspect(args: &InspectArgs, stop: &StopFlag) -> anyhow::Result<()> {
    let (backend, hardware) = args.backend.open()?;
    let usual = InspectConfig::default();
    let config = InspectConfig {
        samples: args.images.unwrap_or(usual.samples),
        inits: args.inits.unwrap_or(usual.inits),
        steps: args.steps.clone(),
        seeds: args.seeds.unwrap_or(usual.seeds),
        draws: args.draws.unwrap_or(usual.draws),
        points: args.points.unwrap_or(usual.points),
        jobs: args.jobs.unwrap_or_else(|| default_jobs(backend)),
        stop: stop.clone(),
    };
    config.validate()?;
    let names = expanded(&args.subjects)?;
    let training = args.seed.is_some() || args.epochs.is_some() || args.lr.is_some();
    if names.iter().all(|name| name.is_dir()) && (training || args.data.any() || args.network.any()) {
        let text = "data, network and training flags are for networks given by name; a run has its own settings";
        return Err(Usage(text.into()).into());
    }
    if names.iter().all(|name| name.exists()) && training {
        return Err(Usage("--seed, --epochs and --lr are for networks given by name".into()).into());
    }
    let needs_labels = [Measurement::Lesion, Measurement::Landscape].into_iter().find(|what| args.what.contains(what));
    if let (Some(file), Some(what), None) = (names.iter().find(|name| name.is_file()), needs_labels, args.data.data) {
        let file = file.display();
        return Err(Usage(format!("{what} needs images with labels; name the dataset of {file} with --data")).into());
    }
    let subjects = names.iter().map(|name| subject(args, name, &hardware.device));
    let subjects = subjects.collect::<anyhow::Result<Vec<Subject>>>()?;
    args.what.iter().try_for_each(|&measurement| Inspection::check(measurement, &subjects, &config))?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.subjects));
    args.what.iter().try_for_each(|&measurement| Inspection::check_replaceable(&out, measurement))?;
    files::create_dir(&out)?;
    // Otherwise the files of two inspections at once could lie side by side.
    let lock = files::lock_directory(&out)?;
    let find = |&measurement: &Measurement| -> anyhow::Result<Found> {
        let inspection = measure(measurement, &subjects, &config, Environment::here(backend, &hardware))?;
        files::check_in_place(&lock, &out)?;
        Inspection::check_replaceable(&out, measurement)?;
        inspection.write(&out)?;
        draw_inspection(&inspection).iter().try_for_each(|drawn| drawn.write(&out))?;
        let InspectionView { finding, details, .. } = InspectionView::of(&inspection);
        if !args.json {
            let figure = out.join(format!("{measurement}.svg"));
            let details: String = details.iter().map(|detail| format!("  {detail}\n")).collect();
            output::print(&format!("{finding}\n{details}  {}\n\n", figure.display()))?;
        }
        Ok(Found { finding, details, inspection })
    };
    let found: anyhow::Result<Vec<Found>> = args.what.iter().map(find).collect();
    lock.remove();
    let found = found?;
    if args.json { output::print_json(&found) } else { Ok(()) }
}

/// A measurement with its results in words, for `--json`.
#[derive(Serialize)]
struct Found {
    finding: String,
    details: Vec<String>,
    #[serde(flatten)]
    inspection: Inspection,
}

/// Replaces the folder of a sweep by the networks to measure of its first family.
fn expanded(names: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for name in names {
        if !name.join("sweep.json").is_file() {
            all.push(name.clone());
            continue;
        }
        let families = SweepResults::networks(name)?;
        let Some((family, runs)) = families.iter().find(|(_, runs)| !runs.is_empty()) else {
            let name = name.display();
            return Err(Usage(format!("{name} holds a sweep without weights of finished trainings")).into());
        };
        log!("note: the {family} nets of {}: {}", name.display(), listed(runs));
        for (family, runs) in families.iter().filter(|(other, runs)| other != family && !runs.is_empty()) {
            log!("note: for its {family} nets: residual inspect {}", listed(runs));
        }
        all.extend(runs.iter().cloned());
    }
    Ok(all)
}

/// The paths in a row, quoted for a shell.
fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| quoted(&path.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// Loads the weights of a file. Without `--data`, the network is measured on random images.
fn subject_of_weights(args: &InspectArgs, file: &Path, device: &Device) -> anyhow::Result<Subject> {
    let weights = Weights::of(&Start { weights: Some(file.into()), ..Start::default() })?;
    let Filled { network, card, not_finite, .. } = weights.network(None, &args.network, device)?;
    if let Some(not_finite) = not_finite {
        log!("note: {not_finite}");
    }
    let network_config = card.network;
    let data = match args.data.data {
        Some(_) => args.data.apply(DataConfig::default())?,
        None => DataName::Synthetic.into(),
    };
    let dataset = match (args.data.data, card.preprocessing) {
        (Some(_), _) => data.load()?,
        (None, preprocessing) => {
            let image = network_config.as_conv().map(|conv| conv.image);
            let shape = image.or(preprocessing.map(|p| p.shape())).unwrap_or([1, 1, network_config.features()]);
            let (classes, count) = (network_config.classes, args.images.unwrap_or(InspectConfig::default().samples));
            let count = count.max(classes);
            Synthetic { shape, classes, train: count, test: count, ..Synthetic::default() }.load()?
        }
    };
    // Only the network and the data of these settings matter.
    let config = TrainConfig::new("dense-resnet4".parse()?, DataName::Digits)?.with_network(network_config);
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Subject::of_weights(TrainConfig { data, ..config }, dataset, network, name, device)?)
}

/// Opens a run directory or a file of weights, or builds a network given by name.
fn subject(args: &InspectArgs, name: &Path, device: &Device) -> anyhow::Result<Subject> {
    if name.is_dir() {
        return Ok(Subject::of_run(name, device)?);
    }
    if name.is_file() {
        return subject_of_weights(args, name, device);
    }
    let shown = name.display();
    let net = net(&name.to_string_lossy()).map_err(|error| {
        Usage(format!("`{shown}` is neither a run directory, nor a file of weights, nor a network: {error}"))
    })?;
    let config = TrainConfig::new(net, args.data.apply(DataConfig::default())?)?;
    let init = config.network.init;
    let network = args.network.apply(config.network.clone(), init)?;
    let mut config = config.with_network(network).with_seed(args.seed.unwrap_or(0));
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.schedule.lr = args.lr.unwrap_or(config.schedule.lr);
    Ok(Subject::fresh(config, device)?)
}

fn measure(
    measurement: Measurement,
    subjects: &[Subject],
    config: &InspectConfig,
    environment: Environment,
) -> anyhow::Result<Inspection> {
    let names: Vec<String> = subjects.iter().map(|subject| subject.info().to_string()).collect();
    log!("{measurement}: {}", names.join("; "));
    let bar: OnceLock<Progress> = OnceLock::new();
    let on_step = |done: usize, all: usize| bar.get_or_init(|| Progress::new(all as u64, 0)).set(done as u64);
    let result = Inspection::measure(measurement, subjects, config, command(), environment, &on_step);
    if let Some(bar) = bar.get() {
        bar.finish();
    }
    result.map_err(|error| match error {
        LabError::Train(TrainError::Stopped) => {
            Interrupted(format!("stopped while measuring {measurement}; finished measurements are kept")).into()
        }
        error => error.into(),
    })
}

/// The default output directory, such as `inspect/plain56-resnet56`. It names the first three subjects only.
fn default_out(subjects: &[PathBuf]) -> PathBuf {
    const MOST: usize = 3;
    let name =
        |path: &PathBuf| path.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = subjects.iter().take(MOST).map(name).collect();
    if subjects.len() > MOST {
        names.push(format!("and-{}-more", subjects.len() - MOST));
    }
    Path::new("inspect").join(names.join("-"))
}

/// The command line of this process, quoted for a shell.
fn command() -> String {
    let words = std::env::args_os().skip(1);
    words.fold("residual".into(), |command, word| format!("{command} {}", quoted(&word.to_string_lossy())))
}
