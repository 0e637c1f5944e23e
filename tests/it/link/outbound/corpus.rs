//! The corpus of `tests/corpus/outbound` through a running operator; see its README. Each attempt is made as the token
//! endpoint that a link names, and by turns as the others that the operator would call: the issuer, the token endpoint that
//! discovery returns, the one where a grant is revoked, and a tenant's own provider.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use applink_operator::api::LinkProvider;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::binary;
use super::super::outgoing::{machine, person, with};
use crate::support::plane::ControlPlane;
use crate::support::ports;
use crate::support::stage::{Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    url: String,
    dns: Option<Vec<String>>,
    #[serde(default = "not_public")]
    why: String,
}

fn not_public() -> String {
    "NotPublic".to_owned()
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/outbound");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the corpus").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).expect("a file of the corpus");
            serde_yaml::from_str::<Vec<Case>>(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        })
        .collect()
}

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    /// As the token endpoint, at a port where something listens.
    Token,
    /// The same at one where nothing does.
    Closed,
    Issuer,
    /// As the token endpoint of a discovery document.
    Discovered,
    Revocation,
    Provider,
}

/// Where the attempts go by turns; every one stands as a token endpoint besides.
const PLACES: [Place; 4] = [Place::Issuer, Place::Discovered, Place::Revocation, Place::Provider];

impl Case {
    fn places(&self, number: usize) -> Vec<Place> {
        let closed = self.url.contains("$PORT").then_some(Place::Closed);
        [Place::Token, PLACES[number % PLACES.len()]].into_iter().chain(closed).collect()
    }
}

struct Attempt<'c> {
    case: &'c Case,
    place: Place,
    name: String,
    url: String,
    object: Value,
}

/// A link whose client is that of all.
fn link(name: &str, issuer: &str, change: Value) -> Value {
    let client = json!({"spec": {"outgoing": {"oauth2": {"client": {"secretRef": {"name": "us"}}}}}});
    with(with(machine(name, issuer), client), change)
}

fn at_endpoints(name: &str, endpoints: Value) -> Value {
    let change = json!({"spec": {"outgoing": {"oauth2": {"server": null}}}});
    let server = json!({"spec": {"outgoing": {"oauth2": {"server": {"custom": endpoints}}}}});
    with(link(name, "", change), server)
}

fn provider(name: &str, url: &str) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": name},
        "spec": {"bundled": {"url": url, "admin": {"url": url, "tokenSecretRef": {"name": "admin", "key": "token"}}}},
    })
}

fn attempt<'c>(number: usize, case: &'c Case, place: Place, trap: u16, server: &TokenServer) -> Attempt<'c> {
    let name = format!("{}-{number}", format!("{place:?}").to_lowercase());
    let port = if place == Place::Closed { ports::free() } else { trap };
    let url = case.url.replace("$PORT", &port.to_string());
    let object = match place {
        Place::Token | Place::Closed => at_endpoints(&name, json!({"tokenEndpoint": url})),
        Place::Issuer => link(&name, &url, json!({})),
        Place::Discovered => {
            let issuer = format!("/{name}");
            super::document(server, &issuer, &url);
            link(&name, &server.url(&issuer), json!({}))
        }
        Place::Revocation => {
            at_endpoints(&name, json!({"tokenEndpoint": server.url("/token"), "revocationEndpoint": url}))
        }
        Place::Provider => provider(&name, &url),
    };
    Attempt { case, place, name, url, object }
}

impl Attempt<'_> {
    fn title(&self) -> String {
        format!("{} ({}, {})", self.case.case, self.name, self.url)
    }

    /// Whether an object that the API server took says no. What isn't even a URL is refused by schema or spec; a revocation
    /// endpoint is called when the link goes, and not before.
    fn is_refused(&self, object: &Value) -> bool {
        let Some(ready) = condition(&object["status"], "Ready") else { return false };
        let reason = ready["reason"].as_str().unwrap_or_default();
        match self.place {
            Place::Revocation if ready["status"] == "True" => true,
            Place::Discovered if reason == "MalformedReply" => true,
            _ => ready["status"] == "False" && ["AddressRefused", "InvalidSpec"].contains(&reason),
        }
    }
}

/// The objects of the team's namespace by name.
async fn found(stage: &Stage<'_>) -> BTreeMap<String, Value> {
    let all = ListParams::default();
    let links = stage.links(stage.team()).list(&all).await.expect("links");
    let providers: Api<LinkProvider> = Api::namespaced(stage.client.clone(), stage.team());
    let providers = providers.list(&all).await.expect("providers");
    let links = links.items.iter().map(|l| (l.name_any(), serde_json::to_value(l).expect("json")));
    let providers = providers.items.iter().map(|p| (p.name_any(), serde_json::to_value(p).expect("json")));
    links.chain(providers).collect()
}

fn unmet(found: &BTreeMap<String, Value>, attempts: &[Attempt<'_>]) -> Vec<String> {
    let wrong = |a: &Attempt<'_>| {
        let object = found.get(&a.name)?;
        (!a.is_refused(object)).then(|| format!("{}: {}", a.title(), object["status"]["conditions"]))
    };
    attempts.iter().filter_map(wrong).collect()
}

