//! What a pass works with: the API server, the caches, the connections, and what is remembered
//! of each link from one pass to the next. Nothing here decides.

use super::cache::{Cache, Key};
use super::claim::Claim;
use super::connections::Connections;
use super::consent::Consent;
use super::decide::Token;
use super::discoveries::Discoveries;
use super::ended::Version;
use super::event_budget::EventBudget;
use super::facts::{Refused, SecretFact, SecretId};
use super::grant::{Access, Grant};
use super::handover;
use super::held::Tenure;
use super::installation::Installation;
use super::kept_client::KeptClients;
use super::metrics::{ByLink, ByNamespace, ByProvider, Metrics};
use super::own::OwnSecrets;
use super::problem::Problem;
use super::providers::ProviderView;
use super::secrets::Secrets;
use super::service_account::AccountTokens;
use super::shared_read::SharedReads;
use super::store::Store;
use super::taken::Taken;
use super::turns::Turns;
use crate::api::link::ProviderKind;
use crate::api::{ApplicationLink, ClusterLinkProvider, ConditionStatus, LinkProvider, names};
use crate::domain::KeyRing;
use crate::domain::keyring::digest_hex;
use crate::http::Guard;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::Recorder;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// What passes share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// This operator instance.
    pub identity: String,
    /// The guarded HTTP client.
    pub guard: Guard,
    /// The address at which people reach the operator's pages, if they do.
    pub consent_url: Option<Url>,
    /// Whether a Secret must say where it may be sent, for servers that a link names.
    pub require_allowed_hosts: bool,
    /// The least time between two refreshes of a link.
    pub min_refresh_interval: Duration,
    /// The operator's records.
    pub store: Store,
    /// Whether this instance is at work.
    pub tenure: Arc<Tenure>,
    /// The providers' connections.
    pub connections: Connections,
    /// Whose turn it is to ask a host for a token.
    pub turns: Turns,
    /// What discovery said.
    pub discoveries: Discoveries,
    /// Which clients are whose, where services keep no owners.
    pub taken: Taken,
    /// The namespaces' UIDs and labels.
    pub namespaces: Namespaces,
    /// Tokens of ServiceAccounts.
    pub accounts: AccountTokens,
    /// Whether providers stand, as it is read.
    pub standing: SharedReads<Result<bool, Problem>>,
    /// The master keys.
    pub installation: Installation,
    /// Who is told what happened.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Metrics,
    /// The links.
    pub links: Cache<ApplicationLink>,
    /// The providers of namespaces.
    pub link_providers: Cache<LinkProvider>,
    /// The providers of the cluster.
    pub cluster_providers: Cache<ClusterLinkProvider>,
    /// Our own Secrets.
    pub own: Mutex<OwnSecrets>,
    /// What is remembered of each link, by its UID.
    pub memos: Mutex<HashMap<String, Memo>>,
}

/// What is remembered of a link. All of it may be lost: a restart only costs another try.
#[derive(Debug, Clone, Default)]
pub struct Memo {
    /// Failures since the last success, or since what the link says or refers to changed.
    pub attempts: u32,
    /// The next try after a failure: what wakes the link before that isn't one, unless something changed.
    pub retry: Option<Retry>,
    /// Held while the status is written; how many passes have said theirs.
    pub saying: Arc<tokio::sync::Mutex<u64>>,
    /// Since when something near the link changed that no pass has answered yet, of which kind.
    pub stirred: Stirred,
    /// The versions that its last passes made.
    pub wrote: Vec<Version>,
    /// The UIDs of its own Secrets, by name, as they were looked at last.
    pub own: BTreeMap<String, String>,
    /// A keyed digest of what stood in the Secret of its client when all was well.
    pub credentials: Option<Credentials>,
    /// What the token in its Secret was asked for with.
    pub fingerprint: Option<String>,
    /// Of a server that refuses our client itself: how often it did.
    pub unknown_client: Option<UnknownClient>,
    /// Requests without an answer since the last one with.
    pub unanswered: u32,
    /// Whether a record of its clients was written in this life of the operator.
    pub keeps_clients: bool,
    /// The token in its Secret, as the last pass left it.
    pub token: Option<Token>,
    /// A token that its Secret couldn't be given yet, and that is kept nowhere else.
    pub in_hand: Option<Access>,
    /// A token request that was turned down.
    pub refused: Option<Turned>,
    /// Whether a refresh was sent whose answer was lost, and no token came since.
    pub doubt: bool,
    /// What is left of its events.
    pub events: EventBudget,
}

