//! `applink orphans`: clients that this installation made and whose link is gone.

use super::cluster::{Cluster, ClusterArgs, failed};
use super::house::{self, HouseArgs, ProviderArgs, Reached, Whose};
use super::output::{Format, clean, complain, say, table};
use super::{Answer, ToolError};
use crate::api::ApplicationLink;
use crate::domain::{ClientId, Deletion, KeyRing, Owner};
use crate::link::context::Context;
use crate::provider::ClientRef;
use clap::Args;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Flags of `applink orphans`.
#[derive(Debug, Args)]
#[command(after_help = "\
A client is an orphan when it carries this installation's genuine mark, or the operator keeps a record of it, and its link
is gone or was made anew. One whose link went with deletionPolicy Retain is listed, and is no orphan. Clients of other
installations and of nobody are counted, and never removed.
Exit codes: 0 no orphan is left, 1 some are (or one wasn't removed), 2 wrong usage or it couldn't be asked.
Fields of -o json and yaml: provider, lists, orphans (clientId, namespace, link, uid, foundBy, why, retained, deleted,
refused), refused (clientId, why), and the counts ours, otherInstallations, nobodys, protected, forged.")]
pub struct OrphansArgs {
    #[command(flatten)]
    provider: ProviderArgs,
    /// Remove the client of exactly this identifier; may be given several times
    #[arg(long, value_name = "CLIENT-ID")]
    delete: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    house: HouseArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// By what an orphan is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum FoundBy {
    /// The mark at the client.
    Mark,
    /// A record in the operator's namespace.
    Record,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Orphan {
    client_id: String,
    /// The link that it was made for.
    namespace: String,
    link: String,
    uid: String,
    found_by: FoundBy,
    why: &'static str,
    /// It was to stay when its link went: nobody else removes it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retained: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// An identifier that was asked for and isn't an orphan's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    client_id: String,
    why: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    provider: String,
    /// Whether the provider lists its clients; else only the operator's records are known.
    lists: bool,
    orphans: Vec<Orphan>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
    /// Clients of links that are there.
    ours: usize,
    other_installations: usize,
    nobodys: usize,
    protected: usize,
    /// They say that they are this installation's, and their mark isn't genuine.
    forged: usize,
}

const GONE: &str = "its link is gone";
const RETAINED: &str = "its link went with deletionPolicy Retain";
const ANEW: &str = "its link was made anew";

/// The links that there are.
struct Links {
    uids: BTreeSet<String>,
    names: BTreeSet<(String, String)>,
}

impl Links {
    fn of(links: &[ApplicationLink]) -> Self {
        Self {
            uids: links.iter().filter_map(kube::ResourceExt::uid).collect(),
            names: links.iter().map(|l| (l.namespace().unwrap_or_default(), l.name_any())).collect(),
        }
    }

    /// Why a link of this UID isn't there; `None` where it is.
    fn missing(&self, namespace: &str, name: &str, uid: &str) -> Option<&'static str> {
        if self.uids.contains(uid) {
            return None;
        }
        let anew = self.names.contains(&(namespace.to_owned(), name.to_owned()));
        Some(if anew { ANEW } else { GONE })
    }
}

/// Looks for orphans, and removes those that are named.
///
/// # Errors
/// [`ToolError`] where it can't be asked.
pub async fn run(args: OrphansArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let ctx = args.house.context(&cluster).await?;
    let keys = house::keys(&ctx).await?;
    let reached = args.provider.reach(&cluster, &ctx).await?;
    // Clients first: a link that is made between the two looks has its client later, not earlier.
    let mut report = Report {
        provider: reached.name(),
        lists: reached.connected.provider.capabilities().lists,
        ..Report::default()
    };
    let clients = if report.lists { reached.clients().await? } else { Vec::new() };
    let records = ctx.store.all_clients().await.map_err(|p| house::refusal("the operator's records", &p))?;
    let links = Links::of(&house::all_links(&cluster).await?);
    let mut whose = BTreeMap::new();
    for client in &clients {
        let found = reached.whose(&keys, client);
        whose.insert(client.id.to_string(), label(found));
        match found {
            Whose::Provider => report.protected += 1,
            Whose::Nobody => report.nobodys += 1,
            Whose::Others => report.other_installations += 1,
            Whose::Forged => report.forged += 1,
            Whose::Ours(owner) => match links.missing(&owner.namespace, &owner.name, &owner.uid) {
                None => report.ours += 1,
                Some(why) => {
                    let retained = why == GONE && owner.deletion(&keys) == Some(Deletion::Retain);
                    let why = if retained { RETAINED } else { why };
                    report.orphans.push(Orphan { retained, ..by_mark(client.id.as_str(), owner, why) });
                }
            },
        }
    }
    for (kept, _) in &records {
        let Some((_, record)) = kept.perhaps_at(&reached.identity) else { continue };
        let Some(why) = links.missing(&kept.link.namespace, &kept.link.name, &kept.link.uid) else {
            continue;
        };
        if report.orphans.iter().any(|o| o.client_id == record.id) {
            continue;
        }
        report.orphans.push(Orphan {
            client_id: record.id.clone(),
            namespace: kept.link.namespace.clone(),
            link: kept.link.name.clone(),
            uid: kept.link.uid.clone(),
            found_by: FoundBy::Record,
            why,
            retained: false,
            deleted: false,
            refused: None,
        });
    }
    report
        .orphans
        .sort_by(|a, b| (&a.namespace, &a.link, &a.client_id).cmp(&(&b.namespace, &b.link, &b.client_id)));
    for id in args.delete.iter().collect::<BTreeSet<_>>() {
        let Some(orphan) = report.orphans.iter_mut().find(|o| o.client_id == *id) else {
            let why = whose.get(id).copied().unwrap_or("there is no client of this identifier");
            report.refused.push(Refused { client_id: id.clone(), why: why.into() });
            continue;
        };
        match remove(&cluster, &ctx, &keys, &reached, orphan).await? {
            None => orphan.deleted = true,
            Some(why) => orphan.refused = Some(why),
        }
    }
    if !args.output.print(&report)? {
        say(&people(&report))?;
        for r in &report.refused {
            complain(&format!("{}: not removed: {}", r.client_id, r.why));
        }
        for o in &report.orphans {
            if let Some(why) = &o.refused {
                complain(&format!("{}: not removed: {why}", o.client_id));
            }
        }
    }
    let left = if args.delete.is_empty() {
        report.orphans.iter().any(|o| !o.retained)
    } else {
        !report.refused.is_empty() || report.orphans.iter().any(|o| o.refused.is_some())
    };
    Ok(if left { Answer::No } else { Answer::Yes })
}

fn label(whose: Whose<'_>) -> &'static str {
    match whose {
        Whose::Provider => "it is part of the provider itself, or the operator's own login",
        Whose::Nobody => "it is nobody's that this installation knows of",
        Whose::Others => "it belongs to another installation",
        Whose::Forged => "its mark isn't genuine, so it isn't this installation's",
        Whose::Ours(_) => "its link is there; delete the link",
    }
}

fn by_mark(id: &str, owner: &Owner, why: &'static str) -> Orphan {
    Orphan {
        client_id: id.to_owned(),
        namespace: owner.namespace.clone(),
        link: owner.name.clone(),
        uid: owner.uid.clone(),
        found_by: FoundBy::Mark,
        why,
        retained: false,
        deleted: false,
        refused: None,
    }
}

/// Removes one, after all that makes it an orphan was read again. Says why where it isn't one.
async fn remove(
    cluster: &Cluster,
    ctx: &Context,
    keys: &KeyRing,
    reached: &Reached,
    orphan: &Orphan,
) -> Result<Option<String>, ToolError> {
    let api: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &orphan.namespace);
    let what = format!("ApplicationLink {}/{}", orphan.namespace, orphan.link);
    let link = api.get_opt(&orphan.link).await.map_err(failed(what))?;
    if link.is_some_and(|l| l.uid().as_deref() == Some(&orphan.uid)) {
        return Ok(Some("its link is there".into()));
    }
    let Ok(id) = ClientId::parse(&orphan.client_id) else {
        return Ok(Some("its identifier can't be part of an address".into()));
    };
    let provider = &reached.connected.provider;
    let kept =
        ctx.store.clients(&orphan.uid).await.map_err(|p| house::refusal("the operator's record", &p))?;
    let record = kept
        .as_ref()
        .and_then(|(kept, _)| kept.perhaps_at(&reached.identity))
        .filter(|(_, r)| r.id == orphan.client_id)
        .map(|(key, r)| (key.clone(), r.clone()));
    let handle = record.as_ref().and_then(|(_, r)| r.handle.as_ref()).map(|k| k.0.clone());
    let at = ClientRef { id, handle };
    let mut version = None;
    if provider.capabilities().tells_owner {
        match provider.get(&at).await.map_err(|e| reached.failed(&e))? {
            None => {}
            Some(client) => match reached.whose(keys, &client) {
                Whose::Ours(owner) if owner.uid == orphan.uid => version = client.version.clone(),
                Whose::Ours(_) => return Ok(Some("another link owns it by now".into())),
                other => return Ok(Some(label(other).into())),
            },
        }
    } else if record.is_none() {
        return Ok(Some("the operator's record of it is gone by now".into()));
    }
    // A look can make the handle worthless, so a client that is known by a record alone isn't
    // looked at before.
    provider.delete(&at, version.as_deref()).await.map_err(|e| reached.failed(&e))?;
    if let Some((mut kept, version)) = kept
        && let Some((key, _)) = &record
        && kept.at.remove(key).is_some()
    {
        let done = if kept.at.is_empty() {
            ctx.store.forget_clients(&orphan.uid).await
        } else {
            ctx.store.keep_clients(&kept, Some(&version)).await.map(drop)
        };
        done.map_err(|p| house::refusal("the operator's record", &p))?;
    }
    Ok(None)
}

fn people(report: &Report) -> String {
    let mut out = String::new();
    if report.orphans.is_empty() {
        out.push_str(&format!("{}: no orphans\n", clean(&report.provider)));
    } else {
        let rows: Vec<Vec<String>> = report
            .orphans
            .iter()
            .map(|o| {
                let state = if o.deleted { "removed" } else { o.why };
                vec![o.client_id.clone(), format!("{}/{}", o.namespace, o.link), state.to_owned()]
            })
            .collect();
        out.push_str(&table(&["CLIENT", "LINK", "STATE"], &rows));
    }
    if report.lists {
        out.push_str(&format!(
            "{} of links that are there, {} of other installations, {} of nobody, {} of the provider itself",
            report.ours, report.other_installations, report.nobodys, report.protected
        ));
        if report.forged > 0 {
            out.push_str(&format!(", {} with a mark that isn't genuine", report.forged));
        }
        out.push('\n');
    } else {
        out.push_str("the provider doesn't list its clients, so only those are known that the operator keeps a record of\n");
    }
    out
}
