use crate::{args::choose, output};
use residual_backend::{Backend, Hardware};
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
    id: String,
    compiled: bool,
    default: bool,
    device: Option<String>,
    software: bool,
    note: Option<String>,
}

/// Runs the command `devices`.
pub(crate) fn devices(args: &DevicesArgs) -> anyhow::Result<()> {
    let default = choose(None);
    let lines: Vec<Line> = Backend::ALL.iter().flat_map(|&backend| lines(backend, default.as_ref().ok())).collect();
    if args.json {
        return output::print_json(&lines);
    }
    let mut text = String::new();
    for line in lines {
        let mark = if line.default { "*" } else { " " };
        let device = line.device.unwrap_or_else(|| "-".into());
        let note = line.note.map(|note| format!("  ({note})")).unwrap_or_default();
        let _ = writeln!(text, "{mark} {:<8} {device}{note}", line.id);
    }
    text.push_str(&match default {
        Ok(_) => "\n* is the default; choose another with --backend NAME or BURN_DEVICE=NAME\n".into(),
        Err(error) => format!("\nno default: {error}\n"),
    });
    output::print(&text)
}

/// A line for each device of the backend, or one that says why there is none.
fn lines(backend: Backend, default: Option<&Backend>) -> Vec<Line> {
    let (name, compiled) = (backend.to_string(), backend.is_compiled());
    let devices = match backend.probe_all() {
        Ok(devices) => devices,
        Err(error) => {
            let note = if compiled {
                error.to_string()
            } else {
                format!("not compiled in; rebuild with --features {backend}")
            };
            let (id, backend, default) = (name.clone(), name, Some(&backend) == default);
            return vec![Line { backend, id, compiled, default, device: None, software: false, note: Some(note) }];
        }
    };
    let describe = |(i, hardware): (usize, Hardware)| Line {
        backend: name.clone(),
        id: hardware.id,
        compiled,
        default: i == 0 && Some(&backend) == default,
        device: Some(hardware.name),
        software: hardware.software,
        note: match backend {
            _ if hardware.software => Some("software adapter, for tests; far slower than flex".into()),
            Backend::NdArray => Some("deprecated in Burn, slower than flex".into()),
            _ => None,
        },
    };
    devices.into_iter().enumerate().map(describe).collect()
}
