//! `applink rotate-key`: gives the installation a new master key, waits until all links have moved to
//! it, and takes the older ones away.
//!
//! The only writes are two, each conditional on the version that was looked at: the new key together
//! with the word that it is the active one, and the older keys' removal. So a run that dies anywhere
//! is taken up by the next one, which finds several keys and goes on waiting.

use super::cluster::{Cluster, ClusterArgs, failed};
use super::house::{self, ACTOR, HouseArgs};
use super::links::Readiness;
use super::output::{Format, clean, complain, say, table};
use super::{Answer, ToolError};
use crate::api::{ApplicationLink, names};
use crate::domain::{KeyRing, duration};
use crate::link::claim;
use crate::link::context::Context;
use crate::link::installation::Installation;
use crate::link::observe::connection;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use zeroize::Zeroize as _;

/// How often the links are looked at while waiting.
const LOOK: Duration = Duration::from_secs(1);
/// So many links are named; the others are counted.
const NAMED: usize = 20;

/// Flags of `applink rotate-key`.
#[derive(Debug, Args)]
#[command(after_help = "\
While there is one key, a new one is added and becomes the active one; each link then gets a new client secret by it, beside
the old one where the provider can have two. While there are several keys, nothing is added: a run that was stopped is taken
up. --finish removes the older keys once no link hangs on one.
Exit codes: 0 done, 1 not all links moved in time (or the older keys are still needed), 2 it couldn't be asked.
Fields of -o json and yaml: secret, active, older, added, removed, dryRun, links, moved, withoutKey, waiting (namespace, link,
key, ready, reason, message).")]
pub struct RotateKeyArgs {
    /// Remove the older keys once no link hangs on them
    #[arg(long)]
    finish: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for the links
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    /// How to print what came of it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    house: HouseArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The keys by name, never by value.
#[derive(Debug, Clone)]
struct Ring {
    uid: String,
    version: String,
    active: String,
    older: Vec<String>,
}

/// A link that hangs on an older key, or may.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    namespace: String,
    link: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(flatten)]
    readiness: Readiness,
}

/// How far the links are.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    /// Incoming links.
    links: usize,
    moved: usize,
    /// At providers that keep no owner record: nothing of theirs hangs on a key.
    without_key: usize,
    waiting: Vec<Waiting>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    secret: String,
    active: String,
    older: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<String>,
    removed: Vec<String>,
    dry_run: bool,
    #[serde(flatten)]
    progress: Progress,
}

/// Rotates the key.
///
/// # Errors
/// [`ToolError`] where it can't be asked.
pub async fn run(args: RotateKeyArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let ctx = args.house.context(&cluster).await?;
    // The operator reads them as this does: what it can't use is said before anything is written.
    house::keys(&ctx).await?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &ctx.namespace);
    let name = format!("Secret {}/{}", ctx.namespace, args.house.secret());
    let mut ring = read(&secrets, args.house.secret(), &name).await?;
    let mut outcome = Outcome {
        secret: format!("{}/{}", ctx.namespace, args.house.secret()),
        active: ring.active.clone(),
        older: ring.older.clone(),
        added: None,
        removed: Vec::new(),
        dry_run: args.dry_run,
        progress: progress(&cluster, &ctx, &ring.active).await?,
    };
    let people = matches!(args.output, Format::Table);
    if args.dry_run {
        return rehearse(&args, &outcome);
    }
    if ring.older.is_empty() {
        let added = next_name(&ring)?;
        ring = add(&secrets, args.house.secret(), &name, &ring, &added).await?;
        if people {
            say(&format!(
                "{}: key {} was added and is the active one; back the Secret up now\n",
                clean(&name),
                clean(&added)
            ))?;
        }
        outcome.added = Some(added);
    } else if people {
        say(&format!(
            "{}: key {} is the active one, and there are older ones ({}): no other is added\n",
            clean(&name),
            clean(&ring.active),
            clean(&ring.older.join(", "))
        ))?;
    }
    outcome.active = ring.active.clone();
    outcome.older = ring.older.clone();
    outcome.progress = wait(&cluster, &ctx, &ring.active, args.timeout).await?;
    let moved = outcome.progress.waiting.is_empty();
    if moved && args.finish {
        remove(&secrets, args.house.secret(), &name, &ring).await?;
        outcome.removed = std::mem::take(&mut outcome.older);
    }
    if !args.output.print(&outcome)? {
        say(&summary(&outcome, args.finish))?;
    }
    Ok(if moved { Answer::Yes } else { Answer::No })
}

