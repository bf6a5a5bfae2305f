use super::{TrainArgs, progress::observer};
use crate::{
    Interrupted, Usage,
    args::{BackendArgs, make_default},
    command_line::quoted,
    job::{Job, is_first, processes, processes_here},
    model::Weights,
    output::{self, log, percent},
    removed::removed,
    signals::stop_flag,
    threads,
};
use residual_backend::{Backend, Hardware};
use residual_data::{DataError, Normalization, Preprocessing, shown};
use residual_model::{Kernels, Network, summary::thousands};
use residual_train::{
    Environment, Existing, Memory, Note, OnNan, Outcome, RunDir, Start, Status, StopFlag, TrainConfig, TrainError,
    Training,
};
use residual_weights::WeightsError;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// Starts a new training, or prints what `--print-config` or `--dry-run` ask for.
pub(super) fn start(args: &TrainArgs) -> anyhow::Result<()> {
    let config = args.resolve()?;
    config.validate()?;
    if args.print_config {
        return output::print_json(&config);
    }
    let (backend, devices) = args.backend.open_all(&args.devices)?;
    config.check_share(devices.len(), processes())?;
    let memory = Memory::expected(&config, Kernels::on(&devices[0].device)).map_err(TrainError::from)?;
    if args.dry_run {
        return dry_run(args, &config, backend, memory, devices.len());
    }
    check_memory(&config, backend, memory, devices.len())?;
    if config.on_nan == OnNan::Rewind {
        make_default(backend)?;
    }
    let job = Job::join()?;
    job.run(|| start_in(&job, args, &config, backend, &devices))
}

fn start_in(
    job: &Job,
    args: &TrainArgs,
    config: &TrainConfig,
    backend: Backend,
    devices: &[Hardware],
) -> anyhow::Result<()> {
    let stop = stop_flag()?;
    let hardware = &devices[0];
    let mut training = job.share(Training::new(config.clone(), hardware.device.clone())?)?;
    training = on_all(training, devices)?;
    if let Some(start) = &config.start {
        let network = started(config, start, &training, hardware)?;
        training = training.with_network(network);
    }
    let path = args.out.clone().unwrap_or_else(|| default_path(config, args.force));
    let tell = |files: &[PathBuf]| log!("{}", removed(&path, files));
    let existing = if args.force { Existing::Replace(&tell) } else { Existing::Keep };
    let create = || RunDir::create(&path, config, &Environment::here(backend, hardware), existing);
    let run = is_first().then(create).transpose()?;
    print_notes(&training);
    announce(config, backend, devices, &path);
    finish(training, config, &path, run, &stop, args)
}

/// Resumes the training in a run directory from its newest usable checkpoint.
pub(super) fn resume(args: &TrainArgs, path: &Path) -> anyhow::Result<()> {
    let run = RunDir::open(path)?;
    let mut config = run.config()?;
    config.data = args.training.data.moved(config.data)?;
    // The same number again resumes a training that is being extended.
    let extension = args.training.epochs.filter(|&epochs| epochs != config.epochs || run.is_finished());
    if let Some(epochs) = extension {
        config = config.extended(epochs)?;
    } else if run.is_finished() {
        log!("{} is finished; nothing to resume", path.display());
        let network = config.network.name().to_string();
        let value =
            serde_json::json!({ "run": path.display().to_string(), "network": network, "status": Status::Finished });
        return if args.json { output::print_json(&value) } else { Ok(()) };
    }
    // The backend and kernels that the training began with, unless flags name others.
    let began = run.environment()?;
    let BackendArgs { backend, kernels, recompute, threads } = &args.backend;
    let named = args.devices.first().and_then(|name| name.split(':').next()).map(str::to_lowercase);
    let backend = backend.clone().or(named);
    let same = backend.as_ref().is_none_or(|name| *name == began.backend) && kernels.is_none() && !recompute;
    let backend_args = BackendArgs {
        kernels: if same { Some(began.kernels) } else { *kernels },
        recompute: *recompute,
        threads: *threads,
        backend: backend.or_else(|| Some(began.backend.clone())),
    };
    let (backend, devices) = backend_args.open_all(&args.devices)?;
    config.check_share(devices.len(), processes())?;
    let hardware = &devices[0];
    if let (Some(theirs), Some(ours)) = (began.arithmetic(), Environment::here(backend, hardware).arithmetic())
        && theirs != ours
    {
        let theirs = shown(&theirs);
        log!("note: the run began with {theirs} and goes on with {ours}; the result differs by rounding");
    }
    let memory = Memory::expected(&config, Kernels::on(&hardware.device)).map_err(has_moved(args, &config))?;
    check_memory(&config, backend, memory, devices.len())?;
    // The program may start again here, so the directory is locked afterwards, and signals end it until then.
    make_default(backend)?;
    let job = Job::join()?;
    job.run(|| resume_in(&job, args, path, run, &config, extension, backend, &devices))
}

