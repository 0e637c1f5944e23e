//! What a change of one object means to the others: who has to look again.

use super::debounce::{Debounce, Used};
use super::queue::Lane;
use super::refusals::{Outcome, Refusals};
use super::scheduler::Scheduler;
use crate::api::ApplicationLink;
use crate::api::link::{HostedServer, PresetServer, Server};
use crate::domain::ClientId;
use crate::link::cache::{Change, Key};
use crate::link::claim;
use crate::link::context::{Context, Stirred};
use crate::link::credentials;
use crate::link::decide::host_and_port;
use crate::link::demote;
use crate::link::derive;
use crate::link::ended::Version;
use crate::link::own::SeenSecret;
use crate::link::provider_pass;
use crate::link::providers::ProviderView;
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch as flag;

/// The links that refer to a Secret, by the Secret.
#[derive(Default)]
pub(super) struct Index {
    by_secret: HashMap<Key, HashSet<Key>>,
    by_link: HashMap<Key, Vec<Key>>,
}

impl Index {
    fn set(&mut self, link: &Key, secrets: Vec<Key>) {
        for old in self.by_link.remove(link).unwrap_or_default() {
            if let Some(links) = self.by_secret.get_mut(&old) {
                links.remove(link);
                if links.is_empty() {
                    self.by_secret.remove(&old);
                }
            }
        }
        for secret in &secrets {
            self.by_secret.entry(secret.clone()).or_default().insert(link.clone());
        }
        if !secrets.is_empty() {
            self.by_link.insert(link.clone(), secrets);
        }
    }
}

/// The names of all Secrets that a link reads or writes. Reads the raw spec for names alone, so
/// that also a link whose spec isn't valid yet is looked at when they appear.
fn secrets_of(link: &ApplicationLink) -> Vec<Key> {
    let namespace = link.namespace().unwrap_or_default();
    let name = link.name_any();
    let mut names = Vec::new();
    if let Some(i) = &link.spec.incoming {
        names.push(i.secret.as_ref().and_then(|s| s.name.clone()).unwrap_or_else(|| format!("{name}-oauth")));
        names.extend(i.adopt.as_ref().and_then(|a| a.secret_ref.as_ref()).map(|r| r.name.clone()));
    }
    if let Some(o) = &link.spec.outgoing {
        names.push(o.secret.as_ref().and_then(|s| s.name.clone()).unwrap_or_else(|| format!("{name}-token")));
        let client = o.oauth2.client.as_ref().and_then(|c| c.secret_ref.as_ref());
        names.extend(client.map(|r| r.name.clone()));
        names.extend(o.oauth2.grant.jwt_bearer.as_ref().map(|r| r.secret_ref.name.clone()));
        names.extend(o.oauth2.grant.refresh_token.as_ref().map(|r| r.secret_ref.name.clone()));
    }
    names.into_iter().map(|n| Key::new(namespace.clone(), n)).collect()
}

fn version_of<K: kube::ResourceExt>(object: &K) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

/// Who is waited for: the lane of a link.
pub(super) fn lane_of(ctx: &Context, key: &Key) -> Lane {
    let owner = key.namespace.clone();
    let Some(link) = ctx.links.get(key) else { return Lane { waits_for: String::new(), owner, new: false } };
    let provider = match (&link.spec.incoming, &link.spec.provider_ref) {
        (None, _) => String::new(),
        (Some(_), Some(r)) if r.kind == crate::api::link::ProviderKind::LinkProvider => {
            format!("{}/{}", key.namespace, r.name)
        }
        (Some(_), Some(r)) => r.name.clone(),
        (Some(_), None) => {
            claim::hints(link.annotations()).last().map_or_else(|| "default".into(), |c| c.name.clone())
        }
    };
    let server = link.spec.outgoing.as_ref().map(|o| server_of(&o.oauth2.server)).unwrap_or_default();
    Lane { waits_for: format!("{provider}|{server}"), owner, new: has_nothing(&link) }
}

/// Whether a link's Secrets never held anything, as far as its status tells.
fn has_nothing(link: &ApplicationLink) -> bool {
    let status = link.status.as_ref();
    let client = status.and_then(|s| s.incoming.as_ref());
    let token = status.and_then(|s| s.outgoing.as_ref()?.expires_at.as_ref());
    (link.spec.incoming.is_some() && client.is_none()) || (link.spec.outgoing.is_some() && token.is_none())
}

