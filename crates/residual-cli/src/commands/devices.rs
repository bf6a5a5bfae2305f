use crate::{args::choose, output};
use residual_backend::Backend;
use serde::Serialize;
use std::fmt::Write;

/// List backends, the devices they find, and the default backend
#[derive(clap::Args)]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Line {
    backend: String,
    compiled: bool,
    default: bool,
    device: Option<String>,
    software: bool,
    note: Option<String>,
}

/// Runs the command `devices`.
pub(crate) fn devices(args: &DevicesArgs) -> anyhow::Result<()> {
    let default = choose(None);
    let lines: Vec<Line> = Backend::ALL.iter().map(|&backend| line(backend, default.as_ref().ok())).collect();
    if args.json {
        return output::print_json(&lines);
    }
    let mut text = String::new();
    for line in lines {
        let mark = if line.default { "*" } else { " " };
        let device = line.device.unwrap_or_else(|| "-".into());
        let note = line.note.map(|note| format!("  ({note})")).unwrap_or_default();
        let _ = writeln!(text, "{mark} {:<8} {device}{note}", line.backend);
    }
    text.push_str(&match default {
        Ok(_) => "\n* is the default; choose another with --backend NAME or BURN_DEVICE=NAME\n".into(),
        Err(error) => format!("\nno default: {error}\n"),
    });
    output::print(&text)
}

fn line(backend: Backend, default: Option<&Backend>) -> Line {
    let compiled = backend.is_compiled();
    let (device, software, note) = match backend.probe() {
        Ok(hardware) if hardware.software => {
            (Some(hardware.name), true, Some("software adapter, for tests; far slower than flex".into()))
        }
        Ok(hardware) if backend == Backend::NdArray => {
            (Some(hardware.name), false, Some("deprecated in Burn, slower than flex".into()))
        }
        Ok(hardware) => (Some(hardware.name), false, None),
        Err(_) if !compiled => (None, false, Some(format!("not compiled in; rebuild with --features {backend}"))),
        Err(error) => (None, false, Some(error.to_string())),
    };
    Line { backend: backend.to_string(), compiled, default: Some(&backend) == default, device, software, note }
}
