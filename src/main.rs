//! `applink`: parse, run, say in one sentence what went wrong.

use applink_operator::cli::{self, Cli, output};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|e| e.exit());
    match cli::run(cli).await {
        Ok(answer) => answer.code().into(),
        Err(error) => {
            output::complain(&format!("error: {error}"));
            error.code().into()
        }
    }
}
