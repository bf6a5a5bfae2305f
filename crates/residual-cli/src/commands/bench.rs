use crate::{
    Usage,
    args::{AugmentationArgs, BackendArgs, DataArgs, ImageNetworkArgs, NetArg},
    output::{self, Progress},
};
use residual_data::{Augmentation, DataConfig};
use residual_lab::{DataFeed, Throughput, matmul_flops, throughput};
use residual_model::{InitConfig, Kernels, NetworkConfig};
use residual_train::Environment;
use serde::Serialize;
use std::fmt::Write;

/// Measure the throughput of training and inference of a network
///
/// The network is resnet20 unless one is given. The images are random and held in
/// memory. With --data, training is also measured with batches that the loader
/// reads and augments.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  residual bench
  residual bench resnet56 --kernels reference
  residual bench resnet50 --batch-size 8 --inference
  residual bench resnet20 --data cifar10 --flip --crop-padding 4
  residual bench resnet1202 --recompute --steps 1"
)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) net: NetArg,
    /// Images per batch
    #[arg(long, alias = "batch", default_value_t = 128)]
    pub(crate) batch_size: usize,
    /// Timed steps, after two warm-up steps
    #[arg(long, default_value_t = 10)]
    pub(crate) steps: usize,
    /// Measure inference only
    #[arg(long)]
    pub(crate) inference: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) augmentation: AugmentationArgs,
    #[command(flatten)]
    pub(crate) network: ImageNetworkArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Report {
    net: String,
    image: [usize; 3],
    batch: usize,
    threads: usize,
    kernels: Kernels,
    environment: Environment,
    steps: usize,
    train_images_per_s: Option<f64>,
    /// With batches loaded from a dataset instead of a single batch held in memory.
    loaded_images_per_s: Option<f64>,
    infer_images_per_s: f64,
    /// The rates of the slowest and the fastest step.
    train_range: Option<[f64; 2]>,
    loaded_range: Option<[f64; 2]>,
    infer_range: [f64; 2],
    train_gflops: Option<f64>,
    infer_gflops: f64,
    matmul_gflops: f64,
    train_share: Option<f64>,
    infer_share: f64,
    peak_mib: Option<f64>,
    /// Memory reserved on the device.
    device_mib: Option<f64>,
}

/// Images per second: median, slowest, fastest.
fn rates(seconds: &[f64], batch: usize) -> Option<[f64; 3]> {
    let mut rates: Vec<f64> = seconds.iter().map(|s| batch as f64 / s).collect();
    rates.sort_by(f64::total_cmp);
    let count = rates.len();
    (count > 0).then(|| [(rates[(count - 1) / 2] + rates[count / 2]) / 2.0, rates[0], rates[count - 1]])
}

/// Runs the command `bench`.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    if args.batch_size == 0 || args.steps == 0 {
        return Err(Usage("--batch-size and --steps must be at least 1".into()).into());
    }
    let (backend, hardware) = args.backend.open()?;
    let net = args.net.get().unwrap_or_else(|| "resnet20".parse().expect("a published name"));
    let (mut network, mut image) = args.network.describe(net)?;
    let pipeline = pipeline(args)?;
    if let Some(pipeline) = &pipeline {
        image = pipeline.source.shape();
        let of_data = NetworkConfig::new(net, image, pipeline.source.classes());
        network = args.network.network.apply(of_data, InitConfig::default())?;
        if network.classes < pipeline.source.classes() {
            let (own, there) = (network.classes, pipeline.source.classes());
            return Err(Usage(format!(
                "--classes must be at least {there}, the number of classes in the data, not {own}"
            ))
            .into());
        }
    }
    let mut bar: Option<Progress> = None;
    let watch = |done: usize, all: usize| bar.get_or_insert_with(|| Progress::new(all as u64, 0)).set(done as u64);
    let Throughput { train_seconds, loaded_seconds, infer_seconds, train_peak_bytes, train_device_bytes } =
        throughput(&network, args.batch_size, args.steps, !args.inference, pipeline.as_ref(), &hardware.device, watch)?;
    if let Some(bar) = bar {
        bar.finish();
    }
    let matmul = matmul_flops(&hardware.device)? / 1e9;

    let operations = 2e-9 * network.summary().multiply_adds() as f64;
    let train = rates(&train_seconds, args.batch_size);
    let loaded = rates(&loaded_seconds, args.batch_size);
    let infer = rates(&infer_seconds, args.batch_size).expect("at least one step");
    // The backward pass computes two matrix products for each one in the forward pass.
    let train_gflops = train.map(|rate| rate[0] * 3.0 * operations);
    let infer_gflops = infer[0] * operations;
    let mib = |bytes: u64| (!args.inference).then_some(bytes as f64 / (1 << 20) as f64);
    let report = Report {
        net: net.to_string(),
        image,
        batch: args.batch_size,
        threads: rayon::current_num_threads(),
        kernels: Kernels::on(&hardware.device),
        environment: Environment::here(backend, &hardware),
        steps: args.steps,
        train_images_per_s: train.map(|rate| rate[0]),
        loaded_images_per_s: loaded.map(|rate| rate[0]),
        infer_images_per_s: infer[0],
        train_range: train.map(|rate| [rate[1], rate[2]]),
        loaded_range: loaded.map(|rate| [rate[1], rate[2]]),
        infer_range: [infer[1], infer[2]],
        train_gflops,
        infer_gflops,
        matmul_gflops: matmul,
        train_share: train_gflops.map(|gflops| gflops / matmul),
        infer_share: infer_gflops / matmul,
        peak_mib: train_peak_bytes.and_then(mib),
        device_mib: train_device_bytes.and_then(mib),
    };
    if args.json { output::print_json(&report) } else { output::print(&report.text()) }
}

