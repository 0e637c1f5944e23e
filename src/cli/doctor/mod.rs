//! `applink doctor`: checks each hop from here to a working link, and says what to do.
//!
//! | file | hops |
//! |---|---|
//! | [`cluster`] | API server, CRDs, rights, the operator |
//! | [`provider`] | a provider: its conditions, its metadata from here, TLS, clock |
//! | [`link`] | a link: its conditions, its Secret, whether the credentials authenticate |
//! | [`reply`] | the token reply that couldn't be read |

pub mod cluster;
pub mod link;
pub mod provider;
pub mod reply;

use super::cluster::{ClusterArgs, failed, list};
use super::house::HouseArgs;
use super::links;
use super::output::{Colour, Format, Paint, clean, say};
use super::status::providers_of;
use super::{Answer, ToolError};
use crate::api::ApplicationLink;
use crate::http::{AllowList, Guard, GuardOptions};
use clap::Args;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;
use std::time::Duration;

/// Flags of `applink doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each check is ok, warn, fail, or skipped where it can't be made from here or with your rights.
Proving that credentials authenticate asks the provider to revoke a token that doesn't exist: nothing changes there.
With --reply it shows the newest token reply of the link that couldn't be read, which may hold tokens: what it is on standard
error, its body as it came on standard output. Who may read the Secrets of the operator's namespace may see it.
Exit codes: 0 nothing failed (or the reply is shown), 1 something failed (or none is kept), 2 wrong usage or the cluster
couldn't be asked.
Fields of -o json and yaml: failed, and checks (check, subject, result, message, wayOut); with --reply: namespace, link, at,
status, contentType, contentEncoding, complete, body (base64).")]
pub struct DoctorArgs {
    /// The link; left out: all of the namespace
    name: Option<String>,
    /// Show the newest token reply that couldn't be read, and check nothing
    #[arg(long, requires = "name")]
    reply: bool,
    #[command(flatten)]
    house: HouseArgs,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Worth a look.
    Warn,
    /// Broken.
    Fail,
    /// It can't be made from here.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which, in a word.
    pub check: &'static str,
    /// Of what.
    pub subject: String,
    /// What it came to.
    pub result: Outcome,
    /// What was seen.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
}

impl Check {
    /// A check of `subject` that came to `result`.
    pub fn new(
        check: &'static str,
        subject: impl Into<String>,
        result: Outcome,
        message: impl Into<String>,
    ) -> Self {
        Self { check, subject: subject.into(), result, message: message.into(), way_out: None }
    }

    /// With what to do.
    #[must_use]
    pub fn way_out(mut self, text: impl Into<String>) -> Self {
        self.way_out = Some(text.into());
        self
    }
}

#[derive(Debug, Serialize)]
struct Report {
    failed: usize,
    checks: Vec<Check>,
}

/// How long a provider may take to answer.
const PROVIDER_ANSWER: Duration = Duration::from_secs(10);

/// Checks everything.
///
/// # Errors
/// [`ToolError`] when the cluster can't be asked at all.
pub async fn run(args: DoctorArgs) -> Result<Answer, ToolError> {
    let at = args.cluster.connect().await?;
    if let (true, Some(name)) = (args.reply, &args.name) {
        let link = links::get(&at, name).await?;
        return reply::show(&at, &link, &args.house, args.output).await;
    }
    let mut checks = vec![cluster::api_server(&at).await?];
    let (served, of_crds) = cluster::crds(&at).await?;
    checks.extend(of_crds);
    checks.extend(cluster::rights(&at).await);
    if served {
        let chosen = match &args.name {
            Some(name) => vec![links::get(&at, name).await?],
            None => {
                let api: Api<ApplicationLink> = Api::namespaced(at.client.clone(), &at.namespace);
                list(&api, &ListParams::default()).await.map_err(failed("ApplicationLinks"))?
            }
        };
        let mut providers = providers_of(&at, false).await?;
        checks.extend(cluster::operator(&at, args.house.given_namespace()).await);
        if args.name.is_some() {
            providers.retain(|p| chosen.iter().any(|l| p.is_of(l)));
        }
        // The person at the keyboard chose the cluster and reads the answers; nothing is guarded.
        let options = GuardOptions { timeout: PROVIDER_ANSWER, ..GuardOptions::default() };
        let guard =
            Guard::new(AllowList::default(), options).map_err(|e| ToolError::Config(e.to_string()))?;
        for provider in &providers {
            checks.extend(provider::check(&guard, provider).await);
        }
        for link in &chosen {
            let provider = providers.iter().find(|p| p.is_of(link));
            checks.extend(link::check(&at, &guard, link, provider).await);
        }
    }
    let failed = checks.iter().filter(|c| c.result == Outcome::Fail).count();
    let report = Report { failed, checks };
    if !args.output.print(&report)? {
        say(&people(&report, Paint::detect()))?;
    }
    Ok(if failed == 0 { Answer::Yes } else { Answer::No })
}

fn people(report: &Report, paint: Paint) -> String {
    let mut out = String::new();
    let width = report.checks.iter().map(|c| c.check.len()).max().unwrap_or_default();
    for c in &report.checks {
        let (word, colour) = match c.result {
            Outcome::Ok => ("ok     ", Colour::Green),
            Outcome::Warn => ("warn   ", Colour::Yellow),
            Outcome::Fail => ("FAIL   ", Colour::Red),
            Outcome::Skipped => ("skipped", Colour::Dim),
        };
        let subject = if c.subject.is_empty() { String::new() } else { format!("{}: ", clean(&c.subject)) };
        out.push_str(&format!(
            "{}  {:<width$}  {subject}{}\n",
            paint.paint(colour, word),
            c.check,
            clean(&c.message)
        ));
        if let Some(way_out) = &c.way_out {
            out.push_str(&format!("         {:<width$}  → {}\n", "", clean(way_out)));
        }
    }
    let count = |o| report.checks.iter().filter(|c| c.result == o).count();
    out.push_str(&format!(
        "{} ok, {} warn, {} failed, {} skipped\n",
        count(Outcome::Ok),
        count(Outcome::Warn),
        report.failed,
        count(Outcome::Skipped)
    ));
    out
}