/// All that the conditions say, but for what the tenant wrote itself and when it was said.
fn said(attempt: &Attempt<'_>, object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let lines =
        conditions.map(|c| format!("{}={} {}: {}", c["type"], c["status"], c["reason"], c["message"]));
    let all: BTreeSet<_> = lines.collect();
    let text = all.into_iter().collect::<Vec<_>>().join("\n").replace(&attempt.name, "NAME");
    let origin = url::Url::parse(&attempt.url).map(|u| u.origin().ascii_serialization());
    let text = text.replace(attempt.url.trim_end_matches('/'), "URL");
    // An issuer's and a provider's condition names the address before it says what is wrong with it.
    let text = origin.map_or(text.clone(), |o| text.replace(&o, "URL"));
    text.lines()
        .map(|l| l.rsplit_once("failed: ").map_or(l, |(_, words)| words))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_public_is_not_called() {
    let (trap, proxy, server) =
        (TokenServer::start().await, TokenServer::start().await, TokenServer::start().await);
    let token = json!({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"});
    server.always("/token", Reply::json(200, &token));
    // A proxy of the environment would be asked for all of it. HTTPS_PROXY isn't here: the client of the API server heeds it,
    // as all of its kind do.
    let env: Vec<_> = ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"]
        .map(|name| json!({"name": name, "value": proxy.url("")}))
        .into();
    let values = json!({
        "outbound": {"allow": [format!("http://127.0.0.1:{}", server.port())]},
        "operator": {"extraEnv": env},
    });
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, values).await;
    let team = stage.team();
    stage.put_secret(team, "us", &[("client-id", "us"), ("client-secret", "our-client-secret")]).await;
    stage.put_secret(team, "admin", &[("token", "x")]).await;

    let cases = corpus();
    // What a name server says of a name is tried on the client alone: this operator asks the machine's.
    let cases: Vec<_> = cases.iter().filter(|c| c.dns.is_none()).collect();
    assert!(cases.len() >= 80, "{}", cases.len());
    let attempts: Vec<_> = cases
        .iter()
        .enumerate()
        .flat_map(|(n, case)| case.places(n).into_iter().map(move |place| (n, case, place)))
        .map(|(n, case, place)| attempt(n, case, place, trap.port(), &server))
        .collect();
    let objects: Vec<_> = attempts.iter().map(|a| &a.object).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let applied = stage.apply(team, &list.to_string()).await;
    // What isn't there was refused by the API server, which has looked at the text alone.
    let taken = found(&stage).await;
    for a in attempts.iter().filter(|a| !taken.contains_key(&a.name)) {
        let refusal = format!("{:?} is invalid", a.name);
        assert!(applied.stderr.contains(&refusal), "{}: {}", a.title(), applied.stderr);
    }
    eventually(PATIENCE, "every attempt's condition", async || {
        let left = unmet(&found(&stage).await, &attempts);
        if left.is_empty() { Ok(()) } else { Err(format!("{}:\n{}", left.len(), left.join("\n"))) }
    })
    .await;

    // One text for all that aren't public: it doesn't tell what stands behind an address, or whether anything does.
    let is = found(&stage).await;
    let mut texts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut guarded = BTreeSet::new();
    for a in attempts.iter().filter(|a| is.contains_key(&a.name)) {
        let reason = condition(&is[&a.name]["status"], "Ready").expect("Ready")["reason"].clone();
        // Who read the text names what is wrong with it, and has looked at nothing else.
        if reason != "AddressRefused" {
            continue;
        }
        guarded.insert(&a.case.case);
        // A closed port says what an open one says.
        let place = if a.place == Place::Closed { Place::Token } else { a.place };
        texts.entry((place, reason.to_string(), &a.case.why)).or_default().insert(said(a, &is[&a.name]));
    }
    assert!(guarded.len() >= 80, "{} attempts came as far as the guard", guarded.len());
    let several: Vec<_> = texts.iter().filter(|(_, t)| t.len() != 1).collect();
    assert!(several.is_empty(), "{several:#?}");

    // Where a grant can't be revoked, its link goes all the same.
    let args = ["delete", "applicationlinks,linkproviders", "-n", team, "--all", "--timeout=180s"];
    stage.plane.kubectl(&args).await.ok();
    assert_eq!((trap.connections(), proxy.connections()), (0, 0), "nothing is sent, not even a handshake");
    assert!(!server.asked("/token").is_empty(), "the allowed server is called");
}

/// A refresh token is never sent where its own server isn't: the seed stays unspent.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_address_spends_no_seed() {
    let stage =
        Stage::set(ControlPlane::shared().await, binary(), 1, json!({"outbound": {"allow": []}})).await;
    let trap = TokenServer::start().await;
    super::inputs(&stage, "seeded", "first-seed").await;
    stage.apply_object(stage.team(), &person("seeded", &format!("https://127.0.0.1:{}", trap.port()))).await;
    stage.condition(stage.team(), "seeded", "Ready", "False", "AddressRefused").await;
    assert_eq!(trap.connections(), 0);
    stage.delete(stage.team(), "seeded").await;
    assert_eq!(stage.data(stage.team(), "seeded-seed").await["token"], "first-seed");
}
