//! The corpus of `tests/corpus/outbound` through a running operator; see its README. Each attempt is made as the token
//! endpoint that a link names, and by turns as the others that the operator would call: the issuer, the token endpoint
//! that discovery returns, where a grant is revoked, where a device asks, a server of one's own, a tenant's provider.
//!
//! That the answer doesn't tell what is behind an address, by its time neither, is shown by its making: no connection is
//! opened, whether something listens or not, so nothing that is behind can have a part in it.

#[path = "../../../corpus/outbound/cases.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use applink_operator::api::LinkProvider;
use applink_operator::http::RefusedReason;
use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::super::binary;
use super::super::outgoing::{machine, person};
use crate::support::plane::ControlPlane;
use crate::support::ports;
use crate::support::stage::{Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::{SOON, eventually};
use cases::{Case, Why, corpus};

/// So many attempts are made at once.
const BATCH: usize = 100;

/// What the guard says, where the text is a URL at all.
fn reason(why: Why) -> Option<RefusedReason> {
    Some(match why {
        Why::NotPublic => RefusedReason::NotPublic,
        Why::PlainHttp => RefusedReason::PlainHttp,
        Why::Port => RefusedReason::Port,
        Why::Scheme => RefusedReason::Scheme,
        Why::UserInfo => RefusedReason::UserInfo,
        Why::NoHost => RefusedReason::NoHost,
        Why::NotUrl => return None,
    })
}

/// Counts who connects to a port of loopback, by whichever of its addresses.
struct Trap {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Trap {
    async fn set() -> Self {
        let port = ports::free();
        let connections = Arc::<AtomicUsize>::default();
        let first = TcpListener::bind(("127.0.0.1", port)).await.expect("bind");
        // Not every machine has the others.
        let others = [
            TcpListener::bind(("127.255.255.254", port)).await.ok(),
            TcpListener::bind(("::1", port)).await.ok(),
        ];
        for listener in others.into_iter().flatten().chain([first]) {
            let count = connections.clone();
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    /// As the token endpoint; at a port where something listens, if the attempt has a port.
    Token,
    /// The same at a port where nothing does.
    Closed,
    Issuer,
    /// As the token endpoint of a discovery document.
    Discovered,
    Revocation,
    Device,
    /// As the address of one's own server of a kind that we know.
    Hosted,
    Provider,
}

/// Where the attempts go by turns; every one stands as a token endpoint besides.
const PLACES: [Place; 6] =
    [Place::Issuer, Place::Discovered, Place::Revocation, Place::Device, Place::Hosted, Place::Provider];

impl Place {
    /// The field that an address stands in, where it stands in one.
    fn field(self) -> &'static str {
        match self {
            Self::Token | Self::Closed => "spec.outgoing.oauth2.server.custom.tokenEndpoint",
            Self::Issuer => "spec.outgoing.oauth2.server.custom.issuer",
            Self::Discovered => "token_endpoint",
            Self::Revocation => "spec.outgoing.oauth2.server.custom.revocationEndpoint",
            Self::Device => "spec.outgoing.oauth2.server.custom.deviceAuthorizationEndpoint",
            Self::Hosted => "spec.outgoing.oauth2.server.gitlab.url",
            Self::Provider => "spec.bundled.",
        }
    }
}

/// Who said no.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum By {
    /// The API server, by the CRD. It has looked at the text alone, as have the next two.
    Schema,
    /// Our own reader of the spec.
    Spec,
    /// Our reader of discovery documents.
    Document,
    /// The guard of outgoing calls.
    Guard,
}

struct Attempt<'c> {
    case: &'c Case,
    place: Place,
    name: String,
    port: u16,
    url: String,
    object: Value,
}

/// A link whose client is that of all, at such a server.
fn link(name: &str, server: &Value) -> Value {
    let mut link = machine(name, "");
    let oauth2 = &mut link["spec"]["outgoing"]["oauth2"];
    oauth2["server"] = server.clone();
    oauth2["client"]["secretRef"]["name"] = json!("us");
    link
}

fn provider(name: &str, url: &str) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": name},
        "spec": {"bundled": {"url": url, "admin": {"url": url, "tokenSecretRef": {"name": "admin", "key": "token"}}}},
    })
}