/// What changed near a link, since when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stirred {
    /// One of its Secrets.
    pub secret: Option<(Instant, Option<Version>)>,
    /// Its client at the provider.
    pub client: Option<Instant>,
}

impl Stirred {
    /// A pass that began at `started` has answered what was before it, and what it `wrote` itself is no news.
    pub fn answered(&mut self, started: Instant, wrote: &[Version]) {
        let news = |version: Option<Version>| version.is_none_or(|version| !wrote.contains(&version));
        self.secret = self.secret.filter(|(at, version)| *at > started && news(*version));
        self.client = self.client.filter(|at| *at > started);
    }

    /// Whether something changed.
    pub fn any(&self) -> bool {
        self.secret.is_some() || self.client.is_some()
    }
}

/// What stood in a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its keys that are ours.
    pub keys: Vec<String>,
    /// A keyed digest of their values.
    pub digest: String,
}

impl Credentials {
    /// Of these keys, and what stands there.
    pub fn of<'a>(keys: &KeyRing, data: impl Iterator<Item = (&'a String, Option<&'a str>)>) -> Self {
        let all: Vec<_> = data.map(|(key, value)| (key.clone(), value.unwrap_or_default())).collect();
        let parts: Vec<&str> = all.iter().flat_map(|(key, value)| [key.as_str(), *value]).collect();
        let digest = keys.fingerprint("credentials", &parts);
        Self { keys: all.into_iter().map(|(key, _)| key).collect(), digest }
    }
}

/// When something is tried again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// What was tried, and what came of it.
    pub of: String,
    /// When, by the clock that nobody sets.
    pub due: Instant,
    /// The same for people.
    pub at: Timestamp,
}

/// What a server that refuses our client was asked.
#[derive(Debug, Clone)]
pub struct UnknownClient {
    /// With what, and in which state of the link.
    pub of: String,
    /// When it refused it first.
    pub since: Instant,
    /// How often it did.
    pub times: u32,
}

/// A token request that was turned down, and the state of the link then.
#[derive(Debug, Clone)]
pub struct Turned {
    state: String,
    refused: Refused,
    /// When it may be sent again, by the clock that nobody sets: a wall clock that is put right must
    /// not make a wait of seconds one of years.
    until: Option<Instant>,
    stalls: Option<Instant>,
}

impl Turned {
    /// Turned down a moment ago.
    pub fn now(link: &ApplicationLink, refused: Refused) -> Self {
        let by = |t: Timestamp| {
            let left = Duration::try_from(t.duration_since(Timestamp::now()));
            Instant::now() + left.unwrap_or_default().min(Self::LONGEST)
        };
        let (until, stalls) = (refused.until.map(by), refused.stalls.map(by));
        Self { state: state_of(link), refused, until, stalls }
    }

    /// No wait is longer than what a server is taken at its word for.
    const LONGEST: Duration = Duration::from_secs(3600);

    fn as_of_now(&self) -> Refused {
        let at = |t: Instant| {
            let left = t.saturating_duration_since(Instant::now());
            Timestamp::now().saturating_add(left).unwrap_or(Timestamp::MAX)
        };
        let (until, stalls) = (self.until.map(at), self.stalls.map(at));
        Refused { until, stalls, ..self.refused.clone() }
    }
}

impl Context {
    /// All providers that this operator serves.
    pub fn providers(&self) -> Vec<ProviderView> {
        let namespaced = self.link_providers.all().into_iter().map(|p| ProviderView::from(p.as_ref()));
        let cluster = self.cluster_providers.all();
        let ours = cluster.iter().filter(|p| self.serves(p)).map(|p| ProviderView::from(p.as_ref()));
        namespaced.chain(ours).collect()
    }

    /// Whether a `ClusterLinkProvider` is for this operator: it says so, or it says nothing.
    pub fn serves(&self, provider: &ClusterLinkProvider) -> bool {
        provider.labels().get(names::OPERATOR_NAMESPACE).is_none_or(|n| *n == self.namespace)
    }

