//! `applink status`: a tree from provider to link to Secret.

use super::cluster::{Cluster, ClusterArgs, failed, is_forbidden, list, why};
use super::links::{self, ProviderRow, Readiness, owns};
use super::output::{Colour, Format, Paint, clean, complain, relative, say};
use super::{Answer, ToolError};
use crate::api::{ApplicationLink, ClusterLinkProvider, LinkProvider, names};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use std::collections::BTreeMap;

/// Flags of `applink status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 all that is shown is ready, 1 something isn't, 2 wrong usage or the cluster couldn't be asked.
Fields of -o json and yaml: ready; providers (kind, namespace, name, type, url, ready, reason, message, since); links
(namespace, name, application, direction, provider {kind, name}, ready, reason, message, since, suspended, deleting,
incoming {clientId, secret {name, state}, rotatedAt, nextRotation, previousUntil}, outgoing {secret {name, state}, expiresAt, lastRefresh, nextRefresh},
conditions). A Secret's state is present, missing, foreign, or unknown where you may not list Secrets.")]
pub struct StatusArgs {
    /// The link; left out: all of the namespace
    name: Option<String>,
    /// Links of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    providers: Vec<ProviderRow>,
    links: Vec<LinkRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkRow {
    namespace: String,
    name: String,
    application: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<crate::api::link::ProviderStatusRef>,
    #[serde(flatten)]
    readiness: Readiness,
    suspended: bool,
    deleting: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    incoming: Option<IncomingRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outgoing: Option<OutgoingRow>,
    conditions: Vec<crate::api::common::Condition>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IncomingRow {
    client_id: String,
    secret: SecretRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_until: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OutgoingRow {
    secret: SecretRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_refresh: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_refresh: Option<String>,
}

#[derive(Debug, Serialize)]
struct SecretRow {
    name: String,
    state: &'static str,
}

/// The Secrets that could be seen, by namespace and name; `None` where we may not look.
type Secrets = Option<BTreeMap<(String, String), PartialObjectMeta<Secret>>>;

impl LinkRow {
    fn new(link: &ApplicationLink, secrets: &Secrets) -> Self {
        let namespace = link.namespace().unwrap_or_default();
        let status = link.status.clone().unwrap_or_default();
        let suspended = link.spec.suspend;
        let secret = |name: &str| SecretRow {
            name: name.to_owned(),
            state: match secrets.as_ref().map(|s| s.get(&(namespace.clone(), name.to_owned()))) {
                None => "unknown",
                Some(None) => "missing",
                Some(Some(found)) if owns(link, found) => "present",
                Some(Some(_)) => "foreign",
            },
        };
        Self {
            name: link.name_any(),
            application: link.spec.application.name.clone(),
            direction: status.direction,
            provider: status.provider,
            readiness: Readiness::of_link(link),
            suspended,
            deleting: link.metadata.deletion_timestamp.is_some(),
            incoming: status.incoming.map(|i| IncomingRow {
                secret: secret(&i.secret_name),
                client_id: i.client_id,
                rotated_at: i.rotated_at,
                next_rotation: i.next_rotation,
                previous_until: i.previous_until,
            }),
            outgoing: status.outgoing.map(|o| OutgoingRow {
                secret: secret(&o.secret_name),
                expires_at: o.expires_at,
                last_refresh: o.last_refresh,
                next_refresh: o.next_refresh.filter(|_| !suspended),
            }),
            conditions: status.conditions,
            namespace,
        }
    }
}

/// Shows the tree.
///
/// # Errors
/// [`ToolError`] when the cluster can't be asked.
pub async fn run(args: StatusArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let (links, providers) =
        tokio::try_join!(links_of(&cluster, &args), providers_of(&cluster, args.all_namespaces))?;
    let secrets = secrets_of(&cluster, args.all_namespaces).await?;
    let providers: Vec<ProviderRow> =
        providers.into_iter().filter(|p| args.name.is_none() || links.iter().any(|l| p.is_of(l))).collect();
    let groups: Vec<Option<usize>> =
        links.iter().map(|l| providers.iter().position(|p| p.is_of(l))).collect();
    let rows: Vec<LinkRow> = links.iter().map(|l| LinkRow::new(l, &secrets)).collect();
    let ready = rows
        .iter()
        .map(|l| &l.readiness)
        .chain(providers.iter().map(|p| &p.readiness))
        .all(Readiness::is_ready);
    let report = Report { ready, providers, links: rows };
    if !args.output.print(&report)? {
        say(&tree(&report, &groups, Paint::detect(), Timestamp::now()))?;
        if report.links.is_empty() {
            let place = if args.all_namespaces {
                "any namespace".into()
            } else {
                format!("namespace {}; -A looks in all namespaces", cluster.namespace)
            };
            complain(&format!("no ApplicationLinks in {place}"));
        }
    }
    Ok(if ready { Answer::Yes } else { Answer::No })
}

async fn links_of(cluster: &Cluster, args: &StatusArgs) -> Result<Vec<ApplicationLink>, ToolError> {
    if let Some(name) = &args.name {
        return Ok(vec![links::get(cluster, name).await?]);
    }
    let api: Api<ApplicationLink> = if args.all_namespaces {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    list(&api, &ListParams::default()).await.map_err(failed("ApplicationLinks"))
}

/// The providers of both kinds that may be seen. Tenants may often not see the cluster's.
pub(super) async fn providers_of(cluster: &Cluster, all: bool) -> Result<Vec<ProviderRow>, ToolError> {
    let cluster_wide: Api<ClusterLinkProvider> = Api::all(cluster.client.clone());
    let own: Api<LinkProvider> = if all {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    let params = ListParams::default();
    let (cluster_wide, own) = tokio::join!(list(&cluster_wide, &params), list(&own, &params));
    let mut found: Vec<ProviderRow> = Vec::new();
    match cluster_wide {
        Ok(all) => found.extend(all.iter().map(ProviderRow::from)),
        Err(e) if is_forbidden(&e) => complain(&format!("warning: ClusterLinkProviders: {}", why(&e))),
        Err(e) => return Err(failed("ClusterLinkProviders")(e)),
    }
    match own {
        Ok(all) => found.extend(all.iter().map(ProviderRow::from)),
        Err(e) if is_forbidden(&e) => complain(&format!("warning: LinkProviders: {}", why(&e))),
        Err(e) => return Err(failed("LinkProviders")(e)),
    }
    Ok(found)
}

/// Names and owners of the operator's Secrets, without what is in them.
async fn secrets_of(cluster: &Cluster, all: bool) -> Result<Secrets, ToolError> {
    let api: Api<Secret> = if all {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    let selector = format!("{}={}", names::MANAGED_BY, names::MANAGED_BY_VALUE);
    let mut params = ListParams::default().labels(&selector).limit(500);
    let mut found = BTreeMap::new();
    loop {
        let page = match api.list_metadata(&params).await {
            Ok(page) => page,
            Err(e) if is_forbidden(&e) => return Ok(None),
            Err(e) => return Err(failed("Secrets")(e)),
        };
        found.extend(page.items.into_iter().map(|s| ((s.namespace().unwrap_or_default(), s.name_any()), s)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(Some(found)),
        }
    }
}

struct Tree {
    out: String,
    paint: Paint,
    now: Timestamp,
}

fn tree(report: &Report, groups: &[Option<usize>], paint: Paint, now: Timestamp) -> String {
    let mut tree = Tree { out: String::new(), paint, now };
    for (i, provider) in report.providers.iter().enumerate() {
        let place = provider.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        let url = provider.url.as_deref().unwrap_or_default();
        let type_ = provider.type_.as_deref().unwrap_or_default();
        let head = format!("{} {place}{}", provider.kind, provider.name);
        tree.object("", "", &head, &provider.readiness, &[type_, url]);
        tree.links(report.links.iter().zip(groups).filter(|(_, g)| **g == Some(i)).map(|(l, _)| l).collect());
    }
    let alone: Vec<&LinkRow> =
        report.links.iter().zip(groups).filter(|(_, g)| g.is_none()).map(|(l, _)| l).collect();
    // Links of one provider that can't be seen stand together too.
    let mut unseen: BTreeMap<String, Vec<&LinkRow>> = BTreeMap::new();
    for link in alone {
        let head = match &link.provider {
            Some(p) => format!("{} {} (not visible to you, or gone)", p.kind.as_str(), p.name),
            None => "no provider".to_owned(),
        };
        unseen.entry(head).or_default().push(link);
    }
    for (head, links) in unseen {
        tree.out.push_str(&format!("{}\n", clean(&head)));
        tree.links(links);
    }
    tree.out
}

impl Tree {
    fn ago(&self, time: &str) -> String {
        relative(time, self.now).unwrap_or_else(|| clean(time).into_owned())
    }

    fn times(&self, text: &mut String, times: &[(&str, &Option<String>)]) {
        for (what, time) in times {
            if let Some(time) = time {
                text.push_str(&format!("  {what} {}", self.ago(time)));
            }
        }
    }

    fn object(&mut self, branch: &str, below: &str, head: &str, readiness: &Readiness, more: &[&str]) {
        let (mark, colour) = match readiness.ready {
            "True" => ("Ready", Colour::Green),
            "False" => ("Not ready", Colour::Red),
            _ => ("Unknown", Colour::Yellow),
        };
        let mut line = format!(
            "{branch}{}  {}",
            self.paint.paint(Colour::Bold, &clean(head)),
            self.paint.paint(colour, mark)
        );
        if !readiness.reason.is_empty() {
            line.push_str(&format!(" ({})", clean(&readiness.reason)));
        }
        if let Some(since) = &readiness.since {
            line.push_str(&format!(" {}", self.paint.paint(Colour::Dim, &self.ago(since))));
        }
        for part in more.iter().filter(|p| !p.is_empty()) {
            line.push_str(&format!("  {}", clean(part)));
        }
        self.out.push_str(&line);
        self.out.push('\n');
        if !readiness.is_ready() && !readiness.message.is_empty() {
            self.out.push_str(&format!("{below}    {}\n", clean(&readiness.message)));
        }
    }

    fn links(&mut self, links: Vec<&LinkRow>) {
        let last = links.len().saturating_sub(1);
        for (i, link) in links.into_iter().enumerate() {
            let (branch, below) = if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let mut more = vec![link.application.as_str()];
            more.extend(link.direction.as_deref());
            more.extend(link.suspended.then_some("suspended"));
            more.extend(link.deleting.then_some("being deleted"));
            let head = format!("ApplicationLink {}/{}", link.namespace, link.name);
            self.object(branch, below, &head, &link.readiness, &more);
            // Ready has been said; the others only where they aren't as they should be.
            for c in &link.conditions {
                let normal = matches!(c.type_.as_str(), "Registered" | "Authorized" | "TokenFresh");
                let fine = c.status == crate::api::ConditionStatus::True;
                let told = c.message == link.readiness.message;
                if c.type_ == "Ready" || normal == fine {
                    continue;
                }
                let message = if told { String::new() } else { format!(": {}", c.message) };
                let text = format!("{}={:?} ({}){message}", c.type_, c.status, c.reason);
                let since = self.ago(&c.last_transition_time);
                self.out.push_str(&format!("{below}    {} {since}\n", clean(&text)));
            }
            let mut leaves = Vec::new();
            if let Some(incoming) = &link.incoming {
                let IncomingRow { secret, client_id, .. } = incoming;
                let mut text = format!("Secret {}  {}  client {client_id}", secret.name, secret.state);
                let times = [
                    ("next rotation", &incoming.next_rotation),
                    ("old secret ends", &incoming.previous_until),
                ];
                self.times(&mut text, &times);
                leaves.push(text);
            }
            if let Some(outgoing) = &link.outgoing {
                let mut text = format!("Secret {}  {}", outgoing.secret.name, outgoing.secret.state);
                let times = [("ends", &outgoing.expires_at), ("next refresh", &outgoing.next_refresh)];
                self.times(&mut text, &times);
                leaves.push(text);
            }
            let end = leaves.len().saturating_sub(1);
            for (j, leaf) in leaves.iter().enumerate() {
                let twig = if j == end { "└─ " } else { "├─ " };
                self.out.push_str(&format!("{below}{twig}{}\n", clean(leaf)));
            }
        }
    }
}
