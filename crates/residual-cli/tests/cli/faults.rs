//! What happens to a training from outside, and what the training must do: a table of faults.

use super::{command, in_shell, send, text};
use rustix::{
    pipe::fcntl_setpipe_size,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write, pipe},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const TRAIN: &[&str] =
    &["train", "--net", "resnet8", "--samples", "400", "--batch-size", "40", "--epochs", "16", "--seed", "7"];

/// What happens to a running training.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The terminal is closed, as when a connection is lost.
    TerminalCloses,
    StderrCloses,
    StdoutCloses,
    StderrIsFull,
    StdoutIsFull,
    /// Stderr is a pipe whose reader waits, such as a pager that is not scrolled.
    NobodyReads,
    /// These signals arrive at once.
    Signals(&'static [&'static str]),
    /// This signal arrives, but it is ignored, as by `nohup`.
    IgnoredSignal(&'static str),
    FolderIsDeleted,
    FolderIsRenamed,
    /// No file can have more than this number of blocks of 512 bytes.
    DiskFills(u32),
}

use Fault::*;

/// The fault, the exit code, and a part of the error message.
const TRAININGS: &[(Fault, i32, &str)] = &[
    (TerminalCloses, 130, ""),
    (StderrCloses, 0, ""),
    (StdoutCloses, 0, ""),
    (StderrIsFull, 0, ""),
    (StdoutIsFull, 1, "error: cannot write to stdout"),
    (NobodyReads, 0, ""),
    (Signals(&["INT"]), 130, "resume with"),
    (Signals(&["TERM"]), 130, "resume with"),
    (Signals(&["HUP"]), 130, "resume with"),
    // `timeout` sends its signal twice, and a service manager sends two.
    (Signals(&["TERM", "CONT", "TERM"]), 130, "resume with"),
    (Signals(&["TERM", "HUP"]), 130, "resume with"),
    (IgnoredSignal("HUP"), 0, ""),
    (IgnoredSignal("INT"), 0, ""),
    (FolderIsDeleted, 1, "error:"),
    (FolderIsRenamed, 1, "error:"),
    (DiskFills(1), 1, "error: cannot write"),
    (DiskFills(100), 1, "error: cannot write"),
    (DiskFills(400), 1, "error: cannot write"),
];

#[test]
fn a_training_survives_faults_and_resumes_bit_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    assert!(train(&whole).output().unwrap().status.success());
    let expected = fs::read(whole.join("model.bpk")).unwrap();
    for (number, &(fault, code, error)) in TRAININGS.iter().enumerate() {
        let run = dir.path().join(number.to_string());
        let Output { status, stderr, .. } = suffer(fault, &run);
        let stderr = text(&stderr);
        assert_eq!(status.code(), Some(code), "{fault:?}: {stderr}");
        assert!(stderr.contains(error) && !stderr.contains("panicked"), "{fault:?}: {stderr}");
        let left = if let FolderIsRenamed = fault { renamed(&run) } else { run.clone() };
        if let FolderIsDeleted | FolderIsRenamed = fault {
            assert!(!run.exists(), "{fault:?}: the folder exists again");
        }
        if let FolderIsDeleted = fault {
            continue;
        }
        let is_run = left.join("config.json").exists();
        let resumed = if is_run { command(&["train", "--resume"]).arg(&left).output() } else { train(&left).output() };
        let resumed = resumed.unwrap();
        assert!(resumed.status.success(), "{fault:?}: {}", text(&resumed.stderr));
        assert!(fs::read(left.join("model.bpk")).unwrap() == expected, "{fault:?}: the weights differ");
        assert_eq!(unfinished(&left), Vec::<PathBuf>::new(), "{fault:?}");
    }
}