#[expect(clippy::too_many_arguments, reason = "what the flags and the run directory say")]
fn resume_in(
    job: &Job,
    args: &TrainArgs,
    path: &Path,
    run: RunDir,
    config: &TrainConfig,
    extension: Option<usize>,
    backend: Backend,
    devices: &[Hardware],
) -> anyhow::Result<()> {
    let stop = stop_flag()?;
    let hardware = &devices[0];
    // Only the first process writes to the directory, and does so when all of them have read it.
    let run = if is_first() { run.locked()? } else { run };
    let has_moved = has_moved(args, config);
    let dataset = config.data.load().map_err(has_moved)?;
    run.check_data(&dataset)?;
    let mut training = job.share(Training::with_data(config.clone(), dataset, hardware.device.clone())?)?;
    training = on_all(training, devices)?;
    print_notes(&training);
    announce(config, backend, devices, path);
    let latest = run.latest(&hardware.device, args.older_checkpoint).map_err(|error| {
        if args.older_checkpoint {
            anyhow::Error::from(error)
        } else {
            anyhow::anyhow!("{error}; use the previous checkpoint with --older-checkpoint")
        }
    })?;
    match latest {
        Some(checkpoint) => {
            log!("resuming after epoch {}, iteration {}", checkpoint.epoch(), checkpoint.iteration());
            training = training.from_checkpoint(checkpoint);
        }
        // A failed training may have measured an epoch and then been unable to write its checkpoint.
        None if !matches!(run.status(), Some(Status::Failed | Status::Diverged)) && !run.metrics()?.is_empty() => {
            let path = path.display();
            anyhow::bail!("{path} has metrics but no checkpoint to resume from; start again with --out and --force");
        }
        None => {
            log!("no checkpoint yet: starting from the beginning");
            if let Some(start) = &config.start {
                let network = started(config, start, &training, hardware)?;
                training = training.with_network(network);
            }
        }
    }
    job.wait_for_all();
    let run = is_first().then_some(run);
    if let (Some(epochs), Some(run)) = (extension, &run) {
        // Last, so that a training that cannot be resumed stays as it is.
        run.extend(epochs)?;
    }
    finish(training, config, path, run, &stop, args)
}

/// The error if a dataset cannot be loaded. It may have moved since the training began.
fn has_moved(args: &TrainArgs, config: &TrainConfig) -> impl Fn(DataError) -> anyhow::Error + Copy {
    let may_have_moved = args.training.data.data_dir.is_none() && config.data.dir.is_some();
    move |error| {
        if may_have_moved {
            anyhow::anyhow!("{error}; if the dataset moved, add --data-dir and its new place")
        } else {
            error.into()
        }
    }
}

fn on_all(training: Training, devices: &[Hardware]) -> Result<Training, TrainError> {
    training.with_more_devices(devices[1..].iter().map(|hardware| hardware.device.clone()).collect())
}

/// The memory that all processes on this machine need, and the devices of this one, if they are in main memory.
fn in_all(memory: Memory, devices: usize) -> u64 {
    memory.on_devices(devices).total() * processes_here() as u64
}

