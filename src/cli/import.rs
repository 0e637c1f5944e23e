//! `applink import`: manifests for the clients of a provider that no link owns.

use super::cluster::{Cluster, ClusterArgs, failed, list};
use super::house::{self, HouseArgs, ProviderArgs, Reached, Whose};
use super::lint;
use super::output::{self, clean, complain, say};
use super::{Answer, ToolError};
use crate::api::link::ProviderKind;
use crate::api::{ApplicationLink, names};
use crate::domain::{AuthMethod, ClientMetadata};
use crate::provider::RegisteredClient;
use clap::{Args, ValueEnum};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Flags of `applink import`.
#[derive(Debug, Args)]
#[command(after_help = "\
The manifests adopt the clients (spec.incoming.adopt) with their secrets as they are. Before they are applied, the provider
must list them as adoptable: what it needs stands at the top. Clients that no link can describe are named on standard error.
Exit codes: 0 written, 1 some clients can't be links, 2 wrong usage or it couldn't be asked.")]
pub struct ImportArgs {
    #[command(flatten)]
    provider: ProviderArgs,
    /// How to write them: json is one List, without the notes
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    house: HouseArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How manifests are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Documents with notes
    #[default]
    Yaml,
    /// One List
    Json,
}

/// The longest name that is made: NAME-oauth and NAME-adopted are still labels.
const MAX_NAME: usize = 50;
const SECRET_KEY: &str = "client-secret";

/// A manifest, and what is to be said of it.
struct Manifest {
    client_id: String,
    object: Value,
    /// The Secret that must have the client's secret, where it can't be read.
    secret: Option<String>,
}

/// Writes manifests.
///
/// # Errors
/// [`ToolError`] where it can't be asked.
pub async fn run(args: ImportArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let ctx = args.house.context(&cluster).await?;
    let keys = house::keys(&ctx).await?;
    let reached = args.provider.reach(&cluster, &ctx).await?;
    if !reached.connected.provider.capabilities().lists {
        return Err(ToolError::Precondition(format!(
            "{} doesn't list its clients, so nobody can tell which there are; write the manifests by hand, with \
             spec.incoming.adopt.clientId",
            reached.name()
        )));
    }
    let mut clients = reached.clients().await?;
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    let records = ctx.store.all_clients().await.map_err(|p| house::refusal("the operator's records", &p))?;
    let links = house::all_links(&cluster).await?;
    let mut taken: BTreeSet<&str> = records
        .iter()
        .filter_map(|(kept, _)| kept.perhaps_at(&reached.identity))
        .map(|(_, r)| r.id.as_str())
        .collect();
    taken.extend(links.iter().flat_map(|l| claimed(l, &reached)));
    let mut names: BTreeSet<String> = names_of(&cluster).await?;
    let (mut manifests, mut left_out) = (Vec::new(), Vec::new());
    for client in &clients {
        if reached.whose(&keys, client) != Whose::Nobody || taken.contains(client.id.as_str()) {
            continue;
        }
        match manifest(client, &reached, &cluster.namespace, &mut names)? {
            Ok(manifest) => manifests.push(manifest),
            Err(why) => left_out.push(format!("client {}: {why}", client.id)),
        }
    }
    match args.output {
        Output::Yaml => say(&yaml(&manifests, &reached, &cluster.namespace)?)?,
        Output::Json => {
            let items: Vec<&Value> = manifests.iter().map(|m| &m.object).collect();
            let all = json!({"apiVersion": "v1", "kind": "List", "items": items});
            output::Format::Json.print(&all)?;
        }
    }
    left_out.iter().for_each(|why| complain(why));
    Ok(if left_out.is_empty() { Answer::Yes } else { Answer::No })
}

/// The clients that a link names or has at this provider.
fn claimed<'l>(link: &'l ApplicationLink, reached: &Reached) -> Vec<&'l str> {
    let claim = &reached.view.claim;
    let visible = reached.view.namespace.as_ref().is_none_or(|n| Some(n) == link.namespace().as_ref());
    let (named, has) = (link.spec.provider_ref.as_ref(), link.status.as_ref());
    let provider = has.and_then(|s| s.provider.as_ref());
    let adopts = link
        .spec
        .incoming
        .as_ref()
        .and_then(|i| i.adopt.as_ref())
        .filter(|_| named.is_none_or(|r| r.kind == claim.kind && r.name == claim.name));
    let registered = has
        .and_then(|s| s.incoming.as_ref())
        .filter(|_| provider.is_some_and(|p| p.kind == claim.kind && p.name == claim.name));
    let all =
        adopts.map(|a| a.client_id.as_str()).into_iter().chain(registered.map(|i| i.client_id.as_str()));
    all.filter(|_| visible).collect()
}

/// The names that the namespace's links have.
async fn names_of(cluster: &Cluster) -> Result<BTreeSet<String>, ToolError> {
    let api: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let links =
        list(&api, &ListParams::default()).await.map_err(failed("the namespace's ApplicationLinks"))?;
    Ok(links.iter().map(kube::ResourceExt::name_any).collect())
}

/// The manifest of a client, or why no link can describe it.
fn manifest(
    client: &RegisteredClient,
    reached: &Reached,
    namespace: &str,
    names: &mut BTreeSet<String>,
) -> Result<Result<Manifest, String>, ToolError> {
    let Some(metadata) = &client.metadata else {
        return Ok(Err("it is disabled, or has values that no link can ask for; it is left out".into()));
    };
    let title = title(&metadata.name, client.id.as_str());
    let name = unique(&title, client.id.as_str(), names);
    let public = metadata.auth_method.is_public();
    let caps = reached.connected.provider.capabilities();
    let secret =
        (!public && !caps.reads_secret && client.secret.is_none()).then(|| format!("{name}-adopted"));
    let object = object(client, metadata, &title, &name, namespace, reached, secret.as_deref());
    let faults = lint::object(&object)?;
    if let Some(fault) = faults.first() {
        let way_out = "change that at the provider, or write the manifest by hand";
        return Ok(Err(format!("{}: {}; {way_out}; it is left out", fault.field, fault.message)));
    }
    names.insert(name);
    Ok(Ok(Manifest { client_id: client.id.to_string(), object, secret }))
}