/// A resumed training starts the program again, which must not lose a signal. A library makes the moments long in
/// which it could: it sleeps after a handler is installed and before the program is replaced.
#[test]
fn a_signal_at_any_moment_of_the_start_ends_a_resumed_training() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let (source, slow) = (dir.path().join("slow.c"), dir.path().join("slow.so"));
    fs::write(&source, SLOW_START).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&slow).arg(&source).arg("-ldl").status();
    assert!(compiled.unwrap().success());
    let mut first =
        command(&TRAIN[..7]).stderr(Stdio::null()).args(["--epochs", "2000", "--out"]).arg(&run).spawn().unwrap();
    wait_for_checkpoint(&mut first, &run);
    send(&first, "TERM");
    assert_eq!(first.wait().unwrap().code(), Some(130));
    for delay in (0..250).step_by(10) {
        let mut resumed = command(&["train", "--resume"]);
        let mut resumed =
            resumed.arg(&run).env("LD_PRELOAD", &slow).env_remove("BURN_DEVICE").stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        send(&resumed, "TERM");
        let status = resumed.wait().unwrap();
        assert!(status.code() == Some(130) || status.signal() == Some(15), "after {delay} ms: {status}");
    }
}

const SLOW_START: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <time.h>

static void wait_20_ms(void) {
    struct timespec rest = {0, 20000000};
    while (nanosleep(&rest, &rest));
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    int (*original)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    int result = original(number, new, old);
    if (number == SIGTERM) wait_20_ms();
    return result;
}

int execvp(const char *file, char *const *arguments) {
    int (*original)(const char *, char *const *) = dlsym(RTLD_NEXT, "execvp");
    wait_20_ms();
    return original(file, arguments);
}
"#;

fn train(run: &Path) -> Command {
    let mut command = command(TRAIN);
    command.arg("--out").arg(run);
    command
}

/// Runs a training to which something happens once it has written its first checkpoint.
fn suffer(fault: Fault, run: &Path) -> Output {
    let command = match fault {
        IgnoredSignal(signal) => in_shell(&format!("trap '' {signal}"), &train(run)),
        DiskFills(blocks) => in_shell(&format!("ulimit -f {blocks}"), &train(run)),
        TerminalCloses => {
            let mut session = Command::new("setsid");
            session.arg("--ctty");
            with_arguments(session, &train(run))
        }
        _ => train(run),
    };
    // The tests themselves may run under `nohup`.
    let mut default_signals = Command::new("env");
    default_signals.arg("--default-signal=HUP,INT,TERM");
    let mut command = with_arguments(default_signals, &command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut kept = None;
    let mut terminal = None;
    match fault {
        StderrIsFull => drop(command.stderr(full())),
        StdoutIsFull => drop(command.stdout(full())),
        NobodyReads => {
            let (reader, mut writer) = pipe().unwrap();
            let size = fcntl_setpipe_size(&writer, 4096).unwrap();
            writer.write_all(&vec![b'.'; size]).unwrap();
            command.stderr(writer);
            kept = Some(reader);
        }
        TerminalCloses => {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let name = ptsname(&master, Vec::new()).unwrap();
            let slave = || {
                let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
                OpenOptions::new().read(true).write(true).open(path).unwrap()
            };
            command.stdin(slave()).stdout(slave()).stderr(slave());
            terminal = Some(File::from(master));
        }
        _ => {}
    }
    let mut child = command.spawn().unwrap();
    // The parent's copies of the terminal.
    drop(command);
    if let StderrCloses = fault {
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut String::new()).unwrap();
    }
    if let StdoutCloses = fault {
        drop(child.stdout.take());
    }
    if !matches!(fault, DiskFills(_)) {
        wait_for_checkpoint(&mut child, run);
    }
    match fault {
        TerminalCloses => drop(terminal.take()),
        Signals(signals) => signals.iter().for_each(|signal| send(&child, signal)),
        IgnoredSignal(signal) => send(&child, signal),
        FolderIsDeleted => delete(run),
        FolderIsRenamed => fs::rename(run, renamed(run)).unwrap(),
        _ => {}
    }
    let output = child.wait_with_output().unwrap();
    drop(kept);
    output
}

