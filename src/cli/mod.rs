//! The command line: one file a command. Raw flags become a checked configuration here, and
//! nothing else sees the raw ones.
//!
//! | command | file |
//! |---|---|
//! | the services | [`operator`], [`provider`] |
//! | tools without a cluster | [`lint`], [`crds`], [`check`], [`completion`] |
//! | tools on a cluster, with the user's own rights | [`status`], [`credentials`], [`rotate`], [`mod@authorize`], [`doctor`], [`ui`] |
//! | tools that look with the operator's eyes | [`plan`], [`import`], [`orphans`], [`rotate_key`] |
//! | what tools share | [`cluster`], [`output`], [`links`], [`house`] |

pub mod authorize;
pub mod check;
pub mod cluster;
pub mod completion;
pub mod crds;
pub mod credentials;
pub mod doctor;
pub mod house;
pub mod import;
pub mod links;
pub mod lint;
pub mod operator;
pub mod orphans;
pub mod output;
pub mod plan;
pub mod provider;
pub mod rotate;
pub mod rotate_key;
pub mod status;
pub mod ui;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::ffi::OsString;
use std::path::Path;

/// Keeps the OAuth links between applications, declared in YAML.
#[derive(Debug, Parser)]
#[command(
    name = "applink",
    version,
    max_term_width = 100,
    after_help = "\
Called kubectl-applink it is a plugin of kubectl: kubectl applink status.
Exit codes of the tools: 0 yes; 1 the answer is no (something found, not ready, failed); 2 it couldn't be asked."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show providers, their links and the links' Secrets as a tree
    Status(status::StatusArgs),
    /// Show the links as a page in your browser, and change them there
    Ui(ui::UiArgs),
    /// Check each hop from here to a working link, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Print the credentials of a link, for who may read its Secret
    Credentials(credentials::CredentialsArgs),
    /// Connect an outgoing link: consent to it in a browser, or with a device code
    Authorize(authorize::AuthorizeArgs),
    /// Ask for a new client secret
    Rotate(rotate::RotateArgs),
    /// Give the installation a new master key, and move all links to it
    RotateKey(rotate_key::RotateKeyArgs),
    /// Show what manifests would change, in the cluster and at the provider
    Plan(plan::PlanArgs),
    /// Write manifests for the clients of a provider that no link owns
    Import(import::ImportArgs),
    /// Show the clients that this installation made and whose link is gone
    Orphans(orphans::OrphansArgs),
    /// Check manifests offline, as the API server and the operator would
    Lint(lint::LintArgs),
    /// Print the custom resource definitions
    Crds(crds::CrdsArgs),
    /// Print a script that completes this command in a shell
    Completion(completion::CompletionArgs),
    /// Ask an address once; the exit code says whether it answers 200
    Check(check::CheckArgs),
    /// Run the controllers
    Operator(operator::OperatorArgs),
    /// Run the bundled provider service
    Provider(provider::ProviderArgs),
}

/// What a tool found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All is well; exit code 0.
    Yes,
    /// It isn't, and that was said; exit code 1.
    No,
    /// It couldn't all be asked, and that was said; exit code 2.
    Failed,
    /// There is a difference (`applink plan`); exit code 2.
    Differs,
}

impl Answer {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Failed | Self::Differs => 2,
        }
    }
}

/// Why a tool has no answer. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No cluster to ask.
    #[error("{0}")]
    Config(String),
    /// The API server doesn't answer as hoped for.
    #[error("{what}: {why}")]
    Kube {
        /// What was asked for.
        what: String,
        /// What came back, and what to do.
        why: String,
    },
    /// Something that must be there, or otherwise, for this command.
    #[error("{0}")]
    Precondition(String),
    /// A schema that isn't one; a bug.
    #[error("the CRDs can't be made: {0}")]
    Schema(#[from] serde_json::Error),
    /// Nothing can be printed.
    #[error("can't write: {0}")]
    Io(#[from] std::io::Error),
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
    /// `applink plan`, whose exit codes are those of a diff.
    Plan(ToolError),
    /// A tool.
    Tool(#[from] ToolError),
}

impl CliError {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Tool(_) => 2,
            _ => 1,
        }
    }
}

impl Cli {
    /// Reads the command line. Called as a plugin, it says so in its help.
    ///
    /// # Errors
    /// What clap has to say: help, the version, or wrong usage.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        let called = args.first().map(Path::new).and_then(Path::file_stem);
        let mut command = Self::command();
        if called.is_some_and(|name| name == "kubectl-applink") {
            command = command.bin_name("kubectl applink");
        }
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }
}

/// Runs what was asked for, to its end.
///
/// # Errors
/// [`CliError`].
pub async fn run(cli: Cli) -> Result<Answer, CliError> {
    match cli.command {
        Command::Operator(args) => operator::run(args).await?,
        Command::Provider(args) => provider::run(args).await?,
        Command::Crds(args) => crds::run(&args)?,
        Command::Check(args) => check::run(args).await?,
        Command::Completion(args) => completion::run(&args, &mut Cli::command())?,
        Command::Lint(args) => return Ok(lint::run(&args)?),
        Command::Status(args) => return Ok(status::run(args).await?),
        Command::Credentials(args) => return Ok(credentials::run(args).await?),
        Command::Authorize(args) => return Ok(authorize::run(args).await?),
        Command::Ui(args) => return Ok(ui::run(args).await?),
        Command::Rotate(args) => return Ok(rotate::run(args).await?),
        Command::RotateKey(args) => return Ok(rotate_key::run(args).await?),
        Command::Plan(args) => return plan::run(args).await.map_err(CliError::Plan),
        Command::Import(args) => return Ok(import::run(args).await?),
        Command::Orphans(args) => return Ok(orphans::run(args).await?),
        Command::Doctor(args) => return Ok(doctor::run(args).await?),
    }
    Ok(Answer::Yes)
}
