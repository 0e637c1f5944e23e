//! `applink authorize`: a person connects an outgoing link.
//!
//! The person's right to edit the link is the proof that they may: a one-time ticket's digest goes onto
//! it, and so does the code that the consent ends with.

mod browser;
mod device;
mod typed;

use super::cluster::{Cluster, ClusterArgs, failed};
use super::links::{self, Readiness};
use super::output::{Format, clean, complain, say};
use super::{Answer, ToolError};
use crate::api::common::Condition;
use crate::api::link::{ApplicationLinkStatus, ConnectedStatus};
use crate::api::{ApplicationLink, ConditionStatus, names};
use crate::domain::duration;
use crate::link::consent::{Purpose, TICKET_MINUTES, Ticket, digest};
use crate::link::status::NOT_RENEWED;
use crate::link::validate::{GrantGoal, validate};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};
use url::Url;

/// Who the API server is told wrote the annotations.
const FIELD_MANAGER: &str = "applink-cli";
/// How often the link is looked at while waiting.
const LOOK: Duration = Duration::from_millis(500);
/// How long a consent may take.
const LONGEST: Duration = Duration::from_secs(60 * TICKET_MINUTES.unsigned_abs());

/// Flags of `applink authorize`.
#[derive(Debug, Args)]
#[command(after_help = "\
You need the right to patch the link; the operator needs an address that your browser reaches (the
chart's consent.url). The link becomes active when the code of the last page comes back here: by a
click where browser and command are on one machine, else by typing it. An address that you pass on
connects nothing.
Where nobody can type what it waits for (no terminal, with --no-browser, or for a device grant without --yes) it stops at once.
Exit codes: 0 connected, 1 not connected, 2 wrong usage or it couldn't be asked.
Fields of -o json and yaml: namespace, link, connected, issuer, subject, at, ready, reason, message.")]
pub struct AuthorizeArgs {
    /// The link
    name: String,
    /// Don't open a browser: print the address, and take the code as it is typed
    #[arg(long)]
    no_browser: bool,
    /// Connect without asking whether the account is the right one (device grant)
    #[arg(short, long)]
    yes: bool,
    /// How long to wait, ten minutes at most
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_timeout)]
    timeout: Duration,
    /// A PEM file with the authorities of the operator's address, where they aren't public ones
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// How to print what came of it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    namespace: String,
    link: String,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(flatten)]
    readiness: Readiness,
}

/// A consent that was begun here.
struct Begun {
    cluster: Cluster,
    links: Api<ApplicationLink>,
    name: String,
    what: String,
    consent_uri: Url,
    ticket: String,
    /// The annotation as it was written.
    annotation: String,
    /// What the status said before.
    before: Option<ConnectedStatus>,
    until: Instant,
    /// Whether a line that counts down would be in the way: before the person was told what to do, and
    /// while they are asked something.
    quiet: AtomicBool,
    /// Held while the operator is asked how a device authorization stands.
    asking: Mutex<()>,
}

/// The ticket's own end is the most that can be waited for.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text).map_err(|e| e.to_string())?;
    if timeout > LONGEST {
        return Err(format!("is more than {TICKET_MINUTES}m, which is how long a consent may take"));
    }
    Ok(timeout)
}

/// Connects a link.
///
/// # Errors
/// [`ToolError`] where it can't be asked for.
pub async fn run(args: AuthorizeArgs) -> Result<Answer, ToolError> {
    // What is wrong with the flags is said before anybody is asked to sign in.
    let http = device::client(&args)?;
    let cluster = args.cluster.connect().await?;
    let link = links::get(&cluster, &args.name).await?;
    let what = format!("ApplicationLink {}/{}", cluster.namespace, args.name);
    if let Some(why) = hindrance(&link) {
        complain(&format!(
            "{what}: can't be connected yet ({}): {}",
            clean(&why.reason),
            clean(&why.message)
        ));
        return report(&args, &cluster, &what, &link, connected(link.status.as_ref()).as_ref());
    }
    let (by_device, consent_uri) =
        address(&link).map_err(|why| ToolError::Precondition(format!("{what}: {}", clean(&why))))?;
    unattended(&args, by_device)
        .map_or(Ok(()), |why| Err(ToolError::Precondition(format!("{what}: {why}"))))?;
    // Only a person at a terminal can click or type.
    let listener = if by_device || args.no_browser { None } else { Some(browser::Listener::bind().await?) };
    let port = listener.as_ref().map(|l| l.port);
    let begun = begin(&args, cluster, &link, what, consent_uri, port).await?;
    let (codes, on_code) = mpsc::channel(4);
    let asking = async {
        if by_device {
            device::ask(&begun, &http, args.yes, &codes).await
        } else {
            browser::ask(&begun, listener, &codes).await
        }
    };
    let waiting = wait(&begun, on_code);
    let seen = tokio::select! {
        seen = waiting => seen,
        failed = asking => Err(failed),
        _ = tokio::signal::ctrl_c() => Err(Ended::Not("interrupted; nothing was changed".into())),
    };
    begun.clear().await;
    let seen = match seen {
        Ok(seen) => seen,
        Err(Ended::Error(e)) => return Err(e),
        Err(Ended::Not(why)) => {
            complain(&format!("{}: {why}", begun.what));
            links::get(&begun.cluster, &begun.name).await?
        }
    };
    report(&args, &begun.cluster, &begun.what, &seen, begun.before.as_ref())
}

