use super::{model::Weights, percent};
use crate::{
    Interrupted, Usage,
    args::{BackendArgs, EvaluateChoice, KernelsChoice, OnNanChoice, ScheduleChoice, TrainArgs},
    output::{self, Progress},
};
use residual_backend::{Backend, Hardware};
use residual_model::{BlockOptions, Kernels, Network, summary::thousands};
use residual_train::{
    Decay, Environment, Evaluate, Event, Length, Memory, OnNan, Outcome, Row, RunDir, Split, Start, Status, StopFlag,
    TrainConfig, TrainError, Training, Warmup,
};
use residual_weights::WeightsError;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// Trains one network.
pub(crate) fn train(args: Box<TrainArgs>, stop: &StopFlag) -> anyhow::Result<()> {
    match &args.resume {
        Some(path) => resume(&args, path, stop),
        None if args.older_checkpoint => Err(Usage("--older-checkpoint goes with --resume".into()).into()),
        None => start(&args, stop),
    }
}

fn start(args: &TrainArgs, stop: &StopFlag) -> anyhow::Result<()> {
    let config = resolve(args)?;
    config.validate()?;
    if args.print_config {
        return output::print_json(&config);
    }
    let (backend, hardware) = args.backend.open()?;
    let memory = Memory::expected(&config, Kernels::on(&hardware.device)).map_err(TrainError::from)?;
    if args.dry_run {
        return dry_run(args, &config, backend, memory);
    }
    check_memory(&config, backend, memory)?;
    if config.on_nan == OnNan::Rewind {
        make_default(backend)?;
    }
    let mut training = Training::new(config.clone(), hardware.device.clone())?;
    if let Some(start) = &config.start {
        training = training.with_network(started(&config, start, &hardware)?);
    }
    let path = args.out.clone().unwrap_or_else(|| default_path(&config));
    let run = RunDir::create(&path, &config, &Environment::here(backend, &hardware), args.force)?;
    announce(&config, backend, &hardware, &path);
    finish(training, &config, run, stop, args)
}

/// Fails if a training cannot fit.
fn check_memory(config: &TrainConfig, backend: Backend, memory: Memory) -> anyhow::Result<()> {
    if on_the_cpu(backend) && memory.total() > Memory::available() {
        let (needed, there) = (gibibytes(memory.total()), gibibytes(Memory::available()));
        let name = config.network.name();
        let text = format!(
            "{name} in batches of {} takes some {needed} of memory, and there are {there}; try --recompute, or a smaller \
             --batch-size with --accumulate",
            config.batch_size
        );
        return Err(Usage(text).into());
    }
    Ok(())
}