/// Which authorization server is waited for: host and port, or what the preset calls it.
fn server_of(server: &Server) -> String {
    let Server { google, microsoft, github, gitlab, slack, atlassian, custom } = server;
    let plain = |name, s: &Option<PresetServer>| s.as_ref().map(|s| (name, s.endpoints.clone(), None));
    let hosted =
        |name, s: &Option<HostedServer>| s.as_ref().map(|s| (name, s.endpoints.clone(), s.url.clone()));
    let preset = plain("google", google)
        .or_else(|| microsoft.as_ref().map(|s| ("microsoft", s.endpoints.clone(), None)))
        .or_else(|| hosted("github", github))
        .or_else(|| hosted("gitlab", gitlab))
        .or_else(|| plain("slack", slack))
        .or_else(|| plain("atlassian", atlassian));
    let (name, endpoints, at) = preset.unwrap_or_default();
    // An endpoint of one's own is not where the preset's other links wait.
    let own = endpoints.and_then(|e| e.token_endpoint).or(at);
    let custom = custom.as_ref().and_then(|c| c.issuer.clone().or_else(|| c.token_endpoint.clone()));
    let url = own.or(custom).and_then(|u| url::Url::parse(&u).ok());
    url.map_or_else(|| name.to_owned(), |url| host_and_port(&url))
}

/// The lane of a provider: its own, in the namespace's share. The platform team's are nobody's share.
pub(super) fn provider_lane(key: &Key) -> Lane {
    let name = format!("{}/{}", key.namespace, key.name);
    let owner = if key.namespace.is_empty() { name.clone() } else { key.namespace.clone() };
    Lane { waits_for: name, owner, new: false }
}

/// The lane of a look beside the passes: it waits for nobody.
pub(super) fn demotion_lane(key: &Key) -> Lane {
    Lane { waits_for: format!("{}/{}", key.namespace, key.name), owner: key.namespace.clone(), new: false }
}

/// Whether a link uses a provider, or might: it names it, its claim or its status does, or it takes whichever is
/// the default. Of a namespace's provider, only that namespace's do.
fn may_use(link: &ApplicationLink, view: &ProviderView) -> bool {
    if !view.is_visible_to(&link.namespace().unwrap_or_default()) {
        return false;
    }
    let named = link.spec.provider_ref.as_ref();
    let said = link.status.as_ref().and_then(|s| s.provider.as_ref());
    let is_it = |kind, name: &str| kind == view.claim.kind && name == view.claim.name;
    let claims = claim::hints(link.annotations());
    named.is_some_and(|r| is_it(r.kind, &r.name))
        || said.is_some_and(|s| is_it(s.kind, &s.name))
        || claims.iter().any(|c| c.uid == view.claim.uid)
        || (link.spec.incoming.is_some() && named.is_none() && claims.is_empty())
}

/// When a link's token is due, as far as its status tells: only for the order in which links are looked
/// at. A link that has none is looked at after those that are overdue.
fn token_due(link: &ApplicationLink, now: Timestamp) -> Timestamp {
    let outgoing = link.status.as_ref().and_then(|s| s.outgoing.as_ref());
    // A refresh that was due already isn't in the status any more; the token's end is.
    let due = outgoing.and_then(|o| match &o.next_refresh {
        Some(next) => next.parse().ok(),
        None => o.expires_at.as_ref().map(|_| Timestamp::UNIX_EPOCH),
    });
    due.unwrap_or(now)
}

/// What the watches feed.
pub(super) struct Wires {
    pub(super) ctx: Arc<Context>,
    pub(super) links: Arc<Scheduler>,
    pub(super) providers: Arc<Scheduler>,
    /// Links that may not be as their status says.
    pub(super) demotions: Arc<Scheduler>,
    pub(super) index: Mutex<Index>,
    pub(super) refusals: Mutex<Refusals>,
    pub(super) debounce: Mutex<Debounce>,
    pub(super) master_key: flag::Sender<u64>,
    pub(super) sweep: flag::Sender<u64>,
}

impl Wires {
    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn link(&self, key: Key) {
        self.link_after(key, Duration::ZERO);
    }

    fn link_after(&self, key: Key, delay: Duration) {
        let lane = lane_of(&self.ctx, &key);
        self.links.add(key, lane, delay);
    }

