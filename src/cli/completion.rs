//! `applink completion`: scripts that complete the command line.

use super::ToolError;
use super::output::say;
use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

/// Flags of `applink completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
bash:  source <(applink completion bash)
zsh:   source <(applink completion zsh)
fish:  applink completion fish | source")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: For,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
///
/// # Errors
/// [`ToolError`] when it can't be written.
pub fn run(args: &CompletionArgs, command: &mut Command) -> Result<(), ToolError> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, command, "applink", &mut script);
    Ok(say(&String::from_utf8_lossy(&script))?)
}