/// Whether tensors are in the program's own memory.
fn on_the_cpu(backend: Backend) -> bool {
    matches!(backend, Backend::Flex | Backend::NdArray | Backend::Cpu)
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Prints the memory that a training is expected to take.
fn dry_run(args: &TrainArgs, config: &TrainConfig, backend: Backend, memory: Memory) -> anyhow::Result<()> {
    let (total, available) = (memory.total(), Memory::available());
    if args.json {
        return output::print_json(&serde_json::json!({
            "network": config.network.name().to_string(),
            "batch_size": config.batch_size,
            "backend": backend.to_string(),
            "bytes": memory,
            "total": total,
            "available": available,
        }));
    }
    let Memory { program, data, weights, optimizer, activations, workspace } = memory;
    let parts = [
        ("program", program),
        ("data", data),
        ("weights", weights),
        ("gradients and optimizer", optimizer),
        ("activations", activations),
        ("work space", workspace),
        ("total", total),
    ];
    let (name, batch) = (config.network.name(), config.batch_size);
    let mut text =
        format!("{name} on {} in batches of {batch}, {backend}: memory expected at the peak\n\n", config.data);
    for (part, bytes) in parts {
        let _ = writeln!(text, "{part:<24} {:>9.1} MiB", bytes as f64 / f64::from(1 << 20));
    }
    text += &match on_the_cpu(backend) {
        true => format!("\nthis machine has {}\n", gibibytes(available)),
        false => "\nall but program and data are on the device; this is an estimate for CPUs\n".into(),
    };
    output::print(&text)
}

/// The network with the weights it starts from.
fn started(config: &TrainConfig, start: &Start, hardware: &Hardware) -> anyhow::Result<Network> {
    let mut network = config.init(&hardware.device.clone().autodiff());
    match Weights::of(start)?.put_into(&mut network) {
        Err(WeightsError::Mismatch { differences, .. }) if differences.is_the_head_alone() => {
            anyhow::bail!("the weights' head has another number of classes; --ignore-head starts with a new one")
        }
        result => result.map(|()| network).map_err(Into::into),
    }
}

fn resume(args: &TrainArgs, path: &Path, stop: &StopFlag) -> anyhow::Result<()> {
    let run = RunDir::open(path)?.locked()?;
    let config = run.config()?;
    if run.is_finished() {
        eprintln!("{} is finished; nothing to do", path.display());
        let network = config.network.name().to_string();
        let value =
            serde_json::json!({ "run": path.display().to_string(), "network": network, "status": Status::Finished });
        return if args.json { output::print_json(&value) } else { Ok(()) };
    }
    // As it began, but for what is asked for now.
    let began = run.environment()?;
    let BackendArgs { backend, kernels, recompute } = &args.backend;
    let same = backend.as_ref().is_none_or(|name| *name == began.backend) && kernels.is_none() && !recompute;
    let began_with = |kernels| same && began.kernels == kernels;
    let backend_args = BackendArgs {
        kernels: if began_with(Kernels::Reference) { Some(KernelsChoice::Reference) } else { *kernels },
        recompute: *recompute || began_with(Kernels::Recompute),
        backend: backend.clone().or(Some(began.backend)),
    };
    let (backend, hardware) = backend_args.open()?;
    let memory = Memory::expected(&config, Kernels::on(&hardware.device)).map_err(TrainError::from)?;
    check_memory(&config, backend, memory)?;
    make_default(backend)?;
    let mut training = Training::new(config.clone(), hardware.device.clone())?;
    announce(&config, backend, &hardware, path);
    let latest = run.latest(&hardware.device, args.older_checkpoint);
    let latest = latest.map_err(|error| match args.older_checkpoint {
        false => anyhow::anyhow!("{error}; --older-checkpoint goes on from the one before"),
        true => error.into(),
    })?;
    match latest {
        Some(checkpoint) => {
            eprintln!("resumes after epoch {}, iteration {}", checkpoint.epoch(), checkpoint.iteration());
            training = training.from_checkpoint(checkpoint);
        }
        // One that failed may have measured an epoch whose checkpoint could not be written.
        None if run.status() != Some(Status::Failed) && !run.metrics()?.is_empty() => {
            let path = path.display();
            anyhow::bail!("{path} has measurements, but no checkpoint to go on from; begin again with --force");
        }
        None => {
            eprintln!("no checkpoint yet: starts anew");
            if let Some(start) = &config.start {
                training = training.with_network(started(&config, start, &hardware)?);
            }
        }
    }
    finish(training, &config, run, stop, args)
}

/// Burn restores an optimizer's state on its default device, which is the first one compiled in, whether
/// there is such hardware or not. Only the environment can choose another, so the program starts anew with it.
fn make_default(backend: Backend) -> anyhow::Result<()> {
    const BURN_DEVICE: &str = "BURN_DEVICE";
    if std::env::var(BURN_DEVICE).is_ok_and(|name| name == backend.name()) {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1)).env(BURN_DEVICE, backend.name());
    #[cfg(unix)]
    return Err(std::os::unix::process::CommandExt::exec(&mut again).into());
    #[cfg(not(unix))]
    #[allow(clippy::exit)]
    std::process::exit(again.status()?.code().unwrap_or(1));
}