/// Fails if a training needs more memory than there is.
fn check_memory(config: &TrainConfig, backend: Backend, memory: Memory, devices: usize) -> anyhow::Result<()> {
    let Some(shortage) = Memory::shortage(in_all(memory, devices)).filter(|_| backend.uses_main_memory()) else {
        return Ok(());
    };
    let (name, batch) = (config.network.name(), config.batch_size);
    Err(Usage(format!(
        "{name} with batch size {batch} needs about {shortage}; try --recompute, or a smaller --batch-size with \
         --accumulate"
    ))
    .into())
}

/// Prints the expected peak memory of a training.
fn dry_run(
    args: &TrainArgs,
    config: &TrainConfig,
    backend: Backend,
    memory: Memory,
    devices: usize,
) -> anyhow::Result<()> {
    let (total, available, processes) = (memory.total(), Memory::available(), processes_here());
    if !is_first() {
        return Ok(());
    }
    if args.json {
        return output::print_json(&serde_json::json!({
            "network": config.network.name().to_string(),
            "batch_size": config.batch_size,
            "backend": backend.to_string(),
            "devices": devices,
            "processes": processes,
            "bytes": memory,
            "total": total,
            "in_all": in_all(memory, devices),
            "available": available,
        }));
    }
    let Memory { program, data, weights, optimizer, activations, records, workspace } = memory;
    let parts = [
        ("program", program),
        ("data", data),
        ("weights", weights),
        ("gradients and optimizer", optimizer),
        ("activations", activations),
        ("records of layers", records),
        ("workspace", workspace),
        ("total", total),
    ];
    let (name, batch) = (config.network.name(), config.batch_size);
    let mut text = format!("{name} on {}, batch size {batch}, {backend}: expected peak memory", config.data);
    text.push_str(match (devices, processes) {
        (1, 1) => "\n\n",
        (1, _) => " of each process\n\n",
        _ => " with one device\n\n",
    });
    let mut print = |part: &str, bytes: u64| {
        let _ = writeln!(text, "{part:<24} {:>9.1} MiB", bytes as f64 / f64::from(1 << 20));
    };
    for (part, bytes) in parts {
        print(part, bytes);
    }
    match (devices, processes) {
        (1, 1) => {}
        (1, _) => print(&format!("{processes} processes"), in_all(memory, devices)),
        _ => print(&format!("{devices} devices"), in_all(memory, devices)),
    }
    if backend.uses_main_memory() {
        let _ = writeln!(text, "\nthis machine has {:.1} GiB", available as f64 / f64::from(1 << 30));
    } else {
        text += "\nthe estimate is for CPUs; on this device, all but program and data are in device memory\n";
    }
    output::print(&text)
}

/// Prints what is unusual about a training, with the flag that changes it.
fn print_notes(training: &Training) {
    for note in training.notes() {
        let tip = match note {
            Note::LargeStem { .. } => "; try --stem small",
            Note::Milestones { .. } => "; try --milestones, or more --epochs",
            Note::WarmUp { .. } => "; try --warmup, or more --epochs",
            Note::Data(_) | Note::SmallSet { .. } | Note::UnusedClasses { .. } => "",
        };
        log!("note: {note}{tip}");
    }
}

/// The network of a training that starts from given weights.
fn started(config: &TrainConfig, start: &Start, training: &Training, hardware: &Hardware) -> anyhow::Result<Network> {
    let mut network = config.init(&hardware.device.clone().autodiff());
    let weights = Weights::of(start)?;
    if let (false, Some(known), Some(own)) = (start.ignore_head, weights.labels(), training.class_names())
        && known != own
    {
        anyhow::bail!(
            "the classes of the weights' head differ from the dataset's, or are in another order; start with a \
             new head with --ignore-head"
        );
    }
    match weights.put_into(&mut network, &config.network) {
        Err(WeightsError::Mismatch { differences, .. }) if differences.only_head_differs() => {
            anyhow::bail!("the head of the weights has a different number of classes; leave it out with --ignore-head")
        }
        Err(error) => Err(error.into()),
        Ok(expected) => {
            compare_normalization(expected.as_ref(), training.preprocessing());
            Ok(network)
        }
    }
}

