//! Tests of the binary `residual`.

mod answers;
mod data;
#[cfg(target_os = "linux")]
mod faults;
mod folders;
mod report;
mod survival;
mod tasks;
mod weights;
mod words;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output},
    time::Duration,
};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residual"));
    command.env_remove("BURN_DEVICE").args(args);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits until a file exists. The process must not end before.
fn wait_for(child: &mut Child, path: &Path) {
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the process ended without {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(unix)]
fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// The command in a shell that first runs a script.
#[cfg(unix)]
fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{script}; exec \"$@\""), "sh"]).env_remove("BURN_DEVICE");
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// Runs the program with a limit on the size of files, in blocks of 512 bytes. A larger file cannot be written, as on a
/// full disk.
#[cfg(unix)]
fn with_small_files(blocks: u64, args: &[&str]) -> Output {
    in_shell(&format!("ulimit -f {blocks}"), &command(args)).output().unwrap()
}

/// Runs the program, asserts success, and returns stdout and stderr.
fn succeeds(args: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = command(args).output().unwrap();
    assert!(status.success(), "{args:?}: {status}: {}", text(&stderr));
    (text(&stdout), text(&stderr))
}

/// Runs the program and asserts that it fails with this exit code and a single error that contains the text.
fn refuses(args: &[&str], code: i32, expected: &str) {
    let Output { status, stdout, stderr } = command(args).output().unwrap();
    let stderr = text(&stderr);
    assert_eq!(status.code(), Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains(expected), "{args:?}: {stderr}");
    assert!(stdout.is_empty() && !stderr.contains("panicked"), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{args:?}: {stderr}");
}

/// The configuration of a recorded training.
const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/cifar10/resnet20/config.json");

#[test]
fn invalid_requests_exit_with_2_and_say_what_is_valid() {
    let cases: [(&[&str], &str); 51] = [
        (&["train", "--net", "resnet21"], "20 or 26"),
        (&["train", "--net", "wide_resnet34_2"], "50 or 101"),
        (&["train", "--net", "dense-resnet8", "--stem", "small"], "dense networks have no stem"),
        (&["train", "--net", "resnet18", "--output-stride", "8"], "unset for basic blocks"),
        (&["train", "--net", "resnet20", "--last-survival", "0"], "the survival probability must be above 0"),
        (&["train", "--net", "resnet20", "--freeze", "layer4"], "resnet20 has no part layer4, only stem, layer1"),
        (&["train", "--net", "resnet20", "--freeze", "stem,layer1,layer2,layer3,head"], "nothing is left to train"),
        (&["summary", "resnext999999999_32x4d"], "unknown network"),
        (&["summary", "resnext999999_32x4d"], "depths are 50, 101 and 152"),
        (&["summary", "resnet999998"], "the number of parameters must be at most 10 billion"),
        (&["summary", "wide_resnet50_999999"], "must be at most"),
        (&["train", "--net", "resnet20", "--width", "99999999"], "width must be at most 1048576, not 99999999"),
        (&["summary", "resnet20", "--image", "3x99999999999x32"], "image height must be at most"),
        (&["train", "--net", "plain8", "--last-survival", "0.5"], "the survival probability must be 1 in a plain net"),
        (&["train", "--net", "resnet8", "--ignore-head"], "need --weights or --pretrained"),
        (&["train", "--net", "resnet20", "--part-lr", "head=fast"], "`fast` is not a number"),
        (&["train", "--net", "resnet20", "--part-lr", "neck=2"], "unknown part of a network `neck`"),
        (&["train", "--net", "vgg16"], "unknown network `vgg16`"),
        (&["train", "--net", "resnet20", "--classes", "0"], "classes must be at least 1"),
        (&["train", "--net", "resnet20", "--classes", "5"], "the dataset has 10 classes, but the network has only 5"),
        (&["train", "--net", "resnet20", "--width", "0"], "width must be at least 1"),
        (&["train", "--net", "resnet20", "--data", "cifar11"], "[possible values: digits, synthetic"),
        (&["train", "--net", "resnet20", "--epochs", "0"], "epochs must be at least 1, not 0"),
        (&["train", "--net", "resnet20", "--lr", "nan"], "the learning rate must be a positive number, not NaN"),
        (&["train", "--net", "resnet20", "--backend", "wpgu"], "unknown backend `wpgu`; expected one of flex"),
        (&["train", "--net", "resnet20", "--backend", "rocm"], "rebuild with `--features rocm`"),
        (&["sweep", "--depths", "8,21"], "no dense network has depth 21"),
        (&["sweep", "--epochs", "0"], "epochs must be at least 1"),
        (&["sweep", "--family", "bottleneck", "--depths", "21"], "depths are 9n+2; try 20 or 29"),
        (&["sweep", "--family", "vgg"], "unknown family `vgg`; expected one of dense, conv, bottleneck"),
        (&["sweep", "--optimizer", "sgd,adma"], "invalid value 'adma'"),
        (&["sweep", "--beta1", "0.5"], "beta1 is a setting of adam, adamw, adan, lion, lamb, muon, but"),
        (&["sweep", "--optimizer", "sgd,adam", "--momentum", "0"], "--momentum is for one optimizer; of several, each"),
        (&["sweep", "--lr", "0.1,0.2", "--norm", "batch,none", "--batch-size", "8,9"], "a sweep has at most two axes"),
        (&["sweep", "--lr-grid", "0"], "the factors of the learning-rate grid must be positive numbers, not 0"),
        (&["sweep", "--config", RUN], "config.json is the configuration of one training; a sweep reads the sweep.json"),
        (
            &["train", "resnet8", "--lr", "0.1,0.2"],
            "--lr takes one value here, not 0.1,0.2; `residual sweep` takes several",
        ),
        (&["sweep", "--jobs", "0"], "--jobs must be at least 1"),
        (&["summary", "resnet20", "--image", "32"], "invalid image shape `32`"),
        (&["train"], "residual train resnet20"),
        (&["train", "--net", "resnet20", "--patience", "2", "--evaluate", "at-end"], "patience requires an evaluation"),
        (&["train", "--net", "resnet20", "--schedule", "step"], "a step schedule needs --milestones"),
        (&["sweep", "--seed", "18446744073709551615"], "seeds must be at most 1000"),
        (&["sweep", "--family", "conv", "--depths", "8", "--width", "4000"], "GiB of memory"),
        (&["sweep", "--epochs", "9223372036854775808"], "epochs must be at most 1000000000"),
        (
            &["sweep", "--family", "dense", "--seeds", "1000", "--depths", "4,6,8,10,12,14"],
            "at most 10000 trainings, not 12000",
        ),
        (&["train", "resnet8", "--epochs", "18446744073709551615"], "epochs must be at most 1000000000"),
        (&["inspect", "resnet8", "--seeds", "18446744073709551615"], "seeds must be at most 1000"),
        (&["inspect", "resnet8", "--draws", "9223372036854775808"], "draws must be at most 10000"),
        (&["bench", "resnet8", "--batch-size", "18446744073709551615"], "try a smaller batch"),
        (&["bench", "resnet8", "--steps", "18446744073709551615"], "at most 1000000 steps"),
    ];
    for (args, text) in cases {
        refuses(args, 2, text);
    }
}

#[test]
fn failures_exit_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    refuses(&["train", "--resume", &path("missing")], 1, "does not exist");
    refuses(&["train", "--config", &path("missing.json")], 1, "cannot read");
    fs::write(path("broken.json"), "{").unwrap();
    refuses(&["train", "--config", &path("broken.json")], 1, "broken.json is not usable");
    fs::write(path("foreign.json"), "{\"version\": 9}").unwrap();
    refuses(&["train", "--config", &path("foreign.json")], 1, "is a configuration of version 9");
    // A file where a directory should be.
    refuses(&["train", "--net", "dense-plain4", "--out", &path("broken.json/run")], 1, "cannot create");
    refuses(&["sweep", "--out", &path("broken.json/sweep")], 1, "cannot create");
}

