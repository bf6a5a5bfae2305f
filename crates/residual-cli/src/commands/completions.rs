use crate::{cli::Args, output};
use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Print a script that completes commands and flags in a shell
///
/// Write it to a file that the shell reads, such as
/// ~/.local/share/bash-completion/completions/residual for bash,
/// ~/.zfunc/_residual for zsh, or
/// ~/.config/fish/completions/residual.fish for fish.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  residual completions bash
  residual completions zsh"
)]
pub(crate) struct CompletionsArgs {
    /// Shell
    pub(crate) shell: Shell,
}

/// Runs the command `completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Args::command(), "residual", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