/// Prints a note if a training normalises images differently from what its initial weights expect, or if that is
/// unknown.
fn compare_normalization(expected: Option<&Normalization>, Preprocessing { mean, std, .. }: &Preprocessing) {
    let close = |ours: &[f32], theirs: &[f32]| {
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 0.01)
    };
    let ours = format!("this training normalises images with mean {mean:?} and std {std:?}");
    match expected {
        None => log!("note: the weights do not say how images are normalised; {ours}"),
        Some(known) if !close(&known.mean, mean) || !close(&known.std, std) => {
            log!("note: the weights expect mean {:?} and std {:?}, but {ours}", known.mean, known.std);
        }
        Some(_) => {}
    }
}

/// Runs a training and prints its result.
fn finish(
    training: Training,
    config: &TrainConfig,
    path: &Path,
    run: Option<RunDir>,
    stop: &StopFlag,
    args: &TrainArgs,
) -> anyhow::Result<()> {
    let training = match run {
        Some(run) => training.in_dir(run),
        None => training,
    };
    let outcome = training
        .with_stop(stop.clone())
        .with_observer(observer(config))
        .with_checkpoint_every(args.checkpoint_every)
        .with_tensorboard(args.tensorboard)
        .with_workers(args.workers.unwrap_or_else(threads::cores))
        .run()
        .inspect_err(|error| {
            if matches!(error, TrainError::Sample { .. } | TrainError::Data(_)) {
                let path = quoted(&path.display().to_string());
                log!(
                    "a checkpoint is kept: once the file is repaired, `residual train --resume {path}` resumes; to leave \
                     broken files out, start again with --skip-broken and --force"
                );
            }
        })?;
    if outcome.status == Status::Interrupted {
        return Err(Interrupted(format!(
            "stopped in epoch {} after iteration {}; resume with `residual train --resume {}`",
            outcome.epochs + 1,
            outcome.iterations,
            quoted(&path.display().to_string())
        ))
        .into());
    }
    if args.json {
        return output::print_json(&serde_json::json!({
            "run": path.display().to_string(),
            "network": config.network.name().to_string(),
            "status": outcome.status,
            "epochs": outcome.epochs,
            "iterations": outcome.iterations,
            "train": outcome.train,
            "test": outcome.test,
            "seconds": outcome.seconds,
        }));
    }
    output::print(&report(config, &outcome, path))
}

fn report(config: &TrainConfig, outcome: &Outcome, path: &Path) -> String {
    let early = if outcome.status == Status::StoppedEarly {
        format!("stopped early after epoch {}: the test loss did not improve any further\n", outcome.epochs)
    } else {
        String::new()
    };
    format!(
        "{early}{}: training error {}, {} error {}, {:.1} s\nwritten to {}\n",
        config.network.name(),
        percent(outcome.train.error),
        if config.data.validation > 0 { "validation" } else { "test" },
        percent(outcome.test.error),
        outcome.seconds,
        path.display()
    )
}

fn announce(config: &TrainConfig, backend: Backend, devices: &[Hardware], path: &Path) {
    let name = &devices[0].name;
    let devices = if devices.len() == 1 { name.clone() } else { format!("{} devices, {name}", devices.len()) };
    log!(
        "{} ({} parameters) on {}, {backend} ({}), seed {}, in {}",
        config.network.name(),
        thousands(config.network.summary().parameters()),
        config.data,
        devices,
        config.seed,
        path.display()
    );
}

/// `runs/NET-DATA-SEED`, followed by `-2`, `-3` and so on if that directory holds a run with other settings.
fn default_path(config: &TrainConfig, force: bool) -> PathBuf {
    let base = format!("{}-{}-{}", config.network.name(), config.data, config.seed);
    let numbered = |n: usize| if n == 1 { base.clone() } else { format!("{base}-{n}") };
    let paths = (1..).map(|n| PathBuf::from("runs").join(numbered(n)));
    let json = |config: &TrainConfig| serde_json::to_string(config).ok();
    let is_free = |path: &PathBuf| match RunDir::open(path).and_then(|run| run.config()) {
        Ok(other) => force || json(&other) == json(config),
        Err(_) => true,
    };
    paths.take(1000).find(is_free).unwrap_or_else(|| PathBuf::from("runs").join(&base))
}