impl<'c> Attempt<'c> {
    fn at(number: usize, case: &'c Case, place: Place, port: u16, server: &TokenServer) -> Self {
        let name = format!("{}-{number}", format!("{place:?}").to_lowercase());
        let url = case.url.replace("$PORT", &port.to_string());
        let custom = |endpoints: Value| link(&name, &json!({"custom": endpoints}));
        let object = match place {
            Place::Token | Place::Closed => custom(json!({"tokenEndpoint": url})),
            Place::Issuer => custom(json!({"issuer": url})),
            Place::Discovered => {
                let issuer = format!("/{name}");
                super::document(server, &issuer, &url);
                custom(json!({"issuer": server.url(&issuer)}))
            }
            Place::Revocation => {
                custom(json!({"tokenEndpoint": server.url("/token"), "revocationEndpoint": url}))
            }
            Place::Device => {
                let endpoints =
                    json!({"tokenEndpoint": server.url("/token"), "deviceAuthorizationEndpoint": url});
                let mut link = custom(endpoints);
                link["spec"]["outgoing"]["oauth2"]["grant"] = json!({"deviceCode": {}});
                link
            }
            Place::Hosted => link(&name, &json!({"gitlab": {"url": url}})),
            Place::Provider => provider(&name, &url),
        };
        Self { case, place, name, port, url, object }
    }

    fn title(&self) -> String {
        format!("{} ({}, {})", self.case.case, self.name, self.url)
    }

    /// Makes the object. What the API server refuses, it must refuse for the field that the address stands in.
    async fn make(&self, stage: &Stage<'_>, batch: usize) -> Option<By> {
        let mut object = self.object.clone();
        object["metadata"]["labels"] = json!({"batch": batch.to_string()});
        let made = if self.place == Place::Provider {
            let object = serde_json::from_value(object).expect("a provider");
            providers(stage).create(&PostParams::default(), &object).await.map(|_| ())
        } else {
            let object = serde_json::from_value(object).expect("a link");
            stage.links(stage.team()).create(&PostParams::default(), &object).await.map(|_| ())
        };
        match made {
            Ok(()) => None,
            Err(kube::Error::Api(status)) if status.code == 422 => {
                let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
                let named =
                    !causes.is_empty() && causes.iter().all(|c| c.field.starts_with(self.place.field()));
                assert!(named, "{}: {status:?}", self.title());
                assert!(status.message.contains(self.place.field()), "{}: {status:?}", self.title());
                Some(By::Schema)
            }
            Err(e) => panic!("{}: {e}", self.title()),
        }
    }

    /// Who says no in the conditions of an object that the API server took; `Err` while nobody does.
    fn refused_by(&self, object: &Value) -> Result<By, String> {
        let status = &object["status"];
        let not_yet = || Err(format!("{}: {}", self.title(), status["conditions"]));
        let current = status["observedGeneration"] == object["metadata"]["generation"];
        let Some(ready) = condition(status, "Ready").filter(|r| current && r["status"] == "False") else {
            return not_yet();
        };
        // Only a person can mend it.
        if self.place != Place::Provider && condition(status, "Stalled").is_none() {
            return not_yet();
        }
        match ready["reason"].as_str() {
            Some("AddressRefused") => Ok(By::Guard),
            Some("InvalidSpec") => Ok(By::Spec),
            Some("MalformedReply") if self.place == Place::Discovered => Ok(By::Document),
            _ => not_yet(),
        }
    }

    /// All that the conditions say, but for what the tenant wrote itself: names, and the address as it stands there or
    /// as it is when it is read as a URL.
    fn said(&self, object: &Value) -> String {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let lines =
            conditions.map(|c| format!("{}={} {}: {}", c["type"], c["status"], c["reason"], c["message"]));
        let all: BTreeSet<_> = lines.collect();
        let text = all.into_iter().collect::<Vec<_>>().join("\n").replace(&self.name, "NAME");
        let origin = url::Url::parse(&self.url).map(|u| u.origin().ascii_serialization());
        let text = text.replace(self.url.trim_end_matches('/'), "URL");
        origin.map_or(text.clone(), |o| text.replace(&o, "URL"))
    }