#[test]
fn the_backend_flag_overrides_burn_device() {
    let dir = tempfile::tempdir().unwrap();
    let train = ["train", "--net", "dense-plain4", "--data", "synthetic", "--epochs", "1"];
    let run = |flag: &[&str]| {
        command(&[&train[..], flag].concat()).env("BURN_DEVICE", "nonsense").current_dir(&dir).output().unwrap()
    };
    let refused = run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("`nonsense` in BURN_DEVICE"));
    assert!(run(&["--backend", "flex"]).status.success());
}

#[test]
fn a_training_can_be_repeated_from_its_config() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let out = run.to_str().unwrap();
    let (stdout, stderr) =
        succeeds(&["train", "--net", "dense-resnet4", "--data", "synthetic", "--epochs", "2", "--out", out]);
    assert!(stdout.contains("dense-resnet4: training error"), "{stdout}");
    assert!(stderr.contains("epoch   2/2"), "{stderr}");
    refuses(&["train", "--net", "dense-resnet4", "--out", out], 1, "holds a finished training");
    assert!(succeeds(&["train", "--resume", out]).1.contains("is finished"));
    let config = run.join("config.json");
    let again = dir.path().join("again");
    let args =
        ["train", "--config", config.to_str().unwrap(), "--seed", "1", "--out", again.to_str().unwrap(), "--json"];
    assert!(succeeds(&args).0.contains("\"status\": \"finished\""));
    assert!(fs::read_to_string(again.join("config.json")).unwrap().contains("\"seed\": 1"));
}