fn wait_for_checkpoint(child: &mut Child, run: &Path) {
    while !fs::read_dir(run.join("checkpoint")).is_ok_and(|mut files| files.next().is_some()) {
        assert!(child.try_wait().unwrap().is_none(), "the training ended before its first checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Deletes a folder in which another process creates files.
fn delete(folder: &Path) {
    while let Err(error) = fs::remove_dir_all(folder) {
        assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{error}");
    }
}

fn renamed(run: &Path) -> PathBuf {
    run.with_added_extension("renamed")
}

/// The temporary files in a folder and the folders within.
fn unfinished(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(unfinished(&path));
        } else if path.extension().is_some_and(|extension| extension == "tmp") {
            found.push(path);
        }
    }
    found
}

/// A program that runs the command given by its arguments.
fn with_arguments(mut program: Command, command: &Command) -> Command {
    program.arg(command.get_program()).args(command.get_args()).env_remove("BURN_DEVICE");
    program
}

/// A limit on what a command may use.
#[derive(Clone, Copy, Debug)]
enum Limit {
    OpenFiles(u32),
    Threads(u32),
    ReadOnlyFolder,
}

use Limit::*;

const COMMANDS: &[&[&str]] = &[
    &["train", "--net", "dense-resnet4", "--samples", "60", "--epochs", "1", "--out", "run"],
    &["sweep", "--family", "dense", "--depths", "4", "--seeds", "1", "--epochs", "1", "--samples", "60", "--out", "s"],
    &["inspect", "dense-resnet4", "--samples", "60", "--out", "inspect"],
    &["data", "export", "digits", "pictures"],
    &["convert", "../finished", "weights.bpk"],
];

/// With few files or threads, or in a folder that cannot be written, a command succeeds or fails with one error.
#[test]
fn a_command_succeeds_or_says_what_is_missing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = dir.path().join("residual");
    fs::hard_link(env!("CARGO_BIN_EXE_residual"), &program).unwrap();
    assert!(
        command(&COMMANDS[0][..7]).arg("--out").arg(dir.path().join("finished")).output().unwrap().status.success()
    );
    // The loader of shared libraries needs a fourth file.
    let files = [4, 5, 6, 8, 12, 16, 24].map(OpenFiles);
    let threads = [1, 3, 6, 10, 14, 18, 24].map(Threads);
    for limit in files.into_iter().chain(threads).chain([ReadOnlyFolder]) {
        for (number, arguments) in COMMANDS.iter().enumerate() {
            let folder = dir.path().join(format!("{limit:?}-{number}"));
            fs::create_dir(&folder).unwrap();
            let mode = if let ReadOnlyFolder = limit { 0o555 } else { 0o777 };
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let mut limited = limited(limit);
            limited.arg(&program).args(*arguments).env_remove("BURN_DEVICE").current_dir(&folder);
            let Output { status, stderr, .. } = limited.output().unwrap();
            let stderr = text(&stderr);
            let errors = stderr.lines().filter(|line| line.starts_with("error:")).count();
            let case = format!("{limit:?}, {arguments:?}: {status}: {stderr}");
            match (limit, status.code(), errors) {
                (ReadOnlyFolder, Some(1), 1) => {}
                (OpenFiles(_) | Threads(_), Some(0), 0) | (OpenFiles(_) | Threads(_), Some(1), 1) => {}
                _ => panic!("{case}"),
            }
            assert!(!stderr.contains("panicked"), "{case}");
        }
    }
}

/// A program that runs the command given by its arguments, with a limit. Limits do not hold for a privileged user, so
/// its place is taken by another one.
fn limited(limit: Limit) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    let mut program = if text(&id).trim() == "0" {
        let mut program = Command::new("setpriv");
        program.args(["--reuid=65534", "--regid=65534", "--clear-groups", "prlimit"]);
        program
    } else {
        Command::new("prlimit")
    };
    match limit {
        OpenFiles(number) => program.arg(format!("--nofile={number}")),
        Threads(number) => program.arg(format!("--nproc={number}")),
        ReadOnlyFolder => program.arg("--core=0"),
    };
    program
}