    /// The whole status but for name, port and times.
    fn status(&self, object: &Value) -> String {
        let mut status = object["status"].clone();
        for c in status["conditions"].as_array_mut().into_iter().flatten() {
            c.as_object_mut().expect("a condition").remove("lastTransitionTime");
        }
        status.to_string().replace(&self.name, "NAME").replace(&format!(":{}", self.port), ":PORT")
    }
}

fn providers(stage: &Stage<'_>) -> Api<LinkProvider> {
    Api::namespaced(stage.client.clone(), stage.team())
}

/// The objects of the team's namespace by name; those of one batch, or all.
async fn found(stage: &Stage<'_>, batch: Option<usize>) -> BTreeMap<String, Value> {
    // Without it nothing comes to pass; it says why it ended.
    stage.operator.process().must_run();
    let all = ListParams::default();
    let all = batch.map_or(all.clone(), |n| all.labels(&format!("batch={n}")));
    let links = stage.links(stage.team()).list(&all).await.expect("links");
    let providers = providers(stage).list(&all).await.expect("providers");
    let links = links.items.iter().map(|l| (l.name_any(), serde_json::to_value(l).expect("json")));
    let providers = providers.items.iter().map(|p| (p.name_any(), serde_json::to_value(p).expect("json")));
    links.chain(providers).collect()
}