#[test]
fn a_diverging_training_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args =
        ["train", "--net", "dense-plain4", "--lr", "1e30", "--schedule", "constant", "--out", out.to_str().unwrap()];
    let output = command(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error: the loss became"));
    assert!(fs::read_to_string(out.join("summary.json")).unwrap().contains("diverged"));
}

#[test]
fn summary_prints_the_published_numbers() {
    let table = succeeds(&["summary", "resnet20"]).0;
    assert!(table.contains("269,722") && table.contains("40,551,040"), "{table}");
    assert!(succeeds(&["summary", "cifar-resnet50", "--shortcut", "B", "--json"]).0.contains("\"parameters\""));
}

#[test]
fn devices_lists_every_backend_and_the_default() {
    let list = succeeds(&["devices"]).0;
    assert!(list.contains("* flex") && list.contains("cuda"), "{list}");
}

#[test]
fn several_devices_share_a_training() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let train = |devices: &str, epochs: &str, name: &str| {
        let args = ["train", "resnet8", "--samples", "200", "--batch-size", "20", "--accumulate", "6"];
        succeeds(&[&args[..], &["--epochs", epochs, "--devices", devices, "--out", &path(name)]].concat()).1
    };
    train("flex", "4", "one");
    assert!(train("flex,FLEX", "2", "two").contains("flex (2 devices, "));
    let read = |name: &str, file: &str| fs::read(dir.path().join(name).join(file)).unwrap();
    assert!(train("flex,flex,flex", "4", "three").contains("epoch   4/4"));
    assert!(["model.bpk", "loss.csv"].iter().all(|file| read("one", file) == read("three", file)));
    succeeds(&["train", "--resume", &path("two"), "--devices", "flex,flex"]);

    let nothing = path("nothing");
    let refused = |devices: &str, reason: &str| {
        refuses(&["train", "resnet8", "--devices", devices, "--out", &nothing], 2, reason);
        assert!(!dir.path().join("nothing").exists());
    };
    refused("flex,flex", "2 devices cannot share the batches of a step equally: `accumulate` must be a multiple of 2");
    refused("flex,cpu", if cfg!(feature = "cpu") { "different backends" } else { "`cpu` is not compiled in" });
    refused("flex:1", "there is no device `flex:1` here; there is flex");
    refused("flex,", "unknown backend ``");
    refuses(&["train", "resnet8", "--devices", "flex", "--backend", "flex"], 2, "cannot be used with");
}