/// The dataset that `--data` names, to load training batches from.
fn pipeline(args: &BenchArgs) -> anyhow::Result<Option<DataFeed>> {
    let augmentation = args.augmentation.apply(&Augmentation::default());
    let data = match (args.data.data, args.network.image.is_some() || args.inference) {
        (None, _) if args.data.any() || augmentation != Augmentation::default() => {
            return Err(Usage("data and augmentation flags need --data NAME".into()).into());
        }
        (None, _) => return Ok(None),
        (Some(_), true) => return Err(Usage("--data cannot be combined with --image or --inference".into()).into()),
        (Some(_), false) => args.data.apply(DataConfig::default())?,
    };
    let source = data.load()?.train;
    augmentation.check([source.shape()[1], source.shape()[2]])?;
    if source.len() < args.batch_size {
        return Err(Usage(format!(
            "--batch-size must be at most {}, the number of training samples in {data}",
            source.len()
        ))
        .into());
    }
    let workers = args.backend.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    Ok(Some(DataFeed { source, augmentation, workers }))
}

impl Report {
    fn text(&self) -> String {
        let [channels, height, width] = self.image;
        let Self { net, batch, threads, steps, environment, kernels, .. } = self;
        let mut text = format!(
            "{net}, images {channels}x{height}x{width}, batch {batch}, threads {threads}, median of {steps} steps\n\
             {environment}, {kernels} kernels\n\n"
        );
        let _ = writeln!(text, "            images/s       slowest-fastest    GFLOP/s   of matmul");
        let mut line = |name: &str, rate: f64, [slowest, fastest]: [f64; 2], gflops: f64, share: f64| {
            let range = format!("{slowest:.1}-{fastest:.1}");
            let _ = writeln!(text, "{name:<9} {rate:>10.1} {range:>21} {gflops:>10.1} {:>9.0} %", 100.0 * share);
        };
        if let (Some(rate), Some(range), Some(gflops), Some(share)) =
            (self.train_images_per_s, self.train_range, self.train_gflops, self.train_share)
        {
            line("training", rate, range, gflops, share);
        }
        if let (Some(rate), Some(range), Some(gflops), Some(share), Some(held)) =
            (self.loaded_images_per_s, self.loaded_range, self.train_gflops, self.train_share, self.train_images_per_s)
        {
            line("with data", rate, range, gflops * rate / held, share * rate / held);
        }
        line("inference", self.infer_images_per_s, self.infer_range, self.infer_gflops, self.infer_share);
        let _ = writeln!(text, "\nmatmul of 2048x2048 matrices: {:.1} GFLOP/s", self.matmul_gflops);
        if let Some(peak) = self.peak_mib {
            let _ = writeln!(text, "peak memory of training: {peak:.0} MiB");
        }
        if let Some(reserved) = self.device_mib {
            let _ = writeln!(text, "memory reserved on the device: {reserved:.0} MiB");
        }
        text
    }
}