fn rehearse(args: &RotateKeyArgs, outcome: &Outcome) -> Result<Answer, ToolError> {
    if !args.output.print(outcome)? {
        let p = &outcome.progress;
        let mut text = if outcome.older.is_empty() {
            format!(
                "a key would be added to Secret {} beside {} and become the active one\n",
                outcome.secret, outcome.active
            )
        } else {
            format!(
                "key {} is the active one; {} would be removed with --finish\n",
                outcome.active,
                outcome.older.join(", ")
            )
        };
        if outcome.older.is_empty() {
            text.push_str(&format!(
                "{} of {} incoming links would get a new client secret\n",
                p.moved + p.waiting.len(),
                p.links
            ));
        } else {
            text.push_str(&format!("{} of {} incoming links hang on it\n", p.moved, p.links));
        }
        text = clean_lines(&text);
        text.push_str(&waiting(p));
        say(&text)?;
    }
    Ok(Answer::Yes)
}

fn clean_lines(text: &str) -> String {
    text.lines().map(|l| format!("{}\n", clean(l))).collect()
}

async fn read(secrets: &Api<Secret>, name: &str, what: &str) -> Result<Ring, ToolError> {
    let secret = secrets.get(name).await.map_err(failed(what))?;
    ring(&secret).ok_or_else(|| ToolError::Precondition(format!("{what} isn't an installation's master key")))
}

fn ring(secret: &Secret) -> Option<Ring> {
    let data = secret.data.as_ref()?;
    let active = std::str::from_utf8(&data.get(Installation::ACTIVE)?.0).ok()?.trim().to_owned();
    let all: Vec<String> =
        data.keys().filter_map(|k| k.strip_prefix(Installation::KEY)).map(str::to_owned).collect();
    if !all.contains(&active) {
        return None;
    }
    Some(Ring {
        uid: secret.uid()?,
        version: secret.resource_version()?,
        older: all.into_iter().filter(|k| *k != active).collect(),
        active,
    })
}

fn random<const N: usize>() -> Result<[u8; N], ToolError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)
        .map_err(|_| ToolError::Precondition("the system gives no random bytes".into()))?;
    Ok(bytes)
}

/// A name that no key had before: also one that a backup brings back must not be taken for it.
fn next_name(ring: &Ring) -> Result<String, ToolError> {
    let number = |k: &str| k.split('-').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let all = ring.older.iter().chain(std::iter::once(&ring.active));
    let next = all.map(|k| number(k)).max().unwrap_or(0).saturating_add(1);
    let tail: String = random::<4>()?.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{next}-{tail}"))
}

async fn write(
    secrets: &Api<Secret>,
    name: &str,
    what: &str,
    ring: &Ring,
    data: Map<String, Value>,
) -> Result<Secret, ToolError> {
    let patch = json!({"metadata": {"uid": ring.uid, "resourceVersion": ring.version}, "data": data});
    let params = PatchParams { field_manager: Some(ACTOR.into()), ..PatchParams::default() };
    match secrets.patch(name, &params, &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(s)) if s.code == 409 => {
            Err(ToolError::Precondition(format!("{what} was changed at the same moment; run this again")))
        }
        other => other.map_err(failed(what)),
    }
}

async fn add(
    secrets: &Api<Secret>,
    name: &str,
    what: &str,
    before: &Ring,
    added: &str,
) -> Result<Ring, ToolError> {
    let mut key = random::<32>()?;
    let data = Map::from_iter([
        (format!("{}{added}", Installation::KEY), json!(STANDARD.encode(key))),
        (Installation::ACTIVE.to_owned(), json!(STANDARD.encode(added))),
    ]);
    key.zeroize();
    let written = write(secrets, name, what, before, data).await?;
    ring(&written)
        .ok_or_else(|| ToolError::Precondition(format!("{what} isn't as it was written; look at it")))
}

async fn remove(secrets: &Api<Secret>, name: &str, what: &str, seen: &Ring) -> Result<(), ToolError> {
    let data = seen.older.iter().map(|k| (format!("{}{k}", Installation::KEY), Value::Null)).collect();
    write(secrets, name, what, seen, data).await.map(drop)
}

/// How far the links of all namespaces are.
async fn progress(cluster: &Cluster, ctx: &Context, active: &str) -> Result<Progress, ToolError> {
    let mut progress = Progress::default();
    let links = house::all_links(cluster).await?;
    let namespaces = links.iter().filter_map(kube::ResourceExt::namespace).collect();
    // By the keys as they are now: one may have been added since.
    let keys = house::keys(ctx).await?;
    house::fill_providers(ctx, &namespaces).await.map_err(failed("the providers"))?;
    for link in links {
        let status = link.status.as_ref().and_then(|s| s.incoming.as_ref());
        let held = link.finalizers().iter().any(|f| f == names::LINK_FINALIZER);
        // The claims on it would be nobody's without the older key.
        let claimed_anew = is_claimed_anew(&keys, &link);
        if link.spec.incoming.is_none() && status.is_none() && claimed_anew {
            continue;
        }
        progress.links += 1;
        match status {
            _ if !claimed_anew => progress.waiting.push(waits(&link, None)),
            Some(i) if i.master_key.as_deref() == Some(active) => progress.moved += 1,
            Some(i) if i.master_key.is_some() => progress.waiting.push(waits(&link, i.master_key.clone())),
            // It has a client whose status isn't written yet, and perhaps by an older key.
            None if held => progress.waiting.push(waits(&link, None)),
            // Also where an older operator, or an older CRD, doesn't say by which key.
            Some(_) if keeps_a_mark(ctx, &link).await => progress.waiting.push(waits(&link, None)),
            _ => progress.without_key += 1,
        }
    }
    Ok(progress)
}