#[test]
fn bench_times_training_and_inference() {
    let bench = ["bench", "resnet8", "--image", "3x8x8", "--batch", "4", "--steps", "2"];
    let report: serde_json::Value = serde_json::from_str(&succeeds(&[&bench[..], &["--json"]].concat()).0).unwrap();
    for key in ["train_images_per_s", "infer_images_per_s", "train_gflops", "matmul_gflops", "infer_share"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} in {report}");
    }
    if cfg!(target_os = "linux") {
        assert!(report["peak_mib"].as_f64().unwrap() > 1.0);
    }
    assert_eq!(report["kernels"], "fused");
    assert!(report["loaded_images_per_s"].is_null());
    let digits = ["bench", "resnet8", "--data", "digits", "--crop-padding", "1", "--batch", "4", "--steps", "2"];
    let text = succeeds(&digits).0;
    assert!(text.contains("images 1x8x8") && text.contains("with data "), "{text}");
    refuses(&["bench", "resnet8", "--data", "digits", "--image", "3x8x8"], 2, "--data cannot be combined with --image");
    refuses(&["bench", "resnet8", "--flip"], 2, "need --data NAME");
    refuses(&["bench", "resnet8", "--data", "digits", "--classes", "3"], 2, "--classes must be at least 10");
    let text = succeeds(&[&bench[..], &["--kernels", "reference", "--threads", "1"]].concat()).0;
    assert!(
        text.contains("threads 1,") && text.contains("reference kernels\n") && text.contains("peak memory"),
        "{text}"
    );
    let text = succeeds(&[&bench[..], &["--recompute", "--inference"]].concat()).0;
    assert!(text.contains("recompute kernels") && !text.contains("training"), "{text}");
}

#[test]
fn invalid_bench_flags_are_refused() {
    let bench = ["bench", "resnet8", "--recompute", "--kernels", "reference"];
    refuses(&bench, 2, "--recompute cannot be combined with --kernels reference");
    refuses(&["bench", "resnet8", "--batch", "0"], 2, "must be at least 1");
}

#[test]
fn kernels_are_recorded_with_a_training() {
    let dir = tempfile::tempdir().unwrap();
    for kernels in ["fused", "recompute", "reference"] {
        let out = dir.path().join(kernels);
        let args = ["train", "--net", "resnet8", "--data", "synthetic", "--epochs", "1", "--kernels", kernels, "--out"];
        succeeds(&[&args[..], &[out.to_str().unwrap()]].concat());
        let environment = fs::read_to_string(out.join("environment.json")).unwrap();
        assert!(environment.contains(&format!("\"kernels\": \"{kernels}\"")), "{environment}");
    }
}

/// Asserts that a command, its arguments and its subcommands have help. Returns the number of commands.
fn check_help(path: &[&str]) -> usize {
    let help = succeeds(&[path, &["--help"]].concat()).0;
    let (about, _) = help.split_once("Usage: residual").unwrap_or_else(|| panic!("{path:?}: {help}"));
    assert!(!about.trim().is_empty(), "{path:?} has no help");
    let lines: Vec<&str> = help.lines().collect();
    let (mut section, mut commands) = ("", 1);
    for (i, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        match (line.len() - text.len(), section) {
            (0, _) if !text.is_empty() => section = text,
            (2, "Commands:") => {
                let (name, about) = text.split_once("  ").unwrap_or((text, ""));
                assert!(!about.trim().is_empty(), "{path:?} {name} has no help");
                if name != "help" {
                    commands += check_help(&[path, &[name]].concat());
                }
            }
            // The help of an argument follows on the same line, or on the next one with a larger indentation.
            (1..=6, "Arguments:" | "Options:" | "Data:" | "Augmentation:" | "Weights:" | "Network:" | "Backend:") => {
                let below = lines.get(i + 1).is_some_and(|next| next.starts_with("          "));
                assert!(text.contains("  ") || below, "{path:?}: {text} has no help");
            }
            _ => {}
        }
    }
    commands
}

#[test]
fn every_command_and_argument_has_help() {
    assert!(check_help(&[]) > 20);
}

/// Starts the program and reads its stderr up to a line that contains the text.
#[cfg(unix)]
fn start_until(args: &[&str], expected: &str) -> (std::process::Child, impl std::io::BufRead) {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let mut child = command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(expected) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "{args:?} ended before it printed `{expected}`");
    }
    (child, stderr)
}

