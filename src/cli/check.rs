//! `applink check`: asks an address once and says by the exit code whether it answers 200. For
//! `helm test` and for probes in images without a shell.

use crate::http::{AllowList, Guard, GuardOptions, Request, Trust};
use clap::Args;
use url::Url;

/// Flags of `applink check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The address to ask
    #[arg(long)]
    url: Url,
}

/// Why the check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The HTTP client can't be set up.
    #[error("{0}")]
    Guard(#[from] crate::http::GuardError),
    /// No answer.
    #[error("{url}: {why}")]
    Send {
        /// The address.
        url: Url,
        /// What went wrong.
        why: crate::http::SendError,
    },
    /// Another answer.
    #[error("{url} answers HTTP {status}, not 200")]
    Status {
        /// The address.
        url: Url,
        /// The status.
        status: u16,
    },
}

/// Asks.
///
/// # Errors
/// [`CheckError`] for anything but 200.
pub async fn run(args: CheckArgs) -> Result<(), CheckError> {
    let guard = Guard::new(AllowList::default(), GuardOptions::default())?;
    // The one who calls names the address: nobody else's word is trusted here.
    let http = guard.client(Trust::Trusted, None);
    let url = args.url;
    let answer = http
        .send(Request::get(url.clone()))
        .await
        .map_err(|why| CheckError::Send { url: url.clone(), why })?;
    if answer.status == 200 { Ok(()) } else { Err(CheckError::Status { url, status: answer.status }) }
}