/// What only a person could answer here, where nobody can: it is said before anybody is asked to sign in.
fn unattended(args: &AuthorizeArgs, by_device: bool) -> Option<&'static str> {
    let needed = if by_device { !args.yes } else { args.no_browser };
    if !needed || typed::may_come() {
        return None;
    }
    Some(if by_device {
        "nobody can say here whether the account is the right one, since standard input isn't a terminal; run it in \
         one, or pass --yes"
    } else {
        "nobody can type the code of the last page here, since standard input isn't a terminal; run it in one, or \
         without --no-browser where a browser runs on this machine"
    })
}

/// What a person's consent puts right, so that it may stand in the status before one.
const MENDED: [&str; 6] = [
    "AuthorizationRequired",
    "ReauthorizationRequired",
    "GrantBindingChanged",
    "ScopesNotConsented",
    "TokenExpired",
    "OtherAccount",
];

/// What the status says of the link that must be mended before anybody can consent to it.
fn hindrance(link: &ApplicationLink) -> Option<Condition> {
    link.spec.outgoing.as_ref()?;
    if link.metadata.deletion_timestamp.is_some() || link.spec.suspend {
        return None;
    }
    let said = links::refused(link, "Authorized")?;
    // The client's Secret may come by itself, so the link isn't stalled; without it nothing can begin.
    let waits = said.reason == "ClientSecretMissing";
    let stalled = links::stalled(link, "Authorized").is_some();
    ((stalled || waits) && !MENDED.contains(&said.reason.as_str())).then(|| said.clone())
}

/// Why waiting ended without a grant.
enum Ended {
    /// It was refused, given up, or took too long.
    Not(String),
    /// It couldn't be asked.
    Error(ToolError),
}

impl From<ToolError> for Ended {
    fn from(e: ToolError) -> Self {
        Self::Error(e)
    }
}

/// Whether the link is connected by a device code, and the operator's page for it.
fn address(link: &ApplicationLink) -> Result<(bool, Url), String> {
    let valid = validate(link).map_err(|e| format!("the link's spec can't be acted on: {e}"))?;
    let grant = valid.outgoing.map(|o| o.grant);
    let by_device = match grant {
        Some(GrantGoal::AuthorizationCode { .. }) => false,
        Some(GrantGoal::DeviceCode { .. }) => true,
        Some(_) => return Err("the link's grant needs no consent of a person".into()),
        None => return Err("the link has no outgoing part, so there is nothing to consent to".into()),
    };
    if link.metadata.deletion_timestamp.is_some() {
        return Err("the link is being deleted".into());
    }
    if valid.suspend {
        return Err("the link is suspended; set spec.suspend to false first".into());
    }
    let uri = link.status.as_ref().and_then(|s| s.outgoing.as_ref()?.consent_uri.clone());
    let uri = uri.and_then(|u| Url::parse(&u).ok()).filter(|u| matches!(u.scheme(), "https" | "http"));
    uri.map(|uri| (by_device, uri)).ok_or_else(|| {
        let r = Readiness::of_link(link);
        format!(
            "the operator hasn't said where it can be consented to; Ready is {} ({}): {}",
            r.ready, r.reason, r.message
        )
    })
}

async fn begin(
    args: &AuthorizeArgs,
    cluster: Cluster,
    link: &ApplicationLink,
    what: String,
    consent_uri: Url,
    port: Option<u16>,
) -> Result<Begun, ToolError> {
    let ticket =
        random_text().ok_or_else(|| ToolError::Precondition("the system gives no random numbers".into()))?;
    let timeout = args.timeout;
    let expires_at = Timestamp::now()
        .checked_add(SignedDuration::try_from(timeout).unwrap_or(SignedDuration::from_mins(TICKET_MINUTES)))
        .map_err(|_| ToolError::Precondition("this machine's clock is at its end".into()))?;
    let annotation = Ticket { ticket: digest(Purpose::Ticket, &ticket), expires_at, port };
    let annotation = serde_json::to_string(&annotation)?;
    let links: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let patch = json!({ "metadata": {
        "uid": link.uid(),
        "annotations": { names::AUTHORIZE: annotation, names::COMPLETE: null },
    }});
    patch_link(&links, &args.name, &what, &Patch::Merge(patch)).await?;
    Ok(Begun {
        cluster,
        links,
        name: args.name.clone(),
        what,
        consent_uri,
        ticket,
        annotation,
        before: connected(link.status.as_ref()),
        until: Instant::now() + timeout,
        quiet: AtomicBool::new(true),
        asking: Mutex::new(()),
    })
}

async fn patch_link(
    links: &Api<ApplicationLink>,
    name: &str,
    what: &str,
    patch: &Patch<serde_json::Value>,
) -> Result<(), ToolError> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    links.patch(name, &params, patch).await.map_err(failed(what.to_owned())).map(drop)
}