/// Environment variables that hide the Vulkan and OpenGL drivers on Linux.
#[cfg(unix)]
const NO_GPU: [(&str, &str); 3] =
    [("VK_DRIVER_FILES", "/nowhere"), ("VK_ICD_FILENAMES", "/nowhere"), ("__EGL_VENDOR_LIBRARY_DIRS", "/nowhere")];

#[test]
#[cfg(all(target_os = "linux", feature = "wgpu"))]
fn a_backend_without_hardware_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut train = command(&["train", "--net", "dense-plain4", "--backend", "wgpu"]);
    let Output { status, stderr, .. } = train.envs(NO_GPU).current_dir(&dir).output().unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(text(&stderr).starts_with("error: backend `wgpu` found no device"), "{}", text(&stderr));
    assert!(text(&stderr).contains("; use one of flex"), "{}", text(&stderr));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert!(command(&["devices"]).envs(NO_GPU).status().unwrap().success());
}

#[test]
#[cfg(unix)]
fn a_training_stopped_by_ctrl_c_resumes() {
    use std::io::Read;
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let out = run.to_str().unwrap();
    let args = ["train", "--net", "dense-resnet20", "--epochs", "60", "--out", out];
    let (mut child, mut stderr) = start_until(&args, "epoch   2/60");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut output = String::new();
    stderr.read_to_string(&mut output).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{output}");
    assert!(output.contains(&format!("resume with `residual train --resume {out}`")), "{output}");
    // A resume uses the backend of the run, whatever BURN_DEVICE says.
    let mut resume = command(&["train", "--resume", out]);
    resume.envs(NO_GPU).env("BURN_DEVICE", "nonsense");
    let Output { status, stdout, stderr } = resume.output().unwrap();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert!(status.success(), "{stderr}");
    assert!(stderr.contains("resuming after epoch"), "{stderr}");
    assert!(stdout.contains("dense-resnet20: training error"), "{stdout}");
    let metrics = fs::read_to_string(run.join("metrics.csv")).unwrap();
    for epoch in 1..=60 {
        let rows = metrics.lines().filter(|row| row.starts_with(&format!("{epoch},"))).count();
        assert_eq!(rows, 3, "epoch {epoch} has one row per split");
    }
}

/// The rows of a sweep's `results.csv` without the column of seconds.
#[cfg(unix)]
fn without_seconds(folder: &str) -> Vec<Vec<String>> {
    let table = fs::read_to_string(format!("{folder}/results.csv")).unwrap();
    let cells = |row: &str| row.split(',').enumerate().filter(|(i, _)| *i != 8).map(|(_, cell)| cell.into()).collect();
    table.lines().map(cells).collect()
}

#[test]
#[cfg(unix)]
fn a_killed_sweep_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| dir.path().join(name).display().to_string();
    let (killed, whole) = (folder("killed"), folder("whole"));
    let flags = ["sweep", "--family", "dense", "--depths", "4,20", "--seeds", "4", "--epochs", "2", "--out"];
    let (mut child, _) = start_until(&[&flags[..], &[&killed]].concat(), "  3/16");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.path().join("killed/results.csv").exists());
    let stderr = succeeds(&[&flags[..], &[&killed]].concat()).1;
    let kept = stderr.lines().find_map(|line| line.strip_suffix(" of 16 trainings are already finished")).unwrap();
    assert!((3..16).contains(&kept.parse::<usize>().unwrap()), "{stderr}");
    succeeds(&[&flags[..], &[&whole]].concat());
    assert_eq!(without_seconds(&killed), without_seconds(&whole));
}

#[test]
fn the_number_of_threads_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["train", "dense-plain4", "--data", "synthetic", "--epochs", "1", "--out"];
    let output = command(&args).arg(dir.path().join("run")).env("RAYON_NUM_THREADS", "100000").output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success() && stderr.contains("RAYON_NUM_THREADS is 100000; using 256 threads"), "{stderr}");
}