    /// The grant of a link, if it has or had an outgoing part.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn grant_of(&self, link: &ApplicationLink) -> Result<Option<(Grant, String)>, Problem> {
        let uid = link.uid().unwrap_or_default();
        let known = || {
            let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.contains(&Key::new(self.namespace.as_str(), format!("applink-grant-{uid}")))
        };
        if link.spec.outgoing.is_none() && !known() {
            return Ok(None);
        }
        self.store.grant(&uid).await
    }

    /// The consent under way of a link. It is looked for where one was begun, and where a record was
    /// seen.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn consent_of(&self, link: &ApplicationLink) -> Result<Option<(Consent, String)>, Problem> {
        let uid = link.uid().unwrap_or_default();
        let seen = || {
            let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.contains(&Key::new(self.namespace.as_str(), format!("applink-consent-{uid}")))
        };
        if !link.annotations().contains_key(names::AUTHORIZE) && !seen() {
            return Ok(None);
        }
        self.store.consent(&uid).await
    }

    /// What is kept of a link's clients. It is looked for where there may be any: a link that adopts
    /// one, one that claims a provider which picks identifiers or secrets, or one whose record was
    /// seen.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn kept_clients_of(
        &self,
        link: &ApplicationLink,
    ) -> Result<Option<(KeptClients, String)>, Problem> {
        let uid = link.uid().unwrap_or_default();
        let seen = || {
            let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.contains(&Key::new(self.namespace.as_str(), format!("applink-client-{uid}")))
        };
        let adopts = link.spec.incoming.as_ref().is_some_and(|i| i.adopt.is_some());
        // The watch may lag behind a record that was written a moment ago.
        let just_written = self.remember(&uid, |memo| memo.keeps_clients);
        if !adopts && !just_written && !seen() {
            return Ok(None);
        }
        self.store.clients(&uid).await
    }

    /// Looks at the Secret of this name that a link wants to write.
    pub async fn look_at(&self, secrets: &Secrets, name: &str, link: &ApplicationLink) -> SecretFact {
        let uid = link.uid().unwrap_or_default();
        let known = self.remember(&uid, |memo| memo.own.get(name).cloned());
        let fact = secrets.look(name, link, &self.links, known.as_deref()).await;
        if let SecretFact::Own(own) = &fact {
            let named = handover::written_by(link);
            self.remember(&uid, |memo| {
                // A link may name another Secret each minute.
                memo.own.retain(|name, _| named.contains(name));
                memo.own.insert(name.to_owned(), own.uid.clone())
            });
        }
        fact
    }

    /// The Secrets in a namespace that belong to a link.
    pub fn own_secrets(&self, namespace: &str, link_uid: &str) -> Vec<SecretId> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.of(namespace, link_uid)
    }

    /// The request that was turned down. One that was refused for good is worth another try once
    /// the link says something else; a server that asked for time gets it.
    pub fn refused(&self, link: &ApplicationLink) -> Option<Refused> {
        let memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = memos.get(&link.uid().unwrap_or_default())?.refused.as_ref()?;
        match turned.until {
            // Somebody wants it now: not where the server itself named a time.
            Some(_) if turned.stalls.is_some() && turned.state != state_of(link) => None,
            Some(until) => (until > Instant::now()).then(|| turned.as_of_now()),
            None => (turned.state == state_of(link)).then(|| turned.refused.clone()),
        }
    }

    /// Changes what is remembered of a link.
    pub fn remember<T>(&self, link_uid: &str, change: impl FnOnce(&mut Memo) -> T) -> T {
        let mut memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        change(memos.entry(link_uid.to_owned()).or_default())
    }

    /// Counts the links for the metrics; `each`: with the two series that each link's token has.
    pub fn count_links(&self, each: bool) {
        let links = self.links.all();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let mut ready = 0;
        self.metrics.not_ready.clear();
        for link in &links {
            let conditions = link.status.iter().flat_map(|s| &s.conditions);
            match conditions.into_iter().find(|c| c.type_ == "Ready") {
                Some(c) if c.status == ConditionStatus::True => ready += 1,
                said => {
                    let reason = said.map_or_else(|| "Unknown".to_owned(), |c| c.reason.clone());
                    let by = ByNamespace { namespace: link.namespace().unwrap_or_default(), reason };
                    self.metrics.not_ready.get_or_create(&by).inc();
                }
            }
        }
        self.metrics.ready.set(ready);
        self.metrics.links.set(count(links.len()));
        // Before anybody looked there are none: an alert needs a series to be quiet by.
        for provider in self.cluster_providers.all().iter().filter(|p| self.serves(p)) {
            let kind = ProviderKind::ClusterLinkProvider.as_str();
            let by = ByProvider { kind, namespace: String::new(), name: provider.name_any() };
            drop(self.metrics.orphans.get_or_create(&by));
        }
        // Made anew each time, so that nothing stays of a link that is gone.
        self.metrics.expiration.clear();
        self.metrics.refresh_due.clear();
        if !each {
            return;
        }
        let memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        for link in &links {
            let memo = link.meta().uid.as_ref().and_then(|uid| memos.get(uid));
            let Some(token) = memo.and_then(|m| m.token) else { continue };
            let Key { namespace, name } = Key::of(link.as_ref());
            let by = ByLink { namespace, name };
            self.metrics.expiration.get_or_create(&by).set(token.expires_at.as_second());
            self.metrics.refresh_due.get_or_create(&by).set(token.next_refresh.as_second());
        }
    }

    /// Whether a provider is there and not being deleted, asked of the API server itself after this
    /// was called.
    ///
    /// # Errors
    /// [`Problem`] when it doesn't answer.
    pub async fn provider_stands(&self, claim: &Claim, namespace: &str) -> Result<bool, Problem> {
        // By namespace too: what a name means in one is nobody's business in another.
        let name = format!("{namespace} {} {} {}", claim.kind.as_str(), claim.name, claim.uid);
        self.standing.get(&name, || self.look_whether_stands(claim, namespace)).await
    }

    async fn look_whether_stands(&self, claim: &Claim, namespace: &str) -> Result<bool, Problem> {
        let what = format!("{} {}", claim.kind.as_str(), claim.name);
        let problem = |e| Problem::kube(&what, &e);
        let meta = match claim.kind {
            ProviderKind::LinkProvider => {
                let api: Api<LinkProvider> = Api::namespaced(self.client.clone(), namespace);
                api.get_opt(&claim.name).await.map_err(problem)?.map(|p| p.metadata)
            }
            ProviderKind::ClusterLinkProvider => {
                let api: Api<ClusterLinkProvider> = Api::all(self.client.clone());
                api.get_opt(&claim.name).await.map_err(problem)?.map(|p| p.metadata)
            }
        };
        Ok(meta.is_some_and(|m| m.deletion_timestamp.is_none() && m.uid.as_deref() == Some(&claim.uid)))
    }
}