fn object(
    client: &RegisteredClient,
    metadata: &ClientMetadata,
    title: &str,
    name: &str,
    namespace: &str,
    reached: &Reached,
    secret: Option<&str>,
) -> Value {
    let ClientMetadata { name: _, uri, redirect_uris, grant_types, scopes, auth_method } = metadata;
    let mut application = json!({"name": title});
    if let Some(uri) = uri {
        application["url"] = json!(uri);
    }
    let mut oauth2 = json!({"grantTypes": grant_types});
    if !redirect_uris.is_empty() {
        oauth2["redirectUris"] = redirect_uris.iter().map(|u| json!(u.as_str())).collect();
    }
    if !scopes.is_empty() {
        oauth2["scopes"] = scopes.iter().map(|s| json!(s.as_str())).collect();
    }
    if *auth_method != AuthMethod::default() {
        oauth2["tokenEndpointAuthMethod"] = json!(auth_method.as_str());
    }
    let mut adopt = json!({"clientId": client.id.as_str()});
    if let Some(secret) = secret {
        adopt["secretRef"] = json!({"name": secret, "key": SECRET_KEY});
    }
    let claim = &reached.view.claim;
    json!({
        "apiVersion": format!("{}/v1alpha1", names::GROUP),
        "kind": "ApplicationLink",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "application": application,
            "providerRef": {"kind": claim.kind.as_str(), "name": claim.name},
            "incoming": {"oauth2": oauth2, "adopt": adopt},
            "deletionPolicy": "Retain",
        },
    })
}

/// What people will see: the client's name where a link can have it.
fn title(name: &str, id: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(128).collect();
    let plain = plain.trim();
    if plain.is_empty() { id.chars().take(128).collect() } else { plain.to_owned() }
}

/// A name as RFC 1123 has it that no other link has.
fn unique(title: &str, id: &str, taken: &BTreeSet<String>) -> String {
    let slug = |text: &str| {
        let mut out = String::new();
        for c in text.chars() {
            if c.is_ascii_alphanumeric() {
                out.push(c.to_ascii_lowercase());
            } else if !out.is_empty() && !out.ends_with('-') {
                out.push('-');
            }
            if out.len() >= MAX_NAME - 5 {
                break;
            }
        }
        out.trim_end_matches('-').to_owned()
    };
    let base = [slug(title), slug(id)].into_iter().find(|s| !s.is_empty()).unwrap_or_else(|| "client".into());
    if !taken.contains(&base) {
        return base;
    }
    (2..).map(|n| format!("{base}-{n}")).find(|name| !taken.contains(name)).unwrap_or(base)
}

fn yaml(manifests: &[Manifest], reached: &Reached, namespace: &str) -> Result<String, ToolError> {
    let claim = &reached.view.claim;
    let mut out = format!(
        "# {} client{} of {} {} that no link owns.\n",
        manifests.len(),
        if manifests.len() == 1 { "" } else { "s" },
        claim.kind.as_str(),
        clean(&claim.name)
    );
    if manifests.is_empty() {
        return Ok(out);
    }
    out.push_str(
        "# They are kept when a link is deleted (deletionPolicy: Retain); change that once all is well.\n",
    );
    out.push_str("# The provider must list them first:\n#\n# spec:\n");
    // JSON is YAML: text in quotes stays on its line, whatever stands in it.
    let quoted = |text: &str| Value::from(text).to_string();
    let indent = match claim.kind {
        ProviderKind::ClusterLinkProvider => {
            out.push_str("#   allow:\n#     adoptable:\n");
            "#     "
        }
        ProviderKind::LinkProvider => {
            out.push_str("#   adoptable:\n");
            "#   "
        }
    };
    for m in manifests {
        let id = quoted(&m.client_id);
        out.push_str(&match claim.kind {
            ProviderKind::ClusterLinkProvider => {
                format!("{indent}- {{clientId: {id}, namespace: {}}}\n", quoted(namespace))
            }
            ProviderKind::LinkProvider => format!("{indent}- {id}\n"),
        });
    }
    for m in manifests {
        out.push_str("---\n");
        if let Some(secret) = &m.secret {
            out.push_str(&format!(
                "# The provider doesn't show the secret of this client: put it into Secret {secret}, key {SECRET_KEY}, before\n\
                 # this is applied (kubectl create secret generic {secret} -n {namespace} --from-file={SECRET_KEY}=FILE).\n",
            ));
        }
        out.push_str(&output::yaml(&m.object)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_any_title() {
        let taken = BTreeSet::from(["wiki".to_owned(), "wiki-2".to_owned()]);
        assert_eq!(unique("CI dashboard (old)", "x", &taken), "ci-dashboard-old");
        assert_eq!(unique("Wiki", "x", &taken), "wiki-3");
        assert_eq!(unique("ÄÖ 日本", "Client_7", &taken), "client-7");
        assert_eq!(unique("!", "~", &taken), "client");
        let long = unique(&"long name ".repeat(30), "x", &taken);
        assert!(long.len() <= MAX_NAME && !long.ends_with('-'), "{long}");
        assert_eq!(title("a\nb\u{7}", "x"), "a b");
        assert_eq!(title(" \n", "the-id"), "the-id");
    }
}
