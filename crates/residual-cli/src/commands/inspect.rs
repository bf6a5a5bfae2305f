use super::sweep::default_jobs;
use crate::{
    Usage,
    args::InspectArgs,
    output::{self, Progress},
};
use residual_data::DataConfig;
use residual_lab::{InspectConfig, Inspection, Subject, What, quoted};
use residual_model::NetName;
use residual_train::{Device, Environment, TrainConfig, files};
use std::path::{Path, PathBuf};

/// Measures inside networks.
pub(crate) fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
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
    };
    config.validate()?;
    let all_runs = args.subjects.iter().all(|name| Path::new(name).is_dir());
    let training = args.seed.is_some() || args.epochs.is_some() || args.lr.is_some();
    if all_runs && (training || args.data.any() || args.network.any()) {
        return Err(
            Usage("flags of data, network and training are for networks by name; runs have their own".into()).into()
        );
    }
    let subjects = args.subjects.iter().map(|name| subject(args, name, &hardware.device));
    let subjects = subjects.collect::<anyhow::Result<Vec<Subject>>>()?;
    args.what.iter().try_for_each(|&what| Inspection::check(what, &subjects, &config))?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.subjects));
    files::create_dir(&out)?;
    let mut found = Vec::new();
    for &what in &args.what {
        let environment = Environment::here(backend, &hardware);
        let inspection = measure(what, &subjects, &config, environment)?;
        inspection.write(&out, &what.to_string())?;
        if !args.json {
            let picture = out.join(format!("{what}.svg"));
            let details: String = inspection.details.iter().map(|detail| format!("  {detail}\n")).collect();
            output::print(&format!("{}\n{details}  {}\n\n", inspection.finding, picture.display()))?;
        }
        found.push(inspection);
    }
    if args.json { output::print_json(&found) } else { Ok(()) }
}

/// A training's folder, or a network by name.
fn subject(args: &InspectArgs, name: &str, device: &Device) -> anyhow::Result<Subject> {
    if Path::new(name).is_dir() {
        return Ok(Subject::of_run(name.as_ref(), device)?);
    }
    let net: NetName = name
        .parse()
        .map_err(|error| Usage(format!("`{name}` is neither the folder of a training nor a network: {error}")))?;
    let config = TrainConfig::new(net, args.data.apply(DataConfig::default())?)?;
    let init = config.network.init;
    let network = args.network.apply(config.network.clone(), init)?;
    let mut config = config.with_network(network).with_seed(args.seed.unwrap_or(0));
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.schedule.lr = args.lr.unwrap_or(config.schedule.lr);
    Ok(Subject::fresh(config, device)?)
}

fn measure(
    what: What,
    subjects: &[Subject],
    config: &InspectConfig,
    environment: Environment,
) -> anyhow::Result<Inspection> {
    eprintln!("{}: {}", what, subjects.iter().map(Subject::to_string).collect::<Vec<_>>().join("; "));
    let bar: std::sync::OnceLock<Progress> = std::sync::OnceLock::new();
    let watch = |done: usize, all: usize| bar.get_or_init(|| Progress::new(all as u64, 0)).set(done as u64);
    let result = Inspection::measure(what, subjects, config, command(), environment, &watch);
    if let Some(bar) = bar.get() {
        bar.finish();
    }
    Ok(result?)
}

/// `inspect/plain56-resnet56`, and of many the first three.
fn default_out(subjects: &[String]) -> PathBuf {
    const MOST: usize = 3;
    let name = |subject: &String| {
        let path = Path::new(subject);
        path.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
    };
    let mut names: Vec<String> = subjects.iter().take(MOST).map(name).collect();
    if subjects.len() > MOST {
        names.push(format!("and-{}-more", subjects.len() - MOST));
    }
    Path::new("inspect").join(names.join("-"))
}

/// This program's command line, as a shell takes it.
fn command() -> String {
    std::env::args().skip(1).fold("residual".into(), |command, word| format!("{command} {}", quoted(&word)))
}