    /// Something near a link changed: should no pass answer it soon, it is looked at beside them.
    fn stir(&self, key: &Key, delay: Duration, change: impl FnOnce(&mut Stirred)) {
        let Some(uid) = self.ctx.links.get(key).and_then(|link| link.uid()) else { return };
        self.ctx.remember(&uid, |memo| change(&mut memo.stirred));
        self.demotions.add(key.clone(), demotion_lane(key), delay + demote::LEAVE_TO_A_PASS);
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One link of each namespace whose writes are refused tries again.
    pub(super) fn try_refused(&self) {
        let next = self.refusals().next();
        next.into_iter().for_each(|key| self.link(key));
    }

    /// A pass is over: when the token that it left ends, that is said whatever the next one waits for. Where what
    /// the API server refused goes through, others try too.
    pub(super) fn ended(&self, key: &Key, refused: bool) {
        let link = self.ctx.links.get(key);
        let stays = link.as_ref().is_some_and(|link| link.meta().deletion_timestamp.is_none());
        let outcome = match (refused, stays) {
            (true, _) => Outcome::Refused,
            (false, true) => Outcome::Through,
            (false, false) => Outcome::Gone,
        };
        let follow = self.refusals().note(key, outcome);
        follow.into_iter().for_each(|key| self.link(key));
        if let Some(left) = link.and_then(|link| demote::until_end(&self.ctx, &link)) {
            self.demotions.add(key.clone(), demotion_lane(key), left);
        }
    }

    /// At the start nobody knows whether a link is still as it says. Most of the first passes are over soon.
    pub(super) fn doubt_all(&self) {
        let now = Instant::now();
        for link in self.ctx.links.all() {
            let key = Key::of(link.as_ref());
            let secret = link.spec.outgoing.is_some().then_some((now, None));
            let stirred = Stirred { secret, client: None };
            self.ctx.remember(&link.uid().unwrap_or_default(), |memo| memo.stirred = stirred);
            let lane = demotion_lane(&key);
            self.demotions.add(key, lane, 3 * demote::LEAVE_TO_A_PASS);
        }
    }

    /// A watch saw this version of the link or of a Secret that it uses.
    fn link_saw(&self, key: Key, version: Option<Version>, delay: Duration) {
        let Some(version) = version else { return self.link_after(key, delay) };
        let lane = lane_of(&self.ctx, &key);
        self.links.tell(key, lane, version, delay);
    }

    /// How long the links that use an object wait to be woken by it.
    fn debounce(&self, of: Used, links: usize) -> Duration {
        self.debounce.lock().unwrap_or_else(PoisonError::into_inner).wait(of, links, Instant::now())
    }

    pub(super) fn provider(&self, key: Key) {
        let lane = provider_lane(&key);
        self.providers.add(key, lane, Duration::ZERO);
    }

    /// All links; those first whose token is due, in the order in which they are.
    pub(super) fn all_links(&self) {
        let mut links = self.ctx.links.all();
        let now = Timestamp::now();
        links.sort_by_cached_key(|link| token_due(link, now));
        links.iter().for_each(|l| self.link(Key::of(l.as_ref())));
    }

    /// The links that use a provider, or might: of a namespace's provider, that namespace's alone.
    pub(super) fn links_of(&self, view: &ProviderView) {
        let links: Vec<_> = self.ctx.links.all().into_iter().filter(|link| may_use(link, view)).collect();
        let delay = self.debounce(Used::Provider(view.claim.uid.clone()), links.len());
        links.iter().for_each(|link| self.link_after(Key::of(link.as_ref()), delay));
    }

    /// The links of these clients, of those that may have them at this provider: it speaks for no other. The
    /// claim of a link may be missing just now, and so may its status: what it is called is known all the same.
    pub(super) fn clients_changed(&self, view: &ProviderView, clients: &[ClientId]) {
        let ids: HashSet<&str> = clients.iter().map(ClientId::as_str).collect();
        let (keys, all) = (self.ctx.installation.keys().ok(), self.ctx.providers());
        let made = |namespace: &str, name: &str| {
            let identity = view.identity(false, namespace, &all)?;
            derive::client_id(keys.as_ref()?, &identity, namespace, name)
        };
        for link in self.ctx.links.all().iter().filter(|link| may_use(link, view)) {
            let key = Key::of(link.as_ref());
            let said = link.status.as_ref().and_then(|s| s.incoming.as_ref()).map(|i| i.client_id.as_str());
            let is_theirs = match said {
                Some(id) => ids.contains(id),
                None => made(&key.namespace, &key.name).is_some_and(|id| ids.contains(id.as_str())),
            };
            if is_theirs {
                self.stir(&key, Duration::ZERO, |stirred| stirred.client = Some(Instant::now()));
                self.link(key);
            }
        }
    }

    pub(super) fn link_changed(&self, change: Change<'_, ApplicationLink>) {
        match change {
            Change::Now(link, before) => {
                let key = Key::of(link.as_ref());
                let same = before.is_some_and(|b| {
                    b.uid() == link.uid()
                        && b.meta().generation == link.meta().generation
                        && b.meta().deletion_timestamp == link.meta().deletion_timestamp
                        && b.annotations() == link.annotations()
                        && b.finalizers() == link.finalizers()
                });
                if !same {
                    self.index().set(&key, secrets_of(link));
                    // It may name other Secrets now, or be on its way out, while a pass waits.
                    let version = version_of(link.as_ref()).map(Version::Link);
                    self.stir(&key, Duration::ZERO, |stirred| {
                        stirred.secret = Some((Instant::now(), version))
                    });
                    self.link_saw(key, version, Duration::ZERO);
                }
            }
            Change::Gone(link) => {
                let key = Key::of(link.as_ref());
                let freed = secrets_of(&link);
                self.index().set(&key, Vec::new());
                self.refusals().note(&key, Outcome::Gone);
                // Who waited for a Secret name or for a provider may go on.
                for secret in freed {
                    self.secret_users(&secret, None);
                }
                for view in self.ctx.providers().iter().filter(|v| v.deleting) {
                    self.provider(provider_pass::key_of(view));
                }
                let uid = link.uid().unwrap_or_default();
                self.ctx.memos.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                let grant = Key::new(self.ctx.namespace.as_str(), format!("applink-grant-{uid}"));
                if self.ctx.own.lock().unwrap_or_else(PoisonError::into_inner).contains(&grant) {
                    self.sweep.send_modify(|n| *n += 1);
                }
            }
            Change::Synced => {}
        }
    }

    pub(super) fn provider_changed(&self, now: Option<&ProviderView>, before: Option<&ProviderView>) {
        let Some(view) = now.or(before) else { return };
        if now != before {
            self.ctx.connections.forget(&view.claim.uid);
            if now.is_none() {
                self.ctx.memos.lock().unwrap_or_else(PoisonError::into_inner).remove(&view.claim.uid);
            }
            self.provider(provider_pass::key_of(view));
            self.links_of(view);
        }
    }

    fn secret_users(&self, key: &Key, version: Option<Version>) {
        let links: Vec<Key> = self.index().by_secret.get(key).into_iter().flatten().cloned().collect();
        let delay = self.debounce(Used::Secret(key.clone()), links.len());
        for link in links {
            self.stir(&link, delay, |stirred| stirred.secret = Some((Instant::now(), version)));
            self.link_saw(link, version, delay);
        }
    }

    pub(super) fn secret_changed(&self, change: Change<'_, SeenSecret>, synced: bool) {
        let (key, now) = match &change {
            Change::Now(s, _) => (s.key(), Some(s.as_ref())),
            Change::Gone(s) => (s.key(), None),
            Change::Synced => {
                // A watch that was interrupted may have missed that a Secret went.
                if synced {
                    self.all_links();
                }
                return;
            }
        };
        {
            let mut own = self.ctx.own.lock().unwrap_or_else(PoisonError::into_inner);
            match now.and_then(SeenSecret::ours) {
                Some(ours) => own.insert(key.clone(), ours),
                None => own.remove(&key),
            }
        }
        self.secret_users(&key, now.and_then(|s| s.version()?.parse().ok()).map(Version::Secret));
        if key.namespace == self.ctx.namespace && key.name == self.ctx.installation.secret() {
            self.master_key.send_modify(|n| *n += 1);
        }
        for view in self.ctx.providers() {
            let namespace = view.namespace.as_deref().unwrap_or(&self.ctx.namespace);
            let refers = |s| credentials::references(s).iter().any(|r| r.name == key.name);
            if namespace == key.namespace && view.service.as_ref().is_some_and(refers) {
                self.ctx.connections.forget(&view.claim.uid);
                self.provider(provider_pass::key_of(&view));
                self.links_of(&view);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_one_s_own_is_not_the_preset_s() {
        let server = |value: serde_json::Value| server_of(&serde_json::from_value(value).expect("a server"));
        let table = [
            (serde_json::json!({"google": {}}), "google"),
            (
                serde_json::json!({"google": {"endpoints": {"tokenEndpoint": "https://slow.example/t"}}}),
                "slow.example:443",
            ),
            (serde_json::json!({"gitlab": {"url": "https://git.example.com:8443"}}), "git.example.com:8443"),
            (serde_json::json!({"microsoft": {"tenant": "common"}}), "microsoft"),
            (serde_json::json!({"custom": {"issuer": "https://a.example.com/x"}}), "a.example.com:443"),
            (serde_json::json!({"custom": {"tokenEndpoint": "http://127.0.0.1:8080/t"}}), "127.0.0.1:8080"),
        ];
        for (value, wanted) in table {
            assert_eq!(server(value), wanted);
        }
    }

    #[test]
    fn the_providers_of_a_namespace_share_its_places_and_those_of_the_cluster_share_none() {
        let lane = |namespace: &str, name: &str| provider_lane(&Key::new(namespace, name));
        let (one, two) = (lane("team-b", "one"), lane("team-b", "two"));
        assert!(one.owner == two.owner && one.waits_for != two.waits_for);
        assert_ne!(one.owner, lane("team-a", "one").owner);
        assert_ne!(lane("", "one").owner, lane("", "two").owner);
        // A namespace may have the name of a cluster's provider.
        assert_ne!(lane("", "one").owner, lane("one", "x").owner);
    }
}