/// The state of a link after which a refused request is worth another try: an edit of the spec, or of
/// one of the annotations that tell the operator something.
pub fn state_of(link: &ApplicationLink) -> String {
    const SAY: [&str; 6] = [
        names::RETRY,
        names::ROTATE,
        names::ROTATE_NOW,
        names::ACCEPT_ENDPOINT,
        names::AUTHORIZE,
        names::COMPLETE,
    ];
    let said = SAY.iter().filter_map(|k| Some(format!("{k}={}\n", link.annotations().get(*k)?)));
    format!("{} {}", link.meta().generation.unwrap_or_default(), digest_hex(&said.collect::<String>()))
}

/// A namespace as links need it.
#[derive(Debug)]
pub struct Space {
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The namespaces that were read lately.
#[derive(Default)]
pub struct Namespaces {
    known: Mutex<HashMap<String, Read>>,
    /// How often one was forgotten: what was asked before isn't remembered after.
    forgotten: AtomicU64,
    reads: SharedReads<Result<Arc<Space>, Problem>>,
}

/// When a namespace was read, by both clocks, and what was there.
type Read = (Instant, Timestamp, Arc<Space>);

impl Namespaces {
    /// How long one is taken to be as it was. A relabelled namespace is noticed this late.
    const FRESH: Duration = Duration::from_secs(15);

    /// A namespace, as an object in it that was made at `made` must see it: one that is younger than
    /// what we know may stand in another namespace of the same name.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn get(
        &self,
        client: &Client,
        name: &str,
        made: Option<Timestamp>,
    ) -> Result<Arc<Space>, Problem> {
        if let Some((at, read, space)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name)
            && at.elapsed() < Self::FRESH
            && made.is_none_or(|made| made < *read)
        {
            return Ok(space.clone());
        }
        self.reads.get(name, || self.read(client, name)).await
    }

    /// Forgets what was read of one.
    pub fn forget(&self, name: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        known.remove(name);
    }

    async fn read(&self, client: &Client, name: &str) -> Result<Arc<Space>, Problem> {
        let read = Timestamp::now();
        let forgotten = self.forgotten.load(Ordering::Relaxed);
        let api: Api<Namespace> = Api::all(client.clone());
        let found =
            api.get_metadata(name).await.map_err(|e| Problem::kube(&format!("namespace {name}"), &e))?;
        let space = Arc::new(Space { uid: found.uid().unwrap_or_default(), labels: found.labels().clone() });
        let mut map = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, (at, ..)| at.elapsed() < Self::FRESH);
        if self.forgotten.load(Ordering::Relaxed) == forgotten {
            map.insert(name.to_owned(), (Instant::now(), read, space.clone()));
        }
        Ok(space)
    }
}