fn connected(status: Option<&ApplicationLinkStatus>) -> Option<ConnectedStatus> {
    status?.outgoing.as_ref()?.connected.clone()
}

/// Hands codes to the link as they come, until one of them made it active.
async fn wait(begun: &Begun, mut on_code: mpsc::Receiver<String>) -> Result<ApplicationLink, Ended> {
    let mut progress = Progress::new();
    loop {
        let link = links::get(&begun.cluster, &begun.name).await?;
        let now = connected(link.status.as_ref());
        if now.is_some() && now != begun.before && is_authorized(&link) {
            progress.end();
            return Ok(link);
        }
        if let Some(why) = begun.lost(&link) {
            progress.end();
            // What the operator answers to a question under way says more, and ends this one.
            let _answered = begun.asking.lock().await;
            return Err(Ended::Not(why.into()));
        }
        let left = begun.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            progress.end();
            return Err(Ended::Not("nobody consented in time; nothing was changed".into()));
        }
        if !begun.quiet.load(Ordering::Relaxed) {
            progress.show(left);
        }
        tokio::select! {
            () = sleep(LOOK.min(left)) => {}
            Some(code) = on_code.recv() => {
                progress.end();
                let patch = json!({ "metadata": { "annotations": { names::COMPLETE: code } } });
                patch_link(&begun.links, &begun.name, &begun.what, &Patch::Merge(patch)).await?;
            }
        }
    }
}

fn is_authorized(link: &ApplicationLink) -> bool {
    let conditions = link.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Authorized" && c.status == ConditionStatus::True)
}

impl Begun {
    /// Why this run has nothing to wait for any more.
    fn lost(&self, link: &ApplicationLink) -> Option<&'static str> {
        match link.annotations().get(names::AUTHORIZE) {
            Some(annotation) if *annotation == self.annotation => None,
            Some(_) => Some("another run of this command took over; nothing was changed by this one"),
            None => Some("the consent came to nothing; the page says why; run the command again"),
        }
    }

    /// Says whether a line that counts down would be in the way.
    fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Takes our annotations off the link again; another's ticket stays.
    async fn clear(&self) {
        let Ok(link) = self.links.get(&self.name).await else { return };
        if link.annotations().get(names::AUTHORIZE) != Some(&self.annotation) {
            return;
        }
        let patch = json!({ "metadata": {
            "resourceVersion": link.resource_version(),
            "annotations": { names::AUTHORIZE: null, names::COMPLETE: null },
        }});
        // What stays is over in ten minutes.
        let _ = patch_link(&self.links, &self.name, &self.what, &Patch::Merge(patch)).await;
    }
}

fn report(
    args: &AuthorizeArgs,
    cluster: &Cluster,
    what: &str,
    link: &ApplicationLink,
    before: Option<&ConnectedStatus>,
) -> Result<Answer, ToolError> {
    let now = connected(link.status.as_ref()).filter(|c| before != Some(c));
    let outcome = Outcome {
        namespace: cluster.namespace.clone(),
        link: args.name.clone(),
        connected: now.is_some(),
        issuer: now.as_ref().and_then(|c| c.issuer.clone()),
        subject: now.as_ref().and_then(|c| c.subject.clone()),
        at: now.as_ref().map(|c| c.at.clone()),
        readiness: Readiness::of_link(link),
    };
    if !args.output.print(&outcome)? && outcome.connected {
        let who = match (&outcome.subject, &outcome.issuer) {
            (Some(subject), Some(issuer)) => format!(" as {subject} of {issuer}"),
            (Some(subject), None) => format!(" as {subject}"),
            _ => String::new(),
        };
        let r = &outcome.readiness;
        let text = format!("{what}: connected{who}; Ready is {} ({})", r.ready, r.reason);
        say(&format!("{}\n", clean(&text)))?;
        let conditions = link.status.iter().flat_map(|s| &s.conditions);
        if let Some(c) = conditions.into_iter().find(|c| c.type_ == "TokenFresh" && c.reason == NOT_RENEWED) {
            complain(&clean(&c.message));
        }
    }
    Ok(if outcome.connected { Answer::Yes } else { Answer::No })
}

/// A line that says what is waited for; on a terminal it counts down.
struct Progress {
    terminal: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, left: Duration) {
        if !self.terminal && self.shown {
            return;
        }
        let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
        let line = format!("Waiting for the consent … {minutes}:{seconds:02} left");
        let end = if self.terminal { "\r" } else { "\n" };
        let _ = write!(std::io::stderr().lock(), "{line}{end}");
        self.shown = true;
    }

    fn end(&mut self) {
        if self.terminal && self.shown {
            let _ = writeln!(std::io::stderr().lock());
            self.shown = false;
        }
    }
}

/// Lines that a person is to see at once, or to copy.
fn aside(lines: &[&str]) {
    complain("");
    lines.iter().for_each(|line| complain(&format!("  {line}")));
    complain("");
}

fn random_text() -> Option<String> {
    use base64::Engine as _;
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}