fn finish(
    training: Training,
    config: &TrainConfig,
    run: RunDir,
    stop: &StopFlag,
    args: &TrainArgs,
) -> anyhow::Result<()> {
    let path = run.path().to_path_buf();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let outcome = training
        .with_stop(stop.clone())
        .with_observer(observer(config))
        .with_checkpoint_every(args.checkpoint_every)
        .with_workers(args.workers.unwrap_or(cores))
        .in_dir(run)
        .run()?;
    if outcome.status == Status::Interrupted {
        return Err(Interrupted(format!(
            "stopped in epoch {} after iteration {}; go on with `residual train --resume {}`",
            outcome.epochs + 1,
            outcome.iterations,
            path.display()
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
    output::print(&report(config, &outcome, &path))
}

fn report(config: &TrainConfig, outcome: &Outcome, path: &Path) -> String {
    let early = match outcome.status {
        Status::StoppedEarly => {
            format!("stopped early after epoch {}: the test loss no longer improved\n", outcome.epochs)
        }
        _ => String::new(),
    };
    format!(
        "{early}{}: training error {}, test error {}, {:.1} s\nwritten to {}\n",
        config.network.name(),
        percent(outcome.train.error),
        percent(outcome.test.error),
        outcome.seconds,
        path.display()
    )
}

fn announce(config: &TrainConfig, backend: Backend, hardware: &Hardware, path: &Path) {
    eprintln!(
        "{} ({} parameters) on {}, {} ({}), seed {}, in {}",
        config.network.name(),
        thousands(config.network.summary().parameters()),
        config.data,
        backend,
        hardware.name,
        config.seed,
        path.display()
    );
}

/// A bar of batches, and a line an epoch.
fn observer(config: &TrainConfig) -> impl FnMut(Event<'_>) + 'static {
    let config = config.clone();
    let mut epochs = config.epochs;
    let mut bar: Option<Progress> = None;
    move |event| match event {
        Event::Step { epoch, batch, batches, loss } => {
            // Fewer than are configured, where the iterations end before the epochs do.
            epochs = config.steps(batches).div_ceil(batches.div_ceil(config.accumulate));
            let done = ((epoch - 1) * batches + batch) as u64;
            let bar = bar.get_or_insert_with(|| Progress::new(epochs.saturating_mul(batches) as u64, done));
            bar.set(done);
            bar.message(&format!("epoch {epoch}/{epochs}, loss {loss:.3}"));
        }
        Event::Epoch(rows) => {
            if let (Some(bar), Some(last)) = (&bar, rows.last()) {
                bar.line(&epoch_line(rows, last.epoch, epochs));
                if last.epoch == epochs {
                    bar.finish();
                }
            }
        }
        Event::Rewind { iteration, lr } => {
            let text = format!("the loss was not finite: back to iteration {iteration}, on at a rate of {lr:.2e}");
            match &bar {
                Some(bar) => bar.line(&text),
                None => eprintln!("{text}"),
            }
        }
    }
}

/// `epoch  3/10  loss 0.942  error: running 33.20 %, training 30.01 %, test 31.94 %  lr 0.05  1204 images/s`
fn epoch_line(rows: &[Row], epoch: usize, epochs: usize) -> String {
    let find = |split| rows.iter().rev().find(|row| row.epoch == epoch && row.split == split);
    let mut line = format!("epoch {epoch:>3}/{epochs}");
    let Some(running) = find(Split::Running) else { return line };
    line += &format!("  loss {:.4}  error: running {:>7}", running.loss, percent(running.error));
    for (name, split) in [("training", Split::Train), ("test", Split::Test)] {
        if let Some(row) = find(split) {
            line += &format!(", {name} {:>7}", percent(row.error));
        }
    }
    line + &format!("  lr {:.2e}  {:.0} images/s", running.lr, running.images_per_second)
}

fn default_path(config: &TrainConfig) -> PathBuf {
    PathBuf::from("runs").join(format!("{}-{}-{}", config.network.name(), config.data, config.seed))
}

/// The configuration file, if any, with the flags on top.
fn resolve(args: &TrainArgs) -> anyhow::Result<TrainConfig> {
    let mut config = match (&args.config, args.net) {
        (Some(path), _) => TrainConfig::read(path)?,
        (None, Some(net)) => {
            let recipe = args.recipe.unwrap_or_default();
            let length = Length { epochs: args.epochs, batch_size: args.batch_size, accumulate: args.accumulate };
            recipe.config_of(net, args.data.apply(recipe.data())?, length)?
        }
        (None, None) => unreachable!("clap requires one of --net, --config and --resume"),
    };
    config.data = args.data.apply(config.data)?;
    config.augmentation = args.augmentation.apply(config.augmentation);
    if let (Some(_), Some(net)) = (&args.config, args.net) {
        // The same network but for its name: a twin keeps weights, width and block options.
        let old = &config.network;
        let blocks = BlockOptions { kind: net.kind, ..old.blocks };
        let mut network = TrainConfig::new(net, config.data.clone())?.network.with_blocks(blocks).with_init(old.init);
        if old.name().family == net.family {
            network = network.with_width(old.width);
        }
        config.network = network;
    }
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.batch_size = args.batch_size.unwrap_or(config.batch_size);
    config.iterations = args.iterations.or(config.iterations);
    config.accumulate = args.accumulate.unwrap_or(config.accumulate);
    config.patience = args.patience.or(config.patience);
    config.ema = args.ema.or(config.ema);
    config.optimizer.clip = args.clip.or(config.optimizer.clip);
    config.optimizer.nesterov = args.nesterov.unwrap_or(config.optimizer.nesterov);
    config.on_nan = match args.on_nan {
        Some(OnNanChoice::Stop) => OnNan::Stop,
        Some(OnNanChoice::Rewind) => OnNan::Rewind,
        None => config.on_nan,
    };
    config.optimizer.momentum = args.momentum.unwrap_or(config.optimizer.momentum);
    config.optimizer.weight_decay = args.weight_decay.unwrap_or(config.optimizer.weight_decay);
    config.optimizer.decay_all = args.no_norm_decay.map_or(config.optimizer.decay_all, |without| !without);
    if let Some(rates) = &args.part_lr {
        config.optimizer.rates.clone_from(rates);
    }
    if let Some(parts) = &args.freeze {
        config.freeze.clone_from(parts);
    }
    if let Some(start) = args.start.resolve(args.ignore_head)? {
        config.start = Some(start);
    }
    config.evaluate = match args.evaluate {
        Some(EvaluateChoice::EveryEpoch) => Evaluate::EveryEpoch,
        Some(EvaluateChoice::TestEveryEpoch) => Evaluate::TestEveryEpoch,
        Some(EvaluateChoice::AtEnd) => Evaluate::AtEnd,
        None => config.evaluate,
    };
    resolve_schedule(args, &mut config)?;
    let config = match args.seed {
        Some(seed) => config.with_seed(seed),
        None => config,
    };
    let init = config.network.init;
    let network = args.network.apply(config.network.clone(), init)?;
    Ok(config.with_network(network))
}

fn resolve_schedule(args: &TrainArgs, config: &mut TrainConfig) -> anyhow::Result<()> {
    let schedule = &mut config.schedule;
    schedule.lr = args.lr.unwrap_or(schedule.lr);
    let (known, usual) = match &schedule.decay {
        Decay::Step { milestones, factor } => (Some(milestones.clone()), *factor),
        _ => (None, 0.1),
    };
    let steps = args.milestones.is_some() || args.factor.is_some();
    let choice = args.schedule.or_else(|| steps.then_some(ScheduleChoice::Step));
    if let Some(choice) = choice {
        schedule.decay = match choice {
            ScheduleChoice::Constant => Decay::Constant,
            ScheduleChoice::Linear => Decay::Linear,
            ScheduleChoice::Cosine => Decay::Cosine,
            ScheduleChoice::Step => {
                let Some(milestones) = args.milestones.clone().or(known) else {
                    return Err(Usage("a step schedule needs --milestones, such as 32000,48000".into()).into());
                };
                Decay::Step { milestones, factor: args.factor.unwrap_or(usual) }
            }
        };
        if steps && !matches!(schedule.decay, Decay::Step { .. }) {
            return Err(Usage("--milestones and --factor are for --schedule step".into()).into());
        }
    }
    match (args.warmup, args.warmup_error) {
        (Some(0), _) => schedule.warmup = Warmup::None,
        (Some(iterations), _) => schedule.warmup = Warmup::Linear { iterations },
        (None, Some(threshold)) => schedule.warmup = Warmup::UntilError { lr: 0.01, threshold },
        (None, None) => {}
    }
    if let Some(lr) = args.warmup_lr {
        schedule.warmup = match schedule.warmup {
            Warmup::None => {
                return Err(Usage("--warmup-lr needs --warmup or --warmup-error to say how long".into()).into());
            }
            Warmup::Linear { iterations } | Warmup::Constant { iterations, .. } => Warmup::Constant { lr, iterations },
            Warmup::UntilError { threshold, .. } => Warmup::UntilError { lr, threshold },
        };
    }
    Ok(())
}
