//! The command line: one file a command. Raw flags become a checked configuration here, and
//! nothing else sees the raw ones.

pub mod check;
pub mod crds;
pub mod operator;
pub mod provider;

use clap::{Parser, Subcommand};

/// Keeps the OAuth links between applications, declared in YAML.
#[derive(Debug, Parser)]
#[command(name = "applink", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers
    Operator(operator::OperatorArgs),
    /// Run the bundled provider service
    Provider(provider::ProviderArgs),
    /// Print the custom resource definitions
    Crds(crds::CrdsArgs),
    /// Ask an address once; the exit code says whether it answers 200
    Check(check::CheckArgs),
}

/// Why a command failed: one sentence for who called it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum CliError {
    /// `applink operator`
    Operator(#[from] operator::OperatorError),
    /// `applink provider`
    Provider(#[from] provider::ProviderError),
    /// `applink crds`
    Crds(#[from] crds::CrdsError),
    /// `applink check`
    Check(#[from] check::CheckError),
}

/// Runs what was asked for, to its end.
///
/// # Errors
/// [`CliError`].
pub async fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        Command::Operator(args) => Ok(operator::run(args).await?),
        Command::Provider(args) => Ok(provider::run(args).await?),
        Command::Crds(args) => Ok(crds::run(&args)?),
        Command::Check(args) => Ok(check::run(args).await?),
    }
}