/// Makes a batch of attempts and waits for the condition of each; gives back who refused each, and the objects.
async fn refusals(
    stage: &Stage<'_>,
    number: usize,
    batch: &[Attempt<'_>],
) -> (BTreeMap<String, By>, BTreeMap<String, Value>) {
    let made: Vec<_> = futures::stream::iter(batch)
        .map(async |a| (a, a.make(stage, number).await))
        .buffer_unordered(8)
        .collect()
        .await;
    let (refused, taken): (Vec<_>, Vec<_>) = made.into_iter().partition(|(_, by)| by.is_some());
    let mut by: BTreeMap<_, _> =
        refused.into_iter().filter_map(|(a, by)| Some((a.name.clone(), by?))).collect();
    let (rest, objects) = eventually(SOON, "every attempt's condition", async || {
        let is = found(stage, Some(number)).await;
        let said = taken.iter().map(|(a, _)| Ok((a.name.clone(), a.refused_by(&is[&a.name])?)));
        let (said, not_yet): (Vec<_>, Vec<_>) = said.partition(Result::is_ok);
        let not_yet: Vec<String> = not_yet.into_iter().filter_map(Result::err).collect();
        if not_yet.is_empty() {
            Ok((said.into_iter().filter_map(Result::ok).collect::<Vec<_>>(), is))
        } else {
            Err(format!("{}:\n{}", not_yet.len(), not_yet.join("\n")))
        }
    })
    .await;
    by.extend(rest);
    (by, objects)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_public_is_not_called() {
    let (trap, proxy, server) = (Trap::set().await, Trap::set().await, TokenServer::start().await);
    let closed = ports::free();
    let token = json!({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"});
    server.always("/token", Reply::json(200, &token));
    // A proxy of the environment would be asked for all of it. HTTPS_PROXY isn't here: the client of the API server heeds
    // it, as all of its kind do.
    let env: Vec<_> = ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"]
        .map(|name| json!({"name": name, "value": format!("http://127.0.0.1:{}", proxy.port)}))
        .into();
    let consent = ports::free();
    let values = json!({
        "outbound": {"allow": [format!("http://127.0.0.1:{}", server.port())]},
        "operator": {"extraEnv": env},
        "consent": {"url": format!("http://127.0.0.1:{consent}/links"), "port": consent},
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
        .flat_map(|(n, case)| {
            let twin = case.url.contains("$PORT").then_some(Place::Closed);
            let places = [Place::Token, PLACES[n % PLACES.len()]].into_iter().chain(twin);
            places.map(move |place| (n, *case, place))
        })
        .map(|(n, case, place)| {
            let port = if place == Place::Closed { closed } else { trap.port };
            Attempt::at(n, case, place, port, &server)
        })
        .collect();

    let (mut by, mut is) = (BTreeMap::new(), BTreeMap::new());
    for (number, batch) in attempts.chunks(BATCH).enumerate() {
        let (more, objects) = refusals(&stage, number, batch).await;
        by.extend(more);
        is.extend(objects);
    }

    // A refresh token isn't sent there either: the seed stays unspent.
    super::inputs(&stage, "seeded", "first-seed").await;
    stage.apply_object(team, &person("seeded", &format!("https://127.0.0.1:{}", trap.port))).await;
    stage.condition(team, "seeded", "Ready", "False", "AddressRefused").await;

    // Who refuses says what is wrong, in words that know nothing but the text: the guard's are the same for every
    // address of a kind, and a reader's name the field.
    let mut counts: BTreeMap<(By, Place), usize> = BTreeMap::new();
    let mut guarded = BTreeSet::new();
    let mut texts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for a in &attempts {
        let who = by[&a.name];
        *counts.entry((who, a.place)).or_default() += 1;
        if who == By::Schema {
            continue;
        }
        let object = &is[&a.name];
        let message = condition(&object["status"], "Ready").expect("Ready")["message"].as_str();
        let message = message.expect("a message");
        if who == By::Guard {
            let words = reason(a.case.why)
                .map(|r| r.to_string())
                .unwrap_or_else(|| panic!("{}: isn't a URL", a.title()));
            assert!(message.ends_with(&words), "{}: {message}", a.title());
            // A closed port says what an open one says.
            let place = if a.place == Place::Closed { Place::Token } else { a.place };
            texts.entry((place, words)).or_default().insert(a.said(object));
            guarded.insert(&a.case.case);
        } else {
            assert!(message.contains(a.place.field()), "{}: {message}", a.title());
        }
    }
    for (who, all) in counts.iter().fold(BTreeMap::<_, Vec<_>>::new(), |mut all, ((who, place), n)| {
        all.entry(who).or_default().push((place, n));
        all
    }) {
        let sum: usize = all.iter().map(|(_, n)| **n).sum();
        eprintln!("refused by {who:?}: {sum} {all:?}");
    }
    eprintln!(
        "{} attempts of {} cases, {} cases came as far as the guard",
        attempts.len(),
        cases.len(),
        guarded.len()
    );
    assert!(guarded.len() >= 80, "{} cases came as far as the guard", guarded.len());
    let several: Vec<_> = texts.iter().filter(|(_, t)| t.len() != 1).collect();
    assert!(several.is_empty(), "{several:#?}");

    // At an open and a closed port, one by one: the whole status, but for name, port and times.
    let mut pairs = 0;
    for closed in attempts.iter().filter(|a| a.place == Place::Closed) {
        let open = closed.name.replace("closed", "token");
        let open = attempts.iter().find(|a| a.name == open).expect("its twin");
        assert_eq!(by[&closed.name], by[&open.name], "{}", closed.title());
        if by[&open.name] != By::Schema {
            let status = |a: &Attempt<'_>| a.status(&is[&a.name]);
            assert_eq!(status(closed), status(open), "{}", open.title());
            pairs += 1;
        }
    }
    assert!(pairs >= 40, "{pairs} pairs of an open and a closed port");

    // Where there is nothing to give back, its link goes.
    let (none, all) = (DeleteParams::default(), ListParams::default());
    stage.links(team).delete_collection(&none, &all).await.expect("delete");
    providers(&stage).delete_collection(&none, &all).await.expect("delete");
    eventually(SOON, "all are gone", async || {
        let left = found(&stage, None).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{:?}", left.keys())) }
    })
    .await;
    assert_eq!((trap.connections(), proxy.connections()), (0, 0), "nothing is sent, not even a handshake");
    assert_eq!(stage.data(team, "seeded-seed").await["token"], "first-seed");
    assert!(server.asked("/token").is_empty(), "no token is got that couldn't be given back");

    // The trap is one.
    TcpStream::connect(("127.0.0.1", trap.port)).await.expect("the trap");
    eventually(SOON, "the trap counts", async || trap.connections() == 1).await;
}
