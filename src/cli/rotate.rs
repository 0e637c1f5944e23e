//! `applink rotate`: asks the operator for a new client secret, and waits until it is there.

use super::cluster::{ClusterArgs, failed};
use super::links::{self, Readiness};
use super::output::{Format, clean, say};
use super::{Answer, ToolError};
use crate::api::{ApplicationLink, names};
use crate::domain::duration;
use crate::link::validate::validate;
use clap::{ArgAction, Args};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Who the API server is told wrote the annotation.
const FIELD_MANAGER: &str = "applink-cli";
/// The condition of the part that has a client secret.
const PART: &str = "Registered";
/// How often the link is looked at while waiting.
const LOOK: Duration = Duration::from_millis(500);

/// Flags of `applink rotate`.
#[derive(Debug, Args)]
#[command(after_help = "\
The Secret changes once the provider takes the new secret. Old and new both work during spec.incoming.rotation.overlap,
where the provider can hold two; --now ends the old one at once, and its tokens where the provider can.
A link that a person must mend first (Stalled) is refused at once, with the reason.
Exit codes: 0 done (or asked for, with --wait=false), 1 not done in time, or the link stalled meanwhile, 2 wrong usage or it
couldn't be asked.
Fields of -o json and yaml: namespace, link, request, done, serial, previousUntil, ready, reason, message.")]
pub struct RotateArgs {
    /// The link
    name: String,
    /// No overlap: the old secret ends at once
    #[arg(long)]
    now: bool,
    /// Wait until it is done
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
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
    /// The request, which status.incoming.lastRequest repeats when it is done.
    request: String,
    done: bool,
    /// Serial of the client secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<i64>,
    /// Until when the secret before works too (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_until: Option<String>,
    #[serde(flatten)]
    readiness: Readiness,
}

/// Why a link has no secret to rotate, or gets none before a person mends something.
pub fn refuse(link: &ApplicationLink) -> Option<String> {
    let valid = match validate(link) {
        Ok(valid) => valid,
        Err(e) => return Some(format!("the link's spec can't be acted on: {e}")),
    };
    let Some(incoming) = valid.incoming else {
        return Some("the link has no incoming part, so there is no client secret to rotate".into());
    };
    if incoming.metadata.auth_method.is_public() {
        return Some(
            "the link's client is a public one (tokenEndpointAuthMethod: none), which has no secret".into(),
        );
    }
    if link.metadata.deletion_timestamp.is_some() {
        return Some("the link is being deleted".into());
    }
    if valid.suspend {
        return Some("the link is suspended; set spec.suspend to false first".into());
    }
    links::stalled(link, PART).map(|c| {
        format!(
            "no new client secret is made before this is mended ({}): {}",
            clean(&c.reason),
            clean(&c.message)
        )
    })
}

/// Asks for a new client secret, without (`now`) or with an overlap. Gives back the request, which
/// `status.incoming.lastRequest` repeats when it is done, and the link with it.
///
/// # Errors
/// [`ToolError`] where the link has no secret to rotate, or it can't be asked for.
pub async fn ask(
    client: Client,
    link: &ApplicationLink,
    now: bool,
) -> Result<(String, ApplicationLink), ToolError> {
    let (namespace, name) = (link.namespace().unwrap_or_default(), link.name_any());
    let what = format!("ApplicationLink {namespace}/{name}");
    if let Some(why) = refuse(link) {
        return Err(ToolError::Precondition(format!("{what}: {why}")));
    }
    let request = format!("{:.3}", Timestamp::now());
    // The operator takes the two for one request: the other one must go.
    let (annotation, other) =
        if now { (names::ROTATE_NOW, names::ROTATE) } else { (names::ROTATE, names::ROTATE_NOW) };
    let links: Api<ApplicationLink> = Api::namespaced(client, &namespace);
    let patch = json!({"metadata": {"uid": link.uid(), "annotations": {annotation: request, other: null}}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let seen = links.patch(&name, &params, &Patch::Merge(&patch)).await.map_err(failed(what))?;
    Ok((request, seen))
}

/// Rotates.
///
/// # Errors
/// [`ToolError`] where it can't be asked for.
pub async fn run(args: RotateArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let link = links::get(&cluster, &args.name).await?;
    let what = format!("ApplicationLink {}/{}", cluster.namespace, args.name);
    let (request, mut seen) = ask(cluster.client.clone(), &link, args.now).await?;
    let links: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let began = Instant::now();
    let outcome = loop {
        let outcome = outcome(&seen, &request);
        if outcome.done
            || !args.wait
            || links::stalled(&seen, PART).is_some()
            || began.elapsed() >= args.timeout
        {
            break outcome;
        }
        sleep(LOOK.min(args.timeout.saturating_sub(began.elapsed()))).await;
        seen = links.get(&args.name).await.map_err(failed(what.clone()))?;
    };
    let done = outcome.done;
    if !args.output.print(&outcome)? {
        let r = &outcome.readiness;
        let ready = format!("Ready is {} ({}): {}", r.ready, r.reason, r.message);
        let text = match (done, args.wait) {
            (true, _) => {
                let until = outcome.previous_until.as_deref();
                let old = until.map(|t| format!("; the old one works until {t}")).unwrap_or_default();
                // Of another part of the link: the secret is in place.
                let rest = if r.is_ready() { String::new() } else { format!("; {ready}") };
                format!("{what}: the client secret is new{old}{rest}")
            }
            (false, false) => format!("{what}: asked for a new client secret ({request})"),
            (false, true) => match links::stalled(&seen, PART) {
                Some(c) => format!("{what}: no new client secret ({}): {}", c.reason, c.message),
                None => format!("{what}: no new client secret within {}s; {ready}", args.timeout.as_secs()),
            },
        };
        say(&format!("{}\n", clean(&text)))?;
    }
    Ok(if done || !args.wait { Answer::Yes } else { Answer::No })
}

fn outcome(link: &ApplicationLink, request: &str) -> Outcome {
    let incoming = link.status.as_ref().and_then(|s| s.incoming.as_ref());
    // The secret is in the Secret and authenticates once the condition says so; the other part of the link
    // may be as it is.
    let in_place = links::refused(link, PART).is_none();
    Outcome {
        namespace: link.namespace().unwrap_or_default(),
        link: link.name_any(),
        request: request.to_owned(),
        done: in_place && incoming.is_some_and(|i| i.last_request.as_deref() == Some(request)),
        serial: incoming.map(|i| i.serial),
        previous_until: incoming.and_then(|i| i.previous_until.clone()),
        readiness: Readiness::of_link(link),
    }
}
