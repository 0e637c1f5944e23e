//! `applink rotate`: asks the operator for a new client secret, and waits until it is there.

use super::cluster::{ClusterArgs, failed};
use super::links::{self, Readiness, text_at};
use super::output::{Format, say};
use super::{Answer, ToolError};
use crate::api::{ApplicationLink, names};
use crate::domain::duration;
use crate::link::validate::validate;
use clap::{ArgAction, Args};
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Who the API server is told wrote the annotation.
const FIELD_MANAGER: &str = "applink-cli";
/// How often the link is looked at while waiting.
const LOOK: Duration = Duration::from_millis(500);

/// Flags of `applink rotate`.
#[derive(Debug, Args)]
#[command(after_help = "\
The Secret changes once the provider takes the new secret. Old and new both work during spec.incoming.rotation.overlap,
where the provider can hold two; --now ends the old one at once, and its tokens where the provider can.
Exit codes: 0 done (or asked for, with --wait=false), 1 not done in time, 2 wrong usage or it couldn't be asked.
Fields of -o json and yaml: namespace, link, request, done, ready, reason, message.")]
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
    #[serde(flatten)]
    readiness: Readiness,
}

/// Why a link has no secret to rotate.
fn refuse(link: &ApplicationLink) -> Option<String> {
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
    valid.suspend.then(|| "the link is suspended; set spec.suspend to false first".into())
}

/// Rotates.
///
/// # Errors
/// [`ToolError`] where it can't be asked for.
pub async fn run(args: RotateArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let link = links::get(&cluster, &args.name).await?;
    let what = format!("ApplicationLink {}/{}", cluster.namespace, args.name);
    if let Some(why) = refuse(&link) {
        return Err(ToolError::Precondition(format!("{what}: {why}")));
    }
    let request = format!("{:.3}", Timestamp::now());
    let annotation = if args.now { names::ROTATE_NOW } else { names::ROTATE };
    // By JSON: a field that this tool doesn't know must not get lost, and one that the operator of
    // another version doesn't write must not fail.
    let kind = ApiResource::erase::<ApplicationLink>(&());
    let links: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &kind);
    let patch = json!({"metadata": {"uid": link.uid(), "annotations": {annotation: request}}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let mut seen =
        links.patch(&args.name, &params, &Patch::Merge(&patch)).await.map_err(failed(what.clone()))?;
    let began = Instant::now();
    let outcome = loop {
        let outcome = outcome(&seen, &request);
        let over = outcome.done && outcome.readiness.is_ready();
        if over || !args.wait || began.elapsed() >= args.timeout {
            break outcome;
        }
        sleep(LOOK.min(args.timeout.saturating_sub(began.elapsed()))).await;
        seen = links.get(&args.name).await.map_err(failed(what.clone()))?;
    };
    let done = outcome.done && outcome.readiness.is_ready();
    if !args.output.print(&outcome)? {
        let r = &outcome.readiness;
        let text = match (done, args.wait) {
            (true, _) => format!("{what}: the client secret is new (serial {})", serial(&seen)),
            (false, false) => format!("{what}: asked for a new client secret ({request})"),
            (false, true) => format!(
                "{what}: no new client secret within {}s; Ready is {} ({}): {}",
                args.timeout.as_secs(),
                r.ready,
                r.reason,
                r.message
            ),
        };
        say(&format!("{}\n", super::output::clean(&text)))?;
    }
    Ok(if done || !args.wait { Answer::Yes } else { Answer::No })
}

fn serial(link: &DynamicObject) -> String {
    link.data.pointer("/status/incoming/serial").map(Value::to_string).unwrap_or_default()
}

fn outcome(link: &DynamicObject, request: &str) -> Outcome {
    let status = &link.data["status"];
    let conditions = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    let conditions: Vec<crate::api::common::Condition> = conditions;
    let observed = status["observedGeneration"].as_i64().unwrap_or(-1);
    Outcome {
        namespace: link.namespace().unwrap_or_default(),
        link: link.name_any(),
        request: request.to_owned(),
        done: text_at(&link.data, "/status/incoming/lastRequest").as_deref() == Some(request),
        readiness: Readiness::of(&conditions, observed, link.metadata.generation),
    }
}