/// Whether the proofs of a link's claims are by the active key.
fn is_claimed_anew(keys: &KeyRing, link: &ApplicationLink) -> bool {
    let claims = claim::hints(link.annotations());
    let (namespace, uid) = (link.namespace().unwrap_or_default(), link.uid().unwrap_or_default());
    claim::is_current(keys, &namespace, &uid, &claims, link.annotations())
}

/// Whether an owner record stands at the link's client, or may.
async fn keeps_a_mark(ctx: &Context, link: &ApplicationLink) -> bool {
    let Some(named) = link.status.as_ref().and_then(|s| s.provider.as_ref()) else { return true };
    let namespace = link.namespace();
    let view = ctx.providers().into_iter().find(|v| {
        v.claim.kind == named.kind
            && v.claim.name == named.name
            && (v.namespace.is_none() || v.namespace == namespace)
    });
    let Some(view) = view else { return true };
    // One connection for all links of a provider: the context keeps it.
    connection(ctx, &view).await.map_or(true, |c| c.provider.capabilities().tells_owner)
}

fn waits(link: &ApplicationLink, key: Option<String>) -> Waiting {
    Waiting {
        namespace: link.namespace().unwrap_or_default(),
        link: link.name_any(),
        key,
        readiness: Readiness::of_link(link),
    }
}

async fn wait(
    cluster: &Cluster,
    ctx: &Context,
    active: &str,
    timeout: Duration,
) -> Result<Progress, ToolError> {
    let began = Instant::now();
    let lively = std::io::stderr().is_terminal();
    let mut told = None;
    let mut settled = false;
    loop {
        let found = progress(cluster, ctx, active).await?;
        let count = (found.moved, found.waiting.len());
        if lively && told != Some(count) {
            complain(&format!("{} of {} links have moved", count.0, count.0 + count.1));
            told = Some(count);
        }
        // Seen twice: a link that was made while the operator didn't know the key yet comes late.
        if (found.waiting.is_empty() && settled) || (!found.waiting.is_empty() && began.elapsed() >= timeout)
        {
            return Ok(found);
        }
        settled = found.waiting.is_empty();
        if settled {
            sleep(LOOK).await;
            continue;
        }
        sleep(LOOK.min(timeout.saturating_sub(began.elapsed()))).await;
    }
}

fn waiting(p: &Progress) -> String {
    if p.waiting.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = p
        .waiting
        .iter()
        .take(NAMED)
        .map(|w| {
            let key = w.key.clone().unwrap_or_else(|| "unknown".into());
            vec![
                format!("{}/{}", w.namespace, w.link),
                key,
                w.readiness.reason.clone(),
                w.readiness.message.clone(),
            ]
        })
        .collect();
    let mut out = table(&["LINK", "KEY", "STATUS", "MESSAGE"], &rows);
    if let Some(more) = p.waiting.len().checked_sub(NAMED).filter(|n| *n > 0) {
        out.push_str(&format!("and {more} more\n"));
    }
    out
}

fn summary(outcome: &Outcome, finish: bool) -> String {
    let p = &outcome.progress;
    let mut out = format!("{} of {} incoming links hang on key {}", p.moved, p.links, clean(&outcome.active));
    if p.without_key > 0 {
        out.push_str(&format!("; {} hang on none", p.without_key));
    }
    out.push('\n');
    out.push_str(&waiting(p));
    if !p.waiting.is_empty() {
        out.push_str("the older keys stay: run this again once these links have moved, or were deleted\n");
    } else if !outcome.removed.is_empty() {
        out.push_str(&format!(
            "the older keys are gone ({}); back the Secret up now, and destroy older backups of it\n",
            clean(&outcome.removed.join(", "))
        ));
    } else if finish {
        out.push_str("there are no older keys\n");
    } else {
        out.push_str("the older keys are still there; remove them with applink rotate-key --finish\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_has_a_name_that_none_had() {
        let ring = |active: &str, older: &[&str]| Ring {
            uid: String::new(),
            version: String::new(),
            active: active.into(),
            older: older.iter().map(|k| (*k).to_owned()).collect(),
        };
        let name = |r: &Ring| next_name(r).expect("randomness");
        assert!(name(&ring("1", &[])).starts_with("2-"));
        assert!(name(&ring("2-0a0b0c0d", &["1"])).starts_with("3-"));
        assert!(name(&ring("mine", &[])).starts_with("1-"));
        assert_ne!(name(&ring("1", &[])), name(&ring("1", &[])));
    }
}
